//! From a lane to Milvus and back: fetches, the sent limit, requests, answers, refusals, and TRUNCATE when its turn comes.
//!
//! Holds: a lane has one batch on its way; a batch leaves complete (M), durable at the source (W), covered by the sent
//! limit on disk (G), and none of its keys under embargo (S).

use std::collections::HashMap;
use std::sync::Arc;

#[cfg(test)]
use super::Flaw;
use super::entry::{Content, Entry};
use super::lane::{Lane, Phase};
use super::{Effect, Engine, FetchId, FetchRequest, FetchedRows, Request, RequestId, Timer};
use crate::change::{Lsn, Row, Snapshot, TableId, Value};
use crate::mutation::{Key, Refusal};

impl Engine {
    /// The request is over: every key but `refused` is acknowledged. `may_land_until`: an earlier attempt of it got
    /// no answer and may be applied until then (S).
    pub fn answered(&mut self, request: RequestId, refused: Vec<(Key, Refusal)>, may_land_until: Option<u64>) {
        let (table, lane_index) = self.requests.remove(&request).expect("an answer belongs to a request");
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let batch = lane.take_batch();
        if let Some(until) = may_land_until.filter(|until| *until > self.now)
            && !self.flaw_no_embargo()
        {
            let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
            lane.embargo(batch.iter().map(|(key, _)| key.clone()), until);
            self.timers.insert((until, Timer::Lane(table, lane_index)));
        }
        let mut refused: HashMap<Key, Refusal> = refused.into_iter().collect();
        for (key, entry) in batch {
            self.held_bytes -= entry.bytes;
            match refused.remove(&key) {
                None => self.acknowledged(table, key, entry),
                Some(refusal) => self.refuse(table, lane_index, key, entry, refusal),
            }
        }
        self.wake(table, lane_index);
        self.drive_barrier();
    }

    /// The collection is empty and no step of emptying it is unanswered.
    pub fn truncated(&mut self, table: TableId) {
        // A table that was stopped meanwhile is no longer waited for.
        if let Some(at) = self.barrier.iter().position(|truncate| truncate.table == table) {
            let seq = self.barrier.remove(at).seq;
            self.clear_letters(table, seq);
        }
    }

    /// The missing columns, by a snapshot; `insert_lsn` was read after it. A key without a row is absent from `rows`.
    pub fn fetched(&mut self, fetch: FetchId, snapshot: &Snapshot, insert_lsn: Lsn, rows: FetchedRows) {
        let Some((table, lane_index)) = self.fetches.remove(&fetch) else { return }; // asked again since, see `discard_unflushed`
        if self.tables[table.0 as usize].stopped.is_some() {
            return self.drop_batch(table, lane_index);
        }
        let by_oldest = self.flaw_guard_by_oldest();
        let guarded = !self.flaw_no_guard();
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let invisible = lane
            .batch()
            .iter()
            .filter(|(_, entry)| matches!(entry.content, Content::Fetch(_)))
            .filter_map(|(_, entry)| entry.guard_xid(by_oldest))
            .any(|xid| !snapshot.sees(snapshot.widen(xid)));
        if invisible && guarded {
            // The change is in the WAL but not visible yet: what was read may be older than it.
            self.fetches.insert(fetch, (table, lane_index));
            self.timers.insert((self.now + self.settings.fetch_retry_ms, Timer::Fetch(table, lane_index)));
            return;
        }
        let state = &mut self.tables[table.0 as usize];
        state.fetch_horizon = state.fetch_horizon.max(insert_lsn);
        if insert_lsn > self.flush_lsn && !self.flaw_no_flush_wait() {
            self.tables[table.0 as usize].lanes[lane_index].phase = Phase::AwaitFlush { fetch, insert_lsn, rows };
            self.effects.push_back(Effect::WaitFlushed(insert_lsn));
        } else {
            self.apply_fetch(table, lane_index, insert_lsn, rows);
        }
    }

