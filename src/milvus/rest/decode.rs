//! JSON to ours: descriptions and rows out of answers.
//!
//! Holds: whatever a server sends becomes a value or an error that names the field; nothing here panics on it. Values are read
//! from their own text: an `f32` is parsed as one (over `f64` it could round twice), an integer keeps all its digits.
//!
//! Where forms differ from server to server, both are taken: 64-bit integers as numbers or strings, arrays as they are or
//! in the form of the wire protocol (`{"Data":{"LongData":{"data":[…]}}}`), which released servers give.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::encode::type_of;
use crate::milvus::error::{Condition, MilvusError};
use crate::milvus::{
    CollectionSchema, ColumnData, ConsistencyLevel, DYNAMIC_FIELD, DataType, FieldColumn, FieldSchema, IndexProgress,
    IndexSpec, IndexState,
};

/// The envelope of every answer. Unknown members (`cost`, …) are skipped.
#[derive(Deserialize)]
pub struct Envelope<'a> {
    pub code: i32,
    #[serde(default)]
    pub message: String,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    #[serde(default)]
    collection_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    auto_id: bool,
    #[serde(default)]
    fields: Vec<Field>,
    #[serde(default)]
    shards_num: u32,
    #[serde(default)]
    enable_dynamic_field: bool,
    #[serde(default)]
    consistency_level: String,
    #[serde(default)]
    partitions_num: u32,
    #[serde(default)]
    properties: Vec<Param>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    primary_key: bool,
    #[serde(default)]
    auto_id: bool,
    #[serde(default)]
    nullable: bool,
    #[serde(default)]
    partition_key: bool,
    #[serde(default)]
    default_value: Value,
    #[serde(default)]
    element_type: String,
    #[serde(default)]
    params: Vec<Param>,
}

#[derive(Deserialize)]
struct Param {
    key: String,
    value: Value,
}

