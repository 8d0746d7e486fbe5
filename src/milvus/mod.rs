//! Milvus as a target: what a client of it must be able to do, whatever the transport.
//!
//! In: collections to describe or create, columns of entities to upsert, keys to delete. Out: `MilvusError`s that
//! say what may be done next and whether the outcome is known. Knows nothing of PostgreSQL.
//!
//! Holds: every mutation carries a deadline to the server and the client waits as long, so an error whose outcome is
//! unknown says "may land until deadline + margin, counted from sending". An upsert always brings every field of the schema:
//! Milvus replaces the entity, Milvus Lite merges into it.
//!
//! Not here: retries, rates, bisection (the pipeline's); which rows to send and in what order (the engine's).

mod columns;
mod connect;
pub mod error;
pub mod filter;
pub mod grpc;
mod page;
pub mod rest;
pub mod schema;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use connect::{MilvusOptions, Token};
pub use error::{Class, Condition, MilvusError};
pub use grpc::GrpcClient;
pub use rest::RestClient;
pub use schema::{
    CollectionSchema, ConsistencyLevel, DYNAMIC_FIELD, DataType, FieldSchema, IndexProgress, IndexSpec, IndexState,
    ServerInfo,
};

/// One field of a batch of entities, column-wise as Milvus takes it.
///
/// With `valid`, `data` holds the valid entities' values only, in order, and `valid` has one byte (0 or 1) an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldColumn {
    pub name: Arc<str>,
    pub valid: Option<Vec<u8>>,
    pub data: ColumnData,
}

/// Values of one type. Packed bytes are little-endian, ready for the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnData {
    /// One byte a value, 0 or 1.
    Bool(Vec<u8>),
    Int8(Vec<i32>),
    Int16(Vec<i32>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    /// `f32` little-endian, 4 bytes a value.
    Float(Vec<u8>),
    /// `f64` little-endian, 8 bytes a value.
    Double(Vec<u8>),
    /// UTF-8.
    VarChar(Vec<Bytes>),
    /// A JSON document a value.
    Json(Vec<Bytes>),
    /// One column per entity; `element` is the type of all.
    Array {
        element: DataType,
        rows: Vec<ColumnData>,
    },
    /// A moment each, as RFC 3339 text.
    Timestamptz(Vec<Bytes>),
    /// `dim` × `f32` little-endian an entity.
    FloatVector {
        dim: usize,
        packed: Vec<u8>,
    },
    /// `dim` × binary16 little-endian an entity.
    Float16Vector {
        dim: usize,
        packed: Vec<u8>,
    },
    /// `dim` bits an entity, the first in the highest bit of the first byte.
    BinaryVector {
        dim: usize,
        packed: Vec<u8>,
    },
    /// An entity's elements, each a `u32` index and an `f32`, little-endian, by ascending index.
    SparseFloatVector(Vec<Bytes>),
}

