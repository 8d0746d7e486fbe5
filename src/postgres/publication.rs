//! The publication: what is sent to us at all.
//!
//! In: the publication's name and the tables of the plan. Out: what it publishes, and what is wrong with that, each with the
//! SQL that mends it. It is created, or tables are added, only when the settings allow it.
//!
//! Holds: whatever passes here publishes every kind of change of every table, whole rows, partitions through their root.
//! The publication is older than the slot: one made later is unknown to the slot's past, and PostgreSQL before 18
//! fails at the first change for ever.
//!
//! Creating and adding take SHARE UPDATE EXCLUSIVE on the tables for an instant: no reader or writer waits, and we do
//! not wait longer than `LOCK_TIMEOUT` for a VACUUM or an ALTER.

use super::catalog::{RelationKind, Table};
use super::connect::Connection;
use super::{PostgresError, Result, quote_ident, quote_qualified};
use crate::change::Oid;
use crate::config::settings::SourceSettings;

const LOCK_TIMEOUT: &str = "10s";
const DOING: &str = "read the publication";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub name: String,
    /// Our role may ALTER it.
    pub owned: bool,
    pub all_tables: bool,
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub truncate: bool,
    /// `publish_via_partition_root`: changes of partitions come as changes of their root.
    pub via_root: bool,
    /// Roots with `via_root`, leaves without.
    pub tables: Vec<PublishedTable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    /// `WHERE (…)`, 15 and newer.
    pub row_filter: Option<String>,
    /// The column list, if it has one; 15 and newer.
    pub columns: Option<Vec<String>>,
}

/// Something that would lose changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationProblem {
    pub sentence: String,
    /// The SQL that mends it.
    pub mend: String,
    /// Adding this table is all that is needed.
    pub missing_table: bool,
}

