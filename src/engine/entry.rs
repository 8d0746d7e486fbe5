//! The pending state of one key, and what becomes of it when something newer arrives.
//!
//! | newcomer on →                            | nothing | Whole                    | Fetch         | Delete |
//! |------------------------------------------|---------|--------------------------|---------------|--------|
//! | whole row                                | Whole   | Whole                    | Whole         | Whole  |
//! | row without its unchanged columns        | Fetch   | Whole, columns inherited | Fetch, merged | Fetch  |
//! | key change, its new key, columns missing | Fetch   | Fetch                    | Fetch         | Fetch  |
//! | delete, or the old key of a key change   | Delete  | Delete                   | Delete        | Delete |
//!
//! In every cell the oldest transaction is kept, and what is not a delete remembers one that it covers (*beneath*):
//! if its row turns out not to exist, the delete is sent in its place (B).

use smallvec::SmallVec;

use super::ChunkId;
use super::ledger::Seq;
use crate::change::{Lsn, Row, Value};
use crate::mutation::{Key, Refusal};

/// Bytes that an entry costs beside its row: itself, its key in the queue and in the map.
const OVERHEAD_BYTES: usize = 200;

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Every column is known.
    Whole(Row),
    /// Columns that are `UnchangedToast` must be read from the source before it can be sent. The key columns are known.
    Fetch(Row),
    Delete,
    /// The fetch found no row: it was deleted or re-keyed later in the stream, which will say so. Nothing is sent.
    Gone,
}

/// A row that the target will not take.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    pub(super) row: Row,
    pub(super) refusal: Refusal,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) content: Content,
    /// A bit for every column whose value came from the stream alone.
    pub(super) pure: u64,
    /// A delete of this key lies under the row.
    pub(super) beneath: bool,
    /// The oldest transaction that the entry stands for; `None` for a row that only a chunk brought.
    pub(super) oldest: Option<Seq>,
    /// The newest transaction: the one that a fetch's snapshot must see (M).
    pub(super) newest_xid: Option<u32>,
    #[cfg(test)]
    pub(super) oldest_xid: Option<u32>,
    /// What the sent limit must cover before this is sent (G).
    pub(super) position: Lsn,
    /// Chunks that are not done before this is.
    pub(super) chunks: SmallVec<[ChunkId; 1]>,
    /// The row was refused once; this is the source's present row.
    reread: bool,
    /// This is the delete in place of a row that was refused for good.
    pub(super) dead: Option<Box<Dead>>,
    /// What it is charged with: its row as it will be sent.
    pub(super) bytes: usize,
    /// What a delete replaced, so that a sabotaged engine can take it for the row.
    #[cfg(test)]
    pub(super) buried: Option<Row>,
}

impl Entry {
    fn new(content: Content, pure: u64, oldest: Option<Seq>, xid: Option<u32>, position: Lsn) -> Entry {
        Entry {
            content,
            pure,
            beneath: false,
            oldest,
            newest_xid: xid,
            #[cfg(test)]
            oldest_xid: xid,
            position,
            chunks: SmallVec::new(),
            reread: false,
            dead: None,
            bytes: OVERHEAD_BYTES,
            #[cfg(test)]
            buried: None,
        }
    }

    pub(super) fn delete(seq: Seq, xid: u32, position: Lsn) -> Entry {
        Entry::new(Content::Delete, 0, Some(seq), Some(xid), position)
    }

    /// A row of the stream, its missing columns taken from `base` (a row and its pure columns) as far as that has them.
    /// One that stays incomplete is charged as a row of `widest` bytes: that is what the fetch will make of it.
    pub(super) fn from_stream(
        mut row: Row,
        base: Option<(Row, u64)>,
        seq: Seq,
        xid: u32,
        position: Lsn,
        widest: usize,
        key: &Key,
    ) -> Entry {
        let mut pure = u64::MAX;
        if let Some((base, base_pure)) = base {
            for (column, value) in row.0.iter_mut().enumerate().filter(|(_, value)| **value == Value::UnchangedToast) {
                if let Some(inherited) = base.0.get(column) {
                    *value = inherited.clone();
                    pure &= !(1 << column) | base_pure;
                }
            }
        }
        let missing = row.missing();
        let size = if missing == 0 { row.size() } else { row.size().max(widest) };
        let content = if missing == 0 { Content::Whole(row) } else { Content::Fetch(row) };
        let mut entry = Entry::new(content, pure & !missing, Some(seq), Some(xid), position);
        entry.bytes += size + key.heap_size();
        entry
    }

