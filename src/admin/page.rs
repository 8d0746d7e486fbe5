//! The status as a page: plain HTML that reloads itself, for a person without Grafana.

use std::fmt::Write as _;

use super::status::{Status, name_of};

/// The page. Everything that comes from outside is escaped.
pub(super) fn render(status: &Status) -> String {
    let mut rows = String::new();
    for table in &status.tables {
        let remark = table.stopped_reason.as_deref().or(table.blocked_by.as_deref()).unwrap_or_default();
        // Writing to a String cannot fail.
        write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td class={phase}>{phase}</td><td>{} / {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&table.name),
            escape(&table.collection),
            table.chunks_done,
            table.chunks_total,
            table.rows_copied,
            table.upserts,
            table.deletes,
            escape(remark),
            phase = name_of(&table.phase),
        )
        .unwrap_or_default();
    }
    let error = status
        .last_error
        .as_ref()
        .map_or(String::new(), |error| format!("<p class=stopped>{}</p>", escape(&error.message)));
    let trouble = status
        .target
        .last_error
        .as_ref()
        .map_or(String::new(), |error| format!("<p class=stopped>target: {}</p>", escape(error)));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=2><title>walvec: {state}</title>\
         <style>body{{font:15px system-ui,sans-serif;margin:2em;max-width:72em}}table{{border-collapse:collapse}}\
         td,th{{padding:.3em .8em;border-bottom:1px solid #ccc;text-align:left}}.following{{color:#060}}.stopped{{color:#a00}}</style>\
         <h1>walvec {version}: {state}</h1>\
         <p>lag {lag_bytes} bytes, {lag_seconds:.1} s · received {received} · acknowledged {progress} · checkpoint {checkpoint} · confirmed {confirmed}</p>\
         <p>slot {slot} on PostgreSQL {server}, wal_status {wal} · Milvus {milvus} at {url}</p>{trouble}{error}\
         <table><tr><th>table<th>collection<th>phase<th>chunks<th>copied<th>upserts<th>deletes<th></tr>{rows}</table>\
         <p><a href=/metrics>metrics</a> · <a href=/status>status</a></p></html>",
        state = name_of(&status.state),
        version = escape(&status.version),
        lag_bytes = status.source.lag_bytes,
        lag_seconds = status.source.lag_seconds,
        received = lsn(&status.source.received_lsn),
        progress = lsn(&status.source.progress_lsn),
        checkpoint = lsn(&status.source.checkpoint_lsn),
        confirmed = lsn(&status.source.confirmed_lsn),
        slot = escape(&status.source.slot),
        server = escape(&status.source.server_version),
        wal = lsn(&status.source.wal_status),
        milvus = escape(&status.target.version),
        url = escape(&status.target.url),
    )
}

fn lsn(text: &Option<String>) -> String {
    escape(text.as_deref().unwrap_or("–"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let status = Status { version: "<script>\"&".to_owned(), ..Status::default() };
        let page = render(&status);
        assert!(page.contains("walvec &lt;script&gt;&quot;&amp;"), "{page}");
        assert!(!page.contains("<script"));
    }
}