/// `collections/describe`.
pub fn collection_schema(name: &str, data: &RawValue) -> Result<CollectionSchema, MilvusError> {
    const ROUTE: &str = "collections/describe";
    let found: Description = parse(ROUTE, data)?;
    let mut fields = Vec::with_capacity(found.fields.len());
    for field in found.fields {
        let known = |spelling: &str| {
            type_of(spelling).ok_or_else(|| {
                let reason = format!("field {:?} is of a type that walvec does not know: {spelling}", field.name);
                MilvusError::new(Condition::Unsupported, ROUTE, reason)
            })
        };
        let param = |key: &str| {
            let Some(param) = field.params.iter().find(|param| param.key == key) else { return Ok(None) };
            let number = match &param.value {
                Value::String(text) => text.parse::<u32>().ok(),
                other => other.as_u64().and_then(|number| u32::try_from(number).ok()),
            };
            let wrong = || invalid(ROUTE, format!("field {:?} has a {key} that is no number", field.name));
            number.map(Some).ok_or_else(wrong)
        };
        let data_type = known(&field.data_type)?;
        let mmap = field.params.iter().find(|param| param.key == "mmap.enabled");
        let mmap = mmap.and_then(|param| plain(param.value.clone()).parse::<bool>().ok());
        fields.push(FieldSchema {
            data_type,
            is_primary: field.primary_key,
            auto_id: field.auto_id || (found.auto_id && field.primary_key),
            nullable: field.nullable,
            element_type: if data_type == DataType::Array { Some(known(&field.element_type)?) } else { None },
            max_length: param("max_length")?,
            max_capacity: param("max_capacity")?,
            dim: param("dim")?,
            description: field.description,
            name: field.name,
            default_value: Some(plain(field.default_value)).filter(|text| !text.is_empty() && text != "null"),
            is_partition_key: field.partition_key,
            mmap,
        });
    }
    Ok(CollectionSchema {
        name: if found.collection_name.is_empty() { name.to_owned() } else { found.collection_name },
        description: found.description,
        fields,
        enable_dynamic_field: found.enable_dynamic_field,
        num_shards: Some(found.shards_num).filter(|&shards| shards > 0),
        consistency_level: ConsistencyLevel::ALL.into_iter().find(|level| level.name() == found.consistency_level),
        num_partitions: Some(found.partitions_num).filter(|&partitions| partitions > 0),
        properties: found.properties.into_iter().map(|param| (param.key, plain(param.value))).collect(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    field_name: String,
    #[serde(default)]
    index_type: String,
    #[serde(default)]
    metric_type: String,
    /// An object, a list of `{key, value}`, or absent: versions differ.
    #[serde(default)]
    index_params: Value,
    #[serde(default)]
    index_state: String,
    #[serde(default)]
    fail_reason: String,
    #[serde(default)]
    indexed_rows: u64,
    #[serde(default)]
    total_rows: u64,
}

/// `indexes/describe`: one index, as a list of one.
pub fn indexes(data: &RawValue) -> Result<Vec<IndexSpec>, MilvusError> {
    let found: Vec<Index> = parse("indexes/describe", data)?;
    let pairs = |params: Value| -> Vec<(String, Value)> {
        match params {
            Value::Object(object) => object.into_iter().collect(),
            Value::Array(list) => list
                .into_iter()
                .filter_map(|mut pair| Some((pair.get("key")?.as_str()?.to_owned(), pair.get_mut("value")?.take())))
                .collect(),
            _ => Vec::new(),
        }
    };
    let index = |index: Index| {
        let mut params = BTreeMap::new();
        for (key, value) in pairs(index.index_params) {
            // The parameters of an index may stand flat, or as a JSON text under "params".
            let nested = match (key.as_str(), &value) {
                ("params", Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
                ("params", object) => object.clone(),
                ("index_type" | "metric_type", _) => continue,
                _ => Value::Null,
            };
            match nested {
                Value::Object(object) => params.extend(object.into_iter().map(|(key, value)| (key, plain(value)))),
                _ => drop(params.insert(key, plain(value))),
            }
        }
        IndexSpec { field: index.field_name, index_type: index.index_type, metric_type: index.metric_type, params }
    };
    Ok(found.into_iter().map(index).collect())
}

/// `indexes/describe`: how far it is built.
pub fn index_progress(data: &RawValue) -> Result<Vec<IndexProgress>, MilvusError> {
    let found: Vec<Index> = parse("indexes/describe", data)?;
    let progress = |index: Index| IndexProgress {
        state: match index.index_state.as_str() {
            "Unissued" | "InProgress" | "Retry" => IndexState::InProgress,
            "Failed" => IndexState::Failed(index.fail_reason),
            _ => IndexState::Finished,
        },
        field: index.field_name,
        indexed_rows: index.indexed_rows,
        total_rows: index.total_rows,
    };
    Ok(found.into_iter().map(progress).collect())
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// An entity: the text of each of its values.
pub type Row<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// The answer of `entities/query`.
pub fn rows(data: &RawValue) -> Result<Vec<Row<'_>>, MilvusError> {
    parse(QUERY, data)
}

/// Rows as columns, in the order of `output_fields`.
pub fn columns(
    schema: &CollectionSchema,
    output_fields: &[Arc<str>],
    rows: &[Row<'_>],
) -> Result<Vec<FieldColumn>, MilvusError> {
    let mut columns = Vec::with_capacity(output_fields.len());
    for name in output_fields {
        let Some(field) = schema.field(name) else {
            let reason = format!("collection {:?} has no field {name:?}", schema.name);
            return Err(MilvusError::new(Condition::InvalidRequest, QUERY, reason));
        };
        let mut data = ColumnData::empty(&field).ok_or_else(|| {
            let reason = format!("field {:?} is {}, which walvec does not read", field.name, field.data_type);
            MilvusError::new(Condition::Unsupported, QUERY, reason)
        })?;
        if let ColumnData::Json(objects) = &mut data
            && field.name == DYNAMIC_FIELD
        {
            objects.extend(rows.iter().map(|row| undeclared(schema, row)));
            columns.push(FieldColumn { name: name.clone(), valid: None, data });
            continue;
        }
        let mut valid = field.nullable.then(|| Vec::with_capacity(rows.len()));
        for row in rows {
            let value = row.get(name.as_ref()).map_or("null", |value| value.get());
            if value == "null" {
                let Some(valid) = &mut valid else {
                    return Err(invalid(QUERY, format!("field {name:?} is missing in an entity")));
                };
                valid.push(0);
                continue;
            }
            append(&mut data, value).ok_or_else(|| {
                invalid(QUERY, format!("field {name:?} ({}) has a value of another type", field.data_type))
            })?;
            if let Some(valid) = &mut valid {
                valid.push(1);
            }
        }
        // As over gRPC: marks only where there is something to mark.
        columns.push(FieldColumn { name: name.clone(), valid, data });
    }
    Ok(columns)
}

/// The members of an entity that are no fields, as one object.
fn undeclared(schema: &CollectionSchema, row: &Row<'_>) -> Bytes {
    let mut members: Vec<_> =
        row.iter().filter(|(name, _)| !schema.fields.iter().any(|field| field.name == **name)).collect();
    members.sort_unstable_by_key(|&(name, _)| name);
    let member = |(name, value): (&Cow<'_, str>, &&RawValue)| format!("{}:{}", json!(name), value.get());
    let members: Vec<String> = members.into_iter().map(member).collect();
    Bytes::from(format!("{{{}}}", members.join(",")))
}

const QUERY: &str = "entities/query";

/// `count(*)` of `entities/query`.
pub fn count(data: &RawValue) -> Result<u64, MilvusError> {
    rows(data)?
        .first()
        .and_then(|row| integer(row.get("count(*)")?.get()))
        .and_then(|count| u64::try_from(count).ok())
        .ok_or_else(|| invalid(QUERY, "the answer has no count"))
}

/// Put one value, as JSON text, behind the column's others. `None` when it is of another type.
fn append(data: &mut ColumnData, value: &str) -> Option<()> {
    match data {
        ColumnData::Bool(values) => values.push(match value {
            "true" => 1,
            "false" => 0,
            _ => return None,
        }),
        ColumnData::Int8(values) => values.push(i8::try_from(integer(value)?).ok()?.into()),
        ColumnData::Int16(values) => values.push(i16::try_from(integer(value)?).ok()?.into()),
        ColumnData::Int32(values) => values.push(i32::try_from(integer(value)?).ok()?),
        ColumnData::Int64(values) => values.push(integer(value)?),
        ColumnData::Float(packed) => packed.extend_from_slice(&number::<f32>(value)?.to_le_bytes()),
        ColumnData::Double(packed) => packed.extend_from_slice(&number::<f64>(value)?.to_le_bytes()),
        ColumnData::VarChar(values) | ColumnData::Timestamptz(values) => values.push(string(value)?),
        // A string that holds the document; a server that gives the document itself is understood too.
        ColumnData::Json(values) if value.starts_with('"') => values.push(string(value)?),
        ColumnData::Json(values) => values.push(Bytes::copy_from_slice(value.as_bytes())),
        ColumnData::Array { element, rows } => {
            let mut row = ColumnData::empty_scalar(*element)?;
            let elements = elements(value)?;
            elements.iter().try_for_each(|element| append(&mut row, element.get()))?;
            rows.push(row);
        }
        ColumnData::Float16Vector { .. } | ColumnData::BinaryVector { .. } => {
            let width = data.width()?;
            let bytes = BASE64.decode(string(value)?).ok().filter(|bytes| bytes.len() == width)?;
            if let ColumnData::Float16Vector { packed, .. } | ColumnData::BinaryVector { packed, .. } = data {
                packed.extend_from_slice(&bytes);
            }
        }
        ColumnData::SparseFloatVector(rows) => {
            let object: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value).ok()?;
            let element = |(index, value): (Cow<'_, str>, &RawValue)| Some((index.parse().ok()?, number(value.get())?));
            let mut elements: Vec<(u32, f32)> = object.into_iter().map(element).collect::<Option<_>>()?;
            elements.sort_unstable_by_key(|&(index, _)| index);
            let bytes = |(index, value): (u32, f32)| [index.to_le_bytes(), value.to_le_bytes()].concat();
            rows.push(elements.into_iter().flat_map(bytes).collect());
        }
        ColumnData::FloatVector { dim, packed } => {
            let inner = value.strip_prefix('[')?.strip_suffix(']')?;
            let before = packed.len();
            for number in inner.split(',') {
                packed.extend_from_slice(&number.trim().parse::<f32>().ok()?.to_le_bytes());
            }
            if packed.len() != before + *dim * 4 {
                return None;
            }
        }
    }
    Some(())
}

/// The elements of an array: `[1,2]`, or the wire protocol's `{"Data":{"LongData":{"data":[1,2]}}}`; empty arrays may lack `data`.
fn elements(value: &str) -> Option<Vec<&RawValue>> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow, rename = "Data")]
        data: Option<HashMap<Cow<'a, str>, Inner<'a>>>,
    }
    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(borrow, default)]
        data: Vec<&'a RawValue>,
    }
    if value.starts_with('[') {
        return serde_json::from_str(value).ok();
    }
    let wire: Wire = serde_json::from_str(value).ok()?;
    Some(wire.data.into_iter().flat_map(HashMap::into_values).flat_map(|inner| inner.data).collect())
}