    /// What a chunk's snapshot showed of a key, read no later than `insert_lsn`: a row, or none.
    pub(super) fn from_chunk(row: Option<Row>, chunk: ChunkId, insert_lsn: Lsn, key: &Key) -> Entry {
        let bytes = row.as_ref().map_or(0, Row::size) + key.heap_size();
        let content = row.map_or(Content::Delete, Content::Whole);
        let mut entry = Entry::new(content, 0, None, None, insert_lsn);
        entry.chunks.push(chunk);
        entry.bytes += bytes;
        entry
    }

    /// The transaction that a fetch for this entry must see.
    pub(super) fn guard_xid(&self, _by_oldest: bool) -> Option<u32> {
        #[cfg(test)]
        if _by_oldest {
            return self.oldest_xid;
        }
        self.newest_xid
    }

    pub(super) fn row(&self) -> Option<&Row> {
        match &self.content {
            Content::Whole(row) | Content::Fetch(row) => Some(row),
            Content::Delete | Content::Gone => None,
        }
    }

    /// Take the place of `old`, which waited for the same key (or was refused): keep its oldest transaction, its chunks
    /// and the delete under it. The own transaction, when it is no longer needed, is returned to be released.
    pub(super) fn supersede(&mut self, old: Entry) -> Option<Seq> {
        let covers_delete = old.beneath || matches!(old.content, Content::Delete);
        self.beneath |= covers_delete && !matches!(self.content, Content::Delete);
        self.position = self.position.max(old.position);
        for chunk in old.chunks {
            if !self.chunks.contains(&chunk) {
                self.chunks.push(chunk);
            }
        }
        #[cfg(test)]
        {
            self.oldest_xid = old.oldest_xid.or(self.oldest_xid);
            self.buried = match old.content {
                Content::Whole(row) | Content::Fetch(row) => Some(row),
                Content::Delete | Content::Gone => old.buried,
            };
        }
        let own = self.oldest;
        match old.oldest {
            Some(older) => {
                self.oldest = Some(older);
                own
            }
            None => None,
        }
    }

    /// The columns that were missing, read by a snapshot before `insert_lsn`.
    pub(super) fn fill(&mut self, columns: Vec<(usize, Value)>, insert_lsn: Lsn) {
        let Content::Fetch(mut row) = std::mem::replace(&mut self.content, Content::Delete) else {
            unreachable!("only an entry that waits for a fetch is filled")
        };
        for (column, value) in columns {
            if row.0.get(column) == Some(&Value::UnchangedToast) {
                row.0[column] = value;
                self.pure &= !(1 << column);
            }
        }
        assert!(row.missing() == 0, "a fetch brings every missing column");
        self.bytes = OVERHEAD_BYTES + row.size();
        self.content = Content::Whole(row);
        self.position = self.position.max(insert_lsn);
    }

    /// The row that was to be fetched is not there: what remains is the delete beneath it, if there is one.
    pub(super) fn lose_row(&mut self, insert_lsn: Lsn) {
        self.content = if self.beneath { Content::Delete } else { Content::Gone };
        self.beneath = false;
        self.bytes = OVERHEAD_BYTES;
        self.position = self.position.max(insert_lsn);
    }

    /// Was the row refused for the first time?
    pub(super) fn can_be_reread(&self) -> bool {
        !self.reread && matches!(self.content, Content::Whole(_))
    }

    /// The row of a dead letter, to be read from the source. It has been read since its last change was dispatched, so
    /// no snapshot of now can miss one, and no guard is needed.
    pub(super) fn of_letter(row: Row, widest: usize, key: &Key) -> Entry {
        let bytes = row.size().max(widest) + key.heap_size();
        let mut entry = Entry::new(Content::Fetch(row), 0, None, None, Lsn::ZERO);
        entry.reread = true;
        entry.bytes += bytes;
        entry
    }

    /// Send a delete in place of the refused row, which then becomes a letter.
    pub(super) fn into_dead(mut self, refusal: Refusal) -> Entry {
        if let Content::Whole(row) = std::mem::replace(&mut self.content, Content::Delete) {
            self.dead = Some(Box::new(Dead { row, refusal }));
        }
        self.pure = 0;
        self.beneath = false;
        self
    }

