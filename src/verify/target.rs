//! The entities of one collection, by key and page by page.
//!
//! In: a client of Milvus, a table of the plan. Out: entities whose fields can be compared, and keys in ascending order.
//!
//! Holds: a read that fails for a reason that passes is repeated for a while (`patiently`); a request that is too large for
//! the server is cut in halves. Keys come in strictly ascending order, or it is an error: a page that goes back would
//! hide entities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::milvus::{Class, ColumnData, DYNAMIC_FIELD, FieldColumn, Key, Keys, Milvus, MilvusError, Query, Selection};
use crate::plan::TablePlan;

use super::VerifyError;
use super::compare::Field;

/// Pause after the first attempt of a read; it doubles each time, up to the other.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a read is repeated whose failure the server does not explain.
const UNEXPLAINED_PATIENCE: Duration = Duration::from_secs(10);
/// How long a collection that is not loaded may take to load.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

pub struct Target<'a> {
    client: &'a dyn Milvus,
    collection: &'a str,
    /// How long one read is repeated.
    patience: Duration,
    /// The primary field, then those of the plan's columns.
    fields: Vec<Arc<str>>,
    /// Of each of the plan's columns, its index into `fields`.
    places: Vec<usize>,
}

/// Entities that one read found.
pub struct Entities {
    places: BTreeMap<Key, Place>,
    batches: Vec<Vec<Field>>,
}

#[derive(Clone, Copy)]
pub struct Place {
    batch: usize,
    entity: usize,
    /// The server returned more than one entity of this key.
    pub doubled: bool,
}

impl Entities {
    pub fn find(&self, key: &Key) -> Option<Place> {
        self.places.get(key).copied()
    }
}

