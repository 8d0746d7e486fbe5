//! A table that changed under its collection: what to do about it.
//!
//! In: the table as it is now, its settings, and the collection that it was copied into. Out: settings under which the plan fits
//! the collection again, fields that the collection is to get, or one sentence that says why it does not fit. Pure.
//!
//! Holds: no value gets into a field of another column. A column without a field beside a field without a column may be one
//! that was renamed: nobody guesses which.

use crate::config::settings::{OnAddColumn, TableSettings};
use crate::milvus::{CollectionSchema, DataType, FieldSchema, ServerInfo};
use crate::postgres::catalog::Table;

use super::{ColumnPlan, KeyPlan, SourceType, TablePlan, build, differences};
use crate::change::{Oid, TableId};
use crate::config::settings::OnMisfit;

/// What becomes of a table that was copied before.
#[derive(Clone, Debug)]
pub enum Evolution {
    /// The plan fits the collection, under these settings.
    Fits(TableSettings),
    /// It fits once the collection has these fields too. `columns`: those that they are for.
    AddFields { settings: TableSettings, fields: Vec<FieldSchema>, columns: Vec<String> },
    /// It does not, for this reason.
    Unfit(String),
}

/// Compare table and collection.
pub fn evolve(table: &Table, settings: &TableSettings, existing: &CollectionSchema, server: &ServerInfo) -> Evolution {
    let planned = |settings: &TableSettings| match build(&[(table.clone(), settings.clone())], server) {
        Ok(mut plan) => Ok(plan.tables.remove(0)),
        Err(refusals) => Err(refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    };
    let plan = match planned(settings) {
        Ok(plan) => plan,
        Err(reason) => return Evolution::Unfit(reason),
    };
    let has_field = |field: &FieldSchema| existing.fields.iter().any(|found| found.name == field.name);
    let new: Vec<(usize, &FieldSchema)> =
        plan.collection.fields.iter().enumerate().filter(|(_, field)| !has_field(field)).collect();
    let columns: Vec<String> = new
        .iter()
        .filter_map(|(at, _)| plan.columns.iter().find(|column| column.field == *at))
        .map(|column| column.name.clone())
        .collect();
    let mut adapted = settings.clone();
    let mut fields = Vec::new();
    if !new.is_empty() {
        let orphans: Vec<&str> = existing
            .fields
            .iter()
            .filter(|found| !plan.collection.fields.iter().any(|field| field.name == found.name))
            .map(|found| found.name.as_str())
            .collect();
        let named = columns.join(", ");
        if columns.len() < new.len() || !orphans.is_empty() {
            return Evolution::Unfit(format!(
                "columns {named} have no field in collection {:?}, whose fields {} have no column: if one was renamed, set `rename` in \
                 [table.fields.{}] to the name of its field; leave a new one out with `columns = {{ exclude = […] }}`; or set \
                 `on_schema_change = \"resync\"`",
                existing.name,
                orphans.join(", "),
                columns.first().map_or("…", String::as_str)
            ));
        }
        match settings.on_add_column {
            OnAddColumn::Ignore if settings.include.is_none() => adapted.exclude.extend(columns.iter().cloned()),
            OnAddColumn::Ignore => {
                return Evolution::Unfit(format!(
                    "`columns.include` names {named}, for which collection {:?} has no field: set `on_add_column = \"add\"`, or take them out",
                    existing.name
                ));
            }
            OnAddColumn::Dynamic if existing.enable_dynamic_field => adapted.dynamic.extend(columns.iter().cloned()),
            OnAddColumn::Dynamic => {
                return Evolution::Unfit(format!(
                    "columns {named} are new, and collection {:?} has no dynamic field, which only a new collection can get: set \
                     `on_add_column` to another word, or `on_schema_change = \"resync\"` and `dynamic_field = true`",
                    existing.name
                ));
            }
            OnAddColumn::Stop => {
                return Evolution::Unfit(format!(
                    "columns {named} are new, and `on_add_column = \"stop\"`: leave them out with `columns = {{ exclude = […] }}`, or set \
                     `on_add_column` to another word"
                ));
            }
            OnAddColumn::Add => {
                if !server.has_add_field() {
                    return Evolution::Unfit(format!(
                        "columns {named} are new, and Milvus {} adds no field to a collection: leave them out with `columns = {{ exclude = \
                         […] }}`, or set `on_schema_change = \"resync\"`",
                        server.version
                    ));
                }
                if let Some((_, fixed)) = new.iter().find(|(_, field)| !field.nullable) {
                    return Evolution::Unfit(format!(
                        "column {named} is new, and its field {:?} ({}) cannot be nullable, as an added field must: leave it out with \
                         `columns = {{ exclude = […] }}`, or set `on_schema_change = \"resync\"`",
                        fixed.name, fixed.data_type
                    ));
                }
                fields = new.iter().map(|(_, field)| (*field).clone()).collect();
            }
        }
    }
    let plan = match planned(&adapted) {
        Ok(plan) => plan,
        Err(reason) => return Evolution::Unfit(reason),
    };
    let mut then = existing.clone();
    then.fields.extend(fields.iter().cloned());
    let different = differences(&plan, &then);
    if !different.is_empty() {
        return Evolution::Unfit(format!(
            "it no longer fits collection {:?}: {}; mend the table or the mapping, or set `on_schema_change = \"resync\"`",
            existing.name,
            different.join("; ")
        ));
    }
    if fields.is_empty() {
        Evolution::Fits(adapted)
    } else {
        Evolution::AddFields { settings: adapted, fields, columns }
    }
}

/// In place of the plan of a table that is stopped: nothing of it is read or written, it only keeps its place.
pub fn placeholder(id: TableId, oid: Oid, table: &Table, settings: &TableSettings, collection: &str) -> TablePlan {
    let name = "stopped".to_owned();
    let key =
        FieldSchema { name: name.clone(), data_type: DataType::VarChar, is_primary: true, ..FieldSchema::dynamic() };
    TablePlan {
        id,
        oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        is_partitioned: table.is_partitioned(),
        row_filter: None,
        columns: vec![ColumnPlan {
            name,
            type_oid: 0,
            typmod: -1,
            type_name: "text".into(),
            source: SourceType::named("text"),
            encoding: None,
            on_misfit: OnMisfit::Error,
            reread: false,
            field: 0,
            reason: String::new(),
        }],
        key: KeyPlan::Single { column: 0, field: 0 },
        on_update_delete: settings.on_update_delete,
        on_stop: settings.on_stop,
        collection: CollectionSchema {
            name: collection.to_owned(),
            description: String::new(),
            fields: vec![key],
            enable_dynamic_field: false,
            num_shards: None,
            consistency_level: None,
            num_partitions: None,
            properties: Default::default(),
        },
        indexes: Vec::new(),
        placeholder: None,
        refused_to_letters: false,
        dead_letters_max: 0,
        on_add_column: settings.on_add_column,
        on_schema_change: settings.on_schema_change,
        remarks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{column, docs, plan_of, server, settings, table, vector};
    use super::*;

    fn grown() -> Table {
        table(vec![column("id", "int4"), column("title", "text"), vector("embedding", 3), column("more", "int4")])
    }

    fn with(on_add_column: OnAddColumn) -> TableSettings {
        TableSettings { on_add_column, ..settings() }
    }

    fn existing() -> CollectionSchema {
        plan_of(docs(), settings()).collection
    }

    fn fits(table: &Table, settings: &TableSettings) -> bool {
        matches!(evolve(table, settings, &existing(), &server()), Evolution::Fits(adapted) if adapted.exclude.is_empty())
    }

    fn unfit(table: &Table, settings: &TableSettings, existing: &CollectionSchema, server: &ServerInfo) -> String {
        match evolve(table, settings, existing, server) {
            Evolution::Unfit(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_new_column_goes_as_the_policy_says() {
        assert!(fits(&docs(), &settings()));
        match evolve(&grown(), &with(OnAddColumn::Ignore), &existing(), &server()) {
            Evolution::Fits(settings) => assert_eq!(settings.exclude, ["more"]),
            other => panic!("{other:?}"),
        }
        match evolve(&grown(), &with(OnAddColumn::Add), &existing(), &server()) {
            Evolution::AddFields { fields, columns, .. } => {
                assert_eq!((&*fields[0].name, fields[0].nullable, columns), ("more", true, vec!["more".to_owned()]));
            }
            other => panic!("{other:?}"),
        }
        let dynamic = CollectionSchema { enable_dynamic_field: true, ..existing() };
        match evolve(
            &grown(),
            &TableSettings { dynamic_field: true, ..with(OnAddColumn::Dynamic) },
            &dynamic,
            &server(),
        ) {
            Evolution::Fits(settings) => assert_eq!(settings.dynamic, ["more"]),
            other => panic!("{other:?}"),
        }
        let reason = unfit(&grown(), &with(OnAddColumn::Stop), &existing(), &server());
        assert!(reason.starts_with("columns more are new, and `on_add_column = \"stop\"`"), "{reason}");
        let reason = unfit(&grown(), &with(OnAddColumn::Dynamic), &existing(), &server());
        assert!(reason.contains("has no dynamic field, which only a new collection can get"), "{reason}");
        let old = ServerInfo { version: "v2.5.4".into() };
        let reason = unfit(&grown(), &with(OnAddColumn::Add), &existing(), &old);
        assert!(reason.contains("Milvus v2.5.4 adds no field to a collection"), "{reason}");
    }

    #[test]
    fn what_may_be_a_rename_is_never_guessed() {
        let renamed = table(vec![column("id", "int4"), column("headline", "text"), vector("embedding", 3)]);
        for policy in [OnAddColumn::Ignore, OnAddColumn::Add, OnAddColumn::Dynamic, OnAddColumn::Stop] {
            let reason = unfit(&renamed, &with(policy), &existing(), &server());
            assert!(
                reason.contains("columns headline have no field")
                    && reason.contains("whose fields title have no column"),
                "{reason}"
            );
        }
        let rename = crate::config::settings::FieldSettings { rename: Some("title".into()), ..Default::default() };
        let told = TableSettings { fields: vec![("headline".to_owned(), rename)], ..settings() };
        assert!(fits(&renamed, &told));
    }

    #[test]
    fn another_type_or_key_does_not_fit() {
        let retyped = table(vec![column("id", "int4"), column("title", "int4"), vector("embedding", 3)]);
        let reason = unfit(&retyped, &settings(), &existing(), &server());
        assert!(reason.contains("field \"title\" is VARCHAR(65535), not INT32"), "{reason}");
        let mut keyless = docs();
        keyless.primary_key = None;
        assert!(unfit(&keyless, &settings(), &existing(), &server()).contains("it has no primary key"));
        // A column that is gone leaves its field.
        let shrunk = table(vec![column("id", "int4"), vector("embedding", 3)]);
        assert!(fits(&shrunk, &settings()));
    }
}
