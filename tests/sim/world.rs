//! One run: source, target, disk and daemon together, and the choice of what happens next.
//!
//! Every step takes one of the actions that are possible now, by chance. Each run weighs the kinds of actions anew, so
//! that some runs starve the target, some the disk, some the copy. Faults are counted; when they are used up the run
//! must come to rest, or it has found a deadlock.

use std::fmt::Write as _;

use crate::change::Lsn;
use crate::engine::{EngineSettings, Flaw};

use super::daemon::Daemon;
use super::disk::{ChunkList, Disk, Stored};
use super::rng::Rng;
use super::script::{Faults, KEYS, RANGES, Scenario, TABLES};
use super::source::Source;
use super::target::{Codec, Target};

/// Deadline and margin of a request, in the run's milliseconds.
pub(super) const LANDS_WITHIN: u64 = 100;

/// An entity of before, which no row is like.
const OLD: super::target::Entity = [u16::MAX; 4];

/// A run that takes longer has stopped making progress.
const STEPS_MAX: usize = 6000;

/// What the shell may do wrong on purpose; the engine's own switches are `Flaw`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShellFlaw {
    /// The slot is told what is written and not flushed.
    ConfirmBeforeFlush,
    /// A new file node and the cleared flags are two batches.
    FlagsOutliveFileNode,
    /// Snapshot first, LOCK TABLE after it, and the file node from `pg_class`.
    SnapshotBeforeLock,
    /// A chunk is marked when its rows are handed to the engine.
    MarkChunkWhenRead,
    /// After a lost stream, progress goes on from what had been received.
    ReconnectKeepsProgress,
    /// After a lost stream, the quiet time of an unclean start is forgotten.
    ReconnectForgetsQuietStart,
    /// After a lost stream, requests in flight are not waited for.
    ReconnectWithoutDrain,
    /// What the server sends below the checkpoint is not thrown away.
    StartBelowCheckpoint,
    /// The start gate looks at the checkpoint and not at T.
    GateIgnoresSentLimit,
    /// T is said to be on disk before it is.
    SentLimitNotFlushed,
    /// Rows read over a connection that was lost are kept.
    KeepUnflushedRows,
    /// The mark of a clean stop stays when the next process starts.
    CleanMarkStays,
    /// A clean stop sets T back to the checkpoint, though fetches may have shown the future.
    CleanStopLowersSentLimit,
    /// Attempts without an answer are forgotten when a repeat succeeds.
    ForgetLateAttempts,
    /// A TRUNCATE is over though one of its steps may still land.
    TruncateNotSettled,
    /// A swept table is called copied when its last chunk is done, though the stream is behind what that has seen.
    SweptBeforeHorizon,
    /// A table is let go before that is on disk.
    LetGoNotWritten,
    /// A table that was let go is copied again without looking for entities whose row is gone.
    LetGoNotSwept,
    /// N is where the WAL is, not what of it is flushed.
    SkipUnflushed,
    /// T is not raised to N.
    SkipWithoutSentLimit,
    /// A new collection is made while requests to the old one may still land.
    RemadeBeforeLate,
    /// Chunks are read without the publication's row filter.
    ChunkWithoutFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    Engine(Flaw),
    Shell(ShellFlaw),
}

/// Everything that can happen next. Numbers are places in the lists of `World`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Begin(usize),
    Queue,
    Commit,
    Visible(usize),
    FlushWal,
    OtherWal,
    ApplyMutation { request: usize, waiting: usize },
    Answer(usize),
    Truncate(usize),
    TruncateAnswer(usize),
    LandLate(usize),
    DiskFlush,
    DiskFlushOne,
    PollEffect,
    StreamEvent,
    KeepAlive,
    OpenChunk { table: usize, range: usize },
    AdvanceChunk(usize),
    CopyFinished(usize),
    ReadFetch(usize),
    AnswerFetch(usize),
    TellFlushed,
    TellSentLimit(usize),
    TellLetter(usize),
    RetryLetter { table: usize, key: usize },
    WriteCheckpoint,
    Confirm,
    NoticeSqlLost,
    NoticeStreamLost,
    Reconnect,
    Start,
    HealAndRestart,
    LetGo(usize),
    Resync(usize),
    Remake(usize),
    Time,
    LoseAnswer(usize),
    LoseTruncateAnswer(usize),
    Cut,
    Kill,
    CleanStop,
    ServerCrash,
    Failover,
    Unfit(usize),
    Heal,
}

