//! Ours to the wire: schemas, indexes and columns as messages.
//!
//! Holds: the bytes of packed columns are moved, never copied or converted; what goes in has passed `columns::check`.
//!
//! Not here: the checks (`columns`), the messages (`wire`).

use bytes::Bytes;
use prost::Message;

use super::wire;
use crate::milvus::{
    CollectionSchema, ColumnData, ConsistencyLevel, DYNAMIC_FIELD, DataType, FieldColumn, FieldSchema, IndexSpec,
};

pub fn create_collection(db_name: &str, schema: &CollectionSchema) -> wire::CreateCollectionRequest {
    let message = wire::CollectionSchema {
        name: schema.name.clone(),
        description: schema.description.clone(),
        auto_id: schema.fields.iter().any(|field| field.is_primary && field.auto_id),
        fields: schema.fields.iter().map(field_schema).collect(),
        enable_dynamic_field: schema.enable_dynamic_field,
    };
    wire::CreateCollectionRequest {
        db_name: db_name.to_owned(),
        collection_name: schema.name.clone(),
        schema: Bytes::from(message.encode_to_vec()),
        shards_num: schema.num_shards.and_then(|shards| i32::try_from(shards).ok()).unwrap_or(0),
        // Milvus's own default for a new collection: users' searches do not wait for the last write. Our reads ask for Strong.
        consistency_level: schema.consistency_level.unwrap_or(ConsistencyLevel::Bounded) as i32,
        properties: schema.properties.iter().map(|(key, value)| key_value(key, value.clone())).collect(),
        num_partitions: schema.num_partitions.map_or(0, i64::from),
    }
}

pub fn add_field(db_name: &str, collection: &str, field: &FieldSchema) -> wire::AddCollectionFieldRequest {
    wire::AddCollectionFieldRequest {
        db_name: db_name.to_owned(),
        collection_name: collection.to_owned(),
        schema: Bytes::from(field_schema(field).encode_to_vec()),
    }
}

fn field_schema(field: &FieldSchema) -> wire::FieldSchema {
    let params = [("dim", field.dim), ("max_length", field.max_length), ("max_capacity", field.max_capacity)];
    let params = params.into_iter().filter_map(|(key, value)| Some(key_value(key, value?.to_string())));
    let mmap = field.mmap.map(|mmap| key_value("mmap.enabled", mmap.to_string()));
    wire::FieldSchema {
        name: field.name.clone(),
        is_primary_key: field.is_primary,
        description: field.description.clone(),
        data_type: field.data_type as i32,
        type_params: params.chain(mmap).collect(),
        auto_id: field.auto_id,
        element_type: field.element_type.map_or(0, |element| element as i32),
        default_value: field.default_value.as_deref().map(|text| default_value(field.data_type, text)),
        is_dynamic: false,
        is_partition_key: field.is_partition_key,
        nullable: field.nullable,
    }
}

