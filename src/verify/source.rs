//! The rows of one table as PostgreSQL prints them.
//!
//! In: a connection, a table of the plan. Out: pages of rows in the order of the primary key, and rows by key.
//!
//! Holds: every value is the text of its type's output function. The simple query protocol sends exactly that (a cast to
//! `text` does not: it prints `true` for bool and cuts the padding of `char(n)`), and tells NULL from the empty string.
//! Each page is a statement of its own: no transaction is held open, so nothing keeps VACUUM back. Keys travel as
//! quoted literals of their column's type, so the index of the key serves every page.
//!
//! Not here: what a text must equal (`compare`), when to read again (`table`).

use std::collections::BTreeMap;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::milvus::Key;
use crate::plan::TablePlan;

use super::VerifyError;
use super::key::KeyShape;

/// What identifies the version of a row: the same text means that nobody updated it in between.
const VERSION: &str = "t.tableoid, t.ctid, t.xmin";
const VERSION_COLUMNS: usize = 3;

pub struct Source<'a> {
    client: &'a Client,
    table: String,
    /// `ONLY "schema"."table" AS t`, without ONLY for a partitioned table; of it the rows that pass the row filter.
    from: String,
    columns: Vec<String>,
    /// Indexes into `columns`, in key order.
    key: Vec<usize>,
    /// The types of the key columns, quoted, without modifier.
    key_types: Vec<String>,
    shape: KeyShape,
}

/// One row; its values by the index of the plan's column.
pub struct SourceRow {
    row: SimpleQueryRow,
    skip: usize,
}

impl SourceRow {
    /// `None` is NULL.
    pub fn text(&self, column: usize) -> Result<Option<&str>, VerifyError> {
        self.row.try_get(self.skip + column).map_err(VerifyError::Source)
    }

    /// Bytes of its first `columns` values.
    pub fn size(&self, columns: usize) -> Result<usize, VerifyError> {
        (0..columns).try_fold(0, |sum, column| Ok(sum + self.text(column)?.map_or(0, str::len)))
    }
}

impl<'a> Source<'a> {
    pub async fn new(client: &'a Client, table: &TablePlan) -> Result<Source<'a>, VerifyError> {
        let key = table.key.columns().to_vec();
        let mut key_types = Vec::with_capacity(key.len());
        for &column in &key {
            let sql = "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname) \
                       FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = $1";
            let row = client.query_one(sql, &[&table.columns[column].type_oid]).await.map_err(VerifyError::Source)?;
            key_types.push(row.try_get(0).map_err(VerifyError::Source)?);
        }
        let only = if table.is_partitioned { "" } else { "ONLY " };
        let name = format!("{only}{}.{}", escape_identifier(&table.schema), escape_identifier(&table.name));
        let from = match &table.row_filter {
            None => format!("{name} AS t"),
            Some(filter) => format!("(SELECT tableoid, ctid, xmin, * FROM {name} WHERE {filter}) AS t"),
        };
        Ok(Source {
            client,
            table: table.qualified_name(),
            from,
            columns: table.columns.iter().map(|column| format!("t.{}", escape_identifier(&column.name))).collect(),
            key,
            key_types,
            shape: KeyShape::of(table),
        })
    }

    /// At most `limit` rows after this key (given as texts), in PostgreSQL's own order of the key, with their keys.
    pub async fn page(
        &self,
        after: Option<&[String]>,
        limit: usize,
    ) -> Result<Vec<(Vec<String>, SourceRow)>, VerifyError> {
        let key = self.key_columns().join(", ");
        let condition = match after {
            None => String::new(),
            Some(texts) => {
                // With their types: a composite value has no other way to be read.
                let texts = texts.iter().zip(&self.key_types);
                let texts: Vec<String> = texts.map(|(text, of)| format!("{}::{of}", escape_literal(text))).collect();
                format!("WHERE ({key}) > ({})", texts.join(", "))
            }
        };
        let columns = self.columns.join(", ");
        let sql = format!("SELECT {columns} FROM {} {condition} ORDER BY {key} LIMIT {limit}", self.from);
        let mut page = Vec::new();
        for row in self.rows(&sql).await.map_err(VerifyError::Source)? {
            let row = SourceRow { row, skip: 0 };
            let texts = self.key.iter().map(|&column| Ok(row.text(column)?.unwrap_or_default().to_owned()));
            page.push((texts.collect::<Result<Vec<_>, VerifyError>>()?, row));
        }
        Ok(page)
    }

    /// The key of the entity that the row with these key texts must be.
    pub fn entity_key(&self, texts: &[String]) -> Result<Key, VerifyError> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.shape.key(&texts).ok_or_else(|| VerifyError::Key { table: self.table.clone() })
    }

