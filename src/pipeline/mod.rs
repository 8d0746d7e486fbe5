//! The pipeline: the shell around the engine, and the only place where PostgreSQL, Milvus and the checkpoint meet.
//!
//! ```text
//! run ─ startup::begin ─ session::run ─┬─ stopped: the end
//!        ▲   gate, slot, collections    └─ source lost ─┐
//!        └──────────────── backoff ─────────────────────┘        one recovery path
//! ```
//!
//! In a session: `session` feeds the engine and carries out its effects; `requests` and `truncate` talk to Milvus until
//! there is an outcome; `copying` reads chunks; `source_watch` asks PostgreSQL what is flushed; `letters` sets rows aside that Milvus will not take; `resync` copies a table again; `keyed` and `encode`
//! turn rows into keys and columns; `report` tells people.
//!
//! Holds: Milvus acknowledged → checkpoint flushed → LSN confirmed (`session`).

mod catalog;
mod clock;
mod collections;
mod copying;
mod crash;
pub mod encode;
mod evolve;
mod fetching;
mod guard;
mod held;
mod indexes;
mod keyed;
mod letters;
mod pace;
mod report;
mod requests;
mod resync;
mod session;
mod source_watch;
mod startup;
mod truncate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::admin::{State, Status};
use crate::checkpoint::{Identity, Saved, SavedSource, SlotIntent, Store, StoreError, TableState};
use crate::commands::Command;
use crate::config::settings::SourceSettings;
use crate::config::{self, Settings, TargetSettings, Transport};
use crate::letters::Letters;
use crate::metrics::Metrics;
use crate::milvus::{Class, GrpcClient, Milvus, MilvusError, MilvusOptions, RestClient, Token};
use crate::plan::{Plan, PlanRefusal};
use crate::postgres::gate::GateRefusal;
use crate::postgres::{Disposition, PostgresError};

pub(crate) use catalog::{Catalog, describe, read_tables, wanted};
use clock::{Backoff, Clock};
pub use collections::CollectionError;
pub use requests::FatalRequest;
pub(crate) use startup::make_plan;

/// How often a standby looks whether the state is free.
const STANDBY_INTERVAL: Duration = Duration::from_millis(500);

/// What the parts of a session share.
struct Context {
    settings: Arc<Settings>,
    plan: Arc<Plan>,
    target: Arc<requests::Target>,
    store: Store,
    letters: Arc<Letters>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Context {
    /// How long a request may still be applied after it was sent, in milliseconds.
    fn quiet_millis(&self) -> u64 {
        quiet_millis(&self.settings.target)
    }
}

/// Limits as configured; every plan of Zilliz Cloud has the same quota of deletes.
fn pace_of(target: &TargetSettings) -> pace::Pace {
    let deletes = target.max_delete.or_else(|| target.is_zilliz_cloud().then(|| config::Plan::Serverless.delete()));
    pace::Pace::new(target.max_write, deletes)
}

fn quiet_millis(target: &TargetSettings) -> u64 {
    (target.request_deadline + target.late_margin).as_millis() as u64
}

/// What lives as long as the process, and what the last session left.
struct Process {
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    store: Store,
    letters: Arc<Letters>,
    clock: Clock,
    milvus: Arc<dyn Milvus>,
    trouble: watch::Sender<Option<requests::Trouble>>,
    pace: Arc<pace::Pace>,
    source: Option<SavedSource>,
    intent: Option<SlotIntent>,
    tables: BTreeMap<String, TableState>,
    noticed: evolve::Noticed,
    unfit: evolve::Unfit,
    quiet_until: u64,
}

/// New settings that are no good: said, and the daemon goes on with those of before.
fn not_carried_out(status: &watch::Sender<Status>, error: &RunError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the new configuration cannot be carried out, the one of before goes on"
    );
    report::note_error(status, error);
}

