//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value, and panics with `what` when `deadline` has passed. For what no event tells.
pub async fn until<T>(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
