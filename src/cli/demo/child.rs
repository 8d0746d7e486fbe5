//! The daemon as a child process, watched through its own `/status`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;

use super::{Args, DemoError};
use crate::servers::{MilvusLite, Postgres, Process, Spec, free_port, http_get};

const POLL: Duration = Duration::from_millis(25);
/// Without any visible progress for so long, the demo has failed. Longer than a start after an unclean stop is quiet.
const PATIENCE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// What the demo reads of `/status`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Status {
    pub(super) state: String,
    pub(super) tables: Vec<Table>,
    source: Source,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Source {
    lag_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Table {
    pub(super) phase: String,
    pub(super) chunks_done: u64,
    pub(super) chunks_total: u64,
    pub(super) rows_copied: u64,
    pub(super) upserts: u64,
    pub(super) deletes: u64,
}

impl Status {
    /// The one table there is; empty before the daemon knows it.
    pub(super) fn table(&self) -> Table {
        self.tables.first().cloned().unwrap_or_default()
    }

    pub(super) fn following(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(|table| table.phase == "following")
    }

    /// Rows that this process has written and deleted, those of the copy among them or not.
    pub(super) fn sent(&self) -> u64 {
        self.tables.iter().map(|table| table.upserts + table.deletes).sum()
    }

    pub(super) fn lag_bytes(&self) -> u64 {
        self.source.lag_bytes.unwrap_or(0)
    }
}

pub(super) struct Daemon {
    process: Process,
    directory: PathBuf,
    admin_port: u16,
}

impl Daemon {
    /// Makes `directory` for configuration, log and state, and starts.
    pub(super) fn start(
        directory: &Path,
        postgres: &Postgres,
        milvus: &MilvusLite,
        args: &Args,
        table_bytes: u64,
    ) -> Result<Daemon, DemoError> {
        let failed = |source| DemoError::Directory { path: directory.to_owned(), source };
        fs::create_dir(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let admin_port = free_port()?;
        let password = directory.join("password");
        fs::write(&password, postgres.password()).map_err(failed)?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let config = configuration(directory, postgres.port(), &milvus.url(), admin_port, args, table_bytes);
        fs::write(directory.join("walvec.toml"), config).map_err(failed)?;
        let process = spawn(directory)?;
        Ok(Daemon { process, directory: directory.to_owned(), admin_port })
    }

    pub(super) fn config(&self) -> PathBuf {
        self.directory.join("walvec.toml")
    }

    pub(super) fn status_url(&self) -> String {
        format!("http://127.0.0.1:{}/status", self.admin_port)
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<(), DemoError> {
        self.alive()?;
        self.process.signal(Signal::KILL)?;
        Ok(self.process.ended(STOP).await?)
    }

    /// SIGTERM.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        self.alive()?;
        self.process.signal(Signal::TERM)?;
        Ok(self.process.ended(STOP).await?)
    }

    pub(super) fn start_again(&mut self) -> Result<(), DemoError> {
        self.process = spawn(&self.directory)?;
        Ok(())
    }

    /// Fails when it ended by itself.
    pub(super) fn alive(&mut self) -> Result<(), DemoError> {
        if self.process.running() { Ok(()) } else { Err(DemoError::DaemonEnded { tail: self.log_tail() }) }
    }

    /// Looks at `/status` until `found` gives a value. Fails when the daemon ends, or stands still for two minutes.
    pub(super) async fn until<T>(
        &mut self,
        what: &'static str,
        mut found: impl FnMut(&Status) -> Option<T>,
    ) -> Result<T, DemoError> {
        let mut last = Status::default();
        let mut moved = Instant::now();
        loop {
            self.alive()?;
            if let Some(status) = self.status().await {
                if let Some(value) = found(&status) {
                    return Ok(value);
                }
                let progress = |status: &Status| (status.state.clone(), status.tables.clone());
                if progress(&status) != progress(&last) {
                    moved = Instant::now();
                    last = status;
                }
            }
            if moved.elapsed() > PATIENCE {
                return Err(DemoError::StoodStill { what, state: last.state, tail: self.log_tail() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `None` while it does not answer.
    async fn status(&self) -> Option<Status> {
        match http_get(self.admin_port, "/status").await {
            Ok((200, body)) => serde_json::from_str(&body).ok(),
            _ => None,
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("walvec.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.end(Signal::KILL, Duration::from_secs(1));
    }
}

fn spawn(directory: &Path) -> Result<Process, DemoError> {
    let program = std::env::current_exe().map_err(|source| DemoError::OwnProgram { source })?;
    let arguments: Vec<OsString> =
        vec!["run".into(), "--config".into(), directory.join("walvec.toml").into_os_string()];
    Ok(Process::spawn(Spec {
        server: "walvec",
        program: program.as_os_str(),
        arguments,
        environment: Vec::new(),
        working_directory: directory,
        account: None,
        log: directory.join("walvec.log"),
        orphan_signal: "TERM",
        orphan_directory: None,
    })?)
}

/// `walvec.toml`. The chunks are a twentieth of the table, so that a copy can be killed half done. The deadlines are shorter
/// than the defaults, as a killed daemon's successor stays quiet for their sum, and nothing is far away here.
fn configuration(
    directory: &Path,
    postgres_port: u16,
    milvus_url: &str,
    admin_port: u16,
    args: &Args,
    table_bytes: u64,
) -> String {
    let chunk_kib = (table_bytes / 20 / 1024).clamp(256, 8192);
    let (deadline, margin) = if args.kills > 2 { ("1s", "1s") } else { ("5s", "3s") };
    format!(
        r#"# Written by `walvec demo`.
[source]
url = "postgresql://postgres@127.0.0.1:{postgres_port}/postgres?sslmode=disable"
password = {{ file = "{directory}/password" }}
slot = "walvec_demo"
publication = "walvec_demo"

[target]
url = "{milvus_url}"
request_deadline = "{deadline}"
late_margin = "{margin}"

[state]
path = "{directory}/state"

[admin]
listen = "127.0.0.1:{admin_port}"

[pipeline]
chunk_bytes = "{chunk_kib}KiB"

[[table]]
name = "public.documents"
collection = "documents"
"#,
        directory = directory.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_with_whatever_else_it_holds() {
        let text = r#"{"version": "1", "state": "copying", "source": {"slot": "s", "lag_bytes": 7},
            "tables": [{"name": "public.documents", "phase": "copying", "chunks_done": 2, "chunks_total": 9,
                        "rows_copied": 40, "upserts": 41, "deletes": 1, "stopped_reason": null}], "last_error": null}"#;
        let status: Status = serde_json::from_str(text).expect("read");
        assert_eq!((status.state.as_str(), status.table().chunks_done, status.sent()), ("copying", 2, 42));
        assert_eq!(status.lag_bytes(), 7);
        assert!(!status.following());
        assert!(!Status::default().following());
    }
}
