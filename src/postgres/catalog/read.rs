//! Reading tables: names to oids, then everything about those oids in a handful of statements under one snapshot.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::sample::sample_dimensions;
use super::{
    Column, Generated, Index, Leaf, PgType, PrimaryKey, Published, RelationKind, ReplicaIdentity, Table, TypeKind,
    UniqueIndex,
};
use crate::change::{Lsn, Oid};
use crate::postgres::{Connection, PostgresError, Result};

const DOING: &str = "read the catalog";

/// The leaves of each of these tables by oid, sorted: what changes when a partition is attached, detached or dropped.
pub async fn read_leaf_oids(connection: &Connection, oids: &[Oid]) -> Result<Vec<(Oid, Vec<Oid>)>> {
    let mut found = Vec::with_capacity(oids.len());
    for row in connection.rows(DOING, LEAF_OIDS, &[&oids]).await? {
        found.push((get(&row, 0)?, get(&row, 1)?));
    }
    Ok(found)
}

const LEAF_OIDS: &str = "\
SELECT r.root, pg_catalog.array_agg(p.relid::pg_catalog.oid ORDER BY p.relid::pg_catalog.oid)
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS r (root)
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.root) p WHERE p.isleaf GROUP BY r.root ORDER BY r.root";

/// How far the server's WAL is on disk: taken before the catalog is read, it tells what a plan has seen, and no crash takes it back.
pub async fn read_flush_lsn(connection: &Connection) -> Result<Lsn> {
    let rows = connection.simple(DOING, "SELECT pg_catalog.pg_current_wal_flush_lsn()").await?;
    let text = rows.first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default();
    text.parse().map_err(|_| PostgresError::Answer { doing: DOING, what: format!("{text:?} is no LSN") })
}

