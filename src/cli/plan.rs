//! How a plan is shown: for people, and as JSON for programs.
//!
//! Both say the same: table and collection, each field with where it comes from and why, the key, the indexes with
//! their reasons, and the remarks. The JSON has its keys sorted, so that two plans can be compared as text.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::milvus::FieldSchema;
use crate::pipeline::{self, RunError};
use crate::plan::differences::describe;
use crate::plan::{KeyPlan, Plan, TablePlan};
use crate::postgres;

use super::{Exit, Failure, Global};

/// Show what each table becomes, field by field and with the reasons; nothing is changed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let settings = global.load_with_warnings()?;
    let failed = super::run::failure;
    let source = postgres::connect(&settings.source, "plan").await.map_err(|error| failed(error.into()))?;
    let catalog = pipeline::read_tables(&settings, &source).await.map_err(failed)?;
    let target = pipeline::connect_target(&settings.target).map_err(|error| failed(RunError::TargetSettings(error)))?;
    let server = target.server_info().await.map_err(|error| failed(RunError::TargetUnreachable(error)))?;
    let plan = pipeline::make_plan(&settings, &catalog, &server).map_err(failed)?;
    let text = if args.json { format!("{:#}\n", render_json(&plan)) } else { render_text(&plan) };
    // A reader that closes the pipe early (`| head`) has seen what it wanted.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(Exit::Ok)
}

/// A line of the table of fields.
struct Line {
    field: String,
    source: String,
    target: String,
    reason: String,
}

pub fn render_text(plan: &Plan) -> String {
    let mut text = String::new();
    for (i, table) in plan.tables.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        render_table(table, &mut text).expect("a String takes every write");
    }
    text
}

fn render_table(table: &TablePlan, text: &mut String) -> std::fmt::Result {
    writeln!(text, "{} → collection {}", table.qualified_name(), table.collection.name)?;
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
    Line {
        field: field.name.clone(),
        source: column.map_or_else(|| key_columns(table).join(", "), |c| format!("{} {}", c.name, c.type_name)),
        target,
        reason: column.map_or_else(|| JOINED.into(), |column| column.reason.clone()),
    }
}

/// Of the primary field of a composite key.
const JOINED: &str = "the key columns joined by |";

fn key_columns(table: &TablePlan) -> Vec<&str> {
    table.key.columns().iter().filter_map(|&at| table.columns.get(at)).map(|column| &*column.name).collect()
}

pub fn render_json(plan: &Plan) -> Value {
    json!({ "tables": plan.tables.iter().map(table_json).collect::<Vec<_>>() })
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
            "reason": column.map_or(JOINED, |column| &column.reason),
        })
    };
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
        "key": {
            "columns": key_columns(table),
            "field": table.collection.fields.get(table.key.field()).map(|field| &field.name),
            "composite": matches!(table.key, KeyPlan::Composite { .. }),
        },
        "fields": table.collection.fields.iter().enumerate().map(field).collect::<Vec<_>>(),
        "indexes": table.indexes.iter().map(index).collect::<Vec<_>>(),
        "remarks": table.remarks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::build;
    use crate::plan::tests::{column, server, settings, table, vector};

    fn plan() -> Plan {
        let mut docs = table(vec![column("id", "int4"), column("title", "text"), vector("embedding", 3)]);
        docs.columns[1].not_null = true;
        let mut pages = table(vec![column("book", "uuid"), column("page", "int4"), vector("embedding", 3)]);
        pages.name = "pages".into();
        pages.columns[2].not_null = true;
        pages.primary_key.as_mut().expect("a key").columns.push("page".into());
        build(&[(docs, settings()), (pages, settings())], &server()).expect("a plan")
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
        assert_eq!(render_text(&plan()), expected);
    }

    #[test]
    fn a_program_reads_the_same() {
        let json = render_json(&plan());
        let pages = &json["tables"][1];
        assert_eq!(pages["key"], json!({ "columns": ["book", "page"], "composite": true, "field": "pk" }));
        assert_eq!(pages["fields"][1]["type"], "VARCHAR");
        assert_eq!(pages["fields"][3]["dim"], 3);
        assert_eq!(pages["indexes"][0]["metric"], "COSINE");
        let keys: Vec<&String> = pages.as_object().expect("an object").keys().collect();
        assert!(keys.is_sorted());
    }
}
