//! The engine: ordering, coalescing, copy hand-over, progress. One state machine without IO, clock or tasks.
//!
//! In: what the stream and the copy bring, what Milvus and PostgreSQL answered, and the time. Out: effects to be
//! carried out (`poll_effect`) and one number, `progress`: the position below which nothing is left to do.
//!
//! ```text
//!  stream ─ begin, change, commit ─┐        ┌─ lane ─ pending → in flight ─┐
//!                                  ├ router ┼─ lane                        ├─ Send ──► Milvus ─ answered ─┐
//!  copy ── open_chunk, chunk_rows ─┘        └─ lane  (one request each)    ┘                              │
//!                                     ▲                                                                  ▼
//!                                     └─ Fetch: columns the stream left out                        ledger: progress
//! ```
//!
//! Holds, for every table that is not stopped:
//! - the mutations of one key leave in the order of their transactions, one at a time, and nothing newer leaves while
//!   an attempt without an answer may still land (S);
//! - an upsert is complete: a value that the stream left out comes from the same key's pending or in-flight row, or
//!   is fetched by a snapshot that sees the change (K, M), and a delete that it covered is not forgotten (B);
//! - a row read by SQL is dispatched only if its snapshot saw everything dispatched before its chunk was opened and
//!   everything from before the stream began (V), it is durable at the source (W), and the stream has not touched its
//!   key since;
//! - nothing beyond the sent limit on disk is sent (G);
//! - `progress` never passes a transaction of which any change is unacknowledged.
//!
//! The letters are explained in `docs/correctness.md`, with the trace that made each rule necessary.
//!
//! Here are the types, the clock and what is known; `router` takes the stream, `copying` the chunks, `sending` has the way
//! to Milvus and back, `letters` what becomes of rows that it will not take. `entry` is the state of one key, `ledger` the progress.
//!
//! Not here: SQL and locks (`postgres::copy`), retries and bisection of a request (`pipeline::requests`), what is
//! durable (`checkpoint`), joining all of it (`pipeline`). The simulator that hunts this module lives in `tests/sim`
//! but is compiled into this crate's tests, because the switches that break a rule (`Flaw`) must not exist in a release.

mod chunk;
mod copying;
mod entry;
mod lane;
mod ledger;
mod letters;
mod router;
mod sending;
#[cfg(test)]
#[path = "../../tests/sim/mod.rs"]
mod simulator;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::change::{FullXid, Lsn, Row, TableId, Value};
use crate::mutation::{Key, Mutations, Refusal};

use chunk::{Chunk, Dispatched};
use lane::Lane;
use ledger::Ledger;
use letters::Settling;
use table::Table;

pub use letters::{DeadRow, LetterId};
pub use table::TableStatus;

/// Bounds. Milliseconds are those of the caller's clock.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// Requests in flight per table.
    pub lanes: usize,
    pub request_rows_max: usize,
    pub request_bytes_max: usize,
    /// Bytes of keys in one chunk's touched set; beyond it the chunk is given up and read again.
    pub touched_bytes_max: usize,
    /// Bytes of rows held, stream and copy together; a single row or chunk may go beyond.
    pub memory_bytes: usize,
    /// How soon a fetch whose snapshot did not see the change yet is tried again.
    pub fetch_retry_ms: u64,
}

/// A table as it stands when the engine starts.
#[derive(Clone, Copy, Debug)]
pub struct TableStart {
    /// Number of columns of its rows, at most 64.
    pub columns: usize,
    /// A bit for every key column: these are never missing and never fetched.
    pub key_columns: u64,
    /// A bit for every column that the stream never carries: what an earlier row had there says nothing of a later one.
    pub reread_columns: u64,
    /// Its copy finished before this process began.
    pub copied: bool,
    /// Its collection may have entities of rows that are gone, until the copy is finished: what the stream brings lies over
    /// them as over a delete (B).
    pub sweep: bool,
    /// Dead letters that it may have; one more stops it.
    pub letters_max: usize,
}

