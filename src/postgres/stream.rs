//! The replication session: first gated, for identity, slot and start gate, then streaming.
//!
//! In: settings, the checkpoint, the tables of the plan. Out: `Event`s in commit order, batch by batch.
//!
//! ```text
//!  Session::open ─► identify, slot ─► (gate::decide) ─► create_slot? ─► start ─► Stream::next_batch … ─► shutdown
//! ```
//!
//! Holds: only whole, committed transactions come out, and none that was committed before the start. What is confirmed
//! is what the caller says, never more. A line on which nothing is heard for `wal_sender_timeout` is an error, not
//! silence. A server that shuts down is let go. Dropping a `Session` or `Stream` closes its connection at once.
//!
//! Not here: the verdict (`gate`), what may be confirmed (`engine`), starting over (the pipeline).
//! This module and `connect` are the only ones that know pgwire-replication.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use pgwire_replication::{FeedbackObserver, PgWireError, ReplicationClient, ReplicationEvent};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{CHECK_PINS, PATIENCE, TRANSACTION_TIMEOUT_SINCE, address, check_pins, replication_config};
use super::error::IDENTIFY;
use super::gate::{Identity, parse_timeline_history};
use super::pgoutput::{self, POSTGRES_EPOCH_MICROS};
use super::relation::{Relations, TrackedTable};
use super::slot::{self, Slot};
use super::{PostgresError, Result, StreamFormat};
use crate::change::{Event, Lsn, Skip, TableId};
use crate::config::settings::SourceSettings;

/// Prefix of the logical messages that are ours: `pg_logical_emit_message(true, 'walvec', …)`.
pub const MESSAGE_PREFIX: &str = "walvec";

/// So many requests for a reply within `DRAINING_WITHIN`, at one position and with nothing between them, come only from
/// a server that shuts down and waits for a confirmation that we cannot give (580,000 in 14 s were measured). A
/// healthy one asks once per half `wal_sender_timeout`.
const DRAINING_REQUESTS: u32 = 200;
const DRAINING_WITHIN: Duration = Duration::from_secs(1);

/// The worker of pgwire-replication. The crate leaves it running when it is dropped before streaming; we end it.
struct Worker(ReplicationClient);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A replication session before START_REPLICATION.
pub struct Session {
    worker: Worker,
    settings: SourceSettings,
    version_num: u32,
    start_lsn: Lsn,
    feedback: Arc<Notify>,
}

impl Session {
    /// Connects and authenticates, and checks that the pins are in force. `start_lsn` is the checkpoint;
    /// `Lsn::ZERO` when there is none (then the stream starts at the slot's consistent point).
    pub async fn open(settings: &SourceSettings, start_lsn: Lsn, format: StreamFormat) -> Result<Session> {
        let feedback = Arc::new(Notify::new());
        let notify = Arc::clone(&feedback);
        let observer = FeedbackObserver::new(move |_| notify.notify_one());
        let failed = |source| PostgresError::ConnectReplication { address: address(settings), source };
        let config = replication_config(settings, start_lsn, format, observer);
        let connecting = async {
            let worker = Worker(ReplicationClient::connect_gated(config).await.map_err(failed)?);
            let settings = settings.clone();
            let mut session = Session { worker, settings, version_num: 0, start_lsn, feedback };
            // The first query is where a failed connection shows.
            let version = session.worker.0.simple_query("SHOW server_version_num").await.map_err(failed)?;
            session.version_num = first(&text_rows(version))
                .and_then(|version| version.parse().ok())
                .ok_or_else(|| answer("read the server's version", "no number"))?;
            let pins = session.query("check our session settings", CHECK_PINS).await?;
            check_pins(pins.first().map_or(&[], Vec::as_slice))?;
            if session.version_num >= TRANSACTION_TIMEOUT_SINCE {
                session.query("pin transaction_timeout", "SET transaction_timeout = 0").await?;
            }
            Ok(session)
        };
        match timeout(settings.connect_timeout, connecting).await {
            Ok(session) => session,
            Err(_) => {
                Err(PostgresError::ConnectTimeout { address: address(settings), after: settings.connect_timeout })
            }
        }
    }

    /// Who the server is, read on the session that will stream: no failover can come between.
    pub async fn identify(&mut self) -> Result<Identity> {
        let after = self.settings.wal_sender_timeout * PATIENCE;
        match timeout(after, self.identity()).await {
            Ok(identity) => identity,
            Err(_) => Err(PostgresError::QueryTimeout { doing: IDENTIFY, after }),
        }
    }