/// The publication of that name; `None` when there is none.
pub async fn read_publication(connection: &Connection, name: &str) -> Result<Option<Publication>> {
    let not_understood = |error: tokio_postgres::Error| PostgresError::Answer { doing: DOING, what: error.to_string() };
    let publication = "SELECT pg_catalog.pg_has_role(p.pubowner, 'USAGE'), p.puballtables, p.pubinsert, p.pubupdate, \
                       p.pubdelete, p.pubtruncate, p.pubviaroot FROM pg_catalog.pg_publication p WHERE p.pubname = $1";
    let rows = connection.rows(DOING, publication, &[&name]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let flag = |i: usize| row.try_get::<_, bool>(i).map_err(not_understood);
    let mut found = Publication {
        name: name.to_owned(),
        owned: flag(0)?,
        all_tables: flag(1)?,
        insert: flag(2)?,
        update: flag(3)?,
        delete: flag(4)?,
        truncate: flag(5)?,
        via_root: flag(6)?,
        tables: Vec::new(),
    };
    // Filters and lists came with 15; through to_jsonb a missing column is a NULL. `attnames` names every column
    // of a table without a list too: only pg_publication_rel tells the two apart.
    let tables = "SELECT c.oid, n.nspname::text, c.relname::text, pg_catalog.to_jsonb(t)->>'rowfilter', \
                  CASE WHEN pg_catalog.to_jsonb(r)->>'prattrs' IS NOT NULL THEN ARRAY(SELECT \
                    pg_catalog.jsonb_array_elements_text(pg_catalog.to_jsonb(t)->'attnames')) END \
                  FROM pg_catalog.pg_publication_tables t \
                  JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname \
                  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
                  JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname \
                  LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid \
                  WHERE t.pubname = $1 ORDER BY 2, 3";
    for row in connection.rows(DOING, tables, &[&name]).await? {
        found.tables.push(PublishedTable {
            oid: row.try_get(0).map_err(not_understood)?,
            schema: row.try_get(1).map_err(not_understood)?,
            name: row.try_get(2).map_err(not_understood)?,
            row_filter: row.try_get(3).map_err(not_understood)?,
            columns: row.try_get(4).map_err(not_understood)?,
        });
    }
    Ok(Some(found))
}

/// What this publication would not send of these tables.
pub fn problems(publication: &Publication, tables: &[Table]) -> Vec<PublicationProblem> {
    let name = quote_ident(&publication.name);
    let mut problems = Vec::new();
    let mut problem = |sentence: String, mend: String, missing_table| {
        problems.push(PublicationProblem { sentence, mend, missing_table });
    };
    let kinds = [
        ("INSERT", publication.insert),
        ("UPDATE", publication.update),
        ("DELETE", publication.delete),
        ("TRUNCATE", publication.truncate),
    ];
    let left_out: Vec<&str> = kinds.iter().filter(|(_, published)| !published).map(|&(kind, _)| kind).collect();
    if !left_out.is_empty() {
        problem(
            format!("it does not publish {}", left_out.join(" and ")),
            format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"),
            false,
        );
    }
    // Published leaf by leaf, a partition that is created later would be unknown, and its changes lost.
    let partitioned = tables.iter().find(|table| table.kind == RelationKind::PartitionedTable);
    if let Some(table) = partitioned
        && !publication.via_root
    {
        problem(
            format!("it does not publish the partitions of {}.{} through their root", table.schema, table.name),
            format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"),
            false,
        );
    }
    for table in tables {
        let qualified = quote_qualified(&table.schema, &table.name);
        let (what, published) = (
            format!("{}.{}", table.schema, table.name),
            publication.tables.iter().find(|published| published.oid == table.oid),
        );
        let again =
            format!("ALTER PUBLICATION {name} DROP TABLE {qualified}; ALTER PUBLICATION {name} ADD TABLE {qualified}");
        match published {
            None if !publication.via_root && table.kind == RelationKind::PartitionedTable => {}
            None => problem(
                format!("it does not contain {what}"),
                format!("ALTER PUBLICATION {name} ADD TABLE {qualified}"),
                true,
            ),
            Some(published) => {
                if published.row_filter.is_some() {
                    let sentence = format!("it has a row filter on {what}, which is not supported yet");
                    problem(sentence, again.clone(), false);
                }
                if published.columns.is_some() {
                    let sentence = format!("it has a column list on {what}, which is not supported yet");
                    problem(sentence, again, false);
                }
            }
        }
    }
    problems
}

/// The statement that creates the publication for these tables.
pub fn create_statement(name: &str, tables: &[Table]) -> String {
    let tables: Vec<String> = tables.iter().map(|table| quote_qualified(&table.schema, &table.name)).collect();
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
        quote_ident(name),
        tables.join(", ")
    )
}

/// Finds the publication fit for these tables, or makes it so: creates it, or adds missing tables, when `create` is set
/// and the role may. What it publishes already is never changed. Before the slot is created.
///
/// # Errors
/// `Publication`, with every problem and the SQL that mends it.
pub async fn ensure_publication(
    connection: &Connection,
    settings: &SourceSettings,
    tables: &[Table],
) -> Result<Publication> {
    let name = &settings.publication;
    let unfit = |problems: Vec<String>, mend: Vec<String>| PostgresError::Publication {
        publication: name.clone(),
        problems,
        mend,
    };
    let found = match read_publication(connection, name).await? {
        Some(found) => found,
        None => {
            let create = create_statement(name, tables);
            if !settings.create {
                return Err(unfit(vec!["it does not exist".to_owned()], vec![create]));
            }
            execute(connection, "create the publication", &create).await.map_err(|error| match error.sqlstate() {
                Some("42501") => {
                    unfit(vec!["it does not exist, and our role may not create it".to_owned()], vec![create.clone()])
                }
                _ => error,
            })?;
            read_publication(connection, name).await?.ok_or_else(|| PostgresError::Answer {
                doing: DOING,
                what: "the publication was dropped again".to_owned(),
            })?
        }
    };
    let mut problems = problems(&found, tables);
    if settings.create && found.owned && !problems.is_empty() && problems.iter().all(|problem| problem.missing_table) {
        for problem in &problems {
            match execute(connection, "add a table to the publication", &problem.mend).await {
                Ok(()) => {}
                // The table is somebody else's: told below.
                Err(error) if error.sqlstate() == Some("42501") => {}
                Err(error) => return Err(error),
            }
        }
        let found = read_publication(connection, name).await?.unwrap_or(found);
        problems = self::problems(&found, tables);
        if problems.is_empty() {
            return Ok(found);
        }
    } else if problems.is_empty() {
        return Ok(found);
    }
    let (sentences, mend) = problems.into_iter().map(|problem| (problem.sentence, problem.mend)).unzip();
    Err(unfit(sentences, mend))
}

