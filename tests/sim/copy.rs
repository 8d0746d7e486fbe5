//! The simulated shell's SQL: chunks of the copy and fetches. Rules L (lock, then snapshot), C (a new snapshot for the
//! same chunk) and W (a lost connection takes back what was not flushed).

use crate::change::{Lsn, Row, Snapshot, TableId, Value};
use crate::engine::{ChunkId, FetchRequest, Visibility};
use crate::mutation::Key;

use super::daemon::Daemon;
use super::disk::Put;
use super::script::{KEYS, RANGES};
use super::world::{Action, ShellFlaw, World, note};

/// A chunk between t0 and its mark.
pub(super) struct ChunkJob {
    pub(super) id: ChunkId,
    pub(super) table: usize,
    pub(super) range: usize,
    pub(super) phase: ChunkPhase,
}

#[derive(Debug)]
pub(super) enum ChunkPhase {
    Opened,
    /// The table is locked in ACCESS SHARE MODE, the file node compared.
    Locked,
    /// A snapshot is taken, the engine not yet asked.
    Snapshot {
        snapshot: Snapshot,
        insert_lsn: Lsn,
    },
    /// The engine took the snapshot for valid.
    Valid {
        snapshot: Snapshot,
    },
    /// Everything is read, the transaction over.
    Read {
        rows: Vec<(Key, Option<Row>)>,
    },
    /// The engine has the rows.
    Delivered,
}

pub(super) struct FetchJob {
    request: FetchRequest,
    /// The connection over which it was read was lost since.
    outdated: bool,
    answer: Option<(Snapshot, Lsn, Vec<FetchedRow>)>,
}

type FetchedRow = (Key, Vec<(usize, Value)>);

impl FetchJob {
    pub(super) fn new(request: FetchRequest) -> FetchJob {
        FetchJob { request, outdated: false, answer: None }
    }
}

impl World {
    pub(super) fn enabled_sql(&self, daemon: &Daemon, actions: &mut Vec<Action>) {
        if daemon.sql_generation != self.source.generation {
            actions.push(Action::NoticeSqlLost);
        }
        let connected = daemon.sql_generation == self.source.generation;
        for (place, job) in daemon.chunks.iter().enumerate() {
            let possible = match job.phase {
                ChunkPhase::Opened => connected && (self.locks_late() || !self.source.blocks_readers(job.table)),
                ChunkPhase::Locked => connected,
                ChunkPhase::Snapshot { .. } | ChunkPhase::Read { .. } => true,
                ChunkPhase::Valid { .. } => connected && !self.source.is_exclusively_locked(job.table),
                ChunkPhase::Delivered => false,
            };
            if possible {
                actions.push(Action::AdvanceChunk(place));
            }
        }
        for (place, job) in daemon.fetches.iter().enumerate() {
            if job.answer.is_some() {
                actions.push(Action::AnswerFetch(place));
            } else if connected && !self.source.blocks_readers(job.request.table.0 as usize) {
                actions.push(Action::ReadFetch(place));
            }
        }
        if connected && self.flush_is_news(daemon) {
            actions.push(Action::TellFlushed);
        }
        let latest = self.disk.latest();
        for (table, list) in latest.chunks.iter().enumerate().take(self.tables) {
            if daemon.copied[table] || daemon.stopped[table] {
                continue;
            }
            let swept = daemon.engine.as_ref().is_some_and(|engine| {
                // What the last lookup has seen may still be on its way by the stream.
                latest.swept[table]
                    || self.has_flaw(ShellFlaw::SweptBeforeHorizon)
                    || engine.progress() >= engine.table(TableId(table as u32)).horizon
            });
            if swept && self.disk.durable.chunks[table].all_done() && list.all_done() {
                actions.push(Action::CopyFinished(table));
            }
            for range in 0..RANGES {
                let open = daemon.chunks.iter().any(|job| job.table == table && job.range == range);
                if !list.done[range] && !open && daemon.engine.as_ref().is_some_and(|engine| engine.at_boundary()) {
                    actions.push(Action::OpenChunk { table, range });
                }
            }
        }
    }

    fn locks_late(&self) -> bool {
        self.has_flaw(ShellFlaw::SnapshotBeforeLock)
    }

