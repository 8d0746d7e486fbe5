//! `walvec status`: asks the running daemon over its admin address.
//!
//! Needs no secrets: only `[admin]` of the configuration is used.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::admin::{GuardState, Phase, Status, TargetState, bytes_for_people};
use crate::config;

use super::{Exit, Failure, Global};

/// Ask the running daemon how far it is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the daemon's JSON as it is
    #[arg(long)]
    json: bool,
    /// Print nothing; exit code 0 if the daemon answers, 1 if not (for a container's health check)
    #[arg(long, conflicts_with_all = ["json", "ready"])]
    health: bool,
    /// Print what is missing; exit code 0 if every table follows, 1 if not
    #[arg(long, conflicts_with = "json")]
    ready: bool,
    /// The daemon's address; default: admin.listen of the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
}

/// A daemon that is alive answers at once; it waits for nothing.
const TIMEOUT: Duration = Duration::from_secs(5);

pub async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let address = match args.address {
        Some(address) => address,
        None => configured(global)?,
    };
    let path = match () {
        () if args.health => "/livez",
        () if args.ready => "/readyz",
        () => "/status",
    };
    let (success, body) = match get(address, path).await {
        Ok(answer) => answer,
        Err(_) if args.health => return Ok(Exit::No),
        Err(error) => return Err(Failure::new(Exit::Temporary, Unreachable { address, source: error })),
    };
    if args.health {
        return Ok(if success { Exit::Ok } else { Exit::No });
    }
    if args.ready {
        print!("{body}");
        return Ok(if success { Exit::Ok } else { Exit::No });
    }
    if args.json {
        print!("{body}");
        return Ok(Exit::Ok);
    }
    let status: Status = serde_json::from_str(&body).map_err(|error| Failure::new(Exit::Temporary, error))?;
    print!("{}", render(&status));
    Ok(Exit::Ok)
}

#[derive(Debug, thiserror::Error)]
#[error("no daemon answers at {address}; is it running, and is this the address of its [admin] listen?")]
struct Unreachable {
    address: SocketAddr,
    #[source]
    source: reqwest::Error,
}

fn configured(global: &Global) -> Result<SocketAddr, Failure> {
    let admin = config::load_admin(&global.path()?).map_err(|error| Failure::new(Exit::Configuration, error))?;
    let listen = admin.listen.ok_or_else(|| {
        Failure::new(Exit::Configuration, "admin.listen is \"off\": this daemon cannot be asked; give it an address")
    })?;
    Ok(local(listen))
}

/// What listens on every address is asked on this machine's own.
pub(super) fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    // The daemon's own address is never behind a proxy.
    reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()
}

pub(super) async fn get(address: SocketAddr, path: &str) -> Result<(bool, String), reqwest::Error> {
    let answer = client()?.get(format!("http://{address}{path}")).send().await?;
    let success = answer.status().is_success();
    Ok((success, answer.text().await?))
}

