//! The copy: which chunks are left, who reads them, and what the session does with what they say.
//!
//! Readers are tasks with a connection each. A reader asks for work; the session opens a chunk in the engine at a
//! commit boundary and hands it over. The reader locks, takes a snapshot (L) and lets the engine judge it (V), again
//! and again for the same chunk until it is valid (C), reads the chunk to its end, ends the transaction, and only then
//! gives up the rows.
//!
//! Holds: a chunk is in exactly one of: queue, open, done. Done is durable before it is believed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::admin::GuardState;
use crate::change::{FullXid, Lsn, Oid, Row, TableId};
use crate::checkpoint::{BlockRange, LeafState, TableState};
use crate::config::SourceSettings;
use crate::engine::{ChunkId, Visibility};
use crate::mutation::{Key, Refusal};
use crate::plan::Plan;
use crate::postgres::copy::{ChunkReader, ChunkView};
use crate::postgres::{self, Disposition, PostgresError, SelectColumn};

use super::clock::Backoff;
use super::fetching::select;
use super::resync::Opened;
use super::session::{SWEEP_BYTES, Session, Written};

/// A blocked snapshot is reported, with the pids that hold it back, when it has waited this long.
const BLOCKED_REPORT: Duration = Duration::from_secs(2);

/// One range of one leaf.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) table: TableId,
    pub(super) leaf: Oid,
    /// The file that the range belongs to: another one means that the table was rewritten.
    pub(super) filenode: Oid,
    pub(super) index: usize,
    pub(super) range: BlockRange,
    /// Given up before because the stream touched too much of it: now the stream waits for it.
    pub(super) hold: bool,
    /// To be read under the held snapshot.
    pub(super) held: bool,
}

/// A chunk to be read.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) chunk: ChunkId,
    pub(super) work: Work,
}

/// What readers say.
pub(super) enum CopyNews {
    /// `held`: it is the one that has the held snapshot.
    Idle {
        held: bool,
        reader: oneshot::Sender<Assignment>,
    },
    /// The chunk is read under a snapshot that was valid before the first event of the session.
    HeldSnapshot {
        chunk: ChunkId,
        insert_lsn: Lsn,
    },
    HeldSnapshotLost {
        error: PostgresError,
    },
    Snapshot {
        chunk: ChunkId,
        view: ChunkView,
        reply: oneshot::Sender<Visibility>,
    },
    /// `None`: nothing is known to block any more.
    Blocked {
        table: TableId,
        by: Option<String>,
    },
    Rows {
        chunk: ChunkId,
        rows: Vec<(Key, Option<Row>)>,
        bytes: usize,
    },
    /// A row that cannot have a key.
    Unkeyed {
        table: TableId,
        refusal: Refusal,
    },
    /// The leaf has another file now.
    Rewritten {
        chunk: ChunkId,
    },
    Failed {
        chunk: ChunkId,
        error: PostgresError,
    },
    /// A sweep has keys to look up.
    OpenSweep {
        table: TableId,
        reply: oneshot::Sender<Opened>,
    },
    /// Of the keys of that chunk, these have no row.
    Absent {
        chunk: ChunkId,
        keys: Vec<Key>,
    },
    SweepFailed {
        chunk: ChunkId,
    },
    /// The sweep has met the end of the collection.
    Swept {
        table: TableId,
    },
}

/// What is left to copy.
#[derive(Default)]
pub(super) struct Copy {
    queue: VecDeque<Work>,
    /// Of the held snapshot.
    held_queue: VecDeque<Work>,
    open: HashMap<ChunkId, Work>,
    /// Readers that wait, each with whether it has the held snapshot.
    idle: Vec<(bool, oneshot::Sender<Assignment>)>,
    /// Tables whose sweep has begun.
    sweeping: BTreeSet<TableId>,
    /// Sweeps that wait for a chunk.
    sweeps_waiting: Vec<(TableId, oneshot::Sender<Opened>)>,
    /// Their open chunks.
    swept: HashMap<ChunkId, (TableId, oneshot::Sender<bool>)>,
}

