//! The one thread that writes, and the reading at open.
//!
//! In: batches. Out: their answers, after the sync. Batches that wait while one sync runs share the next.
//!
//! Holds: a batch is checked against what is known before any of it is written, so a refused batch changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::codec::{self, TableRecord};
use super::lock::DirectoryLock;
use super::{
    Answer, Batch, Identity, LeafState, Operation, Request, Saved, SavedSource, SlotIntent, StoreError, TableState,
};
use crate::change::{Lsn, Oid, Skip};
use crate::letters::TableLetters;

/// sled would take 1 GiB. What is here is a few MB at most and is read only at open.
const CACHE_BYTES: u64 = 4 << 20;

/// Batches that share one sync at most, so that the first does not wait for a flood.
const BATCHES_A_SYNC: usize = 256;

pub(super) struct Writer {
    path: PathBuf,
    database: sled::Db,
    /// sled's own file once more, for the sync.
    file: File,
    known: Known,
    /// Behind sled's handles, which must be dropped before it.
    lock: DirectoryLock,
}

/// What is on disk, as far as a batch is checked against it.
#[derive(Clone, Default)]
struct Known {
    source: Option<SavedSource>,
    /// By table, then leaf: how many ranges.
    tables: BTreeMap<String, (TableInfo, BTreeMap<Oid, u32>)>,
}

#[derive(Clone, Default)]
struct TableInfo {
    oid: Oid,
    collection: String,
    row_filter: Option<String>,
    key: Vec<String>,
    leaves: Vec<Oid>,
    copied: bool,
    sweep: bool,
    skip: Skip,
    let_go: Option<String>,
}

