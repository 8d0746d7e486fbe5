//! A chunk of the copy while it is open: what the stream touched since, its rows until they may leave, and how many
//! of them are still unacknowledged. And which transactions were dispatched, for rule V.

use std::collections::{HashMap, HashSet};

use super::Visibility;
use crate::change::{FullXid, Lsn, Row, Snapshot, TableId};
use crate::mutation::Key;

/// Bytes that a key costs in a touched set beside its text.
const TOUCHED_OVERHEAD_BYTES: usize = 48;

pub(super) struct Chunk {
    pub(super) table: TableId,
    /// How many transactions had been dispatched when it was opened.
    pub(super) t0: u64,
    /// Read after its snapshot.
    pub(super) insert_lsn: Lsn,
    pub(super) reserved_bytes: usize,
    /// The position that its snapshot and the stream had reached when its last row was dispatched or dropped.
    pub(super) position: Lsn,
    /// Rows on their way.
    pub(super) outstanding: usize,
    touched: HashSet<Key>,
    touched_all: bool,
    touched_bytes: usize,
    hold: bool,
    state: State,
}

enum State {
    Reading,
    /// Its rows wait until the source has flushed what they show (W).
    Waiting {
        rows: Vec<(Key, Option<Row>)>,
        bytes: usize,
    },
    Dispatched,
}

impl Chunk {
    pub(super) fn open(table: TableId, t0: u64, reserved_bytes: usize, hold: bool) -> Chunk {
        Chunk {
            table,
            t0,
            insert_lsn: Lsn::ZERO,
            position: Lsn::ZERO,
            reserved_bytes,
            outstanding: 0,
            touched: HashSet::new(),
            touched_all: false,
            touched_bytes: 0,
            hold,
            state: State::Reading,
        }
    }

    /// The stream waits until this chunk's last row is dispatched.
    pub(super) fn holds_stream(&self) -> bool {
        self.hold && !self.is_dispatched()
    }

    /// Remember a key. Returns the size of the set in bytes.
    pub(super) fn touch(&mut self, key: &Key) -> usize {
        let needed = !self.touched_all && !self.is_dispatched();
        if needed && !self.touched.contains(key) {
            self.touched_bytes += TOUCHED_OVERHEAD_BYTES + key.heap_size();
            self.touched.insert(key.clone());
        }
        self.touched_bytes
    }

    /// TRUNCATE: no row of this chunk may leave any more. Returns the bytes of the rows that were dropped.
    pub(super) fn touch_all(&mut self, dispatched_lsn: Lsn) -> usize {
        self.touched_all = true;
        self.forget_touched();
        match std::mem::replace(&mut self.state, State::Reading) {
            State::Waiting { bytes, .. } => {
                self.dispatched(dispatched_lsn);
                bytes
            }
            other => {
                self.state = other;
                0
            }
        }
    }

    pub(super) fn is_touched(&self, key: &Key) -> bool {
        self.touched_all || self.touched.contains(key)
    }

    /// As a set that keeps one bit of each key would answer.
    #[cfg(test)]
    pub(super) fn is_touched_lossy(&self, key: &Key) -> bool {
        let bit = |key: &Key| match key {
            Key::Int(key) => key & 1 == 1,
            Key::Text(key) => key.len() & 1 == 1,
        };
        self.is_touched(key) || self.touched.iter().any(|touched| bit(touched) == bit(key))
    }

    /// Returns what the rows are charged with.
    pub(super) fn hold_rows(&mut self, rows: Vec<(Key, Option<Row>)>) -> usize {
        let bytes = rows.iter().map(|(key, row)| key.heap_size() + row.as_ref().map_or(0, Row::size)).sum();
        self.reserved_bytes = 0;
        self.state = State::Waiting { rows, bytes };
        bytes
    }

    pub(super) fn waits_for_flush(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    pub(super) fn take_rows(&mut self) -> (Vec<(Key, Option<Row>)>, usize) {
        match std::mem::replace(&mut self.state, State::Reading) {
            State::Waiting { rows, bytes } => (rows, bytes),
            State::Reading | State::Dispatched => unreachable!("rows are taken once, after they were read"),
        }
    }

    /// The last row was handed over: the touched set has served.
    pub(super) fn dispatched(&mut self, dispatched_lsn: Lsn) {
        self.position = self.insert_lsn.max(dispatched_lsn);
        self.state = State::Dispatched;
        self.reserved_bytes = 0;
        self.forget_touched();
    }

    pub(super) fn is_dispatched(&self) -> bool {
        matches!(self.state, State::Dispatched)
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_dispatched() && self.outstanding == 0
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self.state {
            State::Waiting { bytes, .. } => bytes,
            State::Reading | State::Dispatched => 0,
        }
    }

    fn forget_touched(&mut self) {
        self.touched = HashSet::new();
        self.touched_bytes = 0;
    }
}

/// Beyond this many remembered transactions the older ones are no longer told apart.
const REMEMBERED_MAX: usize = 1 << 20;

/// The transactions of which an event was dispatched, in order, as far as a snapshot may still not see them.
pub(super) struct Dispatched {
    /// X: everything below was over when the stream began.
    visible_from: FullXid,
    /// Its place in the order of dispatch, by (32-bit) transaction id.
    index_of: HashMap<u32, u64>,
    next: u64,
    /// The one noted last: the changes of a transaction come together.
    last: Option<u32>,
    /// Ids that were forgotten: all of them must be visible.
    forgotten_up_to: Option<u32>,
    /// Ids below were forgotten because a snapshot saw them; one that was taken earlier may not.
    seen_below: FullXid,
    tracking: bool,
}

impl Dispatched {
    pub(super) fn new(visible_from: FullXid) -> Dispatched {
        Dispatched {
            visible_from,
            index_of: HashMap::new(),
            next: 0,
            last: None,
            forgotten_up_to: None,
            seen_below: 0,
            tracking: true,
        }
    }

