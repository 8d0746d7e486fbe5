//! Keys and values of the store. Format 1; `writer` refuses what is newer.
//!
//! ```text
//! format                              u32
//! slot, publication, database         text
//! system_identifier                   u64     with timeline, checkpoint and sent_limit, or not at all
//! timeline                            u32
//! checkpoint, sent_limit              u64
//! clean_stop, intent                  empty, u8
//! t 0 name                            u8 (1: copied, 2: u64 skip.until comes behind the oid, 4: sweep, 8: then its snapshot, in numbers of
//!                                     u64: xmin, xmax, how many run, each of them; 16: then u32 length and text of let_go), u32 oid, u32 number of leaves, their u32 oids, collection (text),
//!                                     then, if it was written: 0, row filter (empty: none), and 0, name for each column of the key
//! l 0 name 0 leaf                     u32 filenode, u32 number of ranges
//! r 0 name 0 leaf page                1024 ranges at most: u32 from_block, u32 to_block (u32::MAX: open)
//! d 0 name 0 leaf chunk               empty: the chunk is done
//! x 0 name 0 i key, x 0 name 0 t key  a dead letter, in JSON; the key is an i64 (its sign bit turned, so that it sorts) or a text
//! ```
//!
//! Numbers are big-endian, so that keys sort as numbers; a PostgreSQL name holds no NUL. A chunk's flag is a key of
//! its own: marking it writes a few bytes, however long the list. Lists are in pages, so that no value is large
//! (sled would put it into a file of its own).

use super::BlockRange;
use crate::change::{Lsn, Oid, Skip, Snapshot};
use crate::mutation::Key;

pub(super) const FORMAT: u32 = 1;

pub(super) const RANGES_A_PAGE: usize = 1024;

/// PostgreSQL's `InvalidBlockNumber`, so never a block.
const OPEN: u32 = u32::MAX;

pub(super) fn table_key(name: &str) -> Vec<u8> {
    [b"t\0", name.as_bytes()].concat()
}

pub(super) fn leaf_key(name: &str, leaf: Oid) -> Vec<u8> {
    [b"l\0", name.as_bytes(), b"\0", &leaf.to_be_bytes()].concat()
}

pub(super) fn page_key(name: &str, leaf: Oid, page: u32) -> Vec<u8> {
    [&page_prefix(name, leaf)[..], &page.to_be_bytes()].concat()
}

pub(super) fn page_prefix(name: &str, leaf: Oid) -> Vec<u8> {
    [b"r\0", name.as_bytes(), b"\0", &leaf.to_be_bytes()].concat()
}

pub(super) fn done_key(name: &str, leaf: Oid, chunk: u32) -> Vec<u8> {
    [&done_prefix(name, leaf)[..], &chunk.to_be_bytes()].concat()
}

pub(super) fn done_prefix(name: &str, leaf: Oid) -> Vec<u8> {
    [b"d\0", name.as_bytes(), b"\0", &leaf.to_be_bytes()].concat()
}

pub(super) fn letter_prefix(name: &str) -> Vec<u8> {
    [b"x\0", name.as_bytes(), b"\0"].concat()
}

pub(super) fn letter_key(name: &str, key: &Key) -> Vec<u8> {
    let mut bytes = letter_prefix(name);
    match key {
        Key::Int(key) => {
            bytes.push(b'i');
            bytes.extend((*key as u64 ^ 1 << 63).to_be_bytes());
        }
        Key::Text(key) => {
            bytes.push(b't');
            bytes.extend(key.as_bytes());
        }
    }
    bytes
}

/// The table and the key, from what `letter_key` made.
pub(super) fn decode_letter_key(bytes: &[u8]) -> Option<(&str, Key)> {
    let rest = bytes.strip_prefix(b"x\0")?;
    let (name, key) = rest.split_at_checked(rest.iter().position(|&byte| byte == 0)?)?;
    let key = match key.get(1..)? {
        [b'i', key @ ..] => Key::Int((decode_u64(key)? ^ 1 << 63) as i64),
        [b't', key @ ..] => Key::Text(str::from_utf8(key).ok()?.into()),
        _ => return None,
    };
    Some((str::from_utf8(name).ok()?, key))
}

/// The prefixes under which everything of a table's leaves is.
pub(super) fn leaf_prefixes(name: &str) -> [Vec<u8>; 3] {
    [b"l\0", b"r\0", b"d\0"].map(|kind| [&kind[..], name.as_bytes(), b"\0"].concat())
}

