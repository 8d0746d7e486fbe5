//! What must happen in Milvus: the key of an entity and the mutations of one request.

use std::fmt;
use std::sync::Arc;

use crate::change::Row;

/// The primary key of an entity, as Milvus holds it. Compared bytewise: two spellings of a value are two keys,
/// exactly as they are two entities in a collection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Int(i64),
    Text(Arc<str>),
}

impl Key {
    /// Bytes that the key holds on the heap, for the memory budget.
    pub fn heap_size(&self) -> usize {
        match self {
            Key::Int(_) => 0,
            Key::Text(text) => text.len() + 16,
        }
    }

    /// As a person types it on a command line. A table's keys are of one kind, so nothing is ambiguous.
    pub fn plain(&self) -> String {
        match self {
            Key::Int(key) => key.to_string(),
            Key::Text(key) => key.to_string(),
        }
    }
}

/// As an operator would type it into a filter; text is quoted.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Int(key) => write!(f, "{key}"),
            Key::Text(key) => write!(f, "{key:?}"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The mutations of one request to one collection. Upsert keys and delete keys are disjoint, each key occurs once:
/// their order is free.
#[derive(Clone, Debug, Default)]
pub struct Mutations {
    /// Complete rows: no value is `UnchangedToast`.
    pub upserts: Vec<(Key, Row)>,
    pub deletes: Vec<Key>,
}

impl Mutations {
    pub fn len(&self) -> usize {
        self.upserts.len() + self.deletes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.deletes.is_empty()
    }
}

/// Why a row cannot be an entity of the collection: by our own guards or by the server's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field that does not fit, when it is known.
    pub field: Option<String>,
    /// One sentence without the value itself.
    pub reason: String,
    /// By policy the row becomes a dead letter instead of stopping its table.
    pub dead_letter: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "field {field:?}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}
