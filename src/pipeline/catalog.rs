//! The tables of the configuration as the plan needs them: the catalog, and what the publication sends of each.
//!
//! In: the settings and an SQL session. Out: tables with their settings, for `plan::build`, and what a publication that is
//! still to be made should say. Nothing is changed at the source.
//!
//! Holds: the row filter of a table is one text from here on, as PostgreSQL prints it once it is in the publication; what
//! is wrong with it goes to the plan's refusals, so that all of them are told at once.

use crate::config::{Settings, SourceSettings, TableSettings};
use crate::postgres::catalog::{self, Generated, Published, RelationKind, ReplicaIdentity, Table};
use crate::postgres::publication::{self, Publication, Wanted, identity_columns};
use crate::postgres::{Connection, PostgresError, filter, quote_ident, quote_qualified};

use super::RunError;

/// Each table with its settings.
pub(crate) type Catalog = Vec<(Table, TableSettings)>;

/// Row filters and column lists came with 15, `publish_generated_columns` with 18.
const FILTERS_SINCE: u32 = 150_000;
const GENERATED_SINCE: u32 = 180_000;

/// The tables of the configuration, each with its settings. One that does not exist and is not `known` from before is an error, not
/// nothing.
pub(crate) async fn read_tables(
    settings: &Settings,
    sql: &Connection,
    known: impl Fn(&str) -> bool,
) -> Result<Catalog, RunError> {
    let patterns: Vec<String> = settings.tables.iter().map(|table| table.name.clone()).collect();
    let found = catalog::read_tables(sql, &patterns).await?;
    for (index, pattern) in patterns.iter().enumerate() {
        let glob = pattern.contains(['*', '?']);
        if !glob && !known(pattern) && !found.iter().any(|(matched, _)| *matched == index) {
            return Err(RunError::NoSuchTable { name: pattern.clone() });
        }
    }
    if found.is_empty() {
        return Err(RunError::NoTables);
    }
    let mut catalog: Catalog =
        found.into_iter().map(|(pattern, table)| (table, settings.tables[pattern].clone())).collect();
    describe(&settings.source, sql, &mut catalog).await?;
    Ok(catalog)
}

/// Fill in what the publication sends of each table, or will send once it is made as the settings say.
pub(crate) async fn describe(
    source: &SourceSettings,
    sql: &Connection,
    catalog: &mut Catalog,
) -> Result<Option<Publication>, PostgresError> {
    let publication = publication::read_publication(sql, &source.publication).await?;
    for (table, settings) in catalog.iter_mut() {
        let mut published = match &publication {
            Some(publication) => publication.of(table),
            None => {
                Published { generated: source.create && sql.version_num() >= GENERATED_SINCE, ..Published::default() }
            }
        };
        generated_under_full(sql.version_num(), table, &mut published);
        // What is refused for itself is not asked about.
        if table.can_select && !matches!(table.kind, RelationKind::Other(_)) {
            let again = |filter: &str| {
                let (publication, table) =
                    (quote_ident(&source.publication), quote_qualified(&table.schema, &table.name));
                format!(
                    "ALTER PUBLICATION {publication} DROP TABLE {table}; \
                     ALTER PUBLICATION {publication} ADD TABLE {table} WHERE ({filter})"
                )
            };
            row_filter(sql, table, settings.filter.as_deref(), &mut published, again).await?;
        }
        table.published = published;
    }
    Ok(publication)
}

/// From 18 on PostgreSQL refuses to update such a table ("Replica identity must not contain unpublished generated columns").
fn generated_under_full(version_num: u32, table: &Table, published: &mut Published) {
    let unsent = table.columns.iter().find(|column| match column.generated {
        Generated::No => false,
        Generated::Stored => !published.generated,
        Generated::Virtual => true,
    });
    let full = table.leaves.iter().find(|leaf| leaf.replica_identity == ReplicaIdentity::Full);
    if let (Some(column), Some(leaf), true) = (unsent, full, version_num >= GENERATED_SINCE) {
        let leaf = quote_qualified(&leaf.schema, &leaf.name);
        let reason = format!(
            "it has REPLICA IDENTITY FULL and a generated column {:?} that is not sent: PostgreSQL refuses every UPDATE \
             and DELETE of it",
            column.name
        );
        let mut remedy = format!("ALTER TABLE {leaf} REPLICA IDENTITY DEFAULT");
        if column.generated == Generated::Stored {
            remedy.push_str(", or ALTER PUBLICATION … SET (publish_generated_columns = stored)");
        }
        published.unfit.push((reason, remedy));
    }
}