impl Copy {
    pub(super) fn new() -> Copy {
        Copy::default()
    }

    /// Queue every chunk of the table that is not done.
    pub(super) fn add_table(&mut self, table: TableId, state: &TableState, held: bool) {
        for leaf in &state.leaves {
            self.add_leaf(table, leaf, held);
        }
    }

    pub(super) fn add_leaf(&mut self, table: TableId, leaf: &crate::checkpoint::LeafState, held: bool) {
        let left = leaf.ranges.iter().zip(&leaf.done).enumerate().filter(|(_, (_, done))| !**done);
        self.queue(held).extend(left.map(|(index, (range, _))| Work {
            table,
            leaf: leaf.oid,
            filenode: leaf.filenode,
            index,
            range: *range,
            hold: false,
            held,
        }));
    }

    /// Is a chunk of the table being read, or waiting for its rows to be acknowledged?
    pub(super) fn is_reading(&self, table: TableId) -> bool {
        self.open.values().any(|work| work.table == table)
    }

    pub(super) fn reader_waits(&mut self, held: bool, reader: oneshot::Sender<Assignment>) {
        self.idle.push((held, reader));
    }

    /// Hand out work as long as a reader waits and `open` opens a chunk for it.
    pub(super) fn assign(&mut self, mut open: impl FnMut(&Work) -> Option<ChunkId>) {
        for held in [true, false] {
            while let Some(at) = self.idle.iter().position(|(has_held, _)| *has_held == held) {
                let Some(work) = self.queue(held).front() else { break };
                let Some(chunk) = open(work) else { return };
                let Some(work) = self.queue(held).pop_front() else { break };
                let (_, reader) = self.idle.swap_remove(at);
                self.open.insert(chunk, work.clone());
                // A reader that went away meanwhile says nothing more: its chunk stays open until the session ends,
                // which is what ended the reader.
                drop(reader.send(Assignment { chunk, work }));
            }
        }
        if !self.idle.is_empty() && self.held_queue.is_empty() && !self.open.values().any(|work| work.held) {
            self.idle.retain(|(held, _)| !held); // nothing is left under its snapshot, so it may let it go
        }
    }

    fn queue(&mut self, held: bool) -> &mut VecDeque<Work> {
        if held { &mut self.held_queue } else { &mut self.queue }
    }

    /// False: it has begun before.
    pub(super) fn begin_sweep(&mut self, table: TableId) -> bool {
        self.sweeping.insert(table)
    }

    pub(super) fn sweep_waits(&mut self, table: TableId, reply: oneshot::Sender<Opened>) {
        self.sweeps_waiting.push((table, reply));
    }

    /// Open a chunk for each sweep that waits, as far as `open` does so.
    pub(super) fn open_sweeps(&mut self, mut open: impl FnMut(TableId) -> Option<ChunkId>) {
        for (table, reply) in std::mem::take(&mut self.sweeps_waiting) {
            match open(table) {
                None => self.sweeps_waiting.push((table, reply)),
                Some(chunk) => {
                    let (say, done) = oneshot::channel();
                    self.swept.insert(chunk, (table, say));
                    // A sweep that went away did so with the session.
                    drop(reply.send(Opened { chunk, done }));
                }
            }
        }
    }

    /// The chunk of a sweep is over. False: it was none.
    pub(super) fn sweep_done(&mut self, chunk: ChunkId, done: bool) -> bool {
        let Some((_, say)) = self.swept.remove(&chunk) else { return false };
        say.send(done).unwrap_or_default(); // a sweep that went away did so with the session
        true
    }

    /// Is it a chunk that somebody reads?
    pub(super) fn is_open(&self, chunk: ChunkId) -> bool {
        self.open.contains_key(&chunk) || self.swept.contains_key(&chunk)
    }

    pub(super) fn work(&self, chunk: ChunkId) -> Option<&Work> {
        self.open.get(&chunk)
    }

