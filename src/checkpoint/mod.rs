//! The state store: the few facts that must outlive the process, in sled.
//!
//! In: what became true (a position is done, a chunk is done, a slot is about to be made). Out: `Saved`, read once at
//! open; and for every write the promise that it is on disk when the call returns.
//!
//! The order that everything hangs on, of which this module is the middle:
//!
//! ```text
//! Milvus acknowledged  ->  checkpoint flushed to disk  ->  LSN confirmed to PostgreSQL
//! ```
//!
//! Checkpointed before it is acknowledged, a crash loses rows: the stream starts again behind them. Confirmed before
//! it is checkpointed, the slot may be ahead of the checkpoint, and the start gate can no longer tell our own progress
//! from a gap that somebody else made.
//!
//! Holds:
//! - A method that returned `Ok` is durable: the log record was written, and the file was synced by us (`flush` says why).
//! - One call is one batch: all of it or nothing is there after a crash. List and flags of a leaf never part.
//! - The checkpoint never goes back, and the sent limit T never falls but by `clean_stop`.
//! - After a failed write nothing more is written: what sled holds in memory may be ahead of its disk.
//! - One process at a time: the directory is locked, and the error names the holder.
//!
//! Not here: what the facts mean together (`postgres::gate`), when to write them (`pipeline`).

mod codec;
mod error;
mod lock;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::change::{Lsn, Oid, Skip};
use crate::letters::{Letter, TableLetters};
use crate::mutation::Key;

pub use error::StoreError;
use writer::Writer;

/// What the state is about, as far as the configuration says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub slot: String,
    pub publication: String,
    pub database: String,
}

/// What was on disk when the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// `None` before the first slot was made.
    pub source: Option<SavedSource>,
    pub intent: Option<SlotIntent>,
    /// The last process ended with nothing unanswered, so nothing it sent can still arrive.
    pub clean_stop: bool,
    /// By qualified name, `schema.table`.
    pub tables: BTreeMap<String, TableState>,
    /// By the same names.
    pub letters: BTreeMap<String, TableLetters>,
}

/// Where we are in which PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedSource {
    pub system_identifier: u64,
    pub timeline: u32,
    /// Everything before it is at the target; the stream starts here.
    pub checkpoint: Lsn,
    /// T: nothing beyond it was ever sent. A source that came back from before T is not the source we copied.
    pub sent_limit: Lsn,
}

/// A slot that is being made. Written before PostgreSQL is asked: a slot of our name that exists with this on disk is
/// our own orphan and may be dropped; any other is somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotIntent {
    Creating,
}

/// How far the copy of one table is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// The table's own oid: another one means that it was dropped and made again.
    pub oid: Oid,
    /// The collection that it was copied into.
    pub collection: String,
    /// The row filter that it was copied with, as PostgreSQL prints it.
    pub row_filter: Option<String>,
    /// The columns that its entities have their keys from; empty when a version wrote it that did not say.
    pub key: Vec<String>,
    /// Every chunk is at the target, and `sweep` is over.
    pub copied: bool,
    /// The copy goes over a collection that has entities already: those without a row are to be removed behind it. With no
    /// leaves: a new copy was asked for, and nothing of it is planned yet.
    pub sweep: bool,
    /// Where the copy was begun anew, or was made under one snapshot: it shows these transactions already.
    pub skip: Skip,
    /// Why it stopped, if the WAL that it needs was let go: nothing but a new copy brings it back.
    pub let_go: Option<String>,
    /// In the order they were given.
    pub leaves: Vec<LeafState>,
}

/// The chunks of one leaf, and the file they were cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafState {
    pub oid: Oid,
    /// `pg_relation_filenode` under lock: another one means that the ranges mean nothing any more.
    pub filenode: Oid,
    pub ranges: Vec<BlockRange>,
    /// As many as `ranges`.
    pub done: Vec<bool>,
}

/// A range of blocks, `ctid >= '(from_block,0)' and ctid < '(to_block,0)'`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    pub from_block: u32,
    /// Exclusive; `None` is open above.
    pub to_block: Option<u32>,
}

/// How long a write may take. A disk that fails may leave sled's flush waiting for ever for the thread that met the error (0.34,
/// seen with a file that may not grow), and a daemon that waits for it would say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// One change of the state. A `Batch` of them is written whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    AdoptSource { system_identifier: u64, timeline: u32 },
    IntendSlot(SlotIntent),
    ForgetIntent,
    SlotCreated { system_identifier: u64, timeline: u32, consistent_point: Lsn },
    Checkpoint(Lsn),
    RaiseSentLimit(Lsn),
    StartSending,
    CleanStop { nothing_beyond: bool },
    PutTable { name: String, table: TableState },
    ReplaceLeaf { name: String, leaf: LeafState },
    MarkChunksDone { name: String, leaf: Oid, chunks: Vec<u32> },
    MarkCopied { name: String },
    RemoveTable { name: String },
    KeepLetter { name: String, key: Key, letter: Letter },
    ClearLetters { name: String, keys: Vec<Key> },
    ClearAllLetters { name: String },
}