/// The tables that the patterns name, each once, sorted by schema and name, with the index of its pattern: an exact name
/// wins over a glob, else the first glob. A pattern that names nothing does not occur in the answer.
///
/// A glob finds tables and partitioned tables, without their partitions; an exact name finds any relation, so that
/// it can be refused by name.
pub async fn read_tables(connection: &Connection, patterns: &[String]) -> Result<Vec<(usize, Table)>> {
    connection.simple(DOING, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let tables = read(connection, patterns).await;
    // Also after an error: the session must be usable again. The first error is the one to tell.
    let ended = connection.simple(DOING, "ROLLBACK").await;
    let tables = tables?;
    ended?;
    Ok(tables)
}

async fn read(connection: &Connection, patterns: &[String]) -> Result<Vec<(usize, Table)>> {
    let mut found: Vec<(Oid, usize)> = Vec::new();
    for row in connection.rows(DOING, RELATIONS, &[]).await? {
        let (oid, schema, name): (Oid, String, String) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let by_glob: bool = get(&row, 3)?;
        if let Some(pattern) = choose(patterns, &schema, &name, by_glob) {
            found.push((oid, pattern));
        }
    }
    let oids: Vec<Oid> = found.iter().map(|&(oid, _)| oid).collect();
    let mut details = Details {
        columns: columns(connection, &oids).await?,
        leaves: grouped(connection, LEAVES, &oids, leaf).await?,
        primary_keys: grouped(connection, PRIMARY_KEYS, &oids, primary_key).await?,
        unique_indexes: grouped(connection, UNIQUE_INDEXES, &oids, unique_index).await?,
        ancestors: grouped(connection, ANCESTORS, &oids, |row| get(row, 1)).await?,
        children: grouped(connection, CHILDREN, &oids, |row| get(row, 1)).await?,
        indexes: grouped(connection, INDEXES, &oids, index).await?,
    };
    let mut tables = Vec::with_capacity(found.len());
    for row in connection.rows(DOING, TABLES, &[&oids]).await? {
        let mut table = details.table(&row)?;
        sample_dimensions(connection, &mut table).await?;
        let pattern = found.iter().find(|&&(oid, _)| oid == table.oid).map_or(0, |&(_, pattern)| pattern);
        tables.push((pattern, table));
    }
    Ok(tables)
}

fn choose(patterns: &[String], schema: &str, name: &str, by_glob: bool) -> Option<usize> {
    let exact = patterns.iter().position(|pattern| !is_glob(pattern) && matches_pattern(pattern, schema, name));
    let glob = || patterns.iter().position(|pattern| is_glob(pattern) && matches_pattern(pattern, schema, name));
    exact.or_else(|| if by_glob { glob() } else { None })
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// `schema.table`, where either part may hold `*` (any characters) and `?` (one); without a schema it is `public`.
pub fn matches_pattern(pattern: &str, schema: &str, name: &str) -> bool {
    if !is_glob(pattern) && pattern.len() == schema.len() + 1 + name.len() && pattern.starts_with(schema) {
        // Compared as a whole: a name may itself contain a dot.
        return pattern == format!("{schema}.{name}");
    }
    let (schema_pattern, name_pattern) = pattern.split_once('.').unwrap_or(("public", pattern));
    glob(schema_pattern, schema) && glob(name_pattern, name)
}

/// Linear in both: on a mismatch only the last `*` has to swallow one character more.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let text_before = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                text = text_before;
                retry = Some((pattern.clone(), text.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => match retry.take() {
                Some((after_star, mut rest)) => {
                    if rest.next().is_none() {
                        return false;
                    }
                    pattern = after_star.clone();
                    text = rest.clone();
                    retry = Some((after_star, rest));
                }
                None => return false,
            },
        }
    }
}

/// Relations of users, and whether a glob may find them.
const RELATIONS: &str = "\
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind IN ('r', 'p') AND NOT c.relispartition
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'";

/// LOCK TABLE and the chunk's SELECT name the leaf, so SELECT is needed there too, not only on the root.
const TABLES: &str = "\
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence <> 'p',
  pg_catalog.row_security_active(c.oid),
  pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
    AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.isleaf AND p.relid <> c.oid
      AND NOT pg_catalog.has_table_privilege(p.relid, 'SELECT')),
  c.relreplident::text, (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_index i
     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
     WHERE i.indrelid = c.oid AND i.indisreplident),
  s.estimated_rows, s.bytes
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT CASE WHEN bool_or(l.reltuples >= 0) THEN sum(greatest(l.reltuples, 0))::int8 END AS estimated_rows,
    coalesce(sum(pg_catalog.pg_table_size(l.oid)), 0)::int8 AS bytes
  FROM pg_catalog.pg_class l WHERE l.relkind IN ('r', 'm') AND (l.oid = c.oid
    OR l.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) p WHERE p.isleaf))) s
WHERE c.oid = ANY ($1::pg_catalog.oid[]) ORDER BY n.nspname, c.relname";

const LEAVES: &str = "\
SELECT r.root, c.oid, n.nspname::text, c.relname::text, c.relreplident::text,
  (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_index i
     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
     WHERE i.indrelid = c.oid AND i.indisreplident),
  c.relkind = 'f', c.relpersistence <> 'p', pg_catalog.row_security_active(c.oid)
FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS r (root)
CROSS JOIN LATERAL (SELECT p.relid FROM pg_catalog.pg_partition_tree(r.root) p WHERE p.isleaf
  UNION SELECT k.oid FROM pg_catalog.pg_class k WHERE k.oid = r.root AND k.relkind <> 'p') AS l (oid)
JOIN pg_catalog.pg_class c ON c.oid = l.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY n.nspname, c.relname";

const PRIMARY_KEYS: &str = "\
SELECT i.indrelid, x.relname::text, NOT i.indimmediate, pg_catalog.array_agg(a.attname::text ORDER BY k.place)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = ANY ($1::pg_catalog.oid[]) AND i.indisprimary AND k.place <= i.indnkeyatts
GROUP BY i.indrelid, x.relname, i.indimmediate";