/// What does not parse is left to the server's refusal: the plan has looked at it before.
fn default_value(data_type: DataType, text: &str) -> wire::ValueField {
    let mut value = wire::ValueField::default();
    match data_type {
        DataType::Bool => value.bool_data = text.parse().ok(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => value.int_data = text.parse().ok(),
        DataType::Int64 => value.long_data = text.parse().ok(),
        DataType::Float => value.float_data = text.parse().ok(),
        DataType::Double => value.double_data = text.parse().ok(),
        _ => value.string_data = Some(text.to_owned()),
    }
    value
}

pub fn create_index(db_name: &str, collection: &str, index: &IndexSpec) -> wire::CreateIndexRequest {
    let mut extra_params = vec![key_value("index_type", index.index_type.clone())];
    if !index.metric_type.is_empty() {
        extra_params.push(key_value("metric_type", index.metric_type.clone()));
    }
    if !index.params.is_empty() {
        // Milvus reads the parameters of an index from one JSON object.
        let params: serde_json::Map<String, serde_json::Value> =
            index.params.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        extra_params.push(key_value("params", serde_json::Value::Object(params).to_string()));
    }
    wire::CreateIndexRequest {
        db_name: db_name.to_owned(),
        collection_name: collection.to_owned(),
        field_name: index.field.clone(),
        extra_params,
    }
}

pub fn key_value(key: &str, value: impl Into<String>) -> wire::KeyValuePair {
    wire::KeyValuePair { key: key.to_owned(), value: value.into() }
}

/// A checked column as the server takes it. A nullable field always brings its validity, any other never does: servers before
/// 2.5 do not know that part of the message and would count the values wrongly.
pub fn field_data(nullable: bool, column: FieldColumn) -> wire::FieldData {
    let rows = column.rows();
    let valid_data = match (nullable, column.valid) {
        (false, _) => Bytes::new(),
        (true, Some(valid)) => Bytes::from(valid),
        (true, None) => Bytes::from(vec![1; rows]),
    };
    let data_type = column.data.data_type() as i32;
    let vector = |dim: usize| wire::VectorField { dim: dim as i64, ..Default::default() };
    let (scalars, vectors) = match column.data {
        ColumnData::FloatVector { dim, packed } => {
            let float_vector = Some(wire::PackedArray { data: packed.into() });
            (None, Some(wire::VectorField { float_vector, ..vector(dim) }))
        }
        ColumnData::Float16Vector { dim, packed } => {
            (None, Some(wire::VectorField { float16_vector: Some(packed.into()), ..vector(dim) }))
        }
        ColumnData::BinaryVector { dim, packed } => {
            (None, Some(wire::VectorField { binary_vector: Some(packed.into()), ..vector(dim) }))
        }
        ColumnData::SparseFloatVector(contents) => {
            // As long as the longest: one more than the greatest index, which is each row's last.
            let end = |row: &Bytes| {
                row.as_chunks::<8>()
                    .0
                    .last()
                    .map_or(0, |&[a, b, c, d, ..]| i64::from(u32::from_le_bytes([a, b, c, d])) + 1)
            };
            let dim = contents.iter().map(end).max().unwrap_or(0);
            let sparse_float_vector = Some(wire::SparseFloatArray { contents, dim });
            (None, Some(wire::VectorField { dim, sparse_float_vector, ..Default::default() }))
        }
        scalars => (Some(scalar_field(scalars)), None),
    };
    let is_dynamic = &*column.name == DYNAMIC_FIELD;
    wire::FieldData { data_type, field_name: column.name.as_ref().to_owned(), scalars, vectors, is_dynamic, valid_data }
}

/// The member for the type is set even when it holds no value: a column of NULLs only must still say what it is of.
fn scalar_field(data: ColumnData) -> wire::ScalarField {
    let packed = |bytes: Vec<u8>| Some(wire::PackedArray { data: bytes.into() });
    let mut field = wire::ScalarField::default();
    match data {
        ColumnData::Bool(values) => field.bool_data = packed(values),
        ColumnData::Int8(data) | ColumnData::Int16(data) | ColumnData::Int32(data) => {
            field.int_data = Some(wire::IntArray { data });
        }
        ColumnData::Int64(data) => field.long_data = Some(wire::LongArray { data }),
        ColumnData::Float(values) => field.float_data = packed(values),
        ColumnData::Double(values) => field.double_data = packed(values),
        ColumnData::VarChar(data) | ColumnData::Timestamptz(data) => {
            field.string_data = Some(wire::BytesArray { data });
        }
        ColumnData::Json(data) => field.json_data = Some(wire::BytesArray { data }),
        ColumnData::Array { element, rows } => {
            let data = rows.into_iter().map(scalar_field).collect();
            field.array_data = Some(wire::ArrayArray { data, element_type: element as i32 });
        }
        // Vectors are no scalars; `columns::check` lets none in here.
        ColumnData::FloatVector { .. }
        | ColumnData::Float16Vector { .. }
        | ColumnData::BinaryVector { .. }
        | ColumnData::SparseFloatVector(_) => unreachable!("a vector inside a scalar field"),
    }
    field
}

impl DataType {
    /// The type of that number, if it is one we know.
    pub(crate) fn from_wire(number: i32) -> Option<DataType> {
        DataType::ALL.into_iter().find(|&data_type| data_type as i32 == number)
    }
}
