//! One field of a collection: what is appended to its column for a row.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::change::{Row, Value};
use crate::config::settings::{Encoding, OnMisfit};
use crate::milvus::{ColumnData, DataType, FieldSchema};
use crate::mutation::Key;
use crate::plan::build::PLACEHOLDER;
use crate::plan::types::VARCHAR_MAX;
use crate::plan::{ColumnPlan, SourceType};
use crate::postgres::decode::{self, DecodeError};
use crate::postgres::{array, pgvector};

use super::{Arena, Column, json, scalar};

/// What one field takes and from where.
#[derive(Clone, Debug)]
pub(super) struct FieldEncoder {
    pub(super) name: Arc<str>,
    origin: Origin,
    data_type: DataType,
    element_type: DataType,
    nullable: bool,
    max_length: usize,
    max_capacity: usize,
    dim: usize,
    default_value: Option<Bytes>,
    pub(super) on_misfit: OnMisfit,
}

#[derive(Clone, Debug)]
enum Origin {
    Key,
    /// A value of the row, by its index.
    Column {
        at: usize,
        source: SourceType,
        encoding: Option<Encoding>,
    },
    Placeholder,
    /// Members of the dynamic field: name, index of the value, type.
    Dynamic(Vec<(String, usize, SourceType)>),
}

/// Why a value is not of its field. Never shows the value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misfit {
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

impl Misfit {
    /// The value is one of its type, and only the field cannot hold it: a policy may decide. Anything else means that we
    /// read it wrongly, and no policy covers that.
    pub(super) fn is_of_field(&self) -> bool {
        match self {
            Misfit::Null
            | Misfit::TooLong(..)
            | Misfit::TooMany(..)
            | Misfit::Nul
            | Misfit::NotUtf8
            | Misfit::JsonScalar => true,
            Misfit::Key => false,
            Misfit::Value(error) => match error {
                DecodeError::Dimensions(_)
                | DecodeError::NullElement
                | DecodeError::NotFinite
                | DecodeError::Dimension { .. }
                | DecodeError::NotBytes(_)
                | DecodeError::Negative
                | DecodeError::Infinite
                | DecodeError::OutOfRange(_) => true,
                DecodeError::Truncated
                | DecodeError::Trailing
                | DecodeError::Malformed(_)
                | DecodeError::UnchangedToast
                | DecodeError::Opaque => false,
            },
        }
    }
}

/// Whether what is too long is an error or cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Long {
    Misfit,
    Cut,
}

impl FieldEncoder {
    pub(super) fn key(schema: &FieldSchema) -> FieldEncoder {
        FieldEncoder::new(schema, Origin::Key, OnMisfit::Error)
    }

    pub(super) fn column(schema: &FieldSchema, at: usize, column: &ColumnPlan) -> FieldEncoder {
        let origin = Origin::Column { at, source: column.source.clone(), encoding: column.encoding };
        FieldEncoder::new(schema, origin, column.on_misfit)
    }

    pub(super) fn placeholder(schema: &FieldSchema) -> FieldEncoder {
        FieldEncoder::new(schema, Origin::Placeholder, OnMisfit::Error)
    }

    /// The dynamic field, if any of the columns is a member of it. The policy that leaves out its
    /// rows is the table's, so every member has the same.
    pub(super) fn dynamic(columns: &[ColumnPlan]) -> Option<FieldEncoder> {
        let members = columns.iter().enumerate().filter(|(_, column)| column.is_dynamic());
        let members: Vec<_> = members.map(|(at, column)| (column.name.clone(), at, column.source.clone())).collect();
        let member = columns.iter().find(|column| column.is_dynamic() && column.on_misfit.leaves_out());
        let on_misfit = member.map_or(OnMisfit::Error, |member| member.on_misfit);
        (!members.is_empty()).then(|| FieldEncoder::new(&FieldSchema::dynamic(), Origin::Dynamic(members), on_misfit))
    }

