//! Collections as Milvus describes them.

use std::collections::BTreeMap;
use std::fmt;

/// Milvus's `DataType`; the numbers are those of its wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum DataType {
    Bool = 1,
    Int8 = 2,
    Int16 = 3,
    Int32 = 4,
    Int64 = 5,
    Float = 10,
    Double = 11,
    VarChar = 21,
    Array = 22,
    Json = 23,
    BinaryVector = 100,
    FloatVector = 101,
    Float16Vector = 102,
    BFloat16Vector = 103,
    SparseFloatVector = 104,
}

/// Milvus's own spelling (`VARCHAR`, `FLOAT_VECTOR`).
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataType::Bool => "BOOL",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Float => "FLOAT",
            DataType::Double => "DOUBLE",
            DataType::VarChar => "VARCHAR",
            DataType::Array => "ARRAY",
            DataType::Json => "JSON",
            DataType::BinaryVector => "BINARY_VECTOR",
            DataType::FloatVector => "FLOAT_VECTOR",
            DataType::Float16Vector => "FLOAT16_VECTOR",
            DataType::BFloat16Vector => "BFLOAT16_VECTOR",
            DataType::SparseFloatVector => "SPARSE_FLOAT_VECTOR",
        })
    }
}

/// One field. Lengths are bytes, capacities elements, dimensions floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSchema {
    pub name: String,
    pub data_type: DataType,
    pub is_primary: bool,
    pub auto_id: bool,
    pub nullable: bool,
    /// Of an ARRAY.
    pub element_type: Option<DataType>,
    /// Of a VARCHAR, or of the VARCHAR elements of an ARRAY.
    pub max_length: Option<u32>,
    /// Of an ARRAY.
    pub max_capacity: Option<u32>,
    /// Of a dense vector.
    pub dim: Option<u32>,
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionSchema {
    pub name: String,
    pub description: String,
    pub fields: Vec<FieldSchema>,
    pub enable_dynamic_field: bool,
    /// `None`: the server's default.
    pub num_shards: Option<u32>,
}

/// An index that is, or is to be, on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSpec {
    pub field: String,
    /// `AUTOINDEX`, `HNSW`, `IVF_FLAT` …
    pub index_type: String,
    /// `COSINE`, `L2`, `IP`.
    pub metric_type: String,
    /// `M`, `efConstruction`, `nlist` …
    pub params: BTreeMap<String, String>,
}

impl IndexSpec {
    /// Of the same field, type and metric? Parameters are the builder's affair: servers fill in their own.
    pub(crate) fn is_like(&self, other: &IndexSpec) -> bool {
        self.field == other.field && self.index_type == other.index_type && self.metric_type == other.metric_type
    }
}

/// What `server_info` learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// As the server says it: `v2.6.4`, `milvus_lite-3.2.2`; empty when it does not say.
    pub version: String,
}

impl ServerInfo {
    /// Milvus Lite: merges upserts and speaks the legacy error numbers.
    pub fn is_lite(&self) -> bool {
        self.version.starts_with("milvus_lite")
    }

    /// May a field be nullable? From Milvus 2.5 and on Milvus Lite 3; older servers drop the flag without a word.
    pub fn has_nullable(&self) -> bool {
        let number =
            self.version.strip_prefix("milvus_lite-").or(self.version.strip_prefix('v')).unwrap_or(&self.version);
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).filter_map(|s| s.parse::<u32>().ok());
        match (parts.next(), parts.next()) {
            (Some(major), _) if self.is_lite() => major >= 3,
            (Some(major), Some(minor)) => (major, minor) >= (2, 5),
            _ => true,
        }
    }
}
