//! Catalog and settings to plan.
//!
//! In: each table as the catalog describes it, with its settings, and what the server can do. Out: the plan, or every
//! refusal at once, each with the table, the column and what mends it.
//!
//! Holds: what is planned can be created on this server and filled without loss; what cannot is refused here, before
//! anything is sent. The same input gives the same plan, names included.
//!
//! Not here: which columns and what key (`rows`), a column's field (`field`), types (`types`), names (`names`), indexes
//! (`index`), an existing collection (`differences`).

mod field;
mod mapping;

use crate::change::TableId;
use crate::config::settings::{IndexSetting, OnMisfit, OnUpdateDelete, TableSettings};
use crate::milvus::{CollectionSchema, ConsistencyLevel, DataType, FieldSchema, ServerInfo};
use crate::postgres::catalog::Table;

use super::names::{self, qualified};
use super::rows::Selected;
use super::types::VARCHAR_MAX;
use super::{ColumnPlan, KeyPlan, Plan, SourceType, TablePlan, index};

/// Fields of a collection: Milvus's `proxy.maxFieldNum`, and the bits of a row's mask of missing columns.
const FIELDS_MAX: usize = 64;

/// Why a table cannot be planned, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("table {table}{}: {reason}; {remedy}", .column.as_ref().map(|c| format!(", column {c:?}")).unwrap_or_default())]
pub struct PlanRefusal {
    /// `schema.table`.
    pub table: String,
    pub column: Option<String>,
    pub reason: String,
    /// The statement or setting that mends it.
    pub remedy: String,
}

/// Plan every table; `TableId(i)` is the i-th.
pub fn build(tables: &[(Table, TableSettings)], server: &ServerInfo) -> Result<Plan, Vec<PlanRefusal>> {
    let mut plans: Vec<TablePlan> = Vec::new();
    let mut refusals = Vec::new();
    for (i, (table, settings)) in tables.iter().enumerate() {
        let id = TableId(u32::try_from(i).expect("fewer than 2^32 tables"));
        match (Builder { table, settings, server, refusals: Vec::new(), remarks: Vec::new() }).build(id) {
            Ok(plan) => {
                if let Some(other) = plans.iter().find(|other| other.collection.name == plan.collection.name) {
                    refusals.push(PlanRefusal {
                        table: plan.qualified_name(),
                        column: None,
                        reason: format!(
                            "collection {:?} is already that of {}",
                            plan.collection.name,
                            other.qualified_name()
                        ),
                        remedy: "set `collection = \"…\"` in one of the two [[table]] sections".into(),
                    });
                }
                plans.push(plan);
            }
            Err(mut more) => refusals.append(&mut more),
        }
    }
    for (table, _) in tables {
        let root = tables.iter().find(|(other, _)| table.ancestors.contains(&other.oid));
        if let Some((root, _)) = root {
            refusals.push(PlanRefusal {
                table: table.qualified_name(),
                column: None,
                reason: format!("it is a partition of {}, which is in the configuration too", root.qualified_name()),
                remedy: "name one of the two".into(),
            });
        }
    }
    if refusals.is_empty() { Ok(Plan { tables: plans }) } else { Err(refusals) }
}

pub(super) struct Builder<'a> {
    pub(super) table: &'a Table,
    pub(super) settings: &'a TableSettings,
    server: &'a ServerInfo,
    refusals: Vec<PlanRefusal>,
    pub(super) remarks: Vec<String>,
}

