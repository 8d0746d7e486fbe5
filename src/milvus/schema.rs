//! Collections as Milvus describes them.

use std::borrow::Cow;
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
    Timestamptz = 26,
    BinaryVector = 100,
    FloatVector = 101,
    Float16Vector = 102,
    BFloat16Vector = 103,
    SparseFloatVector = 104,
}

impl DataType {
    pub const ALL: [DataType; 16] = [
        DataType::Bool,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float,
        DataType::Double,
        DataType::VarChar,
        DataType::Array,
        DataType::Json,
        DataType::Timestamptz,
        DataType::BinaryVector,
        DataType::FloatVector,
        DataType::Float16Vector,
        DataType::BFloat16Vector,
        DataType::SparseFloatVector,
    ];

    /// The type that Milvus spells so.
    pub fn named(name: &str) -> Option<DataType> {
        DataType::ALL.into_iter().find(|data_type| data_type.name() == name)
    }

    /// One that a vector index may be on.
    pub fn is_vector(self) -> bool {
        self as i32 >= DataType::BinaryVector as i32
    }

    /// Milvus's own spelling (`VARCHAR`, `FLOAT_VECTOR`).
    pub fn name(self) -> &'static str {
        match self {
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
            DataType::Timestamptz => "TIMESTAMPTZ",
            DataType::BinaryVector => "BINARY_VECTOR",
            DataType::FloatVector => "FLOAT_VECTOR",
            DataType::Float16Vector => "FLOAT16_VECTOR",
            DataType::BFloat16Vector => "BFLOAT16_VECTOR",
            DataType::SparseFloatVector => "SPARSE_FLOAT_VECTOR",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
    /// What the server puts where a value is left out: `true`, `7`, `0.5` or a text.
    pub default_value: Option<String>,
    /// Entities are spread over partitions by this field.
    pub is_partition_key: bool,
    /// The field's data is mapped from disk; `None`: the server's default.
    pub mmap: Option<bool>,
}

impl FieldSchema {
    /// The hidden field behind `enable_dynamic_field`: one JSON object an entity, of what the schema does not declare.
    pub fn dynamic() -> FieldSchema {
        FieldSchema {
            name: DYNAMIC_FIELD.to_owned(),
            data_type: DataType::Json,
            is_primary: false,
            auto_id: false,
            nullable: false,
            element_type: None,
            max_length: None,
            max_capacity: None,
            dim: None,
            description: String::new(),
            default_value: None,
            is_partition_key: false,
            mmap: None,
        }
    }
}

/// Milvus's name of the dynamic field.
pub const DYNAMIC_FIELD: &str = "$meta";

/// What a read that asks for nothing else sees; the numbers are those of the wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ConsistencyLevel {
    Strong = 0,
    Session = 1,
    Bounded = 2,
    Eventually = 3,
}

impl ConsistencyLevel {
    pub const ALL: [ConsistencyLevel; 4] =
        [ConsistencyLevel::Strong, ConsistencyLevel::Session, ConsistencyLevel::Bounded, ConsistencyLevel::Eventually];

