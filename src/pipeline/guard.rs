//! The slot guard: what is to be done as PostgreSQL keeps more and more WAL for the slot. Pure.
//!
//! In: what the server says of the slot, every few seconds. Out: the state that people see, and the steps, each later than the
//! one before: told, copies paused, stopped tables let go, the slot given up. The last two only where they are configured: they cost a
//! table, or everything, a new copy.

use crate::admin::GuardState;
use crate::config::settings::GuardSettings;
use crate::postgres::slot::{Slot, WalStatus};

/// Shares of `max_slot_wal_keep_size`, as far as the server says what is left of it.
const WARN_SHARE: f64 = 0.5;
const PAUSE_SHARE: f64 = 0.75;
/// A pause ends when less than so much of what began it is retained.
const RESUME: f64 = 0.8;

pub(super) struct Guard {
    settings: GuardSettings,
    state: GuardState,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Steps {
    /// The state is another one than before.
    pub(super) changed: bool,
    pub(super) release_stopped: bool,
    /// The limit that was passed.
    pub(super) give_up: Option<u64>,
}

impl Guard {
    pub(super) fn new(settings: GuardSettings) -> Guard {
        Guard { settings, state: GuardState::Ok }
    }

    pub(super) fn state(&self) -> GuardState {
        self.state
    }

    /// Is it our lag that keeps the WAL? Else it is a write transaction that was begun long ago, and no pause helps.
    pub(super) fn lags(slot: &Slot) -> bool {
        slot.lag_bytes.is_none_or(|lag| lag >= slot.retained_bytes.unwrap_or(0) / 2)
    }

    pub(super) fn judge(&mut self, slot: &Slot) -> Steps {
        let retained = slot.retained_bytes.unwrap_or(0);
        let share = slot.safe_wal_size.map_or(0.0, |left| {
            let left = left.max(0) as f64;
            retained as f64 / (retained as f64 + left).max(1.0)
        });
        let beyond = |bytes: u64, limit_share: f64, factor: f64| {
            retained as f64 >= bytes as f64 * factor || share >= limit_share * factor
        };
        let ease = if self.state == GuardState::CopyPaused { RESUME } else { 1.0 };
        let in_danger = slot.wal_status == Some(WalStatus::Unreserved);
        let lags = Self::lags(slot);
        let state = match () {
            () if lags && (in_danger || beyond(self.settings.pause_copy_bytes, PAUSE_SHARE, ease)) => {
                GuardState::CopyPaused
            }
            () if in_danger || beyond(self.settings.warn_bytes, WARN_SHARE, 1.0) => GuardState::Warned,
            () => GuardState::Ok,
        };
        let changed = state != self.state;
        self.state = state;
        let reached = |limit: Option<u64>| limit.filter(|limit| retained >= *limit);
        Steps {
            changed,
            release_stopped: reached(self.settings.release_stopped_bytes).is_some(),
            give_up: reached(self.settings.give_up_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn guard() -> Guard {
        Guard::new(GuardSettings {
            warn_bytes: 10 * GIB,
            pause_copy_bytes: 20 * GIB,
            release_stopped_bytes: Some(30 * GIB),
            give_up_bytes: Some(40 * GIB),
        })
    }

    fn slot(retained: u64, left: Option<u64>) -> Slot {
        let safe_wal_size = left.map(|left| i64::try_from(left).expect("small"));
        Slot { retained_bytes: Some(retained), safe_wal_size, ..Slot::default() }
    }

    #[test]
    fn each_step_comes_at_its_size_and_a_pause_ends_well_below() {
        let mut guard = guard();
        let mut at = |gib: u64| {
            let steps = guard.judge(&slot(gib * GIB, None));
            (guard.state(), steps.changed, steps.release_stopped, steps.give_up.is_some())
        };
        assert_eq!(at(9), (GuardState::Ok, false, false, false));
        assert_eq!(at(10), (GuardState::Warned, true, false, false));
        assert_eq!(at(19), (GuardState::Warned, false, false, false));
        assert_eq!(at(20), (GuardState::CopyPaused, true, false, false));
        assert_eq!(at(17), (GuardState::CopyPaused, false, false, false));
        assert_eq!(at(15), (GuardState::Warned, true, false, false));
        assert_eq!(at(17), (GuardState::Warned, false, false, false));
        assert_eq!(at(30), (GuardState::CopyPaused, true, true, false));
        assert_eq!(at(40), (GuardState::CopyPaused, false, true, true));
        assert_eq!(at(0), (GuardState::Ok, true, false, false));
    }

    #[test]
    fn a_limit_at_the_server_counts_by_its_share() {
        let mut guard = guard();
        guard.judge(&slot(GIB, Some(GIB)));
        assert_eq!(guard.state(), GuardState::Warned, "half of it");
        guard.judge(&slot(3 * GIB, Some(GIB)));
        assert_eq!(guard.state(), GuardState::CopyPaused, "three quarters");
        guard.judge(&slot(GIB, Some(9 * GIB)));
        assert_eq!(guard.state(), GuardState::Ok);
        guard.judge(&Slot { wal_status: Some(WalStatus::Unreserved), ..slot(0, None) });
        assert_eq!(guard.state(), GuardState::CopyPaused);
        // Kept by somebody's old transaction.
        guard.judge(&Slot { lag_bytes: Some(GIB), ..slot(25 * GIB, None) });
        assert_eq!(guard.state(), GuardState::Warned);
        // A lost slot has no sizes; the gate speaks of it.
        guard.judge(&Slot { wal_status: Some(WalStatus::Lost), ..Slot::default() });
        assert_eq!(guard.state(), GuardState::Ok);
    }
}
