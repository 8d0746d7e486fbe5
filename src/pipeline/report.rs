//! What people see of a session: the status and the gauges, refreshed a few times a second.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::admin::{IndexStatus, LastError, Phase, State, Status, TableStatus, TargetState, TargetStatus};
use crate::change::Lsn;
use crate::metrics::TablePhase;
use crate::milvus::{IndexProgress, IndexState};

use super::pace::Pacing;
use super::requests::Trouble;
use super::session::Session;

/// A table's phase is written to the log when it has changed.
pub(super) struct Reporter {
    status: watch::Sender<Status>,
    trouble: watch::Receiver<Option<Trouble>>,
    /// The log was told that the target is blocked.
    blocked: bool,
    phases: Vec<Option<Phase>>,
    last_table_report: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(status: watch::Sender<Status>, trouble: watch::Receiver<Option<Trouble>>) -> Reporter {
        Reporter { status, trouble, blocked: false, phases: Vec::new(), last_table_report: None }
    }

    /// Bring status and gauges up to date with the session.
    pub(super) fn refresh(&mut self, session: &Session) {
        let tables: Vec<TableStatus> =
            session.context.plan.tables.iter().map(|table| table_status(session, table)).collect();
        self.phases.resize(tables.len(), None);
        let mut changed = false;
        for ((table, phase), collection) in tables.iter().zip(&mut self.phases).zip(&session.context.target.collections)
        {
            if *phase != Some(table.phase) {
                tracing::info!(table = %table.name, phase = ?table.phase, "table");
                *phase = Some(table.phase);
                changed = true;
            }
            collection.metrics.phase(metric_phase(table.phase));
            collection.metrics.chunks_done.set(table.chunks_done as i64);
            collection.metrics.chunks_total.set(table.chunks_total as i64);
            collection.metrics.dead_letters.set(table.dead_letters as i64);
            let oldest = table.oldest_dead_letter_unix_seconds.map_or(0, |at| unix_seconds().saturating_sub(at));
            collection.metrics.dead_letter_age_seconds.set(oldest as i64);
        }
        self.gauges(session);
        let overall = if session.is_stopping() { State::Stopping } else { overall(&tables) };
        // With hundreds of tables the list is only sent on when it matters.
        let full = changed || self.last_table_report.is_none_or(|at| at.elapsed() > Duration::from_secs(1));
        let target = self.target(session);
        self.status.send_modify(|status| {
            status.state = overall;
            status.source.received_lsn = Some(session.engine.dispatched_lsn().to_string());
            status.source.progress_lsn = Some(session.engine.progress().to_string());
            status.source.checkpoint_lsn = Some(session.checkpoint.to_string());
            status.source.confirmed_lsn = Some(session.confirmed.to_string());
            status.source.server_lsn = Some(session.server_lsn.to_string());
            if let Some(slot) = &session.slot {
                status.source.guard = session.guard.state();
                status.source.retained_wal_bytes = slot.retained_bytes;
                status.source.wal_status = slot.wal_status.map(|status| status.as_str().to_owned());
                status.source.absent_standbys.clone_from(&slot.absent_standbys);
            }
            target.apply(&mut status.target);
            if full {
                status.tables = tables;
            }
        });
        if full {
            self.last_table_report = Some(Instant::now());
        }
    }

    /// Does the target take what we send? A long block is told to the log, once and with the way out.
    fn target(&mut self, session: &Session) -> TargetNow {
        let trouble = self.trouble.borrow_and_update().clone();
        let pacing = session.context.target.pace.state();
        let stuck = trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.since.elapsed());
        let blocked = stuck >= session.context.settings.target.blocked_after;
        if blocked && !self.blocked {
            let (error, hint) = trouble.as_ref().map_or(("", None), |trouble| (&trouble.text, trouble.hint));
            let seconds = stuck.as_secs();
            tracing::warn!(
                seconds,
                error,
                hint,
                "milvus is blocked: it has taken no write for a while; \
                nothing is lost, PostgreSQL keeps the WAL"
            );
        }
        self.blocked = blocked;
        let state = match (blocked, pacing.throttled) {
            (true, _) => TargetState::Blocked,
            (false, true) => TargetState::Throttled,
            (false, false) => TargetState::Ok,
        };
        let metrics = &session.context.metrics;
        metrics.target(state.label(), pacing.write_rate, pacing.delete_rate);
        metrics.blocked_seconds.set(if blocked { stuck.as_secs_f64() } else { 0.0 });
        TargetNow { state, pacing, last_error: trouble.map(|trouble| trouble.text) }
    }

    fn gauges(&self, session: &Session) {
        let metrics = &session.context.metrics;
        let position = |lsn: Lsn| i64::try_from(lsn.0).unwrap_or(i64::MAX);
        metrics.received_lsn.set(position(session.engine.dispatched_lsn()));
        metrics.progress_lsn.set(position(session.engine.progress()));
        metrics.checkpoint_lsn.set(position(session.checkpoint));
        metrics.confirmed_lsn.set(position(session.confirmed));
        metrics.held_bytes.set(i64::try_from(session.engine.held_bytes()).unwrap_or(i64::MAX));
        metrics.lag.progress(session.engine.progress(), Instant::now());
        if session.engine.progress() <= session.checkpoint {
            metrics.checkpoint_is_current();
        }
        if let Some(slot) = &session.slot {
            metrics.slot(
                slot.retained_bytes,
                slot.safe_wal_size,
                slot.catalog_xmin_age,
                slot.wal_status.map(|status| status.as_str()),
                session.guard.state().label(),
            );
        }
        let embargoed: usize =
            session.context.plan.tables.iter().map(|table| session.engine.table(table.id).embargoed).sum();
        metrics.embargoed_keys.set(embargoed as i64);
    }
}

