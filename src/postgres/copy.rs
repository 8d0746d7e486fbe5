//! Copy: a table read in chunks, each a short transaction of its own.
//!
//! In: a leaf's oid and a range of blocks. Out: the file node and snapshot that the chunk was read under, and its rows in
//! the order of the columns asked for.
//!
//! Holds (rule L): the leaf is locked ACCESS SHARE before the snapshot is taken. A snapshot taken before a rewrite
//! (TRUNCATE, VACUUM FULL, a rewriting ALTER) sees an empty table afterwards, while `pg_class` still shows the old file
//! node; with the lock first, either the rewrite is over and the file node another, or it waits for us.
//! `HeldSnapshot` is the exception to short: tables whose rows have no key are read under one snapshot, as copy and stream can
//! only be told apart by it.
//! Columns are never cast: the stream sends what the type's send function writes, so does COPY BINARY. What only
//! PostgreSQL can read is printed by it (`SelectColumn`).
//!
//! Not here: which chunks are done (`checkpoint`), whether the snapshot is late enough (`engine`, rule V).
//! Ranges of ctid are read by a Tid Range Scan (PostgreSQL 14 and newer): each block is read once.

mod binary;

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};

pub use binary::{CopyRows, Tid};

use super::connect::{Connection, connect};
use super::{PostgresError, Result, SelectColumn, quote_literal, quote_qualified};
use crate::change::{Lsn, Oid, Row, Snapshot};
use crate::config::settings::SourceSettings;

/// Blocks of a leaf's main fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from_block: u32,
    /// Exclusive; `None` is open above: the table may have grown since the ranges were made.
    pub to_block: Option<u32>,
}

/// The ranges of one leaf, and the file node that they belong to: another file node makes them void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafRanges {
    pub leaf: Oid,
    pub filenode: Oid,
    pub ranges: Vec<Range>,
}

/// What a chunk is read under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkView {
    pub filenode: Oid,
    pub snapshot: Snapshot,
    /// Read after the snapshot: every commit that the snapshot sees lies below.
    pub insert_lsn: Lsn,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkRows {
    pub rows: Vec<Row>,
    /// Where each of them is in its leaf.
    pub tids: Vec<Tid>,
    /// `Row::size` of all of them.
    pub bytes: usize,
    /// What was not read because of `bytes_max`: the rows cover the range up to where this begins.
    pub rest: Option<Range>,
}

const DOING: &str = "read a chunk";
const PURPOSE: &str = "copy";

/// Cuts a leaf into ranges of about `chunk_bytes`, TOAST included. An empty leaf has one range.
pub async fn plan_ranges(connection: &Connection, leaf: Oid, chunk_bytes: u64) -> Result<LeafRanges> {
    let view = open_locked(connection, &[leaf], None).await;
    let sizes = match &view {
        Ok(_) => {
            let sql = format!(
                "SELECT pg_catalog.pg_relation_size({leaf}) / pg_catalog.current_setting('block_size')::int8, \
                 pg_catalog.pg_table_size({leaf})"
            );
            connection.simple(DOING, &sql).await
        }
        Err(_) => Ok(Vec::new()),
    };
    connection.simple(DOING, "COMMIT").await?;
    let (view, sizes) = (only(view?, leaf)?.view, sizes?);
    let number = |i: usize| sizes.first().and_then(|row| row.get(i)?.as_deref()?.parse::<u64>().ok());
    match (number(0), number(1)) {
        (Some(blocks), Some(bytes)) => {
            Ok(LeafRanges { leaf, filenode: view.filenode, ranges: cut(blocks, bytes, chunk_bytes) })
        }
        // The sizes are NULL when the relation is gone.
        _ => Err(PostgresError::RelationChanged { oid: leaf }),
    }
}

/// Even ranges: bytes are spread over the blocks as if every block had as much TOAST behind it as any other.
fn cut(blocks: u64, bytes: u64, chunk_bytes: u64) -> Vec<Range> {
    let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    let per_chunk = u128::from(blocks) * u128::from(chunk_bytes) / u128::from(bytes.max(1));
    let step = u32::try_from(per_chunk.max(1)).unwrap_or(u32::MAX);
    let mut ranges = Vec::new();
    let mut from_block = 0u32;
    while let Some(to_block) = from_block.checked_add(step).filter(|&to_block| to_block < blocks) {
        ranges.push(Range { from_block, to_block: Some(to_block) });
        from_block = to_block;
    }
    ranges.push(Range { from_block, to_block: None });
    ranges
}

