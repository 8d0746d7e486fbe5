//! A table in the engine: its lanes, its horizon, and whether it still takes changes.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::TableStart;
use super::lane::Lane;
use crate::change::{Lsn, Row};
use crate::mutation::Key;

pub(super) struct Table {
    pub(super) lanes: Vec<Lane>,
    pub(super) key_columns: u64,
    pub(super) reread_columns: u64,
    pub(super) copied: bool,
    pub(super) sweep: bool,
    /// H without its fetch term: below it the collection may show states out of order.
    pub(super) horizon: Lsn,
    /// Insert position of the last fetch: a fetched column may be newer than the rest of its row until then.
    pub(super) fetch_horizon: Lsn,
    /// Why it takes no more changes.
    pub(super) stopped: Option<String>,
    /// Keys with a dead letter, or on the way to one: absent at the target.
    pub(super) letters: HashSet<Key>,
    pub(super) letters_max: usize,
    /// Letters that are being written or taken away.
    pub(super) letters_settling: usize,
    /// The largest row seen, which a row with missing columns is charged as.
    pub(super) widest_row: usize,
}

/// What is known of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    pub copied: bool,
    /// The copy is finished and progress is past the horizon: every key shows a state that the source had between
    /// `progress` and the position that the stream has reached.
    pub following: bool,
    /// The collection equals the table at the commit boundary that the stream has reached.
    pub exact: bool,
    /// What progress must reach for `following`.
    pub horizon: Lsn,
    pub stopped: Option<String>,
    /// Rows that the target will not take, and that are set aside.
    pub dead_letters: usize,
    pub pending: usize,
    pub in_flight: usize,
    /// Keys that wait because an attempt without an answer may still land.
    pub embargoed: usize,
}

impl Table {
    pub(super) fn new(start: TableStart, lanes: usize, server_lsn: Lsn) -> Table {
        assert!(start.columns <= 64, "columns are bits of a u64");
        Table {
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            key_columns: start.key_columns,
            reread_columns: start.reread_columns,
            copied: start.copied,
            sweep: start.sweep,
            horizon: server_lsn,
            fetch_horizon: Lsn::ZERO,
            stopped: None,
            letters: HashSet::new(),
            letters_max: start.letters_max,
            letters_settling: 0,
            widest_row: 0,
        }
    }

    pub(super) fn lane_index(&self, key: &Key) -> usize {
        if self.lanes.len() == 1 {
            return 0;
        }
        let mut hasher = DefaultHasher::new(); // fixed keys: a run replays
        key.hash(&mut hasher);
        (hasher.finish() % self.lanes.len() as u64) as usize
    }

    pub(super) fn note_width(&mut self, row: &Row) -> usize {
        self.widest_row = self.widest_row.max(row.size());
        self.widest_row
    }

    pub(super) fn is_idle(&self) -> bool {
        self.letters_settling == 0 && self.lanes.iter().all(Lane::is_idle)
    }

    pub(super) fn status(&self, progress: Lsn, at_rest: bool, ignore_horizon: bool) -> TableStatus {
        let following = self.stopped.is_none() && self.copied && (progress >= self.horizon || ignore_horizon);
        TableStatus {
            copied: self.copied,
            following,
            exact: following
                && at_rest
                && self.letters.is_empty()
                && (progress >= self.fetch_horizon || ignore_horizon),
            horizon: self.horizon,
            stopped: self.stopped.clone(),
            dead_letters: self.letters.len(),
            pending: self.lanes.iter().map(Lane::pending_count).sum(),
            in_flight: self.lanes.iter().map(Lane::batch_count).sum(),
            embargoed: self.lanes.iter().map(Lane::embargo_count).sum(),
        }
    }
}