/// The one condition that holds for the table, checked.
async fn row_filter(
    sql: &Connection,
    table: &Table,
    wanted: Option<&str>,
    published: &mut Published,
    again: impl Fn(&str) -> String,
) -> Result<(), PostgresError> {
    let mut unfit = |reason: String, remedy: String| published.unfit.push((reason, remedy));
    if let Some(wanted) = wanted {
        if sql.version_num() < FILTERS_SINCE {
            let major = sql.version_num() / 10_000;
            unfit(
                format!("PostgreSQL {major} has no row filters, they came with 15"),
                "take `where` out, or give the application a table of its own for these rows".into(),
            );
            return Ok(());
        }
        if let Some(message) = filter::understood(sql, table, wanted).await? {
            unfit(
                format!("PostgreSQL does not understand its `where`: {message}"),
                "write a condition over its columns, as after WHERE".into(),
            );
            return Ok(());
        }
        match (&published.row_filter, published.exists) {
            (Some(found), _) => {
                if !filter::same(sql, table, found, wanted).await? {
                    unfit(
                        format!("the publication's row filter is {found}, the configuration says `where = {wanted:?}`"),
                        format!("take `where` out, or {}", again(wanted)),
                    );
                }
            }
            (None, true) => unfit(
                format!("the publication sends all its rows, the configuration says `where = {wanted:?}`"),
                format!("take `where` out, or {}", again(wanted)),
            ),
            (None, false) => published.row_filter = Some(wanted.to_owned()),
        }
    }
    let Some(condition) = published.row_filter.clone() else { return Ok(()) };
    if let Some((relation, message)) = filter::outside_identity(sql, table, &condition).await? {
        let full = format!("ALTER TABLE {} REPLICA IDENTITY FULL", quote_name(&relation, table));
        published.unfit.push((
            format!(
                "its row filter {condition} needs a column outside the replica identity of {relation} ({message}): \
                 PostgreSQL refuses every UPDATE and DELETE of it"
            ),
            format!("{full}, or filter by columns of the key"),
        ));
    }
    Ok(())
}

/// `relation` is `schema.name` of the table or of one of its leaves.
fn quote_name(relation: &str, table: &Table) -> String {
    let leaf = table.leaves.iter().find(|leaf| format!("{}.{}", leaf.schema, leaf.name) == relation);
    match leaf {
        Some(leaf) => quote_qualified(&leaf.schema, &leaf.name),
        None => quote_qualified(&table.schema, &table.name),
    }
}

/// How each table is to be published where it is not yet.
pub(crate) fn wanted(catalog: &Catalog, version_num: u32) -> Vec<Wanted> {
    catalog
        .iter()
        .map(|(table, settings)| Wanted {
            columns: column_list(table, settings, version_num),
            row_filter: table.published.row_filter.clone(),
            generated: table.published.generated
                && table.columns.iter().any(|column| column.generated == Generated::Stored),
            ..Wanted::whole(table)
        })
        .collect()
}

/// What the settings leave out need not leave the server. Without such settings there is no list: a column that is added
/// later is to be seen.
fn column_list(table: &Table, settings: &TableSettings, version_num: u32) -> Option<Vec<String>> {
    if version_num < FILTERS_SINCE || (settings.include.is_none() && settings.exclude.is_empty()) {
        return None;
    }
    if table.replica_identity == ReplicaIdentity::Full {
        return None;
    }
    let identity = identity_columns(table)?;
    let is_sent = |generated: Generated| match generated {
        Generated::No => true,
        Generated::Stored => version_num >= GENERATED_SINCE,
        Generated::Virtual => false,
    };
    let is_wanted = |name: &String| {
        settings.include.as_ref().is_none_or(|include| include.contains(name)) && !settings.exclude.contains(name)
    };
    let chosen = table.columns.iter().filter(|column| is_sent(column.generated));
    let chosen = chosen.filter(|column| is_wanted(&column.name) || identity.contains(&column.name));
    Some(chosen.map(|column| column.name.clone()).collect())
}
