//! Small questions to the running server: positions, transaction ids, who is in the way, and the slot.
//!
//! In: nothing but what is asked for. Out: one value. Beside the stream and the copy, on a session of its own, so that
//! neither a long COPY nor a slow consumer delays them.
//!
//! A lost probe is also how a shutdown is noticed while the stream is not read: a fast shutdown ends SQL sessions
//! with 57P01 at once, but waits for the stream's last confirmation.

use std::time::Duration;

use super::catalog::read_synchronous_standby_names;
use super::connect::{Connection, connect};
use super::slot::{Slot, read_slot};
use super::stream::MESSAGE_PREFIX;
use super::{PostgresError, Result, quote_literal};
use crate::change::{FullXid, Lsn};
use crate::config::settings::SourceSettings;

pub struct Probe {
    connection: Connection,
}

/// A transaction that holds back the snapshots of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The session's application_name, else what kind of process it is; the identifier of a prepared transaction.
    pub name: String,
    pub state: String,
    /// `SyncRep`: its commit waits for a standby.
    pub wait_event: Option<String>,
    pub age: Duration,
}

impl Probe {
    pub async fn connect(settings: &SourceSettings) -> Result<Probe> {
        Ok(Probe { connection: connect(settings, "probe").await? })
    }

    /// The session itself, for the catalog and the publication.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Everything below is durable at the server (rule W).
    pub async fn flush_lsn(&self) -> Result<Lsn> {
        self.value("read the WAL flush position", "SELECT pg_catalog.pg_current_wal_flush_lsn()").await
    }

    /// Where the next WAL record goes.
    pub async fn insert_lsn(&self) -> Result<Lsn> {
        self.value("read the WAL insert position", "SELECT pg_catalog.pg_current_wal_insert_lsn()").await
    }

    /// X of rule V: the id of a transaction of its own, begun now and ended when this returns.
    pub async fn current_xid(&self) -> Result<FullXid> {
        self.value("take a transaction id", "SELECT pg_catalog.pg_current_xact_id()").await
    }

    /// Who still runs with a transaction id at or before `xid`, oldest first.
    pub async fn blockers(&self, xid: FullXid) -> Result<Vec<Blocker>> {
        let low = xid & u64::from(u32::MAX);
        let sql = format!(
            "SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type), a.state, a.wait_event, \
             pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start)::int8, \
             pg_catalog.age(a.backend_xid) AS distance FROM pg_catalog.pg_stat_activity a \
             WHERE a.backend_xid IS NOT NULL AND pg_catalog.age(a.backend_xid) >= pg_catalog.age('{low}'::pg_catalog.xid) \
             UNION ALL SELECT NULL, p.gid, 'prepared', NULL, \
             pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - p.prepared)::int8, \
             pg_catalog.age(p.transaction) FROM pg_catalog.pg_prepared_xacts p \
             WHERE pg_catalog.age(p.transaction) >= pg_catalog.age('{low}'::pg_catalog.xid) ORDER BY distance DESC"
        );
        let rows = self.connection.simple("find out who holds transactions open", &sql).await?;
        let blocker = |row: Vec<Option<String>>| {
            let mut fields = row.into_iter();
            let mut field = || fields.next().flatten();
            let (pid, name, state, wait_event, age) = (field(), field(), field(), field(), field());
            Blocker {
                pid: pid.and_then(|pid| pid.parse().ok()),
                name: name.unwrap_or_default(),
                state: state.unwrap_or_default(),
                wait_event,
                age: Duration::from_secs(age.and_then(|age| age.parse().ok()).unwrap_or(0)),
            }
        };
        Ok(rows.into_iter().map(blocker).collect())
    }

    pub async fn slot(&self, name: &str) -> Result<Option<Slot>> {
        read_slot(&self.connection, name).await
    }

    /// Writes a logical message of ours, in a transaction of its own; it comes back as `Event::Message`. Any role may.
    /// The answer is the message's position, which lies before the commit's.
    pub async fn emit(&self, content: &str) -> Result<Lsn> {
        let sql =
            format!("SELECT pg_catalog.pg_logical_emit_message(true, '{MESSAGE_PREFIX}', {})", quote_literal(content));
        self.value("write a logical message", &sql).await
    }

    pub async fn synchronous_standby_names(&self) -> Result<String> {
        read_synchronous_standby_names(&self.connection).await
    }

    pub async fn close(self) -> Result<()> {
        self.connection.close().await
    }

    async fn value<T: std::str::FromStr>(&self, doing: &'static str, sql: &str) -> Result<T> {
        let rows = self.connection.simple(doing, sql).await?;
        rows.first()
            .and_then(|row| row.first()?.as_deref()?.parse().ok())
            .ok_or_else(|| PostgresError::Answer { doing, what: "no value".to_owned() })
    }
}