    /// The fetch did not come back: it is asked for again after the usual pause.
    pub fn fetch_failed(&mut self, fetch: FetchId) {
        let Some(&(table, lane)) = self.fetches.get(&fetch) else { return };
        self.timers.insert((self.now + self.settings.fetch_retry_ms, Timer::Fetch(table, lane)));
    }

    /// T is on disk.
    pub fn sent_limit_raised(&mut self, lsn: Lsn) {
        self.sent_limit = self.sent_limit.max(lsn);
        for (table, lane) in std::mem::take(&mut self.limit_waiters) {
            if matches!(self.tables[table.0 as usize].lanes[lane].phase, Phase::AwaitLimit) {
                self.send_or_await_limit(table, lane);
            }
        }
        self.finish_chunks();
        self.drive_barrier();
    }

    /// If the lane is free, take what waits and get it on its way.
    pub(super) fn start_lane(&mut self, table: TableId, lane_index: usize) {
        if self.now < self.quiet_until {
            return;
        }
        let (rows_max, bytes_max) = (self.settings.request_rows_max, self.settings.request_bytes_max);
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        if lane.is_busy() || !lane.fill_batch(rows_max, bytes_max) {
            return;
        }
        if lane.batch().iter().any(|(_, entry)| matches!(entry.content, Content::Fetch(_))) {
            let fetch = FetchId(self.new_id());
            self.tables[table.0 as usize].lanes[lane_index].phase = Phase::Fetching { fetch };
            self.fetches.insert(fetch, (table, lane_index));
            self.emit_fetch(table, lane_index);
        } else {
            self.send_or_await_limit(table, lane_index);
        }
    }

    /// The fetched rows are durable at the source: complete the batch with them.
    pub(super) fn apply_fetch(&mut self, table: TableId, lane_index: usize, insert_lsn: Lsn, rows: FetchedRows) {
        if self.tables[table.0 as usize].stopped.is_some() {
            return self.drop_batch(table, lane_index);
        }
        let mut rows: HashMap<Key, Vec<(usize, Value)>> = rows.into_iter().collect();
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        for (key, mut entry) in lane.take_batch() {
            self.held_bytes -= entry.bytes;
            if matches!(entry.content, Content::Fetch(_)) {
                match rows.remove(&key) {
                    Some(columns) => entry.fill(columns, insert_lsn),
                    None => entry.lose_row(insert_lsn),
                }
            }
            self.held_bytes += entry.bytes;
            lane.put_in_batch(key, entry);
        }
        self.send_or_await_limit(table, lane_index);
    }

    pub(super) fn emit_fetch(&mut self, table: TableId, lane_index: usize) {
        let lane = &self.tables[table.0 as usize].lanes[lane_index];
        let Phase::Fetching { fetch } = lane.phase else { return };
        let rows: Vec<(Key, Row)> = lane
            .batch()
            .iter()
            .filter_map(|(key, entry)| match &entry.content {
                Content::Fetch(row) => Some((key.clone(), row.clone())),
                Content::Whole(_) | Content::Delete | Content::Gone => None,
            })
            .collect();
        let columns = rows.iter().fold(0, |mask, (_, row)| mask | row.missing());
        self.effects.push_back(Effect::Fetch(FetchRequest { id: fetch, table, columns, rows }));
    }

    /// The batch is complete: send it, once the sent limit on disk covers it (G).
    pub(super) fn send_or_await_limit(&mut self, table: TableId, lane_index: usize) {
        let flaw = self.flaw_no_sent_limit();
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let position = lane.batch().iter().map(|(_, entry)| entry.position).max().unwrap_or(Lsn::ZERO);
        if position > self.sent_limit && !flaw {
            lane.phase = Phase::AwaitLimit;
            self.limit_waiters.push((table, lane_index));
            return self.ask_sent_limit(position);
        }
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        if lane.batch().iter().all(|(_, entry)| matches!(entry.content, Content::Gone)) {
            // Only now is it done: until T covers it, a failover could bring the row back (G).
            for (_, entry) in lane.take_batch() {
                self.held_bytes -= entry.bytes;
                self.complete(entry);
            }
            self.wake(table, lane_index);
            return self.drive_barrier();
        }
        let id = RequestId(self.new_id());
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let mut mutations = lane.mutations();
        #[cfg(test)]
        if self.flaws.contains(&Flaw::DeleteAndUpsertInOneFlush) {
            let covering = lane.batch().iter().filter(|(_, entry)| entry.beneath).map(|(key, _)| key.clone());
            mutations.deletes.extend(covering);
        }
        mutations.upserts.shrink_to_fit();
        lane.phase = Phase::Sending;
        self.requests.insert(id, (table, lane_index));
        self.effects.push_back(Effect::Send(Request { id, table, lane: lane_index, mutations: Arc::new(mutations) }));
    }

