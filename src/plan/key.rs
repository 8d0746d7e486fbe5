//! The key of an entity, made from the key columns of a row.
//!
//! In: a row with its key columns present. Out: the `Key` that Milvus holds, or the texts of the key columns, to look the
//! row up in PostgreSQL.
//!
//! Holds: the key is the same from binary and from text values, and two rows with different key texts have different keys.
//! A composite key joins the texts of its columns with `|`, after writing `\` as `\\` and `|` as `\|` inside them:
//! the separators are the unescaped bars, so the parts can be read back, and no two lists of parts meet in one key.
//!
//! Not here: lengths (`pipeline::encode` refuses a key longer than its field; a delete of such a key finds nothing).

use std::str;
use std::sync::Arc;

use crate::change::{Lsn, Row, Value};
use crate::mutation::{Key, Refusal};
use crate::postgres::decode::number_text;

use super::types::Read;
use super::{ColumnPlan, TablePlan};

/// How the primary field is filled.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyPlan {
    /// One column is the primary field.
    Single {
        /// Index into `TablePlan::columns`.
        column: usize,
        /// Index into `collection.fields`.
        field: usize,
    },
    /// Several columns: the primary field is a VARCHAR made from them by an injective encoding; they stay fields too.
    Composite { columns: Vec<usize>, field: usize },
    /// Rows have no key: the primary field is a number (`number_of_change`, `number_of_copied`) by which an entity can be written
    /// again, but not found from its row.
    Auto { field: usize },
}

/// What the state and the messages say in place of the key's columns.
pub const NUMBERED: &str = "(auto_id)";

impl KeyPlan {
    /// Indexes into `TablePlan::columns`, in key order.
    pub fn columns(&self) -> &[usize] {
        match self {
            KeyPlan::Single { column, .. } => std::slice::from_ref(column),
            KeyPlan::Composite { columns, .. } => columns,
            KeyPlan::Auto { .. } => &[],
        }
    }

    pub fn is_auto(&self) -> bool {
        matches!(self, KeyPlan::Auto { .. })
    }

    /// Index of the primary field in `collection.fields`.
    pub fn field(&self) -> usize {
        match *self {
            KeyPlan::Single { field, .. } | KeyPlan::Composite { field, .. } | KeyPlan::Auto { field } => field,
        }
    }

    /// The row's key. Refused where a key column is NULL, was not sent, or is an empty text that would be the whole key.
    pub fn key(&self, table: &TablePlan, row: &Row) -> Result<Key, Refusal> {
        match self {
            KeyPlan::Single { column, .. } => {
                let (plan, value) = column_of(table, row, *column);
                if let Read::Int(read) = plan.source.entry().read {
                    let key = match value {
                        Value::Binary(bytes) => read(bytes),
                        Value::Text(text) => number_text(text, "integer"),
                        Value::Null | Value::UnchangedToast => return Err(absent(field_of(table, plan), value)),
                    };
                    return key.map(Key::Int).map_err(|error| refusal(field_of(table, plan), error.to_string()));
                }
                let text = text_of(table, row, *column)?;
                if text.is_empty() {
                    return Err(refusal(field_of(table, plan), "an empty text is no key"));
                }
                Ok(Key::Text(Arc::from(utf8(&text, field_of(table, plan))?)))
            }
            KeyPlan::Composite { columns, .. } => {
                let mut key = String::new();
                for (i, &column) in columns.iter().enumerate() {
                    if i > 0 {
                        key.push('|');
                    }
                    let text = text_of(table, row, column)?;
                    for char in utf8(&text, field_of(table, column_of(table, row, column).0))?.chars() {
                        if matches!(char, '|' | '\\') {
                            key.push('\\');
                        }
                        key.push(char);
                    }
                }
                Ok(Key::Text(Arc::from(key)))
            }
            KeyPlan::Auto { .. } => {
                Err(Refusal { field: None, reason: "its entities are numbered".into(), dead_letter: false })
            }
        }
    }