    fn new(schema: &FieldSchema, origin: Origin, on_misfit: OnMisfit) -> FieldEncoder {
        FieldEncoder {
            name: Arc::from(&*schema.name),
            origin,
            data_type: schema.data_type,
            element_type: schema.element_type.unwrap_or(DataType::VarChar),
            nullable: schema.nullable,
            max_length: schema.max_length.unwrap_or(VARCHAR_MAX) as usize,
            max_capacity: schema.max_capacity.unwrap_or(u32::MAX) as usize,
            dim: schema.dim.unwrap_or_default() as usize,
            default_value: schema.default_value.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes())),
            on_misfit,
        }
    }

    /// An empty column with room for `rows`.
    pub(super) fn empty(&self, rows: usize) -> Column {
        let (dim, element) = (self.dim, self.element_type);
        let data = match self.data_type {
            DataType::Array => ColumnData::Array { element, rows: Vec::with_capacity(rows) },
            DataType::FloatVector => ColumnData::FloatVector { dim, packed: Vec::with_capacity(rows * dim * 4) },
            DataType::Float16Vector => ColumnData::Float16Vector { dim, packed: Vec::with_capacity(rows * dim * 2) },
            DataType::BinaryVector => ColumnData::BinaryVector { dim, packed: Vec::with_capacity(rows * dim / 8) },
            DataType::SparseFloatVector => ColumnData::SparseFloatVector(Vec::with_capacity(rows)),
            scalar => scalar::empty(scalar, rows),
        };
        Column { data, valid: self.nullable.then(|| Vec::with_capacity(rows)) }
    }

    /// Append the row's value. On an error the column may be left with part of it: the caller truncates.
    pub(super) fn append(
        &self,
        key: &Key,
        row: &Row,
        long: Long,
        column: &mut Column,
        arena: &mut Arena,
    ) -> Result<(), Misfit> {
        let (at, source, encoding) = match &self.origin {
            Origin::Key => return self.append_key(key, &mut column.data, arena),
            Origin::Placeholder => {
                if let ColumnData::FloatVector { packed, .. } = &mut column.data {
                    packed.extend(PLACEHOLDER.iter().flat_map(|float| float.to_le_bytes()));
                }
                return Ok(());
            }
            Origin::Dynamic(members) => {
                if let ColumnData::Json(objects) = &mut column.data {
                    objects.push(json::members(members, row)?);
                }
                return Ok(());
            }
            Origin::Column { at, source, encoding } => (*at, source, *encoding),
        };
        let value = row.0.get(at).expect("a row has a value for each column of the plan");
        if let (Value::Null, Some(default)) = (value, &self.default_value) {
            if let Some(valid) = &mut column.valid {
                valid.push(1);
            }
            scalar::append_default(&mut column.data, default);
            return Ok(());
        }
        if *value == Value::Null {
            return if column.append_null() { Ok(()) } else { Err(Misfit::Null) };
        }
        if let Some(valid) = &mut column.valid {
            valid.push(1);
        }
        let (bytes, is_binary) = match value {
            Value::Binary(bytes) => (bytes, true),
            Value::Text(text) => (text, false),
            Value::UnchangedToast => return Err(DecodeError::UnchangedToast.into()),
            Value::Null => unreachable!("NULL was handled above"),
        };
        match &mut column.data {
            ColumnData::FloatVector { packed, .. } => match (source, is_binary) {
                (SourceType::HalfVec { .. }, true) => pgvector::append_half_as_floats(bytes, self.dim, packed)?,
                (_, true) => pgvector::append_binary(bytes, self.dim, packed)?,
                (_, false) => pgvector::append_text(bytes, self.dim, packed)?,
            },
            ColumnData::Float16Vector { packed, .. } => match is_binary {
                true => pgvector::append_half_binary(bytes, self.dim, packed)?,
                false => pgvector::append_half_text(bytes, self.dim, packed)?,
            },
            ColumnData::BinaryVector { packed, .. } => {
                let (found, bits) = if is_binary {
                    decode::bits(bytes).map(|(found, bits)| (found, Cow::Borrowed(bits)))?
                } else {
                    decode::bits_text(bytes).map(|(found, bits)| (found, Cow::Owned(bits)))?
                };
                if found != self.dim {
                    return Err(DecodeError::Dimension { expected: self.dim, found }.into());
                }
                packed.extend_from_slice(&bits);
            }
            ColumnData::SparseFloatVector(rows) => {
                let sparse =
                    if is_binary { pgvector::Sparse::from_binary(bytes)? } else { pgvector::Sparse::from_text(bytes)? };
                if sparse.elements.iter().any(|&(_, float)| float < 0.0) {
                    return Err(DecodeError::Negative.into());
                }
                let element = |(index, float): (u32, f32)| [index.to_le_bytes(), float.to_le_bytes()].concat();
                rows.push(sparse.elements.into_iter().flat_map(element).collect());
            }
            ColumnData::Json(documents) => documents.push(json::document(source, value, bytes)?),
            ColumnData::Array { rows, .. } => rows.push(self.elements(source, bytes, is_binary, long, arena)?),
            data => {
                let limits = scalar::Limits { max_length: self.max_length, long };
                scalar::append(data, source, encoding, value, limits, arena)?;
            }
        }
        Ok(())
    }

    /// The elements of an ARRAY.
    fn elements(
        &self,
        source: &SourceType,
        value: &Bytes,
        is_binary: bool,
        long: Long,
        arena: &mut Arena,
    ) -> Result<ColumnData, Misfit> {
        let SourceType::Array { element, delimiter } = source else {
            unreachable!("only an array becomes an ARRAY field");
        };
        let limits = scalar::Limits { max_length: self.max_length, long };
        let mut elements = scalar::empty(self.element_type, 0);
        // False where the rest is cut off.
        let mut append = |value: Value| {
            let count = elements.len() + 1;
            if count > self.max_capacity {
                return if long == Long::Cut { Ok(false) } else { Err(Misfit::TooMany(count, self.max_capacity)) };
            }
            scalar::append(&mut elements, element, None, &value, limits, arena)?;
            Ok(true)
        };
        if is_binary {
            for bytes in array::Binary::new(value)? {
                if !append(Value::Binary(value.slice_ref(bytes?)))? {
                    break;
                }
            }
        } else {
            for text in array::Text::new(value, *delimiter)? {
                let text = match text? {
                    Cow::Borrowed(text) => value.slice_ref(text),
                    Cow::Owned(text) => text.into(),
                };
                if !append(Value::Text(text))? {
                    break;
                }
            }
        }
        Ok(elements)
    }

    fn append_key(&self, key: &Key, data: &mut ColumnData, arena: &mut Arena) -> Result<(), Misfit> {
        match (data, key) {
            (ColumnData::Int64(keys), Key::Int(key)) => keys.push(*key),
            (ColumnData::VarChar(keys), Key::Text(key)) => {
                if key.len() > self.max_length {
                    return Err(Misfit::TooLong(key.len(), self.max_length));
                }
                keys.push(arena.keep(key.as_bytes()));
            }
            _ => return Err(Misfit::Key),
        }
        Ok(())
    }

    /// About how many bytes the row's value is in a request.
    pub(super) fn bytes(&self, key: &Key, row: &Row) -> usize {
        let value = match self.origin {
            Origin::Column { at, .. } => row.0.get(at),
            Origin::Dynamic(ref members) => {
                let member = |(name, at, _): &(String, usize, SourceType)| {
                    row.0.get(*at).map_or(0, |value| name.len() + value.size() + 4)
                };
                return members.iter().map(member).sum();
            }
            Origin::Key | Origin::Placeholder => None,
        };
        match (self.data_type, value) {
            (DataType::FloatVector, _) => 4 * self.dim,
            (DataType::Float16Vector, _) => 2 * self.dim,
            (DataType::BinaryVector, _) => self.dim / 8,
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