impl Action {
    /// Kinds that are weighed together.
    fn kind(&self) -> usize {
        match self {
            Action::Begin(_) => 0,
            Action::Queue | Action::Commit => 1,
            Action::Visible(_) => 2,
            Action::FlushWal | Action::OtherWal => 3,
            Action::ApplyMutation { .. } | Action::Truncate(_) => 4,
            Action::Answer(_) | Action::TruncateAnswer(_) => 5,
            Action::LandLate(_) => 6,
            Action::DiskFlush | Action::DiskFlushOne => 7,
            Action::PollEffect => 8,
            Action::StreamEvent => 9,
            Action::KeepAlive => 10,
            Action::OpenChunk { .. } => 11,
            Action::AdvanceChunk(_) | Action::CopyFinished(_) => 12,
            Action::ReadFetch(_) | Action::AnswerFetch(_) | Action::RetryLetter { .. } => 13,
            Action::TellFlushed | Action::TellSentLimit(_) | Action::TellLetter(_) => 14,
            Action::WriteCheckpoint | Action::Confirm => 15,
            Action::NoticeSqlLost => 16,
            Action::NoticeStreamLost | Action::Reconnect | Action::Start | Action::HealAndRestart => 17,
            Action::LetGo(_) | Action::Resync(_) | Action::Remake(_) => 17,
            Action::Time => 18,
            Action::LoseAnswer(_) | Action::LoseTruncateAnswer(_) => 19,
            Action::Cut | Action::Kill | Action::CleanStop => 20,
            Action::ServerCrash | Action::Failover | Action::Unfit(_) | Action::Heal => 21,
        }
    }
}

const KINDS: usize = 22;
const FIRST_FAULT: usize = 19;
const FLUSH_WAL: usize = 3;
const LATE: usize = 6;
const TIME: usize = 18;

/// How a run ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// At rest, the target equals the source.
    Converged,
    /// The start gate asked for a resync instead of guessing.
    Refused,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) sabotage: Sabotage,
    pub(super) settings: EngineSettings,
    pub(super) codec: Codec,
    pub(super) tables: usize,
    /// Refused rows become dead letters.
    pub(super) dead_letters: bool,
    pub(super) faults: Faults,
    /// Records in the WAL that are none of ours: after a crash they take the place of what was lost.
    other_wal: u32,
    /// Transactions without changes are sent as an empty Begin and Commit (PostgreSQL 14) instead of left out.
    pub(super) sends_empty_transactions: bool,
    pub(super) now: u64,
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) disk: Disk,
    pub(super) daemon: Option<Daemon>,
    pub(super) refused: bool,
    weights: [u32; KINDS],
    /// Chunks, shares of requests and transactions, by place, that are slow for a while.
    slow: u32,
    actions: Vec<Action>,
    /// No fault before this step: a crash is most telling when something is under way.
    faults_from: usize,
    steps: usize,
    trace: Option<String>,
}

/// One line of the trace, if there is one.
macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.is_traced() {
            $world.note(format!($($text)*));
        }
    };
}
pub(super) use note;

