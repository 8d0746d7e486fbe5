//! Dead letters: what is known of rows that the target will not take.
//!
//! In: what the pipeline has made durable. Out: lists for the admin server. Holds: what is listed is on disk.
//!
//! Not here: when a row becomes a letter (`engine::letters`), how one is kept (`checkpoint`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::commands::Which;
use crate::mutation::Key;
use serde::{Deserialize, Serialize};

/// What is kept of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The field that does not fit; `None` when the server refused the row.
    #[serde(default)]
    pub field: Option<String>,
    /// One sentence without the value.
    pub reason: String,
    /// What the source had written when the row was read, as PostgreSQL prints it.
    pub lsn: String,
    pub origin: Origin,
    /// Of the first refusal.
    pub unix_seconds: u64,
    /// How often the row was refused for good.
    pub attempts: u32,
    /// Its values as text, in the order of the columns, as far as `dead_letter_payload_bytes` goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<(String, String)>,
}

/// What brought the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Copy,
    Stream,
}

/// A letter with its place, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// `schema.table`.
    pub table: String,
    /// As text, unquoted.
    pub key: String,
    #[serde(flatten)]
    pub letter: Letter,
}

/// A table's letters.
pub type TableLetters = BTreeMap<Key, Letter>;

/// Every letter on disk, by table.
#[derive(Debug, Default)]
pub struct Letters {
    tables: Mutex<BTreeMap<String, TableLetters>>,
}

impl Letters {
    pub fn load(&self, saved: BTreeMap<String, TableLetters>) {
        *self.lock() = saved;
    }

    /// In place of the letter that the key may have.
    pub fn keep(&self, table: &str, key: Key, letter: Letter) {
        drop(self.lock().entry(table.to_owned()).or_default().insert(key, letter));
    }

    /// `None`: all of the table.
    pub fn clear(&self, table: &str, key: Option<&Key>) {
        let mut tables = self.lock();
        match key {
            None => drop(tables.remove(table)),
            Some(key) => drop(tables.get_mut(table).map(|letters| letters.remove(key))),
        }
    }

    pub fn clear_all(&self) {
        self.lock().clear();
    }

    pub fn get(&self, table: &str, key: &Key) -> Option<Letter> {
        self.lock().get(table)?.get(key).cloned()
    }

    pub fn keys(&self, table: &str) -> Vec<Key> {
        self.lock().get(table).into_iter().flat_map(|letters| letters.keys().cloned()).collect()
    }

    /// How many, and when the oldest was refused first, in seconds since 1970.
    pub fn summary(&self, table: &str) -> (usize, Option<u64>) {
        let tables = self.lock();
        let letters = tables.get(table);
        let oldest = letters.into_iter().flatten().map(|(_, letter)| letter.unix_seconds).min();
        (letters.map_or(0, BTreeMap::len), oldest)
    }

    pub fn matching(&self, which: &Which) -> Vec<(String, Key)> {
        let tables = self.lock();
        let each = tables.iter().flat_map(|(table, letters)| letters.keys().map(move |key| (table, key)));
        each.filter(|(table, key)| which.includes(table, key))
            .map(|(table, key)| (table.clone(), key.clone()))
            .collect()
    }

    pub fn list(&self, which: &Which) -> Vec<Listed> {
        list(&self.lock(), which)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, TableLetters>> {
        // Nothing panics while it is held.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By table and key.
pub fn list(tables: &BTreeMap<String, TableLetters>, which: &Which) -> Vec<Listed> {
    let each = tables.iter().flat_map(|(table, letters)| letters.iter().map(move |(key, letter)| (table, key, letter)));
    each.filter(|(table, key, _)| which.includes(table, key))
        .map(|(table, key, letter)| Listed { table: table.clone(), key: key.plain(), letter: letter.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(unix_seconds: u64) -> Letter {
        Letter {
            field: None,
            reason: "no".into(),
            lsn: "0/10".into(),
            origin: Origin::Stream,
            unix_seconds,
            attempts: 1,
            payload: Vec::new(),
        }
    }

    #[test]
    fn letters_are_found_by_table_and_by_key_as_a_person_types_it() {
        let letters = Letters::default();
        letters.keep("public.a", Key::Int(7), letter(30));
        letters.keep("public.a", Key::Int(8), letter(20));
        letters.keep("public.b", Key::Text("7|\\x".into()), letter(10));
        let found = |table: Option<&str>, key: Option<&str>| {
            let which = Which { table: table.map(Into::into), key: key.map(Into::into) };
            letters.list(&which).into_iter().map(|listed| listed.table + "/" + &listed.key).collect::<Vec<_>>()
        };
        assert_eq!(found(None, None), ["public.a/7", "public.a/8", "public.b/7|\\x"]);
        assert_eq!(found(Some("public.a"), Some("8")), ["public.a/8"]);
        assert_eq!(found(None, Some("7|\\x")), ["public.b/7|\\x"]);
        assert_eq!(letters.summary("public.a"), (2, Some(20)));
        letters.clear("public.a", Some(&Key::Int(8)));
        assert_eq!(letters.summary("public.a"), (1, Some(30)));
        letters.clear("public.a", None);
        assert_eq!(letters.summary("public.a"), (0, None));
    }
}
