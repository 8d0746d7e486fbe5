//! One session with the source: from a started stream to its loss or an orderly stop.
//!
//! The only place where stream, copy, engine, Milvus and checkpoint meet. One task, one `select!`; it feeds the engine
//! with what arrives and carries out the effects that come back, and decides nothing about order itself.
//!
//! Holds, in this order and nowhere else:
//!
//! ```text
//! Milvus acknowledged (answered) ─► checkpoint flushed (write_checkpoint) ─► LSN confirmed (Written::Checkpoint)
//! ```
//!
//! Swap the first two and rows are lost; swap the last two and the start gate cannot tell our progress from somebody
//! else's. A lost stream ends the session; `pipeline::run` starts the next one at the checkpoint (R).
//!
//! What is written to disk and what may follow is in `durable`, the end in `ending`. More of what it does stands where its
//! news come from: chunks in `copying`, positions and the slot in `source_watch`,
//! dead letters in `letters`, new copies in `resync`.

mod durable;
mod ending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::change::{Event, Lsn, TableId, Value};
use crate::checkpoint::{LeafState, StoreError, TableState};
use crate::commands::{Command, Wish};
use crate::config::Settings;
use crate::config::settings::{OnAddColumn, OnSchemaChange, OnStop};
use crate::engine::{Effect, Engine, FetchId, FetchRequest};
use crate::metrics::TablePhase;
use crate::mutation::Refusal;
use crate::postgres::fetch::{Fetched, Fetcher};
use crate::postgres::{self, PostgresError};

use super::clock::Backoff;
use super::copying::{Copy, CopyNews};
use super::guard::Guard;
use super::keyed::keyed;
use super::requests::{Answer, FatalRequest};
use super::source_watch::News;
use super::{Context, RunError, fetching};
pub(super) use durable::Written;
pub(super) use ending::Ended;

/// Payload bytes that one read of the stream takes at most.
const BATCH_BYTES: usize = 1 << 20;
/// Status and gauges are refreshed this often.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// What a chunk of keys to be swept is expected to hold.
pub(super) const SWEEP_BYTES: usize = 64 << 10;

/// What a fetch came to.
type FetchResult = (FetchId, Result<(Fetched, FetchRequest), PostgresError>, Option<Fetcher>);

pub(super) struct Session {
    pub(super) context: Arc<Context>,
    pub(super) engine: Engine,
    pub(super) stream: postgres::stream::Stream,
    pub(super) tables: BTreeMap<TableId, TableState>,
    pub(super) checkpoint: Lsn,
    pub(super) confirmed: Lsn,
    pub(super) server_lsn: Lsn,
    pub(super) slot: Option<postgres::slot::Slot>,
    pub(super) guard: Guard,
    /// As last told, see [`postgres::slot::Slot`].
    pub(super) absent_standbys: Option<String>,
    /// The oldest heartbeat that progress has not passed, and when it was written.
    pub(super) heartbeat: Option<(Lsn, std::time::Instant)>,
    pub(super) blocked_by: BTreeMap<TableId, String>,
    pub(super) copy: Copy,
    /// How far Milvus has built the indexes.
    pub(super) indexes: watch::Receiver<super::indexes::Indexes>,
    backlog: VecDeque<Event>,
    batch: Vec<Event>,
    requests: JoinSet<Result<Answer, FatalRequest>>,
    truncates: JoinSet<Result<TableId, FatalRequest>>,
    fetches: JoinSet<FetchResult>,
    fetchers: Vec<Fetcher>,
    /// How long the next fetch waits, after one that failed.
    fetch_backoff: Backoff,
    fetch_delay: Duration,
    /// New chunk lists of leaves that were rewritten; may wait for a server that is away.
    pub(super) replans: JoinSet<(TableId, LeafState)>,
    /// In the order in which they were asked for, which is the store's: what `written` does must not overtake.
    writes: FuturesOrdered<BoxFuture<'static, Result<Written, StoreError>>>,
    writing_checkpoint: bool,
    checkpoint_at: u64,
    copy_news: mpsc::Receiver<CopyNews>,
    source_news: mpsc::Receiver<News>,
    flush_wanted: watch::Sender<Lsn>,
    pub(super) fences: mpsc::Sender<()>,
    /// The position for which a fence was asked last, and whether a table may still wait for one.
    pub(super) fenced: Lsn,
    pub(super) awaits_horizon: bool,
    /// Tables whose sweep is over, until progress has passed what it has seen.
    pub(super) swept: Vec<TableId>,
    /// Tables of which a new copy was asked for: nothing of the old one may be written behind that.
    pub(super) asked_anew: BTreeSet<TableId>,
    /// Readers and watchers: they end with the session.
    pub(super) helpers: JoinSet<()>,
    pub(super) copy_say: mpsc::Sender<CopyNews>,
    stopping: Option<u64>,
    /// A table changed, and start-up has to deal with it: the session ends.
    pub(super) changed: Option<String>,
    noticed: Vec<(TableId, Vec<String>)>,
    unfit: Option<(TableId, String)>,
}