impl<'a> Target<'a> {
    pub fn new(client: &'a dyn Milvus, table: &'a TablePlan, patience: Duration) -> Target<'a> {
        let name = |field: usize| -> Arc<str> { Arc::from(table.collection.fields[field].name.as_str()) };
        let mut fields = vec![name(table.key.field())];
        let mut places = Vec::with_capacity(table.columns.len());
        let mut dynamic = None;
        for column in &table.columns {
            if column.field == table.key.field() {
                places.push(0);
            } else if column.is_dynamic() {
                places.push(*dynamic.get_or_insert(fields.len()));
                if fields.len() == dynamic.unwrap_or_default() {
                    fields.push(Arc::from(DYNAMIC_FIELD));
                }
            } else {
                places.push(fields.len());
                fields.push(name(column.field));
            }
        }
        Target { client, collection: &table.collection.name, patience, fields, places }
    }

    /// The field that the plan's column goes to, in an entity of `entities`.
    pub fn field<'e>(&self, entities: &'e Entities, place: Place, column: usize) -> (&'e Field, usize) {
        (&entities.batches[place.batch][self.places[column]], place.entity)
    }

    /// Name of the field that the plan's column goes to.
    pub fn field_name(&self, column: usize) -> &str {
        &self.fields[self.places[column]]
    }

    /// The entities with these keys; absent ones are absent.
    pub async fn entities(&self, keys: &[Key]) -> Result<Entities, VerifyError> {
        let mut found = Entities { places: BTreeMap::new(), batches: Vec::new() };
        let mut open = vec![keys];
        while let Some(keys) = open.pop() {
            if keys.is_empty() {
                continue;
            }
            let asked = split(keys)?;
            let selection = Selection::Keys(&asked);
            match self.query(selection, &self.fields).await {
                Ok(columns) => found.add(keys_of(&columns)?, columns)?,
                Err(error) if error.class() == Class::Split && keys.len() > 1 => {
                    let (left, right) = keys.split_at(keys.len() / 2);
                    open.extend([right, left]);
                }
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(found)
    }

    /// The `limit` smallest keys above `after`, ascending.
    pub async fn keys_after(&self, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, VerifyError> {
        let selection = Selection::After { after, limit };
        let columns = self.query(selection, &self.fields[..1]).await.map_err(|error| self.error(error))?;
        let keys = keys_of(&columns)?;
        let ascends = after.into_iter().chain(&keys).zip(keys.iter().skip(usize::from(after.is_none())));
        if ascends.into_iter().any(|(earlier, later)| earlier >= later) {
            return Err(VerifyError::Unordered { collection: self.collection.to_owned() });
        }
        Ok(keys)
    }

    async fn query(&self, selection: Selection<'_>, fields: &[Arc<str>]) -> Result<Vec<FieldColumn>, MilvusError> {
        let ask = || {
            let selection = selection.clone();
            self.client.query(Query { collection: self.collection, selection, output_fields: fields })
        };
        patiently(self.patience, async || match ask().await {
            Err(error) if error.needs_load() => {
                self.client.load_collection(self.collection, LOAD_TIMEOUT).await?;
                ask().await
            }
            result => result,
        })
        .await
    }

    fn error(&self, error: MilvusError) -> VerifyError {
        VerifyError::Target { collection: self.collection.to_owned(), source: error }
    }
}

/// Reads until it succeeds, fails for good, or has failed for `patience` with errors that pass: a comparison of hours should
/// not end with a restart of a node. An error that nobody explains may be one of the request: that is not repeated for long.
/// Pauses as the server asks, else longer and longer: there is no event to wait for.
pub async fn patiently<T>(
    patience: Duration,
    mut read: impl AsyncFnMut() -> Result<T, MilvusError>,
) -> Result<T, MilvusError> {
    let mut pause = PAUSE;
    let mut failed_first = None;
    loop {
        let error = match read().await {
            Err(error) if matches!(error.class(), Class::Retry | Class::Throttle) => error,
            result => return result,
        };
        let patience = if error.may_be_poison() { patience.min(UNEXPLAINED_PATIENCE) } else { patience };
        let wait = error.retry_after().unwrap_or(pause);
        if Instant::now() + wait > *failed_first.get_or_insert_with(Instant::now) + patience {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

impl Entities {
    fn add(&mut self, keys: Vec<Key>, columns: Vec<FieldColumn>) -> Result<(), VerifyError> {
        let fields: Vec<Field> = columns.into_iter().map(Field::new).collect();
        if fields.iter().any(|field| field.len() != keys.len()) {
            return Err(VerifyError::Answer("fields of different lengths"));
        }
        for (entity, key) in keys.into_iter().enumerate() {
            let place = Place { batch: self.batches.len(), entity, doubled: false };
            self.places.entry(key).and_modify(|earlier| earlier.doubled = true).or_insert(place);
        }
        self.batches.push(fields);
        Ok(())
    }
}

/// Keys of one type as the client wants them.
fn split(keys: &[Key]) -> Result<Keys, VerifyError> {
    let integers: Vec<i64> =
        keys.iter().filter_map(|key| if let Key::Int64(key) = key { Some(*key) } else { None }).collect();
    if integers.len() == keys.len() {
        return Ok(Keys::Int64(integers));
    }
    let texts: Vec<Arc<str>> =
        keys.iter().filter_map(|key| if let Key::VarChar(key) = key { Some(key.clone()) } else { None }).collect();
    if texts.len() == keys.len() { Ok(Keys::VarChar(texts)) } else { Err(VerifyError::Answer("keys of two types")) }
}

/// The keys in the first column.
fn keys_of(columns: &[FieldColumn]) -> Result<Vec<Key>, VerifyError> {
    match columns.first().map(|column| &column.data) {
        Some(ColumnData::Int64(keys)) => Ok(keys.iter().copied().map(Key::Int64).collect()),
        Some(ColumnData::VarChar(keys)) => keys
            .iter()
            .map(|key| match std::str::from_utf8(key) {
                Ok(key) => Ok(Key::VarChar(Arc::from(key))),
                Err(_) => Err(VerifyError::Answer("a key that is not UTF-8")),
            })
            .collect(),
        _ => Err(VerifyError::Answer("no primary field")),
    }
}

#[cfg(test)]
mod tests {
    use crate::milvus::Condition;

    use super::*;

    /// Fails `failures` times, with the shortest pause that a server may ask for (100 ms); says how often it was tried.
    async fn tried(failures: u32, status: u16, patience: Duration) -> (u32, Result<(), Condition>) {
        let mut tries = 0;
        let result = patiently(patience, async || {
            tries += 1;
            if tries > failures {
                return Ok(());
            }
            Err(MilvusError::from_rest("Query", status, None, String::new(), Some(Duration::ZERO)))
        })
        .await;
        (tries, result.map_err(|error| error.condition()))
    }

    #[tokio::test]
    async fn a_read_is_repeated_for_a_time_and_not_a_number_of_times() {
        assert_eq!(tried(9, 503, Duration::from_secs(60)).await, (10, Ok(())));
        assert_eq!(tried(9, 429, Duration::from_secs(60)).await, (10, Ok(())));
        let (tries, result) = tried(u32::MAX, 503, Duration::from_millis(250)).await;
        assert!((1..=3).contains(&tries), "{tries}");
        assert_eq!(result, Err(Condition::Unavailable));
        assert_eq!(tried(9, 401, Duration::from_secs(60)).await, (1, Err(Condition::Unauthenticated)));
    }
}
