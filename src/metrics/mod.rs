//! Metrics: every number that `/metrics` shows, as typed handles in a registry of our own.
//!
//! In: increments from the pipeline, per batch and after success. Out: Prometheus's text format.
//!
//! Holds: names begin with `walvec_` (the process's own with `process_`, as every exporter's), end in their unit, and
//! counters in `_total`. Labels are bounded: configured tables, and words of enums. Values that age (lag, checkpoint
//! age, uptime) are computed when they are asked for, so that they grow while nothing else happens.
//!
//! Not here: what the numbers mean for readiness (`admin`).

mod lag;
mod process;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use lag::Lag;

/// What became of one attempt of a request to Milvus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Ok,
    /// Failed in a way that passes; sent again.
    Retried,
    /// Told to slow down; sent again later.
    Throttled,
    /// Milvus refused a row.
    Refused,
    /// No answer: it may have been applied or may still be.
    Unknown,
    /// Failed for good.
    Failed,
}

impl Outcome {
    const ALL: [Outcome; 6] =
        [Outcome::Ok, Outcome::Retried, Outcome::Throttled, Outcome::Refused, Outcome::Unknown, Outcome::Failed];

    fn label(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Retried => "retried",
            Outcome::Throttled => "throttled",
            Outcome::Refused => "refused",
            Outcome::Unknown => "unknown",
            Outcome::Failed => "failed",
        }
    }
}

/// Where a table is. The phases of `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablePhase {
    Pending,
    Copying,
    CatchingUp,
    Following,
    Stopped,
}

impl TablePhase {
    const ALL: [TablePhase; 5] =
        [TablePhase::Pending, TablePhase::Copying, TablePhase::CatchingUp, TablePhase::Following, TablePhase::Stopped];

    fn label(self) -> &'static str {
        match self {
            TablePhase::Pending => "pending",
            TablePhase::Copying => "copying",
            TablePhase::CatchingUp => "catching_up",
            TablePhase::Following => "following",
            TablePhase::Stopped => "stopped",
        }
    }
}

const TARGET_STATES: [&str; 3] = ["ok", "throttled", "blocked"];

const SLOT_GUARD_STATES: [&str; 3] = ["ok", "warned", "copy_paused"];

const WAL_STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// The handles. Everything may be called from anywhere; nothing waits.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    pub lag: Lag,
    pub received_lsn: IntGauge,
    /// Everything below it is acknowledged.
    pub progress_lsn: IntGauge,
    pub checkpoint_lsn: IntGauge,
    pub confirmed_lsn: IntGauge,
    pub held_bytes: IntGauge,
    pub memory_budget_bytes: IntGauge,
    in_flight_requests: IntGauge,
    pub embargoed_keys: IntGauge,
    pub request_seconds: Histogram,
    pub throttled_seconds: Counter,
    pub blocked_seconds: Gauge,
    write_rate_bytes: Gauge,
    delete_rate_bytes: Gauge,
    target_state: IntGaugeVec,
    pub reconnects: IntCounter,
    connected: IntGauge,
    lag_bytes: Gauge,
    lag_seconds: Gauge,
    uptime_seconds: Gauge,
    checkpoint_age_seconds: Gauge,
    checkpointed_at: Mutex<Instant>,
    requests: IntCounterVec,
    retained_wal_bytes: Gauge,
    safe_wal_bytes: Gauge,
    catalog_xmin_age: Gauge,
    wal_status: IntGaugeVec,
    slot_guard: IntGaugeVec,
    /// How long a heartbeat took to the target, or takes already.
    pub heartbeat_seconds: Gauge,
    upserted: IntCounterVec,
    deleted: IntCounterVec,
    refused: IntCounterVec,
    skipped: IntCounterVec,
    ignored: IntCounterVec,
    dead_lettered: IntCounterVec,
    dead_letters: IntGaugeVec,
    dead_letter_age_seconds: IntGaugeVec,
    altered: IntCounterVec,
    index_pending_rows: IntGaugeVec,
    fetched: IntCounterVec,
    copied: IntCounterVec,
    copied_bytes: IntCounterVec,
    chunks_done: IntGaugeVec,
    chunks_total: IntGaugeVec,
    phase: IntGaugeVec,
    process: process::ProcessMetrics,
}

