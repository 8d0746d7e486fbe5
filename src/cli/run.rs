//! `walvec run`: the daemon.
//!
//! Start-up as a list: configuration, log, panic hook, metrics, signals, admin address, pipeline. Everything after the
//! log is set up is said through it.
//!
//! SIGHUP reads the configuration again. Holds: SIGTERM and SIGINT ask the pipeline to drain; a second one ends the process at once, which costs a replay
//! and nothing else. A panic anywhere aborts the process: half a daemon is worse than none, and a start recovers.

use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{self, Status};
use crate::commands::Commands;
use crate::config::{self, Loaded, Settings};
use crate::letters::Letters;
use crate::metrics::Metrics;
use crate::pipeline::{self, RunError};
use crate::postgres::Disposition;
use crate::telemetry;

use super::{Exit, Failure, Global};

/// Copy the tables, then follow them, until told to stop
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(Args {}: Args, global: &Global) -> Result<Exit, Failure> {
    // Before anything else: until somebody listens for it, SIGHUP ends the process.
    let hangups = signal(SignalKind::hangup()).map_err(|error| Failure::new(Exit::Temporary, error))?;
    let path = global.path()?;
    let Loaded { settings, warnings } = global.load()?;
    telemetry::init(&settings.log).map_err(|error| Failure::new(Exit::Configuration, error))?;
    std::panic::set_hook(Box::new(panicked));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "starting");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let metrics = Arc::new(Metrics::new().map_err(|error| Failure::new(Exit::Configuration, error))?);
    metrics.memory_budget_bytes.set(i64::try_from(settings.pipeline.memory_bytes).unwrap_or(i64::MAX));
    let (source, target) = (&settings.source, &settings.target);
    let (status, _) = watch::channel(Status::starting(&source.slot, &source.publication, &target.url));
    let (stop, stopping) = watch::channel(false);
    listen_to_signals(stop)?;
    let (reload, reloads) = watch::channel(Arc::new(settings.clone()));
    listen_to_reloads(hangups, path, reload);
    let letters = Arc::new(Letters::default());
    let (asking, commands) = Commands::channel();
    let admin = serve_admin(&settings, &status, &metrics, (&letters, asking)).await?;
    let ended = Box::pin(pipeline::run(reloads, metrics, status, (letters, commands), stopping)).await;
    if let Some((shut_down, served)) = admin {
        drop(shut_down);
        // Answers that are being written are finished; a client that holds its connection open does not hold us.
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), served).await);
    }
    ended.map_err(failure)?;
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// The end of a daemon, with whose it is to mend and how.
pub(super) fn failure(error: RunError) -> Failure {
    let way_out = match &error {
        RunError::Source(error) => error.hint(),
        RunError::TargetUnreachable(error) | RunError::TargetSettings(error) => error.hint().map(str::to_owned),
        _ => None,
    };
    Failure::new(exit(&error), error).with_way_out(way_out)
}

pub(super) fn exit(error: &RunError) -> Exit {
    match error {
        RunError::Source(error) if error.disposition() == Disposition::Transient => Exit::Temporary,
        RunError::Source(_)
        | RunError::Standby
        | RunError::WalLevel { .. }
        | RunError::SynchronousStandby { .. }
        | RunError::NoSlot { .. }
        | RunError::SlotGivenUp { .. }
        | RunError::Gate(_) => Exit::Source,
        RunError::NoSuchTable { .. } | RunError::NoTables | RunError::Plan(_) => Exit::Tables,
        RunError::LeftPublication { .. } | RunError::FilterChanged { .. } => Exit::Source,
        RunError::TargetSettings(_) | RunError::CollectionChanged { .. } | RunError::KeyChanged { .. } => {
            Exit::Configuration
        }
        RunError::TargetUnreachable(_) if error.is_transient() => Exit::Temporary,
        RunError::TargetUnreachable(_) | RunError::Collection(_) | RunError::Target(_) => Exit::Target,
        RunError::State(_) => Exit::State,
    }
}

/// The address first, so that a taken one ends the start. `None`: turned off.
async fn serve_admin(
    settings: &Settings,
    status: &watch::Sender<Status>,
    metrics: &Arc<Metrics>,
    (letters, asking): (&Arc<Letters>, Commands),
) -> Result<Option<(watch::Sender<()>, tokio::task::JoinHandle<()>)>, Failure> {
    let Some(listen) = settings.admin.listen else { return Ok(None) };
    let admin = admin::bind(listen).await.map_err(|error| Failure::new(Exit::Configuration, error))?;
    tracing::info!(address = %admin.address(), "admin server listens");
    let (shut_down, mut shutting_down) = watch::channel(());
    let path = &settings.state.path;
    let token = admin::Token::of_state(path).map_err(|source| {
        Failure::new(Exit::State, NoToken { path: admin::Token::path(path), source })
            .with_way_out(Some("let this user write to state.path".to_owned()))
    })?;
    let (status, metrics, letters) = (status.subscribe(), Arc::clone(metrics), Arc::clone(letters));
    let served = tokio::spawn(async move {
        // The sender never sends: its going away is the signal.
        let shutdown = async move { while shutting_down.changed().await.is_ok() {} };
        if let Err(error) = admin.serve(status, metrics, letters, (asking, token), shutdown).await {
            // Replication does not depend on it.
            tracing::error!(error = &error as &dyn std::error::Error, "admin server ended");
        }
    });
    Ok(Some((shut_down, served)))
}

#[derive(Debug, thiserror::Error)]
#[error("the token for commands to the daemon cannot be kept in {path:?}")]
struct NoToken {
    path: std::path::PathBuf,
    #[source]
    source: std::io::Error,
}

fn listen_to_signals(stop: watch::Sender<bool>) -> Result<(), Failure> {
    let failed = |error| Failure::new(Exit::Temporary, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        for last in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if last {
                tracing::warn!(signal = name, "ending at once; the rest is replayed at the next start");
                std::process::abort();
            }
            tracing::info!(signal = name, "draining; the same signal again ends at once");
            stop.send_replace(true);
        }
    });
    Ok(())
}

/// SIGHUP: read the configuration again. One that is no good changes nothing.
fn listen_to_reloads(mut hangups: Signal, path: PathBuf, reload: watch::Sender<Arc<Settings>>) {
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let file = path.clone();
            // Secrets may come from commands that take their time.
            let loaded = match tokio::task::spawn_blocking(move || config::load(&file)).await {
                Ok(loaded) => loaded,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            match loaded {
                Ok(Loaded { settings, warnings }) => {
                    for warning in warnings {
                        tracing::warn!("{warning}");
                    }
                    let fixed = fixed(&reload.borrow(), &settings);
                    if fixed.is_empty() {
                        tracing::info!(config = %path.display(), "configuration read again");
                        reload.send_replace(Arc::new(settings));
                    } else {
                        let keys = fixed.join(", ");
                        tracing::error!(keys, "these need a restart: the configuration of before goes on");
                    }
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the configuration cannot be read: the one of before goes on"
                ),
            }
        }
    });
}

/// What a running daemon cannot change.
fn fixed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differs = [
        ("source.slot", old.source.slot != new.source.slot),
        ("source.publication", old.source.publication != new.source.publication),
        ("source.database", old.source.database != new.source.database),
        ("state.path", old.state.path != new.state.path),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("log", format!("{:?}", old.log) != format!("{:?}", new.log)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(place, thread, %backtrace, "this is a bug in walvec, please report it: {message}");
    std::process::abort();
}