impl<'a> Builder<'a> {
    fn build(mut self, id: TableId) -> Result<TablePlan, Vec<PlanRefusal>> {
        self.check_relation();
        let selected = self.select_columns();
        if self.settings.auto_id {
            self.check_auto_id(&selected);
        }
        let collection_name = self.collection_name();

        let key_names = self.key_column_names(&selected);
        self.check_identity(&key_names);
        let (mut columns, mut fields) = (Vec::new(), Vec::new());
        self.check_mapping(&selected, &key_names);
        for Selected { column, reread } in selected {
            let is_key = key_names.contains(&column.name);
            if self.settings.dynamic.contains(&column.name) && !is_key {
                columns.extend(self.dynamic_column(column, reread));
                continue;
            }
            if let Some((mut plan, field)) = self.column(column, is_key, key_names.len() > 1) {
                plan.field = fields.len();
                plan.reread = reread;
                columns.push(plan);
                fields.push(field);
            }
        }
        let key = self.key(&key_names, &mut columns, &mut fields);
        let placeholder = self.placeholder(&mut fields);
        self.check_fields(&columns, &fields);
        let indexes = match self.settings.index {
            IndexSetting::Auto => {
                index::indexes(self.table, self.settings, self.server, &columns, &fields, &mut self.remarks)
            }
            IndexSetting::None => {
                self.remarks.push("no index is created and the collection is not loaded: both are yours to do".into());
                Ok(Vec::new())
            }
        };
        let indexes = indexes.unwrap_or_else(|refusals| {
            for (column, reason, remedy) in refusals {
                self.refuse(column.as_deref(), reason, remedy);
            }
            Vec::new()
        });
        let (Some(key), true) = (key, self.refusals.is_empty()) else { return Err(self.refusals) };
        Ok(TablePlan {
            id,
            oid: self.table.oid,
            schema: self.table.schema.clone(),
            name: self.table.name.clone(),
            is_partitioned: self.table.is_partitioned(),
            row_filter: self.table.published.row_filter.clone(),
            columns,
            key,
            collection: CollectionSchema {
                name: collection_name,
                description: format!("{}.{}, kept in step by walvec", self.table.schema, self.table.name),
                fields,
                enable_dynamic_field: self.settings.dynamic_field,
                num_shards: self.settings.num_shards,
                consistency_level: self.consistency_level(),
                num_partitions: self.settings.num_partitions,
                properties: self.settings.properties.clone(),
            },
            indexes,
            placeholder,
            refused_to_letters: self.settings.on_misfit == OnMisfit::DeadLetter,
            dead_letters_max: self.settings.dead_letters_max,
            on_add_column: self.settings.on_add_column,
            on_schema_change: self.settings.on_schema_change,
            on_update_delete: self.settings.on_update_delete,
            on_stop: self.settings.on_stop,
            remarks: self.remarks,
        })
    }

    fn consistency_level(&self) -> Option<ConsistencyLevel> {
        let name = self.settings.consistency_level.as_deref()?;
        ConsistencyLevel::ALL.into_iter().find(|level| level.name() == name)
    }

