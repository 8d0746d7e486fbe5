//! Tables that changed under their collections: what a session has to do about each before it begins.
//!
//! In: the catalog, and the collections that tables were copied into. Out: for each such table one step; settings of the catalog
//! are adapted where a new column is left out. A table that does not fit is no reason for the others to wait: it is stopped alone, and
//! keeps its place in the WAL.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::Lsn;
use crate::checkpoint::TableState;
use crate::config::settings::OnSchemaChange;
use crate::milvus::{FieldSchema, ServerInfo};
use crate::plan::evolve::{Evolution, evolve};
use crate::plan::{self, Plan, TablePlan};

use super::catalog::Catalog;
use super::collections::CollectionError;
use super::{Process, RunError, startup};

/// What is to be done about a table that was copied before.
#[derive(Debug)]
pub(super) enum Step {
    /// It does not fit, for this reason, or has stopped before and was let go: it stops.
    Stop(String),
    /// Its collection gets these fields first. `backfill`: rows of before may have values in them.
    AddFields { fields: Vec<FieldSchema>, backfill: bool },
    /// Its collection is dropped and made anew, for this reason.
    Resync(String),
}

pub(super) type Steps = BTreeMap<String, Step>;

/// Tables that nothing has to be done about are absent.
pub(super) async fn steps(process: &Process, catalog: &mut Catalog, server: &ServerInfo) -> Result<Steps, RunError> {
    let mut steps = Steps::new();
    for (table, settings) in catalog.iter_mut() {
        let name = table.qualified_name();
        let Some(saved) = process.tables.get(&name) else { continue };
        let plannable = plan::build(&[(table.clone(), settings.clone())], server).is_ok();
        let unfit = |reason: String| match settings.on_schema_change {
            // What cannot be planned cannot be copied either.
            _ if plannable && saved.is_asked_anew() => Step::Resync(reason),
            OnSchemaChange::Resync if plannable => Step::Resync(reason),
            OnSchemaChange::Resync | OnSchemaChange::Stop => Step::Stop(reason),
        };
        if let Some(reason) = &saved.let_go {
            let anew = plannable && saved.oid != table.oid && settings.on_schema_change == OnSchemaChange::Resync;
            let step = if anew { Step::Resync(reason.clone()) } else { Step::Stop(reason.clone()) };
            steps.insert(name, step);
            continue;
        }
        if let Some(reason) = process.unfit.get(&name).filter(|_| plannable) {
            // The stream found it, and nothing but a new copy leads behind that place in the stream.
            steps.insert(name, Step::Resync(reason.clone()));
            continue;
        }
        if settings.auto_id && plannable && (!saved.copied || saved.is_asked_anew()) {
            // Without keys, what an interrupted copy left cannot be told from what a new one brings.
            let reason = "rows without a key are copied under one snapshot, from beginning to end";
            steps.insert(name, Step::Resync(reason.into()));
            continue;
        }
        if saved.oid != table.oid {
            let collection = &saved.collection;
            let step = unfit(format!(
                "it was dropped and created again, and collection {collection:?} still has its old rows: set `on_schema_change = \
                 \"resync\"`, or start with an empty state, a new slot and another collection"
            ));
            steps.insert(name, step);
            continue;
        }
        let failed =
            |error| CollectionError::Milvus { table: name.clone(), collection: saved.collection.clone(), error };
        let Some(existing) = process.milvus.describe_collection(&saved.collection).await.map_err(failed)? else {
            if let step @ Step::Resync(_) = unfit("its collection is gone".into()) {
                steps.insert(name, step);
            }
            continue;
        };
        let step = match evolve(table, settings, &existing, server) {
            Evolution::Fits(adapted) => {
                if adapted.exclude.len() > settings.exclude.len() {
                    let columns = adapted.exclude.get(settings.exclude.len()..).unwrap_or_default().join(", ");
                    tracing::warn!(table = %name, %columns, "columns are new and not followed: `on_add_column` says what happens to them");
                }
                let changed = moved(saved, table, &adapted, server);
                let step = changed.map(unfit).filter(|step| matches!(step, Step::Resync(_)));
                *settings = adapted;
                step
            }
            Evolution::AddFields { settings: adapted, fields, columns } => {
                // Seen while it was followed, every change since has its value; else some may have been passed over.
                let noticed =
                    process.noticed.get(&name).is_some_and(|noticed| columns.iter().all(|c| noticed.contains(c)));
                let is_new = |name: &String| columns.contains(name);
                let has_default = table.columns.iter().any(|column| is_new(&column.name) && column.has_default);
                *settings = adapted;
                let backfill = has_default || !noticed;
                Some(match settings.auto_id && backfill {
                    true => Step::Resync(
                        "new columns have values in old rows, and those have no key to be written again by".into(),
                    ),
                    false => Step::AddFields { fields, backfill },
                })
            }
            Evolution::Unfit(reason) => Some(unfit(reason)),
        };
        if let Some(step) = step {
            steps.insert(name, step);
        }
    }
    Ok(steps)
}

