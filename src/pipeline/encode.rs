//! Rows to columns: what PostgreSQL sent, as the columns of one upsert.
//!
//! In: complete rows with their keys. Out: a column for every field of the collection, and the rows that the
//! collection cannot hold, each with its reason.
//!
//! Holds: every column has a value for each accepted row, in the order given; a refused row is in none of them. The guards
//! are ours because servers disagree about what they refuse: one counts a VARCHAR in characters, one accepts NaN, one
//! takes an array over its capacity, and none says which row it was. Text and JSON are slices of the received bytes,
//! vectors are swapped straight into their column, printed text and keys share one buffer a batch.
//!
//! Not here: which rows and when (`engine`), making the key (`plan::key`), what the server refuses all the same.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::change::{Row, Value};
use crate::milvus::{ColumnData, DataType, FieldColumn, FieldSchema, Keys};
use crate::mutation::{Key, Refusal};
use crate::plan::types::{Read, VARCHAR_MAX};
use crate::plan::{SourceType, TablePlan};
use crate::postgres::decode::{self, DecodeError, number_text};
use crate::postgres::{array, pgvector};

/// Encodes rows of one table. Made once, shared by all who encode.
#[derive(Clone, Debug)]
pub struct Encoder {
    fields: Vec<FieldEncoder>,
    int_keys: bool,
}

/// The columns of one upsert.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Every field of the collection, in its order.
    pub columns: Vec<FieldColumn>,
    /// How many rows each column holds; 0: there is nothing to send.
    pub rows: usize,
    /// Rows left out, by their index in what was given.
    pub refused: Vec<(usize, Refusal)>,
}

impl Encoder {
    pub fn new(table: &TablePlan) -> Encoder {
        let primary = table.key.field();
        let field = |(i, schema): (usize, &FieldSchema)| {
            // The primary field is filled from the key, whether it is a column or made from several.
            let column = table.columns.iter().position(|column| column.field == i).filter(|_| i != primary);
            assert!(column.is_some() || i == primary, "every field but the primary one has a column");
            FieldEncoder::new(schema, column.map(|at| (at, &table.columns[at].source)))
        };
        Encoder {
            fields: table.collection.fields.iter().enumerate().map(field).collect(),
            int_keys: table.collection.fields.get(primary).is_some_and(|field| field.data_type == DataType::Int64),
        }
    }

    pub fn encode(&self, rows: &[(Key, Row)]) -> Encoded {
        let mut columns: Vec<Column> = self.fields.iter().map(|field| Column::new(field, rows.len())).collect();
        let mut arena = Arena::default();
        let mut accepted = 0;
        let mut refused = Vec::new();
        for (i, (key, row)) in rows.iter().enumerate() {
            let result = self.fields.iter().zip(&mut columns).try_for_each(|(field, column)| {
                let misfit =
                    |misfit: Misfit| Refusal { field: Some(field.name.to_string()), reason: misfit.to_string() };
                field.append(key, row, column, &mut arena).map_err(misfit)
            });
            match result {
                Ok(()) => accepted += 1,
                Err(refusal) => {
                    columns.iter_mut().for_each(|column| column.truncate(accepted));
                    refused.push((i, refusal));
                }
            }
        }
        let named = self.fields.iter().zip(columns).map(|(field, column)| FieldColumn {
            name: Arc::clone(&field.name),
            valid: column.valid,
            data: column.data,
        });
        Encoded { columns: named.collect(), rows: accepted, refused }
    }

    /// Keys as a delete or query takes them.
    pub fn keys(&self, keys: &[Key]) -> Keys {
        let int = |key: &Key| if let Key::Int(key) = key { *key } else { panic!("a table has keys of one kind") };
        let text =
            |key: &Key| if let Key::Text(key) = key { Arc::clone(key) } else { panic!("a table has keys of one kind") };
        if self.int_keys {
            Keys::Int64(keys.iter().map(int).collect())
        } else {
            Keys::VarChar(keys.iter().map(text).collect())
        }
    }

    /// About how many bytes the row is in a request.
    pub fn row_bytes(&self, key: &Key, row: &Row) -> usize {
        self.fields.iter().map(|field| field.bytes(key, row)).sum()
    }
}