    pub(super) fn refuse(&mut self, column: Option<&str>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.refusals.push(PlanRefusal {
            table: self.table.qualified_name(),
            column: column.map(Into::into),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn sql_name(&self) -> String {
        qualified(&self.table.schema, &self.table.name)
    }

    fn collection_name(&mut self) -> String {
        match &self.settings.collection {
            Some(name) => {
                if !names::is_valid(name) {
                    let reason = format!("{name:?} is no name for a collection");
                    self.refuse(None, reason, format!("set `collection` to {}", names::RULE));
                }
                name.clone()
            }
            None if self.table.schema == "public" => names::sanitise(&self.table.name),
            None => names::sanitise(&format!("{}_{}", self.table.schema, self.table.name)),
        }
    }

    /// Finds the primary field among the fields; for a composite key, or none, puts one before them.
    fn key(&mut self, names: &[String], columns: &mut [ColumnPlan], fields: &mut Vec<FieldSchema>) -> Option<KeyPlan> {
        let position = |name: &String| columns.iter().position(|column| column.name == *name);
        let found: Vec<usize> = names.iter().map(position).collect::<Option<_>>()?;
        if let [column] = *found {
            if !self.server.has_nullable() && columns.get(column)?.source == SourceType::named("int8") {
                // Measured on 2.3.5: 2^63 - 1 is acknowledged and gone, -2^63 cannot be written in a filter.
                self.remarks.push(format!(
                    "Milvus {} does not keep a key of {} or {}: have none",
                    self.server.version,
                    i64::MIN,
                    i64::MAX
                ));
            }
            return Some(KeyPlan::Single { column, field: columns.get(column)?.field });
        }
        if found.is_empty() && !self.settings.auto_id {
            return None;
        }
        let mut name = "pk".to_owned();
        while fields.iter().any(|field| field.name == name) {
            name.push('_');
        }
        let is_auto = found.is_empty();
        self.remarks.push(match is_auto {
            true => format!(
                "field {name:?} is a number of walvec's own, as `auto_id = true`: INSERTs and TRUNCATEs are followed; at an UPDATE or \
                 DELETE, which names no entity, {}",
                match self.settings.on_update_delete {
                    OnUpdateDelete::Stop => "the table stops",
                    OnUpdateDelete::Ignore => "nothing happens",
                }
            ),
            false => format!("field {name:?} is made from the key columns {}, joined by |", names.join(", ")),
        });
        for column in columns.iter_mut().filter(|column| !column.is_dynamic()) {
            column.field += 1;
        }
        let primary = FieldSchema {
            name,
            data_type: if is_auto { DataType::Int64 } else { DataType::VarChar },
            is_primary: true,
            auto_id: false,
            nullable: false,
            element_type: None,
            max_length: (!is_auto).then_some(VARCHAR_MAX),
            max_capacity: None,
            dim: None,
            description: match is_auto {
                true => "numbered by walvec".into(),
                false => format!("{} joined by |", names.join(", ")),
            },
            default_value: None,
            is_partition_key: false,
            mmap: None,
        };
        fields.insert(0, primary);
        Some(if is_auto { KeyPlan::Auto { field: 0 } } else { KeyPlan::Composite { columns: found, field: 0 } })
    }

    fn check_fields(&mut self, columns: &[ColumnPlan], fields: &[FieldSchema]) {
        let fixed: Vec<&ColumnPlan> = columns.iter().filter(|column| !column.is_dynamic()).collect();
        for column in columns.iter().filter(|column| column.is_dynamic()) {
            if fields.iter().any(|field| field.name == column.name) {
                let reason = "as a member of the dynamic field it would have the name of a field";
                self.refuse(Some(&column.name), reason, "give the field another name with `rename`");
            }
        }
        for (i, column) in fixed.iter().enumerate() {
            let name_of = |column: &ColumnPlan| fields.get(column.field).map(|field| &field.name);
            let twin = fixed.iter().take(i).find(|other| name_of(other) == name_of(column));
            if let (Some(twin), Some(name)) = (twin, name_of(column)) {
                let reason = format!("its field would be {name:?}, as that of column {:?}", twin.name);
                let remedy = format!("set `rename` in [table.fields.{}]", column.name);
                self.refuse(Some(&column.name), reason, remedy);
            }
        }
        if fields.len() > FIELDS_MAX {
            let reason = format!("{} fields; a collection has at most {FIELDS_MAX}", fields.len());
            self.refuse(None, reason, "name the columns that are needed: `columns = { include = […] }`");
        }
        let vectors = fields.iter().filter(|field| field.data_type.is_vector()).count();
        // A vector that was refused for itself must not be reported as missing too.
        let refused = self.refusals.iter().any(|refusal| refusal.column.is_some());
        if vectors == 0 && !refused {
            let remedy = format!(
                "name a table with a vector column, or take {} out of the configuration; `placeholder_vector = true` in its \
                 [[table]] gives the collection a constant vector",
                self.sql_name()
            );
            self.refuse(None, "it has no vector column, and a collection needs one", remedy);
        }
        let most = self.server.vector_fields_max();
        if vectors > most {
            let version = &self.server.version;
            let (reason, remedy) = match most {
                // Its own words: "multiple vector fields is not supported".
                1 => (
                    format!("{vectors} vector columns; Milvus {version} has one to a collection"),
                    "leave all but one out with `columns = { exclude = […] }`".to_owned(),
                ),
                most => (
                    format!("{vectors} vector columns; Milvus {version} has at most {most} to a collection"),
                    "leave some out with `columns = { exclude = […] }`".to_owned(),
                ),
            };
            self.refuse(None, reason, remedy);
        }
    }

    /// A constant vector for a table without one, where that is asked for: its field.
    fn placeholder(&mut self, fields: &mut Vec<FieldSchema>) -> Option<usize> {
        if !self.settings.placeholder_vector || fields.iter().any(|field| field.data_type.is_vector()) {
            return None;
        }
        let mut name = "placeholder_vector".to_owned();
        while fields.iter().any(|field| field.name == name) {
            name.push('_');
        }
        self.remarks.push(format!("field {name:?} is a constant vector, as a collection must have one"));
        fields.push(FieldSchema {
            name,
            data_type: DataType::FloatVector,
            is_primary: false,
            auto_id: false,
            nullable: false,
            element_type: None,
            max_length: None,
            max_capacity: None,
            dim: Some(PLACEHOLDER.len() as u32),
            description: "constant: a collection must have a vector".into(),
            default_value: None,
            is_partition_key: false,
            mmap: None,
        });
        Some(fields.len() - 1)
    }
}

/// The constant: of length 1, so that every metric takes it.
pub const PLACEHOLDER: [f32; 2] = [1.0, 0.0];
