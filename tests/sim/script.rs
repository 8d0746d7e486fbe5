//! What happens at the source in one run: the rows at the start, transactions in commit order, and how many faults of
//! each kind there may be. A named scenario is written down; a random one is drawn from the run's seed.

use super::rng::Rng;

pub(super) const TABLES: usize = 2;
pub(super) const KEYS: usize = 4;
pub(super) const RANGES: usize = 2;

/// Columns of a row, by their place in the plan. `BODY` exists in wide tables only.
pub(super) const SCALAR: usize = 1;
pub(super) const VECTOR: usize = 2;
pub(super) const BODY: usize = 3;

/// A statement. One that finds no row to change, or its key taken, changes nothing, as in PostgreSQL with
/// `ON CONFLICT DO NOTHING`: so a script stays valid when a crash of the server takes some of it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The target refuses a poisoned row until it is healed.
    Insert {
        key: usize,
        range: usize,
        poison: bool,
    },
    /// `columns`: a bit for each that gets a new value; a vector or body that does not is not sent (`u`).
    Update {
        key: usize,
        columns: u64,
        range: Option<usize>,
        poison: bool,
    },
    Delete {
        key: usize,
    },
    ChangeKey {
        from: usize,
        to: usize,
    },
    /// Of this table, or of all tables.
    Truncate {
        all: bool,
    },
    /// Compacts everything into the first range; a new file node, no event.
    VacuumFull,
    /// A rewriting ALTER TABLE: a new file node, not MVCC safe, no event.
    Rewrite,
    /// The row stops, or begins, to match the publication's row filter.
    Leave {
        key: usize,
    },
    Enter {
        key: usize,
    },
}

pub(super) fn insert(key: usize, range: usize) -> Op {
    Op::Insert { key, range, poison: false }
}
pub(super) fn insert_poison(key: usize, range: usize) -> Op {
    Op::Insert { key, range, poison: true }
}
pub(super) fn scalar(key: usize) -> Op {
    Op::Update { key, columns: 1 << SCALAR, range: None, poison: false }
}
pub(super) fn scalar_poison(key: usize) -> Op {
    Op::Update { key, columns: 1 << SCALAR, range: None, poison: true }
}
pub(super) fn scalar_moves(key: usize, range: usize) -> Op {
    Op::Update { key, columns: 1 << SCALAR, range: Some(range), poison: false }
}
pub(super) fn vector(key: usize) -> Op {
    Op::Update { key, columns: 1 << VECTOR, range: None, poison: false }
}
pub(super) fn both_poison(key: usize) -> Op {
    Op::Update { key, columns: 1 << SCALAR | 1 << VECTOR, range: None, poison: true }
}
pub(super) fn body(key: usize) -> Op {
    Op::Update { key, columns: 1 << BODY, range: None, poison: false }
}
pub(super) fn delete(key: usize) -> Op {
    Op::Delete { key }
}
pub(super) fn rekey(from: usize, to: usize) -> Op {
    Op::ChangeKey { from, to }
}
pub(super) fn truncate() -> Op {
    Op::Truncate { all: false }
}

/// How often each fault may happen in a run. Finite, so that every run must come to rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// `kill -9` of the daemon.
    pub(super) kills: u32,
    /// A clean stop and start.
    pub(super) clean_stops: u32,
    /// Attempts whose answer is lost; what they have not applied may land late.
    pub(super) lost_answers: u32,
    /// The replication connection is cut.
    pub(super) cuts: u32,
    /// The server crashes and loses commits that were not flushed.
    pub(super) server_crashes: u32,
    /// Another server takes over, at a point that may be behind.
    pub(super) failovers: u32,
    /// A table changes its shape and must stop.
    pub(super) unfit: u32,
    /// A table that stopped lets go of the slot, and is copied again later.
    pub(super) let_go: u32,
    /// A table that stopped gets a new collection, while the stream goes on.
    pub(super) remakes: u32,
    /// A person tries a dead letter again, though nothing has changed.
    pub(super) retries: u32,
    /// The target takes poisoned rows from then on.
    pub(super) heals: u32,
}

impl Faults {
    /// Some kinds of faults do not happen in this run: what needs none of them is found sooner.
    pub(super) fn thinned(mut self, rng: &mut Rng) -> Faults {
        let kinds = [
            &mut self.kills,
            &mut self.clean_stops,
            &mut self.lost_answers,
            &mut self.cuts,
            &mut self.server_crashes,
            &mut self.failovers,
            &mut self.unfit,
            &mut self.let_go,
            &mut self.remakes,
            &mut self.retries,
            &mut self.heals,
        ];
        for kind in kinds {
            if rng.percent(40) {
                *kind = 0;
            }
        }
        self
    }
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) tables: usize,
    /// Tables have a second large column.
    pub(super) wide: bool,
    /// (table, key, range) of the rows that are there at the start.
    pub(super) initial: Vec<(usize, usize, usize)>,
    /// The copy is still to be done; else the target holds the rows at the start already.
    pub(super) copying: bool,
    pub(super) script: Vec<Vec<(usize, Op)>>,
    /// So many transactions of the script are committed below the slot's consistent point, and not yet visible.
    pub(super) below_slot: usize,
    /// The target has old entities of every key, and the copy is to remove those that have no row.
    pub(super) sweeps: bool,
    /// Refused rows become dead letters instead of stopping their table.
    pub(super) dead_letters: bool,
    pub(super) faults: Faults,
}

