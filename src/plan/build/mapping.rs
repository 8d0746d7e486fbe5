//! Options of the collection as a whole, and of a field beyond its type: partition key, default values, dynamic field, shards.

use crate::config::settings::{FieldSettings, OnMisfit};
use crate::milvus::DataType;
use crate::postgres::catalog::Column;

use super::super::rows::Selected;
use super::super::types::{VARCHAR_MAX, resolve};
use super::super::{ColumnPlan, DYNAMIC};
use super::Builder;

/// What one shard takes, by the seed's advice: about 200 million rows of 768 dimensions.
const ROWS_PER_SHARD: u64 = 200_000_000;

impl Builder<'_> {
    /// Settings that name columns, against the columns that there are.
    pub(super) fn check_mapping(&mut self, selected: &[Selected<'_>], key: &[String]) {
        let settings = self.settings;
        let find = |name: &String| selected.iter().find(|selected| selected.column.name == *name);
        if let Some(name) = &settings.partition_key {
            let version = &self.server.version;
            match find(name) {
                None => self.unknown(name, "partition_key"),
                Some(_) if *key == [name.clone()] => {
                    let reason = "`partition_key` names the primary key, which Milvus spreads over shards already";
                    self.refuse(Some(name), reason, "name another column, or remove `partition_key`");
                }
                Some(_) if !self.server.has_partition_key() => {
                    let reason = format!(
                        "`partition_key`, and an upsert of Milvus {version} puts entities into wrong partitions"
                    );
                    self.refuse(Some(name), reason, "remove `partition_key`, or use Milvus 2.4 or newer");
                }
                Some(selected) => {
                    let targets = resolve(&selected.column.data_type).targets();
                    let fits = targets.contains(&DataType::Int64) || targets.first() == Some(&DataType::VarChar);
                    if !fits {
                        let type_name = &selected.column.type_name;
                        let reason = format!("a partition key is INT64 or VARCHAR, and {type_name} is neither");
                        self.refuse(Some(name), reason, "name another column");
                    }
                }
            }
        }
        for name in &settings.dynamic {
            let is_vector =
                |column: &Column| resolve(&column.data_type).targets().first().is_some_and(|t| t.is_vector());
            match find(name) {
                None => self.unknown(name, "dynamic"),
                Some(_) if key.contains(name) => {
                    let reason = "`dynamic` names it, and a column of the key needs its field";
                    self.refuse(Some(name), reason, "take it out of `dynamic`");
                }
                Some(_) if settings.partition_key.as_ref() == Some(name) => {
                    let reason = "`dynamic` names it, and the partition key needs its field";
                    self.refuse(Some(name), reason, "take it out of `dynamic`");
                }
                Some(selected) if is_vector(selected.column) => {
                    let reason = "`dynamic` names it, and Milvus searches vectors in fields only";
                    self.refuse(Some(name), reason, "take it out of `dynamic`");
                }
                Some(_) if settings.fields.iter().any(|(field, _)| field == name) => {
                    let reason = "`dynamic` names it, so it has no field to set anything for";
                    self.refuse(
                        Some(name),
                        reason,
                        format!("remove [table.fields.{name}], or take it out of `dynamic`"),
                    );
                }
                Some(_) => {}
            }
        }
        if settings.dynamic_field && settings.dynamic.is_empty() {
            self.remarks.push(
                "members that others write into the dynamic field are lost with the next change of their row: an upsert replaces \
                 the entity"
                    .into(),
            );
        }
        let rows = self.table.estimated_rows.unwrap_or(0);
        let shards = rows.div_ceil(ROWS_PER_SHARD);
        if shards > u64::from(settings.num_shards.unwrap_or(1)) {
            self.remarks.push(format!(
                "about {rows} rows: a shard is advised for each {ROWS_PER_SHARD} rows of 768 dimensions, so `num_shards = {shards}`; \
                 it cannot be changed later"
            ));
        }
    }

    fn unknown(&mut self, name: &str, setting: &str) {
        let columns: Vec<&str> = self.table.columns.iter().map(|column| &*column.name).collect();
        let remedy = format!("its columns are {}", columns.join(", "));
        self.refuse(Some(name), format!("`{setting}` names a column that is not taken"), remedy);
    }

    /// A column that becomes a member of the dynamic field.
    pub(super) fn dynamic_column(&mut self, column: &Column, reread: bool) -> Option<ColumnPlan> {
        let source = resolve(&column.data_type);
        let on_misfit = match self.settings.on_misfit {
            policy @ (OnMisfit::SkipRow | OnMisfit::DeadLetter) => policy,
            OnMisfit::Error | OnMisfit::Null | OnMisfit::Truncate => OnMisfit::Error,
        };
        Some(ColumnPlan {
            name: column.name.clone(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            type_name: column.type_name.clone(),
            source,
            encoding: None,
            on_misfit,
            reread,
            field: DYNAMIC,
            reason: "a member of the dynamic field".into(),
        })
    }

    /// The default in the form that the field type has.
    pub(super) fn default_value(
        &mut self,
        column: &Column,
        settings: &FieldSettings,
        data_type: DataType,
        is_key: bool,
    ) -> Option<String> {
        let text = settings.default.as_ref()?;
        let remedy = format!("remove `default` from [table.fields.{}]", column.name);
        if is_key {
            self.refuse(Some(&column.name), "`default` of a key or partition key, which is never NULL", remedy);
            return None;
        }
        if !self.server.has_default_values() {
            let reason = format!("`default`, and Milvus {} keeps none", self.server.version);
            self.refuse(Some(&column.name), reason, remedy);
            return None;
        }
        let plain = |known: bool, text: String| known.then_some(text);
        let finite = |number: f64| plain(number.is_finite(), number.to_string());
        let parsed = match data_type {
            DataType::Bool => plain(matches!(&**text, "true" | "false"), text.clone()),
            DataType::Int8 => text.parse::<i8>().ok().map(|number| number.to_string()),
            DataType::Int16 => text.parse::<i16>().ok().map(|number| number.to_string()),
            DataType::Int32 => text.parse::<i32>().ok().map(|number| number.to_string()),
            DataType::Int64 => text.parse::<i64>().ok().map(|number| number.to_string()),
            DataType::Float => text.parse::<f32>().ok().and_then(|n| plain(n.is_finite(), n.to_string())),
            DataType::Double => text.parse::<f64>().ok().and_then(finite),
            DataType::VarChar => plain(text.len() <= settings.max_length.unwrap_or(VARCHAR_MAX) as usize, text.clone()),
            _ => {
                self.refuse(Some(&column.name), format!("`default`, and Milvus has none for {data_type}"), remedy);
                return None;
            }
        };
        if parsed.is_none() {
            let reason = format!("`default = {text:?}`, which is no {data_type} of this field");
            self.refuse(Some(&column.name), reason, remedy);
        }
        parsed
    }
}
