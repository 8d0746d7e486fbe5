//! How a plan is shown: for people, and as JSON for programs.
//!
//! Both say the same: table and collection, each field with where it comes from, why, and its policy, the key, the indexes with
//! their reasons, the remarks, and how much there is to copy. The JSON has its keys sorted and its tables in the order of their
//! names, so that two plans can be compared as text; without the estimate nothing in it changes while the schema does not.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::settings::OnMisfit;
use crate::milvus::FieldSchema;
use crate::plan::differences::describe;
use crate::plan::{Estimate, KeyPlan, TablePlan};

/// A table of the plan, with what is to be shown of it.
pub struct Shown<'a> {
    pub plan: &'a TablePlan,
    /// `None`: not asked for.
    pub estimate: Option<Estimate>,
}

/// A line of the table of fields.
struct Line {
    field: String,
    source: String,
    target: String,
    reason: String,
}

/// `quota`: bytes per second, where one is known.
pub fn render_text(tables: &[Shown<'_>], quota: Option<u64>) -> String {
    let mut text = String::new();
    for (i, table) in tables.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        render_table(table, quota, &mut text).expect("a String takes every write");
    }
    let estimates: Vec<Estimate> = tables.iter().filter_map(|table| table.estimate).collect();
    if tables.len() > 1 && estimates.len() == tables.len() {
        let rows = estimates.iter().map(|estimate| estimate.rows).sum();
        let write_bytes: Option<u64> = estimates.iter().map(Estimate::write_bytes).sum();
        let total = Estimate {
            rows,
            table_bytes: estimates.iter().map(|estimate| estimate.table_bytes).sum(),
            entity_bytes: 0,
        };
        let line = size(&total, write_bytes, quota);
        writeln!(text, "\n{} tables: {line}", tables.len()).expect("a String takes every write");
    }
    text
}