/// Several changes that must be true together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(Vec<Operation>);

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    fn with(mut self, operation: Operation) -> Batch {
        self.0.push(operation);
        self
    }

    /// Everything before `lsn` is acknowledged by Milvus. Refused when it would go back.
    pub fn checkpoint(self, lsn: Lsn) -> Batch {
        self.with(Operation::Checkpoint(lsn))
    }

    /// Effects up to `lsn` may be sent. A lower one than there is changes nothing.
    pub fn raise_sent_limit(self, lsn: Lsn) -> Batch {
        self.with(Operation::RaiseSentLimit(lsn))
    }

    /// List and flags of one leaf, in place of what there was; the table is no longer copied.
    pub fn replace_leaf(self, name: &str, leaf: LeafState) -> Batch {
        self.with(Operation::ReplaceLeaf { name: name.to_owned(), leaf })
    }

    /// Chunks of a leaf by their index into its ranges.
    pub fn mark_chunks_done(self, name: &str, leaf: Oid, chunks: Vec<u32>) -> Batch {
        self.with(Operation::MarkChunksDone { name: name.to_owned(), leaf, chunks })
    }

    /// And swept, if that was to be.
    pub fn mark_copied(self, name: &str) -> Batch {
        self.with(Operation::MarkCopied { name: name.to_owned() })
    }

    /// The whole state of a table, flags included, in place of what there was; its dead letters stay.
    pub fn put_table(self, name: &str, table: TableState) -> Batch {
        self.with(Operation::PutTable { name: name.to_owned(), table })
    }

    pub fn clear_all_letters(self, name: &str) -> Batch {
        self.with(Operation::ClearAllLetters { name: name.to_owned() })
    }

    /// With its dead letters.
    pub fn remove_table(self, name: &str) -> Batch {
        self.with(Operation::RemoveTable { name: name.to_owned() })
    }
}

/// The open store. Clones share it; the last one to go closes it, and so does `close`.
///
/// Writing is one thread's work: sled blocks, and callers that come while it syncs share the next sync.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    requests: mpsc::UnboundedSender<Request>,
    path: PathBuf,
    patience: Duration,
    /// A write was not answered in time: nothing will be.
    stuck: AtomicBool,
}

type Answer = oneshot::Sender<Result<(), StoreError>>;

enum Request {
    Write(Batch, Answer),
    Close(Answer),
}

impl TableState {
    /// The state from which the table is copied again, over the collection as it is, and swept.
    pub fn anew(self) -> TableState {
        TableState { copied: false, sweep: true, let_go: None, leaves: Vec::new(), ..self }
    }

    /// A new copy was asked for, and not begun.
    pub fn is_asked_anew(&self) -> bool {
        self.sweep && !self.copied && self.leaves.is_empty()
    }
}

