//! The router: changes of the stream, in their order, each to the lane of its key.
//!
//! Holds: what lies under a newcomer is never lost, and a value that the stream left out is taken only from where it
//! cannot be wrong (K, M; the table of cases is in `entry`). TRUNCATE stops the stream until it is carried out (Z).

#[cfg(test)]
use super::Flaw;
use super::chunk::Chunk;
use super::entry::{Content, Entry};
use super::lane::Lane;
use super::{ChunkId, Effect, Engine, KeyedChange, OpenTransaction, Truncate};
use crate::change::{Lsn, Row, TableId, Value};
use crate::mutation::{Key, Refusal};

impl Engine {
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
        self.stop(table, None, Refusal { field: None, reason, dead_letter: false });
    }

    /// The table was let go: it takes no changes, and progress does not wait for it. Before the first event.
    pub fn leave_out(&mut self, table: TableId, reason: String) {
        self.table_mut(table).stopped = Some(reason);
    }

    pub(super) fn note_dispatched(&mut self, xid: u32) {
        if !self.flaw_half_dispatched() {
            self.dispatched.note(xid);
        }
    }

    /// The stream changes this key: open chunks of the table must not overwrite it.
    pub(super) fn touch(&mut self, table: TableId, key: &Key) {
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

    /// Where a row of the same key may take its missing columns from: what is pending, else a whole row in flight.
    pub(super) fn base_of_same_key(&self, table: TableId, key: &Key) -> Option<(Row, u64)> {
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
    pub(super) fn base_of_key_change(&self, table: TableId, old_key: &Key) -> Option<(Row, u64)> {
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
    pub(super) fn buried(&self, table: TableId, key: &Key, row: &Row) -> Option<(Row, u64)> {
        let entry = self.lane_of(table, key).pending(key)?;
        let wanted = self.flaws.contains(&Flaw::MergeOntoDelete)
            && matches!(entry.content, Content::Delete)
            && row.missing() != 0;
        if wanted { entry.buried.clone().map(|row| (row, 0)) } else { None }
    }

    pub(super) fn push_stream_row(
        &mut self,
        table: TableId,
        key: Key,
        row: Row,
        mut base: Option<(Row, u64)>,
        open: OpenTransaction,
    ) {
        let reread = self.tables[table.0 as usize].reread_columns;
        if let Some((base, _)) = &mut base {
            for (_, value) in base.0.iter_mut().enumerate().filter(|(column, _)| reread & (1 << column) != 0) {
                *value = Value::UnchangedToast;
            }
        }
        let widest = self.tables[table.0 as usize].note_width(&row);
        let mut entry = Entry::from_stream(row, base, open.seq, open.xid, open.position, widest, &key);
        entry.beneath = self.sweeps(table);
        self.push(table, key, entry, true);
    }

    /// May an entity of a row that is gone lie under what is brought to the table?
    pub(super) fn sweeps(&self, table: TableId) -> bool {
        self.tables[table.0 as usize].sweep && !self.flaw_sweep_forgets_beneath()
    }

    /// Hand an entry to its lane, over whatever waits there for the key.
    pub(super) fn push(&mut self, table: TableId, key: Key, entry: Entry, from_stream: bool) {
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

    pub(super) fn lane_of(&self, table: TableId, key: &Key) -> &Lane {
        let table = &self.tables[table.0 as usize];
        &table.lanes[table.lane_index(key)]
    }

    pub(super) fn stop(&mut self, id: TableId, key: Option<Key>, refusal: Refusal) {
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
}
