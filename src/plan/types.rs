//! The one table of types: what a PostgreSQL type becomes in Milvus, and how its values are read.
//!
//! In: a type of the catalog. Out: its `SourceType`, and through `TypeEntry` everything that depends on it: target type,
//! decoder, longest text, use as a key or array element, and the reason shown by `walvec plan`. A new type is a variant,
//! an entry, and if need be a decoder in `postgres::decode`.
//!
//! Holds: the text of a value is the same whether it came as binary or as text (`tests/it/types.rs` asks a server).
//!
//! Not here: lengths and dimensions that the user sets (`build`), columns (`pipeline::encode`).

use std::borrow::Cow;

use bytes::Bytes;

use crate::change::Value;
use crate::milvus::DataType;
use crate::postgres::catalog::{PgType, TypeKind};
use crate::postgres::decode::{self, DecodeError};
use crate::postgres::{array, pgvector};

/// How a column's bytes are read: the PostgreSQL type, with domains resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// text, varchar, char(n): the bytes are the text.
    Text,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Json,
    Jsonb,
    /// pgvector's `vector`; 0 stands for "not declared" until the settings have been asked.
    Vector {
        dim: u32,
    },
    Array(Box<SourceType>),
}

/// How the binary form is read. The text form needs no entry: it is the text, or a number printed.
#[derive(Clone, Copy)]
pub enum Read {
    Bool,
    Int(fn(&[u8]) -> Result<i64, DecodeError>),
    Float4,
    Float8,
    /// The bytes are the text.
    Verbatim,
    /// The bytes are printed as the output function would.
    Printed(fn(&[u8], &mut Vec<u8>) -> Result<(), DecodeError>),
    /// JSON text.
    Json,
    /// A version byte, then JSON text.
    Jsonb,
    Vector,
    Array,
}

/// What a type may be in a primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// An INT64 key.
    Int,
    /// A VARCHAR key of its text.
    Text,
    /// One part of a composite key only: Milvus has no primary key of this type.
    Part,
    /// None, for this reason.
    Never(&'static str),
}

/// A line of the table.
pub struct TypeEntry {
    pub source: SourceType,
    /// Names in `pg_catalog` (or, for an extension's type, within the extension).
    pub names: &'static [&'static str],
    pub target: DataType,
    pub read: Read,
    /// Bytes of the longest text, where that is short; else a VARCHAR gets the longest that Milvus has.
    pub text_max: Option<u32>,
    pub key: KeyUse,
    /// May be an element of an ARRAY.
    pub element: bool,
    /// One clause for `walvec plan`.
    pub reason: &'static str,
}

/// Bytes of the longest VARCHAR.
pub const VARCHAR_MAX: u32 = 65_535;
/// Elements of the longest ARRAY.
pub const ARRAY_MAX: u32 = 4_096;
/// Dimensions of a FLOAT_VECTOR.
pub const DIMENSIONS: std::ops::RangeInclusive<u32> = 2..=32_768;

const FLOAT_KEY: KeyUse = KeyUse::Never("floating-point numbers are no safe keys: 0 equals -0, and NaN equals itself");
const DOCUMENT_KEY: KeyUse = KeyUse::Never("a document cannot be a key in Milvus");

