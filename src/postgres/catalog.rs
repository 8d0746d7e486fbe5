//! The catalog: what a table is, read once at start and compared again when a Relation message differs.
//!
//! In: an SQL session and the names of the configuration. Out: `Table`s with types resolved down to their base, and
//! `ServerFacts`. A table is described under one snapshot.
//!
//! Not here: the verdict on what is found (`plan` refuses tables, `check` judges facts).
//! See: PostgreSQL manual, "System Catalogs".

mod facts;
mod read;

pub use facts::{ServerFacts, read_facts, read_synchronous_standby_names, waits_for};
pub use read::{matches_pattern, read_tables};

use crate::change::Oid;

/// A table as `pg_catalog` describes it. A partitioned table is one `Table` with its leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub unlogged_or_temporary: bool,
    /// Row security is enabled and applies to the role that we connected as.
    pub row_security_applies: bool,
    /// The role may SELECT every column.
    pub can_select: bool,
    pub replica_identity: ReplicaIdentity,
    pub primary_key: Option<PrimaryKey>,
    /// In attribute order; dropped columns are absent.
    pub columns: Vec<Column>,
    /// Itself for an ordinary table, every leaf partition for a partitioned one.
    pub leaves: Vec<Leaf>,
    pub indexes: Vec<Index>,
    /// `reltuples`, summed over the leaves; `None` before the first ANALYZE.
    pub estimated_rows: Option<u64>,
    /// `pg_table_size`, TOAST included, summed over the leaves.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    /// View, materialized view, foreign table, sequence …: by its `relkind`.
    Other(char),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key; nothing when there is none.
    Default,
    Nothing,
    Full,
    /// `USING INDEX`: these columns.
    Index(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryKey {
    pub index_name: String,
    /// In index order.
    pub columns: Vec<String>,
    /// Not usable as replica identity: PostgreSQL refuses UPDATE and DELETE of a published table.
    pub deferrable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub replica_identity: ReplicaIdentity,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub type_oid: Oid,
    pub typmod: i32,
    /// `format_type()`: what a person would write.
    pub type_name: String,
    /// With domains resolved.
    pub data_type: PgType,
    pub not_null: bool,
    /// `GENERATED ALWAYS AS (…)`, stored or virtual: not in the stream before PostgreSQL 18.
    pub generated: bool,
}

/// A type, resolved as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgType {
    pub oid: Oid,
    pub name: String,
    pub schema: String,
    /// The extension that owns the type (`vector`).
    pub extension: Option<String>,
    /// Type modifier in force: the column's, or the domain's.
    pub typmod: i32,
    pub kind: TypeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeKind {
    Base,
    Enum,
    Composite,
    Range,
    Array(Box<PgType>),
    /// Its base type, with the domain's own modifier.
    Domain(Box<PgType>),
}

/// An index on one column or on an expression over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    /// `btree`, `hnsw`, `ivfflat` …
    pub method: String,
    /// The only column; `None` for several columns or an expression.
    pub column: Option<String>,
    /// Operator class of the first column: `vector_cosine_ops` …
    pub operator_class: String,
    /// `WITH (m = 16, …)`.
    pub options: Vec<(String, String)>,
}