impl World {
    pub(super) fn new(scenario: &Scenario, mut rng: Rng, sabotage: Sabotage, traced: bool) -> World {
        let settings = EngineSettings {
            lanes: 1 + rng.below(3),
            request_rows_max: rng.pick(&[1, 2, 3, 100]),
            request_bytes_max: rng.pick(&[1, 300, 1 << 20]),
            touched_bytes_max: rng.pick(&[1, 64, 150, 1 << 20, 1 << 20]),
            memory_bytes: rng.pick(&[1, 400, 1000, 1 << 20, 1 << 20]),
            fetch_retry_ms: 5,
        };
        let first_xid = rng.pick(&[1000, (1 << 32) - 2, (1 << 32) - 5, (7 << 32) - 3, 1 << 33]);
        let codec = Codec { salt: rng.below(1000) as i64, wide: scenario.wide };
        let source = Source::new(scenario, first_xid);
        let mut target = Target::default();
        if !scenario.copying {
            for (collection, rows) in target.collections.iter_mut().zip(source.initial()) {
                *collection = rows.map(|row| row.map(|row| row.values));
            }
        } else if scenario.sweeps {
            for collection in target.collections.iter_mut().take(scenario.tables) {
                *collection = std::array::from_fn(|_| Some(OLD));
            }
        }
        let faults_from = rng.pick(&[0, 0, 10, 20, 30, 40, 60]);
        let chunks = ChunkList { file_node: 1, done: [!scenario.copying; RANGES] };
        let stored = Stored {
            checkpoint: source.consistent_point,
            sent_limit: source.consistent_point,
            clean: true,
            timeline: 1,
            chunks: [chunks; TABLES],
            swept: [!(scenario.copying && scenario.sweeps); TABLES],
            let_go: [false; TABLES],
            skip: [Lsn::ZERO; TABLES],
            remaking: [false; TABLES],
            letters: [[false; KEYS]; TABLES],
        };
        World {
            sabotage,
            settings,
            codec,
            tables: scenario.tables,
            dead_letters: scenario.dead_letters,
            faults: scenario.faults.thinned(&mut rng),
            other_wal: rng.pick(&[0, 0, 2, 8]),
            now: 0,
            source,
            target,
            disk: Disk::new(stored),
            daemon: None,
            sends_empty_transactions: rng.percent(50),
            rng,
            refused: false,
            weights: [1; KINDS],
            slow: 0,
            actions: Vec::new(),
            faults_from,
            steps: 0,
            trace: traced.then(String::new),
        }
    }

    /// From the start to rest, checking everything after every step.
    pub(super) fn run(&mut self) -> Result<Outcome, String> {
        let mut rests = 0;
        for step in 0..STEPS_MAX {
            self.steps = step;
            if self.refused {
                return Ok(Outcome::Refused);
            }
            if self.is_at_rest() {
                self.check_converged()?;
                // What was acknowledged must also survive.
                if rests == 2 || self.faults.kills == 0 || self.rng.percent(50) {
                    return Ok(Outcome::Converged);
                }
                rests += 1;
                self.faults.kills -= 1;
                note!(self, "{step:4} at rest; once more after a kill");
                self.kill();
                continue;
            }
            if step == 0 || self.rng.percent(3) {
                self.weigh();
            }
            let Some(action) = self.choose() else {
                return Err("deadlock: nothing can happen, and nothing is at rest".into());
            };
            note!(self, "{step:4} {action:?}");
            self.step(action)?;
            self.check()?;
        }
        Err(format!("no rest after {STEPS_MAX} steps"))
    }

    /// For a while, some kinds of actions are rare and some are the rule.
    fn weigh(&mut self) {
        for (kind, weight) in self.weights.iter_mut().enumerate() {
            *weight = if kind < FIRST_FAULT { self.rng.pick(&[1, 8, 8, 32, 64]) } else { self.rng.pick(&[1, 2, 4]) };
        }
        // Time and late arrivals only matter when they come seldom.
        self.weights[TIME] = self.rng.pick(&[1, 2, 8]);
        self.weights[LATE] = self.rng.pick(&[1, 2, 8]);
        self.weights[FLUSH_WAL] = self.rng.pick(&[1, 4, 16]);
        self.slow = self.rng.next() as u32;
    }

    fn weight(&self, action: &Action) -> u32 {
        if action.kind() >= FIRST_FAULT && self.steps < self.faults_from {
            return 0;
        }
        let weight = self.weights[action.kind()] * 8;
        let place = match action {
            Action::AdvanceChunk(place) => *place,
            Action::ApplyMutation { request, waiting } => 8 + request + waiting,
            Action::Visible(place) => 16 + *place,
            // A dead replication connection may be noticed long after the SQL connections were made anew.
            Action::NoticeStreamLost if self.slow >> 31 == 1 => return 1,
            // A crash is most telling when SQL has seen what it takes back.
            Action::ServerCrash if self.source.shows_unflushed() => return weight * 16,
            _ => return weight,
        };
        if self.slow >> (place % 31) & 1 == 1 { weight / 8 } else { weight }
    }

    fn choose(&mut self) -> Option<Action> {
        let mut actions = std::mem::take(&mut self.actions);
        actions.clear();
        self.enabled(&mut actions);
        let total: u32 = actions.iter().map(|action| self.weight(action)).sum();
        let mut chosen = None;
        if total > 0 {
            let mut ticket = self.rng.below(total as usize) as u32;
            for action in &actions {
                let weight = self.weight(action);
                if ticket < weight {
                    chosen = Some(*action);
                    break;
                }
                ticket -= weight;
            }
        }
        self.actions = actions;
        chosen
    }

