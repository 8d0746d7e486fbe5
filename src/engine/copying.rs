//! Chunks of the copy beside the stream: opened, judged, handed over, done, or given up.
//!
//! Holds: V, C and W, and that a chunk is done only when each of its rows is acknowledged or superseded and T covers
//! what its snapshot and the stream have shown meanwhile (G).

#[cfg(test)]
use super::Flaw;
use super::chunk::Chunk;
use super::entry::Entry;
use super::lane::Phase;
use super::{ChunkId, Effect, Engine, FetchId, Visibility};
use crate::change::{Lsn, Row, Snapshot, TableId};
use crate::mutation::Key;

impl Engine {
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

    /// The chunk is read under a snapshot that was judged by V before the first event was given, and its keys are none that the
    /// stream ever has. `insert_lsn` was read after it.
    pub fn chunk_snapshot_held(&mut self, id: ChunkId, insert_lsn: Lsn) {
        if let Some(chunk) = self.chunks.get_mut(&id) {
            chunk.insert_lsn = insert_lsn;
        }
    }

    /// All rows of the chunk, its SQL transaction being over, and keys that its snapshot has no row for (`None`), whose
    /// entities are deleted. They leave when the source has flushed what they show (W).
    pub fn chunk_rows(&mut self, id: ChunkId, rows: Vec<(Key, Option<Row>)>) {
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
        (state.copied, state.sweep) = (true, false);
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

    pub(super) fn give_up_chunk(&mut self, id: ChunkId, overflow: bool) {
        if let Some(chunk) = self.chunks.remove(&id) {
            self.held_bytes -= chunk.held_bytes();
            self.effects.push_back(Effect::ChunkAbandoned { chunk: id, table: chunk.table, overflow });
        }
    }

    /// Its rows are durable at the source: hand over those that the stream has not touched.
    pub(super) fn dispatch_chunk(&mut self, id: ChunkId) {
        let mut chunk = self.chunks.remove(&id).expect("only open chunks are dispatched");
        let (rows, bytes) = chunk.take_rows();
        self.held_bytes -= bytes;
        for (key, row) in rows {
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
            if self.flaws.contains(&Flaw::DropChunkRowIfBusy) && self.lane_of(chunk.table, &key).is_key_busy(&key) {
                continue;
            }
            chunk.outstanding += 1;
            if let Some(row) = &row {
                self.table_mut(chunk.table).note_width(row);
            }
            let beneath = row.is_some() && self.sweeps(chunk.table);
            let mut entry = Entry::from_chunk(row, id, chunk.insert_lsn, &key);
            entry.beneath = beneath;
            self.push(chunk.table, key, entry, false);
        }
        chunk.dispatched(self.dispatched_lsn);
        #[cfg(test)]
        if self.flaws.contains(&Flaw::ChunkDoneBeforeAck) {
            chunk.outstanding = 0;
        }
        self.chunks.insert(id, chunk);
        self.finish_chunks();
    }

    /// Report the chunks of which every row is acknowledged.
    pub(super) fn finish_chunks(&mut self) {
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
}