    /// Is it a row that was refused?
    pub(super) fn is_row(&self) -> bool {
        matches!(self.content, Content::Whole(_))
    }

    /// Forget all but the key columns and ask the source for the row as it is now.
    pub(super) fn into_reread(mut self, key_columns: u64, widest: usize) -> Entry {
        if let Content::Whole(mut row) = self.content {
            for (column, value) in row.0.iter_mut().enumerate() {
                if key_columns & (1 << column) == 0 {
                    *value = Value::UnchangedToast;
                }
            }
            self.pure &= key_columns;
            self.bytes = OVERHEAD_BYTES + row.size().max(widest);
            self.content = if row.missing() == 0 { Content::Whole(row) } else { Content::Fetch(row) };
        }
        self.reread = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::ledger::Ledger;
    use super::*;

    fn value(text: &'static str) -> Value {
        if text == "u" { Value::UnchangedToast } else { Value::Text(Bytes::from_static(text.as_bytes())) }
    }

    fn row(values: &[&'static str]) -> Row {
        Row(values.iter().map(|text| value(text)).collect())
    }

    fn from_stream(values: &[&'static str], base: Option<(Row, u64)>, seq: Seq) -> Entry {
        Entry::from_stream(row(values), base, seq, 7, Lsn(70), 0, &Key::Int(1))
    }

    #[test]
    fn missing_columns_are_inherited_with_their_purity() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let seq = ledger.begin();
        let entry = from_stream(&["1", "new", "u", "u"], Some((row(&["1", "old", "v", "w"]), 0b0111)), seq);
        assert!(matches!(&entry.content, Content::Whole(whole) if *whole == row(&["1", "new", "v", "w"])));
        assert_eq!(entry.pure & 0b1111, 0b0111, "w came from elsewhere and stays so");

        let entry = from_stream(&["1", "new", "u", "u"], Some((row(&["1", "old", "v", "u"]), u64::MAX)), seq);
        assert!(matches!(&entry.content, Content::Fetch(part) if *part == row(&["1", "new", "v", "u"])));
        assert_eq!(entry.pure & 0b1111, 0b0111);
    }

    #[test]
    fn the_oldest_transaction_and_the_delete_beneath_survive_what_covers_them() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let (first, second, third) = (ledger.begin(), ledger.begin(), ledger.begin());
        let mut insert = from_stream(&["1", "a"], None, second);
        assert_eq!(insert.supersede(Entry::delete(first, 5, Lsn(50))), Some(second));
        assert!(insert.beneath);
        let mut update = from_stream(&["1", "b"], None, third);
        assert_eq!(update.supersede(insert), Some(third));
        assert!(update.beneath);
        assert_eq!(update.oldest, Some(first));
        let mut delete = Entry::delete(third, 9, Lsn(90));
        assert_eq!(delete.supersede(update), Some(third));
        assert!(!delete.beneath);
    }

    #[test]
    fn a_chunk_row_takes_over_the_transaction_that_waited() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let seq = ledger.begin();
        let mut copied = Entry::from_chunk(Some(row(&["1", "c"])), ChunkId(4), Lsn(60), &Key::Int(1));
        assert_eq!(copied.supersede(from_stream(&["1", "u"], None, seq)), None);
        assert_eq!(copied.oldest, Some(seq));
        assert_eq!(copied.position, Lsn(70));
        let mut update = from_stream(&["1", "d"], None, ledger.begin());
        assert!(update.supersede(copied).is_some());
        assert_eq!(update.chunks.as_slice(), [ChunkId(4)]);
    }

    #[test]
    fn a_refused_row_is_reread_once() {
        let mut ledger = Ledger::new(Lsn::ZERO);
        let seq = ledger.begin();
        let entry = from_stream(&["1", "a", "b"], None, seq);
        assert!(entry.can_be_reread());
        let mut entry = entry.into_reread(0b1, 0);
        assert!(matches!(&entry.content, Content::Fetch(part) if *part == row(&["1", "u", "u"])));
        entry.fill(vec![(1, value("x")), (2, value("y"))], Lsn(99));
        assert!(!entry.can_be_reread());
        assert_eq!(entry.pure & 0b111, 0b001);
        assert_eq!(entry.position, Lsn(99));
    }
}