    /// How many were dispatched so far.
    pub(super) fn index(&self) -> u64 {
        self.next
    }

    pub(super) fn note(&mut self, xid: u32) {
        if !self.tracking || self.last == Some(xid) {
            return;
        }
        self.last = Some(xid);
        if self.index_of.len() >= REMEMBERED_MAX {
            let newest = self.index_of.keys().copied().fold(self.forgotten_up_to, |newest, xid| match newest {
                Some(newest) if (xid.wrapping_sub(newest) as i32) < 0 => Some(newest),
                _ => Some(xid),
            });
            self.forgotten_up_to = newest;
            self.index_of.clear();
        }
        if let std::collections::hash_map::Entry::Vacant(place) = self.index_of.entry(xid) {
            place.insert(self.next);
            self.next += 1;
        }
    }

    /// No chunk will be opened any more in this process.
    pub(super) fn stop_tracking(&mut self) {
        self.tracking = false;
        self.index_of = HashMap::new();
    }

    /// Does the snapshot see everything from before the stream began, and the first `t0` that were dispatched?
    pub(super) fn check(&mut self, t0: u64, snapshot: &Snapshot) -> Visibility {
        if snapshot.xmin < self.visible_from {
            return Visibility::NotYet { blocking: snapshot.xmin };
        }
        if let Some(forgotten) = self.forgotten_up_to.map(|xid| snapshot.widen(xid))
            && snapshot.xmin <= forgotten
        {
            return Visibility::NotYet { blocking: snapshot.xmin };
        }
        self.check_dispatched_only(t0, snapshot)
    }

    pub(super) fn check_dispatched_only(&mut self, t0: u64, snapshot: &Snapshot) -> Visibility {
        // Snapshots are judged in another order than they were taken. The next one of this chunk will do.
        if snapshot.xmin < self.seen_below {
            return Visibility::NotYet { blocking: snapshot.xmin };
        }
        self.seen_below = snapshot.xmin;
        let mut blocking = None;
        self.index_of.retain(|xid, index| {
            let xid = snapshot.widen(*xid);
            if *index < t0 && !snapshot.sees(xid) {
                blocking = blocking.min(Some(xid)).or(Some(xid));
            }
            xid >= snapshot.xmin // what is below is visible to every later snapshot too
        });
        match blocking {
            Some(blocking) => Visibility::NotYet { blocking },
            None => Visibility::Valid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().expect("a snapshot")
    }

    #[test]
    fn a_snapshot_must_see_what_was_dispatched_before_the_chunk_opened() {
        let mut dispatched = Dispatched::new(10);
        dispatched.note(12);
        dispatched.note(11);
        let t0 = dispatched.index();
        dispatched.note(14);
        assert_eq!(dispatched.check(t0, &snapshot("9:20:9")), Visibility::NotYet { blocking: 9 }, "older than X");
        assert_eq!(dispatched.check(t0, &snapshot("11:20:11")), Visibility::NotYet { blocking: 11 });
        assert_eq!(dispatched.check(t0, &snapshot("12:12:")), Visibility::NotYet { blocking: 12 }, "at xmax");
        assert_eq!(dispatched.check(t0, &snapshot("13:20:14")), Visibility::Valid, "14 came after t0");
        let later = dispatched.index();
        assert_eq!(dispatched.check(later, &snapshot("14:20:14")), Visibility::NotYet { blocking: 14 });
        assert_eq!(dispatched.check(later, &snapshot("20:20:")), Visibility::Valid);
        assert!(dispatched.index_of.is_empty(), "what every later snapshot sees is forgotten");
    }

    #[test]
    fn a_snapshot_that_is_judged_late_is_not_taken_for_a_newer_one() {
        let mut dispatched = Dispatched::new(10);
        dispatched.note(12);
        let t0 = dispatched.index();
        let early = snapshot("12:13:12");
        assert_eq!(dispatched.check(t0, &snapshot("20:20:")), Visibility::Valid, "another chunk's, taken later");
        assert_eq!(dispatched.check(t0, &early), Visibility::NotYet { blocking: 12 });
        assert_eq!(dispatched.check(t0, &snapshot("20:20:")), Visibility::Valid);
    }

    #[test]
    fn too_many_transactions_to_remember_are_all_required() {
        let mut dispatched = Dispatched::new(1);
        for xid in 0..=REMEMBERED_MAX as u32 {
            dispatched.note((u32::MAX - 100).wrapping_add(xid));
        }
        assert!(dispatched.index_of.len() <= REMEMBERED_MAX);
        let epoch = 1u64 << 32;
        let last_forgotten = (u32::MAX - 100).wrapping_add(REMEMBERED_MAX as u32 - 1);
        let at = |xid: u64| Snapshot { xmin: xid, xmax: xid + 5, running: vec![] };
        let xid = epoch + u64::from(last_forgotten);
        assert!(matches!(dispatched.check(0, &at(xid)), Visibility::NotYet { .. }));
        assert_eq!(dispatched.check(0, &at(xid + 1)), Visibility::Valid);
    }
}