/// The table. Longest texts: a date ends at 5874897-12-31 and begins at 4714-11-24 BC, a timestamp before Christ has
/// microseconds, a zone and an era.
static TYPES: &[TypeEntry] = &[
    TypeEntry {
        source: SourceType::Bool,
        names: &["bool"],
        target: DataType::Bool,
        read: Read::Bool,
        text_max: None,
        key: KeyUse::Part,
        element: true,
        reason: "the same values",
    },
    TypeEntry {
        source: SourceType::Int2,
        names: &["int2"],
        target: DataType::Int16,
        read: Read::Int(decode::int2),
        text_max: None,
        key: KeyUse::Int,
        element: true,
        reason: "the same range",
    },
    TypeEntry {
        source: SourceType::Int4,
        names: &["int4"],
        target: DataType::Int32,
        read: Read::Int(decode::int4),
        text_max: None,
        key: KeyUse::Int,
        element: true,
        reason: "the same range",
    },
    TypeEntry {
        source: SourceType::Int8,
        names: &["int8"],
        target: DataType::Int64,
        read: Read::Int(decode::int8),
        text_max: None,
        key: KeyUse::Int,
        element: true,
        reason: "the same range",
    },
    TypeEntry {
        source: SourceType::Float4,
        names: &["float4"],
        target: DataType::Float,
        read: Read::Float4,
        text_max: None,
        key: FLOAT_KEY,
        element: true,
        reason: "the same bits",
    },
    TypeEntry {
        source: SourceType::Float8,
        names: &["float8"],
        target: DataType::Double,
        read: Read::Float8,
        text_max: None,
        key: FLOAT_KEY,
        element: true,
        reason: "the same bits",
    },
    TypeEntry {
        source: SourceType::Numeric,
        names: &["numeric"],
        target: DataType::VarChar,
        read: Read::Printed(decode::print_numeric),
        text_max: None,
        key: KeyUse::Text,
        element: true,
        reason: "exact text; a DOUBLE would round",
    },
    TypeEntry {
        source: SourceType::Text,
        names: &["text", "varchar", "bpchar"],
        target: DataType::VarChar,
        read: Read::Verbatim,
        text_max: None,
        key: KeyUse::Text,
        element: true,
        reason: "the same text",
    },
    TypeEntry {
        source: SourceType::Uuid,
        names: &["uuid"],
        target: DataType::VarChar,
        read: Read::Printed(decode::print_uuid),
        text_max: Some(36),
        key: KeyUse::Text,
        element: true,
        reason: "as PostgreSQL prints it",
    },
    TypeEntry {
        source: SourceType::Date,
        names: &["date"],
        target: DataType::VarChar,
        read: Read::Printed(decode::print_date),
        text_max: Some(13),
        key: KeyUse::Text,
        element: true,
        reason: "ISO text, as PostgreSQL prints it",
    },
    TypeEntry {
        source: SourceType::Time,
        names: &["time"],
        target: DataType::VarChar,
        read: Read::Printed(decode::print_time),
        text_max: Some(15),
        key: KeyUse::Text,
        element: true,
        reason: "ISO text, as PostgreSQL prints it",
    },
    TypeEntry {
        source: SourceType::Timestamp,
        names: &["timestamp"],
        target: DataType::VarChar,
        read: Read::Printed(decode::print_timestamp),
        text_max: Some(29),
        key: KeyUse::Text,
        element: true,
        reason: "ISO text, as PostgreSQL prints it",
    },
    TypeEntry {
        source: SourceType::TimestampTz,
        names: &["timestamptz"],
        target: DataType::VarChar,
        read: Read::Printed(decode::print_timestamptz),
        text_max: Some(32),
        key: KeyUse::Text,
        element: true,
        reason: "ISO text in UTC, as PostgreSQL prints it",
    },
    TypeEntry {
        source: SourceType::Json,
        names: &["json"],
        target: DataType::Json,
        read: Read::Json,
        text_max: None,
        key: DOCUMENT_KEY,
        element: false,
        reason: "the same document; a scalar or null at its top is refused",
    },
    TypeEntry {
        source: SourceType::Jsonb,
        names: &["jsonb"],
        target: DataType::Json,
        read: Read::Jsonb,
        text_max: None,
        key: DOCUMENT_KEY,
        element: false,
        reason: "the same document; a scalar or null at its top is refused",
    },
    TypeEntry {
        source: SourceType::Vector { dim: 0 },
        names: &["vector"],
        target: DataType::FloatVector,
        read: Read::Vector,
        text_max: None,
        key: KeyUse::Never("a vector cannot be a key in Milvus"),
        element: false,
        reason: "the same floats",
    },
];