/// One line a table, for very many of them.
pub fn render_summary(tables: &[Shown<'_>], quota: Option<u64>) -> String {
    let mut text = String::new();
    let width = tables.iter().map(|table| table.plan.qualified_name().chars().count()).max().unwrap_or_default();
    for table in tables {
        let plan = table.plan;
        let vectors = plan.collection.fields.iter().filter(|field| field.data_type.is_vector()).count();
        let size = table
            .estimate
            .map_or(String::new(), |estimate| format!(", {}", size(&estimate, estimate.write_bytes(), quota)));
        let remarks = match plan.remarks.len() {
            0 => String::new(),
            n => format!(", {n} notes"),
        };
        let (name, collection, fields) = (plan.qualified_name(), &plan.collection.name, plan.collection.fields.len());
        writeln!(text, "{name:width$}  → {collection}  {fields} fields, {vectors} vectors{remarks}{size}")
            .expect("a String takes every write");
    }
    text
}

/// `about 20,000 rows, 86.1 MB in PostgreSQL, 62.3 MB to write, 6 s at 10.0 MB/s`.
fn size(estimate: &Estimate, write_bytes: Option<u64>, quota: Option<u64>) -> String {
    let (Some(rows), Some(bytes)) = (estimate.rows, write_bytes) else {
        return format!("{} in PostgreSQL, rows unknown: ANALYZE tells them", megabytes(estimate.table_bytes));
    };
    let (table, written) = (megabytes(estimate.table_bytes), megabytes(bytes));
    let time = match quota {
        Some(quota) => format!(", {} at {}/s", duration(bytes.div_ceil(quota.max(1))), megabytes(quota)),
        None => ", no quota is set".to_owned(),
    };
    format!("about {rows} rows, {table} in PostgreSQL, {written} to write{time}")
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

fn render_table(shown: &Shown<'_>, quota: Option<u64>, text: &mut String) -> std::fmt::Result {
    let table = shown.plan;
    writeln!(text, "{} → collection {}", table.qualified_name(), table.collection.name)?;
    if let Some(estimate) = &shown.estimate {
        writeln!(text, "  {}", size(estimate, estimate.write_bytes(), quota))?;
    }
    let lines: Vec<Line> = table.collection.fields.iter().enumerate().map(|(i, field)| line(table, i, field)).collect();
    let width = |part: fn(&Line) -> &str| lines.iter().map(|line| part(line).chars().count()).max().unwrap_or_default();
    let (source, field, target) = (width(|l| &l.source), width(|l| &l.field), width(|l| &l.target));
    for line in &lines {
        writeln!(text, "  {:source$}  → {:field$}  {:target$}  {}", line.source, line.field, line.target, line.reason)?;
    }
    for column in table.columns.iter().filter(|column| column.is_dynamic()) {
        writeln!(text, "  {} {}  → $meta[{:?}]  {}", column.name, column.type_name, column.name, column.reason)?;
    }
    for index in &table.indexes {
        let spec = &index.spec;
        let params: String = spec.params.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        writeln!(text, "  index on {}: {} {}{params}", spec.field, spec.index_type, spec.metric_type)?;
        writeln!(text, "    {}", index.reason)?;
    }
    for remark in &table.remarks {
        writeln!(text, "  note: {remark}")?;
    }
    Ok(())
}

fn line(table: &TablePlan, i: usize, field: &FieldSchema) -> Line {
    let column = table.columns.iter().find(|column| column.field == i);
    let mut target = describe(field);
    if field.is_primary {
        target.push_str(" primary key");
    } else if field.nullable {
        target.push_str(" nullable");
    }
    if field.is_partition_key {
        target.push_str(" partition key");
    }
    if let Some(default) = &field.default_value {
        target.push_str(&format!(" default {default}"));
    }
    Line {
        field: field.name.clone(),
        source: match column {
            Some(column) => format!("{} {}", column.name, column.type_name),
            None if table.placeholder == Some(i) => String::new(),
            None => key_columns(table).join(", "), // of a number: none
        },
        target,
        reason: match column {
            None => unmapped(table, i),
            Some(column) if column.on_misfit == OnMisfit::Error => column.reason.clone(),
            Some(column) => format!("{}; on_misfit: {}", column.reason, column.on_misfit.name()),
        },
    }
}

/// Of a field that is no column's.
fn unmapped(table: &TablePlan, field: usize) -> String {
    match () {
        () if table.placeholder == Some(field) => "the same in every entity",
        () if table.key.is_auto() => "numbered by walvec",
        () => "the key columns joined by |",
    }
    .to_owned()
}

fn key_columns(table: &TablePlan) -> Vec<&str> {
    table.key.columns().iter().filter_map(|&at| table.columns.get(at)).map(|column| &*column.name).collect()
}

/// Version of the form, raised when a member changes its meaning or goes.
const VERSION: u32 = 1;

pub fn render_json(tables: &[Shown<'_>], quota: Option<u64>) -> Value {
    json!({
        "version": VERSION,
        "tables": tables.iter().map(|shown| {
            let mut table = table_json(shown.plan);
            if let Some(estimate) = &shown.estimate {
                table["estimate"] = json!({
                    "rows": estimate.rows,
                    "table_bytes": estimate.table_bytes,
                    "entity_bytes": estimate.entity_bytes,
                    "write_bytes": estimate.write_bytes(),
                    "write_seconds_at_quota": quota.and_then(|quota| estimate.seconds_at(quota)),
                });
            }
            table
        }).collect::<Vec<_>>(),
    })
}

fn table_json(table: &TablePlan) -> Value {
    let field = |(i, field): (usize, &FieldSchema)| {
        let column = table.columns.iter().find(|column| column.field == i);
        json!({
            "name": field.name,
            "type": field.data_type.to_string(),
            "element_type": field.element_type.map(|element| element.to_string()),
            "max_length": field.max_length,
            "max_capacity": field.max_capacity,
            "dim": field.dim,
            "nullable": field.nullable,
            "primary": field.is_primary,
            "column": column.map(|column| &column.name),
            "column_type": column.map(|column| &column.type_name),
            "default": field.default_value,
            "partition_key": field.is_partition_key,
            "mmap": field.mmap,
            "encoding": column.and_then(|column| column.encoding).map(|encoding| encoding.name()),
            "on_misfit": column.map_or(OnMisfit::Error, |column| column.on_misfit).name(),
            "reason": column.map_or_else(|| unmapped(table, i), |column| column.reason.clone()),
        })
    };
    let member = |column: &crate::plan::ColumnPlan| json!({ "name": column.name, "column_type": column.type_name, "on_misfit": column.on_misfit.name() });
    let index = |index: &crate::plan::IndexPlan| {
        json!({
            "field": index.spec.field,
            "type": index.spec.index_type,
            "metric": index.spec.metric_type,
            "params": index.spec.params,
            "reason": index.reason,
        })
    };
    json!({
        "table": table.qualified_name(),
        "collection": table.collection.name,
        "num_shards": table.collection.num_shards,
        "num_partitions": table.collection.num_partitions,
        "consistency_level": table.collection.consistency_level.map(|level| level.name()),
        "properties": table.collection.properties,
        "dynamic_field": table.collection.enable_dynamic_field,
        "dynamic": table.columns.iter().filter(|column| column.is_dynamic()).map(member).collect::<Vec<_>>(),
        "row_filter": table.row_filter,
        "key": {
            "columns": key_columns(table),
            "field": table.collection.fields.get(table.key.field()).map(|field| &field.name),
            "composite": matches!(table.key, KeyPlan::Composite { .. }),
            "auto_id": table.key.is_auto(),
        },
        "fields": table.collection.fields.iter().enumerate().map(field).collect::<Vec<_>>(),
        "indexes": table.indexes.iter().map(index).collect::<Vec<_>>(),
        "remarks": table.remarks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{column, server, settings, table, vector};
    use crate::plan::{Plan, build};

    fn plan() -> Plan {
        let mut docs = table(vec![column("id", "int4"), column("title", "text"), vector("embedding", 3)]);
        docs.columns[1].not_null = true;
        let mut pages = table(vec![column("book", "uuid"), column("page", "int4"), vector("embedding", 3)]);
        pages.name = "pages".into();
        pages.columns[2].not_null = true;
        pages.primary_key.as_mut().expect("a key").columns.push("page".into());
        build(&[(docs, settings()), (pages, settings())], &server()).expect("a plan")
    }

    fn shown(plan: &Plan, estimate: Option<Estimate>) -> Vec<Shown<'_>> {
        plan.tables.iter().map(|plan| Shown { plan, estimate }).collect()
    }

    #[test]
    fn the_size_is_told_for_each_table_and_in_sum() {
        let (plan, quota) = (plan(), Some(10 << 20));
        let estimate = Estimate { rows: Some(2_000_000), table_bytes: 9_000_000_000, entity_bytes: 3_100 };
        let tables = shown(&plan, Some(estimate));
        let text = render_text(&tables, quota);
        let line = "about 2000000 rows, 9.0 GB in PostgreSQL, 6.2 GB to write, 10 min at 10.5 MB/s";
        assert_eq!(text.matches(line).count(), 2, "{text}");
        assert!(
            text.ends_with(
                "\n2 tables: about 4000000 rows, 18.0 GB in PostgreSQL, 12.4 GB to write, 20 min at 10.5 MB/s\n"
            ),
            "{text}"
        );
        assert!(render_summary(&tables, None).starts_with(
            "public.docs   → docs  3 fields, 1 vectors, about 2000000 rows, 9.0 GB in PostgreSQL, 6.2 GB to write, no quota is set\n"
        ));
        let json = render_json(&tables, quota);
        assert_eq!(json["tables"][0]["estimate"]["write_seconds_at_quota"], 592);
        assert_eq!(render_json(&shown(&plan, None), quota)["tables"][0].get("estimate"), None);
        let never = Estimate { rows: None, table_bytes: 8_192, entity_bytes: 0 };
        assert!(
            render_text(&shown(&plan, Some(never)), quota)
                .contains("  8.2 kB in PostgreSQL, rows unknown: ANALYZE tells them\n")
        );
    }

    #[test]
    fn a_person_reads_table_key_fields_and_reasons() {
        let expected = "\
public.docs → collection docs
  id int4              → id         INT64 primary key        integer keys are INT64 in Milvus
  title text           → title      VARCHAR(65535) nullable  the same text
  embedding vector(3)  → embedding  FLOAT_VECTOR(3)          the same floats; a row without a vector is refused
  index on embedding: AUTOINDEX COSINE
    AUTOINDEX as the column has no pgvector index to follow, COSINE as the usual metric of embeddings

public.pages → collection pages
  book, page           → pk         VARCHAR(65535) primary key  the key columns joined by |
  book uuid            → book       VARCHAR(36)                 as PostgreSQL prints it
  page int4            → page       INT32                       the same range
  embedding vector(3)  → embedding  FLOAT_VECTOR(3)             the same floats
  index on embedding: AUTOINDEX COSINE
    AUTOINDEX as the column has no pgvector index to follow, COSINE as the usual metric of embeddings
  note: field \"pk\" is made from the key columns book, page, joined by |
";
        assert_eq!(render_text(&shown(&plan(), None), None), expected);
        assert!(include_str!("../../../docs/plan.md").contains(expected), "docs/plan.md shows it");
    }

    #[test]
    fn a_program_reads_the_same() {
        let json = render_json(&shown(&plan(), None), None);
        assert_eq!(json["version"], 1);
        let pages = &json["tables"][1];
        assert_eq!(
            pages["key"],
            json!({ "auto_id": false, "columns": ["book", "page"], "composite": true, "field": "pk" })
        );
        assert_eq!(pages["fields"][1]["type"], "VARCHAR");
        assert_eq!(pages["fields"][3]["dim"], 3);
        assert_eq!(pages["indexes"][0]["metric"], "COSINE");
        let keys: Vec<&String> = pages.as_object().expect("an object").keys().collect();
        assert!(keys.is_sorted());
    }
}
