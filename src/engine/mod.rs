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
//! Not here: SQL and locks (`postgres::copy`), retries and bisection of a request (`pipeline::requests`), what is
//! durable (`checkpoint`), joining all of it (`pipeline`). The simulator that hunts this module lives in `tests/sim`
//! but is compiled into this crate's tests, because the switches that break a rule (`Flaw`) must not exist in a release.

mod chunk;
mod entry;
mod lane;
mod ledger;
#[cfg(test)]
#[path = "../../tests/sim/mod.rs"]
mod simulator;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::change::{FullXid, Lsn, Row, Snapshot, TableId, Value};
use crate::mutation::{Key, Mutations, Refusal};

use chunk::{Chunk, Dispatched};
use entry::{Content, Entry};
use lane::{Lane, Phase};
use ledger::Ledger;
use table::Table;

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
    /// Its copy finished before this process began.
    pub copied: bool,
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

    // ------------------------------------------------------------------------------------------------ the stream

    /// May another event of the stream be delivered now? False while a TRUNCATE is carried out, while a chunk holds
    /// the stream, and while the rows held exceed the budget.
    pub fn wants_stream(&self) -> bool {
        self.barrier.is_empty()
            && self.held_bytes < self.settings.memory_bytes
            && !self.chunks.values().any(Chunk::holds_stream)
    }

    /// A transaction begins; `final_lsn` is the start of its commit record.
    pub fn begin(&mut self, final_lsn: Lsn, xid: u32) {
        assert!(self.open.is_none(), "transactions do not nest in protocol version 1");
        let seq = self.ledger.begin();
        // One past the start of the commit record: a timeline that ends there has not got the transaction.
        let position = Lsn(final_lsn.0 + 1);
        self.open = Some(OpenTransaction { seq, xid, position });
        self.dispatched_lsn = self.dispatched_lsn.max(position);
    }

    /// A change of the open transaction.
    pub fn change(&mut self, table: TableId, change: KeyedChange) {
        let open = self.open.expect("a change belongs to a transaction");
        if self.table_mut(table).stopped.is_some() {
            return; // the ledger holds progress since the table was stopped
        }
        self.note_dispatched(open.xid);
        match change {
            KeyedChange::Insert { key, row } => {
                self.touch(table, &key);
                self.push_stream_row(table, key, row, None, open);
            }
            KeyedChange::Update { old_key: None, key, row } => {
                self.touch(table, &key);
                let base = if row.missing() == 0 { None } else { self.base_of_same_key(table, &key) };
                self.push_stream_row(table, key, row, base, open);
            }
            KeyedChange::Update { old_key: Some(old_key), key, row } => {
                self.touch(table, &old_key);
                self.touch(table, &key);
                let base = if row.missing() == 0 { None } else { self.base_of_key_change(table, &old_key) };
                #[cfg(test)]
                let base = self.buried(table, &key, &row).or(base);
                self.push(table, old_key, Entry::delete(open.seq, open.xid, open.position), true);
                self.push_stream_row(table, key, row, base, open);
            }
            KeyedChange::Delete { key } => {
                self.touch(table, &key);
                self.push(table, key, Entry::delete(open.seq, open.xid, open.position), true);
            }
        }
    }

    /// TRUNCATE, in its place in the stream. The stream waits until all these collections are empty (Z).
    pub fn truncate(&mut self, tables: &[TableId]) {
        let open = self.open.expect("a TRUNCATE belongs to a transaction");
        self.note_dispatched(open.xid);
        self.barrier_position = open.position;
        for &id in tables {
            if self.table_mut(id).stopped.is_some() || self.barrier.iter().any(|truncate| truncate.table == id) {
                continue;
            }
            self.ledger.hold(open.seq);
            self.barrier.push(Truncate { table: id, seq: open.seq, asked: false });
            if !self.flaw_truncate_leaves_chunks() {
                for chunk in self.chunks.values_mut().filter(|chunk| chunk.table == id) {
                    self.held_bytes -= chunk.touch_all(self.dispatched_lsn);
                }
                self.finish_chunks();
            }
        }
        self.drive_barrier();
    }

    /// The open transaction ends; `end_lsn` is the first byte after its commit record.
    pub fn commit(&mut self, end_lsn: Lsn) {
        let open = self.open.take().expect("a commit ends a transaction");
        if self.flaw_half_dispatched() {
            self.dispatched.note(open.xid);
        }
        self.ledger.commit(open.seq, end_lsn);
        self.dispatched_lsn = self.dispatched_lsn.max(end_lsn);
    }

    /// The server has nothing for us up to here. A transaction without changes, as far as progress goes.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        // In the middle of a transaction a keepalive says nothing that the commit will not say.
        if self.open.is_none() {
            self.ledger.keepalive(wal_end);
            self.dispatched_lsn = self.dispatched_lsn.max(wal_end);
        }
    }

    /// The table's changes can no longer be mapped: stop it, keep its share of the WAL, let the others go on.
    pub fn stop_table(&mut self, table: TableId, reason: String) {
        self.stop(table, None, Refusal { field: None, reason });
    }

    // -------------------------------------------------------------------------------------------------- the copy

    /// Between transactions, and no TRUNCATE under way: the only moment at which a chunk may be opened.
    pub fn at_boundary(&self) -> bool {
        (self.open.is_none() || self.flaw_half_dispatched()) && self.barrier.is_empty()
    }

    /// Open a chunk (t0): from here on the keys that the stream touches are remembered. `reserve_bytes` is what the
    /// chunk is expected to hold in memory; `hold` keeps the stream waiting until its last row is dispatched.
    /// `None`: not at a commit boundary, no budget now, or the table is stopped.
    pub fn open_chunk(&mut self, table: TableId, reserve_bytes: usize, hold: bool) -> Option<ChunkId> {
        if !self.at_boundary() || self.table_mut(table).stopped.is_some() {
            return None;
        }
        let reserved: usize = self.chunks.values().map(|chunk| chunk.reserved_bytes).sum();
        let fits = self.held_bytes + reserved + reserve_bytes <= self.settings.memory_bytes / 4 * 3;
        // A chunk larger than the budget is read alone rather than never.
        let alone = reserved == 0 && self.held_bytes <= self.settings.memory_bytes / 4;
        if !fits && !alone {
            return None;
        }
        let id = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        self.chunks.insert(id, Chunk::open(table, self.dispatched.index(), reserve_bytes, hold));
        Some(id)
    }

    /// Rule V: does this snapshot see all that it must? `insert_lsn` was read after it.
    pub fn chunk_snapshot(&mut self, id: ChunkId, snapshot: &Snapshot, insert_lsn: Lsn) -> Visibility {
        let Some(chunk) = self.chunks.get_mut(&id) else { return Visibility::Valid }; // given up meanwhile: rows will be dropped
        chunk.insert_lsn = insert_lsn;
        let verdict = self.dispatched.check(chunk.t0, snapshot);
        #[cfg(test)]
        if self.flaws.contains(&Flaw::NoVisibilityCheck) {
            return Visibility::Valid;
        }
        #[cfg(test)]
        if self.flaws.contains(&Flaw::VisibilityOfThisProcessOnly) {
            return self.dispatched.check_dispatched_only(self.chunks[&id].t0, snapshot);
        }
        verdict
    }

    /// All rows of the chunk, its SQL transaction being over. They leave when the source has flushed what they show (W).
    pub fn chunk_rows(&mut self, id: ChunkId, rows: Vec<(Key, Row)>) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        let bytes = chunk.hold_rows(rows);
        self.held_bytes += bytes;
        let (table, insert_lsn) = (chunk.table, chunk.insert_lsn);
        let table = self.table_mut(table);
        table.horizon = table.horizon.max(insert_lsn);
        if insert_lsn > self.flush_lsn && !self.flaw_no_flush_wait() {
            self.effects.push_back(Effect::WaitFlushed(insert_lsn));
        } else {
            self.dispatch_chunk(id);
        }
    }

    /// The chunk will not be finished: its connection was lost, or the table was rewritten. No effect answers.
    pub fn abandon_chunk(&mut self, id: ChunkId) {
        if let Some(chunk) = self.chunks.remove(&id) {
            self.held_bytes -= chunk.held_bytes();
        }
    }

    /// A connection to the source was lost, so the server may have crashed: what was read by SQL and is not known to be
    /// durable is dropped (W), also what a reader or a fetch holds in its hand and has not delivered yet. Fetches are
    /// asked for again, under another id; chunks are answered by `ChunkAbandoned`.
    pub fn discard_unflushed(&mut self) {
        let in_hand_too = !self.flaw_rows_in_hand_survive();
        let doubtful = |chunk: &Chunk| chunk.waits_for_flush() || (in_hand_too && !chunk.is_dispatched());
        let mut waiting: Vec<ChunkId> =
            self.chunks.iter().filter(|(_, chunk)| doubtful(chunk)).map(|(id, _)| *id).collect();
        waiting.sort_unstable();
        for id in waiting {
            self.give_up_chunk(id, false);
        }
        for table in 0..self.tables.len() {
            for lane in 0..self.settings.lanes {
                let (Phase::Fetching { fetch } | Phase::AwaitFlush { fetch, .. }) =
                    self.tables[table].lanes[lane].phase
                else {
                    continue;
                };
                self.fetches.remove(&fetch);
                let fetch = FetchId(self.new_id());
                self.tables[table].lanes[lane].phase = Phase::Fetching { fetch };
                self.fetches.insert(fetch, (TableId(table as u32), lane));
                self.fetch_failed(fetch);
            }
        }
    }

    /// All chunks of the table are marked done, durably.
    pub fn copy_finished(&mut self, table: TableId) {
        let dispatched = self.dispatched_lsn;
        let state = self.table_mut(table);
        state.copied = true;
        state.horizon = state.horizon.max(dispatched);
        if self.tables.iter().all(|table| table.copied || table.stopped.is_some()) {
            self.dispatched.stop_tracking();
        }
    }

    /// The source has flushed its WAL up to here.
    pub fn flushed(&mut self, lsn: Lsn) {
        self.flush_lsn = self.flush_lsn.max(lsn);
        let mut due: Vec<ChunkId> = self
            .chunks
            .iter()
            .filter(|(_, chunk)| chunk.waits_for_flush() && chunk.insert_lsn <= self.flush_lsn)
            .map(|(id, _)| *id)
            .collect();
        due.sort_unstable();
        for id in due {
            self.dispatch_chunk(id);
        }
        for table in 0..self.tables.len() {
            for lane in 0..self.settings.lanes {
                let phase = &mut self.tables[table].lanes[lane].phase;
                if let Phase::AwaitFlush { insert_lsn, rows, .. } = phase
                    && *insert_lsn <= self.flush_lsn
                {
                    let (insert_lsn, rows) = (*insert_lsn, std::mem::take(rows));
                    self.apply_fetch(TableId(table as u32), lane, insert_lsn, rows);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------- Milvus and the fetches

    /// The request is over: every key but `refused` is acknowledged. `may_land_until`: an earlier attempt of it got
    /// no answer and may be applied until then (S).
    pub fn answered(&mut self, request: RequestId, refused: Vec<(Key, Refusal)>, may_land_until: Option<u64>) {
        let (table, lane_index) = self.requests.remove(&request).expect("an answer belongs to a request");
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let batch = lane.take_batch();
        if let Some(until) = may_land_until.filter(|until| *until > self.now)
            && !self.flaw_no_embargo()
        {
            let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
            lane.embargo(batch.iter().map(|(key, _)| key.clone()), until);
            self.timers.insert((until, Timer::Lane(table, lane_index)));
        }
        let mut refused: HashMap<Key, Refusal> = refused.into_iter().collect();
        for (key, entry) in batch {
            self.held_bytes -= entry.bytes;
            match refused.remove(&key) {
                None => self.complete(entry),
                Some(refusal) => self.refuse(table, lane_index, key, entry, refusal),
            }
        }
        self.wake(table, lane_index);
        self.drive_barrier();
    }

    /// The collection is empty and no step of emptying it is unanswered.
    pub fn truncated(&mut self, table: TableId) {
        // A table that was stopped meanwhile is no longer waited for.
        if let Some(at) = self.barrier.iter().position(|truncate| truncate.table == table) {
            self.ledger.release(self.barrier.remove(at).seq);
        }
    }

    /// The missing columns, by a snapshot; `insert_lsn` was read after it. A key without a row is absent from `rows`.
    pub fn fetched(&mut self, fetch: FetchId, snapshot: &Snapshot, insert_lsn: Lsn, rows: FetchedRows) {
        let Some((table, lane_index)) = self.fetches.remove(&fetch) else { return }; // asked again since, see `discard_unflushed`
        if self.tables[table.0 as usize].stopped.is_some() {
            return self.drop_batch(table, lane_index);
        }
        let by_oldest = self.flaw_guard_by_oldest();
        let guarded = !self.flaw_no_guard();
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let invisible = lane
            .batch()
            .iter()
            .filter(|(_, entry)| matches!(entry.content, Content::Fetch(_)))
            .filter_map(|(_, entry)| entry.guard_xid(by_oldest))
            .any(|xid| !snapshot.sees(snapshot.widen(xid)));
        if invisible && guarded {
            // The change is in the WAL but not visible yet: what was read may be older than it.
            self.fetches.insert(fetch, (table, lane_index));
            self.timers.insert((self.now + self.settings.fetch_retry_ms, Timer::Fetch(table, lane_index)));
            return;
        }
        let state = &mut self.tables[table.0 as usize];
        state.fetch_horizon = state.fetch_horizon.max(insert_lsn);
        if insert_lsn > self.flush_lsn && !self.flaw_no_flush_wait() {
            self.tables[table.0 as usize].lanes[lane_index].phase = Phase::AwaitFlush { fetch, insert_lsn, rows };
            self.effects.push_back(Effect::WaitFlushed(insert_lsn));
        } else {
            self.apply_fetch(table, lane_index, insert_lsn, rows);
        }
    }

    /// The fetch did not come back: it is asked for again after the usual pause.
    pub fn fetch_failed(&mut self, fetch: FetchId) {
        let Some(&(table, lane)) = self.fetches.get(&fetch) else { return };
        self.timers.insert((self.now + self.settings.fetch_retry_ms, Timer::Fetch(table, lane)));
    }

    /// T is on disk.
    pub fn sent_limit_raised(&mut self, lsn: Lsn) {
        self.sent_limit = self.sent_limit.max(lsn);
        for (table, lane) in std::mem::take(&mut self.limit_waiters) {
            if matches!(self.tables[table.0 as usize].lanes[lane].phase, Phase::AwaitLimit) {
                self.send_or_await_limit(table, lane);
            }
        }
        self.finish_chunks();
        self.drive_barrier();
    }

    // ------------------------------------------------------------------------------------------ time and effects

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

    // -------------------------------------------------------------------------------------------- what is known

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

    // ------------------------------------------------------------------------------------------------ the router

    fn table_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.tables[id.0 as usize]
    }

    fn note_dispatched(&mut self, xid: u32) {
        if !self.flaw_half_dispatched() {
            self.dispatched.note(xid);
        }
    }

    /// The stream changes this key: open chunks of the table must not overwrite it.
    fn touch(&mut self, table: TableId, key: &Key) {
        if self.chunks.is_empty() {
            return;
        }
        let limit = self.settings.touched_bytes_max;
        let mut overflown = Vec::new();
        for (id, chunk) in self.chunks.iter_mut().filter(|(_, chunk)| chunk.table == table) {
            if chunk.touch(key) > limit {
                overflown.push(*id);
            }
        }
        overflown.sort_unstable();
        for id in overflown {
            self.give_up_chunk(id, true);
        }
    }

    fn give_up_chunk(&mut self, id: ChunkId, overflow: bool) {
        if let Some(chunk) = self.chunks.remove(&id) {
            self.held_bytes -= chunk.held_bytes();
            self.effects.push_back(Effect::ChunkAbandoned { chunk: id, table: chunk.table, overflow });
        }
    }

    /// Where a row of the same key may take its missing columns from: what is pending, else a whole row in flight.
    fn base_of_same_key(&self, table: TableId, key: &Key) -> Option<(Row, u64)> {
        let lane = self.lane_of(table, key);
        match lane.pending(key) {
            Some(entry) => entry.row().map(|row| (row.clone(), entry.pure)),
            None => match lane.in_flight(key) {
                Some(Entry { content: Content::Whole(row), pure, .. }) => Some((row.clone(), *pure)),
                _ => None,
            },
        }
    }

    /// What a key change may carry over from the pending row of the old key: only what came from the stream alone.
    /// A chunk or a fetch may have read the future, and for another key nothing later mends that (K).
    fn base_of_key_change(&self, table: TableId, old_key: &Key) -> Option<(Row, u64)> {
        let entry = self.lane_of(table, old_key).pending(old_key)?;
        let mut row = entry.row()?.clone();
        if !self.flaw_carry_from_chunk_row() {
            for (column, value) in row.0.iter_mut().enumerate() {
                if entry.pure & (1 << column) == 0 {
                    *value = Value::UnchangedToast;
                }
            }
        }
        Some((row, entry.pure))
    }

    /// The row under a pending delete, which a sabotaged engine takes for the row that comes over it.
    #[cfg(test)]
    fn buried(&self, table: TableId, key: &Key, row: &Row) -> Option<(Row, u64)> {
        let entry = self.lane_of(table, key).pending(key)?;
        let wanted = self.flaws.contains(&Flaw::MergeOntoDelete)
            && matches!(entry.content, Content::Delete)
            && row.missing() != 0;
        if wanted { entry.buried.clone().map(|row| (row, 0)) } else { None }
    }

    fn push_stream_row(&mut self, table: TableId, key: Key, row: Row, base: Option<(Row, u64)>, open: OpenTransaction) {
        let widest = self.tables[table.0 as usize].note_width(&row);
        let entry = Entry::from_stream(row, base, open.seq, open.xid, open.position, widest, &key);
        self.push(table, key, entry, true);
    }

    /// Hand an entry to its lane, over whatever waits there for the key.
    fn push(&mut self, table: TableId, key: Key, entry: Entry, from_stream: bool) {
        if from_stream {
            self.ledger.hold(entry.oldest.expect("a stream entry has a transaction"));
        }
        let lane_index = self.tables[table.0 as usize].lane_index(&key);
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        self.held_bytes += entry.bytes;
        let wake = !lane.is_busy();
        match lane.pending_mut(&key) {
            Some(waiting) => {
                let old = std::mem::replace(waiting, entry);
                self.held_bytes -= old.bytes;
                if let Some(own) = waiting.supersede(old) {
                    self.ledger.release(own);
                }
                #[cfg(test)]
                if self.flaws.contains(&Flaw::NoBeneath) {
                    waiting.beneath = false;
                }
            }
            None => lane.insert_pending(key, entry),
        }
        if wake {
            self.wake(table, lane_index);
        }
    }

    /// The lane may have something to send when effects are next asked for.
    fn wake(&mut self, table: TableId, lane_index: usize) {
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        if !lane.awake {
            lane.awake = true;
            self.ready.push_back((table, lane_index));
        }
    }

    fn lane_of(&self, table: TableId, key: &Key) -> &Lane {
        let table = &self.tables[table.0 as usize];
        &table.lanes[table.lane_index(key)]
    }

    /// Its rows are durable at the source: hand over those that the stream has not touched.
    fn dispatch_chunk(&mut self, id: ChunkId) {
        let chunk = self.chunks.get_mut(&id).expect("only open chunks are dispatched");
        let (table, insert_lsn) = (chunk.table, chunk.insert_lsn);
        let (rows, bytes) = chunk.take_rows();
        self.held_bytes -= bytes;
        for (key, row) in rows {
            let chunk = self.chunks.get(&id).expect("a chunk stays open while its rows are dispatched");
            #[cfg(test)]
            let touched = match () {
                _ if self.flaws.contains(&Flaw::NoTouchedSets) => false,
                _ if self.flaws.contains(&Flaw::LossyTouchedSet) => chunk.is_touched_lossy(&key),
                _ => chunk.is_touched(&key),
            };
            #[cfg(not(test))]
            let touched = chunk.is_touched(&key);
            if touched {
                continue; // the stream has taken over
            }
            #[cfg(test)]
            if self.flaws.contains(&Flaw::DropChunkRowIfBusy) && self.lane_of(table, &key).is_key_busy(&key) {
                continue;
            }
            self.chunks.get_mut(&id).expect("as above").outstanding += 1;
            self.tables[table.0 as usize].note_width(&row);
            let entry = Entry::from_chunk(row, id, insert_lsn, &key);
            self.push(table, key, entry, false);
        }
        let position = self.dispatched_lsn;
        self.chunks.get_mut(&id).expect("as above").dispatched(position);
        #[cfg(test)]
        if self.flaws.contains(&Flaw::ChunkDoneBeforeAck) {
            self.chunks.get_mut(&id).expect("as above").outstanding = 0;
        }
        self.finish_chunks();
    }

    /// Report the chunks of which every row is acknowledged.
    fn finish_chunks(&mut self) {
        let mut done: Vec<ChunkId> =
            self.chunks.iter().filter(|(_, chunk)| chunk.is_done()).map(|(id, _)| *id).collect();
        done.sort_unstable();
        for id in done {
            // A row that was dropped for the stream's sake counts as brought, so T must cover what the chunk has seen (G).
            let position = self.chunks[&id].position;
            if position > self.sent_limit && !self.flaw_no_sent_limit() {
                self.ask_sent_limit(position);
                continue;
            }
            let chunk = self.chunks.remove(&id).expect("just listed");
            let dispatched = self.dispatched_lsn;
            let table = self.table_mut(chunk.table);
            table.horizon = table.horizon.max(dispatched);
            self.effects.push_back(Effect::ChunkDone { chunk: id, table: chunk.table });
        }
    }

    // ------------------------------------------------------------------------------------------------- the lanes

    /// If the lane is free, take what waits and get it on its way.
    fn start_lane(&mut self, table: TableId, lane_index: usize) {
        if self.now < self.quiet_until {
            return;
        }
        let (rows_max, bytes_max) = (self.settings.request_rows_max, self.settings.request_bytes_max);
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        if lane.is_busy() || !lane.fill_batch(rows_max, bytes_max) {
            return;
        }
        if lane.batch().iter().any(|(_, entry)| matches!(entry.content, Content::Fetch(_))) {
            let fetch = FetchId(self.new_id());
            self.tables[table.0 as usize].lanes[lane_index].phase = Phase::Fetching { fetch };
            self.fetches.insert(fetch, (table, lane_index));
            self.emit_fetch(table, lane_index);
        } else {
            self.send_or_await_limit(table, lane_index);
        }
    }

    /// The fetched rows are durable at the source: complete the batch with them.
    fn apply_fetch(&mut self, table: TableId, lane_index: usize, insert_lsn: Lsn, rows: FetchedRows) {
        if self.tables[table.0 as usize].stopped.is_some() {
            return self.drop_batch(table, lane_index);
        }
        let mut rows: HashMap<Key, Vec<(usize, Value)>> = rows.into_iter().collect();
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        for (key, mut entry) in lane.take_batch() {
            self.held_bytes -= entry.bytes;
            if matches!(entry.content, Content::Fetch(_)) {
                match rows.remove(&key) {
                    Some(columns) => entry.fill(columns, insert_lsn),
                    None => entry.lose_row(insert_lsn),
                }
            }
            self.held_bytes += entry.bytes;
            lane.put_in_batch(key, entry);
        }
        self.send_or_await_limit(table, lane_index);
    }

    fn emit_fetch(&mut self, table: TableId, lane_index: usize) {
        let lane = &self.tables[table.0 as usize].lanes[lane_index];
        let Phase::Fetching { fetch } = lane.phase else { return };
        let rows: Vec<(Key, Row)> = lane
            .batch()
            .iter()
            .filter_map(|(key, entry)| match &entry.content {
                Content::Fetch(row) => Some((key.clone(), row.clone())),
                Content::Whole(_) | Content::Delete | Content::Gone => None,
            })
            .collect();
        let columns = rows.iter().fold(0, |mask, (_, row)| mask | row.missing());
        self.effects.push_back(Effect::Fetch(FetchRequest { id: fetch, table, columns, rows }));
    }

    /// The batch is complete: send it, once the sent limit on disk covers it (G).
    fn send_or_await_limit(&mut self, table: TableId, lane_index: usize) {
        let flaw = self.flaw_no_sent_limit();
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let position = lane.batch().iter().map(|(_, entry)| entry.position).max().unwrap_or(Lsn::ZERO);
        if position > self.sent_limit && !flaw {
            lane.phase = Phase::AwaitLimit;
            self.limit_waiters.push((table, lane_index));
            return self.ask_sent_limit(position);
        }
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        if lane.batch().iter().all(|(_, entry)| matches!(entry.content, Content::Gone)) {
            // Only now is it done: until T covers it, a failover could bring the row back (G).
            for (_, entry) in lane.take_batch() {
                self.held_bytes -= entry.bytes;
                self.complete(entry);
            }
            self.wake(table, lane_index);
            return self.drive_barrier();
        }
        let id = RequestId(self.new_id());
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let mut mutations = lane.mutations();
        #[cfg(test)]
        if self.flaws.contains(&Flaw::DeleteAndUpsertInOneFlush) {
            let covering = lane.batch().iter().filter(|(_, entry)| entry.beneath).map(|(key, _)| key.clone());
            mutations.deletes.extend(covering);
        }
        mutations.upserts.shrink_to_fit();
        lane.phase = Phase::Sending;
        self.requests.insert(id, (table, lane_index));
        self.effects.push_back(Effect::Send(Request { id, table, lane: lane_index, mutations: Arc::new(mutations) }));
    }

    fn ask_sent_limit(&mut self, position: Lsn) {
        if position > self.sent_limit_asked {
            // Ahead to all that the stream has shown, so that a busy stream does not ask for every request.
            self.sent_limit_asked = position.max(self.dispatched_lsn);
            self.effects.push_back(Effect::RaiseSentLimit(self.sent_limit_asked));
        }
    }

    /// Acknowledged, or nothing left to do: let go of the transaction and the chunks that the entry stood for.
    fn complete(&mut self, entry: Entry) {
        if let Some(seq) = entry.oldest {
            self.ledger.release(seq);
        }
        let mut finished = false;
        for id in entry.chunks {
            if let Some(chunk) = self.chunks.get_mut(&id) {
                chunk.outstanding = chunk.outstanding.saturating_sub(1);
                finished |= chunk.is_done();
            }
        }
        if finished {
            self.finish_chunks();
        }
    }

    /// The target will not take this row. A newer change of the key settles it; else the source is asked for the row
    /// as it is now; refused again, the table stops.
    fn refuse(&mut self, table: TableId, lane_index: usize, key: Key, entry: Entry, refusal: Refusal) {
        let state = &mut self.tables[table.0 as usize];
        if state.stopped.is_some() {
            return; // what the entry stood for stays held
        }
        if let Some(newer) = state.lanes[lane_index].pending_mut(&key) {
            if let Some(own) = newer.supersede(entry) {
                self.ledger.release(own);
            }
        } else if entry.can_be_reread() {
            let entry = entry.into_reread(state.key_columns, state.widest_row);
            self.held_bytes += entry.bytes;
            self.tables[table.0 as usize].lanes[lane_index].insert_pending(key, entry);
        } else {
            self.stop(table, Some(key), refusal);
        }
    }

    fn stop(&mut self, id: TableId, key: Option<Key>, refusal: Refusal) {
        let open = self.open.map(|open| open.seq);
        let table = self.table_mut(id);
        if table.stopped.is_some() {
            return;
        }
        table.stopped = Some(match &key {
            Some(key) => format!("key {key}: {refusal}"),
            None => refusal.to_string(),
        });
        // Pending entries go without letting go of their transactions: progress stays below them.
        let dropped: usize = table.lanes.iter_mut().map(Lane::drop_pending).sum();
        self.held_bytes -= dropped;
        self.ledger.hold_from_here(open);
        let mut chunks: Vec<ChunkId> =
            self.chunks.iter().filter(|(_, c)| c.table == id).map(|(chunk, _)| *chunk).collect();
        chunks.sort_unstable();
        for chunk in chunks {
            self.give_up_chunk(chunk, false);
        }
        self.barrier.retain(|truncate| truncate.table != id);
        self.effects.push_back(Effect::TableStopped { table: id, key, refusal });
    }

    /// A stopped table's batch that was never sent.
    fn drop_batch(&mut self, table: TableId, lane_index: usize) {
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let bytes: usize = lane.take_batch().iter().map(|(_, entry)| entry.bytes).sum();
        self.held_bytes -= bytes;
    }

    /// A TRUNCATE goes on as its tables' lanes run dry and settle.
    fn drive_barrier(&mut self) {
        if self.barrier.is_empty() || self.now < self.quiet_until {
            return;
        }
        if self.barrier_position > self.sent_limit && !self.flaw_no_sent_limit() {
            return self.ask_sent_limit(self.barrier_position);
        }
        for truncate in self.barrier.iter_mut().filter(|truncate| !truncate.asked) {
            let table = &self.tables[truncate.table.0 as usize];
            if table.is_idle() && table.lanes.iter().all(Lane::settled) {
                truncate.asked = true;
                self.effects.push_back(Effect::Truncate(truncate.table));
            }
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
    flaw_truncate_leaves_chunks => TruncateLeavesChunks,
    flaw_carry_from_chunk_row => CarryFromChunkRow,
}