impl ColumnData {
    /// How many values (entities) it holds.
    pub fn len(&self) -> usize {
        match self {
            ColumnData::Bool(v) => v.len(),
            ColumnData::Int8(v) | ColumnData::Int16(v) | ColumnData::Int32(v) => v.len(),
            ColumnData::Int64(v) => v.len(),
            ColumnData::Float(v) => v.len() / 4,
            ColumnData::Double(v) => v.len() / 8,
            ColumnData::VarChar(v)
            | ColumnData::Json(v)
            | ColumnData::Timestamptz(v)
            | ColumnData::SparseFloatVector(v) => v.len(),
            ColumnData::Array { rows, .. } => rows.len(),
            ColumnData::FloatVector { dim, packed } => packed.len() / (dim * 4).max(1),
            ColumnData::Float16Vector { dim, packed } => packed.len() / (dim * 2).max(1),
            ColumnData::BinaryVector { dim, packed } => packed.len() / (dim / 8).max(1),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Primary keys of one collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Keys {
    Int64(Vec<i64>),
    VarChar(Vec<Arc<str>>),
}

impl Keys {
    pub fn len(&self) -> usize {
        match self {
            Keys::Int64(keys) => keys.len(),
            Keys::VarChar(keys) => keys.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a query asks for. Reads are always at consistency level Strong: they see every acknowledged write.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    pub collection: &'a str,
    pub selection: Selection<'a>,
    pub output_fields: &'a [Arc<str>],
}

#[derive(Clone, Debug)]
pub enum Selection<'a> {
    /// These keys, in any order; absent ones are simply not in the answer.
    Keys(&'a Keys),
    /// Entities whose key is greater than `after` (from the first if `None`), the `limit` smallest, sorted by key.
    /// Text keys compare bytewise. Servers disagree on limits: at most 16,384.
    After { after: Option<&'a Key>, limit: usize },
}

/// One primary key, for paging.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Int64(i64),
    VarChar(Arc<str>),
}

/// The client of one Milvus, over one transport. Cheap to share; every call may run beside others.
pub trait Milvus: Send + Sync + 'static {
    /// Reach the server, authenticate, learn its version. The first thing to call.
    fn server_info(&self) -> BoxFuture<'_, Result<ServerInfo, MilvusError>>;

    /// `None` when there is no such collection (or alias).
    fn describe_collection<'a>(&'a self, name: &'a str)
    -> BoxFuture<'a, Result<Option<CollectionSchema>, MilvusError>>;

    /// Create the collection. An existing one of that name is an error, whatever its fields.
    fn create_collection<'a>(&'a self, schema: &'a CollectionSchema) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Drop it with all its entities; an absent one is no error.
    fn drop_collection<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Add a field, which must be nullable. `Unsupported` before Milvus 2.6 and on Milvus Lite.
    fn add_field<'a>(&'a self, collection: &'a str, field: &'a FieldSchema) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Remove every entity, and keep schema, indexes and load. `Unsupported` before Milvus 2.6.11.
    fn truncate_collection<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// The collection that the alias stands for; `None` when there is no such alias.
    fn describe_alias<'a>(&'a self, alias: &'a str) -> BoxFuture<'a, Result<Option<String>, MilvusError>>;

    /// An alias of that name must not exist, nor a collection.
    fn create_alias<'a>(&'a self, alias: &'a str, collection: &'a str) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Let an alias that exists stand for another collection, at once for all readers.
    fn alter_alias<'a>(&'a self, alias: &'a str, collection: &'a str) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Drop the alias; an absent one is no error.
    fn drop_alias<'a>(&'a self, alias: &'a str) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Indexes of the collection, by field.
    fn describe_indexes<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<Vec<IndexSpec>, MilvusError>>;

    /// How far each of them is built: rows go on coming, so a finished one may be at work again.
    fn index_progress<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<Vec<IndexProgress>, MilvusError>>;

    fn create_index<'a>(&'a self, collection: &'a str, index: &'a IndexSpec) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Ask for the collection to be loaded and wait until it is, at most `timeout`.
    fn load_collection<'a>(&'a self, name: &'a str, timeout: Duration) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Write these entities whole, replacing those with the same key. `columns` has every field of the schema and
    /// as many values in each as there are keys; keys are distinct. Acknowledged means durable at the server.
    fn upsert<'a>(
        &'a self,
        collection: &'a str,
        columns: Vec<FieldColumn>,
        rows: usize,
    ) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Delete by key; absent keys are no error.
    fn delete<'a>(
        &'a self,
        collection: &'a str,
        primary_field: &'a str,
        keys: &'a Keys,
    ) -> BoxFuture<'a, Result<(), MilvusError>>;

    /// Entities as columns in the order of `output_fields`. The primary field must be among them.
    fn query<'a>(&'a self, query: Query<'a>) -> BoxFuture<'a, Result<Vec<FieldColumn>, MilvusError>>;

    /// `count(*)`, Strong.
    fn count<'a>(&'a self, collection: &'a str) -> BoxFuture<'a, Result<u64, MilvusError>>;
}