/// What `t` holds of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableRecord {
    pub oid: Oid,
    pub copied: bool,
    pub sweep: bool,
    pub leaves: Vec<Oid>,
    pub collection: String,
    pub row_filter: Option<String>,
    pub key: Vec<String>,
    pub skip: Skip,
    pub let_go: Option<String>,
}

impl TableRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Skip { until, snapshot } = &self.skip;
        let skips = *until > Lsn::ZERO;
        let flags = [self.copied, skips, self.sweep, snapshot.is_some(), self.let_go.is_some()];
        let mut bytes = vec![flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag))];
        bytes.extend(self.oid.to_be_bytes());
        if skips {
            bytes.extend(until.0.to_be_bytes());
        }
        if let Some(Snapshot { xmin, xmax, running }) = snapshot {
            let numbers = [*xmin, *xmax, running.len() as u64].into_iter().chain(running.iter().copied());
            bytes.extend(numbers.flat_map(u64::to_be_bytes));
        }
        if let Some(reason) = &self.let_go {
            bytes.extend((reason.len() as u32).to_be_bytes());
            bytes.extend(reason.as_bytes());
        }
        bytes.extend((self.leaves.len() as u32).to_be_bytes());
        bytes.extend(self.leaves.iter().flat_map(|leaf| leaf.to_be_bytes()));
        bytes.extend(self.collection.as_bytes());
        let filter = self.row_filter.as_deref().unwrap_or_default();
        for text in std::iter::once(filter).chain(self.key.iter().map(String::as_str)) {
            bytes.push(0);
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<TableRecord> {
        let (&flags, rest) = bytes.split_first()?;
        let (oid, mut rest) = take_u32(rest)?;
        let mut skip = Skip::default();
        if flags & 2 != 0 {
            skip.until = Lsn(take_u64(&mut rest)?);
        }
        if flags & 8 != 0 {
            let (xmin, xmax, count) = (take_u64(&mut rest)?, take_u64(&mut rest)?, take_u64(&mut rest)?);
            let running = (0..count).map(|_| take_u64(&mut rest)).collect::<Option<_>>()?;
            skip.snapshot = Some(Snapshot { xmin, xmax, running });
        }
        let mut let_go = None;
        if flags & 16 != 0 {
            let (length, after) = take_u32(rest)?;
            let (reason, after) = after.split_at_checked(length as usize)?;
            (let_go, rest) = (Some(str::from_utf8(reason).ok()?.to_owned()), after);
        }
        let (count, mut rest) = take_u32(rest)?;
        let mut leaves = Vec::new();
        for _ in 0..count {
            let (leaf, after) = take_u32(rest)?;
            leaves.push(leaf);
            rest = after;
        }
        let mut texts = std::str::from_utf8(rest).ok()?.split('\0').map(str::to_owned);
        let collection = texts.next()?;
        let row_filter = texts.next().filter(|filter| !filter.is_empty());
        let key = texts.collect();
        let (copied, sweep) = (flags & 1 != 0, flags & 4 != 0);
        (flags <= 31).then_some(TableRecord { oid, copied, sweep, leaves, collection, row_filter, key, skip, let_go })
    }
}

/// What `l` holds of a leaf: its file node and how many ranges its pages have.
pub(super) fn encode_leaf(filenode: Oid, ranges: u32) -> [u8; 8] {
    (u64::from(filenode) << 32 | u64::from(ranges)).to_be_bytes()
}

pub(super) fn decode_leaf(bytes: &[u8]) -> Option<(Oid, u32)> {
    let (filenode, rest) = take_u32(bytes)?;
    Some((filenode, decode_u32(rest)?))
}

pub(super) fn encode_page(ranges: &[BlockRange]) -> Vec<u8> {
    ranges
        .iter()
        .flat_map(|range| [range.from_block, range.to_block.unwrap_or(OPEN)])
        .flat_map(u32::to_be_bytes)
        .collect()
}

pub(super) fn decode_page(bytes: &[u8]) -> Option<Vec<BlockRange>> {
    let (pairs, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let range = |pair: &[u8; 8]| {
        let pair = u64::from_be_bytes(*pair);
        let to_block = pair as u32;
        BlockRange { from_block: (pair >> 32) as u32, to_block: (to_block != OPEN).then_some(to_block) }
    };
    Some(pairs.iter().map(range).collect())
}

pub(super) fn decode_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn decode_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_at_checked(8)?;
    *bytes = rest;
    decode_u64(number)
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_at_checked(4)?;
    Some((decode_u32(number)?, rest))
}
