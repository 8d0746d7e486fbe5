//! pgoutput: the messages of logical decoding, protocol version 1. Pure: the bytes of one message in, a `Message` out.
//!
//! Holds: values are slices of the message's `Bytes`, nothing is copied but names. A message is consumed to its last byte
//! or it is an error; no input panics. An unknown message is an error, never skipped: what it would have changed is not
//! known. Versions 2 to 4 add messages that are sent only when asked for, and nobody here asks.
//!
//! Not here: which table a relation is (`relation`), framing and keepalives (pgwire-replication).
//! See: PostgreSQL manual, "Logical Replication Message Formats".
#![deny(clippy::indexing_slicing)]

use bytes::{Buf, Bytes, TryGetError};

use crate::change::{Lsn, Oid, Value};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's clock begins.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `final_lsn` is where the commit record starts; `commit_micros` counts from 1970-01-01.
    Begin {
        final_lsn: Lsn,
        commit_micros: i64,
        xid: u32,
    },
    /// `end_lsn` is the first byte after the commit record.
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_micros: i64,
    },
    /// The transaction was replayed here from elsewhere.
    Origin,
    Relation(Relation),
    /// Name of a type that is not built in; the catalog told us already.
    Type,
    Insert {
        relation: Oid,
        new: Tuple,
    },
    Update {
        relation: Oid,
        old: Option<OldTuple>,
        new: Tuple,
    },
    Delete {
        relation: Oid,
        old: OldTuple,
    },
    Truncate {
        relations: Vec<Oid>,
    },
    /// `pg_logical_emit_message`.
    Logical {
        lsn: Lsn,
        prefix: String,
        content: Bytes,
    },
}

impl Message {
    /// The relation that a row changed in.
    pub fn changed_relation(&self) -> Option<Oid> {
        match self {
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                Some(*relation)
            }
            _ => None,
        }
    }
}

/// A relation as it was when the changes after this message were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    /// `relreplident`: `d`, `n`, `f` or `i`.
    pub replica_identity: u8,
    pub columns: Vec<RelationColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Part of the replica identity; every column when that is FULL.
    pub in_identity: bool,
    pub name: String,
    pub type_oid: Oid,
    pub typmod: i32,
}

/// Values in the order of the Relation message.
pub type Tuple = Vec<Value>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldTuple {
    /// Columns of the identity; NULL in any other column means "not sent".
    Key(Tuple),
    /// Sent because the relation's identity is FULL.
    Full(Tuple),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a message ends before its contents do")]
    Truncated,
    #[error("{0} bytes are left after the end of a message")]
    Trailing(usize),
    #[error("a message of unknown kind {0:?}")]
    UnknownMessage(char),
    #[error("a tuple of unknown kind {0:?}")]
    UnknownTuple(char),
    #[error("a value of unknown kind {0:?}")]
    UnknownValue(char),
    #[error("a negative count or length")]
    Negative,
    #[error("a name that is not UTF-8")]
    NotUtf8,
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> DecodeError {
        DecodeError::Truncated
    }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// Decodes one message, the payload of one XLogData.
pub fn decode(message: Bytes) -> Result<Message> {
    let mut reader = Reader(message);
    let kind = reader.0.try_get_u8()?;
    let message = match kind {
        b'B' => {
            let final_lsn = reader.lsn()?;
            let commit_micros = reader.timestamp()?;
            Message::Begin { final_lsn, commit_micros, xid: reader.0.try_get_u32()? }
        }
        b'C' => {
            reader.0.try_get_u8()?; // flags: none is defined
            let (commit_lsn, end_lsn) = (reader.lsn()?, reader.lsn()?);
            Message::Commit { commit_lsn, end_lsn, commit_micros: reader.timestamp()? }
        }
        b'O' => {
            reader.lsn()?;
            reader.name()?;
            Message::Origin
        }
        b'R' => Message::Relation(reader.relation()?),
        b'Y' => {
            reader.0.try_get_u32()?;
            reader.name()?;
            reader.name()?;
            Message::Type
        }
        b'I' => {
            let relation = reader.0.try_get_u32()?;
            let kind = reader.0.try_get_u8()?;
            Message::Insert { relation, new: reader.new_tuple(kind)? }
        }
        b'U' => {
            let relation = reader.0.try_get_u32()?;
            let mut kind = reader.0.try_get_u8()?;
            let mut old = None;
            if kind != b'N' {
                old = Some(reader.old_tuple(kind)?);
                kind = reader.0.try_get_u8()?;
            }
            Message::Update { relation, old, new: reader.new_tuple(kind)? }
        }
        b'D' => {
            let relation = reader.0.try_get_u32()?;
            let kind = reader.0.try_get_u8()?;
            Message::Delete { relation, old: reader.old_tuple(kind)? }
        }
        b'T' => {
            let count = usize::try_from(reader.0.try_get_i32()?).map_err(|_| DecodeError::Negative)?;
            reader.0.try_get_u8()?; // CASCADE, RESTART IDENTITY: everything truncated is listed
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(reader.0.try_get_u32()?);
            }
            Message::Truncate { relations }
        }
        b'M' => {
            reader.0.try_get_u8()?; // transactional or not: it comes in the order of the stream
            let (lsn, prefix) = (reader.lsn()?, reader.name()?);
            Message::Logical { lsn, prefix, content: reader.counted()? }
        }
        kind => return Err(DecodeError::UnknownMessage(char::from(kind))),
    };
    match reader.0.remaining() {
        0 => Ok(message),
        left => Err(DecodeError::Trailing(left)),
    }
}

