//! What keeps an existing collection from taking a table's rows, and whatever else differs from the plan.
//!
//! The first is asked before writing into a collection that is already there, and after creating one: older servers drop the
//! nullable flag without a word. The second is for people, who compare plan and collection.

use crate::milvus::{CollectionSchema, FieldSchema, IndexSpec};

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

/// A difference, and whether it keeps the collection from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub sentence: String,
    pub blocks: bool,
}

/// Whatever differs between the plan and what is there: what blocks first. What the plan leaves to the server does not count.
pub fn everything_different(plan: &TablePlan, existing: &CollectionSchema, indexes: &[IndexSpec]) -> Vec<Difference> {
    let blocking = differences(plan, existing).into_iter().map(|sentence| Difference { sentence, blocks: true });
    let mut all: Vec<Difference> = blocking.collect();
    let mut say = |sentence: String| all.push(Difference { sentence, blocks: false });
    let wanted = &plan.collection;
    for found in &existing.fields {
        let name = &found.name;
        match wanted.fields.iter().find(|field| field.name == *name) {
            None if found.nullable => say(format!("field {name:?} ({}) has no column", describe(found))),
            None => {}
            Some(field) => {
                if found.nullable && !field.nullable {
                    say(format!("field {name:?} is nullable, the plan's is not"));
                }
                for (what, found, wanted) in [
                    ("max_length", found.max_length, field.max_length),
                    ("max_capacity", found.max_capacity, field.max_capacity),
                ] {
                    if found > wanted && wanted.is_some() {
                        say(format!("field {name:?} has {what} {}, the plan {}", shown(found), shown(wanted)));
                    }
                }
                if field.mmap.is_some() && field.mmap != found.mmap {
                    say(format!("field {name:?} has mmap {}, the plan {}", shown(found.mmap), shown(field.mmap)));
                }
            }
        }
    }
    for (what, found, wanted) in [
        ("num_shards", existing.num_shards, wanted.num_shards),
        ("num_partitions", existing.num_partitions, wanted.num_partitions),
    ] {
        if wanted.is_some() && found.is_some() && found != wanted {
            say(format!("{what} is {}, the plan's {}", shown(found), shown(wanted)));
        }
    }
    if let (Some(found), Some(wanted)) = (existing.consistency_level, wanted.consistency_level)
        && found != wanted
    {
        say(format!("consistency_level is {}, the plan's {}", found.name(), wanted.name()));
    }
    for (property, wanted) in &wanted.properties {
        let found = existing.properties.get(property);
        if found != Some(wanted) {
            say(format!("property {property} is {}, the plan's {wanted}", found.map_or("not set", String::as_str)));
        }
    }
    if existing.enable_dynamic_field && !wanted.enable_dynamic_field {
        say("it has a dynamic field".into());
    }
    for index in &plan.indexes {
        let (field, wanted) = (&index.spec.field, index_text(&index.spec));
        match indexes.iter().find(|found| found.field == *field) {
            None => say(format!("field {field:?} has no index, the plan has {wanted}")),
            Some(found) => {
                let params = |spec: &IndexSpec| {
                    // Servers add their own parameters: those of the plan count.
                    index.spec.params.keys().map(|key| spec.params.get(key).cloned()).collect::<Vec<_>>()
                };
                if !found.is_like(&index.spec) || params(found) != params(&index.spec) {
                    say(format!("field {field:?} has index {}, the plan {wanted}", index_text(found)));
                }
            }
        }
    }
    all
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn index_text(spec: &IndexSpec) -> String {
    let params: String = spec.params.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{} {}{params}", spec.index_type, spec.metric_type)
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

#[cfg(test)]
mod tests {
    use super::super::tests::{docs, plan_of, settings};
    use super::*;

    #[test]
    fn what_blocks_comes_first_and_what_the_server_chose_is_no_difference() {
        let plan = plan_of(docs(), settings());
        let mut existing = plan.collection.clone();
        existing.num_shards = Some(1);
        existing.num_partitions = Some(1);
        let mut indexes: Vec<IndexSpec> = plan.indexes.iter().map(|index| index.spec.clone()).collect();
        indexes[0].params.insert("more".into(), "1".into());
        assert_eq!(everything_different(&plan, &existing, &indexes), []);
        existing.enable_dynamic_field = true;
        existing.fields[1].max_length = Some(10);
        existing.fields[2].nullable = true;
        indexes[0].metric_type = "L2".into();
        let found: Vec<_> =
            everything_different(&plan, &existing, &indexes).into_iter().map(|d| (d.sentence, d.blocks)).collect();
        assert_eq!(
            found,
            [
                ("field \"title\" has max_length 10, the plan 65535".to_owned(), true),
                ("field \"embedding\" is nullable, the plan's is not".to_owned(), false),
                ("it has a dynamic field".to_owned(), false),
                ("field \"embedding\" has index AUTOINDEX L2 more=1, the plan AUTOINDEX COSINE".to_owned(), false),
            ]
        );
        assert_eq!(
            everything_different(&plan, &plan.collection, &[])[0].sentence,
            "field \"embedding\" has no index, the plan has AUTOINDEX COSINE"
        );
    }
}
