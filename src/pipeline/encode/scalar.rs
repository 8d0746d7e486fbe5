//! A value that is neither NULL, vector, document nor array, appended to a column of its target type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::change::Value;
use crate::config::settings::Encoding;
use crate::milvus::{ColumnData, DataType};
use crate::plan::SourceType;
use crate::plan::types::Read;
use crate::postgres::decode::{self, DecodeError, number_text};

use super::Arena;
use super::field::{Long, Misfit};

/// What a text may be.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_length: usize,
    pub(super) long: Long,
}

/// An empty column of scalars or documents.
pub(super) fn empty(data_type: DataType, values: usize) -> ColumnData {
    match data_type {
        DataType::Bool => ColumnData::Bool(Vec::with_capacity(values)),
        DataType::Int8 => ColumnData::Int8(Vec::with_capacity(values)),
        DataType::Int16 => ColumnData::Int16(Vec::with_capacity(values)),
        DataType::Int32 => ColumnData::Int32(Vec::with_capacity(values)),
        DataType::Int64 => ColumnData::Int64(Vec::with_capacity(values)),
        DataType::Float => ColumnData::Float(Vec::with_capacity(values * 4)),
        DataType::Double => ColumnData::Double(Vec::with_capacity(values * 8)),
        DataType::VarChar => ColumnData::VarChar(Vec::with_capacity(values)),
        DataType::Json => ColumnData::Json(Vec::with_capacity(values)),
        DataType::Timestamptz => ColumnData::Timestamptz(Vec::with_capacity(values)),
        other => unreachable!("the plan makes no {other} field of a scalar"),
    }
}

pub(super) fn append(
    data: &mut ColumnData,
    source: &SourceType,
    encoding: Option<Encoding>,
    value: &Value,
    limits: Limits,
    arena: &mut Arena,
) -> Result<(), Misfit> {
    let read = source.entry().read;
    match (data, read, value) {
        (ColumnData::Bool(values), _, Value::Binary(bytes)) => values.push(decode::bool(bytes)?.into()),
        (ColumnData::Bool(values), _, Value::Text(text)) => values.push(decode::bool_text(text)?.into()),
        (ColumnData::Int8(values), Read::Int(read), value) => values.push(int::<i8>(read, value, "INT8")?.into()),
        (ColumnData::Int16(values), Read::Int(read), value) => values.push(int::<i16>(read, value, "INT16")?.into()),
        (ColumnData::Int32(values), Read::Int(read), value) => values.push(int(read, value, "INT32")?),
        (ColumnData::Int64(values), Read::Int(read), value) => values.push(int(read, value, "INT64")?),
        (ColumnData::Int64(values), _, value) => values.push(whole_number(source, value)?),
        (ColumnData::Float(packed), _, value) => packed.extend_from_slice(&float4(value)?.to_le_bytes()),
        (ColumnData::Double(packed), Read::Float4, value) => {
            packed.extend_from_slice(&f64::from(float4(value)?).to_le_bytes());
        }
        (ColumnData::Double(packed), Read::Float8, Value::Binary(bytes)) => {
            packed.extend_from_slice(&decode::float8(bytes)?.to_le_bytes());
        }
        (ColumnData::Double(packed), Read::Float8, Value::Text(text)) => {
            packed.extend_from_slice(&number_text::<f64>(text, "double precision")?.to_le_bytes());
        }
        // The nearest one; beyond the range Rust would make it infinite.
        (ColumnData::Double(packed), _, value) => {
            let text = text_of(source, value)?;
            let number = number_text::<f64>(&text, "numeric")?;
            if number.is_infinite() && !text.ends_with(b"Infinity") {
                return Err(DecodeError::OutOfRange("DOUBLE").into());
            }
            packed.extend_from_slice(&number.to_le_bytes());
        }
        (ColumnData::Timestamptz(moments), _, value) => moments.push(rfc3339(&text_of(source, value)?)?),
        (ColumnData::VarChar(texts), _, value) => texts.push(text(source, read, encoding, value, limits, arena)?),
        _ => unreachable!("the plan gives each source type a target that it can be read into"),
    }
    Ok(())
}

/// Append a default that the plan has looked at: it parses.
pub(super) fn append_default(data: &mut ColumnData, default: &Bytes) {
    let text = std::str::from_utf8(default).unwrap_or_default();
    match data {
        ColumnData::Bool(values) => values.push(u8::from(text == "true")),
        ColumnData::Int8(values) | ColumnData::Int16(values) | ColumnData::Int32(values) => {
            values.push(text.parse().unwrap_or_default());
        }
        ColumnData::Int64(values) => values.push(text.parse().unwrap_or_default()),
        ColumnData::Float(packed) => packed.extend_from_slice(&text.parse::<f32>().unwrap_or_default().to_le_bytes()),
        ColumnData::Double(packed) => packed.extend_from_slice(&text.parse::<f64>().unwrap_or_default().to_le_bytes()),
        ColumnData::VarChar(texts) => texts.push(default.clone()),
        other => unreachable!("the plan gives no default to {}", other.data_type()),
    }
}