impl Scenario {
    /// One table; faults of the common kinds.
    pub(super) fn new(initial: &[(usize, usize)], copying: bool, script: &[&[Op]]) -> Scenario {
        Scenario {
            tables: 1,
            wide: false,
            initial: initial.iter().map(|&(key, range)| (0, key, range)).collect(),
            copying,
            script: script.iter().map(|ops| ops.iter().map(|&op| (0, op)).collect()).collect(),
            below_slot: 0,
            sweeps: false,
            dead_letters: false,
            faults: Faults { kills: 2, clean_stops: 1, lost_answers: 1, cuts: 1, ..Faults::default() },
        }
    }

    pub(super) fn below_slot(mut self, transactions: usize) -> Scenario {
        self.below_slot = transactions;
        self
    }

    pub(super) fn sweeps(mut self) -> Scenario {
        self.sweeps = true;
        self
    }

    pub(super) fn dead_letters(mut self) -> Scenario {
        self.dead_letters = true;
        self.faults.retries = 2;
        self.faults.heals = 1;
        self
    }

    pub(super) fn wide(mut self) -> Scenario {
        self.wide = true;
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Faults)) -> Scenario {
        change(&mut self.faults);
        self
    }

    /// Any script of at most six transactions. Statements are drawn against the rows that will be there, so that
    /// most of them change something.
    pub(super) fn random(rng: &mut Rng) -> Scenario {
        let tables = if rng.percent(25) { 2 } else { 1 };
        let wide = rng.percent(35);
        let (poisons, filters) = (rng.percent(25), rng.percent(20));
        let mut present = [[None; KEYS]; TABLES];
        let mut initial = Vec::new();
        for (table, rows) in present.iter_mut().enumerate().take(tables) {
            for (key, row) in rows.iter_mut().enumerate() {
                if rng.percent(50) {
                    let range = rng.below(RANGES);
                    *row = Some(true);
                    initial.push((table, key, range));
                }
            }
        }
        let transactions = 1 + rng.below(6);
        let mut script = Vec::new();
        for _ in 0..transactions {
            let length = rng.pick(&[0, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
            let mut ops = Vec::new();
            for _ in 0..length {
                let table = rng.below(tables);
                ops.push((table, random_op(rng, &mut present, table, wide, poisons, filters)));
            }
            script.push(ops);
        }
        let faults = Faults {
            kills: rng.pick(&[0, 0, 1, 1, 2, 3]),
            clean_stops: rng.pick(&[0, 0, 1]),
            lost_answers: rng.pick(&[0, 0, 1, 2]),
            cuts: rng.pick(&[0, 0, 1, 2]),
            server_crashes: rng.pick(&[0, 0, 0, 1]),
            failovers: rng.pick(&[0, 0, 0, 1]),
            unfit: rng.pick(&[0, 0, 0, 0, 0, 0, 1]),
            let_go: rng.pick(&[0, 1, 2]),
            remakes: rng.pick(&[0, 0, 1]),
            retries: rng.pick(&[0, 0, 1, 3]),
            heals: rng.pick(&[0, 1]),
        };
        let copying = rng.percent(60);
        let below_slot = if copying && rng.percent(20) { rng.below(transactions + 1) } else { 0 };
        let dead_letters = rng.percent(60);
        let sweeps = copying && rng.percent(30);
        Scenario { tables, wide, initial, copying, script, below_slot, sweeps, dead_letters, faults }
    }
}

/// `present`: per key, `None` = no row, `Some(true)` = a row that matches the filter.
fn random_op(
    rng: &mut Rng,
    present: &mut [[Option<bool>; KEYS]; TABLES],
    table: usize,
    wide: bool,
    poisons: bool,
    filters: bool,
) -> Op {
    let poison = poisons && rng.percent(25);
    if rng.percent(4) {
        let all = rng.percent(40);
        for rows in present.iter_mut().enumerate().filter(|(i, _)| all || *i == table).map(|(_, rows)| rows) {
            *rows = [None; KEYS];
        }
        return Op::Truncate { all };
    }
    if rng.percent(6) {
        return rng.pick(&[Op::VacuumFull, Op::Rewrite]);
    }
    let rows = &mut present[table];
    let there: Vec<usize> = (0..KEYS).filter(|&key| rows[key].is_some()).collect();
    let free: Vec<usize> = (0..KEYS).filter(|&key| rows[key].is_none()).collect();
    if there.is_empty() || (!free.is_empty() && rng.percent(22)) {
        let key = rng.pick(&free);
        rows[key] = Some(true);
        return Op::Insert { key, range: rng.below(RANGES), poison };
    }
    let key = rng.pick(&there);
    match rng.below(100) {
        0..16 => {
            rows[key] = None;
            Op::Delete { key }
        }
        16..38 if !free.is_empty() => {
            let to = rng.pick(&free);
            rows[to] = rows[key].take();
            Op::ChangeKey { from: key, to }
        }
        38..55 if filters => {
            let matches = rows[key].expect("chosen among the rows that are there");
            rows[key] = Some(!matches);
            if matches { Op::Leave { key } } else { Op::Enter { key } }
        }
        _ => {
            let columns = match rng.below(if wide { 8 } else { 6 }) {
                0..=2 => 1 << SCALAR,
                3 | 4 => 1 << VECTOR,
                5 => 1 << SCALAR | 1 << VECTOR,
                6 => 1 << BODY,
                _ => 1 << VECTOR | 1 << BODY,
            };
            let range = rng.percent(25).then(|| rng.below(RANGES));
            Op::Update { key, columns, range, poison }
        }
    }
}
