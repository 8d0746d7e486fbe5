//! The simulated PostgreSQL: rows, transactions, WAL, one logical slot.
//!
//! Holds, as in the real one:
//! - "committed" (a commit record in the WAL), "visible" (gone from the list of running transactions) and "flushed"
//!   are three moments in any distance; the slot streams what is flushed, in commit order;
//! - a row stays locked until its writer is visible, so that two writers of a row are visible in commit order;
//! - TRUNCATE, VACUUM FULL and a rewriting ALTER lock the table until they are visible: readers wait for them, and
//!   they for readers;
//! - a snapshot is `xmin:xmax:running`; ids are given out when a transaction first writes, in any order to commits;
//! - a crash takes back every commit that was not flushed, though SQL had seen it; its place in the WAL is used again.

use crate::change::{Lsn, Snapshot};

use super::script::{BODY, KEYS, Op, SCALAR, Scenario, TABLES, VECTOR};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceRow {
    /// By column; index 0, the key, is not used.
    pub(super) values: [u16; 4],
    pub(super) range: usize,
    /// Matches the publication's row filter.
    pub(super) published: bool,
}

pub(super) type Rows = [Option<SourceRow>; KEYS];
pub(super) type State = [Rows; TABLES];

/// A change as pgoutput sends it. `missing`: a bit for each column that is not sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Insert {
        table: usize,
        key: usize,
        row: SourceRow,
        missing: u64,
    },
    Update {
        table: usize,
        old_key: Option<usize>,
        key: usize,
        row: SourceRow,
        missing: u64,
    },
    Delete {
        table: usize,
        key: usize,
    },
    /// A bit for each table.
    Truncate {
        tables: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Set { table: usize, key: usize, row: Option<SourceRow> },
    Truncate { table: usize },
    VacuumFull { table: usize },
    Rewrite { table: usize },
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) xid: u64,
    pub(super) final_lsn: Lsn,
    pub(super) end_lsn: Lsn,
    pub(super) visible: bool,
    /// Each event with the state that it leads to.
    pub(super) events: Vec<(Event, State)>,
    /// The state after the commit.
    pub(super) after: State,
    writes: Vec<Write>,
    locks: Locks,
}

#[derive(Clone, Copy, Debug, Default)]
struct Locks {
    rows: [u64; TABLES],
    /// A bit for each table that is locked as a whole.
    exclusive: u64,
}

impl Locks {
    fn of(ops: &[(usize, Op)], tables: usize) -> Locks {
        let mut locks = Locks::default();
        for &(table, op) in ops {
            match op {
                Op::Insert { key, .. }
                | Op::Update { key, .. }
                | Op::Delete { key }
                | Op::Leave { key }
                | Op::Enter { key } => locks.rows[table] |= 1 << key,
                Op::ChangeKey { from, to } => locks.rows[table] |= 1 << from | 1 << to,
                Op::Truncate { all: true } => locks.exclusive |= (1 << tables) - 1,
                Op::Truncate { all: false } | Op::VacuumFull | Op::Rewrite => locks.exclusive |= 1 << table,
            }
        }
        locks
    }

    fn conflict(&self, other: &Locks) -> bool {
        (0..TABLES).any(|table| {
            let bit = 1 << table;
            self.rows[table] & other.rows[table] != 0
                || self.exclusive & bit != 0 && (other.exclusive & bit != 0 || other.rows[table] != 0)
                || other.exclusive & bit != 0 && self.rows[table] != 0
        })
    }
}

pub(super) struct Source {
    pub(super) tables: usize,
    wide: bool,
    script: Vec<Vec<(usize, Op)>>,
    /// The next transaction of the script to commit.
    next: usize,
    /// The next transaction waits for its table locks; whoever comes after it queues behind.
    queued: bool,
    /// Ids of transactions of the script that have begun and not committed.
    begun: Vec<(usize, u64)>,
    initial: State,
    /// In commit order.
    pub(super) committed: Vec<Transaction>,
    next_xid: u64,
    pub(super) insert_lsn: Lsn,
    pub(super) flushed_lsn: Lsn,
    /// L0.
    pub(super) consistent_point: Lsn,
    pub(super) confirmed_flush: Lsn,
    /// Grows with every crash: connections of an earlier one are dead.
    pub(super) generation: u32,
    pub(super) timeline: u32,
    /// Where the timeline before this one ended.
    pub(super) switchpoint: Lsn,
    last_value: u16,
    poisoned: Vec<u16>,
}

