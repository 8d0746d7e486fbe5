//! The HTTP server for people and monitors. It listens on the loopback unless told otherwise; reading needs no log-in,
//! changing something needs a token (`token`).
//!
//! In: the status that the pipeline publishes, the metrics. Out:
//!
//! ```text
//! /          a page for people            /livez     200 while the process answers at all
//! /status    JSON (`Status`)              /readyz    200 when every table follows, else 503 and why
//! /metrics   Prometheus's text format        /dead-letters   rows that Milvus will not take
//! /resync    copy a table again (`wishes`)
//! ```
//!
//! Holds: an answer never waits for the pipeline, but that of a wish; ages (lag, uptime) are computed when asked for. No
//! secrets, and no row values but those that the configuration lets dead letters keep.
//!
//! Not here: what the states mean, and carrying out what is wished for (`pipeline`).

mod page;
pub mod status;
#[cfg(test)]
mod tests;
mod token;
mod wishes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::commands::Commands;
use crate::letters::Letters;
use crate::metrics::Metrics;

pub use page::bytes_for_people;
pub use status::{
    GuardState, IndexStatus, LastError, Phase, SourceStatus, State, Status, TableStatus, TargetState, TargetStatus,
};
pub use token::Token;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot listen on {listen}; is another walvec running? admin.listen gives another address, or \"off\"")]
    Listen {
        listen: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the admin server failed")]
    Serve(#[source] std::io::Error),
}

/// Bound to its address, not yet serving.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// Take the address, so that a taken one is known before anything else is done.
pub async fn bind(listen: SocketAddr) -> Result<Admin, AdminError> {
    let failed = |source| AdminError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Admin { listener, address })
}

impl Admin {
    /// The address in use; the port is the one found when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answer until `shutdown` is there.
    pub async fn serve(
        self,
        status: watch::Receiver<Status>,
        metrics: Arc<Metrics>,
        letters: Arc<Letters>,
        (commands, token): (Commands, Token),
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), AdminError> {
        let router = Router::new()
            .route("/", get(page))
            .route("/status", get(status_json))
            .route("/metrics", get(metrics_text))
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/dead-letters", get(wishes::list))
            .route("/dead-letters/retry", post(wishes::retry))
            .route("/dead-letters/discard", post(wishes::discard))
            .route("/resync", post(wishes::resync))
            .with_state(View { status, metrics, letters, commands, token });
        axum::serve(self.listener, router).with_graceful_shutdown(shutdown).await.map_err(AdminError::Serve)
    }
}

#[derive(Clone)]
struct View {
    status: watch::Receiver<Status>,
    metrics: Arc<Metrics>,
    letters: Arc<Letters>,
    commands: Commands,
    token: Token,
}

impl View {
    /// The published status with its ages as of now.
    fn now(&self) -> Status {
        let now = Instant::now();
        let mut status = self.status.borrow().clone();
        status.uptime_seconds = self.metrics.uptime_seconds(now);
        status.source.lag_bytes = Some(self.metrics.lag.bytes());
        status.source.lag_seconds = Some(self.metrics.lag.seconds(now));
        status
    }
}

/// What is shown is of this moment.
const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

async fn status_json(Shared(view): Shared<View>) -> impl IntoResponse {
    match serde_json::to_string_pretty(&view.now()) {
        Ok(json) => ([NO_STORE, (header::CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn metrics_text(Shared(view): Shared<View>) -> impl IntoResponse {
    match view.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(Shared(view): Shared<View>) -> impl IntoResponse {
    match view.status.borrow().ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn page(Shared(view): Shared<View>) -> impl IntoResponse {
    // Nothing on the page may load or run anything, whatever a table is called.
    const POLICY: (HeaderName, &str) =
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    ([NO_STORE, POLICY, (header::CONTENT_TYPE, "text/html; charset=utf-8")], page::render(&view.now()))
}