/// `indkey` is 0 for an expression.
const UNIQUE_INDEXES: &str = "\
SELECT i.indrelid, x.relname::text, NOT i.indimmediate, i.indpred IS NOT NULL,
  pg_catalog.array_agg(a.attname::text ORDER BY k.place)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = ANY ($1::pg_catalog.oid[]) AND i.indisunique AND i.indisvalid AND i.indexprs IS NULL
  AND k.place <= i.indnkeyatts
GROUP BY i.indrelid, x.relname, i.indimmediate, i.indpred IS NOT NULL ORDER BY x.relname";

const ANCESTORS: &str = "\
SELECT r.oid, a.relid::pg_catalog.oid FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS r (oid)
CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(r.oid) WITH ORDINALITY AS a (relid, place)
WHERE a.relid <> r.oid ORDER BY a.place";

const CHILDREN: &str = "\
SELECT i.inhparent, n.nspname::text || '.' || c.relname::text FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = ANY ($1::pg_catalog.oid[]) AND NOT c.relispartition ORDER BY 2";

/// The column of an expression is the only one that the index depends on.
const INDEXES: &str = "\
SELECT i.indrelid, x.relname::text, m.amname::text,
  CASE WHEN i.indnkeyatts <> 1 THEN NULL WHEN i.indkey[0] > 0 THEN (SELECT a.attname::text
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[0])
    ELSE (SELECT CASE WHEN count(*) = 1 THEN min(a.attname::text) END FROM (
      SELECT DISTINCT d.refobjsubid AS attnum FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = i.indrelid
        AND d.refobjsubid > 0) u
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum) END,
  o.opcname::text, coalesce(x.reloptions, '{}'),
  CASE WHEN i.indkey[0] = 0 THEN pg_catalog.pg_get_indexdef(i.indexrelid, 1, false) END, i.indpred IS NOT NULL
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = ANY ($1::pg_catalog.oid[]) AND i.indisvalid ORDER BY x.relname";

const COLUMNS: &str = "\
SELECT a.attrelid, a.attname::text, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod),
  a.attnotnull, a.attgenerated::text, (SELECT s.avg_width FROM pg_catalog.pg_stats s
   WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname ORDER BY s.inherited DESC LIMIT 1),
  a.atthasdef OR a.atthasmissing OR a.attidentity <> ''
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.attrelid = ANY ($1::pg_catalog.oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

/// The types and all that they are made of. An array is what the array subscript handler serves: `typelem` alone
/// also marks points and names. Membership in an extension is by `pg_depend`, as names and oids differ by database.
const TYPES: &str = "\
WITH RECURSIVE needed (oid) AS (
  SELECT pg_catalog.unnest($1::pg_catalog.oid[])
  UNION
  SELECT part.oid FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid CROSS JOIN LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.typtype = 'r' AND r.rngtypid = t.oid
    UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE t.typtype = 'm' AND r.rngmultitypid = t.oid
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
      WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS part (oid))
