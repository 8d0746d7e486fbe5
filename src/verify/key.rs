//! From the texts of a row's key columns to the key of its entity, and back.
//!
//! Holds: written from the description of the encoding alone (several key columns are joined by `|`, with `\` and
//! `|` inside a part written `\\` and `\|`), not with the code that writes the keys: a mistake there must show here.

use std::borrow::Cow;
use std::sync::Arc;

use crate::milvus::{DataType, Key};
use crate::plan::{KeyPlan, TablePlan};

/// How key columns and primary field belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// One integer column, an INT64 field.
    Integer,
    /// One column of another type, its text a VARCHAR field.
    Text,
    /// So many columns, joined into a VARCHAR field.
    Joined(usize),
}

impl KeyShape {
    pub fn of(table: &TablePlan) -> KeyShape {
        match &table.key {
            KeyPlan::Composite { columns, .. } => KeyShape::Joined(columns.len()),
            KeyPlan::Single { field, .. } => match table.collection.fields[*field].data_type {
                DataType::Int64 => KeyShape::Integer,
                _ => KeyShape::Text,
            },
            KeyPlan::Auto { .. } => KeyShape::Joined(0), // no row has such a key
        }
    }

    /// The key of the row whose key columns PostgreSQL prints like this. `None`: no entity can have such a key.
    pub fn key(self, texts: &[&str]) -> Option<Key> {
        match (self, texts) {
            (KeyShape::Integer, [text]) => text.parse().ok().map(Key::Int64),
            (KeyShape::Text, [text]) => Some(Key::VarChar(Arc::from(*text))),
            (KeyShape::Joined(count), texts) if texts.len() == count => {
                let parts: Vec<_> = texts.iter().map(|part| part.replace('\\', r"\\").replace('|', r"\|")).collect();
                Some(Key::VarChar(Arc::from(parts.join("|"))))
            }
            _ => None,
        }
    }

    /// The texts that make this key. `None`: the key is not of this shape, so no row has it.
    pub fn texts(self, key: &Key) -> Option<Vec<Cow<'_, str>>> {
        match (self, key) {
            (KeyShape::Integer, Key::Int64(key)) => Some(vec![Cow::Owned(key.to_string())]),
            (KeyShape::Text, Key::VarChar(key)) => Some(vec![Cow::Borrowed(&**key)]),
            (KeyShape::Joined(count), Key::VarChar(key)) => {
                let mut parts = vec![String::new()];
                let mut characters = key.chars();
                while let Some(character) = characters.next() {
                    match character {
                        '|' => parts.push(String::new()),
                        '\\' => parts.last_mut()?.push(characters.next().filter(|&next| next == '\\' || next == '|')?),
                        _ => parts.last_mut()?.push(character),
                    }
                }
                (parts.len() == count).then(|| parts.into_iter().map(Cow::Owned).collect())
            }
            _ => None,
        }
    }
}

/// As it would be typed into a Milvus filter.
pub fn display(key: &Key) -> String {
    match key {
        Key::Int64(key) => key.to_string(),
        Key::VarChar(key) => format!("{key:?}"),
    }
}

/// Bytes that a key holds in memory.
pub fn size(key: &Key) -> usize {
    size_of::<Key>()
        + match key {
            Key::Int64(_) => 0,
            Key::VarChar(key) => key.len() + 16,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_joined_as_documented() {
        let shape = KeyShape::Joined(2);
        for (texts, joined) in [(["7", "a"], "7|a"), (["", ""], "|"), (["a|b", r"c\"], r"a\|b|c\\")] {
            let key = Key::VarChar(Arc::from(joined));
            assert_eq!(shape.key(&texts), Some(key.clone()));
            assert_eq!(shape.texts(&key).expect("decodes"), texts);
        }
        for joined in ["", "a", "a|b|c", r"a|b\", r"a\n|b"] {
            assert_eq!(shape.texts(&Key::VarChar(Arc::from(joined))), None, "{joined}");
        }
        assert_eq!(KeyShape::Integer.key(&["-9223372036854775808"]), Some(Key::Int64(i64::MIN)));
        assert_eq!(KeyShape::Integer.texts(&Key::Int64(i64::MIN)).expect("decodes"), ["-9223372036854775808"]);
        assert_eq!(KeyShape::Integer.texts(&Key::VarChar(Arc::from("1"))), None);
        assert_eq!(KeyShape::Text.key(&["a|b"]), Some(Key::VarChar(Arc::from("a|b"))));
    }

    proptest! {
        #[test]
        fn joining_loses_nothing(texts in prop::collection::vec(r"[a|\\]{0,4}|\PC*", 2..4)) {
            let shape = KeyShape::Joined(texts.len());
            let key = shape.key(&texts.iter().map(String::as_str).collect::<Vec<_>>()).expect("a key");
            prop_assert_eq!(shape.texts(&key).expect("decodes"), texts);
        }
    }
}
