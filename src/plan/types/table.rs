//! The lines of the table of types.
//!
//! Longest texts: a date ends at 5874897-12-31 and begins at 4714-11-24 BC, a timestamp before Christ has microseconds,
//! a zone and an era; an IPv6 address may end in an IPv4 one and has a netmask.

use crate::milvus::DataType;
use crate::postgres::decode;

use super::{KeyUse, Read, TypeEntry};

const FLOAT_KEY: KeyUse = KeyUse::Never("floating-point numbers are no safe keys: 0 equals -0, and NaN equals itself");
const DOCUMENT_KEY: KeyUse = KeyUse::Never("a document cannot be a key in Milvus");
const VECTOR_KEY: KeyUse = KeyUse::Never("a vector cannot be a key in Milvus");
const SHAPE_KEY: KeyUse = KeyUse::Never("PostgreSQL itself has no order for it");

const PRINTED: &str = "as PostgreSQL prints it";

/// What most lines have: text that becomes a VARCHAR.
const TEXT: TypeEntry = TypeEntry {
    names: &[],
    extension: None,
    read: Read::Verbatim,
    targets: &[DataType::VarChar],
    text_max: None,
    key: KeyUse::Text,
    reason: "the same text",
    limits: "",
    example: "",
};

/// A type that is printed here as its output function would.
const fn printed(names: &'static [&'static str], print: decode::Print, example: &'static str) -> TypeEntry {
    TypeEntry { names, read: Read::Printed(print), reason: PRINTED, example, ..TEXT }
}