/// For people.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    let source = &status.source;
    push(&mut out, format_args!("walvec {}: {}, up {:.0} s", status.version, status.state, status.uptime_seconds));
    let unknown = || "unknown".to_owned();
    let seconds = source.lag_seconds.map_or_else(unknown, |seconds| format!("{seconds:.1} s"));
    let bytes = source.lag_bytes.map_or_else(unknown, bytes_for_people);
    push(&mut out, format_args!("  lag           {seconds}, {bytes}"));
    for (name, lsn) in [
        ("received", &source.received_lsn),
        ("acknowledged", &source.progress_lsn),
        ("checkpoint", &source.checkpoint_lsn),
        ("confirmed", &source.confirmed_lsn),
    ] {
        push(&mut out, format_args!("  {name:<13} {}", lsn.as_deref().unwrap_or("-")));
    }
    let retained = source.retained_wal_bytes.map_or_else(unknown, bytes_for_people);
    let wal_status = source.wal_status.as_deref().unwrap_or("-");
    let guard = match source.guard {
        GuardState::Ok => "",
        GuardState::Warned => ", more than guard.warn_bytes",
        GuardState::CopyPaused => ", copies are paused",
    };
    push(&mut out, format_args!("  slot          {}: {retained} of WAL retained, {wal_status}{guard}", source.slot));
    if let Some(slots) = &source.absent_standbys {
        push(
            &mut out,
            format_args!("  standbys      {slots}: not connected, and PostgreSQL sends nothing before they have it"),
        );
    }
    push(&mut out, format_args!("  target        {} {}", status.target.url, status.target.version));
    match status.target.state {
        TargetState::Ok => {}
        TargetState::Blocked => push(&mut out, format_args!("  target state  blocked: it takes no writes")),
        TargetState::Throttled => {
            let rate = |rate: Option<u64>| rate.map_or("no limit".to_owned(), |rate| bytes_for_people(rate) + "/s");
            let (writes, deletes) = (status.target.write_bytes_per_second, status.target.delete_bytes_per_second);
            push(
                &mut out,
                format_args!("  target state  throttled: upserts {}, deletes {}", rate(writes), rate(deletes)),
            );
        }
    }
    if let Some(error) = &status.target.last_error {
        push(&mut out, format_args!("  target says   {error}"));
    }
    for table in &status.tables {
        let exact = if table.exact { ", exact" } else { "" };
        push(&mut out, format_args!("{} -> {}: {}{exact}", table.name, table.collection, table.phase));
        if matches!(table.phase, Phase::Pending | Phase::Copying) {
            push(&mut out, format_args!("  {} of {} chunks copied", table.chunks_done, table.chunks_total));
        }
        let (copied, upserts, deletes) = (table.rows_copied, table.upserts, table.deletes);
        push(&mut out, format_args!("  {copied} rows read by the copy, {upserts} upserts, {deletes} deletes"));
        for index in table.indexes.iter().filter(|index| index.state != "finished") {
            let (field, state) = (&index.field, index.state.replace('_', " "));
            let reason = index.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            push(
                &mut out,
                format_args!("  index on {field} {state}, {} of {} rows{reason}", index.indexed_rows, index.total_rows),
            );
        }
        if !table.indexes.is_empty() && table.indexes.iter().all(|index| index.state == "finished") {
            push(&mut out, format_args!("  indexes finished"));
        }
        if table.dead_letters > 0 {
            push(&mut out, format_args!("  {} dead letters (`walvec dead-letters list`)", table.dead_letters));
        }
        for (what, reason) in [("stopped", &table.stopped_reason), ("waits for", &table.blocked_by)] {
            if let Some(reason) = reason {
                push(&mut out, format_args!("  {what}: {reason}"));
            }
        }
    }
    if let Some(error) = &status.last_error {
        push(&mut out, format_args!("last error ({} s since 1970): {}", error.unix_seconds, error.message));
    }
    out
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use crate::admin::{State, TableStatus};

    use super::*;

    #[test]
    fn indexes_are_told_until_they_are_finished() {
        let index = |state: &str, reason: Option<&str>| crate::admin::IndexStatus {
            field: "e".into(),
            state: state.into(),
            indexed_rows: 3,
            total_rows: 10,
            reason: reason.map(Into::into),
        };
        let of = |indexes: Vec<_>| {
            render(&Status { tables: vec![TableStatus { indexes, ..TableStatus::default() }], ..Status::default() })
        };
        assert!(of(vec![index("in_progress", None)]).contains("  index on e in progress, 3 of 10 rows\n"));
        assert!(
            of(vec![index("failed", Some("no memory"))]).contains("  index on e failed, 3 of 10 rows: no memory\n")
        );
        assert!(of(vec![index("finished", None)]).contains("  indexes finished\n"));
        assert!(!of(vec![]).contains("index"));
    }

    #[test]
    fn a_table_that_stopped_says_why() {
        let table = TableStatus {
            name: "public.docs".into(),
            collection: "docs".into(),
            phase: Phase::Stopped,
            stopped_reason: Some("key 7: field \"title\": too long".into()),
            ..TableStatus::default()
        };
        let status = Status { state: State::CatchingUp, tables: vec![table], ..Status::starting("s", "p", "u") };
        let text = render(&status);
        assert!(text.contains(": catching up, up 0 s\n"), "{text}");
        assert!(text.contains("public.docs -> docs: stopped\n"), "{text}");
        assert!(text.contains("  stopped: key 7: field \"title\": too long\n"), "{text}");
    }
}
