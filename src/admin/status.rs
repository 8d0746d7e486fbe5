//! What `/status` says: where the daemon is, in JSON that people and programs read.
//!
//! Holds: no secrets and no row values; keys may stand in a reason. Positions are in PostgreSQL's form, `16/B374D848`.

use serde::{Deserialize, Serialize};

/// The whole of `/status`. A reader ignores fields that it does not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub state: State,
    pub uptime_seconds: f64,
    pub source: SourceStatus,
    pub target: TargetStatus,
    pub tables: Vec<TableStatus>,
    /// The last error that was met, also when it is over.
    pub last_error: Option<LastError>,
}

/// What the daemon as a whole is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Starting,
    /// Another daemon holds the state; this one takes over when that one ends.
    StandingBy,
    /// Another process uses the slot; this one goes on when it is free.
    WaitingForSlot,
    Connecting,
    Copying,
    CatchingUp,
    /// Every table that is not stopped follows.
    Following,
    /// Told to stop, sending what is left.
    Stopping,
    Stopped,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    pub slot: String,
    pub publication: String,
    /// As text: JSON numbers end at 2^53 for many readers.
    pub system_identifier: Option<String>,
    pub server_version: String,
    /// Received and dispatched.
    pub received_lsn: Option<String>,
    /// Acknowledged by Milvus, all below it.
    pub progress_lsn: Option<String>,
    /// On disk.
    pub checkpoint_lsn: Option<String>,
    /// Told to PostgreSQL.
    pub confirmed_lsn: Option<String>,
    pub server_lsn: Option<String>,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    pub retained_wal_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Slots of `synchronized_standby_slots` without a standby: while there are any, a failover slot is sent nothing.
    pub absent_standbys: Option<String>,
    pub guard: GuardState,
}

/// What the slot guard does about the WAL that PostgreSQL keeps for the slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    #[default]
    Ok,
    /// More than `guard.warn_bytes`.
    Warned,
    /// More than `guard.pause_copy_bytes`: no chunk of a copy is begun.
    CopyPaused,
}

impl GuardState {
    /// As in JSON and in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            GuardState::Ok => "ok",
            GuardState::Warned => "warned",
            GuardState::CopyPaused => "copy_paused",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetStatus {
    pub url: String,
    pub version: String,
    pub state: TargetState,
    /// Bytes per second that upserts keep to, as the server counts them; `None`: no limit is known.
    pub write_bytes_per_second: Option<u64>,
    /// The same for deletes.
    pub delete_bytes_per_second: Option<u64>,
    /// Why requests do not get through now; `None` when they do.
    pub last_error: Option<String>,
}

/// Does the target take what is sent?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    #[default]
    Ok,
    /// It does, and would be sent more if its quota allowed it.
    Throttled,
    /// It has taken nothing for longer than `target.blocked_after`.
    Blocked,
}

impl TargetState {
    /// As in JSON and in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            TargetState::Ok => "ok",
            TargetState::Throttled => "throttled",
            TargetState::Blocked => "blocked",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableStatus {
    /// `schema.table`.
    pub name: String,
    pub collection: String,
    pub phase: Phase,
    pub chunks_done: u64,
    pub chunks_total: u64,
    /// Since the process started, as all counts here.
    pub rows_copied: u64,
    pub upserts: u64,
    pub deletes: u64,
    pub fetched: u64,
    /// The table follows once progress is here.
    pub horizon_lsn: Option<String>,
    /// The collection is the table as of a commit, right now.
    pub exact: bool,
    /// Rows that Milvus will not take, and that are set aside; `walvec dead-letters list` shows them.
    pub dead_letters: u64,
    pub oldest_dead_letter_unix_seconds: Option<u64>,
    /// Of the collection; empty until the server was asked.
    pub indexes: Vec<IndexStatus>,
    /// Who keeps the copy waiting.
    pub blocked_by: Option<String>,
    pub stopped_reason: Option<String>,
}

/// An index of a collection, as the server last said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexStatus {
    pub field: String,
    /// `in_progress`, `finished` or `failed`.
    pub state: String,
    pub indexed_rows: u64,
    pub total_rows: u64,
    /// Why it failed.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Pending,
    Copying,
    CatchingUp,
    Following,
    Stopped,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// Seconds since 1970-01-01 UTC.
    pub unix_seconds: u64,
    /// With its causes.
    pub message: String,
}

impl Status {
    /// Before anything is known but the configuration.
    pub fn starting(slot: &str, publication: &str, target_url: &str) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: SourceStatus {
                slot: slot.to_owned(),
                publication: publication.to_owned(),
                ..SourceStatus::default()
            },
            target: TargetStatus { url: target_url.to_owned(), ..TargetStatus::default() },
            ..Status::default()
        }
    }

    /// What `/readyz` answers: every table follows. `Err` says what is missing.
    pub fn ready(&self) -> Result<(), String> {
        if self.tables.is_empty() {
            return Err(format!("{}: no table is known yet", self.state));
        }
        match self.tables.iter().find(|table| table.phase != Phase::Following) {
            Some(table) => Err(format!("table {} is {}", table.name, table.phase)),
            None if self.state == State::Following => Ok(()),
            // Connecting again, stopping …: the tables are as they were left.
            None => Err(self.state.to_string()),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Starting => "starting",
            State::StandingBy => "standing by",
            State::WaitingForSlot => "waiting for the slot",
            State::Connecting => "connecting",
            State::Copying => "copying",
            State::CatchingUp => "catching up",
            State::Following => "following",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        })
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Pending => "pending",
            Phase::Copying => "copying",
            Phase::CatchingUp => "catching up",
            Phase::Following => "following",
            Phase::Stopped => "stopped",
        })
    }
}
