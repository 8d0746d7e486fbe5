//! `walvec verify`: is every collection equal to its table, row by row and value by value?
//!
//! In: the settings, as the daemon has them. Out: a report of missing, extra and different keys with the fields that
//! differ. Values are never shown.
//!
//! Holds: all mapped columns of all rows are compared, not counts and not samples (where entities are numbered there is nothing but
//! counts to compare, and the report says so); memory is constant; the daemon may run
//! and the source may be written to meanwhile: a difference is only reported when it cannot be lag (`table` says why).
//! It is the oracle of the tests, so it shares no conversion with the write path: PostgreSQL's own output functions give
//! the text, small parsers here read it (`compare`), and the key of an entity is made from its description (`key`).
//! Common to both are the plan (which column goes to which field, as what type) and the client of Milvus.
//!
//! Not here: mending what is found.

mod array;
mod compare;
mod count;
mod fence;
mod fit;
mod json;
mod key;
mod moment;
mod source;
mod table;
mod target;

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::config::{Settings, TableSettings};
use crate::milvus::MilvusError;
use crate::plan::evolve::{Evolution, evolve};
use crate::plan::{Plan, PlanRefusal};
use crate::postgres::PostgresError;
use crate::postgres::catalog::Table;

use count::Count;
use fence::{Fence, TableState};
use source::Source;
use table::Comparison;
use target::{Target, patiently};

#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Only these tables, by `schema.table` (or `table` in `public`); empty: all of the configuration.
    pub tables: Vec<String>,
    /// Differences that are listed per table; all are counted.
    pub list_max: usize,
    /// How often a suspected key is looked at again while its row keeps changing.
    pub rounds: u32,
    /// How long to wait for the daemon (for a table to follow, and for the fences of one batch of suspects), and for a target
    /// that does not answer any more.
    pub timeout: Duration,
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions { tables: Vec::new(), list_max: 100, rounds: 10, timeout: Duration::from_secs(120) }
    }
}

/// What is being done, for a progress line.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// `schema.table`.
    pub table: &'a str,
    pub step: Step,
    /// Rows or entities so far; keys that are looked at again.
    pub done: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Rows,
    Entities,
    Recheck,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// A daemon was at work: differences were told from its lag. False: both sides were compared as they are.
    pub daemon: bool,
    pub tables: Vec<TableReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Equal,
    Different,
    /// No difference is certain, but for some keys it could not be told.
    Undecided,
}