    /// A bit for each table that a chunk holds in ACCESS SHARE MODE.
    pub(super) fn read_locked(&self) -> u64 {
        let Some(daemon) = self.daemon.as_ref().filter(|daemon| daemon.sql_generation == self.source.generation) else {
            return 0;
        };
        if self.locks_late() {
            return 0;
        }
        let holds = |phase: &ChunkPhase| {
            matches!(phase, ChunkPhase::Locked | ChunkPhase::Snapshot { .. } | ChunkPhase::Valid { .. })
        };
        daemon.chunks.iter().filter(|job| holds(&job.phase)).fold(0, |locked, job| locked | 1 << job.table)
    }

    pub(super) fn open_chunk(&mut self, table: usize, range: usize) {
        let daemon = self.daemon();
        let hold = daemon.given_up[table][range];
        let opened = daemon.feed().open_chunk(TableId(table as u32), 200, hold);
        note!(self, "       {opened:?} hold {hold}");
        if let Some(id) = opened {
            self.daemon().chunks.push(ChunkJob { id, table, range, phase: ChunkPhase::Opened });
        }
    }

    pub(super) fn advance_chunk(&mut self, place: usize) {
        let job = &mut self.daemon().chunks[place];
        let (id, table, range) = (job.id, job.table, job.range);
        let phase = std::mem::replace(&mut job.phase, ChunkPhase::Opened);
        let next = match phase {
            ChunkPhase::Opened | ChunkPhase::Locked if self.locks_late() || matches!(phase, ChunkPhase::Locked) => {
                let (snapshot, insert_lsn) = (self.source.snapshot(), self.source.insert_lsn);
                if self.locks_late() && self.another_file_node(table, &snapshot) {
                    return;
                }
                ChunkPhase::Snapshot { snapshot, insert_lsn }
            }
            ChunkPhase::Opened | ChunkPhase::Locked => {
                let now = self.source.snapshot();
                if self.another_file_node(table, &now) {
                    return;
                }
                ChunkPhase::Locked
            }
            ChunkPhase::Snapshot { snapshot, insert_lsn } => {
                match self.daemon().feed().chunk_snapshot(id, &snapshot, insert_lsn) {
                    Visibility::Valid => ChunkPhase::Valid { snapshot },
                    Visibility::NotYet { blocking } => {
                        note!(self, "       not yet: {blocking}");
                        ChunkPhase::Opened
                    }
                }
            }
            ChunkPhase::Valid { snapshot } => ChunkPhase::Read { rows: self.read_chunk(table, range, &snapshot) },
            ChunkPhase::Read { rows } => {
                note!(self, "       {rows:?}");
                self.daemon().feed().chunk_rows(id, rows);
                if self.has_flaw(ShellFlaw::MarkChunkWhenRead) {
                    self.disk.write(vec![Put::ChunkDone { table, range }]);
                }
                ChunkPhase::Delivered
            }
            ChunkPhase::Delivered => ChunkPhase::Delivered,
        };
        note!(self, "       chunk {id:?} range {range}: {next:?}");
        if let Some(job) = self.daemon().chunks.iter_mut().find(|job| job.id == id) {
            job.phase = next;
        }
    }

    /// The rows of a range; with the first range also the keys that have no row at all, if the copy sweeps.
    fn read_chunk(&self, table: usize, range: usize, snapshot: &Snapshot) -> Vec<(Key, Option<Row>)> {
        let rows = if self.locks_late() {
            self.source.read_unlocked(table, snapshot)
        } else {
            self.source.read(table, snapshot)
        };
        let filter = !self.has_flaw(ShellFlaw::ChunkWithoutFilter);
        let row = |key: usize| rows[key].filter(|row| row.published || !filter);
        let sweeps = !self.disk.latest().swept[table];
        let read = |key: usize| match row(key) {
            Some(row) if row.range == range => Some((self.codec.key(table, key), Some(self.row(table, key, row, 0)))),
            None if sweeps && range == 0 => Some((self.codec.key(table, key), None)),
            _ => None,
        };
        (0..KEYS).filter_map(read).collect()
    }