/// Key or row filter are others than those that the collection was filled with.
fn moved(
    saved: &TableState,
    table: &crate::postgres::catalog::Table,
    settings: &crate::config::TableSettings,
    server: &ServerInfo,
) -> Option<String> {
    let plan = plan::build(&[(table.clone(), settings.clone())], server).ok()?.tables.into_iter().next()?;
    let key = plan.key_names();
    if !saved.key.is_empty() && saved.key != key {
        return Some("its key is made from other columns".into());
    }
    // A copy that goes over the collection and sweeps it leaves what the new filter lets through.
    (saved.row_filter != plan.row_filter && !saved.is_asked_anew()).then(|| "its row filter is another".into())
}

/// The plan, with a placeholder for each table that stops.
pub(super) fn make_plan(
    process: &Process,
    catalog: &Catalog,
    server: &ServerInfo,
    steps: &Steps,
) -> Result<Plan, RunError> {
    let stops = |name: &str| matches!(steps.get(name), Some(Step::Stop(_)));
    let fit: Catalog = catalog.iter().filter(|(table, _)| !stops(&table.qualified_name())).cloned().collect();
    let mut planned = match fit.is_empty() {
        true => Vec::new(),
        false => startup::make_plan(&process.settings, &fit, server)?.tables,
    }
    .into_iter();
    let mut tables = Vec::with_capacity(catalog.len());
    for (i, (table, settings)) in catalog.iter().enumerate() {
        let id = crate::change::TableId(u32::try_from(i).expect("fewer than 2^32 tables"));
        let name = table.qualified_name();
        tables.push(match process.tables.get(&name).filter(|_| stops(&name)) {
            Some(saved) => plan::evolve::placeholder(id, table.oid, table, settings, &saved.collection),
            None => TablePlan { id, ..planned.next().expect("a plan for each table that does not stop") },
        });
    }
    Ok(Plan { tables })
}

/// Carry out what a table needs before its collection is looked at.
pub(super) async fn carry_out(process: &mut Process, name: &str, step: &Step, planned_at: Lsn) -> Result<(), RunError> {
    let Some(saved) = process.tables.get(name).cloned() else { return Ok(()) };
    let collection = saved.collection.clone();
    let failed = |error| CollectionError::Milvus { table: name.to_owned(), collection: collection.clone(), error };
    match step {
        Step::Stop(_) => {}
        Step::AddFields { fields, backfill } => {
            if *backfill {
                // First: once a field is there, nobody could tell that rows of before still lack their value.
                let anew = TableState { copied: false, leaves: Vec::new(), ..saved };
                process.store.put_table(name, anew.clone()).await?;
                process.tables.insert(name.to_owned(), anew);
            }
            for field in fields {
                process.milvus.add_field(&collection, field).await.map_err(failed)?;
                tracing::info!(table = name, collection, field = field.name, backfill, "field added");
            }
        }
        Step::Resync(reason) => {
            // What was sent before may still arrive, and would write old rows into the new collection.
            while process.clock.now() < process.quiet_until {
                let wait = process.quiet_until.saturating_sub(process.clock.now());
                tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            }
            tracing::warn!(
                table = name,
                collection,
                reason,
                "the collection is dropped, made anew and copied into again"
            );
            // Changes up to there will be skipped: a server that lost some of them would write others in their place (G).
            process.store.raise_sent_limit(planned_at).await?;
            if let Some(source) = &mut process.source {
                source.sent_limit = source.sent_limit.max(planned_at);
            }
            process.milvus.drop_collection(&collection).await.map_err(failed)?;
            process.store.remove_table(name).await?;
            process.tables.remove(name);
            process.letters.clear(name, None);
        }
    }
    Ok(())
}

/// Why the stream could not be followed, of tables whose policy is to begin anew.
pub(super) type Unfit = BTreeMap<String, String>;

/// Columns that came while their table was followed, by table.
pub(super) type Noticed = BTreeMap<String, BTreeSet<String>>;
