//! Dead letters: rows that the target will not take, and whose policy is to be set aside instead of stopping the table.
//!
//! Such a row is read again first, as every refused row. Refused again, a delete is sent in its place, because a key
//! that is absent is better than one that shows an older row (B). When the delete is acknowledged the letter is
//! written, and only when it is durable is the row counted as done (E). A later success of the key, or its delete,
//! takes the letter away in the same way: durably, before it counts.
//!
//! Holds: progress never passes a row that is neither at the target nor in a letter on disk; a key with a letter is
//! absent at the target; what is tried again is read by a snapshot that sees all that the letter stands for, because the
//! row was last read when it was refused, and goes through the key's lane like everything else.
//!
//! Not here: what a letter says and where it is kept (`checkpoint`), who asks for another try (`pipeline::letters`).

use super::entry::{Content, Dead, Entry};
use super::ledger::Seq;
use super::{Effect, Engine};
use crate::change::{Lsn, Row, TableId};
use crate::mutation::{Key, Refusal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub u64);

/// A row that was refused, whose delete is acknowledged.
#[derive(Clone, Debug)]
pub struct DeadRow {
    pub table: TableId,
    pub key: Key,
    /// As it was refused.
    pub row: Row,
    pub refusal: Refusal,
    /// What the source had written when the row was read, or where its transaction commits.
    pub position: Lsn,
    /// Brought by the copy, and by no change since.
    pub copied: bool,
}

/// What is done once the store has written.
pub(super) enum Settling {
    Entry(Entry),
    /// The transaction of a TRUNCATE.
    Truncate(Seq),
}

impl Engine {
    /// Letters that an earlier session wrote.
    pub fn known_letters(&mut self, table: TableId, keys: impl IntoIterator<Item = Key>) {
        self.table_mut(table).letters.extend(keys);
    }

    /// What `KeepLetter` or `ClearLetters` asked for is durable.
    pub fn letter_settled(&mut self, letter: LetterId) {
        let Some((table, settling)) = self.settling.remove(&letter) else { return };
        self.table_mut(table).letters_settling -= 1;
        match settling {
            Settling::Entry(entry) => self.complete(entry),
            Settling::Truncate(seq) => self.ledger.release(seq),
        }
        self.drive_barrier();
    }

    /// Try the row of a letter again. `row` has the key columns, and `UnchangedToast` elsewhere. False: there is no
    /// letter, the table is stopped, or a change of the key is on its way and will decide.
    pub fn retry_letter(&mut self, table: TableId, key: Key, row: Row) -> bool {
        let state = &self.tables[table.0 as usize];
        let lane_index = state.lane_index(&key);
        let is_busy = state.lanes[lane_index].is_key_busy(&key);
        if state.stopped.is_some() || !state.letters.contains(&key) || is_busy || !self.barrier.is_empty() {
            return false;
        }
        let entry = Entry::of_letter(row, state.widest_row, &key);
        self.held_bytes += entry.bytes;
        self.tables[table.0 as usize].lanes[lane_index].insert_pending(key, entry);
        self.wake(table, lane_index);
        true
    }

    /// The letter was taken away by a person: its row is given up, and stays absent until the stream changes it.
    pub fn discard_letter(&mut self, table: TableId, key: &Key) {
        self.table_mut(table).letters.remove(key);
    }

    /// The row was refused for good: may it become a letter? Then its place is taken, though the delete that comes first
    /// may still be overtaken by a change. Else the table stops, for the reason that is returned.
    pub(super) fn reserve_letter(&mut self, table: TableId, key: &Key, refusal: &Refusal) -> Result<(), Refusal> {
        let state = self.table_mut(table);
        if !refusal.dead_letter {
            return Err(refusal.clone());
        }
        if state.letters.len() < state.letters_max || state.letters.contains(key) {
            state.letters.insert(key.clone());
            return Ok(());
        }
        let max = state.letters_max;
        let reason = format!("{refusal}; there are {max} dead letters already, as many as `dead_letters_max` allows");
        Err(Refusal { field: None, reason, dead_letter: false })
    }

    /// An entry is acknowledged. If that makes or ends a letter, it counts when the store has written so.
    pub(super) fn acknowledged(&mut self, table: TableId, key: Key, mut entry: Entry) {
        let flaw = self.flaw_letter_not_awaited();
        let letter = LetterId(self.new_id());
        let state = self.table_mut(table);
        let effect = match entry.dead.take() {
            Some(dead) => {
                let Dead { row, refusal } = *dead;
                state.letters.insert(key.clone());
                let (position, copied) = (entry.position, entry.oldest.is_none());
                Effect::KeepLetter(letter, Box::new(DeadRow { table, key, row, refusal, position, copied }))
            }
            None if !matches!(entry.content, Content::Gone) && state.letters.remove(&key) => {
                Effect::ClearLetters { letter, table, key: Some(key) }
            }
            None => return self.complete(entry),
        };
        self.effects.push_back(effect);
        if flaw {
            return self.complete(entry);
        }
        self.table_mut(table).letters_settling += 1;
        self.settling.insert(letter, (table, Settling::Entry(entry)));
    }

    /// The table's collection is empty, by a TRUNCATE: so is its drawer.
    pub(super) fn clear_letters(&mut self, table: TableId, seq: Seq) {
        let letter = LetterId(self.new_id());
        let state = self.table_mut(table);
        if state.letters.is_empty() {
            return self.ledger.release(seq);
        }
        state.letters.clear();
        state.letters_settling += 1;
        self.effects.push_back(Effect::ClearLetters { letter, table, key: None });
        self.settling.insert(letter, (table, Settling::Truncate(seq)));
    }
}