/// An integer of any width, if it fits the target.
fn int<T: TryFrom<i64>>(
    read: fn(&[u8]) -> Result<i64, DecodeError>,
    value: &Value,
    target: &'static str,
) -> Result<T, Misfit> {
    let number = match value {
        Value::Binary(bytes) => read(bytes)?,
        Value::Text(text) => number_text(text, "integer")?,
        Value::Null | Value::UnchangedToast => return Err(DecodeError::UnchangedToast.into()),
    };
    T::try_from(number).map_err(|_| DecodeError::OutOfRange(target).into())
}

fn float4(value: &Value) -> Result<f32, Misfit> {
    Ok(match value {
        Value::Binary(bytes) => decode::float4(bytes)?,
        Value::Text(text) => number_text::<f32>(text, "real")?,
        Value::Null | Value::UnchangedToast => return Err(DecodeError::UnchangedToast.into()),
    })
}

/// numeric, date, time, timestamp and timestamptz as INT64.
fn whole_number(source: &SourceType, value: &Value) -> Result<i64, Misfit> {
    let name = source.entry().names.first().copied().unwrap_or_default();
    let number = match (name, value) {
        ("date", Value::Binary(bytes)) => decode::date_days(bytes)?,
        ("date", Value::Text(text)) => decode::date_days_text(text)?,
        ("time", Value::Binary(bytes)) => decode::time_micros(bytes)?,
        ("time", Value::Text(text)) => decode::time_micros_text(text)?,
        ("timestamp" | "timestamptz", Value::Binary(bytes)) => decode::moment_micros(bytes)?,
        ("timestamp" | "timestamptz", Value::Text(text)) => decode::moment_micros_text(text)?,
        _ => {
            let text = text_of(source, value)?;
            // 7.00 is whole, 7.01 is not.
            let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
                Some(point) => text.split_at(point),
                None => (&text[..], &b"."[..]),
            };
            let is_whole = fraction.iter().skip(1).all(|&digit| digit == b'0');
            let number = if is_whole { number_text(whole, "numeric").ok() } else { None };
            number.ok_or(DecodeError::OutOfRange("INT64"))?
        }
    };
    Ok(number)
}

fn text_of(source: &SourceType, value: &Value) -> Result<Bytes, Misfit> {
    source.text(value)?.ok_or(DecodeError::UnchangedToast.into())
}

/// `2000-01-01 00:00:00.5+00` as `2000-01-01T00:00:00.5Z`: the years 1 to 9999 of our era.
fn rfc3339(text: &[u8]) -> Result<Bytes, Misfit> {
    if let b"infinity" | b"-infinity" = text {
        return Err(DecodeError::Infinite.into());
    }
    let moment = text.strip_suffix(b"+00").filter(|text| text.get(4) == Some(&b'-') && text.get(10) == Some(&b' '));
    let Some(moment) = moment else { return Err(DecodeError::OutOfRange("TIMESTAMPTZ").into()) };
    let (date, time) = moment.split_at(10);
    Ok([date, b"T", time.get(1..).unwrap_or_default(), b"Z"].concat().into())
}

/// A VARCHAR's text: a slice of the value where its bytes are the text.
fn text(
    source: &SourceType,
    read: Read,
    encoding: Option<Encoding>,
    value: &Value,
    limits: Limits,
    arena: &mut Arena,
) -> Result<Bytes, Misfit> {
    let text = match (encoding, read, value) {
        (Some(Encoding::Base64 | Encoding::Hex), _, _) => {
            let bytes = match value {
                Value::Binary(bytes) => bytes.clone(),
                Value::Text(text) => decode::bytes_text(text)?.into(),
                Value::Null | Value::UnchangedToast => return Err(DecodeError::UnchangedToast.into()),
            };
            if encoding == Some(Encoding::Base64) {
                BASE64.encode(&bytes).into()
            } else {
                arena.print(|out| decode::print_bytea(&bytes, out))?.slice(2..)
            }
        }
        (Some(Encoding::Trimmed), _, value) => {
            let text = text_of(source, value)?;
            let end = text.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
            text.slice(..end)
        }
        (None, Read::Printed(print), Value::Binary(bytes)) => arena.print(|out| print(bytes, out))?,
        (None, Read::Verbatim | Read::Json | Read::Versioned, _) | (None, _, Value::Text(_)) => text_of(source, value)?,
        (None, _, Value::Binary(bytes)) => arena.print(|out| source.print(bytes, out))?,
        (None, _, Value::Null | Value::UnchangedToast) => return Err(DecodeError::UnchangedToast.into()),
    };
    let utf8 = std::str::from_utf8(&text).map_err(|_| Misfit::NotUtf8)?;
    if text.contains(&0) {
        return Err(Misfit::Nul);
    }
    match limits.long {
        _ if text.len() <= limits.max_length => Ok(text),
        Long::Cut => Ok(text.slice(..utf8.floor_char_boundary(limits.max_length))),
        Long::Misfit => Err(Misfit::TooLong(text.len(), limits.max_length)),
    }
}
