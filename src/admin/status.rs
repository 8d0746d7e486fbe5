//! What `/status` says. Field names are an interface: `walvec status` and people's scripts read them.

use serde::{Deserialize, Serialize};

/// How far the daemon is as a whole: as far as its last table that is not stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Starting,
    /// Another daemon holds the state directory.
    StandingBy,
    /// Another process holds the slot.
    WaitingForSlot,
    Connecting,
    Copying,
    CatchingUp,
    Following,
    Stopping,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Pending,
    Copying,
    CatchingUp,
    Following,
    Stopped,
}

/// Everything that `/status` shows. No secrets and no row values; a stopped table names the key that stopped it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub state: State,
    pub uptime_seconds: u64,
    pub source: Source,
    pub target: Target,
    pub tables: Vec<TableStatus>,
    pub last_error: Option<LastError>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Source {
    pub slot: String,
    pub publication: String,
    pub server_version: String,
    /// What the stream has reached.
    pub received_lsn: Option<String>,
    /// What Milvus has acknowledged.
    pub progress_lsn: Option<String>,
    /// What is on disk.
    pub checkpoint_lsn: Option<String>,
    /// What PostgreSQL was told.
    pub confirmed_lsn: Option<String>,
    pub server_lsn: Option<String>,
    pub lag_bytes: u64,
    pub lag_seconds: f64,
    pub retained_wal_bytes: Option<u64>,
    pub wal_status: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Target {
    pub url: String,
    pub version: String,
    /// What it last complained about; none when it has answered since.
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableStatus {
    pub name: String,
    pub collection: String,
    pub phase: Phase,
    /// The collection equals the table at the commit that the stream has reached.
    pub exact: bool,
    pub chunks_done: u64,
    pub chunks_total: u64,
    pub rows_copied: u64,
    pub upserts: u64,
    pub deletes: u64,
    pub fetched: u64,
    /// What progress must pass for `following`.
    pub horizon_lsn: Option<String>,
    /// Who holds the copy back, with process ids.
    pub blocked_by: Option<String>,
    pub stopped_reason: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LastError {
    pub unix_seconds: u64,
    pub message: String,
}

impl Status {
    /// Why the daemon is not ready; `None` when every table follows.
    pub fn not_ready(&self) -> Option<String> {
        if self.state != State::Following {
            return Some(format!("the daemon is {}", name_of(&self.state)));
        }
        if self.tables.is_empty() {
            return Some("no table yet".to_owned());
        }
        let behind = self.tables.iter().find(|table| table.phase != Phase::Following)?;
        Some(format!("table {} is {}", behind.name, name_of(&behind.phase)))
    }
}

/// A state or phase as the JSON has it.
pub(super) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(phase: Phase) -> TableStatus {
        TableStatus {
            name: "public.docs".to_owned(),
            collection: "docs".to_owned(),
            phase,
            exact: false,
            chunks_done: 0,
            chunks_total: 0,
            rows_copied: 0,
            upserts: 0,
            deletes: 0,
            fetched: 0,
            horizon_lsn: None,
            blocked_by: None,
            stopped_reason: None,
        }
    }

    #[test]
    fn ready_is_nothing_weaker_than_every_table_following() {
        let mut status = Status { state: State::Following, ..Status::default() };
        assert_eq!(status.not_ready().as_deref(), Some("no table yet"));
        status.tables = vec![table(Phase::Following)];
        assert_eq!(status.not_ready(), None);
        for phase in [Phase::Pending, Phase::Copying, Phase::CatchingUp, Phase::Stopped] {
            status.tables = vec![table(Phase::Following), table(phase)];
            assert!(status.not_ready().is_some(), "{phase:?}");
        }
        status.tables = vec![table(Phase::Following)];
        for state in [
            State::Starting,
            State::StandingBy,
            State::WaitingForSlot,
            State::Connecting,
            State::Copying,
            State::Stopped,
        ] {
            status.state = state;
            assert!(status.not_ready().is_some(), "{state:?}");
        }
    }

    #[test]
    fn states_are_written_in_snake_case() {
        assert_eq!(name_of(&State::WaitingForSlot), "waiting_for_slot");
        assert_eq!(name_of(&Phase::CatchingUp), "catching_up");
    }
}