    pub(super) fn take(&mut self, chunk: ChunkId) -> Option<Work> {
        self.open.remove(&chunk)
    }

    pub(super) fn again(&mut self, work: Work) {
        self.queue(work.held).push_front(work);
    }

    /// Forget all work of a table, or of one leaf of it; the open chunks are returned.
    pub(super) fn forget(&mut self, table: TableId, leaf: Option<Oid>) -> Vec<ChunkId> {
        let concerned = |work: &Work| work.table == table && leaf.is_none_or(|leaf| work.leaf == leaf);
        self.queue.retain(|work| !concerned(work));
        self.held_queue.retain(|work| !concerned(work));
        let mut open: Vec<ChunkId> = self.open.iter().filter(|(_, work)| concerned(work)).map(|(id, _)| *id).collect();
        self.open.retain(|_, work| !concerned(work));
        if leaf.is_none() {
            open.extend(self.swept.iter().filter(|(_, (swept, _))| *swept == table).map(|(id, _)| *id));
            self.swept.retain(|_, (swept, _)| *swept != table);
        }
        open
    }
}

impl Session {
    pub(super) fn open_chunks(&mut self) {
        if self.is_stopping() || self.guard.state() == GuardState::CopyPaused {
            return;
        }
        let reserve = usize::try_from(self.context.settings.pipeline.chunk_bytes).unwrap_or(usize::MAX);
        let engine = &mut self.engine;
        self.copy.assign(|work| engine.open_chunk(work.table, reserve, work.hold));
        self.copy.open_sweeps(|table| engine.open_chunk(table, SWEEP_BYTES, false));
    }

    pub(super) fn heard_from_copy(&mut self, news: CopyNews) {
        match news {
            CopyNews::Idle { held, reader } => {
                if !self.is_stopping() {
                    self.copy.reader_waits(held, reader);
                }
            }
            CopyNews::HeldSnapshot { chunk, insert_lsn } => self.engine.chunk_snapshot_held(chunk, insert_lsn),
            CopyNews::HeldSnapshotLost { error } => {
                self.changed =
                    Some(format!("the snapshot of tables with `auto_id` was lost ({error}), their copy begins anew"));
            }
            CopyNews::Snapshot { chunk, view, reply } => {
                let verdict = match self.copy.is_open(chunk) {
                    true => self.engine.chunk_snapshot(chunk, &view.snapshot, view.insert_lsn),
                    false => Visibility::Valid, // given up meanwhile: its rows will not be used
                };
                // A reader that is gone needs no answer.
                reply.send(verdict).unwrap_or_default();
            }
            CopyNews::Blocked { table, by: Some(by) } => drop(self.blocked_by.insert(table, by)),
            CopyNews::Blocked { table, by: None } => drop(self.blocked_by.remove(&table)),
            CopyNews::Rows { chunk, rows, bytes } => {
                super::crash::point("chunk");
                if let Some(work) = self.copy.work(chunk) {
                    let collection = &self.context.target.collections[work.table.0 as usize];
                    collection.metrics.copied.inc_by(rows.len() as u64);
                    collection.metrics.copied_bytes.inc_by(bytes as u64);
                    self.engine.chunk_rows(chunk, rows);
                }
            }
            CopyNews::Unkeyed { table, refusal } => {
                self.engine.stop_table(table, format!("a row cannot have a key: {refusal}"));
            }
            CopyNews::OpenSweep { table, reply } => self.copy.sweep_waits(table, reply),
            CopyNews::Absent { chunk, keys } => {
                if self.copy.is_open(chunk) {
                    self.engine.chunk_rows(chunk, keys.into_iter().map(|key| (key, None)).collect());
                }
            }
            CopyNews::SweepFailed { chunk } => {
                self.engine.abandon_chunk(chunk);
                self.engine.discard_unflushed();
                self.copy.sweep_done(chunk, false);
            }
            CopyNews::Swept { table } => {
                self.swept.push(table);
                self.awaits_horizon = true;
            }
            CopyNews::Rewritten { chunk } => {
                self.engine.abandon_chunk(chunk);
                if let Some(work) = self.copy.take(chunk) {
                    self.replan_leaf(&work);
                }
            }
            CopyNews::Failed { chunk, error } => {
                self.engine.abandon_chunk(chunk);
                self.engine.discard_unflushed();
                if let Some(work) = self.copy.take(chunk) {
                    if error.disposition() == Disposition::Definite {
                        let reason = format!("it cannot be copied: {error}");
                        self.engine.stop_table(work.table, reason);
                    } else {
                        tracing::warn!(table = %self.name(work.table), error = &error as &dyn std::error::Error, "a chunk failed, reading it again");
                        self.copy.again(work);
                    }
                }
            }
        }
    }

