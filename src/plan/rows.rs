//! Which rows and columns of a table are followed, and what tells one row from another.
//!
//! In: the table as the catalog describes it, what the publication sends of it, its settings. Out: the columns to read and
//! the names of the key's columns, or refusals.
//!
//! Holds: the key is unique and never NULL, proved by an index that PostgreSQL keeps and by NOT NULL; and every UPDATE and
//! DELETE of the stream names its row by the key's columns, in the table and in each of its leaves. Two rows never share
//! a key, not even within a transaction: what is deferrable is refused.

use crate::config::settings::OnMisfit;
use crate::postgres::catalog::{Column, Generated, Leaf, RelationKind, ReplicaIdentity, UniqueIndex};
use crate::postgres::publication::identity_columns;

use super::build::Builder;
use super::names::{identifier, qualified};

/// A column to read.
pub(super) struct Selected<'a> {
    pub(super) column: &'a Column,
    /// The stream never carries it.
    pub(super) reread: bool,
}

const OUR_ROLE: &str = "<the role that walvec connects as>";

impl<'a> Builder<'a> {
    pub(super) fn check_relation(&mut self) {
        let name = self.sql_name();
        let table = self.table;
        if let RelationKind::Other(kind) = table.kind {
            let kind = match kind {
                'v' => "a view",
                'm' => "a materialized view",
                'f' => "a foreign table",
                'S' => "a sequence",
                _ => "not a table",
            };
            self.refuse(
                None,
                format!("it is {kind}: logical replication has no changes of it"),
                "name the table behind it",
            );
        }
        if table.unlogged_or_temporary {
            let remedy = format!("ALTER TABLE {name} SET LOGGED");
            self.refuse(None, "it is unlogged or temporary: its changes are not in the write-ahead log", remedy);
        }
        if table.row_security_applies {
            let reason = "row security hides rows from our role, and the copy would miss them";
            self.refuse(None, reason, format!("ALTER ROLE {OUR_ROLE} BYPASSRLS"));
        }
        if !table.can_select {
            self.refuse(None, "our role may not read it", format!("GRANT SELECT ON {name} TO {OUR_ROLE}"));
        }
        if table.is_partitioned() {
            for leaf in &table.leaves {
                self.check_leaf(leaf);
            }
        }
        self.check_inheritance();
        for (reason, remedy) in &table.published.unfit {
            self.refuse(None, reason.clone(), remedy.clone());
        }
        if let Some(filter) = &table.published.row_filter {
            self.remarks.push(format!("only rows with {filter}"));
        }
    }

    fn check_leaf(&mut self, leaf: &Leaf) {
        let name = qualified(&leaf.schema, &leaf.name);
        if leaf.is_foreign {
            let reason = format!("its partition {name} is a foreign table: logical replication has no changes of it");
            let remedy = format!("ALTER TABLE {} DETACH PARTITION {name}", self.sql_name());
            self.refuse(None, reason, remedy);
        }
        if leaf.unlogged {
            let reason = format!("its partition {name} is unlogged: its changes are not in the write-ahead log");
            self.refuse(None, reason, format!("ALTER TABLE {name} SET LOGGED"));
        }
        if leaf.row_security_applies {
            let reason = format!("row security hides rows of its partition {name} from our role");
            self.refuse(None, reason, format!("ALTER ROLE {OUR_ROLE} BYPASSRLS"));
        }
    }

    fn check_inheritance(&mut self) {
        let (only, children) = (self.settings.only, self.table.children.join(", "));
        if only && self.table.is_partitioned() {
            let reason = "`only = true`, and a partitioned table has no rows of its own";
            self.refuse(None, reason, "take `only` out");
        } else if !children.is_empty() && only {
            self.remarks.push(format!("its own rows only, not those of {children}, which inherit from it"));
        } else if !children.is_empty() {
            let reason = format!(
                "{children} inherit from it: a SELECT shows their rows, logical replication sends them under their own names"
            );
            let remedy = "set `only = true` to take its own rows alone, and name the others as tables of their own";
            self.refuse(None, reason, remedy);
        }
    }