async fn execute(connection: &Connection, doing: &'static str, statement: &str) -> Result<()> {
    let sql = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; {statement}; COMMIT");
    match connection.simple(doing, &sql).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // The failed transaction is still open. The first error is the one to tell.
            drop(connection.simple(doing, "ROLLBACK").await);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::ReplicaIdentity;
    use super::*;

    fn table(oid: Oid, name: &str, kind: RelationKind) -> Table {
        Table {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind,
            unlogged_or_temporary: false,
            row_security_applies: false,
            can_select: true,
            replica_identity: ReplicaIdentity::Default,
            primary_key: None,
            columns: Vec::new(),
            leaves: Vec::new(),
            indexes: Vec::new(),
            estimated_rows: None,
            bytes: 0,
        }
    }

    fn publication(tables: &[(Oid, &str)]) -> Publication {
        let published = |&(oid, name): &(Oid, &str)| PublishedTable {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            row_filter: None,
            columns: None,
        };
        Publication {
            name: "p".to_owned(),
            owned: true,
            all_tables: false,
            insert: true,
            update: true,
            delete: true,
            truncate: true,
            via_root: true,
            tables: tables.iter().map(published).collect(),
        }
    }

    #[test]
    fn every_problem_names_what_is_lost_and_the_statement_that_mends_it() {
        let tables = [table(1, "a", RelationKind::Table), table(2, "b", RelationKind::PartitionedTable)];
        assert_eq!(problems(&publication(&[(1, "a"), (2, "b")]), &tables), []);

        let mut bad = publication(&[(1, "a")]);
        bad.delete = false;
        bad.truncate = false;
        bad.tables[0].row_filter = Some("(x > 1)".to_owned());
        bad.tables[0].columns = Some(vec!["x".to_owned()]);
        let found = problems(&bad, &tables);
        let expected = [
            ("DELETE and TRUNCATE", "SET (publish = 'insert, update, delete, truncate')"),
            ("row filter on public.a", "DROP TABLE \"public\".\"a\"; ALTER PUBLICATION \"p\" ADD TABLE"),
            ("column list on public.a", "DROP TABLE \"public\".\"a\"; ALTER PUBLICATION \"p\" ADD TABLE"),
            ("does not contain public.b", "ALTER PUBLICATION \"p\" ADD TABLE \"public\".\"b\""),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (sentence, mend)) in found.iter().zip(expected) {
            assert!(found.sentence.contains(sentence) && found.mend.contains(mend), "{found:?}");
        }

        let mut by_leaf = publication(&[(1, "a"), (21, "b1")]);
        by_leaf.via_root = false;
        let found = problems(&by_leaf, &tables);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].mend.contains("publish_via_partition_root = true"));
    }

    #[test]
    fn names_are_quoted_in_the_statement_that_creates() {
        let tables = [table(1, "a\"b", RelationKind::Table)];
        assert_eq!(
            create_statement("My", &tables),
            "CREATE PUBLICATION \"My\" FOR TABLE \"public\".\"a\"\"b\" WITH (publish_via_partition_root = true)"
        );
    }
}
