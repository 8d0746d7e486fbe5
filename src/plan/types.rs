//! The one table of types.

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
    Text,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Json,
    Jsonb,
    Vector { dim: u32 },
    Array(Box<SourceType>),
}
