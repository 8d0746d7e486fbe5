//! `walvec verify`: compare every table with its collection and say what differs.
//!
//! Exit code 0: equal. 1: different. 75: no difference is certain, but for some keys it could not be told (their rows kept
//! changing, or the daemon did not catch up in time). Anything else: the comparison could not be made.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::verify::{DifferenceKind, Progress, Report, Step, TableReport, Verdict, VerifyError, VerifyOptions, verify};

use super::{Exit, Failure, Global};

/// Compare every row of every table with its entity, value by value
///
/// Runs beside the daemon and beside writers: what differs at first sight is looked at again after everything
/// committed until then has arrived. Prints keys and field names, never values.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Compare only this table (`schema.table`; may be given several times)
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// List at most so many differences per table (all are counted)
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Look again so often at a key whose row keeps changing
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// Wait so many seconds for the daemon to catch up, or for a target that stopped answering
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let loaded = global.load()?;
    let options = VerifyOptions {
        tables: args.tables,
        list_max: args.limit,
        rounds: args.rounds,
        timeout: Duration::from_secs(args.timeout),
    };
    let began = Instant::now();
    let mut line = ProgressLine::new(args.json);
    let result = verify(&loaded.settings, options, |progress| line.show(progress)).await;
    line.clear();
    let report = result.map_err(|error| Failure::new(exit(&error), error))?;
    let text = if args.json { render_json(&report) } else { render_text(&report, began.elapsed()) };
    // A reader that closes the pipe early (`| head`) has seen what it wanted; the verdict is the exit code.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(match report.verdict() {
        Verdict::Equal => Exit::Ok,
        Verdict::Different => Exit::No,
        Verdict::Undecided => Exit::Temporary,
    })
}

fn exit(error: &VerifyError) -> Exit {
    match error {
        VerifyError::Connect(_) | VerifyError::Source(_) | VerifyError::Key { .. } => Exit::Source,
        VerifyError::ConnectTarget(_)
        | VerifyError::Target { .. }
        | VerifyError::NoCollection { .. }
        | VerifyError::Unfit { .. }
        | VerifyError::Unordered { .. }
        | VerifyError::Answer(_) => Exit::Target,
        VerifyError::NoSuchTable(_) | VerifyError::Http(_) => Exit::Configuration,
        VerifyError::Plan(_) => Exit::Tables,
        VerifyError::NotFollowing { .. } => Exit::Temporary,
    }
}

/// For people.
pub fn render_text(report: &Report, took: Duration) -> String {
    let mut out = String::new();
    for table in &report.tables {
        push_table(&mut out, table);
    }
    if !report.daemon {
        out.push_str("no daemon was at work: both sides were compared as they are\n");
    }
    let rows: u64 = report.tables.iter().map(|table| table.rows_compared).sum();
    let verdict = match report.verdict() {
        Verdict::Equal => "equal",
        Verdict::Different => "different",
        Verdict::Undecided => "undecided: rows kept changing, or the daemon did not catch up; try again",
    };
    push(&mut out, format_args!("{rows} rows in {:.1} s: {verdict}", took.as_secs_f64()));
    out
}