static ARRAY: TypeEntry = TypeEntry {
    source: SourceType::Bool, // not read: an array is known by its element
    names: &[],
    target: DataType::Array,
    read: Read::Array,
    text_max: None,
    key: KeyUse::Never("an array cannot be a key in Milvus"),
    element: false,
    reason: "its elements in order; NULL elements and further dimensions are refused",
};

impl SourceType {
    /// Its line in the table; arrays share one.
    pub fn entry(&self) -> &'static TypeEntry {
        if let SourceType::Array(_) = self {
            return &ARRAY;
        }
        let same = |entry: &&TypeEntry| std::mem::discriminant(&entry.source) == std::mem::discriminant(self);
        TYPES.iter().find(same).expect("every source type has a line in the table of types")
    }

    /// The value as PostgreSQL prints it; `None` for NULL. A slice of the value where its bytes are the text.
    pub fn text(&self, value: &Value) -> Result<Option<Bytes>, DecodeError> {
        match value {
            Value::Null => Ok(None),
            Value::UnchangedToast => Err(DecodeError::UnchangedToast),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Binary(bytes) => match self.entry().read {
                Read::Verbatim | Read::Json => Ok(Some(bytes.clone())),
                Read::Jsonb => decode::jsonb(bytes).map(|text| Some(bytes.slice_ref(text))),
                _ => {
                    let mut out = Vec::new();
                    self.print(bytes, &mut out)?;
                    Ok(Some(out.into()))
                }
            },
        }
    }

    /// Print a binary value as the type's output function would.
    pub fn print(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self.entry().read {
            Read::Bool => decode::print_bool(decode::bool(bytes)?, out),
            Read::Int(read) => decode::print_int(read(bytes)?, out),
            Read::Float4 => decode::print_float4(decode::float4(bytes)?, out),
            Read::Float8 => decode::print_float8(decode::float8(bytes)?, out),
            Read::Verbatim | Read::Json => out.extend_from_slice(bytes),
            Read::Jsonb => out.extend_from_slice(decode::jsonb(bytes)?),
            Read::Printed(print) => print(bytes, out)?,
            Read::Vector => pgvector::print_vector(bytes, out)?,
            Read::Array => match self {
                SourceType::Array(element) => array::print_array(bytes, |bytes, out| element.print(bytes, out), out)?,
                _ => unreachable!("only an array is read as one"),
            },
        }
        Ok(())
    }
}

/// What a type of the catalog is to us, or a clause that says why it is nothing.
pub fn resolve(pg: &PgType) -> Result<SourceType, Cow<'static, str>> {
    resolve_within(pg, -1)
}

/// `outer`: the modifier of the type around this one, in force where this has none.
fn resolve_within(pg: &PgType, outer: i32) -> Result<SourceType, Cow<'static, str>> {
    let typmod = if pg.typmod >= 0 { pg.typmod } else { outer };
    match &pg.kind {
        TypeKind::Domain(base) => resolve_within(base, typmod),
        // These two print as "1 2 3", unlike every other array.
        TypeKind::Array(_) if matches!(&*pg.name, "int2vector" | "oidvector") => Err(unsupported(pg)),
        TypeKind::Array(element) => {
            let element = resolve_within(element, typmod)?;
            if element.entry().element {
                Ok(SourceType::Array(Box::new(element)))
            } else if let SourceType::Array(_) = element {
                Err("an ARRAY field cannot hold arrays".into())
            } else {
                Err(format!("an ARRAY field cannot hold {} elements", element.entry().target).into())
            }
        }
        TypeKind::Enum => Err("enums are not supported".into()),
        TypeKind::Composite => Err("composite types are not supported".into()),
        TypeKind::Range => Err("ranges are not supported".into()),
        TypeKind::Base => {
            let known = match pg.extension.as_deref() {
                Some("vector") => pg.name == "vector",
                Some(_) => false,
                None => pg.schema == "pg_catalog" && pg.name != "vector",
            };
            let entry = TYPES.iter().find(|entry| known && entry.names.contains(&&*pg.name));
            match entry.map(|entry| &entry.source) {
                Some(SourceType::Vector { .. }) => {
                    Ok(SourceType::Vector { dim: u32::try_from(typmod).unwrap_or_default() })
                }
                Some(source) => Ok(source.clone()),
                None => Err(unsupported(pg)),
            }
        }
    }
}

