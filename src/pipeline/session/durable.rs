//! What a session writes to its disk, and what may follow once it is there.
//!
//! Holds: whatever PostgreSQL, the engine or a person is told of a write, they are told after it was flushed; writes end in the
//! order in which they were asked for.

use tokio::sync::oneshot;

use crate::change::{Lsn, TableId};
use crate::checkpoint::{LeafState, StoreError, TableState};
use crate::commands::Taken;
use crate::engine::{ChunkId, LetterId};
use crate::letters::Letter;
use crate::mutation::Key;
use crate::pipeline::copying::Work;
use crate::pipeline::{crash, startup};

use super::Session;

/// Something became durable.
pub(in crate::pipeline) enum Written {
    Checkpoint(Lsn),
    SentLimit(Lsn),
    ChunkDone {
        chunk: ChunkId,
        work: Work,
    },
    Copied(TableId),
    LeafReplaced {
        table: TableId,
        leaf: LeafState,
    },
    LetGo {
        table: TableId,
        state: TableState,
    },
    AskedAnew {
        table: TableId,
        state: TableState,
        answer: oneshot::Sender<Taken>,
    },
    LetterKept {
        id: LetterId,
        name: String,
        key: Key,
        letter: Letter,
    },
    /// `id`: the engine waits for it; `key`: only this one.
    LettersCleared {
        id: Option<LetterId>,
        name: String,
        key: Option<Key>,
    },
}

impl Session {
    /// Acknowledged → flushed. One write at a time, no more often than the interval, sooner when `now`.
    pub(super) fn write_checkpoint(&mut self, now: bool) {
        let lsn = self.engine.progress();
        let time = self.context.clock.now();
        if lsn <= self.checkpoint || self.writing_checkpoint || (!now && time < self.checkpoint_at) {
            return;
        }
        self.writing_checkpoint = true;
        self.checkpoint_at = time + self.context.settings.pipeline.checkpoint_interval.as_millis() as u64;
        let store = self.context.store.clone();
        self.push_write(async move {
            store.checkpoint(lsn).await?;
            Ok(Written::Checkpoint(lsn))
        });
    }

    pub(super) fn written(&mut self, written: Written) {
        match written {
            Written::Checkpoint(lsn) => {
                self.writing_checkpoint = false;
                self.checkpoint = lsn;
                crash::point("checkpointed");
                // Flushed → confirmed. PostgreSQL may forget the WAL below.
                self.stream.confirm(lsn);
                self.confirmed = lsn;
                self.context.metrics.checkpoint_is_current();
                crash::point("confirmed");
            }
            Written::SentLimit(lsn) => self.engine.sent_limit_raised(lsn),
            Written::ChunkDone { chunk, work } => {
                if self.copy.take(chunk).is_none() {
                    return; // the leaf was rewritten while the flag was written, and the flag went with it
                }
                if let Some(state) = self.tables.get_mut(&work.table) {
                    for leaf in state.leaves.iter_mut().filter(|leaf| leaf.oid == work.leaf) {
                        if let Some(done) = leaf.done.get_mut(work.index) {
                            *done = true;
                        }
                    }
                }
                self.finish_copy_if_over(work.table);
            }
            Written::Copied(table) => {
                if let Some(state) = self.tables.get_mut(&table) {
                    (state.copied, state.sweep) = (true, false);
                }
                self.engine.copy_finished(table);
                self.awaits_horizon = true;
                tracing::info!(table = %self.name(table), "copy finished");
            }
            Written::LetGo { table, state } => {
                self.tables.insert(table, state);
                self.changed = Some(format!("{} stopped, and the WAL that it needs is let go", self.name(table)));
            }
            Written::AskedAnew { table, state, answer } => {
                let name = self.name(table);
                self.context.letters.clear(&name, None);
                self.tables.insert(table, state);
                self.changed = Some(format!("a new copy of {name} was asked for"));
                // An asker that went away needs no answer.
                answer.send(Taken { matched: 1, taken: 1 }).unwrap_or_default();
            }
            Written::LetterKept { id, name, key, letter } => {
                self.context.letters.keep(&name, key, letter);
                crash::point("letter");
                self.engine.letter_settled(id);
            }
            Written::LettersCleared { id, name, key } => {
                self.context.letters.clear(&name, key.as_ref());
                if let Some(id) = id {
                    self.engine.letter_settled(id);
                }
            }
            Written::LeafReplaced { table, leaf } => {
                self.copy.add_leaf(table, &leaf, false);
                if let Some(state) = self.tables.get_mut(&table) {
                    state.leaves.retain(|old| old.oid != leaf.oid);
                    state.leaves.push(leaf);
                }
            }
        }
    }

    pub(in crate::pipeline) fn push_write(
        &mut self,
        write: impl Future<Output = Result<Written, StoreError>> + Send + 'static,
    ) {
        self.writes.push_back(Box::pin(write));
    }

    /// A table that stopped no longer keeps the slot: that is written down, and the next session leaves it out.
    pub(in crate::pipeline) fn let_go(&mut self, table: TableId) {
        let name = self.name(table);
        let reason = self.engine.table(table).stopped;
        let (Some(reason), Some(mut state)) = (reason, self.tables.get(&table).cloned()) else { return };
        if state.let_go.is_some() || !self.asked_anew.insert(table) {
            return; // nothing of its copy may be written behind that
        }
        state.let_go = Some(startup::let_go_sentence(&name, &reason));
        let store = self.context.store.clone();
        self.push_write(async move {
            store.put_table(&name, state.clone()).await?;
            Ok(Written::LetGo { table, state })
        });
    }
}
