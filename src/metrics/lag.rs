//! Lag: how far behind the source we are, in bytes and in seconds of the source's own clock.
//!
//! In: what the stream brings (begins, commits, keepalives with the server's clock), what is acknowledged, and whether
//! there is a stream at all. Out: bytes, seconds, and a histogram of commit → acknowledged.
//!
//! ```text
//! seconds = server's clock now − commit time of the oldest transaction that is not acknowledged
//!         = 0 when everything received is acknowledged
//!         = time since we were last caught up, when there is no stream to tell
//! ```
//!
//! Holds: it grows by one second a second while anything is stalled, here, in Milvus or on the line, because it is
//! computed from clocks when it is asked for. The list of transactions is bounded: beyond `TRANSACTIONS_MAX` neighbours
//! are merged under the older one's commit time, so the lag is never told too small.
//!
//! The server's clock is its offset from ours, learnt from keepalives: commit times are the source's, and two machines'
//! clocks differ.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Histogram;

use crate::change::Lsn;

const TRANSACTIONS_MAX: usize = 4096;

/// How long a clock is preferred to a later message that shows less.
const CLOCK_KEPT: Duration = Duration::from_secs(60);

pub struct Lag {
    state: Mutex<State>,
    acknowledged: Histogram,
}

struct State {
    /// The server's clock in microseconds since 1970, and when we heard it.
    clock: Option<(i64, Instant)>,
    /// Dispatched and not acknowledged, oldest first: end LSN, commit time. Each stands for up to `stride` transactions.
    transactions: VecDeque<(Lsn, i64)>,
    stride: usize,
    /// How many the newest entry stands for.
    newest: usize,
    /// The commit time of the transaction that is arriving.
    open: Option<i64>,
    received: Lsn,
    server: Lsn,
    progress: Lsn,
    connected: bool,
    /// `None` while the stream is up, and before it first was.
    lost_at: Option<Instant>,
    /// When nothing was behind, last.
    caught_up_at: Option<Instant>,
}

impl State {
    fn server_micros(&self, now: Instant) -> Option<i64> {
        let (micros, heard) = self.clock?;
        Some(micros.saturating_add(now.saturating_duration_since(heard).as_micros() as i64))
    }

    fn push(&mut self, end_lsn: Lsn, commit_micros: i64) {
        if self.transactions.is_empty() {
            self.stride = 1;
        }
        match self.transactions.back_mut() {
            Some((newest_end, oldest_micros)) if self.newest < self.stride => {
                *newest_end = end_lsn;
                *oldest_micros = commit_micros.min(*oldest_micros);
                self.newest += 1;
            }
            _ => {
                self.transactions.push_back((end_lsn, commit_micros));
                self.newest = 1;
            }
        }
        if self.transactions.len() > TRANSACTIONS_MAX {
            let entries: Vec<(Lsn, i64)> = self.transactions.drain(..).collect();
            self.transactions.extend(entries.chunks(2).filter_map(|pair| {
                let oldest_micros = pair.iter().map(|(_, commit_micros)| *commit_micros).min()?;
                Some((pair.last()?.0, oldest_micros))
            }));
            self.stride *= 2;
        }
    }

    fn behind(&self) -> bool {
        !self.transactions.is_empty() || self.open.is_some() || self.progress < self.received
    }
}

