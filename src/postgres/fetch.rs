//! Fetch: single columns of single rows, by key, for what the stream leaves out (unchanged TOAST).
//!
//! In: keys as text. Out: the rows that exist now, with the snapshot that saw them. Only from the primary.
//!
//! Holds: one statement, so one snapshot, and it is in the answer also when no row is. The WAL position in
//! the answer was read after that snapshot was taken, so every commit that the snapshot sees lies below it (rule W).
//! A row that does not pass the table's row filter is not found: the stream tells that it left (rule Q).
//! A row answers to a key only when the key *prints* the same: `Ab` and `aB` are equal as citext, 1.0 and 1.00
//! as numeric, but they are two entities, and the stream reports such a change as one of the key.
//!
//! The statement is a COPY: values then come as slices of the receive buffer in the same form as in a chunk, and no
//! result type has to be looked up. Its keys are quoted literals, as COPY takes no parameters.
//! Not here: whether the snapshot is late enough (`engine`), which columns are missing.

use std::fmt::Write;
use std::pin::pin;

use bytes::Buf;
use futures_util::{FutureExt, StreamExt};

use super::connect::{Connection, connect};
use super::copy::CopyRows;
use super::{PostgresError, Result, SelectColumn, quote_ident, quote_literal, quote_qualified};
use crate::change::{Lsn, Snapshot, Value};
use crate::config::settings::SourceSettings;

/// What is fetched from a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchShape {
    pub schema: String,
    pub name: String,
    /// The key's columns, each with its type as `format_type` writes it (`Column::type_name`).
    pub key: Vec<(String, String)>,
    pub columns: Vec<SelectColumn>,
    /// The table's row filter, as PostgreSQL prints it.
    pub filter: Option<String>,
    /// Rows are in its partitions; else only its own rows count, not those of tables that inherit from it.
    pub is_partitioned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub snapshot: Snapshot,
    pub insert_lsn: Lsn,
    /// Index of the key, and its values in the order of `FetchShape::columns`. Keys without a row are absent.
    pub rows: Vec<(usize, Vec<Value>)>,
}

const DOING: &str = "fetch rows by key";

/// An SQL session that fetches.
pub struct Fetcher {
    connection: Connection,
}

impl Fetcher {
    pub async fn connect(settings: &SourceSettings) -> Result<Fetcher> {
        let connection = connect(settings, "fetch").await?;
        // A handful of keys against a table of any size: the key's index is right, whatever the statistics say.
        let plan = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";
        connection.simple("prepare a session to fetch", plan).await?;
        Ok(Fetcher { connection })
    }

    /// Reads the rows of `keys`, each a text for every key column as the type's output function prints it.
    ///
    /// # Errors
    /// 42703 or 42P01 when the table changed; 22P02 when a text is not of its type.
    pub async fn fetch(&mut self, shape: &FetchShape, keys: &[Vec<String>]) -> Result<Fetched> {
        let query = statement(shape, keys)?;
        let connection = &self.connection;
        let mut stream = pin!(connection.in_time(DOING, connection.copy_out(&query)).await?);
        let mut parser = CopyRows::new(HEAD + shape.columns.len());
        let (mut view, mut rows) = (None, Vec::new());
        while let Some(message) = connection.in_time(DOING, stream.next().map(Option::transpose)).await? {
            parser.push(message);
            while let Some(values) = parser.next_row()? {
                let mut values = values.into_iter();
                let head = (values.next(), values.next(), values.next(), values.next());
                let (Some(Value::Binary(index)), Some(snapshot), Some(lsn), Some(found)) = head else {
                    return Err(not_understood("a row without a head"));
                };
                let index = index.clone().try_get_u32().map_err(|_| not_understood("no index"))?;
                let index = usize::try_from(index).map_err(|_| not_understood("no index"))?;
                if let (Value::Binary(snapshot), Value::Binary(lsn)) = (snapshot, lsn) {
                    view = Some((parse(&snapshot, "a snapshot")?, parse(&lsn, "an LSN")?));
                }
                if matches!(found, Value::Binary(found) if found.first() == Some(&1)) {
                    let mut values: Vec<Value> = values.collect();
                    SelectColumn::mark_texts(&shape.columns, &mut values);
                    rows.push((index, values));
                }
            }
        }
        parser.finish()?;
        let (snapshot, insert_lsn) = view.ok_or_else(|| not_understood("no snapshot"))?;
        Ok(Fetched { snapshot, insert_lsn, rows })
    }

    pub async fn close(self) -> Result<()> {
        self.connection.close().await
    }
}

