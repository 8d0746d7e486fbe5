//! Writing at the quota: how fast requests may leave, found by the server's answers or known from the settings.
//!
//! In: the bytes of a request about to leave, and what came of it. Out: how long to wait before it, and how large a request
//! should be. Upserts and deletes have budgets of their own, as servers limit them separately. Pure but for the clock that
//! the caller brings; `Pace` is the same behind a lock.
//!
//! How the rate is found. A server's limiter is a bucket that holds a second's worth of its quota and refuses when it is empty
//! (Milvus `ratelimitutil`). So between two refusals exactly the quota went through, and on the first one the quota times one second more:
//! each refusal is a measurement, not only a sign. The rate goes back to 95 % of what was measured, returns to all of it, stays
//! near it (a cubic, as TCP CUBIC has it), and then doubles until it is refused. How long it stays follows from how long was
//! measured: the first refusals come soon after each other, later ones half a minute apart.
//!
//! Requests are cut so that about twenty leave in a second: a refusal then costs little, and no request is near its deadline.
//!
//! Bytes are those of the columns of the message: the servers' limiters count these, whatever the transport
//! (`internal/proxy/simple_rate_limiter.go`). 1 MB is 2^20 bytes there.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The part of what was measured to which a refusal takes the rate back.
const BACK: f64 = 0.05;
/// A measurement of one second is believed for so many: the rate is back at what was measured after that.
const BELIEF: f64 = 3.0;
/// Bounds of that time, in seconds.
const PLATEAU: std::ops::RangeInclusive<f64> = 1.5..=15.0;
/// Shortest time in which the rate doubles, in seconds.
const DOUBLING_MIN: f64 = 2.5;
/// How long nothing of a budget leaves after a refusal that does not say it itself, in seconds; three times as long after the
/// next one in a row, up to the second of `BUCKET`.
const PAUSE: f64 = 0.15;
/// What a limiter holds, in seconds of its rate.
const BUCKET: f64 = 1.0;
/// A budget that rested so long finds the limiter's bucket full again, in seconds.
const REST: f64 = 2.0;
/// A limit of the settings is kept with this margin: clocks and counts differ a little.
const UNDER_CAP: f64 = 0.985;
/// Requests a second that a budget at its limit is cut into.
const REQUESTS_PER_SECOND: f64 = 20.0;
/// No request is cut below this, in bytes.
const REQUEST_MIN: f64 = 16_384.0;
/// Slower answers halve the size of requests.
const SLOW: f64 = 2.0;
/// No rate is taken for smaller, in bytes per second: a sixteenth of the smallest quota that we know. A server that takes less
/// is asked again once a second.
const RATE_MIN: f64 = 32_768.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Upsert,
    Delete,
}

/// One kind's budget. Times are seconds since some beginning.
#[derive(Debug)]
struct Budget {
    cap: Option<f64>,
    /// What refusals have taught.
    found: Option<Found>,
    /// Bytes that may leave now; below zero, what has left too early.
    tokens: f64,
    at: f64,
    /// Bytes that were acknowledged since then.
    acknowledged: f64,
    since: f64,
    /// The limiter's bucket was full at `since`, not empty.
    fresh: bool,
    paused_until: f64,
    /// Refusals since the last acknowledgement.
    refusals: u32,
    /// A request had to wait last.
    held_back_at: f64,
    /// Largest request, in bytes, as the time of answers suggests; infinite while they are quick.
    answerable: f64,
}

#[derive(Debug)]
struct Found {
    /// What the last refusal measured.
    ceiling: f64,
    /// Seconds until the rate is there again.
    plateau: f64,
    /// Seconds since then in which the rate held something back: unused time teaches nothing.
    tried: f64,
}

impl Found {
    fn rate(&self) -> f64 {
        let plateaus = self.tried / self.plateau;
        if plateaus <= 2.0 {
            self.ceiling * (1.0 + BACK * (plateaus - 1.0).powi(3))
        } else {
            // Nothing was refused for long: the quota may have become another one.
            let doublings = (self.tried - 2.0 * self.plateau) / (self.plateau / 4.0).max(DOUBLING_MIN);
            self.ceiling * (1.0 + BACK) * doublings.min(30.0).exp2()
        }
    }
}

