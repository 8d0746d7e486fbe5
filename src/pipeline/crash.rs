//! Places at which a test can have the process killed, as if the power went: `WALVEC_CRASH_AT=acknowledged:3` kills it
//! with SIGKILL when it is at that place for the third time. `WALVEC_STOP_AT` stops it there with SIGSTOP, so that something can
//! happen to its surroundings in exactly that state. Nothing of this exists in a release build.

/// The process may die here.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn point(_name: &str) {}

/// The process may die here.
#[cfg(debug_assertions)]
pub(super) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static WANTED: OnceLock<Option<(Signal, String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    let wanted = WANTED.get_or_init(|| {
        let at = |variable: &str, signal| Some((signal, std::env::var(variable).ok()?));
        let (signal, text) = at("WALVEC_CRASH_AT", Signal::KILL).or_else(|| at("WALVEC_STOP_AT", Signal::STOP))?;
        let (name, count) = text.split_once(':')?;
        Some((signal, name.to_owned(), count.parse().ok()?))
    });
    if let Some((signal, wanted, count)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        kill_process(getpid(), *signal).expect("a process may signal itself");
    }
}