    /// Every row of the chunk is acknowledged: make that durable.
    pub(super) fn chunk_done(&mut self, chunk: ChunkId) {
        if self.copy.sweep_done(chunk, true) {
            return;
        }
        let Some(work) = self.copy.work(chunk).cloned() else { return };
        let (store, name) = (self.context.store.clone(), self.name(work.table));
        self.push_write(async move {
            store.mark_chunks_done(&name, work.leaf, vec![work.index as u32]).await?;
            Ok(Written::ChunkDone { chunk, work })
        });
    }

    /// The leaf has a new file: its ranges and what was done of them mean nothing any more (L).
    fn replan_leaf(&mut self, work: &Work) {
        let table = work.table;
        tracing::info!(table = %self.name(table), "the table was rewritten, its copy begins anew");
        for chunk in self.copy.forget(table, Some(work.leaf)) {
            self.engine.abandon_chunk(chunk);
        }
        let (context, leaf) = (Arc::clone(&self.context), work.leaf);
        self.replans.spawn(async move { (table, super::startup::plan_leaf_until_it_works(&context, leaf).await) });
    }

    /// File node, list and cleared flags in one batch.
    pub(super) fn replace_leaf(&mut self, table: TableId, leaf: LeafState) {
        if self.asked_anew.contains(&table) {
            return;
        }
        let (store, name) = (self.context.store.clone(), self.name(table));
        self.push_write(async move {
            store.replace_leaf(&name, leaf.clone()).await?;
            Ok(Written::LeafReplaced { table, leaf })
        });
    }

    pub(super) fn finish_copy_if_over(&mut self, table: TableId) {
        let Some(state) = self.tables.get(&table) else { return };
        match state.leaves.iter().all(|leaf| leaf.done.iter().all(|done| *done)) {
            true if state.copied => {}
            true if state.sweep => self.start_sweep(table),
            true => self.mark_copied(table),
            false => {}
        }
    }

    /// A row that the sweep found may still be on its way by the stream: only when that has arrived is nothing of before left.
    pub(super) fn finish_sweeps(&mut self) {
        let progress = self.engine.progress();
        let over = |table: &TableId| self.engine.table(*table).horizon <= progress;
        let done: Vec<TableId> = self.swept.iter().copied().filter(over).collect();
        self.swept.retain(|table| !done.contains(table));
        for table in done {
            self.mark_copied(table);
        }
    }

    fn mark_copied(&mut self, table: TableId) {
        if self.asked_anew.contains(&table) {
            return;
        }
        let (store, name) = (self.context.store.clone(), self.name(table));
        self.push_write(async move {
            store.mark_copied(&name).await?;
            Ok(Written::Copied(table))
        });
    }
}

