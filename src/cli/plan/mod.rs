//! `walvec plan`: what each table becomes, before anything is touched; with `--diff`, what differs from what is there.

mod diff;
mod show;

use std::io::Write as _;

use crate::pipeline::{self, RunError};
use crate::plan::Estimate;
use crate::postgres;

use super::{Exit, Failure, Global};
use show::Shown;

/// Show what each table becomes, field by field and with the reasons; nothing is changed
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Compare with the collections that exist; ends with 1 when something differs
    #[arg(long)]
    diff: bool,
    /// Only this table, as schema.table; may be given several times
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    tables: Vec<String>,
    /// One line a table
    #[arg(long, conflicts_with_all = ["json", "diff"])]
    summary: bool,
    /// Leave out rows, bytes and time, which change with the data: for a plan in version control
    #[arg(long, conflicts_with = "diff")]
    no_estimate: bool,
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let settings = global.load_with_warnings()?;
    let failed = super::run::failure;
    let source = postgres::connect(&settings.source, "plan").await.map_err(|error| failed(error.into()))?;
    let catalog = pipeline::read_tables(&settings, &source, |_| false).await.map_err(failed)?;
    let target = pipeline::connect_target(&settings.target).map_err(|error| failed(RunError::TargetSettings(error)))?;
    let server = target.server_info().await.map_err(|error| failed(RunError::TargetUnreachable(error)))?;
    let plan = pipeline::make_plan(&settings, &catalog, &server).map_err(failed)?;
    for name in &args.tables {
        if !plan.tables.iter().any(|table| table.qualified_name() == *name) {
            let error = format!("table {name} is not in the configuration");
            let way_out = "walvec plan --summary lists those that are".to_owned();
            return Err(Failure::new(Exit::Configuration, error).with_way_out(Some(way_out)));
        }
    }
    let tables: Vec<Shown<'_>> = plan
        .tables
        .iter()
        .zip(&catalog)
        .filter(|(plan, _)| args.tables.is_empty() || args.tables.contains(&plan.qualified_name()))
        .map(|(plan, (table, _))| Shown { plan, estimate: (!args.no_estimate).then(|| Estimate::of(table, plan)) })
        .collect();
    let quota = settings.target.max_write;
    let (text, exit) = if args.diff {
        let found = diff::compare(target.as_ref(), &tables)
            .await
            .map_err(|error| failed(RunError::TargetUnreachable(error)))?;
        let text = if args.json { format!("{:#}\n", diff::render_json(&found)) } else { diff::render_text(&found) };
        (text, if diff::is_equal(&found) { Exit::Ok } else { Exit::No })
    } else if args.json {
        (format!("{:#}\n", show::render_json(&tables, quota)), Exit::Ok)
    } else if args.summary {
        (show::render_summary(&tables, quota), Exit::Ok)
    } else {
        (show::render_text(&tables, quota), Exit::Ok)
    };
    // A reader that closes the pipe early (`| head`) has seen what it wanted.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(exit)
}