impl Budget {
    fn new(cap: Option<u64>) -> Budget {
        Budget {
            cap: cap.map(|cap| cap as f64 * UNDER_CAP),
            found: None,
            tokens: 0.0,
            at: 0.0,
            acknowledged: 0.0,
            since: 0.0,
            fresh: true,
            paused_until: 0.0,
            refusals: 0,
            held_back_at: f64::NEG_INFINITY,
            answerable: f64::INFINITY,
        }
    }

    /// Bytes per second in force; `None`: no limit is known.
    fn rate(&self) -> Option<f64> {
        match (self.cap, self.found.as_ref().map(Found::rate)) {
            (Some(cap), Some(found)) => Some(cap.min(found)),
            (cap, found) => cap.or(found),
        }
    }

    /// A request of so many bytes is to leave: seconds until it may. It is taken for sent.
    fn reserve(&mut self, now: f64, bytes: f64) -> f64 {
        let passed = (now - self.at).max(0.0);
        self.at = now;
        if passed > REST {
            (self.acknowledged, self.since, self.fresh) = (0.0, now, true);
        }
        let pause = (self.paused_until - now).max(0.0);
        let Some(rate) = self.rate() else { return pause };
        if self.tokens < 0.0
            && let Some(found) = &mut self.found
        {
            found.tried += passed;
        }
        // What was not used is gone: a limiter that is asked too much at once refuses.
        self.tokens = (self.tokens + rate * passed).min(0.0);
        let wait = pause.max(-self.tokens / rate);
        self.tokens -= bytes;
        if wait > 0.0 {
            self.held_back_at = now;
        }
        wait
    }

    /// A refusal came while the request waited: it is not sent now, and has to ask again.
    fn withdraw(&mut self, now: f64, bytes: f64) -> bool {
        let paused = self.paused_until > now;
        if paused {
            self.tokens += bytes;
        }
        paused
    }

    fn acknowledge(&mut self, bytes: f64, seconds: f64) {
        self.acknowledged += bytes;
        self.refusals = 0;
        if seconds > SLOW {
            self.answerable = (self.answerable.min(bytes) / 2.0).max(REQUEST_MIN);
        } else if seconds < SLOW / 4.0 {
            self.answerable *= 1.1;
        }
    }

    /// The request was refused for its rate, nothing of it was taken: seconds until it may be tried again.
    fn refuse(&mut self, now: f64, bytes: f64, asked: Option<f64>) -> f64 {
        self.tokens += bytes;
        // Refused with nothing acknowledged before: the limiter is in debt for a large request, whose answer may still be on
        // its way. That measures nothing.
        if self.acknowledged > 0.0 {
            let full = if self.fresh { BUCKET } else { 0.0 };
            let window = now - self.since;
            let measured = self.acknowledged / (window + full).max(0.05);
            let ceiling = match self.rate() {
                // Little was measured in a short time: believe it by and by.
                Some(rate) => measured.clamp(rate * if window < 1.0 { 0.7 } else { 0.5 }, rate),
                None => measured,
            };
            let plateau = (window * BELIEF).clamp(*PLATEAU.start(), *PLATEAU.end());
            self.found = Some(Found { ceiling: ceiling.max(RATE_MIN), plateau, tried: 0.0 });
            self.tokens = self.tokens.min(0.0);
        }
        (self.acknowledged, self.since, self.fresh) = (0.0, now, false);
        let pause = asked.unwrap_or_else(|| (PAUSE * 3f64.powi(self.refusals.min(8) as i32)).min(BUCKET));
        self.refusals += 1;
        self.paused_until = self.paused_until.max(now + pause);
        self.held_back_at = now;
        pause
    }

