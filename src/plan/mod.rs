//! The plan: how each table becomes a collection, field by field, and why. Pure: catalog and settings in, plan or refusals out.
//!
//! One table of types (`types`) says what a PostgreSQL type becomes; everything else reads from it.
//! A `Row` has a value for each of `TablePlan::columns`, in that order.

pub mod build;
pub mod differences;
mod estimate;
pub mod evolve;
pub mod index;
pub mod key;
mod names;
mod rows;
pub mod types;

use crate::change::{Oid, TableId};
use crate::config::settings::{Encoding, OnAddColumn, OnMisfit, OnSchemaChange, OnStop, OnUpdateDelete};
use crate::milvus::{CollectionSchema, IndexSpec};

pub use build::{PlanRefusal, build};
pub use differences::{Difference, differences, everything_different};
pub use estimate::Estimate;
pub use index::use_autoindex;
pub use key::KeyPlan;
pub use types::SourceType;

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `TableId(i)` is `tables[i]`.
    pub tables: Vec<TablePlan>,
}

impl Plan {
    pub fn table(&self, id: TableId) -> &TablePlan {
        &self.tables[id.0 as usize]
    }

    /// Columns whose binary form only PostgreSQL can read, as `schema.table.column`: because of them the stream is asked for text.
    pub fn columns_that_need_text(&self) -> impl Iterator<Item = String> + '_ {
        let of = |table: &'_ TablePlan| {
            let name = table.qualified_name();
            let columns = table.columns.iter().filter(|column| column.source.needs_text_stream());
            columns.map(|column| format!("{name}.{}", column.name)).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TablePlan {
    pub id: TableId,
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub is_partitioned: bool,
    /// Only rows for which this SQL condition is true are the table's, here and in the stream.
    pub row_filter: Option<String>,
    /// The columns that are read, in the order of a `Row`. At most 64.
    pub columns: Vec<ColumnPlan>,
    pub key: KeyPlan,
    /// The collection as it is to be created. Field i of the upsert is `collection.fields[i]`.
    pub collection: CollectionSchema,
    /// Indexes to create, each with the reason for its type and metric; empty when the user makes them.
    pub indexes: Vec<IndexPlan>,
    /// Index into `collection.fields` of a vector that is the same in every entity (`build::PLACEHOLDER`).
    pub placeholder: Option<usize>,
    /// Rows that the server refuses become dead letters, instead of stopping the table.
    pub refused_to_letters: bool,
    /// Dead letters that it may have.
    pub dead_letters_max: usize,
    pub on_add_column: OnAddColumn,
    pub on_schema_change: OnSchemaChange,
    pub on_update_delete: OnUpdateDelete,
    pub on_stop: OnStop,
    /// What the reader of `walvec plan` should know.
    pub remarks: Vec<String>,
}

impl TablePlan {
    /// `schema.table`, for people and metrics.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The columns that its entities have their keys from, for people and the state.
    pub fn key_names(&self) -> Vec<String> {
        match &self.key {
            KeyPlan::Auto { .. } => vec![key::NUMBERED.to_owned()],
            keyed => keyed.columns().iter().filter_map(|&at| Some(self.columns.get(at)?.name.clone())).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnPlan {
    pub name: String,
    pub type_oid: Oid,
    pub typmod: i32,
    /// What a person would write: `vector(768)`.
    pub type_name: String,
    pub source: SourceType,
    /// Another text than PostgreSQL's own.
    pub encoding: Option<Encoding>,
    /// What happens to a value that the field cannot hold.
    pub on_misfit: OnMisfit,
    /// The stream never carries it: it is read from the table after every change.
    pub reread: bool,
    /// Where it goes: an index into `collection.fields`, or `DYNAMIC`.
    pub field: usize,
    /// One clause: why this target type.
    pub reason: String,
}

/// `ColumnPlan::field` of a column that is a member of the dynamic field.
pub const DYNAMIC: usize = usize::MAX;

impl ColumnPlan {
    /// Is it a member of the dynamic field, under the column's name?
    pub fn is_dynamic(&self) -> bool {
        self.field == DYNAMIC
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct IndexPlan {
    pub spec: IndexSpec,
    pub reason: String,
}

#[cfg(test)]
pub(crate) mod tests;