    /// Rule L: the list of chunks is for one file. Another one: all chunks of the table begin anew.
    fn another_file_node(&mut self, table: usize, snapshot: &Snapshot) -> bool {
        let file_node = self.source.file_node(table, snapshot);
        if file_node == self.disk.latest().chunks[table].file_node {
            return false;
        }
        note!(self, "       another file node: {file_node}");
        let (node, clear) = (Put::FileNode { table, file_node }, Put::ClearChunks { table });
        if self.has_flaw(ShellFlaw::FlagsOutliveFileNode) {
            self.disk.write(vec![node]);
            self.disk.write(vec![clear]);
        } else {
            self.disk.write(vec![node, clear]);
        }
        let daemon = self.daemon();
        daemon.given_up[table] = [false; RANGES];
        let (gone, kept) = std::mem::take(&mut daemon.chunks).into_iter().partition(|job| job.table == table);
        daemon.chunks = kept;
        let gone: Vec<ChunkJob> = gone;
        gone.iter().for_each(|job| daemon.feed().abandon_chunk(job.id));
        true
    }

    pub(super) fn copy_finished(&mut self, table: usize) {
        self.disk.write(vec![Put::Swept { table, swept: true }]);
        self.disk.flush();
        let daemon = self.daemon();
        daemon.copied[table] = true;
        daemon.feed().copy_finished(TableId(table as u32));
    }

    pub(super) fn read_fetch(&mut self, place: usize) {
        let request = &self.daemon().fetches[place].request;
        let (table, columns) = (request.table.0 as usize, request.columns);
        let keys: Vec<Key> = request.rows.iter().map(|(key, _)| key.clone()).collect();
        let (snapshot, insert_lsn) = (self.source.snapshot(), self.source.insert_lsn);
        let rows = self.source.read(table, &snapshot);
        let mut found = Vec::new();
        for key in keys {
            let number = self.codec.key_number(&key);
            if let Some(row) = rows[number].filter(|row| row.published) {
                let all = (1..self.codec.columns()).filter(|column| columns & 1 << column != 0);
                found.push((key, all.map(|column| (column, self.codec.value(row.values[column]))).collect()));
            }
        }
        note!(self, "       {snapshot:?} {found:?}");
        self.daemon().fetches[place].answer = Some((snapshot, insert_lsn, found));
    }

    pub(super) fn answer_fetch(&mut self, place: usize) {
        let job = self.daemon().fetches.remove(place);
        let (snapshot, insert_lsn, rows) = job.answer.expect("only answered fetches are delivered");
        let table = job.request.table.0 as usize;
        if job.outdated {
            return self.daemon().feed().fetched(job.request.id, &snapshot, insert_lsn, rows);
        }
        for (key, _) in &job.request.rows {
            let key = self.codec.key_number(key);
            let daemon = self.daemon();
            daemon.fetched_at[table][key] = daemon.fetched_at[table][key].max(insert_lsn);
        }
        let gone: Vec<usize> = job
            .request
            .rows
            .iter()
            .map(|(key, _)| key)
            .filter(|key| rows.iter().all(|(found, _)| found != *key))
            .map(|key| self.codec.key_number(key))
            .collect();
        let daemon = self.daemon();
        let number = daemon.owed_number;
        daemon.feed().fetched(job.request.id, &snapshot, insert_lsn, rows);
        // A later change of the same key owes again.
        daemon.owed.retain(|owed| {
            owed.table != table || owed.number > number || !owed.key.is_some_and(|key| gone.contains(&key))
        });
    }

    /// The server crashed: its connections are dead, and what they showed may never have been.
    pub(super) fn notice_sql_lost(&mut self) {
        let generation = self.source.generation;
        let keep_all = self.has_flaw(ShellFlaw::KeepUnflushedRows);
        let daemon = self.daemon();
        daemon.sql_generation = generation;
        // What a reader or a fetch has in its hand is delivered all the same: it is the engine that must not take them.
        let lost = |job: &ChunkJob| !matches!(job.phase, ChunkPhase::Delivered | ChunkPhase::Read { .. });
        let (gone, kept): (Vec<ChunkJob>, Vec<ChunkJob>) =
            std::mem::take(&mut daemon.chunks).into_iter().partition(lost);
        daemon.chunks = kept;
        gone.iter().for_each(|job| daemon.feed().abandon_chunk(job.id));
        let lost = |job: &FetchJob| job.answer.is_none();
        let (gone, kept): (Vec<FetchJob>, Vec<FetchJob>) =
            std::mem::take(&mut daemon.fetches).into_iter().partition(lost);
        daemon.fetches = kept;
        daemon.fetches.iter_mut().for_each(|job| job.outdated = !keep_all);
        gone.iter().for_each(|job| daemon.feed().fetch_failed(job.request.id));
        if !keep_all {
            daemon.feed().discard_unflushed();
        }
    }
}