    fn request_bytes(&self) -> f64 {
        let by_rate = self.rate().map_or(f64::INFINITY, |rate| rate / REQUESTS_PER_SECOND);
        by_rate.min(self.answerable).max(REQUEST_MIN)
    }
}

/// What the budgets are like, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pacing {
    /// Bytes per second in force; `None`: no limit is known.
    pub(crate) write_rate: Option<f64>,
    pub(crate) delete_rate: Option<f64>,
    /// Requests wait for a budget, or did a moment ago.
    pub(crate) throttled: bool,
}

/// The budgets of one target.
#[derive(Debug)]
pub(super) struct Pace {
    base: Instant,
    budgets: Mutex<[Budget; 2]>,
}

impl Pace {
    /// Limits in bytes per second, where they are known.
    pub(super) fn new(max_write: Option<u64>, max_delete: Option<u64>) -> Pace {
        Pace { base: Instant::now(), budgets: Mutex::new([Budget::new(max_write), Budget::new(max_delete)]) }
    }

    fn with<T>(&self, kind: Kind, act: impl FnOnce(&mut Budget, f64) -> T) -> T {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let [upsert, delete] = &mut *budgets;
        let budget = if kind == Kind::Upsert { upsert } else { delete };
        act(budget, self.base.elapsed().as_secs_f64())
    }

    /// How long a request must wait. It is taken for sent.
    pub(super) fn reserve(&self, kind: Kind, bytes: usize) -> Duration {
        Duration::from_secs_f64(self.with(kind, |budget, now| budget.reserve(now, bytes as f64)))
    }

    /// After the wait: did another request meet a refusal meanwhile? Then this one has to reserve again.
    pub(super) fn withdraw(&self, kind: Kind, bytes: usize) -> bool {
        self.with(kind, |budget, now| budget.withdraw(now, bytes as f64))
    }

    pub(super) fn acknowledged(&self, kind: Kind, bytes: usize, took: Duration) {
        self.with(kind, |budget, _| budget.acknowledge(bytes as f64, took.as_secs_f64()));
    }

    /// The server refused it for its rate: how long to wait before it is tried again.
    pub(super) fn refused(&self, kind: Kind, bytes: usize, asked: Option<Duration>) -> Duration {
        let asked = asked.map(|asked| asked.as_secs_f64());
        Duration::from_secs_f64(self.with(kind, |budget, now| budget.refuse(now, bytes as f64, asked)))
    }

    /// Bytes that a request should not exceed.
    pub(super) fn request_bytes(&self, kind: Kind) -> usize {
        self.with(kind, |budget, _| budget.request_bytes()) as usize
    }

