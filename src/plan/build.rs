//! Catalog and settings to plan.
//!
//! In: each table as the catalog describes it, with its settings, and what the server can do. Out: the plan, or every
//! refusal at once, each with the table, the column and what mends it.
//!
//! Holds: what is planned can be created on this server and filled without loss; what cannot is refused here, before
//! anything is sent. The same input gives the same plan, names included.
//!
//! Not here: which columns and what key (`rows`), types (`types`), names (`names`), indexes (`index`), an existing collection (`differences`).

use crate::change::TableId;
use crate::config::settings::{FieldSettings, IndexSetting, TableSettings};
use crate::milvus::{CollectionSchema, DataType, FieldSchema, ServerInfo};
use crate::postgres::catalog::{Column, Table};

use super::names::{self, identifier, qualified};
use super::rows::Selected;
use super::types::{ARRAY_MAX, DIMENSIONS, KeyUse, VARCHAR_MAX, resolve};
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
        let collection_name = self.collection_name();

        let key_names = self.key_column_names(&selected);
        self.check_identity(&key_names);
        let (mut columns, mut fields) = (Vec::new(), Vec::new());
        for Selected { column, reread } in selected {
            let is_key = key_names.contains(&column.name);
            if let Some((mut plan, field)) = self.column(column, is_key, key_names.len() > 1) {
                plan.field = fields.len();
                plan.reread = reread;
                columns.push(plan);
                fields.push(field);
            }
        }
        let key = self.key(&key_names, &mut columns, &mut fields);
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
        let indexes = indexes.unwrap_or_else(|(reason, remedy)| {
            self.refuse(None, reason, remedy);
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
                enable_dynamic_field: false,
                num_shards: self.settings.num_shards,
            },
            indexes,
            remarks: self.remarks,
        })
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

    fn column(&mut self, column: &Column, is_key: bool, composite: bool) -> Option<(ColumnPlan, FieldSchema)> {
        let settings = self.field_settings(&column.name);
        let leave_out = format!("leave it out with `columns = {{ exclude = [{:?}] }}`", column.name);
        let mut source = match resolve(&column.data_type) {
            Ok(source) => source,
            Err(reason) => {
                let reason = format!("{reason} (its type is {})", column.type_name);
                self.refuse(Some(&column.name), reason, leave_out);
                return None;
            }
        };
        let entry = source.entry();
        if is_key {
            let mendable = "choose another primary key";
            match entry.key {
                KeyUse::Never(reason) => {
                    self.refuse(Some(&column.name), format!("key of type {}: {reason}", column.type_name), mendable)
                }
                KeyUse::Part if !composite => {
                    let reason = format!("Milvus has no primary key of type {}", entry.target);
                    self.refuse(Some(&column.name), reason, mendable);
                }
                KeyUse::Part | KeyUse::Int | KeyUse::Text => {}
            }
        }
        self.check_field_settings(column, &settings, &source);
        if let SourceType::Vector { dim } = &mut source {
            *dim = self.dimension(column, &settings, *dim)?;
        }

        let single_key = is_key && !composite;
        // Integers of every width are one kind of key in Milvus.
        let data_type = if single_key && entry.key == KeyUse::Int { DataType::Int64 } else { entry.target };
        let element = match &source {
            SourceType::Array(element) => Some(element.entry()),
            _ => None,
        };
        let text_entry = element.unwrap_or(entry);
        let is_text = text_entry.target == DataType::VarChar;
        let nullable = !is_key && self.server.has_nullable() && data_type != DataType::FloatVector;
        let mut reason = entry.reason.to_owned();
        if data_type != entry.target {
            reason = "integer keys are INT64 in Milvus".into();
        }
        if let SourceType::Vector { .. } = source
            && !column.not_null
        {
            reason.push_str("; a row without a vector is refused");
        } else if !is_key && !nullable && !column.not_null {
            reason.push_str("; this server has no nullable fields, so a row with NULL is refused");
        }
        let field = FieldSchema {
            name: self.field_name(column, &settings),
            data_type,
            is_primary: single_key,
            auto_id: false,
            nullable,
            element_type: element.map(|element| element.target),
            max_length: is_text.then(|| settings.max_length.or(text_entry.text_max).unwrap_or(VARCHAR_MAX)),
            max_capacity: element.map(|_| settings.max_capacity.unwrap_or(ARRAY_MAX)),
            dim: if let SourceType::Vector { dim } = source { Some(dim) } else { None },
            description: column.type_name.clone(),
        };
        let plan = ColumnPlan {
            name: column.name.clone(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            type_name: column.type_name.clone(),
            source,
            reread: false,
            field: 0, // set where the field is placed
            reason,
        };
        Some((plan, field))
    }

    fn field_settings(&self, column: &str) -> FieldSettings {
        self.settings.fields.iter().find(|(name, _)| name == column).map(|(_, s)| s.clone()).unwrap_or_default()
    }

    /// Settings that do not apply to the column's type, or are out of bounds.
    fn check_field_settings(&mut self, column: &Column, settings: &FieldSettings, source: &SourceType) {
        let section = format!("[table.fields.{}]", column.name);
        let element = match source {
            SourceType::Array(element) => Some(&**element),
            _ => None,
        };
        let is_text = element.unwrap_or(source).entry().target == DataType::VarChar;
        let is_vector = matches!(source, SourceType::Vector { .. });
        for (setting, value, applies, max) in [
            ("max_length", settings.max_length, is_text, Some(VARCHAR_MAX)),
            ("max_capacity", settings.max_capacity, element.is_some(), Some(ARRAY_MAX)),
            ("dimension", settings.dimension, is_vector, None), // bounded where it is used
        ] {
            let Some(value) = value else { continue };
            if !applies {
                let reason = format!("`{setting}` does not apply to type {}", column.type_name);
                self.refuse(Some(&column.name), reason, format!("remove it from {section}"));
            } else if let Some(max) = max.filter(|max| !(1..=*max).contains(&value)) {
                self.refuse(Some(&column.name), format!("`{setting} = {value}`"), format!("take one from 1 to {max}"));
            }
        }
    }

    fn dimension(&mut self, column: &Column, settings: &FieldSettings, declared: u32) -> Option<u32> {
        let setting = format!("[table.fields.{}] dimension", column.name);
        let dim = match (declared, settings.dimension) {
            (0, None) => {
                let reason = "the vector has no declared dimension";
                let remedy = format!(
                    "ALTER TABLE {} ALTER COLUMN {} TYPE vector(n), or set `{setting}`",
                    self.sql_name(),
                    identifier(&column.name)
                );
                self.refuse(Some(&column.name), reason, remedy);
                return None;
            }
            (0, Some(dim)) => dim,
            (declared, Some(dim)) if declared != dim => {
                let reason = format!("`dimension = {dim}`, but the column is {}", column.type_name);
                self.refuse(Some(&column.name), reason, format!("remove `{setting}`"));
                return None;
            }
            (declared, _) => declared,
        };
        if !DIMENSIONS.contains(&dim) {
            let reason = format!("{dim} dimensions; a FLOAT_VECTOR has {} to {}", DIMENSIONS.start(), DIMENSIONS.end());
            self.refuse(
                Some(&column.name),
                reason,
                format!("leave it out with `columns = {{ exclude = [{:?}] }}`", column.name),
            );
            return None;
        }
        Some(dim)
    }

    fn field_name(&mut self, column: &Column, settings: &FieldSettings) -> String {
        match &settings.rename {
            Some(name) => {
                if !names::is_valid(name) || names::is_reserved(name) {
                    let remedy = format!("set `rename` to {}, and no word of Milvus's own", names::RULE);
                    self.refuse(Some(&column.name), format!("{name:?} is no name for a field"), remedy);
                }
                name.clone()
            }
            None => {
                let name = names::field(&column.name);
                if name != column.name {
                    self.remarks
                        .push(format!("column {:?} becomes field {name:?}: Milvus takes no such name", column.name));
                }
                name
            }
        }
    }

    /// Finds the primary field among the fields; for a composite key, puts one before them.
    fn key(&mut self, names: &[String], columns: &mut [ColumnPlan], fields: &mut Vec<FieldSchema>) -> Option<KeyPlan> {
        let position = |name: &String| columns.iter().position(|column| column.name == *name);
        let found: Vec<usize> = names.iter().map(position).collect::<Option<_>>()?;
        if let [column] = *found {
            if !self.server.has_nullable() && columns.get(column)?.source == SourceType::Int8 {
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
        if found.is_empty() {
            return None;
        }
        let mut name = "pk".to_owned();
        while fields.iter().any(|field| field.name == name) {
            name.push('_');
        }
        self.remarks.push(format!("field {name:?} is made from the key columns {}, joined by |", names.join(", ")));
        for column in columns {
            column.field += 1;
        }
        let primary = FieldSchema {
            name,
            data_type: DataType::VarChar,
            is_primary: true,
            auto_id: false,
            nullable: false,
            element_type: None,
            max_length: Some(VARCHAR_MAX),
            max_capacity: None,
            dim: None,
            description: format!("{} joined by |", names.join(", ")),
        };
        fields.insert(0, primary);
        Some(KeyPlan::Composite { columns: found, field: 0 })
    }

    fn check_fields(&mut self, columns: &[ColumnPlan], fields: &[FieldSchema]) {
        for (i, column) in columns.iter().enumerate() {
            let name_of = |column: &ColumnPlan| fields.get(column.field).map(|field| &field.name);
            let twin = columns.iter().take(i).find(|other| name_of(other) == name_of(column));
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
        let vectors = fields.iter().filter(|field| field.data_type == DataType::FloatVector).count();
        // A vector that was refused for itself must not be reported as missing too.
        let refused = self.refusals.iter().any(|refusal| refusal.column.is_some());
        if vectors == 0 && !refused {
            let remedy =
                format!("name a table with a vector column, or take {} out of the configuration", self.sql_name());
            self.refuse(None, "it has no vector column, and a collection needs one", remedy);
        }
        if vectors > 1 && self.server.version.trim_start_matches('v').starts_with("2.3.") {
            // Its own words: "multiple vector fields is not supported".
            let reason = format!("{vectors} vector columns; Milvus {} has one to a collection", self.server.version);
            self.refuse(None, reason, "leave all but one out with `columns = { exclude = […] }`");
        }
    }
}
