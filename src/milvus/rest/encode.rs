//! Ours to JSON: schemas, indexes, and columns as the rows that REST v2 takes.
//!
//! In: what has passed `columns::check`. Out: the body of a request. Rows are written straight from the columns: no tree
//! of values is built around a vector, and each float is its shortest decimal that reads back as the same `f32`.
//!
//! Holds: what the server would change without a word is an error here. It wraps integers that are too wide, turns
//! `null` in a VARCHAR that is not nullable into an empty text, a null element into 0, and takes the quotes from
//! a JSON text (so a document is sent as a string that holds it). Non-finite numbers have no form in JSON.
//!
//! Not here: the calls (`super`), what a value may be at all (`columns`, `pipeline::encode`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::milvus::{
    CollectionSchema, ColumnData, ConsistencyLevel, DYNAMIC_FIELD, DataType, FieldColumn, FieldSchema, IndexSpec,
};

/// Body of `collections/create`. Neither index nor load: those are calls of their own.
pub fn create_collection(database: &str, schema: &CollectionSchema) -> Value {
    // Milvus's own default for a new collection: users' searches do not wait for the last write. Our reads ask for Strong.
    let level = schema.consistency_level.unwrap_or(ConsistencyLevel::Bounded);
    let mut params = Map::from_iter([("consistencyLevel".to_owned(), json!(level.name()))]);
    for (key, value) in [("shardsNum", schema.num_shards), ("partitionsNum", schema.num_partitions)] {
        if let Some(value) = value {
            params.insert(key.to_owned(), json!(value));
        }
    }
    for (property, value) in &schema.properties {
        if let Some((_, key)) = PROPERTIES.iter().find(|(known, _)| known == property) {
            // Numbers and booleans go as such.
            params.insert((*key).to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
        }
    }
    let mut body = about(database, &schema.name);
    body.insert("description".to_owned(), json!(schema.description));
    body.insert(
        "schema".to_owned(),
        json!({
            "autoID": schema.fields.iter().any(|field| field.is_primary && field.auto_id),
            "enableDynamicField": schema.enable_dynamic_field,
            "fields": schema.fields.iter().map(field_schema).collect::<Vec<_>>(),
        }),
    );
    body.insert("params".to_owned(), Value::Object(params));
    Value::Object(body)
}

/// Properties that a collection can be made with over REST, and what they are called there.
pub const PROPERTIES: [(&str, &str); 2] =
    [("mmap.enabled", "mmap.enabled"), ("partitionkey.isolation", "partitionKeyIsolation")];

/// The members that every request about a collection has.
pub fn about(database: &str, collection: &str) -> Map<String, Value> {
    let mut body = Map::new();
    if !database.is_empty() {
        body.insert("dbName".to_owned(), json!(database));
    }
    body.insert("collectionName".to_owned(), json!(collection));
    body
}

/// A field of `collections/create` and `collections/fields/add`. REST has no place for its description.
pub fn field_schema(field: &FieldSchema) -> Value {
    let params = [("dim", field.dim), ("max_length", field.max_length), ("max_capacity", field.max_capacity)];
    let params = params.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
    let params = params.chain(field.mmap.map(|mmap| ("mmap.enabled".to_owned(), json!(mmap))));
    let mut body = Map::from_iter([
        ("fieldName".to_owned(), json!(field.name)),
        ("dataType".to_owned(), json!(type_name(field.data_type))),
        ("elementTypeParams".to_owned(), Value::Object(params.collect())),
    ]);
    if let Some(element) = field.element_type {
        body.insert("elementDataType".to_owned(), json!(type_name(element)));
    }
    if field.is_primary {
        body.insert("isPrimary".to_owned(), json!(true));
    }
    if field.nullable {
        body.insert("nullable".to_owned(), json!(true));
    }
    if field.is_partition_key {
        body.insert("isPartitionKey".to_owned(), json!(true));
    }
    if let Some(text) = &field.default_value {
        let value = match field.data_type {
            DataType::VarChar => json!(text),
            _ => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        };
        body.insert("defaultValue".to_owned(), value);
    }
    Value::Object(body)
}

/// Member `indexParams` of `indexes/create`. The index is named like its field, as Milvus itself does.
pub fn index_params(index: &IndexSpec) -> Value {
    let mut body = Map::from_iter([
        ("fieldName".to_owned(), json!(index.field)),
        ("indexName".to_owned(), json!(index.field)),
        ("indexType".to_owned(), json!(index.index_type)),
    ]);
    if !index.metric_type.is_empty() {
        body.insert("metricType".to_owned(), json!(index.metric_type));
    }
    if !index.params.is_empty() {
        body.insert("params".to_owned(), json!(index.params));
    }
    json!([body])
}

/// REST's own spelling, which is case-sensitive.
pub fn type_name(data_type: DataType) -> &'static str {
    match data_type {
        DataType::Bool => "Bool",
        DataType::Int8 => "Int8",
        DataType::Int16 => "Int16",
        DataType::Int32 => "Int32",
        DataType::Int64 => "Int64",
        DataType::Float => "Float",
        DataType::Double => "Double",
        DataType::VarChar => "VarChar",
        DataType::Array => "Array",
        DataType::Json => "JSON",
        DataType::Timestamptz => "Timestamptz",
        DataType::BinaryVector => "BinaryVector",
        DataType::FloatVector => "FloatVector",
        DataType::Float16Vector => "Float16Vector",
        DataType::BFloat16Vector => "BFloat16Vector",
        DataType::SparseFloatVector => "SparseFloatVector",
    }
}

