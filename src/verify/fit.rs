//! What does not fit its field, judged by PostgreSQL's text alone, and what a policy makes of it.
//!
//! Holds: nothing here is used by the write path (`pipeline::encode` judges for itself), so that one can find the other wrong.

use std::borrow::Cow;

use crate::milvus::{ColumnData, DataType};
use crate::plan::SourceType;
use crate::plan::types::JSON_MAX;

use super::array::{self, Tree};
use super::compare::{Expected, encoded, equal, number};
use super::json;

/// Can the field hold what PostgreSQL printed (`None`: NULL)?
pub(super) fn fits(expected: &Expected<'_>, text: Option<&str>) -> bool {
    let Expected { column, field } = expected;
    // Members of the dynamic field fit one by one; what is too long together stops the table.
    let Some(field) = field else { return true };
    let Some(text) = text else { return field.nullable || field.default_value.is_some() };
    let max_length = field.max_length.map_or(usize::MAX, |max| max as usize);
    let numbers = |list: &str| list.split(',').all(|float| float.parse().is_ok_and(f32::is_finite));
    match field.data_type {
        DataType::VarChar => encoded(column.encoding, text).is_some_and(|text| text.len() <= max_length),
        DataType::Int8 => text.parse::<i8>().is_ok(),
        DataType::Int16 => text.parse::<i16>().is_ok(),
        DataType::Int32 => text.parse::<i32>().is_ok(),
        DataType::Int64 => number(&column.source, text).is_some(),
        DataType::Double => text.ends_with("Infinity") || text.parse().is_ok_and(|double: f64| !double.is_infinite()),
        DataType::Json => match &column.source {
            SourceType::Array { element, delimiter } => array::tree(text, char::from(*delimiter))
                .and_then(|tree| json::length_of_array(element, &tree))
                .is_some_and(|length| length <= JSON_MAX),
            source if source.entry().extension == Some("hstore") => {
                json::length_of_hstore(text).is_some_and(|length| length <= JSON_MAX)
            }
            _ => text.len() <= JSON_MAX && text.trim_start().starts_with(['{', '[']),
        },
        DataType::Timestamptz => {
            text.as_bytes().get(4) == Some(&b'-') && !text.ends_with(" BC") && text.as_bytes().get(10) == Some(&b' ')
        }
        DataType::Array => {
            let SourceType::Array { element, delimiter } = &column.source else { return false };
            let is_text = element.element_target() == Some(DataType::VarChar);
            let capacity = field.max_capacity.map_or(usize::MAX, |max| max as usize);
            let short =
                |text: &Option<Cow<'_, str>>| text.as_ref().is_some_and(|text| !is_text || text.len() <= max_length);
            array::elements(text, char::from(*delimiter))
                .is_some_and(|elements| elements.len() <= capacity && elements.iter().all(short))
        }
        DataType::FloatVector | DataType::Float16Vector => {
            let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let dim = field.dim.unwrap_or(0) as usize;
            list.is_some_and(|list| list.split(',').count() == dim && numbers(list))
        }
        DataType::SparseFloatVector => !text.contains(":-") && !text.contains("NaN") && !text.contains("Infinity"),
        DataType::Bool | DataType::Float | DataType::BinaryVector | DataType::BFloat16Vector => true,
    }
}

/// A value after `on_misfit = "truncate"`.
pub(super) enum Cut<'a> {
    Text(Cow<'a, str>),
    /// Its elements, each cut, and their type.
    Elements(&'a SourceType, Vec<String>),
}

/// What is left of a value that is too long; `None` where it cannot be cut.
pub(super) fn cut<'a>(expected: &Expected<'a>, text: Option<&'a str>) -> Option<Cut<'a>> {
    let Expected { column, field } = expected;
    let (field, text) = ((*field)?, text?);
    let max = field.max_length.map_or(usize::MAX, |max| max as usize);
    let short = |text: &str| {
        let end = text.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|&end| end <= max).last();
        text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
    };
    match (&column.source, field.data_type) {
        (_, DataType::VarChar) => Some(Cut::Text(Cow::Owned(short(&encoded(column.encoding, text)?)))),
        (SourceType::Array { element, delimiter }, DataType::Array) => {
            let Tree::List(nodes) = array::tree(text, char::from(*delimiter))? else { return None };
            let capacity = field.max_capacity.map_or(usize::MAX, |max| max as usize);
            let is_text = element.element_target() == Some(DataType::VarChar);
            let element_text = |node: Tree<'_>| match node {
                Tree::Value(text) => Some(if is_text { short(&text) } else { text.into_owned() }),
                Tree::Null | Tree::List(_) => None,
            };
            let elements = nodes.into_iter().take(capacity).map(element_text).collect::<Option<_>>()?;
            Some(Cut::Elements(element, elements))
        }
        _ => None,
    }
}

pub(super) fn equals_cut(cut: &Cut<'_>, data: &ColumnData, i: usize) -> bool {
    match (cut, data) {
        (Cut::Text(text), ColumnData::VarChar(values)) => values.get(i).is_some_and(|value| *value == text.as_bytes()),
        (Cut::Elements(element, texts), ColumnData::Array { rows, .. }) => rows.get(i).is_some_and(|row| {
            row.len() == texts.len() && texts.iter().enumerate().all(|(j, text)| equal(element, None, text, row, j))
        }),
        _ => false,
    }
}
