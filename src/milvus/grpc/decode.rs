//! The wire to ours: descriptions and columns out of answers.
//!
//! Holds: whatever a server sends becomes a value or an error that names the field; nothing here panics on it.
//!
//! In an answer, Milvus gives a column with NULLs either full length, a filler under each NULL, or only the values
//! that are there; both become the one form of `FieldColumn`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::wire;
use crate::milvus::error::{Condition, MilvusError};
use crate::milvus::{
    CollectionSchema, ColumnData, ConsistencyLevel, DataType, FieldColumn, FieldSchema, IndexProgress, IndexSpec,
    IndexState,
};

/// A collection as `DescribeCollection` gives it. The hidden field `$meta` becomes `enable_dynamic_field`.
pub fn collection_schema(
    name: &str,
    response: wire::DescribeCollectionResponse,
) -> Result<CollectionSchema, MilvusError> {
    let schema = response.schema.ok_or_else(|| invalid("DescribeCollection", "the answer has no schema"))?;
    let mut enable_dynamic_field = schema.enable_dynamic_field;
    let mut fields = Vec::with_capacity(schema.fields.len());
    for field in schema.fields {
        if field.is_dynamic {
            enable_dynamic_field = true;
        } else {
            fields.push(field_schema(schema.auto_id, field)?);
        }
    }
    Ok(CollectionSchema {
        name: if schema.name.is_empty() { name.to_owned() } else { schema.name },
        description: schema.description,
        fields,
        enable_dynamic_field,
        num_shards: u32::try_from(response.shards_num).ok().filter(|&shards| shards > 0),
        consistency_level: ConsistencyLevel::ALL.into_iter().find(|&level| level as i32 == response.consistency_level),
        num_partitions: u32::try_from(response.num_partitions).ok().filter(|&partitions| partitions > 0),
        properties: response.properties.into_iter().map(|pair| (pair.key, pair.value)).collect(),
    })
}

fn field_schema(auto_id: bool, field: wire::FieldSchema) -> Result<FieldSchema, MilvusError> {
    let known = |number: i32, what: &str| {
        DataType::from_wire(number).ok_or_else(|| {
            let reason = format!("field {:?} is of a type that walvec does not know: {what} {number}", field.name);
            MilvusError::new(Condition::Unsupported, "DescribeCollection", reason)
        })
    };
    let data_type = known(field.data_type, "DataType")?;
    let element_type =
        if data_type == DataType::Array { Some(known(field.element_type, "element DataType")?) } else { None };
    let param = |key: &str| {
        let Some(pair) = field.type_params.iter().find(|pair| pair.key == key) else { return Ok(None) };
        pair.value
            .parse::<u32>()
            .map(Some)
            .map_err(|_| invalid("DescribeCollection", format!("field {:?} has a {key} that is no number", field.name)))
    };
    let mmap = field
        .type_params
        .iter()
        .find(|pair| pair.key == "mmap.enabled")
        .and_then(|pair| pair.value.parse::<bool>().ok());
    Ok(FieldSchema {
        is_primary: field.is_primary_key,
        auto_id: field.auto_id || (auto_id && field.is_primary_key),
        nullable: field.nullable,
        element_type,
        max_length: param("max_length")?,
        max_capacity: param("max_capacity")?,
        dim: param("dim")?,
        data_type,
        name: field.name,
        description: field.description,
        default_value: field.default_value.map(default_value),
        is_partition_key: field.is_partition_key,
        mmap,
    })
}

fn default_value(value: wire::ValueField) -> String {
    let texts = [
        value.bool_data.map(|value| value.to_string()),
        value.int_data.map(|value| value.to_string()),
        value.long_data.map(|value| value.to_string()),
        value.float_data.map(|value| value.to_string()),
        value.double_data.map(|value| value.to_string()),
        value.string_data,
    ];
    texts.into_iter().flatten().next().unwrap_or_default()
}

/// Indexes, in the server's order. Parameters may stand flat, in a JSON object `params`, or both.
pub fn indexes(response: wire::DescribeIndexResponse) -> Vec<IndexSpec> {
    let index = |description: wire::IndexDescription| {
        let mut spec = IndexSpec {
            field: description.field_name,
            index_type: String::new(),
            metric_type: String::new(),
            params: BTreeMap::new(),
        };
        for wire::KeyValuePair { key, value } in description.params {
            match key.as_str() {
                "index_type" => spec.index_type = value,
                "metric_type" => spec.metric_type = value,
                "params" => match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&value) {
                    Ok(object) => spec.params.extend(object.into_iter().map(|(key, value)| match value {
                        serde_json::Value::String(text) => (key, text),
                        other => (key, other.to_string()),
                    })),
                    Err(_) => drop(spec.params.insert(key, value)),
                },
                _ => drop(spec.params.insert(key, value)),
            }
        }
        spec
    };
    response.index_descriptions.into_iter().map(index).collect()
}