/// The type that REST spells so.
pub fn type_of(name: &str) -> Option<DataType> {
    DataType::ALL.into_iter().find(|&data_type| type_name(data_type) == name)
}

/// A value that JSON, or Milvus's reading of it, cannot carry: the field, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field:?}: {why}")]
pub struct Unsendable {
    pub field: String,
    pub why: &'static str,
}

/// Body of `entities/upsert`.
pub fn upsert(database: &str, collection: &str, columns: &[FieldColumn], rows: usize) -> Result<Vec<u8>, Unsendable> {
    let mut out = Vec::with_capacity(columns.iter().map(|column| size_hint(&column.data)).sum::<usize>() + rows * 16);
    out.extend_from_slice(b"{");
    if !database.is_empty() {
        out.extend_from_slice(b"\"dbName\":");
        text(&mut out, database);
        out.push(b',');
    }
    out.extend_from_slice(b"\"collectionName\":");
    text(&mut out, collection);
    out.extend_from_slice(b",\"data\":[");
    let mut cursors: Vec<Cursor> = columns.iter().enumerate().map(|(i, column)| Cursor::new(i, column)).collect();
    for row in 0..rows {
        out.extend_from_slice(if row == 0 { b"{" } else { b",{" });
        for cursor in &mut cursors {
            if &*cursor.column.name == DYNAMIC_FIELD {
                cursor.next_members(&mut out).map_err(|why| Unsendable { field: DYNAMIC_FIELD.to_owned(), why })?;
                continue;
            }
            out.extend_from_slice(&cursor.name);
            cursor.next(&mut out).map_err(|why| Unsendable { field: cursor.column.name.to_string(), why })?;
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Where in its column the next row's value is.
struct Cursor<'a> {
    /// `"name":`, with the comma before it.
    name: Vec<u8>,
    column: &'a FieldColumn,
    row: usize,
    value: usize,
}

impl<'a> Cursor<'a> {
    fn new(position: usize, column: &'a FieldColumn) -> Cursor<'a> {
        let mut name = Vec::with_capacity(column.name.len() + 4);
        if position > 0 {
            name.push(b',');
        }
        text(&mut name, &column.name);
        name.push(b':');
        Cursor { name, column, row: 0, value: 0 }
    }

    /// The members of an object, among those of the entity: REST has no name for the dynamic field.
    fn next_members(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let ColumnData::Json(objects) = &self.column.data else { return Err("the dynamic field is JSON") };
        let object = objects.get(self.row).ok_or("an entity lacks its dynamic field")?;
        self.row += 1;
        let members = object.trim_ascii().strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
        let members = members.ok_or("the dynamic field holds no object")?.trim_ascii();
        if !members.is_empty() {
            if self.name.starts_with(b",") {
                out.push(b',');
            }
            out.extend_from_slice(members);
        }
        Ok(())
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let valid = self.column.valid.as_ref().is_none_or(|valid| valid.get(self.row) == Some(&1));
        self.row += 1;
        if !valid {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        self.value += 1;
        value(out, &self.column.data, self.value - 1)
    }
}

/// Value number `at` of a column that `columns::check` has counted.
fn value(out: &mut Vec<u8>, data: &ColumnData, at: usize) -> Result<(), &'static str> {
    match data {
        ColumnData::Bool(values) => out.extend_from_slice(if values[at] == 0 { b"false" } else { b"true" }),
        ColumnData::Int8(values) => int(out, i8::try_from(values[at]).map_err(|_| "the number is no INT8")?),
        ColumnData::Int16(values) => int(out, i16::try_from(values[at]).map_err(|_| "the number is no INT16")?),
        ColumnData::Int32(values) => int(out, values[at]),
        ColumnData::Int64(values) => int(out, values[at]),
        ColumnData::Float(packed) => {
            let (words, _) = packed.as_chunks::<4>();
            float(out, f32::from_le_bytes(words[at]))?;
        }
        ColumnData::Double(packed) => {
            let (words, _) = packed.as_chunks::<8>();
            let number = f64::from_le_bytes(words[at]);
            if !number.is_finite() {
                return Err("REST carries no NaN and no infinity");
            }
            shortest(out, ryu::Buffer::new().format_finite(number));
        }
        ColumnData::VarChar(values) | ColumnData::Json(values) | ColumnData::Timestamptz(values) => {
            text(out, std::str::from_utf8(&values[at]).map_err(|_| "the text is not UTF-8")?);
        }
        ColumnData::Array { rows, .. } => {
            let elements = &rows[at];
            out.push(b'[');
            for i in 0..elements.len() {
                if i > 0 {
                    out.push(b',');
                }
                value(out, elements, i)?;
            }
            out.push(b']');
        }
        // Bytes are base64 text; a FLOAT16_VECTOR may also be an array of numbers, but would not be the same bits.
        ColumnData::Float16Vector { packed, .. } | ColumnData::BinaryVector { packed, .. } => {
            let width = data.width().unwrap_or_default();
            let bytes = &packed[at * width..(at + 1) * width];
            text(out, &BASE64.encode(bytes));
        }
        ColumnData::SparseFloatVector(rows) => {
            out.push(b'{');
            for (i, &[a, b, c, d, e, f, g, h]) in rows[at].as_chunks::<8>().0.iter().enumerate() {
                out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
                int(out, u32::from_le_bytes([a, b, c, d]));
                out.extend_from_slice(b"\":");
                float(out, f32::from_le_bytes([e, f, g, h]))?;
            }
            out.push(b'}');
        }
        ColumnData::FloatVector { dim, packed } => {
            let (words, _) = packed[at * dim * 4..(at + 1) * dim * 4].as_chunks::<4>();
            out.push(b'[');
            for (i, &word) in words.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                float(out, f32::from_le_bytes(word))?;
            }
            out.push(b']');
        }
    }
    Ok(())
}

fn float(out: &mut Vec<u8>, number: f32) -> Result<(), &'static str> {
    if !number.is_finite() {
        return Err("REST carries no NaN and no infinity");
    }
    shortest(out, ryu::Buffer::new().format_finite(number));
    Ok(())
}

/// ryu writes `1.0`: the fraction says nothing.
fn shortest(out: &mut Vec<u8>, printed: &str) {
    out.extend_from_slice(printed.strip_suffix(".0").unwrap_or(printed).as_bytes());
}

fn int(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A JSON string.
fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every write, and a text is a JSON string");
}

/// About how many bytes a column is in JSON.
fn size_hint(data: &ColumnData) -> usize {
    match data {
        ColumnData::Float(packed) | ColumnData::Double(packed) | ColumnData::FloatVector { packed, .. } => {
            packed.len() * 3
        }
        ColumnData::Float16Vector { packed, .. } | ColumnData::BinaryVector { packed, .. } => packed.len() * 2,
        ColumnData::VarChar(values) | ColumnData::Json(values) | ColumnData::Timestamptz(values) => {
            values.iter().map(|value| value.len() + 8).sum()
        }
        ColumnData::SparseFloatVector(rows) => rows.iter().map(|row| row.len() * 3).sum(),
        ColumnData::Array { rows, .. } => rows.iter().map(size_hint).sum(),
        other => other.len() * 12,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn column(name: &str, valid: Option<Vec<u8>>, data: ColumnData) -> FieldColumn {
        FieldColumn { name: name.into(), valid, data }
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn texts(values: &[&'static str]) -> Vec<Bytes> {
        values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()
    }

    #[test]
    fn rows_are_written_as_rest_reads_them() {
        let columns = [
            column("id", None, ColumnData::Int64(vec![i64::MIN, 9_007_199_254_740_993])),
            column("t", Some(vec![0, 1]), ColumnData::VarChar(texts(&["\"é\\\n\u{1}"]))),
            column("j", None, ColumnData::Json(texts(&["\"abc\"", "{\"n\": 1.50}"]))),
            column("b", None, ColumnData::Bool(vec![1, 0])),
            column("d", None, ColumnData::Double([0.1f64, -0.0].iter().flat_map(|d| d.to_le_bytes()).collect())),
            column(
                "a",
                None,
                ColumnData::Array {
                    element: DataType::Int16,
                    rows: vec![ColumnData::Int16(vec![-1, 2]), ColumnData::Int16(vec![])],
                },
            ),
            column("v", None, ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 0.1, 1e-45, -3.4028235e38]) }),
        ];
        let body = upsert("db", "c", &columns, 2).expect("sendable");
        assert_eq!(
            String::from_utf8(body).expect("UTF-8"),
            concat!(
                r#"{"dbName":"db","collectionName":"c","data":["#,
                r#"{"id":-9223372036854775808,"t":null,"j":"\"abc\"","b":true,"d":0.1,"a":[-1,2],"v":[1,0.1]},"#,
                r#"{"id":9007199254740993,"t":"\"é\\\n\u0001","j":"{\"n\": 1.50}","b":false,"d":-0,"a":[],"#,
                r#""v":[1e-45,-3.4028235e38]}]}"#
            )
        );
        let body = upsert("", "c", &columns[..1], 1).expect("sendable");
        assert_eq!(body, br#"{"collectionName":"c","data":[{"id":-9223372036854775808}]}"#);
    }

    #[test]
    fn every_float_reads_back_as_itself() {
        let mut bits = 1u32;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let number = f32::from_bits(bits);
            let mut out = Vec::new();
            match float(&mut out, number) {
                Ok(()) => {
                    let text = std::str::from_utf8(&out).expect("digits");
                    assert_eq!(text.parse::<f32>().expect("a number").to_bits(), bits, "{text}");
                    serde_json::from_str::<serde_json::Number>(text).expect("a JSON number");
                }
                Err(_) => assert!(!number.is_finite()),
            }
        }
    }

    #[test]
    fn what_the_server_would_change_in_silence_is_refused() {
        let refused = |data| upsert("", "c", &[column("x", None, data)], 1).expect_err("refused").to_string();
        assert_eq!(refused(ColumnData::Int8(vec![128])), "field \"x\": the number is no INT8");
        assert_eq!(refused(ColumnData::Int16(vec![-32769])), "field \"x\": the number is no INT16");
        let none = "field \"x\": REST carries no NaN and no infinity";
        assert_eq!(refused(ColumnData::Float(floats(&[f32::NAN]))), none);
        assert_eq!(refused(ColumnData::Double(f64::INFINITY.to_le_bytes().into())), none);
        assert_eq!(refused(ColumnData::FloatVector { dim: 1, packed: floats(&[f32::INFINITY]) }), none);
        let bytes = ColumnData::Array { element: DataType::Int8, rows: vec![ColumnData::Int8(vec![1, 200])] };
        assert_eq!(refused(bytes), "field \"x\": the number is no INT8");
    }

    #[test]
    fn every_type_has_one_spelling() {
        for number in DataType::ALL {
            assert_eq!(type_of(type_name(number)), Some(number));
        }
        assert_eq!(type_of("Json"), None);
    }
}