    async fn identity(&mut self) -> Result<Identity> {
        let failed = |source| PostgresError::Replication { doing: IDENTIFY, source };
        let system = self.worker.0.identify_system().await.map_err(failed)?;
        let history = if system.timeline > 1 {
            let history = self.worker.0.timeline_history(system.timeline).await.map_err(failed)?;
            parse_timeline_history(&String::from_utf8_lossy(&history.content))
                .map_err(|what| answer(IDENTIFY, &what))?
        } else {
            Vec::new()
        };
        let rows = self.query(IDENTIFY, "SELECT pg_catalog.pg_is_in_recovery()").await?;
        Ok(Identity {
            system_identifier: system.system_id.parse().map_err(|_| answer(IDENTIFY, "no number"))?,
            timeline: system.timeline,
            flush_lsn: Lsn(system.xlogpos.into()),
            database: system.dbname.unwrap_or_default(),
            in_recovery: first(&rows) == Some("t"),
            history,
        })
    }

    /// The slot of the settings.
    pub async fn slot(&mut self) -> Result<Option<Slot>> {
        let sql = slot::select(&self.settings.slot);
        let rows = self.query("read the replication slot", &sql).await?;
        rows.first().map(|row| slot::parse(row)).transpose()
    }

    /// Creates the slot and returns its consistent point; `start` then starts there. The publication must exist.
    ///
    /// Creation waits for every transaction that is writing, anywhere in the cluster. `statement_timeout` does not
    /// end that wait, `lock_timeout` does, and then the server removes the half-made slot itself. Walking away
    /// instead would leave a walsender waiting and the slot behind.
    ///
    /// # Errors
    /// `SlotBlocked`, with the sessions waited for, after `slot_lock_timeout`.
    pub async fn create_slot(&mut self) -> Result<Lsn> {
        const DOING: &str = "create the replication slot";
        let waited = self.settings.slot_lock_timeout;
        self.query(DOING, &format!("SET lock_timeout = '{}ms'", waited.as_millis().max(1))).await?;
        let command = slot::create_command(&self.settings.slot, self.version_num, self.settings.failover);
        let created = self.query(DOING, &command).await;
        let rows = match created {
            Ok(rows) => rows,
            Err(error) if error.sqlstate() == Some("55P03") => {
                let writers = self.query("find out who blocks the replication slot", slot::WRITERS).await?;
                return Err(PostgresError::SlotBlocked {
                    slot: self.settings.slot.clone(),
                    waited,
                    blockers: writers.iter().map(|row| slot::describe_writer(row)).collect(),
                });
            }
            Err(error) => return Err(error),
        };
        self.query(DOING, "SET lock_timeout = 0").await?;
        // slot_name, consistent_point, snapshot_name, output_plugin
        let consistent_point = rows
            .first()
            .and_then(|row| row.get(1)?.as_deref()?.parse::<Lsn>().ok())
            .ok_or_else(|| answer(DOING, "no consistent point"))?;
        if self.start_lsn == Lsn::ZERO {
            self.start_lsn = consistent_point;
        }
        Ok(consistent_point)
    }

    /// START_REPLICATION. `planned_at`: a position from before the catalog was read that `tables` are from. When this returns the slot is ours; take X of rule V after it.
    pub async fn start(mut self, tables: Vec<TrackedTable>, planned_at: Lsn) -> Result<Stream> {
        let failed = |source| PostgresError::Replication { doing: "start the stream", source };
        let after = self.settings.connect_timeout.max(self.settings.wal_sender_timeout);
        let starting = async {
            self.worker.0.start().await?;
            self.worker.0.wait_started().await
        };
        match timeout(after, starting).await {
            Ok(started) => started.map_err(failed)?,
            Err(_) => return Err(PostgresError::ConnectTimeout { address: address(&self.settings), after }),
        }
        Ok(Stream {
            worker: self.worker,
            relations: Relations::new(tables, planned_at),
            start_lsn: self.start_lsn,
            position: self.start_lsn,
            transaction: Transaction::None,
            confirmed: AtomicU64::new(0),
            feedback: self.feedback,
            heard: Instant::now(),
            silence_max: self.settings.wal_sender_timeout,
            draining: Draining::default(),
        })
    }

    async fn query(&mut self, doing: &'static str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        // Creating a slot waits for others, for as long as it is told.
        let after = self.settings.wal_sender_timeout * PATIENCE + self.settings.slot_lock_timeout;
        match timeout(after, self.worker.0.simple_query(sql)).await {
            Ok(Ok(rows)) => Ok(text_rows(rows)),
            Ok(Err(source)) => Err(PostgresError::Replication { doing, source }),
            Err(_) => Err(PostgresError::QueryTimeout { doing, after }),
        }
    }
}

fn text_rows(rows: Vec<pgwire_replication::QueryRow>) -> Vec<Vec<Option<String>>> {
    let text = |value: bytes::Bytes| String::from_utf8_lossy(&value).into_owned();
    rows.into_iter().map(|row| row.into_iter().map(|value| value.map(text)).collect()).collect()
}

fn first(rows: &[Vec<Option<String>>]) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}