/// How far they are built.
pub fn index_progress(response: wire::DescribeIndexResponse) -> Vec<IndexProgress> {
    let rows = |number: i64| u64::try_from(number).unwrap_or(0);
    let progress = |index: wire::IndexDescription| IndexProgress {
        state: match index.state {
            1 | 2 | 5 => IndexState::InProgress,
            4 => IndexState::Failed(index.index_state_fail_reason),
            // A server that does not say has nothing to build.
            _ => IndexState::Finished,
        },
        field: index.field_name,
        indexed_rows: rows(index.indexed_rows),
        total_rows: rows(index.total_rows),
    };
    response.index_descriptions.into_iter().map(progress).collect()
}

/// The columns that were asked for, in that order. A server that found nothing may leave columns out: they come back empty,
/// of the type that the schema says.
pub fn columns(
    schema: &CollectionSchema,
    output_fields: &[Arc<str>],
    mut found: Vec<wire::FieldData>,
) -> Result<Vec<FieldColumn>, MilvusError> {
    let mut columns = Vec::with_capacity(output_fields.len());
    for name in output_fields {
        let Some(field) = schema.field(name) else {
            let reason = format!("collection {:?} has no field {name:?}", schema.name);
            return Err(MilvusError::new(Condition::InvalidRequest, "Query", reason));
        };
        columns.push(match found.iter().position(|data| data.field_name == **name) {
            Some(at) => field_column(&field, name, found.swap_remove(at))?,
            None => {
                let data = ColumnData::empty(&field).ok_or_else(|| unreadable(&field))?;
                FieldColumn { name: name.clone(), valid: None, data }
            }
        });
    }
    let rows = columns.first().map_or(0, FieldColumn::rows);
    match columns.iter().find(|column| column.rows() != rows) {
        Some(odd) => Err(invalid("Query", format!("field {:?} has {} entities of {rows}", odd.name, odd.rows()))),
        None => Ok(columns),
    }
}

fn unreadable(field: &FieldSchema) -> MilvusError {
    let reason = format!("field {:?} is {}, which walvec does not read", field.name, field.data_type);
    MilvusError::new(Condition::Unsupported, "Query", reason)
}

fn invalid(during: &'static str, reason: impl Into<String>) -> MilvusError {
    MilvusError::new(Condition::InvalidAnswer, during, reason)
}

fn field_column(field: &FieldSchema, name: &Arc<str>, data: wire::FieldData) -> Result<FieldColumn, MilvusError> {
    let odd = |what: &str| invalid("Query", format!("field {:?} ({}) {what}", field.name, field.data_type));
    let full = match field.data_type {
        DataType::FloatVector | DataType::Float16Vector | DataType::BinaryVector => {
            let mut full = ColumnData::empty(field).ok_or_else(|| unreadable(field))?;
            let width = full.width().filter(|&width| width > 0).ok_or_else(|| odd("has no dimension"))?;
            let vectors = data.vectors.unwrap_or_default();
            if let ColumnData::FloatVector { packed, .. }
            | ColumnData::Float16Vector { packed, .. }
            | ColumnData::BinaryVector { packed, .. } = &mut full
            {
                *packed = match field.data_type {
                    DataType::FloatVector => vectors.float_vector.map(|floats| floats.data),
                    DataType::Float16Vector => vectors.float16_vector,
                    _ => vectors.binary_vector,
                }
                .map_or_else(Vec::new, Vec::from);
                if !packed.len().is_multiple_of(width) {
                    return Err(odd("has a wrong number of bytes"));
                }
            }
            full
        }
        DataType::SparseFloatVector => {
            let vectors = data.vectors.unwrap_or_default();
            ColumnData::SparseFloatVector(vectors.sparse_float_vector.map_or_else(Vec::new, |rows| rows.contents))
        }
        DataType::Array => {
            let element = field.element_type.ok_or_else(|| unreadable(field))?;
            let rows = data.scalars.and_then(|scalars| scalars.array_data).map_or_else(Vec::new, |array| array.data);
            let row = |row| scalars(element, row).ok_or_else(|| odd("has elements of another type"));
            ColumnData::Array { element, rows: rows.into_iter().map(row).collect::<Result<_, _>>()? }
        }
        scalar => {
            if ColumnData::empty_scalar(scalar).is_none() {
                return Err(unreadable(field));
            }
            scalars(scalar, data.scalars.unwrap_or_default()).ok_or_else(|| odd("has values of another type"))?
        }
    };
    if data.valid_data.is_empty() {
        return Ok(FieldColumn { name: name.clone(), valid: None, data: full });
    }
    let valid: Vec<u8> = data.valid_data.iter().map(|&byte| u8::from(byte != 0)).collect();
    let present = valid.iter().filter(|&&byte| byte == 1).count();
    let data = if full.len() == present {
        full
    } else if full.len() == valid.len() {
        keep(full, &valid)
    } else {
        return Err(odd("has neither a value for each entity nor one for each valid one"));
    };
    Ok(FieldColumn { name: name.clone(), valid: Some(valid), data })
}