struct Located {
    leaf: Oid,
    qualified: String,
    view: ChunkView,
}

fn only(located: Vec<Located>, leaf: Oid) -> Result<Located> {
    located.into_iter().next().ok_or(PostgresError::RelationChanged { oid: leaf })
}

/// Opens rule L's transaction over these leaves: BEGIN, LOCK, SELECT, in one round trip; each statement is still one after the
/// other, and LOCK takes no snapshot. LOCK wants a name, so the oid is checked under the lock: a table that was renamed
/// in between is looked up again. After an error the transaction may still be open; the caller ends it.
async fn open_locked(connection: &Connection, leaves: &[Oid], lock_timeout: Option<Duration>) -> Result<Vec<Located>> {
    const ATTEMPTS: usize = 3;
    let not_understood = |what: &str| PostgresError::Answer { doing: DOING, what: what.to_owned() };
    let mut gone = leaves.first().copied().unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let mut names = Vec::with_capacity(leaves.len());
        for &leaf in leaves {
            let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ";
            let rows = connection.simple(DOING, &format!("{sql}{leaf}")).await?;
            let Some([Some(schema), Some(name)]) = rows.first().map(Vec::as_slice) else {
                return Err(PostgresError::RelationChanged { oid: leaf });
            };
            names.push(quote_qualified(schema, name));
        }
        let within = lock_timeout
            .map_or_else(String::new, |within| format!("SET LOCAL lock_timeout = '{}ms'; ", within.as_millis().max(1)));
        let locks: String = names.iter().map(|name| format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE; ")).collect();
        let literals: Vec<String> = names.iter().map(|name| format!("({})", quote_literal(name))).collect();
        let open = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {within}{locks}\
             SELECT name::pg_catalog.regclass::pg_catalog.oid, \
             pg_catalog.pg_relation_filenode(name::pg_catalog.regclass), \
             pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_wal_insert_lsn() FROM (VALUES {}) AS t (name)",
            literals.join(", ")
        );
        match connection.simple(DOING, &open).await {
            Ok(rows) => {
                let mut located = Vec::with_capacity(leaves.len());
                for ((&leaf, qualified), row) in leaves.iter().zip(names).zip(&rows) {
                    let text = |i: usize| row.get(i).and_then(|value| value.as_deref()).unwrap_or_default();
                    if text(0).parse() != Ok(leaf) {
                        gone = leaf;
                        break;
                    }
                    let view = ChunkView {
                        filenode: text(1).parse().map_err(|_| not_understood("a file node"))?,
                        snapshot: text(2).parse().map_err(|_| not_understood("a snapshot"))?,
                        insert_lsn: text(3).parse().map_err(|_| not_understood("an LSN"))?,
                    };
                    located.push(Located { leaf, qualified, view });
                }
                if located.len() == leaves.len() {
                    return Ok(located);
                }
            }
            // A name is gone already; the oid may have another.
            Err(error) if error.sqlstate() == Some("42P01") => {}
            Err(error) => return Err(error),
        }
        connection.simple(DOING, "ROLLBACK").await?;
    }
    Err(PostgresError::RelationChanged { oid: gone })
}

/// An SQL session that reads chunks, one after the other.
pub struct ChunkReader {
    settings: SourceSettings,
    /// `None` after a COPY that was given up half-way; the next chunk connects again, as after a lost connection.
    connection: Option<Connection>,
    /// The leaf of the open transaction, with its name under the lock.
    open: Option<(Oid, String)>,
}

impl ChunkReader {
    pub async fn connect(settings: &SourceSettings) -> Result<ChunkReader> {
        let connection = connect(settings, PURPOSE).await?;
        Ok(ChunkReader { settings: settings.clone(), connection: Some(connection), open: None })
    }