fn unsupported(pg: &PgType) -> Cow<'static, str> {
    format!("type {} is not supported", pg.name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str, extension: Option<&str>) -> PgType {
        PgType {
            oid: 0,
            name: name.into(),
            schema: if extension.is_some() { "extensions" } else { "pg_catalog" }.into(),
            extension: extension.map(Into::into),
            typmod: -1,
            kind: TypeKind::Base,
        }
    }

    fn of(kind: TypeKind, typmod: i32) -> PgType {
        PgType { kind, typmod, schema: "public".into(), ..base("x", None) }
    }

    #[test]
    fn every_line_is_found_by_its_own_name() {
        for entry in TYPES {
            for name in entry.names {
                let extension = (*name == "vector").then_some("vector");
                let source = resolve(&base(name, extension)).expect("a known type");
                assert!(std::ptr::eq(source.entry(), entry), "{name}");
            }
        }
    }

    #[test]
    fn domains_and_arrays_are_seen_through() {
        let vector = PgType { typmod: 3, ..base("vector", Some("vector")) };
        let domain = of(TypeKind::Domain(Box::new(vector)), -1);
        assert_eq!(resolve(&domain), Ok(SourceType::Vector { dim: 3 }));
        let domain = of(TypeKind::Domain(Box::new(base("vector", Some("vector")))), 4);
        assert_eq!(resolve(&domain), Ok(SourceType::Vector { dim: 4 }));
        let domain = of(TypeKind::Domain(Box::new(base("int4", None))), -1);
        let array = of(TypeKind::Array(Box::new(domain)), -1);
        assert_eq!(resolve(&array), Ok(SourceType::Array(Box::new(SourceType::Int4))));
    }

    #[test]
    fn what_has_no_line_is_refused_by_name() {
        let refused = |pg: &PgType| resolve(pg).expect_err("refused").into_owned();
        assert_eq!(refused(&base("halfvec", Some("vector"))), "type halfvec is not supported");
        assert_eq!(refused(&base("text", Some("other"))), "type text is not supported");
        assert_eq!(refused(&base("vector", None)), "type vector is not supported");
        assert_eq!(refused(&of(TypeKind::Enum, -1)), "enums are not supported");
        let of_json = of(TypeKind::Array(Box::new(base("json", None))), -1);
        assert_eq!(refused(&of_json), "an ARRAY field cannot hold JSON elements");
    }

    #[test]
    fn both_forms_have_one_text() {
        let array = [1i32, 0, 23, 2, 1, 4, 7, 4, -8].map(i32::to_be_bytes).concat();
        for (source, binary, text) in [
            (SourceType::Bool, vec![1], "t"),
            (SourceType::Int4, vec![255, 255, 255, 254], "-2"),
            (SourceType::Text, b"a b ".to_vec(), "a b "),
            (SourceType::Jsonb, b"\x01{}".to_vec(), "{}"),
            (SourceType::Array(Box::new(SourceType::Int4)), array, "{7,-8}"),
        ] {
            let expected = Ok(Some(Bytes::from(text)));
            assert_eq!(source.text(&Value::Binary(binary.into())), expected);
            assert_eq!(source.text(&Value::Text(text.into())), expected);
        }
        assert_eq!(SourceType::Text.text(&Value::Null), Ok(None));
        assert_eq!(SourceType::Text.text(&Value::UnchangedToast), Err(DecodeError::UnchangedToast));
    }
}