/// What a session starts from.
pub(super) struct Begin {
    pub(super) engine: Engine,
    pub(super) stream: postgres::stream::Stream,
    pub(super) tables: BTreeMap<TableId, TableState>,
    pub(super) stopped: Vec<super::startup::Stopped>,
    pub(super) checkpoint: Lsn,
    pub(super) server_lsn: Lsn,
    /// As the server showed it when the stream had begun.
    pub(super) slot: Option<postgres::slot::Slot>,
    pub(super) flush_probe: postgres::probe::Probe,
    pub(super) monitor_probe: postgres::probe::Probe,
    /// The snapshot of tables whose rows are numbered, where any is left to copy.
    pub(super) held: Option<postgres::copy::HeldSnapshot>,
    /// What the catalog and the publication said; another answer ends the session.
    pub(super) shape: super::source_watch::Shape,
}

impl Session {
    pub(super) fn new(context: Arc<Context>, begin: Begin) -> Session {
        let (copy_say, copy_news) = mpsc::channel(8);
        let (source_say, source_news) = mpsc::channel(16);
        let (flush_wanted, flush_seen) = watch::channel(Lsn::ZERO);
        let (fences, fence_asked) = mpsc::channel(1);
        let source = &context.settings.source;
        let mut helpers = JoinSet::new();
        helpers.spawn(super::source_watch::watch_flush(
            source.clone(),
            begin.flush_probe,
            flush_seen,
            source_say.clone(),
        ));
        let (probe, shape) = (begin.monitor_probe, begin.shape);
        helpers.spawn(super::source_watch::monitor(source.clone(), probe, shape, fence_asked, source_say));
        let (indexes_say, indexes) = watch::channel(super::indexes::Indexes::new());
        let milvus = Arc::clone(&context.target.milvus);
        let (plan, metrics) = (Arc::clone(&context.plan), Arc::clone(&context.metrics));
        helpers.spawn(super::indexes::watch(milvus, plan, metrics, indexes_say));
        let mut copy = Copy::new();
        let is_auto = |table: TableId| context.plan.table(table).key.is_auto();
        for (table, state) in &begin.tables {
            if !state.copied && state.let_go.is_none() {
                copy.add_table(*table, state, is_auto(*table));
            }
        }
        if begin.tables.iter().any(|(table, state)| !state.copied && !is_auto(*table)) {
            for _ in 0..context.settings.pipeline.copy_readers {
                let plan = Arc::clone(&context.plan);
                helpers.spawn(super::copying::read_chunks(source.clone(), plan, copy_say.clone()));
            }
        }
        if let Some(held) = begin.held {
            helpers.spawn(super::held::read(held, Arc::clone(&context.plan), copy_say.clone()));
        }
        let mut engine = begin.engine;
        for super::startup::Stopped { table, reason, let_go } in begin.stopped {
            match let_go {
                true => engine.leave_out(table, reason),
                false => engine.stop_table(table, reason),
            }
        }
        Session {
            engine,
            stream: begin.stream,
            tables: begin.tables,
            checkpoint: begin.checkpoint,
            confirmed: begin.checkpoint,
            server_lsn: begin.server_lsn,
            slot: begin.slot,
            guard: Guard::new(context.settings.guard),
            absent_standbys: None,
            heartbeat: None,
            blocked_by: BTreeMap::new(),
            copy,
            indexes,
            backlog: VecDeque::new(),
            batch: Vec::new(),
            requests: JoinSet::new(),
            truncates: JoinSet::new(),
            fetches: JoinSet::new(),
            fetchers: Vec::new(),
            fetch_backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(5)),
            fetch_delay: Duration::ZERO,
            replans: JoinSet::new(),
            writes: FuturesOrdered::new(),
            writing_checkpoint: false,
            checkpoint_at: 0,
            copy_news,
            source_news,
            flush_wanted,
            fences,
            fenced: Lsn::ZERO,
            awaits_horizon: true,
            swept: Vec::new(),
            asked_anew: BTreeSet::new(),
            helpers,
            copy_say,
            stopping: None,
            changed: None,
            noticed: Vec::new(),
            unfit: None,
            context,
        }
    }

    /// Run until the source is lost, a stop was asked for and carried out, or a person must act.
    pub(super) async fn run(
        mut self,
        mut stop: watch::Receiver<bool>,
        reloads: &mut watch::Receiver<Arc<Settings>>,
        commands: &mut mpsc::Receiver<Command>,
        report: &mut super::report::Reporter,
    ) -> Result<Ended, RunError> {
        self.guard_slot()?; // before a chunk is opened
        for table in self.tables.keys().copied().collect::<Vec<_>>() {
            self.finish_copy_if_over(table);
        }
        let mut next_report = tokio::time::interval(REPORT_INTERVAL);
        next_report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.engine.advance(self.context.clock.now());
            self.feed();
            if let Some(what) = self.changed.take() {
                return self.lose(PostgresError::ShapeChanged { what }).await;
            }
            self.open_chunks();
            self.carry_out_effects();
            self.finish_sweeps();
            self.write_checkpoint(false);
            self.ask_for_fence();
            self.note_heartbeat();
            if let Some(deadline) = self.stopping
                && (self.may_stop() || self.context.clock.now() >= deadline)
            {
                return self.finish_stop().await;
            }
            if self.may_feed() {
                continue;
            }
            let wants_stream = self.backlog.is_empty() && self.takes_events();
            let wake = self.next_wake();
            // 1. a person wants us to stop   2. our own writes are durable   3. Milvus answered   4. a table is empty
            // 5. PostgreSQL answered a fetch 6. copy readers, and leaves that were rewritten   7. positions and the slot
            // 8. time, and what people ask for   9. the stream last: everything that makes room comes before what needs it.
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop), if self.stopping.is_none() => self.begin_stop(),
                Some(written) = self.writes.next() => self.written(written?),
                Some(answer) = self.requests.join_next() => self.answered(finished(answer))?,
                Some(emptied) = self.truncates.join_next() => match finished(emptied) {
                    Ok(table) => self.engine.truncated(table),
                    Err(fatal) => self.stop_table_or_run(fatal)?,
                },
                Some(fetch) = self.fetches.join_next() => self.fetched(finished(fetch)),
                Some(news) = self.copy_news.recv() => self.heard_from_copy(news),
                Some(replanned) = self.replans.join_next() => {
                    let (table, leaf) = finished(replanned);
                    self.replace_leaf(table, leaf);
                }
                Some(news) = self.source_news.recv() => {
                    if let Err(error) = self.heard_from_source(news)? {
                        return self.lose(error).await;
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                Ok(()) = reloads.changed(), if self.stopping.is_none() => {
                    // Not marked as seen: the next session takes them.
                    reloads.mark_changed();
                    self.changed = Some("the configuration was read again".to_owned());
                }
                Some(command) = commands.recv(), if self.stopping.is_none() => self.command(command),
                _ = next_report.tick() => report.refresh(&self),
                read = self.stream.next_batch(&mut self.batch, BATCH_BYTES), if wants_stream => match read {
                    Ok(()) => self.backlog.extend(self.batch.drain(..)),
                    Err(error) => return self.lose(error).await,
                },
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ the stream

    /// May the engine be given another event? While stopping only up to the end of the transaction.
    fn takes_events(&self) -> bool {
        self.engine.wants_stream() && (self.stopping.is_none() || !self.engine.at_boundary())
    }

    fn may_feed(&self) -> bool {
        !self.backlog.is_empty() && self.takes_events()
    }

    /// Give the engine all that was read, before it is asked what to do: what arrived together leaves together.
    fn feed(&mut self) {
        while self.may_feed() {
            let Some(event) = self.backlog.pop_front() else { return };
            self.feed_event(event);
            if self.changed.is_some() {
                return; // nothing behind it is for this session
            }
            // A chunk waits for a commit boundary, and a busy stream has few moments between two events.
            if self.engine.at_boundary() {
                self.open_chunks();
            }
        }
    }

    fn feed_event(&mut self, event: Event) {
        let metrics = &self.context.metrics;
        match event {
            Event::Begin { final_lsn, xid, commit_micros } => {
                metrics.lag.begin(commit_micros);
                self.engine.begin(final_lsn, xid);
            }
            Event::Change { table, lsn, change } => match keyed(self.context.plan.table(table), lsn, change) {
                Ok(Some(change)) => self.engine.change(table, change),
                Ok(None) => self.context.target.collections[table.0 as usize].metrics.ignored.inc(),
                Err(reason) => self.engine.stop_table(table, reason),
            },
            Event::Truncate { tables } => self.engine.truncate(&tables),
            Event::Unfit { table, reason } => match self.context.plan.table(table).on_schema_change {
                OnSchemaChange::Stop => self.engine.stop_table(table, reason),
                OnSchemaChange::Resync => {
                    self.changed = Some(reason.clone());
                    self.unfit = Some((table, reason));
                }
            },
            Event::NewColumns { table, columns } => self.new_columns(table, columns),
            Event::Commit { end_lsn } => {
                metrics.lag.commit(end_lsn);
                self.engine.commit(end_lsn);
            }
            Event::KeepAlive { wal_end, server_micros } => {
                metrics.lag.server_clock(server_micros, std::time::Instant::now());
                metrics.lag.keepalive(wal_end);
                self.engine.keepalive(wal_end);
            }
            Event::Message { .. } => {} // its commit is what it was sent for
        }
    }

    fn new_columns(&mut self, table: TableId, columns: Vec<String>) {
        let (name, names) = (self.name(table), columns.join(", "));
        match self.context.plan.table(table).on_add_column {
            OnAddColumn::Ignore => {
                tracing::warn!(table = %name, columns = %names, "columns are new and not followed: `on_add_column` says what happens to them");
            }
            OnAddColumn::Stop => {
                let reason = format!("columns {names} are new, and `on_add_column = \"stop\"`");
                self.engine.stop_table(table, reason);
            }
            OnAddColumn::Add | OnAddColumn::Dynamic => {
                self.changed = Some(format!("columns {names} of {name} are new"));
                self.noticed.push((table, columns));
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- the effects

    fn carry_out_effects(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::RaiseSentLimit(lsn) => {
                    let store = self.context.store.clone();
                    self.push_write(async move {
                        store.raise_sent_limit(lsn).await?;
                        Ok(Written::SentLimit(lsn))
                    });
                }
                Effect::Send(request) => {
                    let target = Arc::clone(&self.context.target);
                    self.requests.spawn(async move { target.carry_out(request).await });
                }
                Effect::Fetch(fetch) => self.start_fetch(fetch),
                Effect::WaitFlushed(lsn) => {
                    self.flush_wanted.send_if_modified(|wanted| {
                        *wanted = lsn.max(*wanted);
                        true
                    });
                }
                Effect::Truncate(table) => {
                    super::crash::point("barrier");
                    let target = Arc::clone(&self.context.target);
                    self.truncates.spawn(async move { target.empty(table).await.map(|()| table) });
                }
                Effect::ChunkDone { chunk, .. } => self.chunk_done(chunk),
                Effect::ChunkAbandoned { chunk, table, overflow } => {
                    if self.copy.sweep_done(chunk, false) {
                        continue;
                    }
                    if let Some(mut work) = self.copy.take(chunk)
                        && self.engine.table(table).stopped.is_none()
                    {
                        if overflow {
                            tracing::info!(table = %self.name(table), "the stream touches too many keys of a chunk: it is read again, and the stream waits for it");
                        }
                        work.hold |= overflow;
                        self.copy.again(work);
                    }
                }
                Effect::KeepLetter(id, dead) => self.keep_letter(id, *dead),
                Effect::ClearLetters { letter, table, key } => self.clear_letters(Some(letter), table, key),
                Effect::TableStopped { table, key, refusal } => {
                    self.copy.forget(table, None);
                    self.context.target.collections[table.0 as usize].metrics.phase(TablePhase::Stopped);
                    let key = key.map(|key| key.to_string());
                    match self.context.plan.table(table).on_stop {
                        OnStop::Hold => {
                            tracing::error!(table = %self.name(table), key, %refusal, "table stopped: mend the row or the mapping and restart, or \
                                `walvec resync` it; until then its changes are kept in the WAL of the slot");
                        }
                        OnStop::Release => {
                            tracing::error!(table = %self.name(table), key, %refusal, "table stopped: mend the row or the mapping, and `walvec resync` it");
                            self.let_go(table);
                        }
                    }
                }
            }
        }
    }

    fn answered(&mut self, answer: Result<Answer, FatalRequest>) -> Result<(), RunError> {
        match answer {
            Ok(answer) => {
                for (key, refusal) in &answer.refused {
                    tracing::warn!(table = %self.name(answer.table), %key, %refusal, "row refused");
                }
                super::crash::point("sent");
                self.engine.advance(self.context.clock.now());
                self.engine.answered(answer.request, answer.refused, answer.may_land_until);
                super::crash::point("acknowledged");
                self.context.metrics.lag.progress(self.engine.progress(), std::time::Instant::now());
                Ok(())
            }
            Err(fatal) => self.stop_table_or_run(fatal),
        }
    }

    /// A collection that is gone or changed stops its table; a target that does not let us in stops the daemon.
    fn stop_table_or_run(&mut self, fatal: FatalRequest) -> Result<(), RunError> {
        if !fatal.concerns_one_collection() {
            return Err(RunError::Target(Box::new(fatal)));
        }
        let reason = format!("{fatal}: {}", fatal.error);
        self.engine.stop_table(fatal.table, reason.clone());
        if let Some(request) = fatal.request {
            let refused = fatal
                .keys
                .into_iter()
                .map(|key| (key, Refusal { field: None, reason: reason.clone(), dead_letter: false }));
            self.engine.answered(request, refused.collect(), fatal.may_land_until);
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------------------- the fetches

    fn start_fetch(&mut self, request: FetchRequest) {
        let context = Arc::clone(&self.context);
        let (fetcher, delay) = (self.fetchers.pop(), self.fetch_delay);
        self.fetches.spawn(async move {
            tokio::time::sleep(delay).await;
            let id = request.id;
            let mut fetcher = fetcher;
            let result = fetching::fetch(&context, &mut fetcher, &request).await;
            let fetcher = if result.is_ok() { fetcher } else { None };
            (id, result.map(|fetched| (fetched, request)), fetcher)
        });
    }

    fn fetched(&mut self, (id, result, fetcher): FetchResult) {
        self.fetchers.extend(fetcher);
        self.engine.advance(self.context.clock.now());
        match result {
            Ok((fetched, request)) => {
                self.fetch_backoff.reset();
                self.fetch_delay = Duration::ZERO;
                let collection = &self.context.target.collections[request.table.0 as usize];
                collection.metrics.fetched.inc_by(fetched.rows.len() as u64);
                let columns: Vec<usize> = fetching::columns_of(request.columns).collect();
                let rows = fetched
                    .rows
                    .into_iter()
                    .filter_map(|(index, values)| {
                        let (key, _) = request.rows.get(index)?;
                        Some((key.clone(), columns.iter().copied().zip(values).collect::<Vec<(usize, Value)>>()))
                    })
                    .collect();
                self.engine.fetched(id, &fetched.snapshot, fetched.insert_lsn, rows);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "columns could not be fetched, trying again");
                self.fetch_delay = self.fetch_backoff.next();
                self.engine.discard_unflushed();
                self.engine.fetch_failed(id);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------ people

    /// What a person asked for.
    fn command(&mut self, Command { wish, which, answer }: Command) {
        let taken = match wish {
            Wish::Retry => self.retry_letters(&which),
            Wish::Discard => self.discard_letters(&which),
            Wish::Resync => return self.resync(&which, answer),
        };
        // An asker that went away needs no answer.
        answer.send(taken).unwrap_or_default();
    }

    pub(super) fn name(&self, table: TableId) -> String {
        self.context.plan.table(table).qualified_name()
    }

    /// When the engine, the checkpoint or the end of the grace period needs attention.
    fn next_wake(&self) -> std::time::Instant {
        let clock = &self.context.clock;
        let mut wake = clock.now() + 3_600_000;
        if let Some(deadline) = self.engine.next_deadline() {
            wake = wake.min(deadline);
        }
        if self.engine.progress() > self.checkpoint && !self.writing_checkpoint {
            wake = wake.min(self.checkpoint_at);
        }
        if let Some(deadline) = self.stopping {
            wake = wake.min(deadline);
        }
        clock.instant(wake)
    }
}

/// A task that panicked has broken an invariant of ours: so do we.
fn finished<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    match joined {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