    pub(super) fn ask_sent_limit(&mut self, position: Lsn) {
        if position > self.sent_limit_asked {
            // Ahead to all that the stream has shown, so that a busy stream does not ask for every request.
            self.sent_limit_asked = position.max(self.dispatched_lsn);
            self.effects.push_back(Effect::RaiseSentLimit(self.sent_limit_asked));
        }
    }

    /// Acknowledged, or nothing left to do: let go of the transaction and the chunks that the entry stood for.
    pub(super) fn complete(&mut self, entry: Entry) {
        if let Some(seq) = entry.oldest {
            self.ledger.release(seq);
        }
        let mut finished = false;
        for id in entry.chunks {
            if let Some(chunk) = self.chunks.get_mut(&id) {
                chunk.outstanding = chunk.outstanding.saturating_sub(1);
                finished |= chunk.is_done();
            }
        }
        if finished {
            self.finish_chunks();
        }
    }

    /// The target will not take this row. A newer change of the key settles it; else the source is asked for the row
    /// as it is now; refused again, it becomes a dead letter where that is the policy, else the table stops.
    pub(super) fn refuse(&mut self, table: TableId, lane_index: usize, key: Key, entry: Entry, refusal: Refusal) {
        let state = &mut self.tables[table.0 as usize];
        if state.stopped.is_some() {
            return; // what the entry stood for stays held
        }
        if let Some(newer) = state.lanes[lane_index].pending_mut(&key) {
            if let Some(own) = newer.supersede(entry) {
                self.ledger.release(own);
            }
        } else if entry.can_be_reread() {
            let entry = entry.into_reread(state.key_columns, state.widest_row);
            self.held_bytes += entry.bytes;
            self.tables[table.0 as usize].lanes[lane_index].insert_pending(key, entry);
        } else {
            let reserved =
                if entry.is_row() { self.reserve_letter(table, &key, &refusal) } else { Err(refusal.clone()) };
            match reserved {
                Ok(()) => {
                    #[cfg(test)]
                    if self.flaws.contains(&Flaw::LetterWithoutDelete) {
                        return self.acknowledged(table, key, entry.into_dead(refusal));
                    }
                    self.held_bytes += entry.bytes;
                    self.tables[table.0 as usize].lanes[lane_index].insert_pending(key, entry.into_dead(refusal));
                }
                Err(refusal) => self.stop(table, Some(key), refusal),
            }
        }
    }

    /// A stopped table's batch that was never sent.
    pub(super) fn drop_batch(&mut self, table: TableId, lane_index: usize) {
        let lane = &mut self.tables[table.0 as usize].lanes[lane_index];
        let bytes: usize = lane.take_batch().iter().map(|(_, entry)| entry.bytes).sum();
        self.held_bytes -= bytes;
    }

    /// A TRUNCATE goes on as its tables' lanes run dry and settle.
    pub(super) fn drive_barrier(&mut self) {
        if self.barrier.is_empty() || self.now < self.quiet_until {
            return;
        }
        if self.barrier_position > self.sent_limit && !self.flaw_no_sent_limit() {
            return self.ask_sent_limit(self.barrier_position);
        }
        for truncate in self.barrier.iter_mut().filter(|truncate| !truncate.asked) {
            let table = &self.tables[truncate.table.0 as usize];
            if table.is_idle() && table.lanes.iter().all(Lane::settled) {
                truncate.asked = true;
                self.effects.push_back(Effect::Truncate(truncate.table));
            }
        }
    }
}