impl Source {
    pub(super) fn new(scenario: &Scenario, first_xid: u64) -> Source {
        let mut source = Source {
            tables: scenario.tables,
            wide: scenario.wide,
            script: scenario.script.clone(),
            next: 0,
            queued: false,
            begun: Vec::new(),
            initial: State::default(),
            committed: Vec::new(),
            next_xid: first_xid,
            insert_lsn: Lsn(1000),
            flushed_lsn: Lsn(1000),
            consistent_point: Lsn(1000),
            confirmed_flush: Lsn(1000),
            generation: 0,
            timeline: 1,
            switchpoint: Lsn::ZERO,
            last_value: 0,
            poisoned: Vec::new(),
        };
        for &(table, key, range) in &scenario.initial {
            let values = [0, source.value(), source.value(), source.value()];
            source.initial[table][key] = Some(SourceRow { values, range, published: true });
        }
        for _ in 0..scenario.below_slot {
            if source.may_commit(0) {
                source.commit();
            }
        }
        source.flushed_lsn = source.insert_lsn;
        source.consistent_point = source.insert_lsn;
        source.confirmed_flush = source.insert_lsn;
        source
    }

    fn value(&mut self) -> u16 {
        self.last_value += 1;
        self.last_value
    }

    pub(super) fn is_poisoned(&self, scalar: u16) -> bool {
        self.poisoned.contains(&scalar)
    }

    // ------------------------------------------------------------------------------------------- transactions

    /// The state after every commit, visible or not.
    pub(super) fn current(&self) -> &State {
        self.committed.last().map_or(&self.initial, |transaction| &transaction.after)
    }

    pub(super) fn initial(&self) -> &State {
        &self.initial
    }

    pub(super) fn script_is_over(&self) -> bool {
        self.next == self.script.len()
    }