    pub(super) fn state(&self) -> Pacing {
        let now = self.base.elapsed().as_secs_f64();
        let budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let [upsert, delete] = &*budgets;
        let held_back = |budget: &Budget| now - budget.held_back_at < REST || budget.paused_until > now;
        Pacing {
            write_rate: upsert.rate(),
            delete_rate: delete.rate(),
            throttled: held_back(upsert) || held_back(delete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A limiter as Milvus has it, and lanes that always have something to send, over virtual time.
    struct Model {
        quota: f64,
        burst: f64,
        tokens: f64,
        at: f64,
        granted: f64,
        requests: u32,
        refused: u32,
    }

    impl Model {
        fn new(quota: f64, burst: f64) -> Model {
            Model { quota, burst, tokens: quota * burst, at: 0.0, granted: 0.0, requests: 0, refused: 0 }
        }

        fn take(&mut self, now: f64, bytes: f64) -> bool {
            self.tokens = (self.tokens + self.quota * (now - self.at)).min(self.quota * self.burst);
            self.at = now;
            self.requests += 1;
            let granted = self.tokens > 0.0;
            if granted {
                self.tokens -= bytes;
                self.granted += bytes;
            } else {
                self.refused += 1;
            }
            granted
        }
    }

    /// Each lane waits as it is told, sends, and hears the answer after `latency`.
    fn drive(budget: &mut Budget, model: &mut Model, lanes: usize, latency: f64, from: f64, until: f64) {
        const ROW: f64 = 3_100.0;
        let size = |budget: &Budget| (budget.request_bytes().min(1e6) / ROW).floor().max(1.0) * ROW;
        // When a lane acts next, what it has on the way, and whether it is about to send.
        let mut lane: Vec<(f64, f64, bool)> = vec![(from, 0.0, false); lanes];
        loop {
            let Some(next) = (0..lanes).min_by(|a, b| lane[*a].0.total_cmp(&lane[*b].0)) else { return };
            let (now, bytes, sending) = lane[next];
            if now >= until {
                return;
            }
            lane[next] = if sending {
                if budget.withdraw(now, bytes) {
                    (now + budget.reserve(now, bytes), bytes, true)
                } else if model.take(now, bytes) {
                    budget.acknowledge(bytes, latency);
                    (now + latency, 0.0, false)
                } else {
                    (now + budget.refuse(now, bytes, None), 0.0, false)
                }
            } else {
                let bytes = size(budget);
                (now + budget.reserve(now, bytes), bytes, true)
            };
        }
    }

    const MB: f64 = 1_048_576.0;

    #[test]
    fn an_unknown_quota_is_found_and_used_to_95_percent_with_hardly_a_refusal() {
        for quota in [0.5 * MB, 2.0 * MB, 10.0 * MB, 64.0 * MB] {
            for lanes in [1, 2, 4, 8] {
                let (mut budget, mut model) = (Budget::new(None), Model::new(quota, 1.0));
                drive(&mut budget, &mut model, lanes, 0.01, 0.0, 60.0);
                let used = model.granted / (quota * 61.0);
                let share = f64::from(model.refused) / f64::from(model.requests);
                assert!(used >= 0.95, "{lanes} lanes at {quota}: {used:.3} of the quota");
                // Each lane meets the first refusal with a request of its own.
                let most = if lanes < 8 { 0.01 } else { 0.015 };
                assert!(share < most, "{lanes} lanes at {quota}: {} of {} refused", model.refused, model.requests);
            }
        }
    }

    #[test]
    fn a_known_quota_is_never_exceeded() {
        let quota = 10.0 * MB;
        let (mut budget, mut model) = (Budget::new(Some(quota as u64)), Model::new(quota, 1.0));
        drive(&mut budget, &mut model, 4, 0.01, 0.0, 60.0);
        assert_eq!(model.refused, 0);
        assert!(model.granted / (quota * 60.0) >= 0.97, "{}", model.granted / (quota * 60.0));
    }

    #[test]
    fn a_quota_that_changes_is_followed_both_ways() {
        let (mut budget, mut model) = (Budget::new(None), Model::new(10.0 * MB, 1.0));
        let mut used = |quota: f64, from: f64, until: f64| {
            model.quota = quota;
            (model.granted, model.requests, model.refused) = (0.0, 0, 0);
            drive(&mut budget, &mut model, 2, 0.01, from, until);
            (model.granted / (quota * (until - from)), f64::from(model.refused) / f64::from(model.requests))
        };
        used(10.0 * MB, 0.0, 30.0);
        used(3.0 * MB, 30.0, 45.0);
        let (share, refused) = used(3.0 * MB, 45.0, 75.0);
        assert!(share > 0.9 && refused < 0.02, "after it fell: {share:.3} used, {refused:.3} refused");
        used(10.0 * MB, 75.0, 120.0);
        let (share, refused) = used(10.0 * MB, 120.0, 150.0);
        assert!(share > 0.9 && refused < 0.02, "after it rose: {share:.3} used, {refused:.3} refused");
    }

    /// Eight hours, of which storms take every other ten minutes: a quota that jumps up and down, and writes denied for minutes. Never a busy
    /// loop, and what was learnt in a storm does not slow down the calm after it.
    #[test]
    fn hours_of_storms_are_neither_a_busy_loop_nor_the_end_of_speed() {
        const LANES: usize = 4;
        let (mut budget, mut model) = (Budget::new(None), Model::new(4.0 * MB, 1.0));
        let mut random = 1u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut now = 0.0;
        while now < 8.0 * 3600.0 {
            let calm_from = now + 600.0;
            while now < calm_from {
                let lasts = (1.0 + draw(120) as f64).min(calm_from - now);
                model.quota = [0.0, 0.01, 0.3, 4.0, 40.0][draw(5) as usize] * MB;
                (model.tokens, model.at, model.requests, model.refused) = (0.0, now, 0, 0);
                drive(&mut budget, &mut model, LANES, 0.01, now, now + lasts);
                let tries = f64::from(model.refused);
                assert!(tries <= 12.0 * LANES as f64 + 6.0 * lasts, "{tries} refusals in {lasts} s at {}", model.quota);
                now += lasts;
            }
            // Calm: after two minutes it is as quick as ever.
            model.quota = 4.0 * MB;
            drive(&mut budget, &mut model, LANES, 0.01, now, now + 120.0);
            model.granted = 0.0;
            drive(&mut budget, &mut model, LANES, 0.01, now + 120.0, now + 600.0);
            let used = model.granted / (model.quota * 480.0);
            assert!(used > 0.85, "{used:.3} of the quota in the calm at {now} s");
            now += 600.0;
        }
    }

    #[test]
    fn nothing_waits_while_no_limit_is_known() {
        let mut budget = Budget::new(None);
        for i in 0..100 {
            assert_eq!(budget.reserve(f64::from(i) / 1e3, 4e6), 0.0);
            budget.acknowledge(4e6, 0.1);
        }
        assert_eq!((budget.rate(), budget.request_bytes()), (None, f64::INFINITY));
    }

    #[test]
    fn slow_answers_make_requests_smaller_and_quick_ones_larger_again() {
        let mut budget = Budget::new(None);
        budget.acknowledge(4e6, 5.0);
        assert_eq!(budget.request_bytes(), 2e6);
        budget.acknowledge(2e6, 3.0);
        budget.acknowledge(1e6, 1.0);
        assert_eq!(budget.request_bytes(), 1e6);
        for _ in 0..200 {
            budget.acknowledge(1e6, 0.1);
        }
        assert!(budget.request_bytes() > 1e9);
        for _ in 0..40 {
            budget.acknowledge(1e5, 9.0);
        }
        assert_eq!(budget.request_bytes(), REQUEST_MIN);
    }

    #[test]
    fn what_the_server_asks_for_is_waited() {
        let mut budget = Budget::new(None);
        budget.reserve(1.0, 1e6);
        assert_eq!(budget.refuse(1.0, 1e6, Some(7.0)), 7.0);
        assert!((budget.reserve(2.0, 1e6) - 6.0).abs() < 1e-9, "nothing of this kind leaves before");
    }

    proptest! {
        /// Whatever happens in whatever order, waits are finite and not negative, and rates positive.
        #[test]
        fn no_sequence_of_answers_breaks_the_arithmetic(
            steps in proptest::collection::vec((0.0..5.0f64, 0..5_000_000u32, 0..4u8, 0.0..20.0f64), 1..200),
            cap in proptest::option::of(10_000u64..100_000_000),
        ) {
            let mut budget = Budget::new(cap);
            let mut now = 0.0;
            for (pause, bytes, what, seconds) in steps {
                now += pause;
                let wait = match what {
                    0 | 1 => budget.reserve(now, f64::from(bytes)),
                    2 => { budget.acknowledge(f64::from(bytes), seconds); 0.0 }
                    _ => budget.refuse(now, f64::from(bytes), None),
                };
                prop_assert!(wait.is_finite() && wait >= 0.0);
                prop_assert!(budget.rate().is_none_or(|rate| rate.is_finite() && rate >= 10_000.0 * UNDER_CAP * 0.9));
                prop_assert!(budget.request_bytes() >= REQUEST_MIN);
            }
        }
    }
}