struct Reader(Bytes);

impl Reader {
    fn lsn(&mut self) -> Result<Lsn> {
        Ok(Lsn(self.0.try_get_u64()?))
    }

    /// Saturates: a forged clock must not overflow.
    fn timestamp(&mut self) -> Result<i64> {
        Ok(self.0.try_get_i64()?.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.0.remaining() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    /// Bytes after their length in 32 bits.
    fn counted(&mut self) -> Result<Bytes> {
        let length = usize::try_from(self.0.try_get_i32()?).map_err(|_| DecodeError::Negative)?;
        self.take(length)
    }

    /// Text up to a NUL.
    fn name(&mut self) -> Result<String> {
        let length = self.0.iter().position(|&byte| byte == 0).ok_or(DecodeError::Truncated)?;
        let name = self.take(length)?;
        self.0.advance(1);
        String::from_utf8(name.into()).map_err(|_| DecodeError::NotUtf8)
    }

    fn relation(&mut self) -> Result<Relation> {
        let oid = self.0.try_get_u32()?;
        let schema = match self.name()? {
            schema if schema.is_empty() => "pg_catalog".to_owned(),
            schema => schema,
        };
        let name = self.name()?;
        let replica_identity = self.0.try_get_u8()?;
        let mut columns = Vec::new();
        for _ in 0..self.count()? {
            let flags = self.0.try_get_u8()?;
            columns.push(RelationColumn {
                in_identity: flags & 1 != 0,
                name: self.name()?,
                type_oid: self.0.try_get_u32()?,
                typmod: self.0.try_get_i32()?,
            });
        }
        Ok(Relation { oid, schema, name, replica_identity, columns })
    }

    fn count(&mut self) -> Result<u16> {
        u16::try_from(self.0.try_get_i16()?).map_err(|_| DecodeError::Negative)
    }

    fn new_tuple(&mut self, kind: u8) -> Result<Tuple> {
        match kind {
            b'N' => self.tuple(),
            kind => Err(DecodeError::UnknownTuple(char::from(kind))),
        }
    }

    fn old_tuple(&mut self, kind: u8) -> Result<OldTuple> {
        match kind {
            b'K' => Ok(OldTuple::Key(self.tuple()?)),
            b'O' => Ok(OldTuple::Full(self.tuple()?)),
            kind => Err(DecodeError::UnknownTuple(char::from(kind))),
        }
    }

    fn tuple(&mut self) -> Result<Tuple> {
        let count = usize::from(self.count()?);
        // Each value takes a byte at least: a forged count allocates no more than the message is long.
        let mut tuple = Tuple::with_capacity(count.min(self.0.remaining()));
        for _ in 0..count {
            tuple.push(match self.0.try_get_u8()? {
                b'n' => Value::Null,
                b'u' => Value::UnchangedToast,
                b't' => Value::Text(self.counted()?),
                b'b' => Value::Binary(self.counted()?),
                kind => return Err(DecodeError::UnknownValue(char::from(kind))),
            });
        }
        Ok(tuple)
    }
}

/// Messages as the server writes them, for tests here and of the modules above.
#[cfg(test)]
pub(super) mod encode {
    use super::*;
    use bytes::BufMut;

    fn tuple(out: &mut Vec<u8>, tuple: &[Value]) {
        out.put_i16(tuple.len().try_into().expect("few columns"));
        for value in tuple {
            let (kind, bytes) = match value {
                Value::Null => (b'n', None),
                Value::UnchangedToast => (b'u', None),
                Value::Text(bytes) => (b't', Some(bytes)),
                Value::Binary(bytes) => (b'b', Some(bytes)),
            };
            out.put_u8(kind);
            if let Some(bytes) = bytes {
                out.put_i32(bytes.len().try_into().expect("short values"));
                out.put_slice(bytes);
            }
        }
    }

    fn old(out: &mut Vec<u8>, old: &OldTuple) {
        match old {
            OldTuple::Key(values) => {
                out.put_u8(b'K');
                tuple(out, values);
            }
            OldTuple::Full(values) => {
                out.put_u8(b'O');
                tuple(out, values);
            }
        }
    }

    fn name(out: &mut Vec<u8>, name: &str) {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
    }

    pub(in crate::postgres) fn encode(message: &Message) -> Bytes {
        let mut out = Vec::new();
        match message {
            Message::Begin { final_lsn, commit_micros, xid } => {
                out.put_u8(b'B');
                out.put_u64(final_lsn.0);
                out.put_i64(commit_micros - POSTGRES_EPOCH_MICROS);
                out.put_u32(*xid);
            }
            Message::Commit { commit_lsn, end_lsn, commit_micros } => {
                out.put_slice(b"C\0");
                out.put_u64(commit_lsn.0);
                out.put_u64(end_lsn.0);
                out.put_i64(commit_micros - POSTGRES_EPOCH_MICROS);
            }
            Message::Origin => {
                out.put_u8(b'O');
                out.put_u64(7);
                name(&mut out, "elsewhere");
            }
            Message::Relation(relation) => {
                out.put_u8(b'R');
                out.put_u32(relation.oid);
                name(&mut out, if relation.schema == "pg_catalog" { "" } else { &relation.schema });
                name(&mut out, &relation.name);
                out.put_u8(relation.replica_identity);
                out.put_i16(relation.columns.len().try_into().expect("few columns"));
                for column in &relation.columns {
                    out.put_u8(u8::from(column.in_identity));
                    name(&mut out, &column.name);
                    out.put_u32(column.type_oid);
                    out.put_i32(column.typmod);
                }
            }
            Message::Type => {
                out.put_u8(b'Y');
                out.put_u32(16_385);
                name(&mut out, "public");
                name(&mut out, "vector");
            }
            Message::Insert { relation, new } => {
                out.put_u8(b'I');
                out.put_u32(*relation);
                out.put_u8(b'N');
                tuple(&mut out, new);
            }
            Message::Update { relation, old: before, new } => {
                out.put_u8(b'U');
                out.put_u32(*relation);
                if let Some(before) = before {
                    old(&mut out, before);
                }
                out.put_u8(b'N');
                tuple(&mut out, new);
            }
            Message::Delete { relation, old: before } => {
                out.put_u8(b'D');
                out.put_u32(*relation);
                old(&mut out, before);
            }
            Message::Truncate { relations } => {
                out.put_u8(b'T');
                out.put_i32(relations.len().try_into().expect("few relations"));
                out.put_u8(0);
                relations.iter().for_each(|relation| out.put_u32(*relation));
            }
            Message::Logical { lsn, prefix, content } => {
                out.put_slice(b"M\x01");
                out.put_u64(lsn.0);
                name(&mut out, prefix);
                out.put_i32(content.len().try_into().expect("short contents"));
                out.put_slice(content);
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::encode::encode;
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            Just(Value::Null),
            Just(Value::UnchangedToast),
            bytes().prop_map(Value::Text),
            bytes().prop_map(Value::Binary),
        ]
    }

    fn tuple() -> impl Strategy<Value = Tuple> {
        proptest::collection::vec(value(), 0..20)
    }

    fn old_tuple() -> impl Strategy<Value = OldTuple> {
        prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
    }

    fn relation() -> impl Strategy<Value = Relation> {
        let column = (any::<bool>(), "[a-zä \"]{0,8}", any::<u32>(), any::<i32>())
            .prop_map(|(in_identity, name, type_oid, typmod)| RelationColumn { in_identity, name, type_oid, typmod });
        (any::<u32>(), "[a-z]{1,8}", ".{0,8}", any::<u8>(), proptest::collection::vec(column, 0..20)).prop_map(
            |(oid, schema, name, replica_identity, columns)| Relation {
                oid,
                schema,
                name: name.replace('\0', ""),
                replica_identity,
                columns,
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        let time = POSTGRES_EPOCH_MICROS..i64::MAX;
        prop_oneof![
            (any::<u64>(), time.clone(), any::<u32>()).prop_map(|(lsn, commit_micros, xid)| Message::Begin {
                final_lsn: Lsn(lsn),
                commit_micros,
                xid
            }),
            (any::<u64>(), any::<u64>(), time).prop_map(|(commit, end, commit_micros)| Message::Commit {
                commit_lsn: Lsn(commit),
                end_lsn: Lsn(end),
                commit_micros
            }),
            Just(Message::Origin),
            Just(Message::Type),
            relation().prop_map(Message::Relation),
            (any::<u32>(), tuple()).prop_map(|(relation, new)| Message::Insert { relation, new }),
            (any::<u32>(), proptest::option::of(old_tuple()), tuple())
                .prop_map(|(relation, old, new)| Message::Update { relation, old, new }),
            (any::<u32>(), old_tuple()).prop_map(|(relation, old)| Message::Delete { relation, old }),
            proptest::collection::vec(any::<u32>(), 0..5).prop_map(|relations| Message::Truncate { relations }),
            (any::<u64>(), "[a-z.]{0,8}", proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(lsn, prefix, content)| Message::Logical { lsn: Lsn(lsn), prefix, content: content.into() }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_reads_back_and_every_cut_off_or_extended_one_is_an_error(message in message()) {
            let bytes = encode(&message);
            prop_assert_eq!(decode(bytes.clone()), Ok(message));
            for length in 0..bytes.len() {
                prop_assert!(decode(bytes.slice(..length)).is_err(), "cut off at {}", length);
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            prop_assert_eq!(decode(longer.into()), Err(DecodeError::Trailing(1)));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(bytes.into()));
        }
    }

    #[test]
    fn values_are_slices_of_the_message() {
        let bytes = encode(&Message::Insert { relation: 1, new: Tuple::from_iter([Value::Text("abc".into())]) });
        let range = bytes.as_ptr_range();
        let Ok(Message::Insert { new, .. }) = decode(bytes.clone()) else { panic!("an insert") };
        let [Value::Text(value)] = new.as_slice() else { panic!("one text") };
        assert!(range.contains(&value.as_ptr()), "the value was copied");
    }

    #[test]
    fn what_is_not_version_1_is_an_error() {
        for kind in [b'S', b'E', b'c', b'A', b'b', b'P', b'K', b'r', b'p', b'?', 0, 255] {
            let message = Bytes::from(vec![kind, 0, 0, 0, 0]);
            assert_eq!(decode(message), Err(DecodeError::UnknownMessage(char::from(kind))));
        }
        let insert = |tail: &[u8]| decode([&[b'I', 0, 0, 0, 1], tail].concat().into());
        assert_eq!(insert(b"K\0\0"), Err(DecodeError::UnknownTuple('K')));
        assert_eq!(insert(b"N\0\x01x"), Err(DecodeError::UnknownValue('x')));
        assert_eq!(insert(b"N\xff\xff"), Err(DecodeError::Negative));
        assert_eq!(insert(b"N\0\x01t\xff\xff\xff\xff"), Err(DecodeError::Negative));
        assert_eq!(insert(b"N\0\x01t\x7f\xff\xff\xff"), Err(DecodeError::Truncated));
    }
}