    fn enabled(&self, actions: &mut Vec<Action>) {
        self.enabled_at_source(actions);
        self.enabled_at_target(actions);
        if self.disk.has_unflushed() {
            actions.extend([Action::DiskFlush, Action::DiskFlushOne]);
        }
        if self.time_limit() > self.now && self.waits_for_time() {
            actions.push(Action::Time);
        }
        match &self.daemon {
            None => actions.push(Action::Start),
            Some(daemon) => self.enabled_in_daemon(daemon, actions),
        }
    }

    fn enabled_at_source(&self, actions: &mut Vec<Action>) {
        actions.extend(self.source.may_begin().map(Action::Begin));
        if self.source.may_commit(self.read_locked()) {
            actions.push(Action::Commit);
        }
        if self.source.may_queue() {
            actions.push(Action::Queue);
        }
        let invisible = self.source.committed.iter().enumerate().filter(|(_, transaction)| !transaction.visible);
        actions.extend(invisible.map(|(index, _)| Action::Visible(index)));
        if self.source.flushed_lsn < self.source.insert_lsn {
            actions.push(Action::FlushWal);
        }
        if self.other_wal > 0 {
            actions.push(Action::OtherWal);
        }
        if self.faults.server_crashes > 0 {
            actions.push(Action::ServerCrash);
        }
        if self.faults.failovers > 0 {
            actions.push(Action::Failover);
        }
        if self.dead_letters && self.faults.heals > 0 && !self.target.healed {
            actions.push(Action::Heal);
        }
    }