/// One request on its way.
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One table's handles, to be kept rather than looked up per batch.
#[derive(Clone)]
pub struct TableMetrics {
    pub upserted: IntCounter,
    pub deleted: IntCounter,
    pub refused: IntCounter,
    /// UPDATEs and DELETEs of numbered entities.
    pub ignored: IntCounter,
    /// Rows left out by the policy of a field.
    pub skipped: IntCounter,
    pub dead_lettered: IntCounter,
    pub dead_letters: IntGauge,
    /// Of the oldest; 0: there is none.
    pub dead_letter_age_seconds: IntGauge,
    pub fetched: IntCounter,
    /// Rows read by the copy and handed on.
    pub copied: IntCounter,
    pub copied_bytes: IntCounter,
    pub chunks_done: IntGauge,
    pub chunks_total: IntGauge,
    phases: [IntGauge; 5],
    table: Arc<str>,
    altered: IntCounterVec,
}

impl TableMetrics {
    /// Values of a field that its policy replaced or cut.
    pub fn altered(&self, field: &str, policy: &str) -> IntCounter {
        self.altered.with_label_values(&[&self.table, field, policy])
    }

    pub fn phase(&self, phase: TablePhase) {
        for (gauge, candidate) in self.phases.iter().zip(TablePhase::ALL) {
            gauge.set(i64::from(candidate == phase));
        }
    }
}

/// Makes metrics and registers each.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::new(name, help)?)
    }

    fn int_counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn by_table(&self, name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), &["table"])?)
    }

    fn gauge_by(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
}

