//! The copy: which chunks are left, who reads them, and what became of them.
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

use crate::change::{FullXid, Lsn, Oid, Row, TableId};
use crate::checkpoint::{BlockRange, TableState};
use crate::config::SourceSettings;
use crate::engine::{ChunkId, Visibility};
use crate::mutation::{Key, Refusal};
use crate::plan::Plan;
use crate::postgres::copy::{ChunkReader, ChunkView};
use crate::postgres::{self, PostgresError, SelectColumn};

use super::clock::Backoff;
use super::fetching::select;
use super::resync::Opened;

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
        if self.held_queue.is_empty() && !self.open.values().any(|work| work.held) {
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