/// What one field takes and from where.
#[derive(Clone)]
struct FieldEncoder {
    name: Arc<str>,
    /// Index into the row and the type there; `None`: the key.
    column: Option<(usize, Read)>,
    /// Of an array.
    element: Option<Read>,
    element_type: DataType,
    data_type: DataType,
    nullable: bool,
    max_length: usize,
    max_capacity: usize,
    dim: usize,
}

impl std::fmt::Debug for FieldEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FieldEncoder")
            .field("name", &self.name)
            .field("data_type", &self.data_type)
            .finish_non_exhaustive()
    }
}

/// Why a value is not of its field. Never shows the value.
#[derive(Debug, thiserror::Error)]
enum Misfit {
    #[error("NULL, and the field is not nullable")]
    Null,
    #[error("{0} bytes, and the field takes {1}")]
    TooLong(usize, usize),
    #[error("{0} elements, and the field takes {1}")]
    TooMany(usize, usize),
    #[error("the text holds a NUL byte")]
    Nul,
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("a JSON scalar or null at the top: Milvus keeps objects and arrays")]
    JsonScalar,
    #[error("the key does not fit the primary field")]
    Key,
    #[error(transparent)]
    Value(#[from] DecodeError),
}

impl FieldEncoder {
    fn new(schema: &FieldSchema, column: Option<(usize, &SourceType)>) -> FieldEncoder {
        let element = match column {
            Some((_, SourceType::Array(element))) => Some(element.entry().read),
            _ => None,
        };
        FieldEncoder {
            name: Arc::from(&*schema.name),
            column: column.map(|(at, source)| (at, source.entry().read)),
            element,
            element_type: schema.element_type.unwrap_or(DataType::VarChar),
            data_type: schema.data_type,
            nullable: schema.nullable,
            max_length: schema.max_length.unwrap_or(VARCHAR_MAX) as usize,
            max_capacity: schema.max_capacity.unwrap_or(u32::MAX) as usize,
            dim: schema.dim.unwrap_or_default() as usize,
        }
    }

    /// An empty column with room for `rows`.
    fn empty(&self, rows: usize) -> ColumnData {
        match self.data_type {
            DataType::Array => ColumnData::Array { element: self.element_type, rows: Vec::with_capacity(rows) },
            DataType::FloatVector => {
                ColumnData::FloatVector { dim: self.dim, packed: Vec::with_capacity(rows * self.dim * 4) }
            }
            scalar => empty(scalar, rows),
        }
    }

    /// Append the row's value. On an error the column may be left with part of it: the caller truncates.
    fn append(&self, key: &Key, row: &Row, column: &mut Column, arena: &mut Arena) -> Result<(), Misfit> {
        let Some((at, read)) = self.column else { return self.append_key(key, &mut column.data, arena) };
        let value = row.0.get(at).expect("a row has a value for each column of the plan");
        if *value == Value::Null {
            let valid = column.valid.as_mut().ok_or(Misfit::Null)?;
            valid.push(0);
            return Ok(());
        }
        if let Some(valid) = &mut column.valid {
            valid.push(1);
        }
        match (&mut column.data, value) {
            (_, Value::UnchangedToast) => return Err(DecodeError::UnchangedToast.into()),
            (_, Value::Null) => unreachable!("NULL was handled above"),
            (ColumnData::FloatVector { packed, .. }, Value::Binary(bytes)) => {
                pgvector::append_binary(bytes, self.dim, packed)?;
            }
            (ColumnData::FloatVector { packed, .. }, Value::Text(text)) => {
                pgvector::append_text(text, self.dim, packed)?;
            }
            (ColumnData::Json(documents), Value::Binary(bytes) | Value::Text(bytes)) => {
                let is_jsonb = matches!((read, value), (Read::Jsonb, Value::Binary(_)));
                let text = if is_jsonb { decode::jsonb(bytes)? } else { bytes };
                documents.push(json(bytes.slice_ref(text))?);
            }
            (ColumnData::Array { rows, .. }, Value::Binary(bytes)) => {
                let mut elements = empty(self.element_type, 0);
                let read = self.element.expect("an ARRAY field has an element type");
                for element in array::Binary::new(bytes)? {
                    let element = element?;
                    self.check_capacity(elements.len() + 1)?;
                    append_scalar(
                        &mut elements,
                        read,
                        &Value::Binary(bytes.slice_ref(element)),
                        self.max_length,
                        arena,
                    )?;
                }
                rows.push(elements);
            }
            (ColumnData::Array { rows, .. }, Value::Text(text)) => {
                let mut elements = empty(self.element_type, 0);
                let read = self.element.expect("an ARRAY field has an element type");
                for element in array::Text::new(text)? {
                    let element = match element? {
                        Cow::Borrowed(element) => text.slice_ref(element),
                        Cow::Owned(element) => element.into(),
                    };
                    self.check_capacity(elements.len() + 1)?;
                    append_scalar(&mut elements, read, &Value::Text(element), self.max_length, arena)?;
                }
                rows.push(elements);
            }
            (data, value) => append_scalar(data, read, value, self.max_length, arena)?,
        }
        Ok(())
    }