    /// The columns to read, in attribute order.
    pub(super) fn select_columns(&mut self) -> Vec<Selected<'a>> {
        let (table, settings) = (self.table, self.settings);
        let named = settings.include.iter().flatten().chain(&settings.exclude);
        let named: Vec<&String> = named.chain(settings.fields.iter().map(|(name, _)| name)).collect();
        for name in named {
            if !table.columns.iter().any(|column| column.name == *name) {
                let known: Vec<&str> = table.columns.iter().map(|c| &*c.name).collect();
                let remedy = format!("its columns are {}", known.join(", "));
                self.refuse(Some(name), "the settings name a column that the table does not have", remedy);
            }
        }
        let mut selected = Vec::new();
        for column in &table.columns {
            let named = settings.include.as_ref().map(|include| include.contains(&column.name));
            if named == Some(false) || settings.exclude.contains(&column.name) {
                continue;
            }
            let listed = table.published.columns.as_ref().map(|list| list.contains(&column.name));
            let is_sent = match column.generated {
                Generated::No => listed.unwrap_or(true),
                Generated::Stored => listed.unwrap_or(table.published.generated),
                Generated::Virtual => false,
            };
            if is_sent {
                selected.push(Selected { column, reread: false });
            } else if column.generated != Generated::No && settings.reread_generated {
                self.remarks
                    .push(format!("column {:?} is generated: it is read again after every change", column.name));
                selected.push(Selected { column, reread: true });
            } else if column.generated != Generated::No {
                let way = match column.generated {
                    Generated::Stored => {
                        " (from PostgreSQL 18 on a publication sends it with publish_generated_columns = stored)"
                    }
                    Generated::Virtual | Generated::No => "",
                };
                self.remarks.push(format!(
                    "column {:?} is generated and left out: it is not in the stream; `generated = \"reread\"` brings it{way}",
                    column.name
                ));
            } else if named == Some(true) {
                let reason = "the settings include it, and the publication's column list leaves it out";
                self.refuse(Some(&column.name), reason, "take it into the list by ALTER PUBLICATION … SET TABLE");
            } else {
                self.remarks
                    .push(format!("column {:?} is left out: it is not in the publication's column list", column.name));
            }
        }
        selected
    }

    /// The columns of the key, in its order; refused if there is none, or one that does not tell rows apart.
    pub(super) fn key_column_names(&mut self, selected: &[Selected<'_>]) -> Vec<String> {
        if self.settings.auto_id {
            return Vec::new();
        }
        let key = match self.settings.key.clone() {
            Some(columns) => self.chosen_key(columns),
            None => self.primary_key(),
        };
        for name in &key {
            let Some(column) = self.table.columns.iter().find(|column| column.name == *name) else { continue };
            match selected.iter().find(|selected| selected.column.name == *name) {
                Some(selected) if selected.reread => {
                    let reason = "a generated column that the stream does not carry is part of the key";
                    self.refuse(Some(name), reason, "choose another key");
                }
                Some(_) => {}
                None if column.generated != Generated::No => {
                    self.refuse(
                        Some(name),
                        "a generated column is part of its primary key",
                        "choose another primary key",
                    );
                }
                None if self.table.published.columns.as_ref().is_some_and(|list| !list.contains(name)) => {
                    let reason = "a column of the key is not in the publication's column list";
                    self.refuse(Some(name), reason, "take it into the list by ALTER PUBLICATION … SET TABLE");
                }
                None => {
                    let remedy = format!("take {name:?} into `columns.include` or out of `columns.exclude`");
                    self.refuse(Some(name), "a column of the primary key is left out by the settings", remedy);
                }
            }
        }
        key
    }

    /// Of rows without a key only INSERT and TRUNCATE can be followed, and copy and stream part at one snapshot.
    pub(super) fn check_auto_id(&mut self, selected: &[Selected<'_>]) {
        let (table, settings, name) = (self.table, self.settings, self.sql_name());
        if settings.key.is_some() {
            let reason = "`auto_id = true` numbers the entities, and `key` says what else their keys are made from";
            self.refuse(None, reason, "take one of the two out");
        }
        if table.is_partitioned() {
            let reason = "`auto_id = true`, and a partition that is attached brings rows along that the stream does not have: \
                          without a key they cannot be copied beside it";
            self.refuse(None, reason, "name its partitions, each with `auto_id = true`, or give it a key");
        }
        for selected in selected.iter().filter(|selected| selected.reread) {
            let reason =
                "it is to be read again from the table, and with `auto_id = true` its row is not known by a key";
            self.refuse(Some(&selected.column.name), reason, "take `generated = \"reread\"` out");
        }
        let letters = settings.fields.iter().find(|(_, field)| field.on_misfit == Some(OnMisfit::DeadLetter));
        if settings.on_misfit == OnMisfit::DeadLetter || letters.is_some() {
            let reason = "`on_misfit = \"dead_letter\"`, and with `auto_id = true` no row can be read again by its key";
            self.refuse(letters.map(|(name, _)| &**name), reason, "choose another policy, or give the table a key");
        }
        let remedy = match &table.published.columns {
            Some(_) => {
                format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT, with a primary key that the column list has")
            }
            None => format!("ALTER TABLE {name} REPLICA IDENTITY FULL"),
        };
        let list = table.published.columns.as_ref();
        // PostgreSQL takes no deferrable key for an identity.
        let deferrable = table.replica_identity == ReplicaIdentity::Default
            && table.primary_key.as_ref().is_some_and(|key| key.deferrable);
        let is_usable = match identity_columns(table) {
            None => list.is_none(), // FULL
            Some(columns) => {
                let sent = |column: &String| list.is_none_or(|list| list.contains(column));
                !columns.is_empty() && !deferrable && columns.iter().all(sent)
            }
        };
        if !is_usable {
            let reason = "its replica identity names no row, or the publication's column list leaves it out: once it is published, \
                          PostgreSQL refuses every UPDATE and DELETE of it";
            self.refuse(None, reason, remedy);
        }
    }

    fn primary_key(&mut self) -> Vec<String> {
        let name = self.sql_name();
        let Some(key) = self.table.primary_key.clone() else {
            let proof = self.table.unique_indexes.iter().find(|index| self.is_proof(index));
            let remedy = match proof {
                Some(index) => format!(
                    "set `key = {:?}`, and ALTER TABLE {name} REPLICA IDENTITY USING INDEX {}",
                    index.columns,
                    identifier(&index.name)
                ),
                None => {
                    let candidate = self.table.columns.iter().find(|c| c.name == "id" && c.not_null);
                    format!(
                        "ALTER TABLE {name} ADD PRIMARY KEY ({}); a table that is only ever inserted into needs none with \
                         `auto_id = true`",
                        candidate.map_or("…", |_| "id")
                    )
                }
            };
            self.refuse(None, "it has no primary key: an UPDATE or DELETE could not be followed", remedy);
            return Vec::new();
        };
        if key.deferrable {
            let columns = key.columns.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(", ");
            let constraint = identifier(&key.index_name);
            self.refuse(
                None,
                "its primary key is deferrable: two rows may share a key within a transaction",
                format!(
                    "ALTER TABLE {name} DROP CONSTRAINT {constraint}, ADD CONSTRAINT {constraint} PRIMARY KEY ({columns})"
                ),
            );
        }
        key.columns
    }

    /// The columns of the settings, if an index proves them.
    fn chosen_key(&mut self, columns: Vec<String>) -> Vec<String> {
        let (name, table) = (self.sql_name(), self.table);
        for column in &columns {
            match table.columns.iter().find(|found| found.name == *column) {
                Some(found) if found.not_null => {}
                Some(_) => {
                    let remedy = format!("ALTER TABLE {name} ALTER COLUMN {} SET NOT NULL", identifier(column));
                    self.refuse(Some(column), "`key` names it, and it may be NULL", remedy);
                }
                None => {
                    let known: Vec<&str> = table.columns.iter().map(|c| &*c.name).collect();
                    let remedy = format!("its columns are {}", known.join(", "));
                    self.refuse(Some(column), "`key` names a column that the table does not have", remedy);
                    return Vec::new();
                }
            }
        }
        let over_these = || table.unique_indexes.iter().filter(|index| same(&index.columns, &columns));
        if !over_these().any(|index| !index.partial && !index.deferrable) {
            let list = columns.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(", ");
            let reason = match over_these().next() {
                None => format!("no unique index is on exactly ({list}), which `key` names"),
                Some(index) if index.partial => {
                    format!("the unique index {} on ({list}) is partial: it says nothing of other rows", index.name)
                }
                Some(index) => {
                    format!(
                        "the unique index {} is deferrable: two rows may share a key within a transaction",
                        index.name
                    )
                }
            };
            let concurrently = if table.is_partitioned() { "" } else { "CONCURRENTLY " };
            self.refuse(None, reason, format!("CREATE UNIQUE INDEX {concurrently}ON {name} ({list})"));
        }
        columns
    }

    /// Is it unique for every row at every moment, over columns that are never NULL?
    fn is_proof(&self, index: &UniqueIndex) -> bool {
        let not_null = |name: &String| self.table.columns.iter().any(|c| c.name == *name && c.not_null);
        !index.partial && !index.deferrable && index.columns.iter().all(not_null)
    }

    /// UPDATE and DELETE must name the row by the key's columns, in the table and in every leaf.
    pub(super) fn check_identity(&mut self, key: &[String]) {
        if key.is_empty() {
            return; // refused already
        }
        let table = self.table;
        let primary = table.primary_key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
        let is_primary = same(&primary, key);
        let own = (self.sql_name(), table.replica_identity.clone(), true);
        let leaves = table.leaves.iter().filter(|leaf| leaf.oid != table.oid);
        let mut relations = vec![own];
        relations
            .extend(leaves.map(|leaf| (qualified(&leaf.schema, &leaf.name), leaf.replica_identity.clone(), false)));
        for (name, identity, is_root) in &relations {
            let index = table.unique_indexes.iter().find(|index| same(&index.columns, key) && self.is_proof(index));
            let remedy = match index.filter(|_| *is_root) {
                _ if is_primary => format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT"),
                Some(index) => format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {}", identifier(&index.name)),
                None => format!("ALTER TABLE {name} REPLICA IDENTITY FULL"),
            };
            let identity_columns = match identity {
                ReplicaIdentity::Full => {
                    if table.published.columns.is_some() {
                        let reason = format!(
                            "the publication has a column list, and {name} has REPLICA IDENTITY FULL: PostgreSQL refuses \
                             every UPDATE and DELETE of it"
                        );
                        self.refuse(None, reason, format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT"));
                    }
                    continue;
                }
                ReplicaIdentity::Nothing => {
                    let reason = format!("{name} has REPLICA IDENTITY NOTHING: UPDATE and DELETE name no row");
                    self.refuse(None, reason, remedy);
                    continue;
                }
                ReplicaIdentity::Default => {
                    if primary.is_empty() {
                        let reason = format!("{name} has no replica identity: UPDATE and DELETE name no row");
                        self.refuse(None, reason, remedy);
                        continue;
                    }
                    if !is_primary {
                        let reason = format!(
                            "the replica identity of {name} is its primary key ({}), and `key` is ({})",
                            primary.join(", "),
                            key.join(", ")
                        );
                        self.refuse(None, reason, remedy);
                        continue;
                    }
                    primary.clone()
                }
                ReplicaIdentity::Index(columns) => {
                    if !same(columns, key) {
                        let what = if is_primary { "the primary key" } else { "the key of the settings" };
                        let reason = format!(
                            "the replica identity of {name} is an index on ({}), which is not {what}",
                            columns.join(", ")
                        );
                        self.refuse(None, reason, remedy);
                        continue;
                    }
                    columns.clone()
                }
            };
            if let Some(list) = &table.published.columns
                && let Some(column) = identity_columns.iter().find(|column| !list.contains(column))
            {
                let reason = format!(
                    "the publication's column list leaves it out, and it is in the replica identity of {name}: PostgreSQL \
                     refuses every UPDATE and DELETE of it"
                );
                self.refuse(Some(column), reason, "take it into the list by ALTER PUBLICATION … SET TABLE");
            }
        }
        // Published through the root, an old row is marked as the root's identity says and filled as the leaf's does:
        // under a FULL root the columns that such a leaf leaves out would look like NULLs.
        if table.is_partitioned() && table.replica_identity == ReplicaIdentity::Full {
            for (name, identity, _) in relations.iter().skip(1) {
                if *identity != ReplicaIdentity::Full {
                    let reason = format!("it has REPLICA IDENTITY FULL and its partition {name} has not");
                    self.refuse(None, reason, format!("ALTER TABLE {name} REPLICA IDENTITY FULL"));
                }
            }
        }
    }
}

/// The same columns, in any order.
fn same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && other.iter().all(|column| one.contains(column))
}
