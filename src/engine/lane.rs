//! A lane: the pending entries of a share of a table's keys, and the one batch that is on its way.
//!
//! Holds: a key waits at most once and in the order in which it began to wait; the batch in flight is answered before
//! the next leaves; a key under embargo stays while the others go on.

use std::collections::{HashMap, VecDeque};

use super::entry::{Content, Entry};
use super::{FetchId, FetchedRows};
use crate::change::Lsn;
use crate::mutation::{Key, Mutations};

pub(super) enum Phase {
    Idle,
    /// The batch waits for columns from the source.
    Fetching {
        fetch: FetchId,
    },
    /// They are here, but the source has not flushed what they show (W).
    AwaitFlush {
        fetch: FetchId,
        insert_lsn: Lsn,
        rows: FetchedRows,
    },
    /// The batch waits for the sent limit on disk (G).
    AwaitLimit,
    Sending,
}

pub(super) struct Lane {
    pub(super) phase: Phase,
    /// Queued to be looked at.
    pub(super) awake: bool,
    pending: HashMap<Key, Entry>,
    queue: VecDeque<Key>,
    batch: Vec<(Key, Entry)>,
    /// Where in the batch a key is.
    batch_index: HashMap<Key, usize>,
    /// Keys that must not be sent before the time (S).
    embargo: HashMap<Key, u64>,
    /// Keys that wait for their embargo to end.
    parked: Vec<Key>,
}

impl Lane {
    pub(super) fn new() -> Lane {
        Lane {
            phase: Phase::Idle,
            awake: false,
            pending: HashMap::new(),
            queue: VecDeque::new(),
            batch: Vec::new(),
            batch_index: HashMap::new(),
            embargo: HashMap::new(),
            parked: Vec::new(),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy() && self.pending.is_empty()
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn batch_count(&self) -> usize {
        self.batch.len()
    }

    pub(super) fn embargo_count(&self) -> usize {
        self.embargo.len()
    }

    /// No attempt of an earlier request may still land.
    pub(super) fn settled(&self) -> bool {
        self.embargo.is_empty()
    }

    pub(super) fn pending(&self, key: &Key) -> Option<&Entry> {
        self.pending.get(key)
    }

    pub(super) fn in_flight(&self, key: &Key) -> Option<&Entry> {
        self.batch_index.get(key).and_then(|index| self.batch.get(*index)).map(|(_, entry)| entry)
    }

    pub(super) fn is_key_busy(&self, key: &Key) -> bool {
        self.pending.contains_key(key) || self.batch_index.contains_key(key)
    }

    pub(super) fn pending_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.pending.get_mut(key)
    }

    /// A key that does not wait yet.
    pub(super) fn insert_pending(&mut self, key: Key, entry: Entry) {
        self.queue.push_back(key.clone());
        let before = self.pending.insert(key, entry);
        debug_assert!(before.is_none(), "a key waits at most once");
    }

    /// Drop everything that waits; what it was charged with is returned.
    pub(super) fn drop_pending(&mut self) -> usize {
        self.queue.clear();
        self.parked.clear();
        self.pending.drain().map(|(_, entry)| entry.bytes).sum()
    }

    /// Move the longest waiting keys into the batch, within both bounds but at least one. False: nothing may leave.
    pub(super) fn fill_batch(&mut self, rows_max: usize, bytes_max: usize) -> bool {
        debug_assert!(self.batch.is_empty() && !self.is_busy());
        let mut bytes = 0;
        while let Some(key) = self.queue.front() {
            let entry = self.pending.get(key).expect("a key in the queue waits");
            if self.embargo.contains_key(key) {
                self.parked.extend(self.queue.pop_front());
                continue;
            }
            if !self.batch.is_empty() && (self.batch.len() >= rows_max || bytes + entry.bytes > bytes_max) {
                break;
            }
            bytes += entry.bytes;
            let key = self.queue.pop_front().expect("just looked at");
            let entry = self.pending.remove(&key).expect("just looked at");
            self.put_in_batch(key, entry);
        }
        if self.queue.is_empty() && self.queue.capacity() > 4096 {
            self.queue.shrink_to(1024); // a burst must not set the size for months
            self.pending.shrink_to(1024);
        }
        !self.batch.is_empty()
    }

    pub(super) fn batch(&self) -> &[(Key, Entry)] {
        &self.batch
    }

    pub(super) fn put_in_batch(&mut self, key: Key, entry: Entry) {
        self.batch_index.insert(key.clone(), self.batch.len());
        self.batch.push((key, entry));
    }

    /// The batch is over, or about to be put together anew.
    pub(super) fn take_batch(&mut self) -> Vec<(Key, Entry)> {
        self.phase = Phase::Idle;
        self.batch_index.clear();
        std::mem::take(&mut self.batch)
    }

    /// The batch as one request.
    pub(super) fn mutations(&self) -> Mutations {
        let mut mutations = Mutations::default();
        for (key, entry) in &self.batch {
            match &entry.content {
                Content::Whole(row) => mutations.upserts.push((key.clone(), row.clone())),
                Content::Delete => mutations.deletes.push(key.clone()),
                Content::Gone => {}
                Content::Fetch(_) => unreachable!("a batch is sent when every row is whole"),
            }
        }
        mutations
    }

    pub(super) fn embargo(&mut self, keys: impl Iterator<Item = Key>, until: u64) {
        for key in keys {
            let time = self.embargo.entry(key).or_insert(until);
            *time = (*time).max(until);
        }
    }

    pub(super) fn lift_embargo(&mut self, now: u64) {
        self.embargo.retain(|_, until| *until > now);
        if self.embargo.is_empty() {
            self.embargo.shrink_to(0);
        }
        let (stay, go): (Vec<Key>, Vec<Key>) = self.parked.drain(..).partition(|key| self.embargo.contains_key(key));
        self.parked = stay;
        for key in go.into_iter().rev() {
            self.queue.push_front(key); // they have waited longest
        }
    }
}