    fn append_key(&self, key: &Key, data: &mut ColumnData, arena: &mut Arena) -> Result<(), Misfit> {
        match (data, key) {
            (ColumnData::Int64(keys), Key::Int(key)) => keys.push(*key),
            (ColumnData::VarChar(keys), Key::Text(key)) => {
                check_length(key.as_bytes(), self.max_length)?;
                keys.push(arena.keep(key.as_bytes()));
            }
            _ => return Err(Misfit::Key),
        }
        Ok(())
    }

    fn check_capacity(&self, elements: usize) -> Result<(), Misfit> {
        if elements <= self.max_capacity { Ok(()) } else { Err(Misfit::TooMany(elements, self.max_capacity)) }
    }

    fn bytes(&self, key: &Key, row: &Row) -> usize {
        let value = match self.column {
            Some((at, _)) => row.0.get(at),
            None => None,
        };
        match (self.data_type, value) {
            (DataType::FloatVector, _) => 4 * self.dim,
            (DataType::Bool, _) => 1,
            (DataType::Float, _) => 4,
            // Integers are varints, of two bytes where they are ids and of ten where they are negative.
            (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Double, _) => 8,
            // A tag and a length beside the bytes.
            (_, Some(value)) => value.size() + 4,
            (_, None) => key.heap_size() + 4,
        }
    }
}

fn check_length(text: &[u8], max: usize) -> Result<(), Misfit> {
    if text.len() <= max { Ok(()) } else { Err(Misfit::TooLong(text.len(), max)) }
}

/// Append a value that is neither NULL, vector, document nor array.
fn append_scalar(
    data: &mut ColumnData,
    read: Read,
    value: &Value,
    max_length: usize,
    arena: &mut Arena,
) -> Result<(), Misfit> {
    match (data, read, value) {
        (ColumnData::Bool(values), _, Value::Binary(bytes)) => values.push(decode::bool(bytes)?.into()),
        (ColumnData::Bool(values), _, Value::Text(text)) => values.push(decode::bool_text(text)?.into()),
        (ColumnData::Int16(values), Read::Int(read), value) => values.push(int::<i16>(read, value, "smallint")?.into()),
        (ColumnData::Int32(values), Read::Int(read), value) => values.push(int(read, value, "integer")?),
        (ColumnData::Int64(values), Read::Int(read), value) => values.push(int(read, value, "bigint")?),
        (ColumnData::Float(packed), _, Value::Binary(bytes)) => {
            packed.extend_from_slice(&decode::float4(bytes)?.to_le_bytes());
        }
        (ColumnData::Float(packed), _, Value::Text(text)) => {
            packed.extend_from_slice(&number_text::<f32>(text, "real")?.to_le_bytes());
        }
        (ColumnData::Double(packed), _, Value::Binary(bytes)) => {
            packed.extend_from_slice(&decode::float8(bytes)?.to_le_bytes());
        }
        (ColumnData::Double(packed), _, Value::Text(text)) => {
            packed.extend_from_slice(&number_text::<f64>(text, "double precision")?.to_le_bytes());
        }
        (ColumnData::VarChar(texts), Read::Printed(print), Value::Binary(bytes)) => {
            let text = arena.print(|out| print(bytes, out))?;
            check_length(&text, max_length)?;
            texts.push(text);
        }
        (ColumnData::VarChar(texts), _, Value::Binary(text) | Value::Text(text)) => {
            check_length(text, max_length)?;
            std::str::from_utf8(text).map_err(|_| Misfit::NotUtf8)?;
            if text.contains(&0) {
                return Err(Misfit::Nul);
            }
            texts.push(text.clone());
        }
        _ => unreachable!("the plan gives each source type a target that it can be read into"),
    }
    Ok(())
}

