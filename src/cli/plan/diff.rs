//! The plan against the collections that exist.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::milvus::{Milvus, MilvusError};
use crate::plan::{Difference, everything_different};

use super::show::Shown;

/// What was found of one table.
pub struct Compared {
    table: String,
    collection: String,
    /// `None`: the collection does not exist.
    differences: Option<Vec<Difference>>,
}

pub async fn compare(target: &dyn Milvus, tables: &[Shown<'_>]) -> Result<Vec<Compared>, MilvusError> {
    let mut compared = Vec::with_capacity(tables.len());
    for Shown { plan, .. } in tables {
        let name = &plan.collection.name;
        let differences = match target.describe_collection(name).await? {
            None => None,
            Some(existing) => {
                let indexes = target.describe_indexes(name).await?;
                Some(everything_different(plan, &existing, &indexes))
            }
        };
        compared.push(Compared { table: plan.qualified_name(), collection: name.clone(), differences });
    }
    Ok(compared)
}

pub fn is_equal(compared: &[Compared]) -> bool {
    compared.iter().all(|table| table.differences.as_ref().is_some_and(Vec::is_empty))
}

/// `!` before what keeps walvec from using the collection, `~` before what does not.
pub fn render_text(compared: &[Compared]) -> String {
    let mut text = String::new();
    for Compared { table, collection, differences } in compared {
        let verdict = match differences {
            None => "does not exist: `walvec run` makes it",
            Some(differences) if differences.is_empty() => "equal",
            Some(_) => "differs",
        };
        writeln!(text, "{table} → collection {collection}: {verdict}").expect("a String takes every write");
        for Difference { sentence, blocks } in differences.iter().flatten() {
            let mark = if *blocks { '!' } else { '~' };
            writeln!(text, "  {mark} {sentence}").expect("a String takes every write");
        }
    }
    text
}

pub fn render_json(compared: &[Compared]) -> Value {
    let difference = |difference: &Difference| json!({ "sentence": difference.sentence, "blocks": difference.blocks });
    let table = |compared: &Compared| {
        json!({
            "table": compared.table,
            "collection": compared.collection,
            "exists": compared.differences.is_some(),
            "equal": compared.differences.as_ref().is_some_and(Vec::is_empty),
            "differences": compared.differences.iter().flatten().map(difference).collect::<Vec<_>>(),
        })
    };
    json!({ "version": 1, "tables": compared.iter().map(table).collect::<Vec<_>>() })
}