impl Report {
    pub fn verdict(&self) -> Verdict {
        let verdicts = || self.tables.iter().map(TableReport::verdict);
        match (verdicts().any(|v| v == Verdict::Different), verdicts().any(|v| v == Verdict::Undecided)) {
            (true, _) => Verdict::Different,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Equal,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct TableReport {
    /// `schema.table`.
    pub table: String,
    pub collection: String,
    pub rows_compared: u64,
    pub entities_compared: u64,
    /// Its entities are numbered: they were counted, not compared.
    pub counted: bool,
    /// Keys that differed at first sight.
    pub rechecked: u64,
    /// Rows without an entity.
    pub missing: u64,
    /// Entities without a row.
    pub extra: u64,
    /// Entities that are not what their row is.
    pub different: u64,
    /// Keys whose row kept changing, or that the daemon did not get to in time.
    pub undecided: u64,
    /// The daemon did not pass a fence in time.
    pub fence_not_passed: bool,
    /// Why the daemon gave the table up, if it did.
    pub stopped: Option<String>,
    /// Rows that the daemon has set aside; those that only the server refused are among the missing.
    pub dead_letters: u64,
    /// The first of the differences.
    pub differences: Vec<Difference>,
}

impl TableReport {
    pub fn verdict(&self) -> Verdict {
        match (self.missing + self.extra + self.different, self.undecided) {
            (0, 0) => Verdict::Equal,
            (0, _) => Verdict::Undecided,
            _ => Verdict::Different,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// As it would be typed into a Milvus filter.
    pub key: String,
    pub kind: DifferenceKind,
    /// Fields that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A row without an entity.
    Missing,
    /// An entity without a row.
    Extra,
    Different,
    /// The collection returns several entities of the key.
    Doubled,
    Undecided,
}

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot reach the source")]
    Connect(#[source] PostgresError),
    #[error("the source did not answer a query")]
    Source(#[source] tokio_postgres::Error),
    #[error("cannot reach the target")]
    ConnectTarget(#[source] MilvusError),
    #[error("the target did not answer a query of collection {collection:?}")]
    Target { collection: String, source: MilvusError },
    #[error("cannot build a client for the admin address")]
    Http(#[source] reqwest::Error),
    #[error("no table {0:?} in the configuration")]
    NoSuchTable(String),
    #[error("the tables do not fit a plan: {}", sentences(.0))]
    Plan(Vec<PlanRefusal>),
    #[error("table {table} has no collection {collection:?} yet: has `walvec run` been started?")]
    NoCollection { table: String, collection: String },
    #[error("table {table} is no longer what collection {collection:?} was made for: {}; exclude a new column, or name another collection", differences.join("; "))]
    Unfit { table: String, collection: String, differences: Vec<String> },
    #[error("table {table} is not followed by the daemon yet (phase: {phase})")]
    NotFollowing { table: String, phase: String },
    #[error("a row of table {table} has a key that no entity can have")]
    Key { table: String },
    #[error("collection {collection:?} does not return its keys in order")]
    Unordered { collection: String },
    #[error("unexpected answer: {0}")]
    Answer(&'static str),
}

fn sentences(refusals: &[PlanRefusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Compare every table of the settings (or those of the options) with its collection.
///
/// Errors mean that the comparison could not be made; what differs is in the report.
pub async fn verify(
    settings: &Settings,
    options: VerifyOptions,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, VerifyError> {
    let connection = crate::postgres::connect(&settings.source, "verify").await.map_err(VerifyError::Connect)?;
    let client = crate::pipeline::connect_target(&settings.target).map_err(VerifyError::ConnectTarget)?;
    let server = client.server_info().await.map_err(VerifyError::ConnectTarget)?;

    let patterns: Vec<String> = settings.tables.iter().map(|table| table.name.clone()).collect();
    let tables = crate::postgres::catalog::read_tables(&connection, &patterns).await.map_err(VerifyError::Connect)?;
    let mut tables = chosen(settings, tables, &options.tables)?;
    crate::pipeline::describe(&settings.source, &connection, &mut tables).await.map_err(VerifyError::Connect)?;
    let planned: Plan = crate::plan::build(&tables, &server).map_err(VerifyError::Plan)?;
    // New columns are passed over where the policy passes them over.
    for ((table, settings), planned) in tables.iter_mut().zip(&planned.tables) {
        let collection = planned.collection.name.as_str();
        let existing = patiently(options.timeout, async || client.describe_collection(collection).await)
            .await
            .map_err(|source| VerifyError::Target { collection: collection.to_owned(), source })?;
        if let Some(existing) = existing
            && let Evolution::Fits(adapted) = evolve(table, settings, &existing, &server)
        {
            *settings = adapted;
        }
    }
    let plan: Plan = crate::plan::build(&tables, &server).map_err(VerifyError::Plan)?;

    let fence = Fence::new(&connection, settings).await?;
    let mut report = Report { daemon: fence.has_daemon(), tables: Vec::new() };
    for table in &plan.tables {
        let name = table.qualified_name();
        let state = fence.following(&name, Instant::now() + options.timeout).await?;
        let (stopped, dead_letters) = match state {
            TableState::Comparable { dead_letters } => (None, dead_letters),
            TableState::Stopped(reason) => (Some(reason), 0),
        };
        let collection = table.collection.name.as_str();
        let existing = patiently(options.timeout, async || client.describe_collection(collection).await)
            .await
            .map_err(|source| VerifyError::Target { collection: collection.to_owned(), source })?;
        let Some(existing) = existing else {
            return Err(VerifyError::NoCollection { table: name, collection: collection.to_owned() });
        };
        let differences = crate::plan::differences(table, &existing);
        if !differences.is_empty() {
            return Err(VerifyError::Unfit { table: name, collection: collection.to_owned(), differences });
        }
        let fence = &fence;
        let (options, is_stopped, collection) = (&options, stopped.is_some(), collection.to_owned());
        let begun = TableReport { table: name, collection, stopped, dead_letters, ..TableReport::default() };
        report.tables.push(if table.key.is_auto() {
            let (source, target) = (&*connection, client.as_ref());
            Count { table, source, target, fence, options, stopped: is_stopped, report: begun }.run().await?
        } else {
            let (source, target) =
                (Source::new(&connection, table).await?, Target::new(client.as_ref(), table, options.timeout));
            let comparison = Comparison { table, source, target, fence, options, stopped: is_stopped, report: begun };
            comparison.run(&mut progress).await?
        });
    }
    Ok(report)
}

/// The tables that were asked for, each with its settings. Every name must be known; none means all.
fn chosen(
    settings: &Settings,
    found: Vec<(usize, Table)>,
    names: &[String],
) -> Result<Vec<(Table, TableSettings)>, VerifyError> {
    let is = |table: &Table, name: &str| match name.split_once('.') {
        Some((schema, name)) => table.schema == schema && table.name == name,
        None => table.schema == "public" && table.name == name,
    };
    if let Some(unknown) = names.iter().find(|name| !found.iter().any(|(_, table)| is(table, name))) {
        return Err(VerifyError::NoSuchTable(unknown.clone()));
    }
    let wanted = |table: &Table| names.is_empty() || names.iter().any(|name| is(table, name));
    let with_settings = |(pattern, table): (usize, Table)| Some((table, settings.tables.get(pattern)?.clone()));
    Ok(found.into_iter().filter(|(_, table)| wanted(table)).filter_map(with_settings).collect())
}