/// An integer of any width, if it fits the target.
fn int<T: TryFrom<i64>>(
    read: fn(&[u8]) -> Result<i64, DecodeError>,
    value: &Value,
    type_name: &'static str,
) -> Result<T, Misfit> {
    let value = match value {
        Value::Binary(bytes) => read(bytes)?,
        Value::Text(text) => number_text(text, type_name)?,
        Value::Null | Value::UnchangedToast => return Err(DecodeError::UnchangedToast.into()),
    };
    T::try_from(value).map_err(|_| DecodeError::Malformed(type_name).into())
}

/// The document, if its top is an object or an array: PostgreSQL has checked the rest.
fn json(text: Bytes) -> Result<Bytes, Misfit> {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[') => Ok(text),
        _ => Err(Misfit::JsonScalar),
    }
}

/// An empty column of scalars or documents.
fn empty(data_type: DataType, values: usize) -> ColumnData {
    match data_type {
        DataType::Bool => ColumnData::Bool(Vec::with_capacity(values)),
        DataType::Int16 => ColumnData::Int16(Vec::with_capacity(values)),
        DataType::Int32 => ColumnData::Int32(Vec::with_capacity(values)),
        DataType::Int64 => ColumnData::Int64(Vec::with_capacity(values)),
        DataType::Float => ColumnData::Float(Vec::with_capacity(values * 4)),
        DataType::Double => ColumnData::Double(Vec::with_capacity(values * 8)),
        DataType::VarChar => ColumnData::VarChar(Vec::with_capacity(values)),
        DataType::Json => ColumnData::Json(Vec::with_capacity(values)),
        other => unreachable!("the plan makes no {other} field"),
    }
}

/// One buffer for the many small texts of a batch, cut into slices that share it.
#[derive(Default)]
struct Arena {
    buffer: BytesMut,
    scratch: Vec<u8>,
}

impl Arena {
    /// Bytes that the buffer grows by.
    const CHUNK: usize = 16 * 1024;

    fn keep(&mut self, text: &[u8]) -> Bytes {
        if self.buffer.capacity() < text.len() {
            self.buffer = BytesMut::with_capacity(text.len().max(Self::CHUNK));
        }
        self.buffer.extend_from_slice(text);
        self.buffer.split().freeze()
    }

    fn print(&mut self, print: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>) -> Result<Bytes, DecodeError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let printed = print(&mut scratch).map(|()| self.keep(&scratch));
        self.scratch = scratch;
        printed
    }
}

/// A column being filled.
struct Column {
    data: ColumnData,
    valid: Option<Vec<u8>>,
}

impl Column {
    fn new(field: &FieldEncoder, rows: usize) -> Column {
        Column { data: field.empty(rows), valid: field.nullable.then(|| Vec::with_capacity(rows)) }
    }