    fn step(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Begin(index) => {
                let xid = self.source.begin(index);
                note!(self, "       transaction {index} is {xid}");
            }
            Action::Queue => self.source.queue(),
            Action::Commit => {
                self.source.commit();
                let transaction = &self.source.committed[self.source.committed.len() - 1];
                let text = format!(
                    "       xid {} committed at {} .. {}: {:?}",
                    transaction.xid,
                    transaction.final_lsn.0,
                    transaction.end_lsn.0,
                    transaction.events.iter().map(|(event, _)| event).collect::<Vec<_>>()
                );
                note!(self, "{text}");
            }
            Action::Visible(index) => self.source.committed[index].visible = true,
            Action::FlushWal => self.flush_wal(),
            Action::OtherWal => {
                self.other_wal -= 1;
                self.source.insert_lsn.0 += 100;
            }
            Action::ApplyMutation { request, waiting } => self.apply_mutation(request, waiting),
            Action::Answer(request) => self.answer(request),
            Action::Truncate(job) => self.truncate(job),
            Action::TruncateAnswer(job) => self.truncate_answer(job),
            Action::LandLate(late) => self.land_late(late),
            Action::DiskFlush => self.disk.flush(),
            Action::DiskFlushOne => self.disk.flush_one(),
            Action::PollEffect => self.poll_effect()?,
            Action::StreamEvent => self.stream_event(),
            Action::KeepAlive => self.keepalive(),
            Action::OpenChunk { table, range } => self.open_chunk(table, range),
            Action::AdvanceChunk(job) => self.advance_chunk(job),
            Action::CopyFinished(table) => self.copy_finished(table),
            Action::ReadFetch(job) => self.read_fetch(job),
            Action::AnswerFetch(job) => self.answer_fetch(job),
            Action::TellFlushed => self.tell_flushed(),
            Action::TellSentLimit(place) => self.tell_sent_limit(place),
            Action::TellLetter(place) => self.tell_letter(place),
            Action::RetryLetter { table, key } => self.retry_letter(table, key),
            Action::WriteCheckpoint => self.write_checkpoint(),
            Action::Confirm => self.confirm(),
            Action::NoticeSqlLost => self.notice_sql_lost(),
            Action::NoticeStreamLost => self.lose_stream(),
            Action::Reconnect => self.reconnect()?,
            Action::Start => self.start()?,
            Action::HealAndRestart => {
                self.target.healed = true;
                self.kill();
            }
            Action::LetGo(table) => self.let_go(table),
            Action::Resync(table) => self.resync(table),
            Action::Remake(table) => {
                self.faults.remakes -= 1;
                self.daemon().remake[table] = true;
                self.lose_stream();
            }
            Action::Time => self.pass_time(),
            Action::LoseAnswer(request) => self.lose_answer(request),
            Action::LoseTruncateAnswer(job) => self.lose_truncate_answer(job),
            Action::Cut => {
                self.faults.cuts -= 1;
                self.lose_stream();
            }
            Action::Kill => {
                self.faults.kills -= 1;
                self.kill();
            }
            Action::CleanStop => self.clean_stop(),
            Action::ServerCrash => self.server_crash(),
            Action::Failover => self.failover(),
            Action::Unfit(table) => self.unfit(table),
            Action::Heal => {
                self.faults.heals -= 1;
                self.target.healed = true;
            }
        }
        Ok(())
    }

    /// Up to some commit, or up to the end.
    fn flush_wal(&mut self) {
        let flushed = self.source.flushed_lsn;
        let mut ends: Vec<_> = self.source.committed.iter().map(|t| t.end_lsn).filter(|&end| end > flushed).collect();
        ends.push(self.source.insert_lsn);
        self.source.flushed_lsn = self.rng.pick(&ends);
    }

    fn server_crash(&mut self) {
        self.faults.server_crashes -= 1;
        self.source.lose_after(self.source.flushed_lsn);
        self.forget_confirmations();
        note!(self, "       the WAL ends at {}", self.source.insert_lsn.0);
    }

    /// The slot's position is saved now and then only.
    fn forget_confirmations(&mut self) {
        let (first, last) = (self.source.consistent_point, self.source.confirmed_flush);
        let mut places = vec![first.min(last), last];
        places.extend(self.source.committed.iter().map(|t| t.end_lsn).filter(|&end| end > first && end < last));
        self.source.confirmed_flush = self.rng.pick(&places);
    }

    fn failover(&mut self) {
        self.faults.failovers -= 1;
        let mut ends = vec![self.source.consistent_point, self.source.insert_lsn];
        ends.extend(self.source.committed.iter().map(|t| t.end_lsn).filter(|&end| end > self.source.consistent_point));
        // Mostly a point that the gate may let pass.
        let stored = self.disk.latest();
        let needed = if self.rng.percent(50) { stored.sent_limit } else { stored.checkpoint };
        let likely: Vec<_> = ends.iter().copied().filter(|&end| end >= needed).collect();
        let end = if likely.is_empty() || self.rng.percent(15) { self.rng.pick(&ends) } else { self.rng.pick(&likely) };
        self.source.lose_after(end);
        self.source.confirmed_flush = self.source.confirmed_flush.min(end);
        self.forget_confirmations();
        self.source.timeline += 1;
        self.source.switchpoint = end;
        note!(self, "       the new timeline begins at {}", end.0);
    }

    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn has_flaw(&self, flaw: ShellFlaw) -> bool {
        self.sabotage == Sabotage::Shell(flaw)
    }

    // ----------------------------------------------------------------------------------------------- the trace

    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    pub(super) fn note(&mut self, line: String) {
        if let Some(trace) = &mut self.trace {
            trace.push_str(&line);
            trace.push('\n');
        }
    }

    /// What happened, and how things stand now.
    pub(super) fn report(&self) -> String {
        let mut text = self.trace.clone().unwrap_or_default();
        for table in 0..self.tables {
            for key in 0..KEYS {
                let source = self.source.current()[table][key];
                let target = self.target.collections[table][key];
                if source.is_some() || target.is_some() {
                    let source = source.map(|row| (row.values, row.published));
                    writeln!(text, "     table {table} key {key}: source {source:?} target {target:?}")
                        .expect("a String");
                }
            }
        }
        writeln!(
            text,
            "     WAL {} flushed {}, slot {}, disk {:?}",
            self.source.insert_lsn.0, self.source.flushed_lsn.0, self.source.confirmed_flush.0, self.disk.durable
        )
        .expect("a String");
        writeln!(text, "     now {} late {:?}", self.now, self.target.late).expect("a String");
        match &self.daemon {
            Some(daemon) => daemon.describe(&mut text, self.tables),
            None => text.push_str("     no daemon\n"),
        }
        text
    }
}