    /// The key columns as PostgreSQL prints them, in key order: `$1::type` reads each back as the value it was.
    pub fn key_texts(&self, table: &TablePlan, row: &Row) -> Result<Vec<String>, Refusal> {
        self.columns()
            .iter()
            .map(|&column| {
                let text = text_of(table, row, column)?;
                Ok(utf8(&text, field_of(table, column_of(table, row, column).0))?.to_owned())
            })
            .collect()
    }

    /// The same from the key alone. `None` when it is no key of this plan.
    pub fn texts_of(&self, key: &Key) -> Option<Vec<String>> {
        match (self, key) {
            (KeyPlan::Single { .. }, Key::Int(key)) => Some(vec![key.to_string()]),
            (KeyPlan::Single { .. }, Key::Text(key)) => Some(vec![key.to_string()]),
            (KeyPlan::Composite { columns, .. }, Key::Text(key)) => {
                let mut parts = vec![String::new()];
                let mut chars = key.chars();
                while let Some(char) = chars.next() {
                    match char {
                        '|' => parts.push(String::new()),
                        '\\' => parts.last_mut()?.push(chars.next().filter(|c| matches!(c, '|' | '\\'))?),
                        char => parts.last_mut()?.push(char),
                    }
                }
                (parts.len() == columns.len()).then_some(parts)
            }
            (KeyPlan::Composite { .. }, Key::Int(_)) | (KeyPlan::Auto { .. }, _) => None,
        }
    }
}

/// Key of an entity that an INSERT made: `lsn` is that of its change (`Event::Change`). Positive.
pub fn number_of_change(lsn: Lsn) -> Key {
    // PostgreSQL will not have written 8 EiB of WAL.
    Key::Int(i64::try_from(lsn.0).unwrap_or(i64::MAX))
}

/// Key of an entity that the copy made: from where its row is in the table, which the copy's snapshot holds still. Negative,
/// so never that of a change.
pub fn number_of_copied(block: u32, offset: u16) -> Key {
    Key::Int(-(i64::from(block) << 16 | i64::from(offset)) - 1)
}

fn column_of<'a>(table: &'a TablePlan, row: &'a Row, column: usize) -> (&'a ColumnPlan, &'a Value) {
    let plan = table.columns.get(column).expect("a key column is one of the table's columns");
    (plan, row.0.get(column).expect("a row has a value for each column of the plan"))
}

fn text_of(table: &TablePlan, row: &Row, column: usize) -> Result<bytes::Bytes, Refusal> {
    let (plan, value) = column_of(table, row, column);
    match value {
        Value::Null | Value::UnchangedToast => Err(absent(field_of(table, plan), value)),
        value => match plan.source.text(value) {
            Ok(text) => Ok(text.unwrap_or_default()),
            Err(error) => Err(refusal(field_of(table, plan), error.to_string())),
        },
    }
}

/// The name under which Milvus knows the column.
fn field_of<'a>(table: &'a TablePlan, column: &ColumnPlan) -> &'a str {
    &table.collection.fields.get(column.field).expect("a column goes to one of the collection's fields").name
}

fn utf8<'a>(text: &'a [u8], field: &str) -> Result<&'a str, Refusal> {
    let text = str::from_utf8(text).map_err(|_| refusal(field, "the text is not UTF-8"))?;
    if text.contains('\0') { Err(refusal(field, "the text holds a NUL byte")) } else { Ok(text) }
}

fn absent(field: &str, value: &Value) -> Refusal {
    refusal(field, if *value == Value::Null { "a key column is NULL" } else { "a key column was not sent" })
}

fn refusal(field: &str, reason: impl Into<String>) -> Refusal {
    Refusal { field: Some(field.to_owned()), reason: reason.into(), dead_letter: false }
}

#[cfg(test)]
mod tests;