impl Lag {
    pub(super) fn new(acknowledged: Histogram) -> Lag {
        let state = State {
            clock: None,
            transactions: VecDeque::new(),
            stride: 1,
            newest: 0,
            open: None,
            received: Lsn::ZERO,
            server: Lsn::ZERO,
            progress: Lsn::ZERO,
            connected: false,
            lost_at: None,
            caught_up_at: None,
        };
        Lag { state: Mutex::new(state), acknowledged }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server said what time it is: microseconds since 1970-01-01 UTC.
    pub fn server_clock(&self, server_micros: i64, now: Instant) {
        let mut state = self.state();
        // A message that was long under way shows an old time: the latest clock is the nearest to the truth. But one
        // that was set back is believed after a while.
        let forget = state.clock.is_some_and(|(_, heard)| now.saturating_duration_since(heard) > CLOCK_KEPT);
        if forget || state.server_micros(now).is_none_or(|known| server_micros > known) {
            state.clock = Some((server_micros, now));
        }
    }

    /// The server's own position, as a query read it.
    pub fn server_lsn(&self, lsn: Lsn) {
        let mut state = self.state();
        state.server = state.server.max(lsn);
    }

    /// The stream came up or was lost.
    pub fn connected(&self, connected: bool, now: Instant) {
        let mut state = self.state();
        state.connected = connected;
        match (connected, state.lost_at) {
            (true, _) => state.lost_at = None,
            (false, None) => state.lost_at = Some(now),
            (false, Some(_)) => {}
        }
    }

    pub fn is_connected(&self) -> bool {
        self.state().connected
    }

    /// A new session starts at the checkpoint: what was received before it comes again.
    pub fn restart(&self, checkpoint: Lsn) {
        let mut state = self.state();
        state.transactions.clear();
        state.open = None;
        state.received = checkpoint;
        state.progress = checkpoint;
    }

    /// A transaction begins to arrive; its commit time, microseconds since 1970-01-01 UTC.
    pub fn begin(&self, commit_micros: i64) {
        self.state().open = Some(commit_micros);
    }

    /// The transaction is dispatched to its end.
    pub fn commit(&self, end_lsn: Lsn) {
        let mut state = self.state();
        state.received = state.received.max(end_lsn);
        state.server = state.server.max(end_lsn);
        if let Some(commit_micros) = state.open.take() {
            state.push(end_lsn, commit_micros);
        }
    }

    pub fn keepalive(&self, wal_end: Lsn) {
        let mut state = self.state();
        state.received = state.received.max(wal_end);
        state.server = state.server.max(wal_end);
    }

    /// Everything below `lsn` is acknowledged, as of `now`.
    pub fn progress(&self, lsn: Lsn, now: Instant) {
        let mut state = self.state();
        state.progress = state.progress.max(lsn);
        let server_micros = state.server_micros(now);
        while let Some(&(end_lsn, commit_micros)) = state.transactions.front() {
            if end_lsn > lsn {
                break;
            }
            state.transactions.pop_front();
            if let Some(server_micros) = server_micros {
                self.acknowledged.observe(seconds(server_micros.saturating_sub(commit_micros)));
            }
        }
        if !state.behind() && state.lost_at.is_none() {
            state.caught_up_at = Some(now);
        }
    }

    /// WAL bytes between the server's position and what is acknowledged.
    pub fn bytes(&self) -> u64 {
        let state = self.state();
        state.server.bytes_since(state.progress)
    }

    /// Seconds behind, as of `now`.
    pub fn seconds(&self, now: Instant) -> f64 {
        let state = self.state();
        let oldest = state.transactions.iter().map(|(_, commit_micros)| *commit_micros).chain(state.open).min();
        let by_transaction = match (oldest, state.server_micros(now)) {
            (Some(oldest), Some(server)) => seconds(server.saturating_sub(oldest)),
            _ => 0.0,
        };
        let since = |at: Option<Instant>| at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        match state.lost_at {
            // Nobody tells what the source does meanwhile: what was caught up then may be behind since.
            Some(lost_at) => by_transaction.max(since(state.caught_up_at.or(Some(lost_at)))),
            None => by_transaction,
        }
    }
}

/// A clock that went back a little is no negative age.
fn seconds(micros: i64) -> f64 {
    micros.max(0) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// The server's clock is years apart from ours: only its own difference counts.
    const EPOCH: i64 = 5_000_000_000_000_000;

    fn lag() -> (Lag, Instant) {
        let histogram = Histogram::with_opts(prometheus::HistogramOpts::new("test", "test")).expect("valid");
        let (lag, start) = (Lag::new(histogram), Instant::now());
        lag.server_clock(EPOCH, start);
        lag.connected(true, start);
        lag.restart(Lsn(100));
        (lag, start)
    }

    #[test]
    fn caught_up_is_zero_however_long_nothing_happens() {
        let (lag, start) = lag();
        assert_eq!((lag.seconds(start + 3600 * SECOND), lag.bytes()), (0.0, 0));
        lag.begin(EPOCH);
        lag.commit(Lsn(200));
        lag.progress(Lsn(200), start + SECOND);
        assert_eq!((lag.seconds(start + 3600 * SECOND), lag.bytes()), (0.0, 0));
    }

    #[test]
    fn it_grows_while_milvus_is_stalled_and_falls_with_what_is_acknowledged() {
        let (lag, start) = lag();
        for (i, lsn) in [(1, 200), (2, 300), (3, 400)] {
            lag.begin(EPOCH + i * 1_000_000);
            lag.commit(Lsn(lsn));
        }
        assert_eq!(lag.seconds(start + 10 * SECOND), 9.0);
        assert_eq!(lag.seconds(start + 60 * SECOND), 59.0);
        assert_eq!(lag.bytes(), 300);
        lag.progress(Lsn(299), start + 60 * SECOND);
        assert_eq!((lag.seconds(start + 60 * SECOND), lag.bytes()), (58.0, 101));
        lag.progress(Lsn(400), start + 61 * SECOND);
        assert_eq!((lag.seconds(start + 99 * SECOND), lag.bytes()), (0.0, 0));
        assert_eq!(lag.acknowledged.get_sample_count(), 3);
        assert_eq!(lag.acknowledged.get_sample_sum(), 59.0 + 59.0 + 58.0);
    }

    #[test]
    fn a_transaction_that_is_still_arriving_counts() {
        let (lag, start) = lag();
        lag.begin(EPOCH);
        assert_eq!(lag.seconds(start + 5 * SECOND), 5.0);
    }

    #[test]
    fn without_a_stream_it_grows_from_the_last_time_we_were_caught_up() {
        let (lag, start) = lag();
        lag.progress(Lsn(100), start + 2 * SECOND);
        lag.connected(false, start + 5 * SECOND);
        lag.connected(false, start + 8 * SECOND);
        assert_eq!(lag.seconds(start + 12 * SECOND), 10.0);
        lag.restart(Lsn(100));
        assert_eq!(lag.seconds(start + 13 * SECOND), 11.0, "a start that has not succeeded changes nothing");
        lag.connected(true, start + 14 * SECOND);
        assert_eq!(lag.seconds(start + 14 * SECOND), 0.0);
    }

    #[test]
    fn the_servers_position_counts_in_bytes() {
        let (lag, _) = lag();
        lag.server_lsn(Lsn(1000));
        assert_eq!(lag.bytes(), 900);
        lag.keepalive(Lsn(1200));
        assert_eq!(lag.bytes(), 1100);
        lag.server_lsn(Lsn(500));
        assert_eq!(lag.bytes(), 1100, "an older answer does not lower it");
    }

    #[test]
    fn a_long_backlog_is_merged_without_losing_its_oldest_age() {
        let (lag, start) = lag();
        for i in 0..100_000_u32 {
            lag.begin(EPOCH + i64::from(i));
            lag.commit(Lsn(u64::from(i) + 101));
        }
        assert!(lag.state().transactions.len() <= TRANSACTIONS_MAX);
        assert_eq!(lag.seconds(start + 7 * SECOND), 7.0);
        lag.progress(Lsn(50_000), start + 7 * SECOND);
        let left = lag.seconds(start + 7 * SECOND);
        assert!((6.9..7.0).contains(&left), "{left}");
        lag.progress(Lsn(100_100), start + 8 * SECOND);
        assert_eq!(lag.seconds(start + 9 * SECOND), 0.0);
    }

    #[test]
    fn clocks_that_go_back_are_no_negative_lag() {
        let (lag, start) = lag();
        lag.begin(EPOCH + 5_000_000);
        lag.commit(Lsn(200));
        assert_eq!(lag.seconds(start), 0.0);
    }

    #[test]
    fn a_message_that_was_long_under_way_does_not_set_the_clock_back() {
        let (lag, start) = lag();
        lag.begin(EPOCH);
        lag.server_clock(EPOCH + 1_000_000, start + 9 * SECOND);
        assert_eq!(lag.seconds(start + 10 * SECOND), 10.0);
        lag.server_clock(EPOCH + 30_000_000, start + 62 * SECOND);
        assert_eq!(lag.seconds(start + 62 * SECOND), 30.0, "a clock that was set back");
    }
}