/// Where the stream starts and what an earlier process may have left behind.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The stream starts here: everything below is acknowledged and durable.
    pub checkpoint: Lsn,
    /// The server's insert position when the stream was started: below it, replays may show old states (H).
    pub server_lsn: Lsn,
    /// T as it is on disk (G).
    pub sent_limit: Lsn,
    /// X of rule V: assigned by the server after the stream was started.
    pub visible_from: FullXid,
    /// Nothing is sent before: requests of an earlier process may land until then (S). 0 after a clean stop.
    pub quiet_until: u64,
    pub now: u64,
}

/// A row change with its keys worked out. Values that a REPLICA IDENTITY FULL old row had are already filled in.
#[derive(Clone, Debug)]
pub enum KeyedChange {
    /// May lack columns: a row that enters a publication's filter is an insert without its unchanged values (Q).
    Insert {
        key: Key,
        row: Row,
    },
    /// `old_key` only if the key changed.
    Update {
        old_key: Option<Key>,
        key: Key,
        row: Row,
    },
    Delete {
        key: Key,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// One request to one collection.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: RequestId,
    pub table: TableId,
    pub lane: usize,
    pub mutations: Arc<Mutations>,
}

/// Columns to read from the source by key.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    pub id: FetchId,
    pub table: TableId,
    /// A bit for every column to read.
    pub columns: u64,
    /// Key columns are known in the row.
    pub rows: Vec<(Key, Row)>,
}

/// Fetched columns by key: the column's index in the row, and its value.
pub type FetchedRows = Vec<(Key, Vec<(usize, Value)>)>;

/// May a chunk's snapshot be read?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    Valid,
    /// Not yet: this transaction is not over or not visible. Take a new snapshot for the same chunk (C).
    NotYet {
        blocking: FullXid,
    },
}

/// What the shell must carry out, in this order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write T, flush it, then `sent_limit_raised`.
    RaiseSentLimit(Lsn),
    /// Send, repeat until there is an outcome for every key, then `answered`.
    Send(Request),
    /// Read, then `fetched` or `fetch_failed`.
    Fetch(FetchRequest),
    /// Ask for `pg_current_wal_flush_lsn()` until it is here, then `flushed`.
    WaitFlushed(Lsn),
    /// Empty the collection, then `truncated`.
    Truncate(TableId),
    /// Every row of the chunk is acknowledged or superseded: mark it done, durably.
    ChunkDone { chunk: ChunkId, table: TableId },
    /// The chunk must be read again. `overflow`: the stream touched too many of its keys; the next time, `hold` it.
    ChunkAbandoned { chunk: ChunkId, table: TableId, overflow: bool },
    /// A row was refused and its delete acknowledged: write the letter, durably, then `letter_settled`.
    KeepLetter(LetterId, Box<DeadRow>),
    /// The key (`None`: every key of the table) is at the target again, or deleted: take its letter away, durably, then
    /// `letter_settled`.
    ClearLetters { letter: LetterId, table: TableId, key: Option<Key> },
    /// The table takes no more changes until the daemon starts anew; its share of the WAL is kept.
    TableStopped { table: TableId, key: Option<Key>, refusal: Refusal },
}

/// Ways to break one rule each, so that the simulator can prove that it would notice. Never in a release build.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Rows are dispatched from any snapshot.
    NoVisibilityCheck,
    /// Only transactions that this process dispatched are checked, not those from before it.
    VisibilityOfThisProcessOnly,
    /// A chunk opens in the middle of a transaction, which is then not checked.
    HalfDispatchedNotChecked,
    NoTouchedSets,
    /// A touched set with false positives.
    LossyTouchedSet,
    /// A chunk row is dropped because its key is pending or in flight.
    DropChunkRowIfBusy,
    /// An update without its vector, on a pending delete, takes the deleted row's values for whole.
    MergeOntoDelete,
    /// A delete and an upsert of one key leave in one request.
    DeleteAndUpsertInOneFlush,
    FetchWithoutGuard,
    /// A fetch is guarded by the entry's oldest transaction instead of its newest.
    GuardByOldest,
    /// A key change carries values that came from a chunk or a fetch.
    CarryFromChunkRow,
    NoEmbargo,
    NoQuietStart,
    /// Progress does not wait for acknowledgements.
    ProgressBeforeAck,
    /// A chunk is done when its rows are dispatched.
    ChunkDoneBeforeAck,
    NoFlushWait,
    /// Rows that were read and not yet delivered when a connection was lost are taken.
    RowsInHandSurviveDiscard,
    NoBeneath,
    NoSentLimit,
    TruncateLeavesChunks,
    NoHorizon,
    /// A letter counts before it is durable.
    LetterNotAwaited,
    /// A refused row becomes a letter, and the entity of its key stays.
    LetterWithoutDelete,
    /// What the stream brings to a table that is swept is taken to lie over nothing.
    SweepForgetsBeneath,
}

