//! The publication: what is sent to us at all.
//!
//! In: the publication's name and the tables of the plan. Out: what it publishes, and what is wrong with that, each with the
//! SQL that mends it. It is created, or tables are added, only when the settings allow it; a row filter and a column list
//! of the settings go into that statement. What is there already is never changed.
//!
//! Holds: whatever passes here publishes every kind of change of every table, partitions through their root. A row filter
//! over columns outside the replica identity, or a column list without them, never comes from us: PostgreSQL would from
//! then on refuse every UPDATE and DELETE of the application (`filter` asks before, the list is made to cover it).
//! The publication is older than the slot: one made later is unknown to the slot's past, and PostgreSQL before 18
//! fails at the first change for ever.
//!
//! Creating and adding take SHARE UPDATE EXCLUSIVE on the tables for an instant: no reader or writer waits, and we do
//! not wait longer than `LOCK_TIMEOUT` for a VACUUM or an ALTER.

use super::catalog::{Published, ReplicaIdentity, Table};
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
    /// `publish_generated_columns = stored`, 18 and newer.
    pub generated: bool,
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

impl Publication {
    /// What it sends of this table.
    pub fn of(&self, table: &Table) -> Published {
        let found = self.tables.iter().find(|published| published.oid == table.oid);
        Published {
            exists: found.is_some(),
            row_filter: found.and_then(|found| found.row_filter.clone()),
            columns: found.and_then(|found| found.columns.clone()),
            generated: self.generated,
            unfit: Vec::new(),
        }
    }
}

/// A table as it is to be published where it is not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub is_partitioned: bool,
    pub ancestors: Vec<Oid>,
    /// `None`: every column, also those that are added later.
    pub columns: Option<Vec<String>>,
    /// A condition as PostgreSQL reads it.
    pub row_filter: Option<String>,
    /// Has stored generated columns that are to be sent.
    pub generated: bool,
}

impl Wanted {
    /// All rows and columns.
    pub fn whole(table: &Table) -> Wanted {
        Wanted {
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            is_partitioned: table.is_partitioned(),
            ancestors: table.ancestors.clone(),
            columns: None,
            row_filter: None,
            generated: false,
        }
    }

    /// `"s"."t" ("a", "b") WHERE (…)`. The line break ends a comment in the condition.
    fn clause(&self) -> String {
        // Without ONLY the tables that inherit from it would be published too.
        let only = if self.is_partitioned { "" } else { "ONLY " };
        let mut clause = format!("{only}{}", quote_qualified(&self.schema, &self.name));
        if let Some(columns) = &self.columns {
            let columns: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
            clause.push_str(&format!(" ({})", columns.join(", ")));
        }
        if let Some(filter) = &self.row_filter {
            clause.push_str(&format!(" WHERE ({filter}{})", if filter.contains("--") { "\n" } else { "" }));
        }
        clause
    }

    fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// The columns of a column list that UPDATE and DELETE need in any case: those of the replica identities in use. `None`
/// where one of them is FULL: then PostgreSQL allows no list.
pub fn identity_columns(table: &Table) -> Option<Vec<String>> {
    let key = || table.primary_key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
    let mut columns: Vec<String> = Vec::new();
    for identity in identities(table) {
        let more = match identity {
            ReplicaIdentity::Full => return None,
            ReplicaIdentity::Default => key(),
            ReplicaIdentity::Index(columns) => columns.clone(),
            ReplicaIdentity::Nothing => Vec::new(),
        };
        columns.extend(more);
    }
    columns.sort();
    columns.dedup();
    Some(columns)
}

/// Of the relations whose rows are changed: the leaves; a partitioned table without any speaks for itself.
fn identities(table: &Table) -> impl Iterator<Item = &ReplicaIdentity> {
    let own = table.leaves.is_empty().then_some(&table.replica_identity);
    table.leaves.iter().map(|leaf| &leaf.replica_identity).chain(own)
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
                       p.pubdelete, p.pubtruncate, p.pubviaroot, \
                       coalesce(pg_catalog.to_jsonb(p)->>'pubgencols', 'n') = 's' FROM pg_catalog.pg_publication p WHERE p.pubname = $1";
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
        generated: flag(7)?,
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
pub fn problems(publication: &Publication, tables: &[Wanted]) -> Vec<PublicationProblem> {
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
    let partitioned = tables.iter().find(|table| table.is_partitioned);
    if let Some(table) = partitioned
        && !publication.via_root
    {
        problem(
            format!("it does not publish the partitions of {} through their root", table.qualified_name()),
            format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"),
            false,
        );
    }
    for table in tables {
        if publication.tables.iter().any(|published| published.oid == table.oid) {
            continue;
        }
        let what = table.qualified_name();
        let above = publication.tables.iter().find(|published| table.ancestors.contains(&published.oid));
        if let Some(root) = above.filter(|_| publication.via_root) {
            let root = format!("{}.{}", root.schema, root.name);
            problem(
                format!("it publishes {what} as a part of {root}"),
                format!("name {root} in the configuration instead of {what}"),
                false,
            );
        } else if publication.via_root || !table.is_partitioned {
            problem(
                format!("it does not contain {what}"),
                format!("ALTER PUBLICATION {name} ADD TABLE {}", table.clause()),
                true,
            );
        }
    }
    problems
}

/// The statement that creates the publication for these tables.
pub fn create_statement(name: &str, tables: &[Wanted]) -> String {
    let clauses: Vec<String> = tables.iter().map(Wanted::clause).collect();
    // A list that names a generated column publishes it in any case.
    let generated = tables.iter().any(|table| table.generated && table.columns.is_none());
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true{})",
        quote_ident(name),
        clauses.join(", "),
        if generated { ", publish_generated_columns = stored" } else { "" }
    )
}

/// Drops the publication, which needs its owner.
pub async fn drop_publication(connection: &Connection, name: &str) -> Result<()> {
    execute(connection, "drop the publication", &format!("DROP PUBLICATION {}", quote_ident(name))).await
}

/// Finds the publication fit for these tables, or makes it so: creates it, or adds missing tables, when `create` is set
/// and the role may. What it publishes already is never changed. Before the slot is created.
///
/// # Errors
/// `Publication`, with every problem and the SQL that mends it.
pub async fn ensure_publication(
    connection: &Connection,
    settings: &SourceSettings,
    tables: &[Wanted],
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
    use super::*;

    fn table(oid: Oid, name: &str, is_partitioned: bool) -> Wanted {
        Wanted {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            is_partitioned,
            ancestors: Vec::new(),
            columns: None,
            row_filter: None,
            generated: false,
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
            generated: false,
            tables: tables.iter().map(published).collect(),
        }
    }

    #[test]
    fn every_problem_names_what_is_lost_and_the_statement_that_mends_it() {
        let tables = [table(1, "a", false), table(2, "b", true)];
        assert_eq!(problems(&publication(&[(1, "a"), (2, "b")]), &tables), []);

        let mut bad = publication(&[(1, "a")]);
        bad.delete = false;
        bad.truncate = false;
        let found = problems(&bad, &tables);
        let expected = [
            ("DELETE and TRUNCATE", "SET (publish = 'insert, update, delete, truncate')"),
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
    fn a_partition_of_a_published_root_is_not_published_as_itself() {
        let part = Wanted { ancestors: vec![2], ..table(21, "b1", false) };
        let found = problems(&publication(&[(2, "b")]), std::slice::from_ref(&part));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].sentence, "it publishes public.b1 as a part of public.b");
        assert!(!found[0].missing_table);
        assert_eq!(problems(&publication(&[(21, "b1")]), &[part]), []);
    }

    #[test]
    fn lists_and_filters_of_the_settings_stand_in_the_statements() {
        let mut wanted = table(1, "a\"b", false);
        wanted.columns = Some(vec!["id".to_owned(), "E".to_owned()]);
        wanted.row_filter = Some("n > 1".to_owned());
        let clause = "ONLY \"public\".\"a\"\"b\" (\"id\", \"E\") WHERE (n > 1)";
        assert_eq!(
            create_statement("My", &[wanted.clone(), Wanted { generated: true, ..table(2, "t", true) }]),
            format!(
                "CREATE PUBLICATION \"My\" FOR TABLE {clause}, \"public\".\"t\" \
                 WITH (publish_via_partition_root = true, publish_generated_columns = stored)"
            )
        );
        let found = problems(&publication(&[]), &[wanted]);
        assert_eq!(found[0].mend, format!("ALTER PUBLICATION \"p\" ADD TABLE {clause}"));
    }
}