    /// Opens the transaction of a chunk; one that is still open is ended first.
    ///
    /// # Errors
    /// `RelationChanged` when the leaf is gone. The session stays usable after an error from the server.
    pub async fn begin(&mut self, leaf: Oid) -> Result<ChunkView> {
        self.finish().await?;
        let connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => connect(&self.settings, PURPOSE).await?,
        };
        let connection = self.connection.insert(connection);
        match open_locked(connection, &[leaf], None).await.and_then(|located| only(located, leaf)) {
            Ok(located) => {
                self.open = Some((leaf, located.qualified));
                Ok(located.view)
            }
            Err(error) => {
                // A refused LOCK leaves the transaction open and failed. The first error is the one to tell; that
                // the session cannot be used shows at its next use.
                drop(connection.simple(DOING, "ROLLBACK").await);
                Err(error)
            }
        }
    }

    /// A new transaction, and with it a new snapshot, of the same leaf (rule C).
    pub async fn resnapshot(&mut self) -> Result<ChunkView> {
        let (leaf, _) = self.open.clone().ok_or_else(not_open)?;
        self.begin(leaf).await
    }

    /// Reads a range in the open transaction, of it the rows that pass the filter. Once `bytes_max` is reached it stops at the next block border and
    /// returns the `rest`; at least one block is read.
    pub async fn read_rows(
        &mut self,
        columns: &[SelectColumn],
        filter: Option<&str>,
        range: Range,
        bytes_max: usize,
    ) -> Result<ChunkRows> {
        let (Some((_, qualified)), Some(connection)) = (&self.open, &self.connection) else { return Err(not_open()) };
        let chunk = read_range(connection, qualified, columns, filter, range, bytes_max).await?;
        if chunk.rest.is_some() {
            // A COPY that is dropped would be sent to its end, and a cancel request may come late and hit the next
            // statement: the session is closed, and with it its lock goes as soon as the server writes again.
            self.open = None;
            if let Some(connection) = self.connection.take() {
                connection.abort();
            }
        }
        Ok(chunk)
    }

    /// Ends the chunk's transaction, and with it its lock. Nothing happens when none is open.
    pub async fn finish(&mut self) -> Result<()> {
        if let (Some(_), Some(connection)) = (self.open.take(), &self.connection) {
            // COMMIT of a failed transaction rolls it back; nothing was written in either case.
            connection.simple(DOING, "COMMIT").await?;
        }
        Ok(())
    }

    pub async fn close(self) -> Result<()> {
        match self.connection {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }
}

async fn read_range(
    connection: &Connection,
    qualified: &str,
    columns: &[SelectColumn],
    filter: Option<&str>,
    range: Range,
    bytes_max: usize,
) -> Result<ChunkRows> {
    let query = select_range(qualified, columns, filter, range);
    let mut stream = pin!(connection.in_time(DOING, connection.copy_out(&query)).await?);
    let mut parser = CopyRows::new(1 + columns.len());
    let mut chunk = ChunkRows::default();
    while let Some(message) = connection.in_time(DOING, stream.next().map(Option::transpose)).await? {
        parser.push(message);
        while let Some(mut values) = parser.next_row()? {
            let tid = binary::tid_of(values.pop())?;
            if chunk.tids.last().is_some_and(|last| last.block != tid.block) && chunk.bytes >= bytes_max {
                chunk.rest = Some(Range { from_block: tid.block, to_block: range.to_block });
                return Ok(chunk);
            }
            SelectColumn::mark_texts(columns, &mut values);
            let row = Row(values.into());
            chunk.bytes += row.size();
            chunk.rows.push(row);
            chunk.tids.push(tid);
        }
    }
    parser.finish()?;
    Ok(chunk)
}

/// One snapshot of several tables, held until it is dropped: each is locked ACCESS SHARE, so its rows stay where they are.
///
/// It keeps VACUUM back in the whole database as long as it lives.
pub struct HeldSnapshot {
    connection: Connection,
    names: BTreeMap<Oid, String>,
    snapshot: Snapshot,
    insert_lsn: Lsn,
}

