//! The admin server: `/metrics`, `/status`, `/livez`, `/readyz`, and a page for people at `/`.
//!
//! In: the status as the pipeline last said it, the metrics. Out: HTTP. Nothing here changes anything: there are no
//! calls that do. It listens on the loopback address unless told otherwise, and sends no CORS headers.

mod page;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

pub use status::{LastError, Phase, Source, State, Status, TableStatus, Target};

/// The admin server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("the admin server cannot listen on {listen}: set admin.listen to a free address, or to \"off\"")]
    Listen {
        listen: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the admin server ended")]
    Serve(#[source] std::io::Error),
}

/// A bound address, not yet served.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// Bind the address; port 0 takes a free one.
pub async fn bind(listen: SocketAddr) -> Result<Admin, AdminError> {
    let failed = |source| AdminError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Admin { listener, address })
}

#[derive(Clone)]
struct Served {
    status: watch::Receiver<Status>,
    metrics: Arc<Metrics>,
    started: Instant,
}

impl Served {
    /// The status with what only the moment of asking knows.
    fn now(&self) -> Status {
        let mut status = self.status.borrow().clone();
        status.uptime_seconds = self.started.elapsed().as_secs();
        status.source.lag_bytes = self.metrics.lag.bytes();
        status.source.lag_seconds = self.metrics.lag.seconds(Instant::now());
        status
    }
}

impl Admin {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serve until `shutdown`.
    pub async fn serve(
        self,
        status: watch::Receiver<Status>,
        metrics: Arc<Metrics>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), AdminError> {
        let served = Served { status, metrics, started: Instant::now() };
        let router = Router::new()
            .route("/", get(async |Shared(served): Shared<Served>| html(page::render(&served.now()))))
            .route("/metrics", get(metrics_text))
            .route("/status", get(async |Shared(served): Shared<Served>| json(&served.now())))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .with_state(served);
        axum::serve(self.listener, router).with_graceful_shutdown(shutdown).await.map_err(AdminError::Serve)
    }
}

async fn metrics_text(Shared(served): Shared<Served>) -> Response {
    match served.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// 200 when every table follows; else 503 and what is missing.
async fn readyz(Shared(served): Shared<Served>) -> Response {
    let status = served.now();
    match status.not_ready() {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

fn json(status: &Status) -> Response {
    match serde_json::to_string_pretty(status) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn html(page: String) -> Response {
    // The page has no script and loads nothing.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)], page)
        .into_response()
}
