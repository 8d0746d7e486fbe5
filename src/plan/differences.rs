//! What keeps an existing collection from taking a table's rows.
//!
//! Asked before writing into a collection that is already there, and after creating one: older servers drop the
//! nullable flag without a word.

use crate::milvus::{CollectionSchema, FieldSchema};

use super::TablePlan;

/// One sentence for each difference that would lose or refuse a row; empty when the collection fits. A collection may be
/// wider than the plan: longer texts, nullable fields, nullable fields of its own.
pub fn differences(plan: &TablePlan, existing: &CollectionSchema) -> Vec<String> {
    let mut differences = Vec::new();
    for wanted in &plan.collection.fields {
        match existing.fields.iter().find(|field| field.name == wanted.name) {
            None => differences.push(format!("field {:?} ({}) is missing", wanted.name, describe(wanted))),
            Some(found) => compare(wanted, found, &mut differences),
        }
    }
    if plan.collection.enable_dynamic_field && !existing.enable_dynamic_field {
        differences.push("it has no dynamic field".into());
    }
    for found in &existing.fields {
        if !found.nullable && !plan.collection.fields.iter().any(|field| field.name == found.name) {
            let what = describe(found);
            differences.push(format!("field {:?} ({what}) has no column, and is not nullable", found.name));
        }
    }
    differences
}

fn compare(wanted: &FieldSchema, found: &FieldSchema, differences: &mut Vec<String>) {
    let name = &wanted.name;
    if (found.data_type, found.element_type) != (wanted.data_type, wanted.element_type) || found.dim != wanted.dim {
        differences.push(format!("field {name:?} is {}, not {}", describe(found), describe(wanted)));
    }
    if found.is_primary != wanted.is_primary {
        let (is, should) = if wanted.is_primary { ("is not", "should be") } else { ("is", "should not be") };
        differences.push(format!("field {name:?} {is} the primary key, and {should}"));
    }
    if found.auto_id && !wanted.auto_id {
        differences.push(format!("field {name:?} is filled by the server (auto_id)"));
    }
    if wanted.is_partition_key != found.is_partition_key {
        let (is, should) = if wanted.is_partition_key { ("is not", "should be") } else { ("is", "should not be") };
        differences.push(format!("field {name:?} {is} the partition key, and {should}"));
    }
    // NULL would become that default: REST does not show defaults, so there an absent one says nothing.
    if let Some(default) =
        found.default_value.as_ref().filter(|default| Some(*default) != wanted.default_value.as_ref())
    {
        differences.push(format!("field {name:?} has the default {default:?}, the plan {:?}", wanted.default_value));
    }
    if wanted.nullable && !found.nullable {
        differences.push(format!("field {name:?} is not nullable"));
    }
    for (what, found, wanted) in
        [("max_length", found.max_length, wanted.max_length), ("max_capacity", found.max_capacity, wanted.max_capacity)]
    {
        if let (Some(found), Some(wanted)) = (found, wanted)
            && found < wanted
        {
            differences.push(format!("field {name:?} has {what} {found}, the plan {wanted}"));
        }
    }
}

/// `VARCHAR(65535)`, `ARRAY<INT32>(4096)`, `FLOAT_VECTOR(768)`.
pub fn describe(field: &FieldSchema) -> String {
    let mut text = field.data_type.to_string();
    if let Some(element) = field.element_type {
        text.push_str(&format!("<{element}>"));
    }
    if let Some(size) = field.dim.or(field.max_capacity).or(field.max_length) {
        text.push_str(&format!("({size})"));
    }
    text
}