/// The values of one type, out of whichever member holds them. None if another member holds some.
fn scalars(data_type: DataType, field: wire::ScalarField) -> Option<ColumnData> {
    let packed = |array: wire::PackedArray, width: usize| {
        let bytes = Vec::from(array.data);
        bytes.len().is_multiple_of(width).then_some(bytes)
    };
    if field == wire::ScalarField::default() {
        return ColumnData::empty_scalar(data_type);
    }
    Some(match data_type {
        DataType::Bool => ColumnData::Bool(packed(field.bool_data?, 1)?),
        DataType::Int8 => ColumnData::Int8(field.int_data?.data),
        DataType::Int16 => ColumnData::Int16(field.int_data?.data),
        DataType::Int32 => ColumnData::Int32(field.int_data?.data),
        DataType::Int64 => ColumnData::Int64(field.long_data?.data),
        DataType::Float => ColumnData::Float(packed(field.float_data?, 4)?),
        DataType::Double => ColumnData::Double(packed(field.double_data?, 8)?),
        DataType::VarChar => ColumnData::VarChar(field.string_data?.data),
        DataType::Json => ColumnData::Json(field.json_data?.data),
        DataType::Timestamptz => ColumnData::Timestamptz(field.string_data?.data),
        DataType::Array
        | DataType::BinaryVector
        | DataType::FloatVector
        | DataType::Float16Vector
        | DataType::BFloat16Vector
        | DataType::SparseFloatVector => return None,
    })
}

/// Leave out the fillers under NULLs. `full` has as many values as `valid` has marks.
fn keep(full: ColumnData, valid: &[u8]) -> ColumnData {
    fn some<T>(values: Vec<T>, valid: &[u8]) -> Vec<T> {
        values.into_iter().zip(valid).filter(|&(_, &mark)| mark == 1).map(|(value, _)| value).collect()
    }
    fn wide(bytes: &[u8], width: usize, valid: &[u8]) -> Vec<u8> {
        bytes
            .chunks_exact(width)
            .zip(valid)
            .filter(|&(_, &mark)| mark == 1)
            .flat_map(|(value, _)| value)
            .copied()
            .collect()
    }
    match full {
        ColumnData::Bool(values) => ColumnData::Bool(some(values, valid)),
        ColumnData::Timestamptz(values) => ColumnData::Timestamptz(some(values, valid)),
        ColumnData::SparseFloatVector(values) => ColumnData::SparseFloatVector(some(values, valid)),
        ColumnData::Int8(values) => ColumnData::Int8(some(values, valid)),
        ColumnData::Int16(values) => ColumnData::Int16(some(values, valid)),
        ColumnData::Int32(values) => ColumnData::Int32(some(values, valid)),
        ColumnData::Int64(values) => ColumnData::Int64(some(values, valid)),
        ColumnData::Float(bytes) => ColumnData::Float(wide(&bytes, 4, valid)),
        ColumnData::Double(bytes) => ColumnData::Double(wide(&bytes, 8, valid)),
        ColumnData::VarChar(values) => ColumnData::VarChar(some(values, valid)),
        ColumnData::Json(values) => ColumnData::Json(some(values, valid)),
        ColumnData::Array { element, rows } => ColumnData::Array { element, rows: some(rows, valid) },
        ColumnData::FloatVector { dim, packed } => {
            ColumnData::FloatVector { dim, packed: wide(&packed, (dim * 4).max(1), valid) }
        }
        ColumnData::Float16Vector { dim, packed } => {
            ColumnData::Float16Vector { dim, packed: wide(&packed, (dim * 2).max(1), valid) }
        }
        ColumnData::BinaryVector { dim, packed } => {
            ColumnData::BinaryVector { dim, packed: wide(&packed, (dim / 8).max(1), valid) }
        }
    }
}