impl Writer {
    pub(super) fn open(path: &Path, identity: &Identity) -> Result<(Writer, Saved), StoreError> {
        let unusable = |error| StoreError::unusable(path, error);
        std::fs::create_dir_all(path).map_err(unusable)?;
        let lock = DirectoryLock::acquire(path)?;
        let directory = path.join("sled");
        let database = sled::Config::new()
            .path(&directory)
            .cache_capacity(CACHE_BYTES)
            // Flushed where the order asks for it and nowhere else.
            .flush_every_ms(None)
            .open()
            .map_err(|error| StoreError::from_sled(path, error))?;
        let file = File::open(directory.join("db")).map_err(unusable)?;
        let mut writer = Writer { path: path.to_owned(), database, file, known: Known::default(), lock };
        writer.check_format()?;
        writer.check_identity(identity)?;
        writer.flush()?;
        // The names of a new directory are durable only when their parents are synced.
        for directory in [Some(directory.as_path()), Some(path), path.parent()].into_iter().flatten() {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)?;
        }
        let saved = writer.read()?;
        writer.known = Known::of(&saved);
        Ok((writer, saved))
    }

    pub(super) fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        let mut closed = None;
        while closed.is_none() {
            let Some(first) = inbox.blocking_recv() else { break };
            let mut answers = Vec::new();
            let mut next = Some(first);
            let mut failure = None;
            while let Some(request) = next {
                match request {
                    Request::Close(answer) => closed = Some(answer),
                    Request::Write(batch, answer) => match self.apply(batch) {
                        Ok(()) => answers.push(answer),
                        Err(error @ (StoreError::Refused(_) | StoreError::OtherSystem { .. })) => {
                            drop(answer.send(Err(error)));
                        }
                        Err(error) => {
                            failure = Some(error);
                            answers.push(answer);
                        }
                    },
                }
                let full = answers.len() >= BATCHES_A_SYNC || closed.is_some() || failure.is_some();
                next = if full { None } else { inbox.try_recv().ok() };
            }
            let flushed = match failure {
                Some(error) => Err(error),
                None if answers.is_empty() => Ok(()),
                None => self.flush(),
            };
            for answer in answers {
                // A caller that went away is no reason to stop.
                drop(answer.send(flushed.clone()));
            }
            if let Err(error) = flushed {
                tracing::error!(error = %error, "state store failed");
                break;
            }
        }
        self.end(inbox, closed);
    }

    fn end(self, inbox: mpsc::UnboundedReceiver<Request>, closed: Option<Answer>) {
        // Waiting callers see their answer's sender go and get `Ended`.
        drop(inbox);
        let Writer { database, file, lock, .. } = self;
        drop((database, file));
        drop(lock);
        if let Some(closed) = closed {
            drop(closed.send(Ok(())));
        }
    }

    /// sled 0.34 ends a flush with `sync_file_range` (`pagecache/iobuf.rs`), which writes neither the file's new length
    /// nor the disk's own cache: enough for a killed process, not for a power cut. So the file is synced again by us.
    fn flush(&self) -> Result<(), StoreError> {
        self.database.flush().map_err(|error| StoreError::from_sled(&self.path, error))?;
        self.file.sync_data().map_err(|error| StoreError::from_sled(&self.path, sled::Error::Io(error)))
    }

    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut known = self.known.clone();
        let mut writes = Writes::default();
        for operation in batch.0 {
            self.operation(operation, &mut known, &mut writes)?;
        }
        let mut sled_batch = sled::Batch::default();
        for (key, value) in writes.0 {
            match value {
                Some(value) => sled_batch.insert(key, value),
                None => sled_batch.remove(key),
            }
        }
        self.database.apply_batch(sled_batch).map_err(|error| StoreError::from_sled(&self.path, error))?;
        self.known = known;
        Ok(())
    }

    fn operation(&self, operation: Operation, known: &mut Known, writes: &mut Writes) -> Result<(), StoreError> {
        match operation {
            Operation::AdoptSource { system_identifier, timeline } => {
                let source =
                    known.source.as_mut().ok_or_else(|| refused("there is no slot yet, so no source to adopt"))?;
                if source.system_identifier != system_identifier {
                    let (path, saved) = (self.path.clone(), source.system_identifier);
                    return Err(StoreError::OtherSystem { path, saved, found: system_identifier });
                }
                source.timeline = timeline;
                writes.put("timeline", timeline.to_be_bytes());
            }
            Operation::IntendSlot(SlotIntent::Creating) => writes.put("intent", [1]),
            Operation::ForgetIntent => writes.remove("intent"),
            Operation::SlotCreated { system_identifier, timeline, consistent_point } => {
                writes.remove("intent");
                writes.remove("clean_stop");
                writes.put("system_identifier", system_identifier.to_be_bytes());
                writes.put("timeline", timeline.to_be_bytes());
                writes.put("checkpoint", consistent_point.0.to_be_bytes());
                writes.put("sent_limit", consistent_point.0.to_be_bytes());
                let names: Vec<String> = known.tables.keys().cloned().collect();
                for name in names {
                    self.remove_table(&name, known, writes)?;
                }
                let (checkpoint, sent_limit) = (consistent_point, consistent_point);
                known.source = Some(SavedSource { system_identifier, timeline, checkpoint, sent_limit });
            }
            Operation::Checkpoint(lsn) => {
                let source = known.source.as_mut().ok_or_else(|| refused("a checkpoint before there is a slot"))?;
                if lsn < source.checkpoint {
                    return Err(refused(&format!("the checkpoint {} would go back to {lsn}", source.checkpoint)));
                }
                source.checkpoint = lsn;
                writes.put("checkpoint", lsn.0.to_be_bytes());
            }
            Operation::RaiseSentLimit(lsn) => {
                let source = known.source.as_mut().ok_or_else(|| refused("a sent limit before there is a slot"))?;
                source.sent_limit = source.sent_limit.max(lsn);
                writes.put("sent_limit", source.sent_limit.0.to_be_bytes());
            }
            Operation::StartSending => writes.remove("clean_stop"),
            Operation::CleanStop { nothing_beyond } => {
                writes.put("clean_stop", []);
                if nothing_beyond && let Some(source) = known.source.as_mut() {
                    source.sent_limit = source.checkpoint;
                    writes.put("sent_limit", source.sent_limit.0.to_be_bytes());
                }
            }
            Operation::PutTable { name, table } => {
                self.remove_leaves(&name, known, writes)?;
                let TableState { oid, collection, row_filter, key, copied, sweep, skip, let_go, leaves } = table;
                let oids = leaves.iter().map(|leaf| leaf.oid).collect();
                let info = TableInfo { oid, collection, row_filter, key, copied, sweep, skip, let_go, leaves: oids };
                known.tables.insert(name.clone(), (info, BTreeMap::new()));
                for leaf in leaves {
                    put_leaf(&name, leaf, known, writes)?;
                }
                put_table_record(&name, known, writes);
            }
            Operation::ReplaceLeaf { name, leaf } => {
                let (info, leaves) = known.tables.get_mut(&name).ok_or_else(|| no_table(&name))?;
                info.copied = false;
                if leaves.contains_key(&leaf.oid) {
                    self.remove_prefix(&codec::page_prefix(&name, leaf.oid), writes)?;
                    self.remove_prefix(&codec::done_prefix(&name, leaf.oid), writes)?;
                } else {
                    info.leaves.push(leaf.oid);
                }
                put_leaf(&name, leaf, known, writes)?;
                put_table_record(&name, known, writes);
            }
            Operation::MarkChunksDone { name, leaf, chunks } => {
                let (_, leaves) = known.tables.get(&name).ok_or_else(|| no_table(&name))?;
                let count = *leaves.get(&leaf).ok_or_else(|| refused(&format!("table {name:?} has no leaf {leaf}")))?;
                for chunk in chunks {
                    if chunk >= count {
                        return Err(refused(&format!("leaf {leaf} of {name:?} has no chunk {chunk}")));
                    }
                    writes.put(codec::done_key(&name, leaf, chunk), []);
                }
            }
            Operation::MarkCopied { name } => {
                let (info, _) = known.tables.get_mut(&name).ok_or_else(|| no_table(&name))?;
                (info.copied, info.sweep) = (true, false);
                put_table_record(&name, known, writes);
            }
            Operation::RemoveTable { name } => self.remove_table(&name, known, writes)?,
            Operation::KeepLetter { name, key, letter } => {
                if !known.tables.contains_key(&name) {
                    return Err(no_table(&name));
                }
                let text = serde_json::to_vec(&letter).map_err(|error| refused(&error.to_string()))?;
                writes.put(codec::letter_key(&name, &key), text);
            }
            Operation::ClearLetters { name, keys } => {
                for key in keys {
                    writes.remove(codec::letter_key(&name, &key));
                }
            }
            Operation::ClearAllLetters { name } => self.remove_prefix(&codec::letter_prefix(&name), writes)?,
        }
        Ok(())
    }

    fn remove_table(&self, name: &str, known: &mut Known, writes: &mut Writes) -> Result<(), StoreError> {
        self.remove_leaves(name, known, writes)?;
        self.remove_prefix(&codec::letter_prefix(name), writes)
    }

    fn remove_leaves(&self, name: &str, known: &mut Known, writes: &mut Writes) -> Result<(), StoreError> {
        known.tables.remove(name);
        writes.remove(codec::table_key(name));
        for prefix in codec::leaf_prefixes(name) {
            self.remove_prefix(&prefix, writes)?;
        }
        Ok(())
    }

    /// Everything under a prefix goes, also what this batch is about to write there.
    fn remove_prefix(&self, prefix: &[u8], writes: &mut Writes) -> Result<(), StoreError> {
        for key in self.database.scan_prefix(prefix).keys() {
            writes.remove(key.map_err(|error| StoreError::from_sled(&self.path, error))?.to_vec());
        }
        let pending: Vec<Vec<u8>> = writes.0.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in pending {
            writes.remove(key);
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<sled::IVec>, StoreError> {
        self.database.get(key).map_err(|error| StoreError::from_sled(&self.path, error))
    }

    fn insert(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.database.insert(key, value).map(drop).map_err(|error| StoreError::from_sled(&self.path, error))
    }

    fn check_format(&self) -> Result<(), StoreError> {
        match self.get("format")? {
            None if self.database.is_empty() => self.insert("format", &codec::FORMAT.to_be_bytes()),
            None => Err(StoreError::damaged(&self.path, "it has no format version")),
            Some(format) => match codec::decode_u32(&format) {
                Some(codec::FORMAT) => Ok(()),
                Some(found) if found > codec::FORMAT => {
                    Err(StoreError::NewerFormat { path: self.path.clone(), found, known: codec::FORMAT })
                }
                _ => Err(StoreError::damaged(&self.path, "its format version is none")),
            },
        }
    }

    fn check_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        for (what, configured) in
            [("slot", &identity.slot), ("publication", &identity.publication), ("database", &identity.database)]
        {
            match self.get(what)? {
                Some(saved) if *saved == *configured.as_bytes() => {}
                Some(saved) => {
                    let saved = String::from_utf8_lossy(&saved).into_owned();
                    let (path, configured) = (self.path.clone(), configured.clone());
                    return Err(StoreError::OtherIdentity { path, what, saved, configured });
                }
                None => self.insert(what, configured.as_bytes())?,
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<Saved, StoreError> {
        let damaged = |what: &str| StoreError::damaged(&self.path, what);
        let number = |key: &str| -> Result<Option<u64>, StoreError> {
            let value = self.get(key)?;
            value.map(|value| codec::decode_u64(&value).ok_or_else(|| damaged(key))).transpose()
        };
        let timeline = self.get("timeline")?.map(|value| codec::decode_u32(&value).ok_or_else(|| damaged("timeline")));
        let timeline = timeline.transpose()?;
        let source = match (number("system_identifier")?, timeline, number("checkpoint")?, number("sent_limit")?) {
            (None, None, None, None) => None,
            (Some(system_identifier), Some(timeline), Some(checkpoint), Some(sent_limit)) => {
                let (checkpoint, sent_limit) = (Lsn(checkpoint), Lsn(sent_limit));
                Some(SavedSource { system_identifier, timeline, checkpoint, sent_limit })
            }
            _ => return Err(damaged("only a part of the position is there")),
        };
        let intent = match self.get("intent")?.as_deref() {
            None => None,
            Some([1]) => Some(SlotIntent::Creating),
            Some(_) => return Err(damaged("intent")),
        };
        let clean_stop = self.get("clean_stop")?.is_some();
        let mut tables = BTreeMap::new();
        for entry in self.database.scan_prefix(b"t\0") {
            let (key, value) = entry.map_err(|error| StoreError::from_sled(&self.path, error))?;
            let name = key.strip_prefix(b"t\0").and_then(|name| std::str::from_utf8(name).ok());
            let name = name.ok_or_else(|| damaged("a table's name"))?;
            let record = TableRecord::decode(&value).ok_or_else(|| damaged("a table's record"))?;
            let leaves = record.leaves.iter().map(|&leaf| self.read_leaf(name, leaf)).collect::<Result<_, _>>()?;
            let TableRecord { oid, copied, sweep, collection, row_filter, key, skip, let_go, .. } = record;
            tables.insert(
                name.to_owned(),
                TableState { oid, collection, row_filter, key, copied, sweep, skip, let_go, leaves },
            );
        }
        let mut letters: BTreeMap<String, TableLetters> = BTreeMap::new();
        for entry in self.database.scan_prefix(b"x\0") {
            let (key, value) = entry.map_err(|error| StoreError::from_sled(&self.path, error))?;
            let (name, key) = codec::decode_letter_key(&key).ok_or_else(|| damaged("the key of a dead letter"))?;
            let letter = serde_json::from_slice(&value).map_err(|_| damaged("a dead letter"))?;
            letters.entry(name.to_owned()).or_default().insert(key, letter);
        }
        Ok(Saved { source, intent, clean_stop, tables, letters })
    }

    fn read_leaf(&self, name: &str, leaf: Oid) -> Result<LeafState, StoreError> {
        let damaged = || StoreError::damaged(&self.path, format!("the chunks of {name:?}"));
        let sled_error = |error| StoreError::from_sled(&self.path, error);
        let record = self.database.get(codec::leaf_key(name, leaf)).map_err(sled_error)?.ok_or_else(damaged)?;
        let (filenode, count) = codec::decode_leaf(&record).ok_or_else(damaged)?;
        let mut ranges = Vec::new();
        for page in self.database.scan_prefix(codec::page_prefix(name, leaf)).values() {
            ranges.extend(codec::decode_page(&page.map_err(sled_error)?).ok_or_else(damaged)?);
        }
        if ranges.len() != count as usize {
            return Err(damaged());
        }
        let mut done = vec![false; ranges.len()];
        let prefix = codec::done_prefix(name, leaf);
        for key in self.database.scan_prefix(&prefix).keys() {
            let key = key.map_err(sled_error)?;
            let chunk = key.strip_prefix(&prefix[..]).and_then(codec::decode_u32);
            *chunk.and_then(|chunk| done.get_mut(chunk as usize)).ok_or_else(damaged)? = true;
        }
        Ok(LeafState { oid: leaf, filenode, ranges, done })
    }
}

fn put_table_record(name: &str, known: &Known, writes: &mut Writes) {
    let Some((info, _)) = known.tables.get(name) else { return };
    let TableInfo { oid, copied, sweep, leaves, collection, row_filter, key, skip, let_go } = info.clone();
    let record = TableRecord { oid, copied, sweep, leaves, collection, row_filter, key, skip, let_go };
    writes.put(codec::table_key(name), record.encode());
}

fn put_leaf(name: &str, leaf: LeafState, known: &mut Known, writes: &mut Writes) -> Result<(), StoreError> {
    let count = u32::try_from(leaf.ranges.len()).map_err(|_| refused("more chunks than fit 32 bits"))?;
    if leaf.done.len() != leaf.ranges.len() {
        return Err(refused("a list of chunks with another number of flags"));
    }
    let (_, leaves) = known.tables.get_mut(name).ok_or_else(|| no_table(name))?;
    leaves.insert(leaf.oid, count);
    writes.put(codec::leaf_key(name, leaf.oid), codec::encode_leaf(leaf.filenode, count));
    for (page, ranges) in (0..).zip(leaf.ranges.chunks(codec::RANGES_A_PAGE)) {
        writes.put(codec::page_key(name, leaf.oid, page), codec::encode_page(ranges));
    }
    for (chunk, _) in (0..).zip(&leaf.done).filter(|(_, done)| **done) {
        writes.put(codec::done_key(name, leaf.oid, chunk), []);
    }
    Ok(())
}

fn refused(why: &str) -> StoreError {
    StoreError::Refused(why.to_owned())
}

fn no_table(name: &str) -> StoreError {
    refused(&format!("table {name:?} has no state"))
}

/// The last write of each key of one batch.
#[derive(Default)]
struct Writes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Writes {
    fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), Some(value.into()));
    }

    fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), None);
    }
}

impl Known {
    fn of(saved: &Saved) -> Known {
        let tables = saved.tables.iter().map(|(name, table)| {
            let counts = table.leaves.iter().map(|leaf| (leaf.oid, leaf.ranges.len() as u32)).collect();
            let leaves = table.leaves.iter().map(|leaf| leaf.oid).collect();
            let TableState { oid, copied, sweep, .. } = *table;
            let (skip, let_go) = (table.skip.clone(), table.let_go.clone());
            let (collection, row_filter, key) = (table.collection.clone(), table.row_filter.clone(), table.key.clone());
            (
                name.clone(),
                (TableInfo { oid, collection, row_filter, key, leaves, copied, sweep, skip, let_go }, counts),
            )
        });
        Known { source: saved.source, tables: tables.collect() }
    }
}