    /// Milvus's own spelling.
    pub fn name(self) -> &'static str {
        match self {
            ConsistencyLevel::Strong => "Strong",
            ConsistencyLevel::Session => "Session",
            ConsistencyLevel::Bounded => "Bounded",
            ConsistencyLevel::Eventually => "Eventually",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionSchema {
    pub name: String,
    pub description: String,
    pub fields: Vec<FieldSchema>,
    pub enable_dynamic_field: bool,
    /// `None`: the server's default.
    pub num_shards: Option<u32>,
    /// `None`: Bounded, Milvus's own default.
    pub consistency_level: Option<ConsistencyLevel>,
    /// Partitions behind a partition key; `None`: the server's default.
    pub num_partitions: Option<u32>,
    /// `mmap.enabled`, `partitionkey.isolation` …
    pub properties: BTreeMap<String, String>,
}

impl CollectionSchema {
    /// The field of this name, the dynamic one among them.
    pub(crate) fn field(&self, name: &str) -> Option<Cow<'_, FieldSchema>> {
        match self.fields.iter().find(|field| field.name == name) {
            Some(field) => Some(Cow::Borrowed(field)),
            None => (self.enable_dynamic_field && name == DYNAMIC_FIELD).then(|| Cow::Owned(FieldSchema::dynamic())),
        }
    }
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

/// How far the server has built an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexProgress {
    pub field: String,
    pub state: IndexState,
    /// Rows that are in the index, of those that are to be.
    pub indexed_rows: u64,
    pub total_rows: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// Waiting or being built.
    InProgress,
    Finished,
    /// The server's reason.
    Failed(String),
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

    /// Major, minor and patch as far as the version tells them; `None` when it tells none.
    fn number(&self) -> Option<(u32, u32, u32)> {
        let number =
            self.version.strip_prefix("milvus_lite-").or(self.version.strip_prefix('v')).unwrap_or(&self.version);
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
        let major = parts.next()??;
        Some((major, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
    }

    /// Is it a Milvus of this version or a newer one? One that does not tell is taken for the newest; Milvus Lite is none.
    fn is_at_least(&self, version: (u32, u32, u32)) -> bool {
        !self.is_lite() && self.number().is_none_or(|number| number >= version)
    }

    /// It was found by the routes that it has, not told: what came in a later patch may be there or not.
    fn is_vague(&self) -> bool {
        self.version.contains("or newer")
    }

    /// May a field be nullable? From Milvus 2.5 and on Milvus Lite 3; older servers drop the flag without a word.
    pub fn has_nullable(&self) -> bool {
        if self.is_lite() {
            self.number().is_some_and(|number| number >= (3, 0, 0))
        } else {
            self.is_at_least((2, 5, 0))
        }
    }

    /// May a vector field be nullable? From Milvus 2.6.18 on (milvus-io/milvus, pull request 49520). Milvus Lite takes the flag
    /// and reads such a NULL as a vector of zeros.
    pub fn has_nullable_vectors(&self) -> bool {
        self.is_at_least((2, 6, 18))
    }

    /// Does it have fields of this type? Lite 3.2.2 refuses those that it lacks, Milvus 2.3 does so or stops.
    pub fn has_type(&self, data_type: DataType) -> bool {
        match data_type {
            DataType::Float16Vector | DataType::BFloat16Vector => self.is_at_least((2, 4, 0)),
            DataType::BinaryVector => !self.is_lite(),
            DataType::SparseFloatVector => self.is_lite() || self.is_at_least((2, 4, 0)),
            // 2.6.6 by gRPC; REST v2 learned it with 2.6.8, and is known by its routes only.
            DataType::Timestamptz => {
                self.is_lite() || self.is_at_least((2, 6, 6)) || self.is_vague() && self.is_at_least((2, 6, 0))
            }
            _ => true,
        }
    }

    /// Vector fields of a collection: `proxy.maxVectorFieldNum`. "multiple vector fields is not supported", says 2.3.
    pub fn vector_fields_max(&self) -> usize {
        if self.is_lite() || self.is_at_least((2, 6, 18)) {
            10
        } else if self.is_at_least((2, 4, 0)) {
            4
        } else {
            1
        }
    }

    /// Does it keep default values? They came with nullable fields.
    pub fn has_default_values(&self) -> bool {
        self.has_nullable()
    }

    /// Can a collection have a partition key? Milvus 2.3 has it, but an upsert puts entities into wrong partitions there: a
    /// filter on the key found two of ten.
    pub fn has_partition_key(&self) -> bool {
        self.is_lite() || self.is_at_least((2, 4, 0))
    }

    /// Can a field be added to a collection that exists?
    pub fn has_add_field(&self) -> bool {
        self.is_at_least((2, 6, 0))
    }

    /// Does it have INVERTED indexes on scalars? Milvus 2.3 has Trie and STL_SORT, which AUTOINDEX does not choose.
    pub fn has_inverted_index(&self) -> bool {
        self.is_lite() || self.is_at_least((2, 4, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_say_what_a_server_can() {
        let of = |version: &str| {
            let info = ServerInfo { version: version.into() };
            (
                info.has_nullable(),
                info.has_nullable_vectors(),
                info.has_type(DataType::Float16Vector),
                info.has_type(DataType::SparseFloatVector),
                info.has_type(DataType::BinaryVector),
                info.has_type(DataType::Timestamptz),
                info.vector_fields_max(),
                info.has_add_field(),
            )
        };
        assert_eq!(of("v2.3.22"), (false, false, false, false, true, false, 1, false));
        assert_eq!(of("2.3.5"), of("v2.3.22"));
        assert_eq!(of("v2.4.23"), (false, false, true, true, true, false, 4, false));
        assert_eq!(of("v2.5.24"), (true, false, true, true, true, false, 4, false));
        assert_eq!(of("v2.6.4"), (true, false, true, true, true, false, 4, true));
        assert_eq!(of("v2.6.20"), (true, true, true, true, true, true, 10, true));
        assert_eq!(of("v3.0.0-beta"), of("v2.6.20"));
        assert_eq!(of(""), of("v2.6.20"));
        assert_eq!(of("v2.6 or newer, by its REST routes"), (true, false, true, true, true, true, 4, true));
        assert!(!of("v2.5.0 or newer, by its REST routes").5);
        assert_eq!(of("milvus_lite-3.2.2"), (true, false, false, true, false, true, 10, false));
        assert_eq!(of("milvus_lite-2.5.1"), (false, false, false, true, false, true, 10, false));
    }

    #[test]
    fn every_type_has_one_name() {
        for data_type in DataType::ALL {
            assert_eq!(DataType::named(data_type.name()), Some(data_type));
        }
        assert_eq!(DataType::named("varchar"), None);
    }
}
