//! The simulated Milvus: one collection a table, keyed upserts and deletes, no order between the keys of a request.
//!
//! Holds, as in the real one: every key of a request is applied by itself (each is a shard of its own); an answer may
//! get lost after any part was applied, and what was not may still be applied until the request's deadline is over,
//! also when its client is long dead; a row that does not fit is refused, whatever the others do.

use crate::change::Value;
use crate::mutation::{Key, Mutations};

use super::script::{BODY, KEYS, SCALAR, TABLES, VECTOR};

/// By column; index 0, the key, is not used, nor is `BODY` in a narrow table.
pub(super) type Entity = [u16; 4];
pub(super) type Collection = [Option<Entity>; KEYS];

/// One key's share of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    Upsert {
        table: usize,
        key: usize,
        entity: Entity,
    },
    Delete {
        table: usize,
        key: usize,
    },
    /// The whole collection, for TRUNCATE.
    Clear {
        table: usize,
    },
}

/// A share that a lost attempt left behind: it may be applied while the time is before `until`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(super) mutation: Mutation,
    pub(super) until: u64,
}

#[derive(Default)]
pub(super) struct Target {
    pub(super) collections: [Collection; TABLES],
    pub(super) late: Vec<Late>,
    /// Poisoned rows are taken from now on.
    pub(super) healed: bool,
}

impl Target {
    /// False: refused.
    pub(super) fn apply(&mut self, mutation: Mutation, poisoned: impl Fn(u16) -> bool) -> bool {
        match mutation {
            Mutation::Upsert { entity, .. } if !self.healed && poisoned(entity[SCALAR]) => return false,
            Mutation::Upsert { table, key, entity } => self.collections[table][key] = Some(entity),
            Mutation::Delete { table, key } => self.collections[table][key] = None,
            Mutation::Clear { table } => self.collections[table] = Collection::default(),
        }
        true
    }
}

/// How keys and values look to the engine.
#[derive(Clone, Copy)]
pub(super) struct Codec {
    /// Moves the keys to other lanes.
    pub(super) salt: i64,
    pub(super) wide: bool,
}

impl Codec {
    pub(super) fn columns(&self) -> usize {
        if self.wide { BODY + 1 } else { VECTOR + 1 }
    }

    /// The first table has integer keys, the second text.
    pub(super) fn key(&self, table: usize, key: usize) -> Key {
        match table {
            0 => Key::Int(self.salt + key as i64),
            _ => Key::Text(format!("{}:{key}", self.salt).into()),
        }
    }

    pub(super) fn key_number(&self, key: &Key) -> usize {
        match key {
            Key::Int(key) => (key - self.salt) as usize,
            Key::Text(key) => key.rsplit(':').next().and_then(|n| n.parse().ok()).expect("a key made by this codec"),
        }
    }

    pub(super) fn value(&self, value: u16) -> Value {
        Value::Binary(bytes::Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    /// A request, key by key. The error is a broken promise of `Mutations`.
    pub(super) fn mutations(&self, table: usize, mutations: &Mutations) -> Result<Vec<Mutation>, String> {
        let mut all = Vec::with_capacity(mutations.len());
        for (key, row) in &mutations.upserts {
            let mut entity = Entity::default();
            if row.0.len() != self.columns() || row.0[0] != self.key_value(key) {
                return Err(format!("the row of key {key} is not one of this table"));
            }
            for (column, value) in row.0.iter().enumerate().skip(SCALAR) {
                let Value::Binary(value) = value else {
                    return Err(format!("the upsert of key {key} lacks column {column}"));
                };
                entity[column] = u16::from_be_bytes([value[0], value[1]]);
            }
            all.push(Mutation::Upsert { table, key: self.key_number(key), entity });
        }
        all.extend(mutations.deletes.iter().map(|key| Mutation::Delete { table, key: self.key_number(key) }));
        Ok(all)
    }

    pub(super) fn key_value(&self, key: &Key) -> Value {
        Value::Text(key.to_string().into())
    }
}

impl Mutation {
    pub(super) fn key(&self) -> Option<(usize, usize)> {
        match *self {
            Mutation::Upsert { table, key, .. } | Mutation::Delete { table, key } => Some((table, key)),
            Mutation::Clear { .. } => None,
        }
    }
}