fn push_table(out: &mut String, table: &TableReport) {
    let TableReport { table: name, collection, rows_compared, entities_compared, .. } = table;
    push(out, format_args!("{name} = {collection}: {rows_compared} rows, {entities_compared} entities"));
    if table.counted {
        push(out, format_args!("  its entities are numbered: they were counted, not compared"));
    }
    if let Some(reason) = &table.stopped {
        push(out, format_args!("  the daemon stopped this table: {reason}"));
    }
    if table.fence_not_passed {
        push(out, format_args!("  the daemon did not get past what was committed when the check began"));
    }
    if table.dead_letters > 0 {
        push(out, format_args!("  {} rows are dead letters (`walvec dead-letters list`)", table.dead_letters));
    }
    for (count, what) in [
        (table.missing, "missing (a row without an entity)"),
        (table.extra, "extra (an entity without a row)"),
        (table.different, "different"),
        (table.undecided, "undecided"),
    ] {
        if count > 0 {
            push(out, format_args!("  {count} {what}"));
        }
    }
    for difference in &table.differences {
        let key = &difference.key;
        match difference.kind {
            DifferenceKind::Missing => push(out, format_args!("    missing    {key}")),
            DifferenceKind::Extra => push(out, format_args!("    extra      {key}")),
            DifferenceKind::Doubled => push(out, format_args!("    different  {key}: several entities of this key")),
            DifferenceKind::Undecided => push(out, format_args!("    undecided  {key}")),
            DifferenceKind::Different => {
                push(out, format_args!("    different  {key}: {}", difference.fields.join(", ")));
            }
        }
    }
    let all = table.missing + table.extra + table.different + table.undecided;
    let listed = table.differences.len() as u64;
    if all > listed {
        push(out, format_args!("    … and {} more (--limit)", all - listed));
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String does not fail");
}

/// For programs: the report as it is, and the verdict.
pub fn render_json(report: &Report) -> String {
    let value = serde_json::json!({
        "verdict": report.verdict(),
        "daemon": report.daemon,
        "tables": report.tables,
    });
    format!("{value:#}\n")
}

/// One line on a terminal, nothing elsewhere.
struct ProgressLine {
    bar: ProgressBar,
}

impl ProgressLine {
    fn new(json: bool) -> ProgressLine {
        if json || !std::io::stderr().is_terminal() {
            return ProgressLine { bar: ProgressBar::hidden() };
        }
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid");
        ProgressLine { bar: ProgressBar::new_spinner().with_style(style) }
    }

    fn show(&mut self, progress: Progress<'_>) {
        let Progress { table, step, done } = progress;
        self.bar.set_message(match step {
            Step::Rows => format!("{table}: {done} rows compared"),
            Step::Entities => format!("{table}: {done} entities looked up"),
            Step::Recheck => format!("{table}: {done} keys looked at again"),
        });
        self.bar.tick();
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Difference;

    fn table(differences: Vec<Difference>) -> TableReport {
        TableReport {
            table: "public.docs".into(),
            collection: "docs".into(),
            rows_compared: 7,
            entities_compared: 8,
            missing: 1,
            different: 2,
            differences,
            ..TableReport::default()
        }
    }

    #[test]
    fn the_report_names_keys_and_fields_and_ends_with_the_verdict() {
        let differences = vec![
            Difference { key: "7".into(), kind: DifferenceKind::Missing, fields: vec![] },
            Difference {
                key: "8".into(),
                kind: DifferenceKind::Different,
                fields: vec!["title".into(), "meta".into()],
            },
        ];
        let report = Report { daemon: true, tables: vec![table(differences)] };
        let expected = "public.docs = docs: 7 rows, 8 entities\n  1 missing (a row without an entity)\n  2 different\n\
                        \x20   missing    7\n    different  8: title, meta\n    … and 1 more (--limit)\n\
                        7 rows in 1.5 s: different\n";
        assert_eq!(render_text(&report, Duration::from_millis(1500)), expected);
        let json: serde_json::Value = serde_json::from_str(&render_json(&report)).expect("JSON");
        assert_eq!(json["verdict"], "different");
        assert_eq!(json["tables"][0]["differences"][1]["fields"][1], "meta");
        assert_eq!(json["tables"][0]["differences"][0]["kind"], "missing");
    }

    #[test]
    fn undecided_is_neither_equal_nor_different() {
        let mut undecided = TableReport { undecided: 1, ..TableReport::default() };
        let verdict = |table: &TableReport| Report { daemon: true, tables: vec![table.clone()] }.verdict();
        assert_eq!(verdict(&TableReport::default()), Verdict::Equal);
        assert_eq!(verdict(&undecided), Verdict::Undecided);
        undecided.extra = 1;
        assert_eq!(verdict(&undecided), Verdict::Different);
        assert_eq!(Report { daemon: false, tables: vec![] }.verdict(), Verdict::Equal);
    }
}
