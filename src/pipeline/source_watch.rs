//! Questions to PostgreSQL beside the stream: what is flushed, where the server is, how the slot stands; and what the session
//! does with the answers.
//!
//! Two connections, each in a task of its own. The one that answers `WaitFlushed` was opened before any snapshot that
//! it speaks for: if it is lost, the server may have crashed, and what is not known to be durable is dropped (W). The
//! other one notices a server that shuts down while the stream is not being read, and what the stream does not tell:
//! partitions that were attached, detached or dropped, and a publication that was altered. The session then ends, and
//! start-up, where everything is compared, deals with it.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::admin::GuardState;
use crate::change::{Lsn, Oid};
use crate::config::SourceSettings;
use crate::postgres::{self, PostgresError};

use super::RunError;
use super::clock::Backoff;
use super::guard::Guard;
use super::session::Session;

/// How often the server's position is asked for, and how often everything about the slot.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);
const SLOT_INTERVAL: Duration = Duration::from_secs(5);
/// And whether partitions or the publication changed: of neither does the stream say anything.
const SHAPE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a flush is waited for before it is brought about.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// What the source said.
#[derive(Debug)]
pub(super) enum News {
    /// `pg_current_wal_flush_lsn()`.
    Flushed(Lsn),
    /// The connection that speaks for durability was lost.
    FlushConnectionLost(PostgresError),
    Position(Lsn),
    Slot(Option<Box<postgres::slot::Slot>>),
    /// A heartbeat was written, there.
    Heartbeat(Lsn),
    /// Our own commit is waited for: the source must not be made to wait for us (Y).
    SynchronousStandbyNames(String),
    /// Partitions came or went, or the publication sends another part of a table: a sentence that says which.
    ShapeChanged(String),
    /// The server ended our connection: it is shutting down, or we were told to go.
    MonitorLost(PostgresError),
}

/// Answer every position that `wanted` shows, until the receiver of news is gone.
pub(super) async fn watch_flush(
    settings: SourceSettings,
    mut probe: postgres::probe::Probe,
    mut wanted: watch::Receiver<Lsn>,
    news: mpsc::Sender<News>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let error = match answer_flush(&probe, &mut wanted, &news).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if news.send(News::FlushConnectionLost(error)).await.is_err() {
            return;
        }
        probe = loop {
            match postgres::probe::Probe::connect(&settings).await {
                Ok(probe) => break probe,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "no connection for flush positions")
                }
            }
            tokio::time::sleep(backoff.next()).await;
        };
        backoff.reset();
        wanted.mark_changed();
    }
}