impl Process {
    /// Other settings for the next session. What was sent under the old ones keeps the time it has to land.
    fn adopt(&mut self, settings: Arc<Settings>) -> Result<(), RunError> {
        self.milvus = connect_target(&settings.target).map_err(RunError::TargetSettings)?;
        self.pace = Arc::new(pace_of(&settings.target));
        self.metrics.memory_budget_bytes.set(i64::try_from(settings.pipeline.memory_bytes).unwrap_or(i64::MAX));
        self.status.send_modify(|status| status.target.url.clone_from(&settings.target.url));
        self.settings = settings;
        Ok(())
    }

    /// No slot is there that we may have made.
    async fn forget_intent(&mut self) -> Result<(), StoreError> {
        self.store.forget_intent().await?;
        self.intent = None;
        Ok(())
    }

    fn state(&self, state: State) {
        self.status.send_modify(|status| status.state = state);
    }
}

/// Why the daemon ended. `Display` is about itself; causes are its sources.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the source cannot be read")]
    Source(#[from] PostgresError),
    #[error(
        "the source is a standby: walvec reads from the primary, because values that the stream leaves out are fetched there"
    )]
    Standby,
    #[error("wal_level is {found:?}: run `ALTER SYSTEM SET wal_level = logical` and restart PostgreSQL")]
    WalLevel { found: String },
    #[error(
        "synchronous_standby_names ({names:?}) makes the source wait for walvec, which would wait for the source: take walvec's application_name out of it"
    )]
    SynchronousStandby { names: String },
    #[error("table {name} does not exist or may not be seen by this role")]
    NoSuchTable { name: String },
    #[error("no table matches the configuration")]
    NoTables,
    #[error(
        "the slot {slot:?} does not exist and `source.create` is false: set it to true for the first start, so that walvec knows where its slot begins"
    )]
    NoSlot { slot: String },
    #[error(
        "table {table} was copied to collection {before:?}, the configuration now says {now:?}: set it back, or start with an empty state and a new slot"
    )]
    CollectionChanged { table: String, before: String, now: String },
    #[error(
        "table {table} was copied with the row filter {before}, now it has {now}: rows that the new one takes in were never copied, rows that it leaves out are still in the collection. Set it back, or bring the collection in line with `walvec resync {table}`"
    )]
    FilterChanged { table: String, before: String, now: String },
    #[error(
        "the entities of table {table} have their keys from ({before}), the configuration now says ({now}): set it back, or have the collection made anew with `walvec resync {table}`"
    )]
    KeyChanged { table: String, before: String, now: String },
    #[error(
        "table {table} is no longer in the publication {publication:?}: what happened to it since it was taken out was not sent. Take it out of the configuration, or start with an empty state and a new slot"
    )]
    LeftPublication { table: String, publication: String },
    #[error("{}", refusals(.0))]
    Plan(Vec<PlanRefusal>),
    #[error("the start gate refuses: {0}. {way_out}", way_out = .0.way_out())]
    Gate(GateRefusal),
    #[error(
        "PostgreSQL kept {} MiB of WAL for the slot {slot:?}, and `guard.give_up_bytes` is {} MiB: {outcome}", retained >> 20, limit >> 20
    )]
    SlotGivenUp { slot: String, retained: u64, limit: u64, outcome: String },
    #[error("the target cannot be reached")]
    TargetUnreachable(#[source] MilvusError),
    #[error("the target settings cannot be used")]
    TargetSettings(#[source] MilvusError),
    #[error(transparent)]
    Collection(#[from] CollectionError),
    #[error(transparent)]
    Target(Box<FatalRequest>),
    #[error("the state directory cannot be used")]
    State(#[from] StoreError),
}

fn refusals(refusals: &[PlanRefusal]) -> String {
    let each: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    format!("the configuration cannot be carried out:\n  {}", each.join("\n  "))
}

impl RunError {
    /// May the same thing work a little later?
    pub fn is_transient(&self) -> bool {
        match self {
            RunError::Source(error) => error.disposition() == Disposition::Transient,
            RunError::TargetUnreachable(error) => matches!(error.class(), Class::Retry | Class::Throttle),
            RunError::Collection(error) => error.is_transient(),
            RunError::Standby
            | RunError::WalLevel { .. }
            | RunError::SynchronousStandby { .. }
            | RunError::NoSuchTable { .. }
            | RunError::NoTables
            | RunError::NoSlot { .. }
            | RunError::CollectionChanged { .. }
            | RunError::FilterChanged { .. }
            | RunError::KeyChanged { .. }
            | RunError::LeftPublication { .. }
            | RunError::Plan(_)
            | RunError::Gate(_)
            | RunError::SlotGivenUp { .. }
            | RunError::TargetSettings(_)
            | RunError::Target(_)
            | RunError::State(_) => false,
        }
    }
}

/// What the state of a daemon with this source is about.
pub fn identity(source: &SourceSettings) -> Identity {
    Identity { slot: source.slot.clone(), publication: source.publication.clone(), database: source.database.clone() }
}

/// The client that the settings ask for. Connects when it is first used.
///
/// Errors are of the settings: nothing is sent yet. Must be called within a tokio runtime.
pub fn connect_target(settings: &TargetSettings) -> Result<Arc<dyn Milvus>, MilvusError> {
    let options = MilvusOptions {
        url: settings.url.clone(),
        token: settings.token.as_ref().map(|token| Token::new(token.expose())),
        database: settings.database.clone(),
        ca: settings.ca.clone(),
        client_cert: settings.client_cert.clone(),
        client_key: settings.client_key.clone(),
        server_name: settings.server_name.clone(),
        connect_timeout: settings.connect_timeout,
        request_deadline: settings.request_deadline,
    };
    Ok(match settings.transport {
        Transport::Grpc => Arc::new(GrpcClient::connect_lazy(&options)?),
        Transport::Rest => Arc::new(RestClient::new(&options)?),
    })
}

/// Copy, follow, reconnect, until `stop` turns true or a person must act. New settings in `reloads` hold from the next
/// session on, which they begin; where they cannot be carried out, the ones of before go on.
pub async fn run(
    mut reloads: watch::Receiver<Arc<Settings>>,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
    (letters, mut commands): (Arc<Letters>, mpsc::Receiver<Command>),
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let settings = Arc::clone(&reloads.borrow_and_update());
    let pace = Arc::new(pace_of(&settings.target));
    let clock = Clock::start();
    let identity = identity(&settings.source);
    let Some((store, saved)) = open_state(&settings, &identity, &status, &mut stop).await? else { return Ok(()) };
    let milvus = connect_target(&settings.target).map_err(RunError::TargetSettings)?;
    let quiet_until = match (&saved.source, saved.clean_stop) {
        (Some(_), false) => clock.now() + quiet_millis(&settings.target),
        _ => 0,
    };
    letters.load(saved.letters);
    let mut process = Process {
        settings,
        metrics,
        status,
        store,
        letters,
        clock,
        milvus,
        trouble: watch::Sender::new(None),
        pace,
        source: saved.source,
        intent: saved.intent,
        tables: saved.tables,
        noticed: evolve::Noticed::new(),
        unfit: evolve::Unfit::new(),
        quiet_until,
    };
    let ended = run_sessions(&mut process, &mut reloads, &mut commands, &mut stop).await;
    process.state(State::Stopped);
    let closed = process.store.close().await;
    ended?;
    Ok(closed?)
}

/// Open the state; while another daemon holds it, stand by to take over when that one ends. `None`: told to stop.
async fn open_state(
    settings: &Settings,
    identity: &Identity,
    status: &watch::Sender<Status>,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<(Store, Saved)>, RunError> {
    let mut told = false;
    loop {
        match Store::open(&settings.state.path, identity) {
            Err(held @ StoreError::Held { .. }) => {
                status.send_modify(|status| status.state = State::StandingBy);
                if !told {
                    told = true;
                    tracing::info!(reason = %held, "standing by");
                }
            }
            opened => return Ok(Some(opened?)),
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(STANDBY_INTERVAL) => {}
        }
    }
}

/// Where the session ended because the slot keeps too much: drop it, now that nobody reads it.
async fn give_up_slot(process: &Process, ended: Result<session::Ended, RunError>) -> Result<session::Ended, RunError> {
    let Err(RunError::SlotGivenUp { slot, retained, limit, .. }) = ended else { return ended };
    let source = &process.settings.source;
    let dropping = async {
        let sql = crate::postgres::connect(source, "slot").await?;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match crate::postgres::slot::drop_slot(&sql, &slot).await {
                // Our own connection is not gone yet.
                Err(error) if error.sqlstate() == Some("55006") => tokio::time::sleep(backoff.next()).await,
                dropped => return dropped,
            }
        }
    };
    let outcome = match tokio::time::timeout(Duration::from_secs(60), dropping).await {
        Ok(Ok(())) => "it was dropped to save the source's disk, and everything is to be copied anew".to_owned(),
        Ok(Err(error)) => format!("it could not be dropped ({error}): do it by hand"),
        Err(_) => "it could not be dropped, as somebody reads it: do it by hand".to_owned(),
    };
    Err(RunError::SlotGivenUp { slot, retained, limit, outcome })
}

async fn run_sessions(
    process: &mut Process,
    reloads: &mut watch::Receiver<Arc<Settings>>,
    commands: &mut mpsc::Receiver<Command>,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), RunError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    // The settings to go back to.
    let mut before: Option<Arc<Settings>> = None;
    loop {
        if reloads.has_changed().unwrap_or(false) {
            let settings = Arc::clone(&reloads.borrow_and_update());
            let old = Arc::clone(&process.settings);
            match process.adopt(settings) {
                Ok(()) => before = before.or(Some(old)),
                Err(error) => not_carried_out(&process.status, &error),
            }
        }
        process.state(State::Connecting);
        let begun = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            begun = startup::begin(process) => begun,
        };
        let (context, begin) = match begun {
            Ok(begun) => begun,
            Err(error) if error.is_transient() => {
                let wait = backoff.next();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    milliseconds = wait.as_millis() as u64,
                    "cannot start, trying again"
                );
                report::note_error(&process.status, &error);
                if let RunError::TargetUnreachable(error)
                | RunError::Collection(CollectionError::Milvus { error, .. }) = &error
                {
                    process.status.send_modify(|status| status.target.last_error = Some(error.to_string()));
                }
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                    () = tokio::time::sleep(wait) => continue,
                }
            }
            Err(error) => match before.take() {
                Some(old) => {
                    not_carried_out(&process.status, &error);
                    process.adopt(old)?;
                    continue;
                }
                None => return Err(error),
            },
        };
        before = None;
        backoff.reset();
        let mut reporter = report::Reporter::new(process.status.clone(), process.trouble.subscribe());
        let plan = Arc::clone(&context.plan);
        let session = session::Session::new(context, begin);
        let ended = session.run(stop.clone(), reloads, commands, &mut reporter).await;
        match give_up_slot(process, ended).await? {
            session::Ended::Stopped => return Ok(()),
            session::Ended::Lost { error, kept } => {
                report::note_error(&process.status, &error);
                if error.disposition() == Disposition::Definite {
                    return Err(RunError::Source(error));
                }
                process.metrics.reconnects.inc();
                let wait = match error {
                    // It waits for us to go, and would only wait again.
                    PostgresError::ServerDraining => Duration::from_secs(5),
                    _ => backoff.next(),
                };
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    milliseconds = wait.as_millis() as u64,
                    "the source was lost, starting again at the checkpoint"
                );
                if let Some(source) = &mut process.source {
                    source.checkpoint = kept.checkpoint;
                    source.sent_limit = kept.sent_limit;
                }
                for (table, state) in kept.tables {
                    process.tables.insert(plan.table(table).qualified_name(), state);
                }
                if let Some((table, reason)) = kept.unfit {
                    process.unfit.insert(plan.table(table).qualified_name(), reason);
                }
                for (table, columns) in kept.noticed {
                    process.noticed.entry(plan.table(table).qualified_name()).or_default().extend(columns);
                }
                process.quiet_until = process.quiet_until.max(kept.quiet_until);
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}
