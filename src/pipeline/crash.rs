//! Places at which a test can have the process killed, as if the power went: `WALVEC_CRASH_AT=acknowledged:3` kills it
//! with SIGKILL when it is at that place for the third time. Nothing of this exists in a release build.

/// The process may die here.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn point(_name: &str) {}

/// The process may die here.
#[cfg(debug_assertions)]
pub(super) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("WALVEC_CRASH_AT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .expect("a process may kill itself");
    }
}