SELECT t.oid, t.typname::text, n.nspname::text, t.typtype::text,
  t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc,
  CASE t.typtype WHEN 'd' THEN ARRAY[t.typbasetype]
    WHEN 'r' THEN ARRAY(SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
    WHEN 'm' THEN ARRAY(SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid)
    WHEN 'c' THEN ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
    ELSE ARRAY[t.typelem] END,
  ARRAY(SELECT a.atttypmod FROM pg_catalog.pg_attribute a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  t.typtypmod,
  (SELECT e.extname::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
   WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e'
     AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1),
  t.typsend <> 0, pg_catalog.ascii(t.typdelim::text)
FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace";

fn get<'a, T: FromSql<'a>>(row: &'a Row, i: usize) -> Result<T> {
    row.try_get(i).map_err(|error| PostgresError::Answer { doing: DOING, what: error.to_string() })
}

/// Rows of `sql`, whose first column is the table's oid, by that oid and in order.
async fn grouped<T>(
    connection: &Connection,
    sql: &str,
    oids: &[Oid],
    read: fn(&Row) -> Result<T>,
) -> Result<HashMap<Oid, Vec<T>>> {
    let mut groups: HashMap<Oid, Vec<T>> = HashMap::new();
    for row in connection.rows(DOING, sql, &[&oids]).await? {
        groups.entry(get(&row, 0)?).or_default().push(read(&row)?);
    }
    Ok(groups)
}

struct Details {
    columns: HashMap<Oid, Vec<Column>>,
    leaves: HashMap<Oid, Vec<Leaf>>,
    primary_keys: HashMap<Oid, Vec<PrimaryKey>>,
    unique_indexes: HashMap<Oid, Vec<UniqueIndex>>,
    ancestors: HashMap<Oid, Vec<Oid>>,
    children: HashMap<Oid, Vec<String>>,
    indexes: HashMap<Oid, Vec<Index>>,
}

impl Details {
    fn table(&mut self, row: &Row) -> Result<Table> {
        let oid = get(row, 0)?;
        let kind: String = get(row, 3)?;
        Ok(Table {
            oid,
            schema: get(row, 1)?,
            name: get(row, 2)?,
            kind: match kind.chars().next() {
                Some('r') => RelationKind::Table,
                Some('p') => RelationKind::PartitionedTable,
                other => RelationKind::Other(other.unwrap_or('?')),
            },
            unlogged_or_temporary: get(row, 4)?,
            row_security_applies: get(row, 5)?,
            can_select: get(row, 6)?,
            replica_identity: replica_identity(get(row, 7)?, get(row, 8)?),
            primary_key: self.primary_keys.remove(&oid).and_then(|keys| keys.into_iter().next()),
            unique_indexes: self.unique_indexes.remove(&oid).unwrap_or_default(),
            columns: self.columns.remove(&oid).unwrap_or_default(),
            leaves: self.leaves.remove(&oid).unwrap_or_default(),
            ancestors: self.ancestors.remove(&oid).unwrap_or_default(),
            children: self.children.remove(&oid).unwrap_or_default(),
            indexes: self.indexes.remove(&oid).unwrap_or_default(),
            estimated_rows: get::<Option<i64>>(row, 9)?.and_then(|rows| u64::try_from(rows).ok()),
            bytes: u64::try_from(get::<i64>(row, 10)?).unwrap_or(0),
            published: Published::default(),
        })
    }
}

fn replica_identity(code: &str, index_columns: Option<Vec<String>>) -> ReplicaIdentity {
    match (code, index_columns) {
        ("f", _) => ReplicaIdentity::Full,
        ("d", _) => ReplicaIdentity::Default,
        ("i", Some(columns)) => ReplicaIdentity::Index(columns),
        // `i` without an index: it was dropped, and the identity with it.
        _ => ReplicaIdentity::Nothing,
    }
}

fn leaf(row: &Row) -> Result<Leaf> {
    Ok(Leaf {
        oid: get(row, 1)?,
        schema: get(row, 2)?,
        name: get(row, 3)?,
        replica_identity: replica_identity(get(row, 4)?, get(row, 5)?),
        is_foreign: get(row, 6)?,
        unlogged: get(row, 7)?,
        row_security_applies: get(row, 8)?,
    })
}

fn primary_key(row: &Row) -> Result<PrimaryKey> {
    Ok(PrimaryKey { index_name: get(row, 1)?, deferrable: get(row, 2)?, columns: get(row, 3)? })
}

fn unique_index(row: &Row) -> Result<UniqueIndex> {
    Ok(UniqueIndex { name: get(row, 1)?, deferrable: get(row, 2)?, partial: get(row, 3)?, columns: get(row, 4)? })
}

fn index(row: &Row) -> Result<Index> {
    let options: Vec<String> = get(row, 5)?;
    Ok(Index {
        name: get(row, 1)?,
        method: get(row, 2)?,
        column: get(row, 3)?,
        operator_class: get(row, 4)?,
        expression: get(row, 6)?,
        partial: get(row, 7)?,
        options: options
            .iter()
            .filter_map(|option| option.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    })
}

/// Columns in attribute order, each with its type resolved.
async fn columns(connection: &Connection, oids: &[Oid]) -> Result<HashMap<Oid, Vec<Column>>> {
    let rows = connection.rows(DOING, COLUMNS, &[&oids]).await?;
    let type_oids: Vec<Oid> = rows.iter().map(|row| get(row, 2)).collect::<Result<_>>()?;
    let types = Types::read(connection, &type_oids).await?;
    let mut columns: HashMap<Oid, Vec<Column>> = HashMap::new();
    for row in &rows {
        let (type_oid, typmod) = (get(row, 2)?, get(row, 3)?);
        columns.entry(get(row, 0)?).or_default().push(Column {
            name: get(row, 1)?,
            type_oid,
            typmod,
            type_name: get(row, 4)?,
            data_type: types.resolve(type_oid, typmod)?,
            not_null: get(row, 5)?,
            generated: match get::<&str>(row, 6)? {
                "" => Generated::No,
                "s" => Generated::Stored,
                _ => Generated::Virtual,
            },
            has_default: get(row, 8)?,
            average_width: get::<Option<i32>>(row, 7)?.and_then(|width| u32::try_from(width).ok()),
            sampled_dimension: None,
        });
    }
    Ok(columns)
}

struct RawType {
    name: String,
    schema: String,
    /// `typtype`: b, c, d, e, p, r, m.
    class: String,
    is_array: bool,
    /// What it is made of: the element, base, bounds, range, or the attributes.
    parts: Vec<Oid>,
    /// Of the attributes.
    part_typmods: Vec<i32>,
    base_typmod: i32,
    extension: Option<String>,
    sends: bool,
    delimiter: u8,
}

struct Types(HashMap<Oid, RawType>);

impl Types {
    async fn read(connection: &Connection, oids: &[Oid]) -> Result<Types> {
        let mut types = HashMap::new();
        for row in connection.rows(DOING, TYPES, &[&oids]).await? {
            types.insert(
                get(&row, 0)?,
                RawType {
                    name: get(&row, 1)?,
                    schema: get(&row, 2)?,
                    class: get(&row, 3)?,
                    is_array: get(&row, 4)?,
                    parts: get(&row, 5)?,
                    part_typmods: get(&row, 6)?,
                    base_typmod: get(&row, 7)?,
                    extension: get(&row, 8)?,
                    sends: get(&row, 9)?,
                    delimiter: u8::try_from(get::<i32>(&row, 10)?).unwrap_or(b','),
                },
            );
        }
        Ok(Types(types))
    }

    /// The typmod of an array column is that of its elements. That of a column of a domain is -1: the domain has it.
    fn resolve(&self, oid: Oid, typmod: i32) -> Result<PgType> {
        let unknown = |oid: Oid| PostgresError::Answer { doing: DOING, what: format!("type {oid} is not in pg_type") };
        let raw = self.0.get(&oid).ok_or_else(|| unknown(oid))?;
        let mut effective_typmod = typmod;
        let part = |typmod: i32| -> Result<Box<PgType>> {
            let part = *raw.parts.first().ok_or_else(|| unknown(oid))?;
            self.resolve(part, typmod).map(Box::new)
        };
        let kind = match raw.class.as_str() {
            "d" => {
                effective_typmod = raw.base_typmod;
                TypeKind::Domain(part(raw.base_typmod)?)
            }
            "e" => TypeKind::Enum,
            "c" => {
                let typmods = raw.part_typmods.iter().copied().chain(std::iter::repeat(-1));
                let attributes = raw.parts.iter().zip(typmods).map(|(&part, typmod)| self.resolve(part, typmod));
                TypeKind::Composite(attributes.collect::<Result<_>>()?)
            }
            "r" => TypeKind::Range(part(-1)?),
            "m" => TypeKind::Multirange(part(-1)?),
            _ if raw.is_array => TypeKind::Array(part(typmod)?),
            _ => TypeKind::Base,
        };
        Ok(PgType {
            oid,
            name: raw.name.clone(),
            schema: raw.schema.clone(),
            extension: raw.extension.clone(),
            typmod: effective_typmod,
            sends: raw.sends,
            delimiter: raw.delimiter,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_part_and_exact_names_as_a_whole() {
        for (pattern, schema, name, matches) in [
            ("public.docs", "public", "docs", true),
            ("docs", "public", "docs", true),
            ("docs", "other", "docs", false),
            ("public.*", "public", "docs", true),
            ("public.*", "other", "docs", false),
            ("*.docs", "other", "docs", true),
            ("public.d?cs", "public", "docs", true),
            ("public.d?cs", "public", "dcs", false),
            ("public.*_v*1", "public", "a_v_v21", true),
            ("public.*_v*1", "public", "a_v_v2", false),
            ("*.*", "a", "b", true),
            ("a.b.c", "a.b", "c", true),
            ("a.b.c", "a", "b.c", true),
            ("public.docs*", "public", "docs", true),
            ("public.", "public", "", true),
            ("public.*ä", "public", "ää", true),
        ] {
            assert_eq!(matches_pattern(pattern, schema, name), matches, "{pattern} on {schema}.{name}");
        }
    }

    #[test]
    fn an_exact_name_wins_over_a_glob_and_finds_what_a_glob_may_not() {
        let patterns = ["public.*".to_owned(), "public.docs".to_owned()];
        assert_eq!(choose(&patterns, "public", "docs", true), Some(1));
        assert_eq!(choose(&patterns, "public", "other", true), Some(0));
        assert_eq!(choose(&patterns, "public", "a_view", false), None);
        assert_eq!(choose(&["public.a_view".to_owned()], "public", "a_view", false), Some(0));
    }

    #[test]
    fn a_domain_over_a_vector_shows_the_dimension_of_its_base() {
        let raw = |name: &str, class: &str, base_typmod, parts: &[Oid]| RawType {
            name: name.to_owned(),
            schema: "public".to_owned(),
            class: class.to_owned(),
            is_array: class == "b" && !parts.is_empty(),
            parts: parts.to_vec(),
            part_typmods: vec![7, -1],
            base_typmod,
            extension: None,
            sends: true,
            delimiter: b',',
        };
        let types = Types(HashMap::from([
            (1, raw("vector", "b", -1, &[])),
            (2, raw("embedding", "d", 3, &[1])),
            (3, raw("_vector", "b", -1, &[1])),
            (4, raw("pair", "c", -1, &[1, 2])),
            (5, raw("range", "r", -1, &[1])),
            (6, raw("multirange", "m", -1, &[5])),
            (7, raw("broken", "m", -1, &[])),
        ]));
        let domain = types.resolve(2, -1).expect("known");
        assert_eq!(domain.typmod, 3);
        let TypeKind::Domain(base) = domain.kind else { panic!("a domain") };
        assert_eq!((base.name.as_str(), base.typmod), ("vector", 3));
        let TypeKind::Array(element) = types.resolve(3, 5).expect("known").kind else { panic!("an array") };
        assert_eq!(element.typmod, 5);
        let TypeKind::Composite(attributes) = types.resolve(4, -1).expect("known").kind else { panic!("a composite") };
        assert_eq!((attributes[0].typmod, attributes[1].typmod), (7, 3));
        let TypeKind::Multirange(range) = types.resolve(6, -1).expect("known").kind else { panic!("a multirange") };
        assert!(matches!(range.kind, TypeKind::Range(bounds) if bounds.name == "vector"));
        assert!(types.resolve(9, -1).is_err());
        assert!(types.resolve(7, -1).is_err());
    }
}
