//! The engine's milliseconds, and how long to wait before trying again.

use std::time::{Duration, Instant};

/// Milliseconds since the process began to count; monotonic, so that a change of the system's time moves nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { base: Instant::now() }
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn instant(&self, millis: u64) -> Instant {
        self.base + Duration::from_millis(millis)
    }
}

/// Waits that double from `first` to `longest`, each shortened at random by up to a half, so that what failed
/// together does not try again together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Backoff {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        Backoff { next: first, first, longest, random }
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = 0.5 + (self.random >> 40) as f64 / (1u64 << 25) as f64;
        let wait = self.next.mul_f64(share.min(1.0));
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// It worked: the next failure starts from the beginning.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_are_never_longer() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits[0] >= Duration::from_millis(50) && waits[0] <= Duration::from_millis(100), "{:?}", waits[0]);
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(2)));
        assert!(waits[10..].iter().all(|wait| *wait >= Duration::from_secs(1)));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
