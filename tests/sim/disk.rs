//! The simulated sled: batches become durable in the order in which they were written, at any later moment. A crash
//! keeps what was flushed and any prefix of what was written after it.

use std::collections::VecDeque;

use crate::change::Lsn;

use super::rng::Rng;
use super::script::{KEYS, RANGES, TABLES};

/// What walvec keeps.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) checkpoint: Lsn,
    /// T of rule G.
    pub(super) sent_limit: Lsn,
    /// The last process said good-bye: nothing of it is unanswered.
    pub(super) clean: bool,
    pub(super) timeline: u32,
    pub(super) chunks: [ChunkList; TABLES],
    /// Of tables that are swept: the sweep is over.
    pub(super) swept: [bool; TABLES],
    /// Tables that the slot does not wait for any more: what happened to them since is lost to the stream (A).
    pub(super) let_go: [bool; TABLES],
    /// N of tables whose collection was made anew: transactions whose commit record does not start behind it are in the copy.
    pub(super) skip: [Lsn; TABLES],
    /// Their old collection may still be there.
    pub(super) remaking: [bool; TABLES],
    /// Keys with a dead letter.
    pub(super) letters: [[bool; KEYS]; TABLES],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkList {
    pub(super) file_node: u32,
    pub(super) done: [bool; RANGES],
}

impl ChunkList {
    pub(super) fn all_done(&self) -> bool {
        self.done.iter().all(|&done| done)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Put {
    Checkpoint(Lsn),
    SentLimit(Lsn),
    Clean(bool),
    Timeline(u32),
    FileNode { table: usize, file_node: u32 },
    ClearChunks { table: usize },
    ChunkDone { table: usize, range: usize },
    Letter { table: usize, key: usize, kept: bool },
    NoLetters { table: usize },
    Swept { table: usize, swept: bool },
    LetGo { table: usize, let_go: bool },
    Skip { table: usize, until: Lsn },
    Remaking { table: usize, remaking: bool },
}

pub(super) struct Disk {
    pub(super) durable: Stored,
    waiting: VecDeque<Vec<Put>>,
    /// Batches that are durable.
    flushed: u64,
}

impl Disk {
    pub(super) fn new(stored: Stored) -> Disk {
        Disk { durable: stored, waiting: VecDeque::new(), flushed: 0 }
    }

    /// Write one batch. Its number, for `is_durable`.
    pub(super) fn write(&mut self, batch: Vec<Put>) -> u64 {
        self.waiting.push_back(batch);
        self.flushed + self.waiting.len() as u64
    }

    pub(super) fn is_durable(&self, number: u64) -> bool {
        number <= self.flushed
    }

    pub(super) fn has_unflushed(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn flush_one(&mut self) {
        if let Some(batch) = self.waiting.pop_front() {
            self.flushed += 1;
            batch.into_iter().for_each(|put| apply(&mut self.durable, put));
        }
    }

    pub(super) fn flush(&mut self) {
        while self.has_unflushed() {
            self.flush_one();
        }
    }

    /// What the process itself reads back.
    pub(super) fn latest(&self) -> Stored {
        let mut stored = self.durable.clone();
        self.waiting.iter().flatten().for_each(|&put| apply(&mut stored, put));
        stored
    }

    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.below(self.waiting.len() + 1);
        for _ in 0..kept {
            self.flush_one();
        }
        self.waiting.clear();
    }
}

fn apply(stored: &mut Stored, put: Put) {
    match put {
        Put::Checkpoint(lsn) => stored.checkpoint = lsn,
        Put::SentLimit(lsn) => stored.sent_limit = lsn,
        Put::Clean(clean) => stored.clean = clean,
        Put::Timeline(timeline) => stored.timeline = timeline,
        Put::FileNode { table, file_node } => stored.chunks[table].file_node = file_node,
        Put::ClearChunks { table } => stored.chunks[table].done = [false; RANGES],
        Put::ChunkDone { table, range } => stored.chunks[table].done[range] = true,
        Put::Letter { table, key, kept } => stored.letters[table][key] = kept,
        Put::Swept { table, swept } => stored.swept[table] = swept,
        Put::LetGo { table, let_go } => stored.let_go[table] = let_go,
        Put::Skip { table, until } => stored.skip[table] = until,
        Put::Remaking { table, remaking } => stored.remaking[table] = remaking,
        Put::NoLetters { table } => stored.letters[table] = [false; KEYS],
    }
}
