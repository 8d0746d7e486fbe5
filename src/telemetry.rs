//! Logs: text for people or JSON for machines, to stderr. Row values and secrets are in none of them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, LogSettings};

/// The logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.filter {filter:?} is not a filter; write for example \"info,walvec::pipeline=debug\"")]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging was set up twice")]
    Twice(#[from] TryInitError),
}

/// Begin to log. `RUST_LOG`, where it is set, goes before `log.filter`.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| settings.filter.clone());
    // The library logs the end of its task as an error by itself; we say the same when we handle it.
    let quiet = format!("pgwire_replication=off,{filter}");
    let filter = match EnvFilter::try_new(&quiet) {
        Ok(parsed) => parsed,
        Err(source) => return Err(TelemetryError::Filter { filter, source }),
    };
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(SystemTime);
    match settings.format {
        LogFormat::Text => builder.with_ansi(ansi).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