/// What `/status` says about the target.
struct TargetNow {
    state: TargetState,
    pacing: Pacing,
    last_error: Option<String>,
}

impl TargetNow {
    fn apply(self, status: &mut TargetStatus) {
        let bytes = |rate: Option<f64>| rate.map(|rate| rate as u64);
        status.state = self.state;
        status.write_bytes_per_second = bytes(self.pacing.write_rate);
        status.delete_bytes_per_second = bytes(self.pacing.delete_rate);
        status.last_error = self.last_error;
    }
}

fn table_status(session: &Session, table: &crate::plan::TablePlan) -> TableStatus {
    let engine = session.engine.table(table.id);
    let metrics = &session.context.target.collections[table.id.0 as usize].metrics;
    let (done, total) = session.tables.get(&table.id).map_or((0, 0), |state| {
        state.leaves.iter().fold((0, 0), |(done, total), leaf| {
            (done + leaf.done.iter().filter(|done| **done).count() as u64, total + leaf.done.len() as u64)
        })
    });
    let (dead_letters, oldest) = session.context.letters.summary(&table.qualified_name());
    let phase = match () {
        () if engine.stopped.is_some() => Phase::Stopped,
        () if engine.following => Phase::Following,
        () if engine.copied => Phase::CatchingUp,
        () if done > 0 || session.copy.is_reading(table.id) => Phase::Copying,
        () => Phase::Pending,
    };
    TableStatus {
        name: table.qualified_name(),
        collection: table.collection.name.clone(),
        phase,
        chunks_done: done,
        chunks_total: total,
        rows_copied: metrics.copied.get(),
        upserts: metrics.upserted.get(),
        deletes: metrics.deleted.get(),
        fetched: metrics.fetched.get(),
        horizon_lsn: Some(engine.horizon.to_string()),
        exact: engine.exact,
        dead_letters: dead_letters as u64,
        oldest_dead_letter_unix_seconds: oldest,
        indexes: session.indexes.borrow().get(&table.id).into_iter().flatten().map(index_status).collect(),
        blocked_by: session.blocked_by.get(&table.id).cloned(),
        stopped_reason: engine.stopped,
    }
}

fn index_status(index: &IndexProgress) -> IndexStatus {
    let (state, reason) = match &index.state {
        IndexState::InProgress => ("in_progress", None),
        IndexState::Finished => ("finished", None),
        IndexState::Failed(reason) => ("failed", Some(reason.clone())),
    };
    IndexStatus {
        field: index.field.clone(),
        state: state.to_owned(),
        indexed_rows: index.indexed_rows,
        total_rows: index.total_rows,
        reason,
    }
}

fn metric_phase(phase: Phase) -> TablePhase {
    match phase {
        Phase::Pending => TablePhase::Pending,
        Phase::Copying => TablePhase::Copying,
        Phase::CatchingUp => TablePhase::CatchingUp,
        Phase::Following => TablePhase::Following,
        Phase::Stopped => TablePhase::Stopped,
    }
}

/// The daemon is as far as its last table that is not stopped.
fn overall(tables: &[TableStatus]) -> State {
    let any = |phase: Phase| tables.iter().any(|table| table.phase == phase);
    match () {
        () if any(Phase::Pending) || any(Phase::Copying) => State::Copying,
        () if any(Phase::CatchingUp) => State::CatchingUp,
        () => State::Following,
    }
}

pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Keep an error for `/status`, with its causes.
pub(super) fn note_error(status: &watch::Sender<Status>, error: &(dyn Error + 'static)) {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    let at = unix_seconds();
    status.send_modify(|status| status.last_error = Some(LastError { unix_seconds: at, message }));
}
