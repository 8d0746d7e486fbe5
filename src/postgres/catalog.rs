//! The catalog: what a table is, read once at start and compared again when a Relation message differs.
//!
//! In: an SQL session and the names of the configuration. Out: `Table`s with types resolved down to their base, and
//! `ServerFacts`. A table is described under one snapshot.
//!
//! Not here: the verdict on what is found (`plan` refuses tables, `check` judges facts).
//! See: PostgreSQL manual, "System Catalogs".

mod facts;
mod read;
mod sample;

pub use facts::{ServerFacts, read_facts, read_synchronous_standby_names, waits_for};
pub use read::{matches_pattern, read_flush_lsn, read_leaf_oids, read_tables};

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
    /// Unique indexes on plain columns, the primary key's among them, by name.
    pub unique_indexes: Vec<UniqueIndex>,
    /// In attribute order; dropped columns are absent.
    pub columns: Vec<Column>,
    /// Itself for an ordinary table, every leaf partition for a partitioned one.
    pub leaves: Vec<Leaf>,
    /// The partitioned tables that it is a partition of, the nearest first.
    pub ancestors: Vec<Oid>,
    /// Tables that inherit from it without being partitions, as `schema.table`.
    pub children: Vec<String>,
    pub indexes: Vec<Index>,
    /// `reltuples`, summed over the leaves; `None` before the first ANALYZE.
    pub estimated_rows: Option<u64>,
    /// `pg_table_size`, TOAST included, summed over the leaves.
    pub bytes: u64,
    /// Not of the catalog's own tables: filled in by who knows the publication.
    pub published: Published,
}

impl Table {
    pub fn is_partitioned(&self) -> bool {
        self.kind == RelationKind::PartitionedTable
    }

    /// `schema.table`, for people.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// What the publication sends of a table, or will send once it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// It is in the publication already.
    pub exists: bool,
    /// Only rows for which this SQL condition over the table's columns is true.
    pub row_filter: Option<String>,
    /// Only these columns.
    pub columns: Option<Vec<String>>,
    /// Stored generated columns are sent like others (PostgreSQL 18 and newer).
    pub generated: bool,
    /// What keeps us from following it: a reason, and what mends it.
    pub unfit: Vec<(String, String)>,
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

/// A valid unique index on columns, not on expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueIndex {
    pub name: String,
    /// In index order.
    pub columns: Vec<String>,
    /// Checked at the end of a statement or transaction: two rows may share a key until then.
    pub deferrable: bool,
    /// Only over the rows of its WHERE.
    pub partial: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub replica_identity: ReplicaIdentity,
    pub is_foreign: bool,
    pub unlogged: bool,
    /// Row security applies where the leaf is read by its own name, as the copy reads it.
    pub row_security_applies: bool,
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
    pub generated: Generated,
    /// Rows that were there before the column may have another value than NULL in it without an UPDATE.
    pub has_default: bool,
    /// Bytes of a value as ANALYZE saw it in the row, out of line only as a pointer; `None` before the first ANALYZE.
    pub average_width: Option<u32>,
    /// Dimensions of one stored value, for a vector type that declares none; `None` when there is no value or a declaration.
    pub sampled_dimension: Option<u32>,
}

/// `GENERATED ALWAYS AS (…)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    No,
    /// In the stream from PostgreSQL 18 on, when the publication says so.
    Stored,
    /// Computed when it is read: never in the stream.
    Virtual,
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
    /// It has a send function, so a binary stream carries its binary form; else the stream falls back to text for it.
    pub sends: bool,
    /// What stands between its values in an array's text: `,`, but `;` for box.
    pub delimiter: u8,
    pub kind: TypeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeKind {
    Base,
    Enum,
    /// The types of its attributes, in order; dropped ones are absent.
    Composite(Vec<PgType>),
    /// The type of its bounds.
    Range(Box<PgType>),
    /// The range type that it holds several of.
    Multirange(Box<PgType>),
    Array(Box<PgType>),
    /// Its base type, with the domain's own modifier.
    Domain(Box<PgType>),
}

/// A valid index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    /// `btree`, `hnsw`, `ivfflat` …
    pub method: String,
    /// The only column, itself or within an expression such as a cast to `halfvec(3)`; `None` for several.
    pub column: Option<String>,
    /// The expression, as PostgreSQL prints it.
    pub expression: Option<String>,
    /// Only over some of the rows.
    pub partial: bool,
    /// Operator class of the first column: `vector_cosine_ops` …
    pub operator_class: String,
    /// `WITH (m = 16, …)`.
    pub options: Vec<(String, String)>,
}