/// Something that becomes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Quiet,
    Lane(TableId, usize),
    Fetch(TableId, usize),
}

/// The state machine. See the module's head.
pub struct Engine {
    settings: EngineSettings,
    now: u64,
    quiet_until: u64,
    tables: Vec<Table>,
    ledger: Ledger,
    /// The open transaction: its place in the ledger, xid, and position for T.
    open: Option<OpenTransaction>,
    /// Position of the last thing that the stream delivered.
    dispatched_lsn: Lsn,
    dispatched: Dispatched,
    chunks: HashMap<ChunkId, Chunk>,
    next_chunk: u64,
    /// Tables of a TRUNCATE that is being carried out; the stream waits.
    barrier: Vec<Truncate>,
    barrier_position: Lsn,
    flush_lsn: Lsn,
    sent_limit: Lsn,
    sent_limit_asked: Lsn,
    limit_waiters: Vec<(TableId, usize)>,
    requests: HashMap<RequestId, (TableId, usize)>,
    fetches: HashMap<FetchId, (TableId, usize)>,
    next_id: u64,
    timers: BTreeSet<(u64, Timer)>,
    ready: VecDeque<(TableId, usize)>,
    effects: VecDeque<Effect>,
    /// Letters that are being written or taken away.
    settling: HashMap<LetterId, (TableId, Settling)>,
    /// Bytes of rows in lanes and in chunks that wait to be dispatched.
    held_bytes: usize,
    #[cfg(test)]
    flaws: Vec<Flaw>,
}

#[derive(Clone, Copy)]
struct OpenTransaction {
    seq: ledger::Seq,
    xid: u32,
    position: Lsn,
}

/// A table of the TRUNCATE that is being carried out.
#[derive(Clone, Copy)]
struct Truncate {
    table: TableId,
    /// The transaction that waits for it.
    seq: ledger::Seq,
    /// The target was asked; before that the table's lanes run dry.
    asked: bool,
}

impl Engine {
    pub fn new(settings: EngineSettings, tables: Vec<TableStart>, start: Start) -> Engine {
        assert!(settings.lanes > 0 && settings.request_rows_max > 0, "a lane sends at least one row");
        let tables = tables.into_iter().map(|table| Table::new(table, settings.lanes, start.server_lsn)).collect();
        let mut engine = Engine {
            settings,
            now: start.now,
            quiet_until: start.quiet_until,
            tables,
            ledger: Ledger::new(start.checkpoint),
            open: None,
            dispatched_lsn: start.checkpoint,
            dispatched: Dispatched::new(start.visible_from),
            chunks: HashMap::new(),
            next_chunk: 0,
            barrier: Vec::new(),
            barrier_position: Lsn::ZERO,
            flush_lsn: Lsn::ZERO,
            sent_limit: start.sent_limit,
            sent_limit_asked: start.sent_limit,
            limit_waiters: Vec::new(),
            requests: HashMap::new(),
            fetches: HashMap::new(),
            next_id: 0,
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            effects: VecDeque::new(),
            settling: HashMap::new(),
            held_bytes: 0,
            #[cfg(test)]
            flaws: Vec::new(),
        };
        if engine.tables.iter().all(|table| table.copied) {
            engine.dispatched.stop_tracking();
        }
        if start.quiet_until > start.now {
            engine.timers.insert((start.quiet_until, Timer::Quiet));
        }
        engine
    }