/// Read chunks until nobody hands out work any more.
pub(super) async fn read_chunks(settings: SourceSettings, plan: Arc<Plan>, news: mpsc::Sender<CopyNews>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut reader = None;
    loop {
        if reader.is_none() {
            match ChunkReader::connect(&settings).await {
                Ok(connected) => reader = Some(connected),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no connection to copy with, trying again"
                    );
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            }
        }
        let Some(connected) = &mut reader else { continue };
        let (ask, answer) = oneshot::channel();
        if news.send(CopyNews::Idle { held: false, reader: ask }).await.is_err() {
            return;
        }
        let Ok(assignment) = answer.await else { return };
        let chunk = assignment.chunk;
        match read_chunk(&settings, &plan, connected, assignment, &news).await {
            Ok(()) => backoff.reset(),
            Err(ReadEnd::Gone) => return,
            Err(ReadEnd::Failed(error)) => {
                reader = None;
                if news.send(CopyNews::Failed { chunk, error }).await.is_err() {
                    return;
                }
                // A partition that was dropped fails each time, and at once.
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

enum ReadEnd {
    Failed(PostgresError),
    /// The session is over.
    Gone,
}

impl From<PostgresError> for ReadEnd {
    fn from(error: PostgresError) -> ReadEnd {
        ReadEnd::Failed(error)
    }
}

async fn read_chunk(
    settings: &SourceSettings,
    plan: &Plan,
    reader: &mut ChunkReader,
    Assignment { chunk, work }: Assignment,
    news: &mpsc::Sender<CopyNews>,
) -> Result<(), ReadEnd> {
    let say = async |what: CopyNews| news.send(what).await.map_err(|_| ReadEnd::Gone);
    let table = plan.table(work.table);
    let mut view = reader.begin(work.leaf).await?;
    let mut waiting = Backoff::new(Duration::from_millis(2), Duration::from_millis(200));
    let (began, mut reported) = (Instant::now(), false);
    loop {
        if view.filenode != work.filenode {
            reader.finish().await?;
            return say(CopyNews::Rewritten { chunk }).await;
        }
        let (reply, verdict) = oneshot::channel();
        say(CopyNews::Snapshot { chunk, view: view.clone(), reply }).await?;
        let blocking = match verdict.await.map_err(|_| ReadEnd::Gone)? {
            Visibility::Valid => break,
            Visibility::NotYet { blocking } => blocking,
        };
        reader.finish().await?; // no snapshot and no lock is kept while waiting
        if !reported && began.elapsed() > BLOCKED_REPORT {
            reported = true;
            let by = describe_blockers(settings, blocking).await;
            tracing::warn!(table = %table.qualified_name(), %by, "the copy waits for a transaction that is older than the stream");
            say(CopyNews::Blocked { table: work.table, by: Some(by) }).await?;
        }
        tokio::time::sleep(waiting.next()).await;
        view = reader.begin(work.leaf).await?;
    }
    if reported {
        say(CopyNews::Blocked { table: work.table, by: None }).await?;
    }
    let columns: Vec<SelectColumn> = table.columns.iter().map(select).collect();
    let read = reader.read_rows(&columns, table.row_filter.as_deref(), range(work.range), usize::MAX).await?;
    reader.finish().await?;
    let mut rows = Vec::with_capacity(read.rows.len());
    for row in read.rows {
        match table.key.key(table, &row) {
            Ok(key) => rows.push((key, Some(row))),
            Err(refusal) => return say(CopyNews::Unkeyed { table: work.table, refusal }).await,
        }
    }
    say(CopyNews::Rows { chunk, rows, bytes: read.bytes }).await
}

pub(super) fn range(BlockRange { from_block, to_block }: BlockRange) -> postgres::copy::Range {
    postgres::copy::Range { from_block, to_block }
}

pub(super) async fn describe_blockers(settings: &SourceSettings, xid: FullXid) -> String {
    let blockers = async { postgres::probe::Probe::connect(settings).await?.blockers(xid).await }.await;
    match blockers {
        Ok(blockers) if blockers.is_empty() => format!("transaction {xid} (its commit is not visible yet)"),
        Ok(blockers) => {
            let each: Vec<String> = blockers
                .iter()
                .map(|b| {
                    let pid = b.pid.map_or("a prepared transaction".to_owned(), |pid| format!("pid {pid}"));
                    format!("{pid} ({:?}, {}, open for {} s)", b.name, b.state, b.age.as_secs())
                })
                .collect();
            each.join(", ")
        }
        Err(error) => format!("transaction {xid} ({error})"),
    }
}