fn answer(doing: &'static str, what: &str) -> PostgresError {
    PostgresError::Answer { doing, what: what.to_owned() }
}

/// The running stream.
pub struct Stream {
    worker: Worker,
    relations: Relations,
    start_lsn: Lsn,
    /// End of the last whole transaction: what an error is "after".
    position: Lsn,
    transaction: Transaction,
    confirmed: AtomicU64,
    /// Signalled whenever the server was told a newer position.
    feedback: Arc<Notify>,
    heard: Instant,
    silence_max: Duration,
    draining: Draining,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
    /// Committed before the start: nothing of it comes out.
    Skipped,
}

/// Counters of the session, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// Messages taken from the line.
    pub received: u64,
    /// How often, and for how long altogether, the line waited for us.
    pub stalls: u64,
    pub stalled_micros: u64,
    /// What the server was last told.
    pub confirmed_lsn: Lsn,
}

impl Stream {
    /// Waits for one event, then takes everything that has already arrived, up to about `max_bytes` of messages.
    ///
    /// Keepalives that follow one another become one. Safe to drop at any await: what was taken is in `out`.
    ///
    /// # Errors
    /// The session is over after any error; events that came before it may be in `out`.
    pub async fn next_batch(&mut self, out: &mut Vec<Event>, max_bytes: usize) -> Result<()> {
        let before = out.len();
        let mut bytes = 0;
        while bytes < max_bytes.max(1) {
            let received = match self.worker.0.recv().now_or_never() {
                Some(received) => received,
                None if out.len() > before => break,
                // Events that are buffered were heard; only an empty buffer is silence.
                None => match timeout_at(self.heard + self.silence_max, self.worker.0.recv()).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.worker.0.abort();
                        return Err(PostgresError::StreamSilent { silent: self.silence_max });
                    }
                },
            };
            match received {
                Ok(Some(event)) => {
                    self.heard = Instant::now();
                    bytes += self.take(event, out, before)?;
                }
                // `Internal`: an earlier call was dropped in the instant in which it learned the reason.
                Ok(None) | Err(PgWireError::Internal(_)) => return Err(PostgresError::StreamEnded),
                Err(source) => return Err(PostgresError::Replication { doing: "read the stream", source }),
            }
        }
        Ok(())
    }

    /// Turns one message into at most one event; returns what it weighs.
    fn take(&mut self, event: ReplicationEvent, out: &mut Vec<Event>, before: usize) -> Result<usize> {
        /// Beside its values an event holds itself; this keeps batches of tiny rows finite too.
        const EVENT_BYTES: usize = 64;
        if let ReplicationEvent::KeepAlive { wal_end, reply_requested, .. } = &event {
            if *reply_requested && self.draining.asked_again(*wal_end, self.heard) {
                self.worker.0.abort();
                return Err(PostgresError::ServerDraining);
            }
        } else {
            self.draining = Draining::default();
        }
        match event {
            ReplicationEvent::KeepAlive { wal_end, server_time_micros, .. } => {
                // Inside a transaction it says nothing about what has been received.
                if self.transaction == Transaction::None {
                    let keepalive = Event::KeepAlive {
                        wal_end: Lsn(wal_end.into()),
                        server_micros: server_time_micros.saturating_add(POSTGRES_EPOCH_MICROS),
                    };
                    match out.get_mut(before..).and_then(<[Event]>::last_mut) {
                        Some(last @ Event::KeepAlive { .. }) => *last = keepalive,
                        _ => out.push(keepalive),
                    }
                }
                Ok(EVENT_BYTES)
            }
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                let final_lsn = Lsn(final_lsn.into());
                self.relations.begin(final_lsn, xid);
                if self.transaction != Transaction::None {
                    return Err(self.violation("a transaction begins inside another"));
                }
                // A checkpoint is where a commit record ends, so a commit record that starts below it ended by then.
                if final_lsn < self.start_lsn {
                    self.transaction = Transaction::Skipped;
                } else {
                    self.transaction = Transaction::Open;
                    let commit_micros = commit_time_micros.saturating_add(POSTGRES_EPOCH_MICROS);
                    out.push(Event::Begin { final_lsn, xid, commit_micros });
                }
                Ok(EVENT_BYTES)
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                let end_lsn = Lsn(end_lsn.into());
                match std::mem::replace(&mut self.transaction, Transaction::None) {
                    Transaction::None => return Err(self.violation("a commit without a transaction")),
                    Transaction::Open => out.push(Event::Commit { end_lsn }),
                    Transaction::Skipped => {}
                }
                self.position = self.position.max(end_lsn);
                Ok(EVENT_BYTES)
            }
            ReplicationEvent::Message { lsn, prefix, content, .. } => {
                if prefix == MESSAGE_PREFIX && self.transaction != Transaction::Skipped {
                    out.push(Event::Message { lsn: Lsn(lsn.into()), content });
                }
                Ok(EVENT_BYTES)
            }
            ReplicationEvent::XLogData { wal_start, data, .. } => {
                let weight = data.len() + EVENT_BYTES;
                let message =
                    pgoutput::decode(data).map_err(|source| PostgresError::Decode { after: self.position, source })?;
                let describes = matches!(message, pgoutput::Message::Relation(_));
                if self.transaction == Transaction::Skipped && !describes {
                    return Ok(weight);
                }
                let relation = message.changed_relation();
                if let Some((table, columns)) = relation.and_then(|relation| self.relations.take_news(relation)) {
                    out.push(Event::NewColumns { table, columns });
                }
                match self.relations.event(Lsn(wal_start.into()), message) {
                    Ok(Some(event)) => out.push(event),
                    Ok(None) => {}
                    Err(violation) => return Err(self.violation(&violation.to_string())),
                }
                Ok(weight)
            }
            // Only sent to those who set a stop position.
            ReplicationEvent::StoppedAt { .. } => Err(self.violation("a stop that nobody asked for")),
        }
    }

    fn violation(&self, what: &str) -> PostgresError {
        PostgresError::StreamProtocol { after: self.position, what: what.to_owned() }
    }

    /// Changes of these transactions, from the next one that is read on, are in the table's copy already.
    pub fn skip(&mut self, table: TableId, skip: Skip) {
        self.relations.skip(table, skip);
    }

    /// Tells the server, within a second, that everything below `lsn` is durable here. Never goes back.
    pub fn confirm(&self, lsn: Lsn) {
        self.confirmed.fetch_max(lsn.0, Ordering::Relaxed);
        self.worker.0.update_applied_lsn(pgwire_replication::Lsn::from(lsn.0));
    }

    pub fn stats(&self) -> StreamStats {
        let metrics = self.worker.0.metrics();
        StreamStats {
            received: metrics.events_forwarded(),
            stalls: metrics.stall_count(),
            stalled_micros: metrics.stall_micros_total(),
            confirmed_lsn: Lsn(metrics.last_applied_lsn().into()),
        }
    }

    /// Ends the stream once the server was told the last confirmed position; events that still come are discarded.
    ///
    /// # Errors
    /// The stream's own error, or `StreamSilent` when the position could not be told within `deadline`. The connection is
    /// closed in any case; the server then sends again what it was not told about.
    pub async fn shutdown(mut self, deadline: Duration) -> Result<()> {
        let failed = |source| PostgresError::Replication { doing: "end the stream", source };
        let confirmed = pgwire_replication::Lsn::from(self.confirmed.load(Ordering::Relaxed));
        let ending = async {
            while self.worker.0.metrics().last_applied_lsn() < confirmed {
                tokio::select! {
                    () = self.feedback.notified() => {}
                    received = self.worker.0.recv() => match received {
                        Ok(Some(_)) => {}
                        Ok(None) => return Ok(()),
                        Err(source) => return Err(failed(source)),
                    },
                }
            }
            self.worker.0.shutdown().await.map_err(failed)
        };
        match timeout(deadline, ending).await {
            Ok(ended) => ended,
            Err(_) => Err(PostgresError::StreamSilent { silent: deadline }),
        }
    }

    /// Closes the connection at once.
    pub fn abort(self) {
        drop(self);
    }
}