    /// The time. Never goes back.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(&(due, timer)) = self.timers.first() {
            if due > self.now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Quiet => {
                    for table in 0..self.tables.len() {
                        for lane in 0..self.settings.lanes {
                            self.wake(TableId(table as u32), lane);
                        }
                    }
                    self.drive_barrier();
                }
                Timer::Lane(table, lane) => {
                    self.tables[table.0 as usize].lanes[lane].lift_embargo(self.now);
                    self.wake(table, lane);
                    self.drive_barrier();
                }
                Timer::Fetch(table, lane) => self.emit_fetch(table, lane),
            }
        }
    }

    /// When `advance` must be called at the latest.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// The next thing to carry out. Ask after everything at hand was fed in: what is fed together leaves together.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            let (table, lane) = self.ready.pop_front()?;
            self.tables[table.0 as usize].lanes[lane].awake = false;
            self.start_lane(table, lane);
        }
    }

    /// Everything below is acknowledged: may be written down as the checkpoint.
    pub fn progress(&self) -> Lsn {
        #[cfg(test)]
        if self.flaws.contains(&Flaw::ProgressBeforeAck) {
            return if self.open.is_none() { self.dispatched_lsn } else { self.ledger.progress() };
        }
        self.ledger.progress()
    }

    /// Position of the last thing that the stream delivered.
    pub fn dispatched_lsn(&self) -> Lsn {
        self.dispatched_lsn
    }

    /// Nothing pending, nothing in flight, no chunk open, no TRUNCATE under way.
    pub fn is_idle(&self) -> bool {
        self.barrier.is_empty() && self.chunks.is_empty() && self.tables.iter().all(Table::is_idle)
    }

    /// No earlier attempt may still land.
    pub fn settled(&self) -> bool {
        self.now >= self.quiet_until && self.tables.iter().all(|table| table.lanes.iter().all(Lane::settled))
    }

    /// T as it is on disk, as far as the engine knows.
    pub fn sent_limit(&self) -> Lsn {
        self.sent_limit
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Is a TRUNCATE or a chunk keeping the stream waiting (and not the budget)?
    pub fn holds_stream(&self) -> bool {
        !self.barrier.is_empty() || self.chunks.values().any(Chunk::holds_stream)
    }

    pub fn table(&self, id: TableId) -> TableStatus {
        let table = &self.tables[id.0 as usize];
        let at_rest = self.open.is_none() && table.is_idle() && table.lanes.iter().all(Lane::settled);
        table.status(
            self.progress(),
            at_rest && self.chunks.values().all(|chunk| chunk.table != id),
            self.flaw_no_horizon(),
        )
    }

    #[cfg(test)]
    pub fn sabotage(&mut self, flaw: Flaw) {
        self.flaws.push(flaw);
        if matches!(flaw, Flaw::NoQuietStart) {
            self.quiet_until = 0;
        }
    }

    fn table_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.tables[id.0 as usize]
    }

    /// The lane may have something to send when effects are next asked for.
    fn wake(&mut self, table: TableId, lane_index: usize) {
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        if !lane.awake {
            lane.awake = true;
            self.ready.push_back((table, lane_index));
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Switches of the simulator; constant in a release.
macro_rules! flaws {
    ($($name:ident => $flaw:ident),* $(,)?) => {
        impl Engine {
            $(#[inline]
            fn $name(&self) -> bool {
                #[cfg(test)]
                return self.flaws.contains(&Flaw::$flaw);
                #[cfg(not(test))]
                return false;
            })*
        }
    };
}

flaws! {
    flaw_half_dispatched => HalfDispatchedNotChecked,
    flaw_no_flush_wait => NoFlushWait,
    flaw_rows_in_hand_survive => RowsInHandSurviveDiscard,
    flaw_no_embargo => NoEmbargo,
    flaw_guard_by_oldest => GuardByOldest,
    flaw_no_guard => FetchWithoutGuard,
    flaw_no_sent_limit => NoSentLimit,
    flaw_no_horizon => NoHorizon,
    flaw_letter_not_awaited => LetterNotAwaited,
    flaw_sweep_forgets_beneath => SweepForgetsBeneath,
    flaw_truncate_leaves_chunks => TruncateLeavesChunks,
    flaw_carry_from_chunk_row => CarryFromChunkRow,
}