impl Metrics {
    /// # Errors
    /// Only when two metrics were given one name, which a test excludes.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        let latency_buckets =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let acknowledged = make.histogram(
            "walvec_commit_to_acknowledged_seconds",
            "From a transaction's commit, by the source's clock, to the acknowledgement of all of it.",
            &latency_buckets,
        )?;
        let build = make.register(GaugeVec::new(
            Opts::new("walvec_build_info", "Always 1; the version is the label."),
            &["version"],
        )?)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let requests = make.register(IntCounterVec::new(
            Opts::new("walvec_requests_total", "Attempts of requests to Milvus that change something, by outcome."),
            &["outcome"],
        )?)?;
        for outcome in Outcome::ALL {
            requests.with_label_values(&[outcome.label()]);
        }
        let wal_status = make.gauge_by(
            "walvec_slot_wal_status",
            "1 for the slot's wal_status: reserved, extended, unreserved (the next checkpoint of PostgreSQL may end it) or lost.",
            &["status"],
        )?;
        for status in WAL_STATUSES {
            wal_status.with_label_values(&[status]);
        }
        let slot_guard = make.gauge_by(
            "walvec_slot_guard",
            "1 for what is done about the WAL kept for the slot: ok, warned, copy_paused.",
            &["state"],
        )?;
        for state in SLOT_GUARD_STATES {
            slot_guard.with_label_values(&[state]).set(i64::from(state == "ok"));
        }
        let target_state = make.gauge_by(
            "walvec_target_state",
            "1 for what Milvus does with writes: ok, throttled (it would be sent more) or blocked (it takes none).",
            &["state"],
        )?;
        for state in TARGET_STATES {
            target_state.with_label_values(&[state]).set(i64::from(state == "ok"));
        }
        Ok(Metrics {
            started: Instant::now(),
            lag: Lag::new(acknowledged),
            received_lsn: make
                .int_gauge("walvec_received_lsn_bytes", "WAL position that was received and dispatched.")?,
            progress_lsn: make.int_gauge(
                "walvec_acknowledged_lsn_bytes",
                "WAL position below which Milvus acknowledged everything.",
            )?,
            checkpoint_lsn: make.int_gauge(
                "walvec_checkpoint_lsn_bytes",
                "WAL position of the checkpoint on disk; a start begins here.",
            )?,
            confirmed_lsn: make.int_gauge(
                "walvec_confirmed_lsn_bytes",
                "WAL position confirmed to PostgreSQL, which may forget what is below.",
            )?,
            held_bytes: make.int_gauge("walvec_held_bytes", "Bytes of rows held, copy and stream together.")?,
            memory_budget_bytes: make
                .int_gauge("walvec_memory_budget_bytes", "Bytes of rows that may be held: pipeline.memory_bytes.")?,
            in_flight_requests: make
                .int_gauge("walvec_in_flight_requests", "Requests to Milvus without an answer yet.")?,
            embargoed_keys: make.int_gauge(
                "walvec_embargoed_keys",
                "Keys that wait because an unanswered request of theirs may still land.",
            )?,
            request_seconds: make.histogram(
                "walvec_request_seconds",
                "Time of one attempt of a request to Milvus that changes something.",
                &latency_buckets,
            )?,
            throttled_seconds: make.register(Counter::new(
                "walvec_throttled_seconds_total",
                "Time that requests waited because Milvus asked to slow down, or for its quota.",
            )?)?,
            blocked_seconds: make.gauge(
                "walvec_target_blocked_seconds",
                "Time since Milvus took a write, once that is longer than target.blocked_after; else 0.",
            )?,
            write_rate_bytes: make.gauge(
                "walvec_target_write_rate_bytes_per_second",
                "Rate that upserts keep to, in bytes as the server counts them; +Inf while no limit is known.",
            )?,
            delete_rate_bytes: make.gauge(
                "walvec_target_delete_rate_bytes_per_second",
                "Rate that deletes keep to, in bytes as the server counts them; +Inf while no limit is known.",
            )?,
            target_state,
            reconnects: make
                .int_counter("walvec_reconnects_total", "Times that the source was lost and the stream began again.")?,
            connected: make.int_gauge("walvec_connected", "1 while the stream from PostgreSQL runs.")?,
            lag_bytes: make.gauge("walvec_lag_bytes", "WAL between the source's position and what is acknowledged.")?,
            lag_seconds: make.gauge(
                "walvec_lag_seconds",
                "Age, by the source's clock, of the oldest commit that is not acknowledged; 0 when caught up.",
            )?,
            uptime_seconds: make.gauge("walvec_uptime_seconds", "Time since the process started.")?,
            checkpoint_age_seconds: make.gauge(
                "walvec_checkpoint_age_seconds",
                "Time since the checkpoint was flushed, or had nothing to take in.",
            )?,
            checkpointed_at: Mutex::new(Instant::now()),
            requests,
            retained_wal_bytes: make
                .gauge("walvec_slot_retained_wal_bytes", "WAL that PostgreSQL keeps for the slot.")?,
            safe_wal_bytes: make.gauge(
                "walvec_slot_safe_wal_bytes",
                "WAL that may still be written before the slot is in danger; +Inf without max_slot_wal_keep_size.",
            )?,
            catalog_xmin_age: make.gauge(
                "walvec_slot_catalog_xmin_age_transactions",
                "Transactions since the slot's catalog_xmin: dead catalog rows younger than it are kept.",
            )?,
            wal_status,
            slot_guard,
            heartbeat_seconds: make.gauge(
                "walvec_heartbeat_seconds",
                "From the last heartbeat until everything before it was acknowledged by Milvus; 0 without source.heartbeat_interval.",
            )?,
            upserted: make.by_table("walvec_rows_upserted_total", "Rows whose upsert Milvus acknowledged.")?,
            deleted: make.by_table("walvec_rows_deleted_total", "Rows whose delete Milvus acknowledged.")?,
            refused: make.by_table("walvec_rows_refused_total", "Rows that do not fit the collection.")?,
            ignored: make.by_table(
                "walvec_changes_ignored_total",
                "UPDATEs and DELETEs of numbered entities, left alone as on_update_delete says.",
            )?,
            skipped: make.by_table("walvec_rows_skipped_total", "Rows left out, as the policy of a field says.")?,
            dead_lettered: make
                .by_table("walvec_rows_dead_lettered_total", "Rows that became dead letters, each time.")?,
            dead_letters: make.gauge_by(
                "walvec_dead_letters",
                "Rows that are set aside because Milvus will not take them.",
                &["table"],
            )?,
            dead_letter_age_seconds: make.gauge_by(
                "walvec_dead_letter_age_seconds",
                "Seconds since the oldest dead letter was refused first; 0 without one.",
                &["table"],
            )?,
            altered: make.register(IntCounterVec::new(
                Opts::new("walvec_values_altered_total", "Values replaced or cut, as the policy of their field says."),
                &["table", "field", "policy"],
            )?)?,
            index_pending_rows: make.gauge_by(
                "walvec_index_pending_rows",
                "Rows that are not in the field's index yet, at least 1 while it is not finished.",
                &["table", "field"],
            )?,
            fetched: make
                .by_table("walvec_rows_fetched_total", "Rows read again because the stream left a value out.")?,
            copied: make.by_table("walvec_rows_copied_total", "Rows that the copy read.")?,
            copied_bytes: make.by_table("walvec_copied_bytes_total", "Bytes that the copy read.")?,
            chunks_done: make.gauge_by(
                "walvec_copy_chunks_done",
                "Chunks of the copy that are at the target.",
                &["table"],
            )?,
            chunks_total: make.gauge_by("walvec_copy_chunks", "Chunks that the copy consists of.", &["table"])?,
            phase: make.gauge_by(
                "walvec_table_phase",
                "1 for the table's phase: pending, copying, catching_up, following or stopped.",
                &["table", "phase"],
            )?,
            process: process::ProcessMetrics::new(&make)?,
            registry,
        })
    }

    /// A request is in flight until the answer is dropped, also when its task is given up.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight_requests.inc();
        InFlight(self.in_flight_requests.clone())
    }

    /// What Milvus does with writes, and the rates in force, in bytes per second.
    pub fn target(&self, state: &str, write_rate: Option<f64>, delete_rate: Option<f64>) {
        for candidate in TARGET_STATES {
            self.target_state.with_label_values(&[candidate]).set(i64::from(candidate == state));
        }
        self.write_rate_bytes.set(write_rate.unwrap_or(f64::INFINITY));
        self.delete_rate_bytes.set(delete_rate.unwrap_or(f64::INFINITY));
    }

    /// The counter of one outcome.
    pub fn requests(&self, outcome: Outcome) -> IntCounter {
        self.requests.with_label_values(&[outcome.label()])
    }

    /// A table's handles; the same series for the same name.
    pub fn table(&self, name: &str) -> TableMetrics {
        let label = &[name];
        TableMetrics {
            upserted: self.upserted.with_label_values(label),
            deleted: self.deleted.with_label_values(label),
            refused: self.refused.with_label_values(label),
            ignored: self.ignored.with_label_values(label),
            skipped: self.skipped.with_label_values(label),
            dead_lettered: self.dead_lettered.with_label_values(label),
            dead_letters: self.dead_letters.with_label_values(label),
            dead_letter_age_seconds: self.dead_letter_age_seconds.with_label_values(label),
            fetched: self.fetched.with_label_values(label),
            copied: self.copied.with_label_values(label),
            copied_bytes: self.copied_bytes.with_label_values(label),
            chunks_done: self.chunks_done.with_label_values(label),
            chunks_total: self.chunks_total.with_label_values(label),
            phases: TablePhase::ALL.map(|phase| self.phase.with_label_values(&[name, phase.label()])),
            table: Arc::from(name),
            altered: self.altered.clone(),
        }
    }

    /// Rows that an index still lacks.
    pub fn index_pending_rows(&self, table: &str, field: &str) -> IntGauge {
        self.index_pending_rows.with_label_values(&[table, field])
    }

    /// What `pg_replication_slots` says of our slot: bytes retained, bytes left (`None`: no limit is set), age of
    /// `catalog_xmin` in transactions, `wal_status`, and what the slot guard makes of it.
    pub fn slot(
        &self,
        retained_bytes: Option<u64>,
        safe_wal_size: Option<i64>,
        catalog_xmin_age: Option<i64>,
        wal_status: Option<&str>,
        guard: &str,
    ) {
        self.retained_wal_bytes.set(retained_bytes.unwrap_or(0) as f64);
        self.safe_wal_bytes.set(safe_wal_size.map_or(f64::INFINITY, |bytes| bytes as f64));
        self.catalog_xmin_age.set(catalog_xmin_age.unwrap_or(0) as f64);
        for status in WAL_STATUSES {
            self.wal_status.with_label_values(&[status]).set(i64::from(wal_status == Some(status)));
        }
        for state in SLOT_GUARD_STATES {
            self.slot_guard.with_label_values(&[state]).set(i64::from(guard == state));
        }
    }

    /// The checkpoint was flushed just now, or there was nothing to write.
    pub fn checkpoint_is_current(&self) {
        self.checkpoint_was_current(Instant::now());
    }

    fn checkpoint_was_current(&self, at: Instant) {
        *self.checkpointed_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub fn uptime_seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.started).as_secs_f64()
    }

    /// Prometheus's text format, ages as of now.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        self.render_at(Instant::now())
    }

    fn render_at(&self, now: Instant) -> Result<String, prometheus::Error> {
        let checkpointed_at = *self.checkpointed_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.connected.set(i64::from(self.lag.is_connected()));
        self.lag_bytes.set(self.lag.bytes() as f64);
        self.lag_seconds.set(self.lag.seconds(now));
        self.uptime_seconds.set(self.uptime_seconds(now));
        let age = now.saturating_duration_since(checkpointed_at);
        self.checkpoint_age_seconds.set(age.as_secs_f64());
        self.process.refresh();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// Names of all metric families, for the test of the dashboards.
    pub fn names(&self) -> Vec<String> {
        // A family shows only once it has a series.
        let table = self.table("public.docs");
        table.phase(TablePhase::Pending);
        table.altered("body", "truncate");
        self.index_pending_rows("public.docs", "embedding");
        self.registry.gather().iter().map(|family| family.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_prefixed_and_have_units_and_help() {
        let metrics = Metrics::new().expect("no name is given twice");
        let names = metrics.names();
        let text = metrics.render().expect("renders");
        for name in &names {
            assert!(name.starts_with("walvec_") || name.starts_with("process_"), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
            let counter = text.contains(&format!("# TYPE {name} counter"));
            assert_eq!(counter, name.ends_with("_total"), "{name}");
        }
    }

    #[test]
    fn what_is_set_is_shown() {
        let metrics = Metrics::new().expect("valid");
        let table = metrics.table("public.docs");
        table.upserted.inc_by(3);
        table.phase(TablePhase::Copying);
        table.phase(TablePhase::Following);
        metrics.requests(Outcome::Unknown).inc();
        metrics.slot(Some(4096), None, Some(7), Some("extended"), "warned");
        let start = metrics.started;
        metrics.checkpoint_was_current(start + std::time::Duration::from_secs(2));
        let text = metrics.render_at(start + std::time::Duration::from_secs(5)).expect("renders");
        for line in [
            "walvec_rows_upserted_total{table=\"public.docs\"} 3",
            "walvec_table_phase{phase=\"copying\",table=\"public.docs\"} 0",
            "walvec_table_phase{phase=\"following\",table=\"public.docs\"} 1",
            "walvec_requests_total{outcome=\"ok\"} 0",
            "walvec_requests_total{outcome=\"unknown\"} 1",
            "walvec_slot_retained_wal_bytes 4096",
            "walvec_slot_safe_wal_bytes inf",
            "walvec_slot_wal_status{status=\"extended\"} 1",
            "walvec_slot_guard{state=\"ok\"} 0",
            "walvec_slot_guard{state=\"warned\"} 1",
            "walvec_checkpoint_age_seconds 3",
            "walvec_uptime_seconds 5",
            "walvec_lag_seconds 0",
            "walvec_connected 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
        }
    }
}