    /// Back to the first `rows` rows.
    fn truncate(&mut self, rows: usize) {
        let values = match &mut self.valid {
            Some(valid) => {
                valid.truncate(rows);
                valid.iter().filter(|&&valid| valid == 1).count()
            }
            None => rows,
        };
        match &mut self.data {
            ColumnData::Bool(v) => v.truncate(values),
            ColumnData::Int8(v) | ColumnData::Int16(v) | ColumnData::Int32(v) => v.truncate(values),
            ColumnData::Int64(v) => v.truncate(values),
            ColumnData::Float(v) => v.truncate(values * 4),
            ColumnData::Double(v) => v.truncate(values * 8),
            ColumnData::VarChar(v) | ColumnData::Json(v) => v.truncate(values),
            ColumnData::Array { rows, .. } => rows.truncate(values),
            ColumnData::FloatVector { dim, packed } => packed.truncate(values * *dim * 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::build;
    use crate::plan::tests::{column, server, settings, table, vector};

    fn plan(columns: Vec<crate::postgres::catalog::Column>) -> TablePlan {
        let plan = build(&[(table(columns), settings())], &server()).expect("a plan");
        plan.tables.into_iter().next().expect("one table")
    }

    fn binary(bytes: impl Into<Vec<u8>>) -> Value {
        Value::Binary(bytes.into().into())
    }

    fn text(text: &str) -> Value {
        Value::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn floats(floats: &[f32]) -> Value {
        let mut value = (floats.len() as i16).to_be_bytes().to_vec();
        value.extend([0, 0]);
        value.extend(floats.iter().flat_map(|f| f.to_be_bytes()));
        binary(value)
    }

    fn int4s(elements: &[i32]) -> Value {
        let mut value = [1, 0, 23, elements.len() as i32, 1].map(i32::to_be_bytes).concat();
        value.extend(elements.iter().flat_map(|e| [4, *e].map(i32::to_be_bytes).concat()));
        binary(value)
    }

    fn encode(plan: &TablePlan, rows: Vec<Vec<Value>>) -> Encoded {
        let keyed = |row: Vec<Value>| {
            let row = Row(row.into());
            (plan.key.key(plan, &row).expect("a key"), row)
        };
        let rows: Vec<(Key, Row)> = rows.into_iter().map(keyed).collect();
        let encoded = Encoder::new(plan).encode(&rows);
        for column in &encoded.columns {
            let valid = column.valid.as_ref().map_or(encoded.rows, |valid| valid.iter().filter(|&&v| v == 1).count());
            assert_eq!(column.data.len(), valid, "{}", column.name);
            assert_eq!(column.valid.as_ref().map_or(encoded.rows, Vec::len), encoded.rows, "{}", column.name);
        }
        encoded
    }

    /// A column of each kind, and the same rows in both forms.
    fn everything() -> (TablePlan, Vec<Value>, Vec<Value>) {
        let plan = plan(vec![
            column("id", "int8"),
            column("embedding", "vector(2)"),
            column("flag", "bool"),
            column("small", "int2"),
            column("medium", "int4"),
            column("real", "float4"),
            column("double", "float8"),
            column("title", "text"),
            column("price", "numeric"),
            column("day", "date"),
            column("doc", "jsonb"),
            column("raw", "json"),
            column("tags", "int4[]"),
        ]);
        let numeric = [2i16, 0, 0, 2, 12, 3400].map(i16::to_be_bytes).concat();
        let in_binary = vec![
            binary(7i64.to_be_bytes()),
            floats(&[1.5, -2.0]),
            binary([1]),
            binary((-3i16).to_be_bytes()),
            binary(4i32.to_be_bytes()),
            binary(0.5f32.to_be_bytes()),
            binary(0.25f64.to_be_bytes()),
            binary("héllo"),
            binary(numeric),
            binary(0i32.to_be_bytes()),
            binary("\x01{\"a\": 1}"),
            binary(" [1, 2]"),
            int4s(&[5, 6]),
        ];
        let in_text = [
            "7",
            "[1.5,-2]",
            "t",
            "-3",
            "4",
            "0.5",
            "0.25",
            "héllo",
            "12.34",
            "2000-01-01",
            "{\"a\": 1}",
            " [1, 2]",
            "{5,6}",
        ];
        (plan, in_binary, in_text.map(text).to_vec())
    }

    #[test]
    fn binary_and_text_rows_make_the_same_columns() {
        let (plan, in_binary, in_text) = everything();
        let encoded = encode(&plan, vec![in_binary.clone(), in_text]);
        assert_eq!((encoded.rows, &encoded.refused), (2, &vec![]));
        let f32s = |floats: &[f32]| floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>();
        let f64s = |floats: &[f64]| floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>();
        let ints = || ColumnData::Int32(vec![5, 6]);
        let twice = |text: &'static str| vec![Bytes::from(text); 2];
        let expected = [
            ColumnData::Int64(vec![7, 7]),
            ColumnData::FloatVector { dim: 2, packed: f32s(&[1.5, -2.0, 1.5, -2.0]) },
            ColumnData::Bool(vec![1, 1]),
            ColumnData::Int16(vec![-3, -3]),
            ColumnData::Int32(vec![4, 4]),
            ColumnData::Float(f32s(&[0.5, 0.5])),
            ColumnData::Double(f64s(&[0.25, 0.25])),
            ColumnData::VarChar(twice("héllo")),
            ColumnData::VarChar(twice("12.34")),
            ColumnData::VarChar(twice("2000-01-01")),
            ColumnData::Json(twice("{\"a\": 1}")),
            ColumnData::Json(twice(" [1, 2]")),
            ColumnData::Array { element: DataType::Int32, rows: vec![ints(), ints()] },
        ];
        let data: Vec<ColumnData> = encoded.columns.into_iter().map(|column| column.data).collect();
        assert_eq!(data, expected);
    }

    #[test]
    fn nulls_are_marked_and_have_no_value() {
        let (plan, row, _) = everything();
        let mut nulls = row.clone();
        nulls[2..].fill(Value::Null);
        let encoded = encode(&plan, vec![row.clone(), nulls, row]);
        assert_eq!(encoded.rows, 3);
        for column in &encoded.columns[..2] {
            assert_eq!(column.valid, None);
        }
        for column in &encoded.columns[2..] {
            assert_eq!(column.valid, Some(vec![1, 0, 1]), "{}", column.name);
        }
    }

    /// Each misfit refuses its row alone and leaves no trace in any column.
    #[test]
    fn a_row_that_does_not_fit_is_left_out_of_every_column() {
        let (plan, row, _) = everything();
        let at = |name: &str| plan.columns.iter().position(|column| column.name == name).expect("a column");
        let too_many = vec![0; 4_097];
        let long = "x".repeat(65_536);
        let misfits = [
            ("embedding", Value::Null, "NULL, and the field is not nullable"),
            ("embedding", floats(&[1.0]), "the vector has 1 dimensions, the field 2"),
            ("embedding", floats(&[1.0, f32::NAN]), "the vector holds NaN or infinity"),
            ("embedding", text("[1,2"), "the bytes are not a value of type vector"),
            ("embedding", Value::UnchangedToast, "the value was not sent: it is stored out of line and unchanged"),
            ("small", text("32768"), "the bytes are not a value of type smallint"),
            ("medium", binary([0, 0]), "the value ends before its type does"),
            ("title", text(&long), "65536 bytes, and the field takes 65535"),
            ("title", binary([0xFF]), "the text is not UTF-8"),
            ("title", binary([b'a', 0]), "the text holds a NUL byte"),
            ("doc", binary("\x01null"), "a JSON scalar or null at the top: Milvus keeps objects and arrays"),
            ("raw", text("\"s\""), "a JSON scalar or null at the top: Milvus keeps objects and arrays"),
            ("tags", int4s(&too_many), "4097 elements, and the field takes 4096"),
            ("tags", text("{1,NULL}"), "the array holds a NULL; an ARRAY field holds none"),
            ("tags", text("{{1},{2}}"), "the array has 2 dimensions; an ARRAY field holds one"),
        ];
        let alone = encode(&plan, vec![row.clone(), row.clone()]);
        for (name, value, reason) in misfits {
            let mut bad = row.clone();
            bad[at(name)] = value;
            let encoded = encode(&plan, vec![row.clone(), bad, row.clone()]);
            assert_eq!(encoded.columns, alone.columns, "{name}: {reason}");
            assert_eq!(encoded.refused, [(1, Refusal { field: Some(name.into()), reason: reason.into() })]);
        }
    }

    #[test]
    fn a_composite_key_is_its_own_field_and_leaves_its_columns() {
        let mut table = table(vec![column("a", "text"), column("b", "int4"), vector("v", 2)]);
        table.primary_key.as_mut().expect("a key").columns = vec!["b".into(), "a".into()];
        let plan = build(&[(table, settings())], &server()).expect("a plan").tables.remove(0);
        let encoded = encode(&plan, vec![vec![text("x|y"), text("3"), text("[1,2]")]]);
        let names: Vec<&str> = encoded.columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["pk", "a", "b", "v"]);
        assert_eq!(encoded.columns[0].data, ColumnData::VarChar(vec!["3|x\\|y".into()]));
        assert_eq!(encoded.columns[2].data, ColumnData::Int32(vec![3]));
        let keys = Encoder::new(&plan).keys(&[Key::Text("k".into())]);
        assert_eq!(keys, Keys::VarChar(vec!["k".into()]));
    }

    #[test]
    fn the_estimate_is_near_the_truth() {
        let (plan, row, _) = everything();
        let bytes = Encoder::new(&plan).row_bytes(&Key::Int(7), &Row(row.into()));
        assert!((80..200).contains(&bytes), "{bytes}");
    }

    #[test]
    fn texts_share_a_buffer_and_do_not_meet() {
        let mut arena = Arena::default();
        let texts: Vec<String> = (0..5_000).map(|i| format!("{i:_<width$}", width = i % 40)).collect();
        let kept: Vec<Bytes> = texts.iter().map(|text| arena.keep(text.as_bytes())).collect();
        assert!(texts.iter().zip(kept).all(|(text, kept)| text.as_bytes() == kept));
    }
}