fn not_understood(what: &str) -> PostgresError {
    PostgresError::Answer { doing: DOING, what: what.to_owned() }
}

fn parse<T: std::str::FromStr>(bytes: &[u8], what: &str) -> Result<T> {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| not_understood(what))
}

/// Columns before those that are fetched: index, snapshot, LSN, found.
const HEAD: usize = 4;

/// The keys are a VALUES list on the left of an outer join, so there is a row for each of them, found or not; the first
/// carries the snapshot and the position.
fn statement(shape: &FetchShape, keys: &[Vec<String>]) -> Result<String> {
    if keys.is_empty() || shape.key.is_empty() || keys.iter().any(|key| key.len() != shape.key.len()) {
        return Err(not_understood("a key has another number of columns than the table's key"));
    }
    let mut sql = String::from(
        "COPY (SELECT k.i::pg_catalog.int4, CASE WHEN k.i = 0 THEN pg_catalog.pg_current_snapshot()::pg_catalog.text END, \
         CASE WHEN k.i = 0 THEN pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END, ",
    );
    for (i, (column, _)) in shape.key.iter().enumerate() {
        push(&mut sql, format_args!("{}t.{} IS NOT NULL", if i == 0 { "" } else { " AND " }, quote_ident(column)));
    }
    for column in &shape.columns {
        push(&mut sql, format_args!(", {}", column.expression("t.")));
    }
    sql.push_str(" FROM (VALUES ");
    for (i, key) in keys.iter().enumerate() {
        push(&mut sql, format_args!("{}({i}", if i == 0 { "" } else { ", " }));
        for text in key {
            push(&mut sql, format_args!(", {}", quote_literal(text)));
        }
        sql.push(')');
    }
    sql.push_str(") AS k (i");
    for i in 0..shape.key.len() {
        push(&mut sql, format_args!(", k{i}"));
    }
    let only = if shape.is_partitioned { "" } else { "ONLY " };
    let table = format!("{only}{}", quote_qualified(&shape.schema, &shape.name));
    match &shape.filter {
        None => push(&mut sql, format_args!(") LEFT JOIN {table} AS t ON ")),
        // In a subquery its names can mean nothing but the table's columns; the planner takes it apart again.
        Some(filter) => push(&mut sql, format_args!(") LEFT JOIN (SELECT * FROM {table} WHERE {filter}) AS t ON ")),
    }
    for (i, (column, type_name)) in shape.key.iter().enumerate() {
        let (and, column) = (if i == 0 { "" } else { " AND " }, quote_ident(column));
        push(
            &mut sql,
            format_args!(
                "{and}t.{column} = k.k{i}::{type_name} AND pg_catalog.format('%s', t.{column}) COLLATE \"C\" \
                 = pg_catalog.format('%s', k.k{i}::{type_name}) COLLATE \"C\""
            ),
        );
    }
    sql.push_str(") TO STDOUT (FORMAT binary)");
    Ok(sql)
}

fn push(sql: &mut String, arguments: std::fmt::Arguments<'_>) {
    sql.write_fmt(arguments).expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted_and_cast_to_the_columns_type() {
        let shape = FetchShape {
            schema: "s".to_owned(),
            name: "t".to_owned(),
            key: vec![("id".to_owned(), "bigint".to_owned()), ("Na\"me".to_owned(), "text".to_owned())],
            columns: vec!["e".into()],
            filter: None,
            is_partitioned: false,
        };
        let keys = [vec!["1".to_owned(), "it's \\".to_owned()]];
        let sql = statement(&shape, &keys).expect("valid");
        assert!(sql.contains("(VALUES (0, '1', E'it''s \\\\')) AS k (i, k0, k1)"), "{sql}");
        assert!(sql.contains("t.\"id\" = k.k0::bigint AND"), "{sql}");
        assert!(sql.contains("t.\"Na\"\"me\" = k.k1::text"), "{sql}");
        assert!(sql.contains(", t.\"e\" FROM"), "{sql}");
        assert!(sql.contains("LEFT JOIN ONLY \"s\".\"t\" AS t ON"), "{sql}");
        let filtered = FetchShape { filter: Some("(n > 1)".to_owned()), is_partitioned: true, ..shape.clone() };
        let sql = statement(&filtered, &keys).expect("valid");
        assert!(sql.contains("LEFT JOIN (SELECT * FROM \"s\".\"t\" WHERE (n > 1)) AS t ON"), "{sql}");
        assert!(statement(&shape, &[]).is_err());
        assert!(statement(&shape, &[vec!["1".to_owned()]]).is_err());
    }
}
