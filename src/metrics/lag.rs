//! The lag, by the server's clock.
//!
//! In: transactions as they arrive, keepalives, the server's clock and position, progress. Out: bytes and seconds.
//!
//! Holds: zero when everything that the server has is acknowledged; otherwise at least the age of the oldest commit that
//! is not, and growing while nothing moves, also while the stream is lost. A commit's age is told by the server's clock,
//! which keepalives carry: the two machines' clocks may differ by minutes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Histogram;

use crate::change::Lsn;

/// So many transactions are timed one by one; of more, the later ones wait untimed for their place.
const TIMED_MAX: usize = 4096;

/// See the module's head. Shared: everything takes `&self`.
pub struct Lag {
    state: Mutex<State>,
    commit_seconds: Histogram,
}

#[derive(Default)]
struct State {
    connected: bool,
    /// Since when the stream is lost.
    lost_at: Option<Instant>,
    server_lsn: Lsn,
    progress: Lsn,
    /// The server's clock minus ours, and when that was learned: microseconds since 1970 at an instant.
    clock: Option<(i64, Instant)>,
    /// Commit time of the transaction that is arriving.
    arriving: Option<i64>,
    /// End and commit time of those not acknowledged, oldest first.
    waiting: VecDeque<(Lsn, i64)>,
}

impl State {
    fn server_now(&self, now: Instant) -> Option<i64> {
        let (micros, at) = self.clock?;
        let since = now.saturating_duration_since(at).as_micros();
        Some(micros.saturating_add(i64::try_from(since).unwrap_or(i64::MAX)))
    }

    fn age(&self, commit_micros: i64, now: Instant) -> Duration {
        let micros = self.server_now(now).map_or(0, |server| server.saturating_sub(commit_micros));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0)) // clocks of commits are not monotonic
    }
}

impl Lag {
    pub(super) fn new(commit_seconds: Histogram) -> Lag {
        Lag { state: Mutex::default(), commit_seconds }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's clock, microseconds since 1970-01-01 UTC, was just this.
    pub fn server_clock(&self, server_micros: i64, now: Instant) {
        let mut state = self.state();
        // A message that was under way for long shows an old time: believe the latest clock.
        if state.server_now(now).is_none_or(|known| server_micros > known) || state.clock.is_none() {
            state.clock = Some((server_micros, now));
        }
    }

    /// Position of the server.
    pub fn server_lsn(&self, lsn: Lsn) {
        let mut state = self.state();
        state.server_lsn = state.server_lsn.max(lsn);
    }

    /// The stream runs, or was lost.
    pub fn connected(&self, connected: bool, now: Instant) {
        let mut state = self.state();
        state.connected = connected;
        state.lost_at = if connected { None } else { state.lost_at.or(Some(now)) };
    }

    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// The stream starts again here: what was received before comes again.
    pub fn restart(&self, checkpoint: Lsn) {
        let mut state = self.state();
        state.arriving = None;
        state.waiting.clear();
        state.progress = checkpoint;
    }

    /// A transaction begins to arrive; committed at `commit_micros`.
    pub fn begin(&self, commit_micros: i64) {
        self.state().arriving = Some(commit_micros);
    }

    /// The transaction has arrived.
    pub fn commit(&self, end_lsn: Lsn) {
        let mut state = self.state();
        state.server_lsn = state.server_lsn.max(end_lsn);
        if let Some(commit_micros) = state.arriving.take()
            && state.waiting.len() < TIMED_MAX
        {
            state.waiting.push_back((end_lsn, commit_micros));
        }
    }

    /// The server has nothing for us up to here.
    pub fn keepalive(&self, wal_end: Lsn) {
        self.server_lsn(wal_end);
    }

    /// Milvus has acknowledged everything below.
    pub fn progress(&self, lsn: Lsn, now: Instant) {
        let mut state = self.state();
        state.progress = state.progress.max(lsn);
        while let Some((end_lsn, commit_micros)) = state.waiting.front().copied()
            && end_lsn <= state.progress
        {
            state.waiting.pop_front();
            self.commit_seconds.observe(state.age(commit_micros, now).as_secs_f64());
        }
    }

    /// WAL between the server's position and progress.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        state.server_lsn.bytes_since(state.progress)
    }

    /// Age of the oldest commit that is not acknowledged. While the stream is lost, at least as long as it has been.
    pub fn seconds(&self, now: Instant) -> f64 {
        let state = self.state();
        let oldest = state.waiting.front().map(|(_, commit)| *commit).or(state.arriving);
        let behind = oldest.map_or(Duration::ZERO, |commit_micros| state.age(commit_micros, now));
        let lost = state.lost_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        behind.max(lost).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    fn lag() -> Lag {
        Lag::new(Histogram::with_opts(HistogramOpts::new("h", "h")).expect("valid"))
    }

    const SECOND: i64 = 1_000_000;

    #[test]
    fn zero_when_caught_up_and_growing_when_stalled() {
        let (lag, start) = (lag(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        lag.connected(true, start);
        // The server's clock is an hour ahead of anything here: only its own times count.
        lag.server_clock(3600 * SECOND, start);
        assert_eq!((lag.bytes(), lag.seconds(at(5))), (0, 0.0));
        lag.begin(3600 * SECOND);
        assert_eq!(lag.seconds(at(2)), 2.0, "while it arrives");
        lag.commit(Lsn(100));
        assert_eq!((lag.bytes(), lag.seconds(at(3))), (100, 3.0));
        assert_eq!(lag.seconds(at(60)), 60.0, "nothing moves");
        lag.progress(Lsn(100), at(60));
        assert_eq!((lag.bytes(), lag.seconds(at(61))), (0, 0.0));
        assert_eq!(lag.commit_seconds.get_sample_sum(), 60.0);
    }

    #[test]
    fn a_lost_stream_lags_although_nothing_is_known_to_wait() {
        let (lag, start) = (lag(), Instant::now());
        lag.connected(true, start);
        lag.server_clock(SECOND, start);
        lag.connected(false, start);
        lag.connected(false, start + Duration::from_secs(5));
        assert_eq!(lag.seconds(start + Duration::from_secs(9)), 9.0);
        lag.connected(true, start + Duration::from_secs(10));
        assert_eq!(lag.seconds(start + Duration::from_secs(11)), 0.0);
    }

    #[test]
    fn commits_from_the_future_are_not_negative() {
        let (lag, start) = (lag(), Instant::now());
        lag.server_clock(SECOND, start);
        lag.begin(100 * SECOND);
        lag.commit(Lsn(5));
        assert_eq!(lag.seconds(start), 0.0);
        lag.progress(Lsn(5), start);
        assert_eq!(lag.commit_seconds.get_sample_sum(), 0.0);
    }

    #[test]
    fn a_server_ahead_without_anything_for_us_is_bytes_only() {
        let lag = lag();
        lag.server_lsn(Lsn(500));
        assert_eq!(lag.bytes(), 500);
        lag.keepalive(Lsn(600));
        lag.progress(Lsn(600), Instant::now());
        assert_eq!(lag.bytes(), 0);
    }
}
