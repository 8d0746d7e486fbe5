//! The status page: one HTML document without scripts or assets, renewed by the browser every two seconds.

use std::fmt::Write as _;

use super::status::{Status, TableStatus};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>walvec</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.following { color: #17692d } .stopped, .error { color: #a31515 }
@media (prefers-color-scheme: dark) { body { background: #181a1b; color: #ddd } th, td { border-color: #444 } .following { color: #6ec583 } .stopped, .error { color: #ff8a80 } }
</style>
"#;

pub(super) fn render(status: &Status) -> String {
    let mut html = HEAD.to_owned();
    let source = &status.source;
    push(&mut html, format_args!("<h1>walvec {}: {}</h1>\n<table>\n", escape(&status.version), status.state));
    let unknown = || "unknown".to_owned();
    let lag = match (source.lag_seconds, source.lag_bytes) {
        (Some(seconds), Some(bytes)) => format!("{seconds:.1} s, {}", bytes_for_people(bytes)),
        _ => unknown(),
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
    for (name, value) in [
        ("lag", lag),
        ("received", text(&source.received_lsn)),
        ("acknowledged", text(&source.progress_lsn)),
        ("checkpoint", text(&source.checkpoint_lsn)),
        ("confirmed", text(&source.confirmed_lsn)),
        ("retained WAL", source.retained_wal_bytes.map_or_else(unknown, bytes_for_people)),
        ("WAL status of the slot", text(&source.wal_status)),
        ("slot guard", source.guard.label().to_owned()),
        ("source", format!("slot {}, PostgreSQL {}", source.slot, source.server_version)),
        ("target", format!("{} {}", status.target.url, status.target.version)),
        ("up", format!("{:.0} s", status.uptime_seconds)),
    ] {
        push(&mut html, format_args!("<tr><th>{name}<td>{}\n", escape(&value)));
    }
    html.push_str("</table>\n");
    for (what, error) in [
        (
            "PostgreSQL sends nothing before these standbys have it, and they are not connected",
            source.absent_standbys.as_ref(),
        ),
        ("the target does not answer", status.target.last_error.as_ref()),
        ("last error", status.last_error.as_ref().map(|error| &error.message)),
    ] {
        if let Some(error) = error {
            push(&mut html, format_args!("<p class=\"error\">{what}: {}\n", escape(error)));
        }
    }
    html.push_str("<table>\n<tr><th>table<th>collection<th>phase<th>copied<th>rows copied<th>upserts<th>deletes\n");
    for table in &status.tables {
        push_table(&mut html, table);
    }
    html.push_str("</table>\n<p><a href=\"/status\">status</a> <a href=\"/metrics\">metrics</a>\n</html>\n");
    html
}

fn push_table(html: &mut String, table: &TableStatus) {
    let class = table.phase.to_string().replace(' ', "-");
    let why = [&table.stopped_reason, &table.blocked_by].into_iter().flatten().next();
    let why = why.map(|why| format!(": {}", escape(why))).unwrap_or_default();
    let chunks = format!("{} of {} chunks", table.chunks_done, table.chunks_total);
    push(
        html,
        format_args!(
            "<tr><td>{}<td>{}<td class=\"{class}\">{}{why}<td>{chunks}",
            escape(&table.name),
            escape(&table.collection),
            table.phase
        ),
    );
    for count in [table.rows_copied, table.upserts, table.deletes] {
        push(html, format_args!("<td class=\"n\">{count}"));
    }
    html.push('\n');
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("writing to a String does not fail");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Three figures and a binary unit.
pub fn bytes_for_people(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