impl HeldSnapshot {
    /// Locks are taken one after the other, so each is given up after `lock_timeout`: below `deadlock_timeout`, it is never
    /// somebody else who is ended for a deadlock with us.
    ///
    /// # Errors
    /// `RelationChanged` when a table is gone; SQLSTATE 55P03 when a lock could not be had in time.
    pub async fn take(settings: &SourceSettings, tables: &[Oid], lock_timeout: Duration) -> Result<HeldSnapshot> {
        let connection = connect(settings, PURPOSE).await?;
        let located = open_locked(&connection, tables, Some(lock_timeout)).await?;
        let snapshot = located.first().map(|first| first.view.snapshot.clone()).unwrap_or_default();
        let insert_lsn = located.iter().map(|each| each.view.insert_lsn).max().unwrap_or_default();
        let names = located.into_iter().map(|each| (each.leaf, each.qualified)).collect();
        Ok(HeldSnapshot { connection, names, snapshot, insert_lsn })
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Every commit that the snapshot sees lies below.
    pub fn insert_lsn(&self) -> Lsn {
        self.insert_lsn
    }

    /// Rows of a range as the snapshot shows them, of them those that pass the filter.
    pub async fn read_rows(
        &self,
        table: Oid,
        columns: &[SelectColumn],
        filter: Option<&str>,
        range: Range,
    ) -> Result<ChunkRows> {
        let name = self.names.get(&table).ok_or_else(not_open)?;
        read_range(&self.connection, name, columns, filter, range, usize::MAX).await
    }
}

fn not_open() -> PostgresError {
    PostgresError::Answer { doing: DOING, what: "no chunk is open".to_owned() }
}

/// The row's place comes last, to be taken off again: it lets reading stop between blocks. The filter is as PostgreSQL
/// prints it: names without their table, which are those of a leaf as well.
fn select_range(qualified: &str, columns: &[SelectColumn], filter: Option<&str>, range: Range) -> String {
    let columns: String = columns.iter().map(|column| format!("{}, ", column.expression(""))).collect();
    let below = match range.to_block {
        Some(to_block) => format!(" AND ctid < '({to_block},0)'::pg_catalog.tid"),
        None => String::new(),
    };
    let filter = filter.map_or_else(String::new, |filter| format!(" AND ({filter})"));
    format!(
        "COPY (SELECT {columns}ctid FROM ONLY {qualified} WHERE ctid >= '({},0)'::pg_catalog.tid{below}{filter}) \
         TO STDOUT (FORMAT binary)",
        range.from_block
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_cover_every_block_once_and_are_open_above(
            blocks in 0u64..200_000, toast in 0u64..1 << 40, chunk_bytes in 1u64 << 20..1 << 30
        ) {
            let bytes = blocks * 8192 + toast;
            let ranges = cut(blocks, bytes, chunk_bytes);
            let mut next = 0;
            for (i, range) in ranges.iter().enumerate() {
                prop_assert_eq!(range.from_block, next);
                match range.to_block {
                    Some(to_block) => {
                        prop_assert!(to_block > next);
                        next = to_block;
                    }
                    None => prop_assert_eq!(i, ranges.len() - 1),
                }
            }
            prop_assert_eq!(ranges.last().and_then(|range| range.to_block), None);
            prop_assert!(ranges.len() as u64 <= blocks.max(1));
        }
    }

    #[test]
    fn toast_makes_ranges_of_fewer_blocks() {
        // 10,000 rows of 6 KB vectors: 1 MB of heap before 80 MB of TOAST.
        assert_eq!(cut(128, 81 << 20, 32 << 20).len(), 3);
        assert_eq!(cut(128, 128 * 8192, 32 << 20).len(), 1);
        assert_eq!(cut(0, 0, 32 << 20), [Range { from_block: 0, to_block: None }]);
    }

    #[test]
    fn columns_are_quoted_and_never_cast() {
        let columns = ["id".into(), "Od\"d".into()];
        assert_eq!(
            select_range("\"s\".\"t\"", &columns, Some("(n > 1)"), Range { from_block: 4, to_block: Some(8) }),
            "COPY (SELECT \"id\", \"Od\"\"d\", ctid FROM ONLY \"s\".\"t\" WHERE ctid >= '(4,0)'::pg_catalog.tid \
             AND ctid < '(8,0)'::pg_catalog.tid AND ((n > 1))) TO STDOUT (FORMAT binary)"
        );
    }
}