/// Counts requests for a reply that say nothing new.
#[derive(Default)]
struct Draining {
    since: Option<(Instant, pgwire_replication::Lsn)>,
    requests: u32,
}

impl Draining {
    fn asked_again(&mut self, wal_end: pgwire_replication::Lsn, now: Instant) -> bool {
        match self.since {
            Some((since, at)) if at == wal_end && now.duration_since(since) <= DRAINING_WITHIN => self.requests += 1,
            _ => {
                self.since = Some((now, wal_end));
                self.requests = 1;
            }
        }
        self.requests >= DRAINING_REQUESTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_burst_of_requests_at_one_position_is_a_server_that_drains() {
        let start = Instant::now();
        let at = pgwire_replication::Lsn::from(7);
        let ask = |spacing: Duration, position: fn(u32) -> u64| {
            let mut draining = Draining::default();
            (0..1000).any(|i| draining.asked_again(pgwire_replication::Lsn::from(position(i)), start + spacing * i))
        };
        assert!(ask(Duration::from_micros(25), |_| 7));
        assert!(!ask(Duration::from_millis(100), |_| 7), "one in 100 ms is a short wal_sender_timeout");
        assert!(!ask(Duration::from_micros(25), u64::from), "the position moves: a busy server");
        let mut draining = Draining::default();
        assert!(!(0..DRAINING_REQUESTS - 1).any(|_| draining.asked_again(at, start)));
        assert!(draining.asked_again(at, start));
    }
}
