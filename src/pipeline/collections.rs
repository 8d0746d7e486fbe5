//! Collections at the target: made as the plan says, or found and compared. Nothing is written before all of them fit.

use std::time::Duration;

use crate::milvus::{Class, Milvus, MilvusError};
use crate::plan::{self, TablePlan};

/// How long a collection may take to be loaded.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// A collection cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectionError {
    #[error("collection {collection:?} exists and does not fit table {table}: {}; drop or rename it, or set another `collection` for the table", differences.join("; "))]
    Different { table: String, collection: String, differences: Vec<String> },
    #[error(
        "collection {collection:?} is gone, and with it what {table} was copied into it: restore it, or copy everything anew by moving state.path away, dropping the slot and running again"
    )]
    Missing { table: String, collection: String },
    #[error(
        "collection {collection:?} exists and is not loaded, so nobody can see whether it is empty for {table}; load or drop it, or set another `collection`"
    )]
    NotLoaded { table: String, collection: String },
    #[error(
        "collection {collection:?} already holds {rows} entities and walvec has not copied {table} into it; empty or drop it, or set another `collection`"
    )]
    NotEmpty { table: String, collection: String, rows: u64 },
    #[error("collection {collection:?} of table {table} cannot be prepared")]
    Milvus {
        table: String,
        collection: String,
        #[source]
        error: MilvusError,
    },
}

impl CollectionError {
    /// Worth trying again as it is?
    pub fn is_transient(&self) -> bool {
        matches!(self, CollectionError::Milvus { error, .. } if matches!(error.class(), Class::Retry | Class::Throttle))
    }
}

/// Make the table's collection ready for writing. `known`: walvec has written to it before, so it may hold entities.
pub(super) async fn prepare(milvus: &dyn Milvus, table: &TablePlan, known: bool) -> Result<(), CollectionError> {
    let name = &table.collection.name;
    let failed = |error| CollectionError::Milvus { table: table.qualified_name(), collection: name.clone(), error };
    let found = milvus.describe_collection(name).await.map_err(failed)?;
    let created = found.is_none();
    let existing = match found {
        Some(existing) => existing,
        // Made anew it would be empty, and what was copied before would be taken for there.
        None if known => {
            return Err(CollectionError::Missing { table: table.qualified_name(), collection: name.clone() });
        }
        None => {
            milvus.create_collection(&table.collection).await.map_err(failed)?;
            tracing::info!(collection = %name, table = %table.qualified_name(), "collection created");
            // Described again: older servers drop what they do not know without a word.
            milvus.describe_collection(name).await.map_err(failed)?.unwrap_or_else(|| table.collection.clone())
        }
    };
    let differences = plan::differences(table, &existing);
    if !differences.is_empty() {
        let (table, collection) = (table.qualified_name(), name.clone());
        return Err(CollectionError::Different { table, collection, differences });
    }
    let indexed = milvus.describe_indexes(name).await.map_err(failed)?;
    for index in &table.indexes {
        if !indexed.iter().any(|there| there.field == index.spec.field) {
            milvus.create_index(name, &index.spec).await.map_err(failed)?;
            tracing::info!(collection = %name, field = %index.spec.field, index_type = %index.spec.index_type,
                metric_type = %index.spec.metric_type, "index created");
        }
    }
    if !table.indexes.is_empty() {
        milvus.load_collection(name, LOAD_TIMEOUT).await.map_err(failed)?;
    }
    if !known && !created {
        let rows = match milvus.count(name).await {
            Err(error) if error.needs_load() => {
                return Err(CollectionError::NotLoaded { table: table.qualified_name(), collection: name.clone() });
            }
            counted => counted.map_err(failed)?,
        };
        if rows > 0 {
            return Err(CollectionError::NotEmpty { table: table.qualified_name(), collection: name.clone(), rows });
        }
    }
    Ok(())
}
