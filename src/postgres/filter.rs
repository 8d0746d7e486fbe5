//! Row filters: is a condition over a table's columns one that can be followed, and are two of them the same?
//!
//! In: a condition as somebody wrote it. Out: nothing, or PostgreSQL's own words. Everything is asked by EXPLAIN: it parses
//! and resolves as execution would, reads nothing and writes nothing.
//!
//! Not here: what a publication allows beyond that (immutable built-in functions only): CREATE PUBLICATION says so.

use super::catalog::{ReplicaIdentity, Table};
use super::connect::Connection;
use super::{PostgresError, Result, quote_ident, quote_qualified};

const DOING: &str = "look at a row filter";

/// Do both conditions mean the same to PostgreSQL, apart from spelling?
///
/// # Errors
/// What [`understood`] refuses, too.
pub async fn same(connection: &Connection, table: &Table, one: &str, other: &str) -> Result<bool> {
    Ok(explained(connection, table, one).await? == explained(connection, table, other).await?)
}

/// `None` when PostgreSQL understands the condition, else what it says.
pub async fn understood(connection: &Connection, table: &Table, condition: &str) -> Result<Option<String>> {
    refused(explained(connection, table, condition).await.map(drop))
}

/// A relation of the table whose replica identity does not cover the condition, with what PostgreSQL says of it.
///
/// Whether a row passed the filter before an UPDATE or DELETE is decided by the old row's identity columns alone.
pub async fn outside_identity(
    connection: &Connection,
    table: &Table,
    condition: &str,
) -> Result<Option<(String, String)>> {
    let mut asked: Vec<Vec<String>> = Vec::new();
    for leaf in &table.leaves {
        let columns = match &leaf.replica_identity {
            ReplicaIdentity::Full => continue,
            ReplicaIdentity::Default => table.primary_key.as_ref().map(|key| key.columns.clone()).unwrap_or_default(),
            ReplicaIdentity::Index(columns) => columns.clone(),
            ReplicaIdentity::Nothing => Vec::new(),
        };
        if asked.contains(&columns) {
            continue;
        }
        // A subquery that has only these columns: whatever else the condition names does not exist.
        let list: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
        let sql = format!(
            "EXPLAIN (COSTS OFF) SELECT 1 FROM (SELECT {} FROM {}) AS {} WHERE ({condition}\n)",
            list.join(", "),
            quote_qualified(&table.schema, &table.name),
            quote_ident(&table.name)
        );
        if let Some(message) = refused(connection.rows(DOING, &sql, &[]).await.map(drop))? {
            return Ok(Some((format!("{}.{}", leaf.schema, leaf.name), message)));
        }
        asked.push(columns);
    }
    Ok(None)
}

/// The condition as it is planned. In the list of results, so that nothing is pruned or moved into an index.
async fn explained(connection: &Connection, table: &Table, condition: &str) -> Result<Vec<String>> {
    let sql = format!(
        "EXPLAIN (VERBOSE, COSTS OFF) SELECT ({condition}\n) IS TRUE FROM {}",
        quote_qualified(&table.schema, &table.name)
    );
    let lines = connection.rows(DOING, &sql, &[]).await?;
    let line = |row: &tokio_postgres::Row| {
        row.try_get(0).map_err(|error| PostgresError::Answer { doing: DOING, what: error.to_string() })
    };
    lines.iter().map(line).collect()
}

/// An error of class 42 (syntax, names, types) or 22 (a literal) is about the condition; any other is one of ours.
fn refused(asked: Result<()>) -> Result<Option<String>> {
    match asked {
        Ok(()) => Ok(None),
        Err(PostgresError::Query { doing, source }) => match source.as_db_error() {
            Some(error) if ["42", "22", "0A"].iter().any(|class| error.code().code().starts_with(class)) => {
                Ok(Some(error.message().to_owned()))
            }
            _ => Err(PostgresError::Query { doing, source }),
        },
        Err(error) => Err(error),
    }
}
