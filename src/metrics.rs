//! Metrics: every name that `/metrics` shows, and the lag.
//!
//! In: counts after the work is done, positions and clocks as they become known. Out: the text for Prometheus.
//!
//! Holds: labels are bounded (tables, outcomes, phases); a metric's name ends in its unit; the lag is worked out when it
//! is asked for, so that it grows while everything stands still.
//!
//! Dashboards and alerts may use only names from here; a test reads them.

mod lag;

use prometheus::{
    Counter, CounterVec, Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use lag::Lag;

/// How a request to Milvus went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    Retried,
    Throttled,
    /// A row in it does not fit.
    Refused,
    /// No answer: it may have been applied.
    Unknown,
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

/// How far a table is.
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

/// All metrics of the process. Handles are cheap to clone and to use.
pub struct Metrics {
    registry: Registry,
    pub lag: Lag,
    pub received_lsn: IntGauge,
    pub progress_lsn: IntGauge,
    pub checkpoint_lsn: IntGauge,
    pub confirmed_lsn: IntGauge,
    pub held_bytes: IntGauge,
    pub embargoed_keys: IntGauge,
    pub request_seconds: Histogram,
    pub throttled_seconds: Counter,
    pub reconnects: IntCounter,
    lag_bytes: Gauge,
    lag_seconds: Gauge,
    connected: IntGauge,
    requests: IntCounterVec,
    retained_wal_bytes: IntGauge,
    safe_wal_bytes: IntGauge,
    catalog_xmin_age: IntGauge,
    slot_wal_status: IntGaugeVec,
    checkpoint_age_seconds: Gauge,
    checkpointed: std::sync::Mutex<std::time::Instant>,
    rows: IntCounterVec,
    copied_bytes: IntCounterVec,
    copy_chunks: IntGaugeVec,
    table_phase: IntGaugeVec,
}

/// The metrics of one table.
#[derive(Clone)]
pub struct TableMetrics {
    pub upserted: IntCounter,
    pub deleted: IntCounter,
    pub refused: IntCounter,
    pub fetched: IntCounter,
    pub copied: IntCounter,
    pub copied_bytes: IntCounter,
    pub chunks_done: IntGauge,
    pub chunks_total: IntGauge,
    phases: Vec<(TablePhase, IntGauge)>,
}

impl TableMetrics {
    /// The table is in this phase, and in no other.
    pub fn phase(&self, now: TablePhase) {
        for (phase, gauge) in &self.phases {
            gauge.set(i64::from(*phase == now));
        }
    }
}

impl Metrics {
    /// Everything registered, at zero.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let float = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };

        let build = gauges("walvec_build_info", "1, with the version as a label.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let throttled_seconds = CounterVec::new(
            Opts::new("walvec_throttled_seconds_total", "Seconds waited because Milvus asked for less."),
            &[],
        )?;
        registry.register(Box::new(throttled_seconds.clone()))?;
        let reconnects =
            IntCounter::new("walvec_reconnects_total", "Times that the source was lost and the session began anew.")?;
        registry.register(Box::new(reconnects.clone()))?;
        let requests = counters("walvec_requests_total", "Requests to Milvus that write, by outcome.", &["outcome"])?;
        for outcome in Outcome::ALL {
            requests.with_label_values(&[outcome.label()]); // at zero from the start, so that a rate has a beginning
        }
        let latencies = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
        let commit_seconds = histogram(
            "walvec_commit_to_acknowledged_seconds",
            "From a commit at the source, by its clock, until Milvus has acknowledged all of it.",
            &latencies,
        )?;
        Ok(Metrics {
            lag: Lag::new(commit_seconds),
            received_lsn: gauge("walvec_received_lsn_bytes", "Position that the stream has reached.")?,
            progress_lsn: gauge(
                "walvec_acknowledged_lsn_bytes",
                "Position up to which Milvus has acknowledged everything.",
            )?,
            checkpoint_lsn: gauge("walvec_checkpoint_lsn_bytes", "Position of the checkpoint on disk.")?,
            confirmed_lsn: gauge(
                "walvec_confirmed_lsn_bytes",
                "Position that PostgreSQL was told it may forget up to.",
            )?,
            held_bytes: gauge("walvec_held_bytes", "Bytes of rows on their way.")?,
            embargoed_keys: gauge(
                "walvec_embargoed_keys",
                "Keys that wait because a request without an answer may still land.",
            )?,
            request_seconds: histogram(
                "walvec_request_seconds",
                "Duration of one request to Milvus that writes.",
                &latencies,
            )?,
            throttled_seconds: throttled_seconds.with_label_values::<&str>(&[]),
            reconnects,
            lag_bytes: float(
                "walvec_lag_bytes",
                "WAL between the server's position and what Milvus has acknowledged.",
            )?,
            lag_seconds: float(
                "walvec_lag_seconds",
                "Age of the oldest commit that is not acknowledged, by the server's clock; 0 when there is none.",
            )?,
            connected: gauge("walvec_connected", "1 while the stream runs.")?,
            requests,
            retained_wal_bytes: gauge("walvec_retained_wal_bytes", "WAL that the slot keeps on the source's disk.")?,
            safe_wal_bytes: gauge(
                "walvec_safe_wal_bytes",
                "WAL that may still be written before the slot is in danger; -1 without a limit.",
            )?,
            catalog_xmin_age: gauge(
                "walvec_slot_catalog_xmin_age_transactions",
                "Age of the oldest catalog row that the slot keeps from VACUUM.",
            )?,
            slot_wal_status: gauges("walvec_slot_wal_status", "1 for the slot's wal_status.", &["status"])?,
            checkpoint_age_seconds: float(
                "walvec_checkpoint_age_seconds",
                "Time since the checkpoint last moved or was up to date.",
            )?,
            checkpointed: std::sync::Mutex::new(std::time::Instant::now()),
            rows: counters(
                "walvec_rows_total",
                "Rows, by table and what was done: upserted, deleted, refused at the target; fetched, copied from the source.",
                &["table", "action"],
            )?,
            copied_bytes: counters("walvec_copied_bytes_total", "Bytes that the copy has read.", &["table"])?,
            copy_chunks: gauges(
                "walvec_copy_chunks",
                "Chunks of the copy, by state: done, total.",
                &["table", "state"],
            )?,
            table_phase: gauges("walvec_table_phase", "1 for the phase that the table is in.", &["table", "phase"])?,
            registry,
        })
    }

    pub fn requests(&self, outcome: Outcome) -> IntCounter {
        self.requests.with_label_values(&[outcome.label()])
    }

    /// The handles of one table, by `schema.table`.
    pub fn table(&self, name: &str) -> TableMetrics {
        let rows = |action: &str| self.rows.with_label_values(&[name, action]);
        let metrics = TableMetrics {
            upserted: rows("upserted"),
            deleted: rows("deleted"),
            refused: rows("refused"),
            fetched: rows("fetched"),
            copied: rows("copied"),
            copied_bytes: self.copied_bytes.with_label_values(&[name]),
            chunks_done: self.copy_chunks.with_label_values(&[name, "done"]),
            chunks_total: self.copy_chunks.with_label_values(&[name, "total"]),
            phases: TablePhase::ALL
                .map(|phase| (phase, self.table_phase.with_label_values(&[name, phase.label()])))
                .to_vec(),
        };
        metrics.phase(TablePhase::Pending);
        metrics
    }

    /// What `pg_replication_slots` says of our slot.
    pub fn slot(
        &self,
        retained_bytes: Option<u64>,
        safe_wal_size: Option<i64>,
        xmin_age: Option<i64>,
        wal_status: Option<&str>,
    ) {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.retained_wal_bytes.set(retained_bytes.map_or(0, signed));
        self.safe_wal_bytes.set(safe_wal_size.unwrap_or(-1));
        self.catalog_xmin_age.set(xmin_age.unwrap_or(0));
        for status in ["reserved", "extended", "unreserved", "lost"] {
            self.slot_wal_status.with_label_values(&[status]).set(i64::from(wal_status == Some(status)));
        }
    }

    /// The checkpoint was written, or there was nothing to write.
    pub fn checkpoint_is_current(&self) {
        *self.checkpointed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = std::time::Instant::now();
    }

    /// Everything in the text format of Prometheus, as of now.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let now = std::time::Instant::now();
        self.lag_bytes.set(self.lag.bytes() as f64);
        self.lag_seconds.set(self.lag.seconds(now));
        self.connected.set(i64::from(self.lag.is_connected()));
        let checkpointed = *self.checkpointed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.checkpoint_age_seconds.set(now.saturating_duration_since(checkpointed).as_secs_f64());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_from_the_start_and_named_with_its_unit() {
        let metrics = Metrics::new().expect("names are valid and distinct");
        metrics.table("public.docs").phase(TablePhase::Following);
        metrics.slot(Some(5), None, Some(7), Some("reserved"));
        let text = metrics.render().expect("rendered");
        for line in [
            "walvec_table_phase{phase=\"following\",table=\"public.docs\"} 1",
            "walvec_table_phase{phase=\"pending\",table=\"public.docs\"} 0",
            "walvec_rows_total{action=\"upserted\",table=\"public.docs\"} 0",
            "walvec_requests_total{outcome=\"unknown\"} 0",
            "walvec_slot_wal_status{status=\"reserved\"} 1",
            "walvec_safe_wal_bytes -1",
            "walvec_lag_seconds 0",
            "walvec_connected 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