pub(super) static TYPES: &[TypeEntry] = &[
    TypeEntry {
        names: &["bool"],
        read: Read::Bool,
        targets: &[DataType::Bool, DataType::VarChar],
        key: KeyUse::Part,
        reason: "the same values",
        limits: "as VARCHAR `t` and `f`",
        example: "t",
        ..TEXT
    },
    TypeEntry {
        names: &["int2"],
        read: Read::Int(decode::int2),
        targets: &[DataType::Int16, DataType::Int8, DataType::Int32, DataType::Int64, DataType::VarChar],
        key: KeyUse::Int,
        reason: "the same range",
        limits: "in a narrower type a value beyond its range does not fit",
        example: "-32768",
        ..TEXT
    },
    TypeEntry {
        names: &["int4"],
        read: Read::Int(decode::int4),
        targets: &[DataType::Int32, DataType::Int8, DataType::Int16, DataType::Int64, DataType::VarChar],
        key: KeyUse::Int,
        reason: "the same range",
        limits: "in a narrower type a value beyond its range does not fit",
        example: "-2147483648",
        ..TEXT
    },
    TypeEntry {
        names: &["int8"],
        read: Read::Int(decode::int8),
        targets: &[DataType::Int64, DataType::Int8, DataType::Int16, DataType::Int32, DataType::VarChar],
        key: KeyUse::Int,
        reason: "the same range",
        limits: "in a narrower type a value beyond its range does not fit",
        example: "-9223372036854775808",
        ..TEXT
    },
    TypeEntry {
        names: &["float4"],
        read: Read::Float4,
        targets: &[DataType::Float, DataType::Double, DataType::VarChar],
        key: FLOAT_KEY,
        reason: "the same bits",
        example: "3.4028235e+38",
        ..TEXT
    },
    TypeEntry {
        names: &["float8"],
        read: Read::Float8,
        targets: &[DataType::Double, DataType::VarChar],
        key: FLOAT_KEY,
        reason: "the same bits",
        example: "-0.1",
        ..TEXT
    },
    TypeEntry {
        targets: &[DataType::VarChar, DataType::Double, DataType::Int64],
        reason: "exact text; a DOUBLE would round",
        limits: "as DOUBLE the nearest one; as INT64 only whole numbers in its range fit",
        ..printed(&["numeric"], decode::print_numeric, "-1234567890123456789.00")
    },
    TypeEntry { names: &["text"], example: "naïve", ..TEXT },
    TypeEntry { names: &["varchar"], example: "naïve", ..TEXT },
    TypeEntry {
        names: &["bpchar"],
        limits: "padded with spaces, as PostgreSQL prints it; `encoding = \"trimmed\"` leaves them out",
        example: "ab  ",
        ..TEXT
    },
    TypeEntry { text_max: Some(4), ..printed(&["char"], decode::print_char, "a") },
    TypeEntry { names: &["name"], text_max: Some(63), example: "pg_class", ..TEXT },
    TypeEntry { names: &["citext"], extension: Some("citext"), example: "Walvec", ..TEXT },
    TypeEntry { names: &["xml"], key: SHAPE_KEY, example: "<a>1</a>", ..TEXT },
    TypeEntry {
        names: &["json"],
        read: Read::Json,
        targets: &[DataType::Json, DataType::VarChar],
        key: DOCUMENT_KEY,
        reason: "the same document",
        limits: "a scalar or null at its top does not fit a JSON field, nor does more than 65,536 bytes",
        example: "{\"a\": 1.0}",
        ..TEXT
    },
    TypeEntry {
        names: &["jsonb"],
        read: Read::Versioned,
        targets: &[DataType::Json, DataType::VarChar],
        key: DOCUMENT_KEY,
        reason: "the same document",
        limits: "a scalar or null at its top does not fit a JSON field, nor does more than 65,536 bytes",
        example: "{\"a\": 1.0}",
        ..TEXT
    },
    TypeEntry {
        names: &["jsonpath"],
        read: Read::Versioned,
        key: SHAPE_KEY,
        reason: PRINTED,
        example: "$.\"a\"[*]",
        ..TEXT
    },
    TypeEntry {
        limits: "`encoding = \"base64\"` and `\"hex\"` (without `\\x`) are other forms, for a column that is no key",
        ..printed(&["bytea"], decode::print_bytea, "\\x00ff")
    },
    TypeEntry { text_max: Some(36), ..printed(&["uuid"], decode::print_uuid, "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff") },
    TypeEntry {
        targets: &[DataType::VarChar, DataType::Int64],
        text_max: Some(13),
        reason: "ISO text, as PostgreSQL prints it",
        limits: "as INT64 days since 1970-01-01; infinity does not fit there",
        ..printed(&["date"], decode::print_date, "4714-11-24 BC")
    },
    TypeEntry {
        targets: &[DataType::VarChar, DataType::Int64],
        text_max: Some(15),
        reason: "ISO text, as PostgreSQL prints it",
        limits: "as INT64 microseconds since midnight",
        ..printed(&["time"], decode::print_time, "24:00:00")
    },
    TypeEntry {
        text_max: Some(24),
        reason: "ISO text, as PostgreSQL prints it",
        ..printed(&["timetz"], decode::print_timetz, "12:00:00.5+05:30")
    },
    TypeEntry {
        targets: &[DataType::VarChar, DataType::Int64],
        text_max: Some(29),
        reason: "ISO text, as PostgreSQL prints it",
        limits: "as INT64 microseconds since 1970-01-01 00:00; infinity does not fit there",
        ..printed(&["timestamp"], decode::print_timestamp, "2000-01-01 00:00:00.000001")
    },
    TypeEntry {
        targets: &[DataType::VarChar, DataType::Int64, DataType::Timestamptz],
        text_max: Some(32),
        reason: "ISO text in UTC, as PostgreSQL prints it",
        limits: "as INT64 microseconds since 1970-01-01 00:00 UTC; infinity does not fit there, nor TIMESTAMPTZ, which has the years 1 to 9999",
        ..printed(&["timestamptz"], decode::print_timestamptz, "2000-01-01 00:00:00.5+00")
    },
    TypeEntry {
        limits: "in IntervalStyle postgres",
        ..printed(&["interval"], decode::print_interval, "-1 years -2 mons +3 days -04:05:06.7")
    },
    TypeEntry { text_max: Some(49), ..printed(&["inet"], decode::print_inet, "192.168.0.1/24") },
    TypeEntry { text_max: Some(49), ..printed(&["cidr"], decode::print_inet, "2001:db8::/32") },
    TypeEntry { text_max: Some(17), ..printed(&["macaddr"], decode::print_macaddr, "08:00:2b:01:02:03") },
    TypeEntry { text_max: Some(23), ..printed(&["macaddr8"], decode::print_macaddr8, "08:00:2b:01:02:03:04:05") },
    TypeEntry {
        text_max: Some(27),
        reason: "as PostgreSQL prints it with lc_monetary C",
        ..printed(&["money"], decode::print_money, "-$1,234.56")
    },
    printed(&["varbit"], decode::print_bits, "101"),
    TypeEntry {
        extension: Some("hstore"),
        targets: &[DataType::Json, DataType::VarChar],
        key: DOCUMENT_KEY,
        reason: "an object of its pairs, each value a string or null",
        limits: "as JSON more than 65,536 bytes do not fit",
        ..printed(&["hstore"], decode::print_hstore, "\"a\"=>\"1\", \"b\"=>NULL")
    },
    TypeEntry {
        names: &["oid", "xid", "cid"],
        read: Read::Int(decode::uint4),
        targets: &[DataType::Int64, DataType::VarChar],
        key: KeyUse::Int,
        reason: "the same number",
        example: "4294967295",
        ..TEXT
    },
    TypeEntry { text_max: Some(20), ..printed(&["xid8"], decode::print_xid8, "18446744073709551615") },
    TypeEntry { text_max: Some(17), ..printed(&["pg_lsn"], decode::print_lsn, "16/B374D848") },
    TypeEntry { text_max: Some(18), ..printed(&["tid"], decode::print_tid, "(0,1)") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["pg_snapshot", "txid_snapshot"], decode::print_snapshot, "10:20:10,14") },
    printed(&["tsvector"], decode::print_tsvector, "'a':1A 'cat':5"),
    TypeEntry { key: SHAPE_KEY, ..printed(&["point"], decode::print_point, "(1,-2.5)") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["line"], decode::print_line, "{1,-1,0}") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["lseg"], decode::print_lseg, "[(0,0),(1,1)]") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["box"], decode::print_box, "(1,1),(0,0)") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["path"], decode::print_path, "[(0,0),(1,1)]") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["polygon"], decode::print_polygon, "((0,0),(1,1),(1,0))") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["circle"], decode::print_circle, "<(0,0),1>") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["int2vector"], decode::print_int2vector, "1 2 3") },
    TypeEntry { key: SHAPE_KEY, ..printed(&["oidvector"], decode::print_oidvector, "1 2 3") },
    TypeEntry {
        names: &["ltree"],
        extension: Some("ltree"),
        read: Read::Versioned,
        reason: PRINTED,
        example: "Top.Science",
        ..TEXT
    },
];