    /// The versions of the rows with these keys; absent rows are absent.
    pub async fn versions(&self, keys: &[Key]) -> Result<BTreeMap<Key, String>, VerifyError> {
        let key = self.key_columns().join(", ");
        let mut versions = BTreeMap::new();
        for row in self.lookup(keys, &key).await? {
            let texts = (0..self.key.len()).map(|i| row.try_get(VERSION_COLUMNS + i).map(Option::unwrap_or_default));
            let texts = texts.collect::<Result<Vec<_>, _>>().map_err(VerifyError::Source)?;
            if let Some(key) = self.shape.key(&texts) {
                versions.insert(key, version(&row)?);
            }
        }
        Ok(versions)
    }

    /// The rows with these keys and their versions; absent rows are absent.
    pub async fn whole(&self, keys: &[Key]) -> Result<BTreeMap<Key, (String, SourceRow)>, VerifyError> {
        let mut rows = BTreeMap::new();
        for row in self.lookup(keys, &self.columns.join(", ")).await? {
            let version = version(&row)?;
            let row = SourceRow { row, skip: VERSION_COLUMNS };
            let texts = self.key.iter().map(|&column| Ok(row.text(column)?.unwrap_or_default()));
            let texts = texts.collect::<Result<Vec<_>, VerifyError>>()?;
            if let Some(key) = self.shape.key(&texts) {
                rows.insert(key, (version, row));
            }
        }
        Ok(rows)
    }

    /// Rows whose key columns equal these keys by the equality of their types: for `numeric` 1.0 finds 1.00, so the caller
    /// makes the key again from what it got. A key that is no value of the column's type finds nothing; the statement
    /// fails on it as a whole, so it is cut in halves until that key stands alone.
    async fn lookup(&self, keys: &[Key], columns: &str) -> Result<Vec<SimpleQueryRow>, VerifyError> {
        let tuples: Vec<String> = keys.iter().filter_map(|key| self.tuple(key)).collect();
        let mut found = Vec::new();
        let mut open = vec![tuples.as_slice()];
        while let Some(tuples) = open.pop() {
            if tuples.is_empty() {
                continue;
            }
            let names = (0..self.key.len()).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ");
            let on = self.key_columns().into_iter().enumerate().map(|(i, column)| format!("{column} = v.k{i}"));
            let sql = format!(
                "SELECT {VERSION}, {columns} FROM {} JOIN (VALUES {}) AS v ({names}) ON {}",
                self.from,
                tuples.join(", "),
                on.collect::<Vec<_>>().join(" AND ")
            );
            match self.rows(&sql).await {
                Ok(rows) => found.extend(rows),
                Err(error) if is_bad_value(&error) => {
                    if tuples.len() > 1 {
                        let (left, right) = tuples.split_at(tuples.len() / 2);
                        open.extend([right, left]);
                    }
                }
                Err(error) => return Err(VerifyError::Source(error)),
            }
        }
        Ok(found)
    }

    /// `('1'::pg_catalog.int4, 'a'::pg_catalog.text)`; `None` when no row can have the key.
    fn tuple(&self, key: &Key) -> Option<String> {
        let texts = self.shape.texts(key)?;
        let parts = texts.iter().zip(&self.key_types).map(|(text, key_type)| {
            // PostgreSQL has no NUL in text, and the protocol ends a statement at it.
            (!text.contains('\0')).then(|| format!("{}::{key_type}", escape_literal(text)))
        });
        Some(format!("({})", parts.collect::<Option<Vec<_>>>()?.join(", ")))
    }

    fn key_columns(&self) -> Vec<&str> {
        self.key.iter().map(|&column| self.columns[column].as_str()).collect()
    }

    async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }
}

fn version(row: &SimpleQueryRow) -> Result<String, VerifyError> {
    let parts = (0..VERSION_COLUMNS).map(|i| row.try_get(i).map(Option::unwrap_or_default));
    Ok(parts.collect::<Result<Vec<_>, _>>().map_err(VerifyError::Source)?.join(" "))
}

/// Class 22, data exception, and 23514, the check of a domain: the literal is no value of its type.
fn is_bad_value(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|state| state.code().starts_with("22") || state.code() == "23514")
}
