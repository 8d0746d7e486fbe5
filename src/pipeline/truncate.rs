//! TRUNCATE at the target, in steps: read keys, delete them, until a Strong read finds none (Z).
//!
//! The engine asks for it when the table's lanes are idle and settled, and the stream waits meanwhile. A step without
//! an answer is waited out before the next read, so that nothing of it lands on rows that come later.

use std::sync::Arc;
use std::time::Duration;

use crate::change::TableId;
use crate::milvus::{Class, ColumnData, FieldColumn, Keys, Query, Selection};

use super::clock::Backoff;
use super::requests::{FatalRequest, Target};

/// Keys deleted in one step.
const STEP_ROWS: usize = 5_000;

impl Target {
    /// Empty the table's collection.
    pub(super) async fn empty(&self, table: TableId) -> Result<(), FatalRequest> {
        let collection = &self.collections[table.0 as usize];
        let fields = [Arc::<str>::from(collection.primary_field.as_str())];
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        // A step got no answer: its time is over, but a server that slept may carry it out when it wakes.
        let mut unanswered = false;
        loop {
            let query = Query {
                collection: &collection.name,
                selection: Selection::After { after: None, limit: STEP_ROWS },
                output_fields: &fields,
            };
            let step = match self.milvus.query(query).await {
                Ok(_) if unanswered => {
                    unanswered = false;
                    tokio::time::sleep(self.margin).await; // counted from its first answer
                    continue;
                }
                Ok(columns) => match keys_in(columns) {
                    Some(keys) => self.milvus.delete(&collection.name, &collection.primary_field, &keys).await,
                    None => return Ok(()),
                },
                // A server that was started again, or a person who released it: nobody could see whether it is empty.
                Err(error) if error.needs_load() => {
                    tracing::info!(collection = collection.name, "not loaded, and to be emptied: it is loaded");
                    let loaded = self.milvus.load_collection(&collection.name, self.deadline).await;
                    // One without an index cannot be: whoever makes it will load it, and that is waited for as before.
                    loaded.map_err(|why| {
                        tracing::warn!(
                            collection = collection.name,
                            error = &why as &dyn std::error::Error,
                            "it could not be loaded"
                        );
                        error
                    })
                }
                Err(error) => Err(error),
            };
            match step {
                Ok(()) => {
                    self.calm();
                    backoff.reset();
                }
                Err(error) => {
                    self.complain(&collection.name, &error);
                    if error.outcome_unknown() {
                        unanswered = true;
                        tokio::time::sleep(self.deadline + self.margin).await;
                    }
                    match error.class() {
                        Class::Retry | Class::Throttle | Class::SchemaStale => tokio::time::sleep(backoff.next()).await,
                        Class::Split | Class::Poison | Class::Fatal => {
                            let collection = collection.name.clone();
                            return Err(FatalRequest {
                                table,
                                collection,
                                request: None,
                                keys: Vec::new(),
                                may_land_until: None,
                                error,
                            });
                        }
                    }
                }
            }
        }
    }
}

fn keys_in(columns: Vec<FieldColumn>) -> Option<Keys> {
    let keys = match columns.into_iter().next()?.data {
        ColumnData::Int64(keys) => Keys::Int64(keys),
        ColumnData::VarChar(keys) => {
            Keys::VarChar(keys.iter().map(|key| Arc::from(String::from_utf8_lossy(key).as_ref())).collect())
        }
        _ => return None,
    };
    (!keys.is_empty()).then_some(keys)
}