impl Store {
    /// Open or create the store in `path`, a directory. Blocks for as long as sled recovers (milliseconds).
    ///
    /// # Errors
    /// Held by another process; written by a newer walvec; about another slot, publication or database; damaged;
    /// not writable. Each says the way out.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Store, Saved), StoreError> {
        let (writer, saved) = Writer::open(path, identity)?;
        let (requests, inbox) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || writer.run(inbox))
            .map_err(|error| StoreError::unusable(path, error))?;
        let shared = Shared { requests, path: path.to_owned(), patience: PATIENCE, stuck: AtomicBool::new(false) };
        Ok((Store { shared: Arc::new(shared) }, saved))
    }

    /// Write a batch; it is durable when this returns. Dropping the future does not stop the write.
    pub async fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let ended = || StoreError::Ended { path: self.shared.path.clone() };
        self.shared.requests.send(Request::Write(batch, answer)).map_err(|_| ended())?;
        self.in_time(answered).await
    }

    async fn in_time(&self, answered: oneshot::Receiver<Result<(), StoreError>>) -> Result<(), StoreError> {
        let path = self.shared.path.clone();
        match tokio::time::timeout(self.shared.patience, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Ended { path }),
            Err(_) => {
                self.shared.stuck.store(true, Ordering::Relaxed);
                Err(StoreError::Stuck { path, waited: self.shared.patience })
            }
        }
    }

    async fn one(&self, operation: Operation) -> Result<(), StoreError> {
        self.write(Batch(vec![operation])).await
    }

    /// The start gate allowed this server: remember its timeline. Another system identifier is refused.
    pub async fn adopt_source(&self, system_identifier: u64, timeline: u32) -> Result<(), StoreError> {
        self.one(Operation::AdoptSource { system_identifier, timeline }).await
    }

    /// Before `CREATE_REPLICATION_SLOT`.
    pub async fn intend_slot(&self, intent: SlotIntent) -> Result<(), StoreError> {
        self.one(Operation::IntendSlot(intent)).await
    }

    /// The slot could not be made and nothing of it is left.
    pub async fn forget_intent(&self) -> Result<(), StoreError> {
        self.one(Operation::ForgetIntent).await
    }

    /// The slot is there: a new beginning. In one batch the intent goes, checkpoint and T become the consistent
    /// point, and every table is to be copied again.
    pub async fn slot_created(
        &self,
        system_identifier: u64,
        timeline: u32,
        consistent_point: Lsn,
    ) -> Result<(), StoreError> {
        self.one(Operation::SlotCreated { system_identifier, timeline, consistent_point }).await
    }

    /// Everything before `lsn` is acknowledged by Milvus. Only after this returned may `lsn` be confirmed to PostgreSQL.
    pub async fn checkpoint(&self, lsn: Lsn) -> Result<(), StoreError> {
        self.one(Operation::Checkpoint(lsn)).await
    }

    /// Effects up to `lsn` may be sent once this returned. A lower one than there is changes nothing.
    pub async fn raise_sent_limit(&self, lsn: Lsn) -> Result<(), StoreError> {
        self.one(Operation::RaiseSentLimit(lsn)).await
    }

    /// From now on something may be unanswered: the clean-stop mark goes, before the first request leaves.
    pub async fn start_sending(&self) -> Result<(), StoreError> {
        self.one(Operation::StartSending).await
    }

    /// Nothing is pending, in flight or unsettled: set the mark. `nothing_beyond`: nor does the target hold anything from
    /// beyond the checkpoint (a chunk or a fetch may have read ahead of the stream), so T goes down to it.
    pub async fn clean_stop(&self, nothing_beyond: bool) -> Result<(), StoreError> {
        self.one(Operation::CleanStop { nothing_beyond }).await
    }

    pub async fn put_table(&self, name: &str, table: TableState) -> Result<(), StoreError> {
        self.write(Batch::new().put_table(name, table)).await
    }

    pub async fn replace_leaf(&self, name: &str, leaf: LeafState) -> Result<(), StoreError> {
        self.write(Batch::new().replace_leaf(name, leaf)).await
    }

    pub async fn mark_chunks_done(&self, name: &str, leaf: Oid, chunks: Vec<u32>) -> Result<(), StoreError> {
        self.write(Batch::new().mark_chunks_done(name, leaf, chunks)).await
    }

    pub async fn mark_copied(&self, name: &str) -> Result<(), StoreError> {
        self.write(Batch::new().mark_copied(name)).await
    }

    /// In place of the letter that the key may have.
    pub async fn keep_letter(&self, name: &str, key: Key, letter: Letter) -> Result<(), StoreError> {
        self.one(Operation::KeepLetter { name: name.to_owned(), key, letter }).await
    }

    pub async fn clear_letters(&self, name: &str, keys: Vec<Key>) -> Result<(), StoreError> {
        self.one(Operation::ClearLetters { name: name.to_owned(), keys }).await
    }

    pub async fn clear_all_letters(&self, name: &str) -> Result<(), StoreError> {
        self.one(Operation::ClearAllLetters { name: name.to_owned() }).await
    }

    /// With its dead letters.
    pub async fn remove_table(&self, name: &str) -> Result<(), StoreError> {
        self.write(Batch::new().remove_table(name)).await
    }

    /// What was asked for before is written, then the lock is free. Other clones get `Ended` from then on.
    pub async fn close(self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let path = self.shared.path.clone();
        if self.shared.stuck.load(Ordering::Relaxed) {
            return Err(StoreError::Stuck { path, waited: self.shared.patience });
        }
        if self.shared.requests.send(Request::Close(answer)).is_err() {
            return Err(StoreError::Ended { path });
        }
        self.in_time(answered).await
    }

    /// Bytes that the store takes on disk; 0 when they cannot be counted.
    pub fn size_on_disk(&self) -> u64 {
        fn size(directory: &Path) -> u64 {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let sizes = entries.map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => size(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            });
            sizes.sum()
        }
        size(&self.shared.path)
    }
}