pub(super) static VECTOR: TypeEntry = TypeEntry {
    names: &["vector"],
    extension: Some("vector"),
    read: Read::Vector,
    targets: &[DataType::FloatVector, DataType::VarChar],
    key: VECTOR_KEY,
    reason: "the same floats",
    limits: "2 to 32,768 dimensions; NaN and infinity do not fit",
    example: "[1,2.5,-3e-05]",
    ..TEXT
};

pub(super) static HALFVEC: TypeEntry = TypeEntry {
    names: &["halfvec"],
    extension: Some("vector"),
    read: Read::HalfVec,
    targets: &[DataType::Float16Vector, DataType::FloatVector, DataType::VarChar],
    key: VECTOR_KEY,
    reason: "the same bits",
    limits: "FLOAT_VECTOR where the server has no FLOAT16_VECTOR; NaN and infinity do not fit",
    example: "[1,2.5,-3.0040741e-05]",
    ..TEXT
};

pub(super) static SPARSEVEC: TypeEntry = TypeEntry {
    names: &["sparsevec"],
    extension: Some("vector"),
    read: Read::SparseVec,
    targets: &[DataType::SparseFloatVector, DataType::VarChar],
    key: VECTOR_KEY,
    reason: "the same values, indexes counted from 0",
    limits: "negative values do not fit, nor do NaN and infinity",
    example: "{1:0.5,3:2}/5",
    ..TEXT
};

pub(super) static BIT: TypeEntry = TypeEntry {
    targets: &[DataType::VarChar, DataType::BinaryVector],
    reason: "as PostgreSQL prints it; `type = \"BINARY_VECTOR\"` makes a vector of it",
    limits: "a BINARY_VECTOR has a multiple of 8 dimensions",
    ..printed(&["bit"], decode::print_bits, "10101010")
};

pub(super) static ENUM: TypeEntry = TypeEntry { names: &["(enum)"], reason: "its label", example: "happy", ..TEXT };

pub(super) static ARRAY: TypeEntry = TypeEntry {
    names: &["(array)"],
    read: Read::Array,
    targets: &[DataType::Array, DataType::Json, DataType::VarChar],
    key: KeyUse::Never("an array cannot be a key in Milvus"),
    reason: "its elements in order",
    limits: "at most 4,096 elements; NULL elements and further dimensions do not fit an ARRAY, but do fit JSON; \
             of documents and vectors it becomes JSON",
    example: "{1,2,3}",
    ..TEXT
};

pub(super) static RECORD: TypeEntry =
    TypeEntry { names: &["(composite)"], read: Read::Nested, reason: PRINTED, example: "(1,\"a b\",)", ..TEXT };

pub(super) static RANGE: TypeEntry =
    TypeEntry { names: &["(range)"], read: Read::Nested, reason: PRINTED, example: "[1,5)", ..TEXT };

pub(super) static MULTIRANGE: TypeEntry =
    TypeEntry { names: &["(multirange)"], read: Read::Nested, reason: PRINTED, example: "{[1,5),[7,9)}", ..TEXT };

pub(super) static OPAQUE: TypeEntry = TypeEntry {
    names: &["(any other)"],
    reason: "printed by PostgreSQL itself",
    limits: "where the type has a send function, the whole stream is asked for as text",
    ..TEXT
};
