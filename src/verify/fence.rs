//! In step: until when a difference may be the daemon's lag.
//!
//! In: the source's connection, the daemon's admin address, the slot. Out: "everything committed before now is
//! acknowledged by the target", or the word that this did not come in time.
//!
//! Holds: a fence is a logical message of its own transaction, written into the source's log now. When the progress of the
//! daemon is at or past its LSN, every commit that was visible before it has reached the target. Progress is what the
//! daemon's `/status` says; when that cannot be reached (it listens on another machine's loopback), the slot's
//! `confirmed_flush_lsn`, which never runs ahead of it. Without a daemon at the start there is nothing to wait for:
//! the two sides are compared as they are.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::change::Lsn;
use crate::config::Settings;

use super::VerifyError;

const POLL: Duration = Duration::from_millis(50);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Fence<'a> {
    client: &'a Client,
    slot: &'a str,
    admin: Option<Admin>,
    daemon: bool,
}

struct Admin {
    http: reqwest::Client,
    url: String,
}

/// What of `/status` matters here.
#[derive(Deserialize)]
struct DaemonStatus {
    source: DaemonSource,
    #[serde(default)]
    tables: Vec<DaemonTable>,
}

#[derive(Deserialize)]
struct DaemonSource {
    slot: String,
    progress_lsn: Option<String>,
}

#[derive(Deserialize)]
struct DaemonTable {
    name: String,
    phase: String,
    stopped_reason: Option<String>,
    #[serde(default)]
    dead_letters: u64,
}

/// What the daemon says of a table.
pub enum TableState {
    /// In step, or there is nobody to ask.
    Comparable { dead_letters: u64 },
    /// The daemon gave the table up; what it has is compared as it is.
    Stopped(String),
}

impl<'a> Fence<'a> {
    pub async fn new(client: &'a Client, settings: &'a Settings) -> Result<Fence<'a>, VerifyError> {
        let admin = match settings.admin.listen {
            None => None,
            Some(mut address) => {
                if address.ip().is_unspecified() {
                    let loopback = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
                    address.set_ip(loopback.parse().expect("a loopback address"));
                }
                // Somebody may have installed a provider before; either will do.
                drop(rustls::crypto::ring::default_provider().install_default());
                let http = reqwest::Client::builder().timeout(HTTP_TIMEOUT).no_proxy().build();
                Some(Admin { http: http.map_err(VerifyError::Http)?, url: format!("http://{address}/status") })
            }
        };
        let mut fence = Fence { client, slot: &settings.source.slot, admin, daemon: false };
        fence.daemon = fence.status().await.is_some() || fence.slot().await?.is_some_and(|(active, _)| active);
        Ok(fence)
    }

    /// Was a daemon at work when the comparison began?
    pub fn has_daemon(&self) -> bool {
        self.daemon
    }

    /// Wait until the table *follows*, as the daemon sees it.
    pub async fn following(&self, table: &str, deadline: Instant) -> Result<TableState, VerifyError> {
        loop {
            let Some(status) = self.status().await else {
                return Ok(TableState::Comparable { dead_letters: 0 });
            };
            let phase = match status.tables.into_iter().find(|known| known.name == table) {
                Some(DaemonTable { phase, dead_letters, .. }) if phase == "following" => {
                    return Ok(TableState::Comparable { dead_letters });
                }
                Some(DaemonTable { phase, stopped_reason, .. }) if phase == "stopped" => {
                    return Ok(TableState::Stopped(stopped_reason.unwrap_or_default()));
                }
                Some(DaemonTable { phase, .. }) => phase,
                None => "unknown to the daemon".to_owned(),
            };
            if Instant::now() >= deadline {
                return Err(VerifyError::NotFollowing { table: table.to_owned(), phase });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Write a fence now and wait until the daemon is past it; at once without a daemon. False: not before the deadline.
    pub async fn pass(&self, deadline: Instant) -> Result<bool, VerifyError> {
        if !self.daemon {
            return Ok(true);
        }
        let fence = self.emit().await?;
        loop {
            if self.position().await?.is_some_and(|position| position >= fence) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where the message ends. A role that may not write messages gets the insert position instead, which a quiet server's
    /// keepalives pass only after seconds.
    async fn emit(&self) -> Result<Lsn, VerifyError> {
        let emitted =
            self.client.query_one("SELECT pg_logical_emit_message(true, 'walvec', 'verify')::text", &[]).await;
        let row = match emitted {
            Err(error) if error.code().is_some() => {
                self.client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await
            }
            result => result,
        };
        let text: String = row.and_then(|row| row.try_get(0)).map_err(VerifyError::Source)?;
        text.parse().map_err(|_| VerifyError::Answer("a position that is no LSN"))
    }

    async fn position(&self) -> Result<Option<Lsn>, VerifyError> {
        if let Some(status) = self.status().await {
            return Ok(status.source.progress_lsn.and_then(|text| text.parse().ok()));
        }
        Ok(self.slot().await?.and_then(|(_, confirmed)| confirmed))
    }

    /// `None`: no admin address, nobody there, or the daemon of another slot.
    async fn status(&self) -> Option<DaemonStatus> {
        let admin = self.admin.as_ref()?;
        let answer = admin.http.get(&admin.url).send().await.ok()?.error_for_status().ok()?;
        let status: DaemonStatus = answer.json().await.ok()?;
        (status.source.slot == self.slot).then_some(status)
    }

    /// Is the slot in use, and what is confirmed of it?
    async fn slot(&self) -> Result<Option<(bool, Option<Lsn>)>, VerifyError> {
        let sql = "SELECT active, confirmed_flush_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
        let Some(row) = self.client.query_opt(sql, &[&self.slot]).await.map_err(VerifyError::Source)? else {
            return Ok(None);
        };
        let active = row.try_get(0).map_err(VerifyError::Source)?;
        let confirmed: Option<String> = row.try_get(1).map_err(VerifyError::Source)?;
        Ok(Some((active, confirmed.and_then(|text| text.parse().ok()))))
    }
}