/// A number, or a string that holds one.
fn integer(value: &str) -> Option<i64> {
    value.trim_matches('"').parse().ok()
}

fn number<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.trim_matches('"').parse().ok()
}

fn string(value: &str) -> Option<Bytes> {
    serde_json::from_str::<String>(value).ok().map(Bytes::from)
}

/// The answer's data, read as `T`.
pub fn parse<'a, T: Deserialize<'a>>(route: &'static str, data: &'a RawValue) -> Result<T, MilvusError> {
    // serde's message names types and places, never values.
    serde_json::from_str(data.get()).map_err(|error| invalid(route, "the data has another form").with_source(error))
}

fn invalid(during: &'static str, reason: impl Into<String>) -> MilvusError {
    MilvusError::new(Condition::InvalidAnswer, during, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("JSON")
    }

    fn field(name: &str, data_type: DataType) -> FieldSchema {
        FieldSchema {
            name: name.into(),
            data_type,
            is_primary: name == "id",
            auto_id: false,
            nullable: name.starts_with('n'),
            element_type: (data_type == DataType::Array).then_some(DataType::Int64),
            max_length: None,
            max_capacity: None,
            dim: (data_type == DataType::FloatVector).then_some(2),
            description: String::new(),
            default_value: None,
            is_partition_key: false,
            mmap: None,
        }
    }

    fn schema(fields: Vec<FieldSchema>) -> CollectionSchema {
        CollectionSchema {
            name: "c".into(),
            description: String::new(),
            fields,
            enable_dynamic_field: false,
            num_shards: None,
            consistency_level: None,
            num_partitions: None,
            properties: BTreeMap::new(),
        }
    }

    #[test]
    fn a_description_is_read() {
        let json = r#"{"aliases":[],"autoId":false,"collectionID":1,"collectionName":"c","description":"d","enableDynamicField":true,
            "fields":[{"autoId":false,"description":"","id":100,"name":"id","partitionKey":false,"primaryKey":true,"type":"Int64","nullable":false},
              {"id":101,"name":"t","type":"VarChar","nullable":true,"params":[{"key":"max_length","value":"9"}]},
              {"id":102,"name":"a","type":"Array","elementType":"VarChar","params":[{"key":"max_length","value":"9"},{"key":"max_capacity","value":4}]},
              {"id":103,"name":"v","type":"FloatVector","params":[{"key":"dim","value":"2"}]}],
            "load":"LoadStateLoaded","shardsNum":2,"properties":[]}"#;
        let found = collection_schema("alias", &raw(json)).expect("a schema");
        assert_eq!((found.name.as_str(), found.description.as_str(), found.num_shards), ("c", "d", Some(2)));
        assert!(found.enable_dynamic_field);
        let fields: Vec<_> =
            found.fields.iter().map(|f| (f.name.as_str(), f.data_type, f.nullable, f.is_primary)).collect();
        assert_eq!(
            fields,
            [
                ("id", DataType::Int64, false, true),
                ("t", DataType::VarChar, true, false),
                ("a", DataType::Array, false, false),
                ("v", DataType::FloatVector, false, false)
            ]
        );
        assert_eq!((found.fields[2].element_type, found.fields[2].max_capacity), (Some(DataType::VarChar), Some(4)));
        assert_eq!(found.fields[3].dim, Some(2));
        let odd = json.replace("\"FloatVector\"", "\"Hologram\"");
        assert_eq!(collection_schema("c", &raw(&odd)).expect_err("unknown").condition(), Condition::Unsupported);
        let odd = json.replace("\"value\":\"2\"", "\"value\":\"two\"");
        assert_eq!(collection_schema("c", &raw(&odd)).expect_err("no number").condition(), Condition::InvalidAnswer);
    }

    #[test]
    fn an_index_is_read_in_every_form() {
        for params in [
            r#"{"M":"8","efConstruction":32}"#,
            r#"{"index_type":"HNSW","params":{"M":8,"efConstruction":"32"}}"#,
            r#"[{"key":"metric_type","value":"IP"},{"key":"params","value":"{\"M\":\"8\",\"efConstruction\":\"32\"}"}]"#,
        ] {
            let json = format!(
                r#"[{{"fieldName":"v","indexName":"v","indexType":"HNSW","metricType":"IP","indexState":"Finished","indexParams":{params}}}]"#
            );
            let expected = BTreeMap::from([("M".into(), "8".into()), ("efConstruction".into(), "32".into())]);
            assert_eq!(indexes(&raw(&json)).expect("an index")[0].params, expected, "{params}");
        }
        assert_eq!(indexes(&raw(r#"[{"fieldName":"v"}]"#)).expect("an index")[0].params, BTreeMap::new());
    }

    #[test]
    fn rows_become_columns() {
        let schema = schema(vec![
            field("id", DataType::Int64),
            field("nt", DataType::VarChar),
            field("j", DataType::Json),
            field("a", DataType::Array),
            field("f", DataType::Float),
            field("v", DataType::FloatVector),
        ]);
        let fields: Vec<Arc<str>> = schema.fields.iter().map(|field| Arc::from(field.name.as_str())).collect();
        let json = r#"[
            {"id":9007199254740993,"nt":null,"j":"{\"k\": 1}","a":{"Data":{"LongData":{"data":[1,-2]}}},"f":0.1,"v":[1, 1e-45]},
            {"id":"-9223372036854775808","nt":"é\n","j":{"k":1},"a":[3],"f":16777217,"v":[-0,3.4028235e38]},
            {"id":3,"j":"[]","a":{"Data":{"LongData":{}}},"f":1e3,"v":[0,0],"more":true}]"#;
        let columns = columns(&schema, &fields, &rows(&raw(json)).expect("rows")).expect("columns");
        assert_eq!(columns[0].data, ColumnData::Int64(vec![9_007_199_254_740_993, i64::MIN, 3]));
        assert_eq!((columns[1].valid.as_deref(), columns[1].data.len()), (Some(&[0u8, 1, 0][..]), 1));
        assert_eq!(columns[2].data, ColumnData::Json(vec!["{\"k\": 1}".into(), "{\"k\":1}".into(), "[]".into()]));
        let arrays = vec![ColumnData::Int64(vec![1, -2]), ColumnData::Int64(vec![3]), ColumnData::Int64(vec![])];
        assert_eq!(columns[3].data, ColumnData::Array { element: DataType::Int64, rows: arrays });
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(columns[4].data, ColumnData::Float(floats(&[0.1, 16_777_216.0, 1000.0])));
        let packed = floats(&[1.0, 1e-45, -0.0, f32::MAX, 0.0, 0.0]);
        assert_eq!(columns[5].data, ColumnData::FloatVector { dim: 2, packed });
    }

    #[test]
    fn odd_values_are_named_and_never_panic() {
        for (data_type, value) in [
            (DataType::Int8, "128"),
            (DataType::Int64, "1.5"),
            (DataType::Bool, "1"),
            (DataType::VarChar, "7"),
            (DataType::Array, "{\"Data\":7}"),
            (DataType::Array, "[null]"),
            (DataType::FloatVector, "[1]"),
            (DataType::FloatVector, "[1,2,3]"),
            (DataType::FloatVector, "[]"),
            (DataType::FloatVector, "\"AAAA\""),
            (DataType::Float, "\"x\""),
        ] {
            let schema = schema(vec![field("x", data_type)]);
            let error = columns(&schema, &["x".into()], &rows(&raw(&format!("[{{\"x\":{value}}}]"))).expect("rows"))
                .expect_err(value);
            assert_eq!(error.condition(), Condition::InvalidAnswer, "{value}");
            assert!(error.to_string().contains("\"x\""), "{error}");
        }
        let missing =
            columns(&schema(vec![field("x", DataType::Int64)]), &["x".into()], &rows(&raw("[{}]")).expect("rows"));
        assert!(missing.expect_err("not nullable").to_string().contains("is missing"));
        assert!(count(&raw("[{\"count(*)\":\"12\"}]")).is_ok_and(|count| count == 12));
        assert!(count(&raw("[{\"count(*)\":-1}]")).is_err() && count(&raw("[]")).is_err() && count(&raw("7")).is_err());
    }
}