    /// Transactions of the script that may begin: take an id without committing soon.
    pub(super) fn may_begin(&self) -> impl Iterator<Item = usize> + '_ {
        (self.next..self.script.len()).filter(|i| self.begun.iter().all(|(begun, _)| begun != i))
    }

    pub(super) fn begin(&mut self, index: usize) -> u64 {
        let xid = self.take_xid();
        self.begun.push((index, xid));
        xid
    }

    /// An id of a transaction that is over at once.
    pub(super) fn take_xid(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    /// May the next transaction of the script commit, while readers lock the tables of `read_locked` (a bit each)?
    pub(super) fn may_commit(&self, read_locked: u64) -> bool {
        let Some(ops) = self.script.get(self.next) else { return false };
        let locks = Locks::of(ops, self.tables);
        locks.exclusive & read_locked == 0
            && self.committed.iter().all(|earlier| earlier.visible || !earlier.locks.conflict(&locks))
    }

    pub(super) fn commit(&mut self) {
        let ops = self.script[self.next].clone();
        let position = self.begun.iter().position(|(index, _)| *index == self.next);
        let xid = match position {
            Some(position) => self.begun.swap_remove(position).1,
            None => self.take_xid(),
        };
        self.next += 1;
        self.queued = false;
        let mut transaction = Transaction {
            xid,
            final_lsn: Lsn(self.insert_lsn.0 + 80),
            end_lsn: Lsn(self.insert_lsn.0 + 100),
            visible: false,
            events: Vec::new(),
            after: *self.current(),
            writes: Vec::new(),
            locks: Locks::of(&ops, self.tables),
        };
        for (table, op) in ops {
            self.execute(table, op, &mut transaction);
        }
        self.insert_lsn = transaction.end_lsn;
        self.committed.push(transaction);
    }

    fn execute(&mut self, table: usize, op: Op, transaction: &mut Transaction) {
        let rows = &transaction.after[table];
        match op {
            Op::Insert { key, range, poison } if rows[key].is_none() => {
                let values = [0, self.value(), self.value(), self.value()];
                if poison {
                    self.poisoned.push(values[SCALAR]);
                }
                let row = SourceRow { values, range, published: true };
                let event = Event::Insert { table, key, row, missing: 0 };
                self.apply(transaction, Write::Set { table, key, row: Some(row) }, Some(event));
            }
            Op::Update { key, columns, range, poison } => {
                let Some(mut row) = rows[key] else { return };
                for column in [SCALAR, VECTOR, BODY] {
                    if columns & 1 << column != 0 {
                        row.values[column] = self.value();
                    }
                }
                if poison && columns & 1 << SCALAR != 0 {
                    self.poisoned.push(row.values[SCALAR]);
                }
                row.range = range.unwrap_or(row.range);
                let missing = self.large_columns() & !columns;
                let event = row.published.then_some(Event::Update { table, old_key: None, key, row, missing });
                self.apply(transaction, Write::Set { table, key, row: Some(row) }, event);
            }
            Op::Delete { key } => {
                let Some(row) = rows[key] else { return };
                let event = row.published.then_some(Event::Delete { table, key });
                self.apply(transaction, Write::Set { table, key, row: None }, event);
            }
            Op::ChangeKey { from, to } if rows[to].is_none() => {
                let Some(mut row) = rows[from] else { return };
                row.values[SCALAR] = self.value();
                let missing = self.large_columns();
                let event =
                    row.published.then_some(Event::Update { table, old_key: Some(from), key: to, row, missing });
                self.apply(transaction, Write::Set { table, key: from, row: None }, None);
                self.apply(transaction, Write::Set { table, key: to, row: Some(row) }, event);
            }
            Op::Leave { key } => {
                let Some(mut row) = rows[key].filter(|row| row.published) else { return };
                row.values[SCALAR] = self.value();
                row.published = false;
                let event = Event::Delete { table, key };
                self.apply(transaction, Write::Set { table, key, row: Some(row) }, Some(event));
            }
            Op::Enter { key } => {
                let Some(mut row) = rows[key].filter(|row| !row.published) else { return };
                row.values[SCALAR] = self.value();
                row.published = true;
                let event = Event::Insert { table, key, row, missing: self.large_columns() };
                self.apply(transaction, Write::Set { table, key, row: Some(row) }, Some(event));
            }
            Op::Truncate { all } => {
                let tables = if all { (1 << self.tables) - 1 } else { 1 << table };
                for table in (0..self.tables).filter(|table| tables & 1 << table != 0) {
                    self.apply(transaction, Write::Truncate { table }, None);
                }
                transaction.events.push((Event::Truncate { tables }, transaction.after));
            }
            Op::VacuumFull => self.apply(transaction, Write::VacuumFull { table }, None),
            Op::Rewrite => self.apply(transaction, Write::Rewrite { table }, None),
            Op::Insert { .. } | Op::ChangeKey { .. } => {}
        }
    }

    fn large_columns(&self) -> u64 {
        if self.wide { 1 << VECTOR | 1 << BODY } else { 1 << VECTOR }
    }

    fn apply(&self, transaction: &mut Transaction, write: Write, event: Option<Event>) {
        apply(&mut transaction.after, &write);
        transaction.writes.push(write);
        if let Some(event) = event {
            transaction.events.push((event, transaction.after));
        }
    }

    /// May the next transaction of the script ask for a table lock that it does not get yet?
    pub(super) fn may_queue(&self) -> bool {
        let locks = self.script.get(self.next).map(|ops| Locks::of(ops, self.tables));
        !self.queued && locks.is_some_and(|locks| locks.exclusive != 0)
    }

    pub(super) fn queue(&mut self) {
        self.queued = true;
    }

    /// Would a reader that comes now have to wait?
    pub(super) fn blocks_readers(&self, table: usize) -> bool {
        let queued = self.queued && Locks::of(&self.script[self.next], self.tables).exclusive & 1 << table != 0;
        queued || self.is_exclusively_locked(table)
    }

    pub(super) fn is_exclusively_locked(&self, table: usize) -> bool {
        self.committed.iter().any(|transaction| !transaction.visible && transaction.locks.exclusive & 1 << table != 0)
    }

    // ------------------------------------------------------------------------------------------------- readers

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut running: Vec<u64> = self.begun.iter().map(|(_, xid)| *xid).collect();
        running.extend(self.committed.iter().filter(|transaction| !transaction.visible).map(|t| t.xid));
        running.sort_unstable();
        Snapshot { xmin: running.first().copied().unwrap_or(self.next_xid), xmax: self.next_xid, running }
    }

    /// What a statement with this snapshot reads.
    pub(super) fn read(&self, table: usize, snapshot: &Snapshot) -> Rows {
        let mut state = self.initial;
        for transaction in self.committed.iter().filter(|transaction| snapshot.sees(transaction.xid)) {
            for write in &transaction.writes {
                apply(&mut state, write);
            }
        }
        state[table]
    }

    /// What it reads if the snapshot is older than the lock: of a table that was rewritten in between, the new file.
    pub(super) fn read_unlocked(&self, table: usize, snapshot: &Snapshot) -> Rows {
        let mut rows = self.read(table, snapshot);
        for transaction in self.committed.iter().filter(|t| t.visible && !snapshot.sees(t.xid)) {
            for write in &transaction.writes {
                match write {
                    Write::Truncate { table: of } | Write::Rewrite { table: of } if *of == table => {
                        rows = Rows::default()
                    }
                    Write::VacuumFull { table: of } if *of == table => {
                        rows.iter_mut().flatten().for_each(|row| row.range = 0);
                    }
                    _ => {}
                }
            }
        }
        rows
    }

    /// `pg_relation_filenode`, as a transaction that sees `snapshot` would know it.
    pub(super) fn file_node(&self, table: usize, snapshot: &Snapshot) -> u32 {
        let rewrites = |transaction: &Transaction| {
            let of_table = |write: &&Write| match write {
                Write::Truncate { table: of } | Write::Rewrite { table: of } | Write::VacuumFull { table: of } => {
                    *of == table
                }
                Write::Set { .. } => false,
            };
            transaction.writes.iter().filter(of_table).count() as u32
        };
        1 + self.committed.iter().filter(|transaction| snapshot.sees(transaction.xid)).map(rewrites).sum::<u32>()
    }

    // ------------------------------------------------------------------------------------------------- the slot

    /// The first transaction that the server sends to a stream from `start_lsn`.
    pub(super) fn first_after(&self, lsn: Lsn) -> usize {
        self.committed.partition_point(|transaction| transaction.end_lsn <= lsn)
    }

    /// The states that the source had from position `from` on, up to `events` events into transaction `next`.
    pub(super) fn states(&self, from: Lsn, next: usize, events: usize) -> impl Iterator<Item = &State> {
        let first = self.first_after(from);
        let before = match first {
            0 => &self.initial,
            _ => &self.committed[first - 1].after,
        };
        let whole = self.committed[first..next.max(first)].iter();
        let whole = whole.flat_map(|t| t.events.iter().map(|(_, state)| state).chain([&t.after]));
        let part = self.committed.get(next).into_iter().flat_map(move |t| t.events[..events].iter().map(|(_, s)| s));
        [before].into_iter().chain(whole).chain(part)
    }

    /// Is there a transaction that SQL sees and a crash would take back?
    pub(super) fn shows_unflushed(&self) -> bool {
        self.committed.iter().rev().any(|transaction| transaction.visible && transaction.end_lsn > self.flushed_lsn)
    }

    // -------------------------------------------------------------------------------------------------- faults

    /// The WAL ends at `end`: a crash (`end` = flushed), or a server that takes over. Its connections are dead, what
    /// was running is aborted, what it kept is visible.
    pub(super) fn lose_after(&mut self, end: Lsn) {
        self.committed.retain(|transaction| transaction.end_lsn <= end);
        self.committed.iter_mut().for_each(|transaction| transaction.visible = true);
        let kept = self.committed.iter().map(|transaction| transaction.xid + 1).max();
        self.begun.clear();
        self.queued = false;
        // Ids that left no trace in the WAL are given out again, but never one that the past could see.
        self.next_xid = kept.unwrap_or(self.next_xid).max(self.next_xid.saturating_sub(2));
        self.insert_lsn = end;
        self.flushed_lsn = end;
        self.generation += 1;
    }
}

fn apply(state: &mut State, write: &Write) {
    match *write {
        Write::Set { table, key, row } => state[table][key] = row,
        Write::Truncate { table } => state[table] = Rows::default(),
        Write::VacuumFull { table } => state[table].iter_mut().flatten().for_each(|row| row.range = 0),
        Write::Rewrite { .. } => {}
    }
}