async fn answer_flush(
    probe: &postgres::probe::Probe,
    wanted: &mut watch::Receiver<Lsn>,
    news: &mpsc::Sender<News>,
) -> Result<(), PostgresError> {
    loop {
        if wanted.changed().await.is_err() {
            return Ok(());
        }
        let asked = Instant::now();
        let mut pushed = false;
        loop {
            let lsn = probe.flush_lsn().await?;
            if news.send(News::Flushed(lsn)).await.is_err() {
                return Ok(());
            }
            if lsn >= *wanted.borrow_and_update() {
                break;
            }
            // An asynchronous commit: the WAL writer flushes within wal_writer_delay, 200 ms by default. But at the end of
            // a page the insert position is already behind the next page's header, and no flush gets there before
            // somebody writes: then we do.
            if !pushed && asked.elapsed() > FLUSH_PATIENCE {
                pushed = true;
                probe.emit("flush").await?;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Report position and slot at their intervals, and carry out fences, until the receiver of news is gone.
pub(super) async fn monitor(
    source: SourceSettings,
    probe: postgres::probe::Probe,
    shape: Shape,
    mut fences: mpsc::Receiver<()>,
    news: mpsc::Sender<News>,
) {
    if let Err(error) = watch_server(&source, &probe, &shape, &mut fences, &news).await {
        drop(news.send(News::MonitorLost(error)).await);
    }
}

async fn watch_server(
    source: &SourceSettings,
    probe: &postgres::probe::Probe,
    shape: &Shape,
    fences: &mut mpsc::Receiver<()>,
    news: &mpsc::Sender<News>,
) -> Result<(), PostgresError> {
    let mut tick = tokio::time::interval(POSITION_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut slot_due = Instant::now();
    let mut shape_due = Instant::now();
    let mut heartbeat_due = source.heartbeat_interval.map(|_| Instant::now());
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let lsn = probe.insert_lsn().await?;
                if news.send(News::Position(lsn)).await.is_err() {
                    return Ok(());
                }
                if let Some(interval) = source.heartbeat_interval && heartbeat_due.is_some_and(|due| Instant::now() >= due) {
                    heartbeat_due = Some(Instant::now() + interval);
                    let lsn = probe.emit("heartbeat").await?;
                    if news.send(News::Heartbeat(lsn)).await.is_err() {
                        return Ok(());
                    }
                }
                if Instant::now() >= shape_due {
                    shape_due = Instant::now() + SHAPE_INTERVAL;
                    if let Some(what) = shape.change(probe.connection()).await? {
                        // Told once: the session ends by it, or is over already.
                        drop(news.send(News::ShapeChanged(what)).await);
                        return Ok(());
                    }
                }
                if Instant::now() >= slot_due {
                    slot_due = Instant::now() + SLOT_INTERVAL;
                    let found = probe.slot(&source.slot).await?;
                    let names = probe.synchronous_standby_names().await?;
                    if news.send(News::Slot(found.map(Box::new))).await.is_err() || news.send(News::SynchronousStandbyNames(names)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            fence = fences.recv() => match fence {
                // A quiet server sends no keepalive for seconds; this commit brings progress past the horizon at once.
                Some(()) => drop(probe.emit("fence").await?),
                None => return Ok(()),
            }
        }
    }
}

impl Session {
    pub(super) fn heard_from_source(&mut self, news: News) -> Result<Result<(), PostgresError>, RunError> {
        match news {
            News::Flushed(lsn) => self.engine.flushed(lsn),
            News::FlushConnectionLost(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "connection lost, reading again what may not be durable"
                );
                self.engine.discard_unflushed();
            }
            News::Position(lsn) => {
                self.server_lsn = lsn;
                self.context.metrics.lag.server_lsn(lsn);
            }
            News::Slot(slot) => {
                self.slot = slot.map(|slot| *slot);
                self.guard_slot()?;
            }
            News::Heartbeat(lsn) => self.heartbeat = self.heartbeat.or(Some((lsn, std::time::Instant::now()))),
            News::SynchronousStandbyNames(names) => {
                if postgres::catalog::waits_for(&names, &self.context.settings.source.application_name) {
                    return Err(RunError::SynchronousStandby { names });
                }
            }
            News::ShapeChanged(what) => return Ok(Err(PostgresError::ShapeChanged { what })),
            News::MonitorLost(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }

    /// Told once: until they are back, or out of the setting, PostgreSQL sends us nothing and says so in its own log only.
    fn note_standbys(&mut self, absent: Option<&str>) {
        if absent == self.absent_standbys.as_deref() {
            return;
        }
        self.absent_standbys = absent.map(str::to_owned);
        match absent {
            Some(slots) => tracing::warn!(
                slots,
                "PostgreSQL sends nothing before these standbys have it, and they are not connected: bring them back, or take \
                 them out of synchronized_standby_slots (ALTER SYSTEM, then SELECT pg_reload_conf())"
            ),
            None => tracing::info!("every standby of synchronized_standby_slots is connected again"),
        }
    }

    pub(super) fn guard_slot(&mut self) -> Result<(), RunError> {
        let Some(slot) = self.slot.clone() else { return Ok(()) };
        self.note_standbys(slot.absent_standbys.as_deref());
        let steps = self.guard.judge(&slot);
        let retained = slot.retained_bytes.unwrap_or(0);
        if steps.changed {
            let (mebibytes, left) = (retained >> 20, slot.safe_wal_size.map(|bytes| bytes >> 20));
            match self.guard.state() {
                GuardState::Ok => tracing::info!(mebibytes, "the slot keeps little WAL again"),
                GuardState::Warned if Guard::lags(&slot) => {
                    tracing::warn!(
                        mebibytes,
                        left,
                        "PostgreSQL keeps much WAL for the slot: see what slows the target down, or which table stopped"
                    );
                }
                GuardState::Warned => {
                    tracing::warn!(
                        mebibytes,
                        left,
                        "PostgreSQL keeps much WAL for the slot, and not for our lag: end the oldest write transaction (pg_stat_activity)"
                    );
                }
                GuardState::CopyPaused => {
                    tracing::warn!(
                        mebibytes,
                        left,
                        "PostgreSQL keeps so much WAL for the slot that copies are paused until the stream has caught up"
                    );
                }
            }
        }
        if steps.release_stopped {
            for table in self.tables.keys().copied().collect::<Vec<_>>() {
                self.let_go(table);
            }
        }
        match steps.give_up {
            None => Ok(()),
            Some(limit) => Err(RunError::SlotGivenUp { slot: slot.name, retained, limit, outcome: String::new() }),
        }
    }

    /// How long a heartbeat took until everything before it was acknowledged, or takes already.
    pub(super) fn note_heartbeat(&mut self) {
        let Some((lsn, written)) = self.heartbeat else { return };
        let seconds = &self.context.metrics.heartbeat_seconds;
        if self.engine.progress() >= lsn {
            self.heartbeat = None;
            seconds.set(written.elapsed().as_secs_f64());
        } else {
            seconds.set(seconds.get().max(written.elapsed().as_secs_f64()));
        }
    }

    /// A table that only waits for progress to pass its horizon needs a commit to come by; on a quiet server none does.
    pub(super) fn ask_for_fence(&mut self) {
        if !self.awaits_horizon {
            return;
        }
        let progress = self.engine.progress();
        let waits = self
            .tables
            .keys()
            .filter(|id| self.tables[id].copied || self.swept.contains(id))
            .map(|id| self.engine.table(*id))
            .filter(|t| !t.following && t.stopped.is_none());
        let Some(horizon) = waits.map(|table| table.horizon).max() else {
            self.awaits_horizon = false; // until another table's copy is finished
            return;
        };
        if self.fenced < horizon && progress < horizon && !self.is_stopping() && self.fences.try_send(()).is_ok() {
            self.fenced = horizon;
        }
    }
}

/// What the catalog and the publication said of the tables when the session began.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    publication: String,
    tables: Vec<TableShape>,
}

#[derive(Clone, Debug)]
struct TableShape {
    table: postgres::catalog::Table,
    /// Sorted; empty for a table that is not partitioned.
    leaves: Vec<Oid>,
}

impl Shape {
    pub(super) fn of(publication: &str, tables: &[postgres::catalog::Table]) -> Shape {
        let shape = |table: &postgres::catalog::Table| {
            let mut leaves: Vec<Oid> = match table.is_partitioned() {
                true => table.leaves.iter().map(|leaf| leaf.oid).collect(),
                false => Vec::new(),
            };
            leaves.sort_unstable();
            // Everything else of it is compared when the next session begins.
            TableShape { table: postgres::catalog::Table { columns: Vec::new(), ..table.clone() }, leaves }
        };
        Shape { publication: publication.to_owned(), tables: tables.iter().map(shape).collect() }
    }

    /// What is different now. `None` while the publication is away: the stream says that itself.
    async fn change(&self, connection: &postgres::Connection) -> Result<Option<String>, PostgresError> {
        let partitioned: Vec<Oid> =
            self.tables.iter().filter(|shape| shape.table.is_partitioned()).map(|shape| shape.table.oid).collect();
        if !partitioned.is_empty() {
            let found = postgres::catalog::read_leaf_oids(connection, &partitioned).await?;
            for TableShape { table, leaves } in self.tables.iter().filter(|shape| shape.table.is_partitioned()) {
                let now = found.iter().find(|(root, _)| *root == table.oid).map_or(&[][..], |(_, leaves)| leaves);
                if now != leaves {
                    return Ok(Some(format!("the partitions of {} changed", table.qualified_name())));
                }
            }
        }
        let Some(publication) = postgres::publication::read_publication(connection, &self.publication).await? else {
            return Ok(None);
        };
        for TableShape { table, .. } in &self.tables {
            let (before, now) = (&table.published, publication.of(table));
            if (&before.row_filter, &before.columns, before.exists) != (&now.row_filter, &now.columns, now.exists) {
                let name = table.qualified_name();
                return Ok(Some(format!("what publication {:?} sends of {name} changed", self.publication)));
            }
        }
        Ok(None)
    }
}
