//! The simulated shell: what `pipeline` does around the engine, one step at a time. Here its life (start, stop, lost
//! stream, kill), the stream and the checkpoint; `copy` and `requests` have the rest.

use std::fmt::Write as _;

use crate::change::{Lsn, Row, TableId, Value};
use crate::engine::{ChunkId, Effect, Engine, KeyedChange, LetterId, Start, TableStart};

use super::copy::{ChunkJob, FetchJob};
use super::disk::Put;
use super::requests::{RequestJob, TruncateJob};
use super::script::{KEYS, RANGES, TABLES};
use super::source::{Event, SourceRow};
use super::target::Late;
use super::world::{Action, LANDS_WITHIN, Sabotage, ShellFlaw, World, note};

pub(super) struct Stream {
    pub(super) generation: u32,
    /// The transaction that is sent, and how many of its events were.
    pub(super) next: usize,
    pub(super) events: usize,
    pub(super) begun: bool,
    /// `start_lsn`: transactions that end here or below are thrown away.
    from: Lsn,
    kept_alive: Lsn,
}

/// A dispatched change that no acknowledgement has covered yet, for the check of progress.
pub(super) struct Owed {
    pub(super) table: usize,
    /// `None`: a TRUNCATE.
    pub(super) key: Option<usize>,
    pub(super) end_lsn: Lsn,
    pub(super) number: u64,
}

pub(super) struct Daemon {
    /// `None` after a lost stream, until what is in flight is over.
    pub(super) engine: Option<Engine>,
    /// The engine may have effects.
    pub(super) has_effects: bool,
    pub(super) stream: Option<Stream>,
    /// The server's generation that the SQL connections belong to.
    pub(super) sql_generation: u32,
    pub(super) requests: Vec<RequestJob>,
    pub(super) truncates: Vec<TruncateJob>,
    pub(super) fetches: Vec<FetchJob>,
    pub(super) chunks: Vec<ChunkJob>,
    /// T, and the batch that makes it durable.
    sent_limits: Vec<(Lsn, u64)>,
    /// Letters that are written or taken away, and the batch of each.
    letters: Vec<(LetterId, u64)>,
    flush_wanted: Lsn,
    flush_told: Lsn,
    pub(super) copied: [bool; TABLES],
    pub(super) stopped: [bool; TABLES],
    /// Of the flaw that lets go before that is on disk.
    let_go_unwritten: [bool; TABLES],
    /// The next session makes the collection anew.
    pub(super) remake: [bool; TABLES],
    /// The stream touched too much of these chunks: the next time it is held.
    pub(super) given_up: [[bool; RANGES]; TABLES],
    checkpoint: Lsn,
    /// Some attempt without an answer may land before.
    pub(super) unsettled_until: u64,
    pub(super) owed: Vec<Owed>,
    pub(super) owed_number: u64,
    /// The insert position of the last fetch of each key.
    pub(super) fetched_at: [[Lsn; KEYS]; TABLES],
    pub(super) last_progress: Lsn,
}

impl Daemon {
    fn new(checkpoint: Lsn) -> Daemon {
        Daemon {
            engine: None,
            has_effects: false,
            stream: None,
            sql_generation: 0,
            requests: Vec::new(),
            truncates: Vec::new(),
            fetches: Vec::new(),
            chunks: Vec::new(),
            sent_limits: Vec::new(),
            letters: Vec::new(),
            flush_wanted: Lsn::ZERO,
            flush_told: Lsn::ZERO,
            copied: [false; TABLES],
            stopped: [false; TABLES],
            let_go_unwritten: [false; TABLES],
            remake: [false; TABLES],
            given_up: [[false; RANGES]; TABLES],
            checkpoint,
            unsettled_until: 0,
            owed: Vec::new(),
            owed_number: 0,
            fetched_at: [[Lsn::ZERO; KEYS]; TABLES],
            last_progress: Lsn::ZERO,
        }
    }

    /// The engine, to be fed; it may have effects afterwards.
    pub(super) fn feed(&mut self) -> &mut Engine {
        self.has_effects = true;
        self.engine.as_mut().expect("only actions that need the engine are taken while there is one")
    }

    pub(super) fn describe(&self, text: &mut String, tables: usize) {
        let Some(engine) = &self.engine else { return text.push_str("     the stream is lost\n") };
        writeln!(
            text,
            "     engine: progress {} dispatched {} idle {} settled {} boundary {} wants stream {} held {} deadline {:?}",
            engine.progress().0,
            engine.dispatched_lsn().0,
            engine.is_idle(),
            engine.settled(),
            engine.at_boundary(),
            engine.wants_stream(),
            engine.held_bytes(),
            engine.next_deadline()
        )
        .expect("a String");
        for table in 0..tables {
            writeln!(text, "     table {table}: {:?}", engine.table(TableId(table as u32))).expect("a String");
        }
        for job in &self.requests {
            writeln!(text, "     request {:?} waits for {:?}", job.id, job.waiting).expect("a String");
        }
        for job in &self.chunks {
            writeln!(text, "     chunk {:?} of table {} range {}: {:?}", job.id, job.table, job.range, job.phase)
                .expect("a String");
        }
    }
}

impl World {
    pub(super) fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("only actions of a running daemon are taken while one runs")
    }

    pub(super) fn enabled_in_daemon(&self, daemon: &Daemon, actions: &mut Vec<Action>) {
        if self.faults.kills > 0 {
            actions.push(Action::Kill);
        }
        let Some(engine) = &daemon.engine else {
            let drained = daemon.requests.is_empty() && daemon.truncates.is_empty();
            if drained || self.has_flaw(ShellFlaw::ReconnectWithoutDrain) {
                actions.push(Action::Reconnect);
            }
            return;
        };
        if daemon.has_effects {
            actions.push(Action::PollEffect);
        }
        if engine.progress() > daemon.checkpoint {
            actions.push(Action::WriteCheckpoint);
        }
        let clean = engine.is_idle() && engine.settled() && engine.at_boundary() && !daemon.has_effects;
        if clean && self.faults.clean_stops > 0 {
            actions.push(Action::CleanStop);
        }
        if daemon.stopped.iter().any(|&stopped| stopped) {
            actions.push(Action::HealAndRestart);
            let stopped = (0..self.tables).filter(|&table| daemon.stopped[table]);
            actions.extend(stopped.filter_map(|table| match self.is_let_go(table) {
                true => Some(Action::Resync(table)),
                false => (self.faults.let_go > 0).then_some(Action::LetGo(table)),
            }));
            if self.faults.remakes > 0 {
                actions.extend((0..self.tables).filter(|&table| daemon.stopped[table]).map(Action::Remake));
            }
        } else if self.faults.unfit > 0 {
            actions.extend((0..self.tables).map(Action::Unfit));
        }
        for (place, (_, batch)) in daemon.sent_limits.iter().enumerate() {
            if self.disk.is_durable(*batch) || self.has_flaw(ShellFlaw::SentLimitNotFlushed) {
                actions.push(Action::TellSentLimit(place));
            }
        }
        for (place, (_, batch)) in daemon.letters.iter().enumerate() {
            if self.disk.is_durable(*batch) {
                actions.push(Action::TellLetter(place));
            }
        }
        if self.target.healed || self.faults.retries > 0 {
            let latest = self.disk.latest().letters;
            let each = (0..self.tables).flat_map(|table| (0..KEYS).map(move |key| (table, key)));
            actions.extend(
                each.filter(|&(table, key)| latest[table][key]).map(|(table, key)| Action::RetryLetter { table, key }),
            );
        }
        self.enabled_on_stream(daemon, engine, actions);
        self.enabled_sql(daemon, actions);
    }

    fn enabled_on_stream(&self, daemon: &Daemon, engine: &Engine, actions: &mut Vec<Action>) {
        let stream = daemon.stream.as_ref().expect("an engine has a stream");
        if stream.generation != self.source.generation {
            return actions.push(Action::NoticeStreamLost);
        }
        if self.faults.cuts > 0 {
            actions.push(Action::Cut);
        }
        if self.confirmable() > self.source.confirmed_flush {
            actions.push(Action::Confirm);
        }
        if engine.wants_stream() {
            let next = self.source.committed.get(stream.next);
            if next.is_some_and(|transaction| transaction.end_lsn <= self.source.flushed_lsn) {
                actions.push(Action::StreamEvent);
            }
            if self.keepalive_position(stream) > stream.kept_alive {
                actions.push(Action::KeepAlive);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------- its life

    pub(super) fn start(&mut self) -> Result<(), String> {
        let stored = self.disk.durable.clone();
        if self.source.confirmed_flush > stored.checkpoint {
            return Err(format!(
                "the slot is at {}, ahead of the checkpoint {}",
                self.source.confirmed_flush.0, stored.checkpoint.0
            ));
        }
        let quiet_until = if stored.clean { 0 } else { self.now + LANDS_WITHIN };
        if !self.has_flaw(ShellFlaw::CleanMarkStays) {
            self.disk.write(vec![Put::Clean(false)]);
            self.disk.flush();
        }
        let unsettled_until = if self.has_flaw(ShellFlaw::ReconnectForgetsQuietStart) { 0 } else { quiet_until };
        self.daemon = Some(Daemon { unsettled_until, ..Daemon::new(stored.checkpoint) });
        self.start_stream(quiet_until);
        Ok(())
    }

    /// Start gate, START_REPLICATION, a new engine.
    fn start_stream(&mut self, quiet_until: u64) {
        let stored = self.disk.durable.clone();
        let mut checkpoint = self.daemon().checkpoint;
        if stored.timeline != self.source.timeline {
            let end = self.source.switchpoint;
            let clean =
                checkpoint <= end && (stored.sent_limit <= end || self.has_flaw(ShellFlaw::GateIgnoresSentLimit));
            if !clean {
                note!(self, "       the start gate refuses");
                self.refused = true;
                return;
            }
            self.disk.write(vec![Put::Timeline(self.source.timeline)]);
        }
        for table in 0..self.tables {
            if self.daemon().remake[table] || self.disk.latest().remaking[table] {
                self.remake(table);
                if self.daemon.is_none() {
                    return;
                }
            }
        }
        let stored = self.disk.latest();
        let from = checkpoint;
        let first = if self.rng.percent(50) { self.source.confirmed_flush.min(from) } else { from };
        let stream = Stream {
            generation: self.source.generation,
            next: self.source.first_after(first),
            events: 0,
            begun: false,
            from: if self.has_flaw(ShellFlaw::StartBelowCheckpoint) { Lsn::ZERO } else { from },
            kept_alive: from,
        };
        if self.has_flaw(ShellFlaw::ReconnectKeepsProgress) {
            checkpoint = checkpoint.max(self.daemon().last_progress);
        }
        let start = Start {
            checkpoint,
            server_lsn: self.source.insert_lsn,
            sent_limit: stored.sent_limit,
            visible_from: self.source.take_xid(),
            quiet_until,
            now: self.now,
        };
        note!(self, "       started: {start:?}");
        // A sweep that was not over begins anew.
        let swept = self.disk.latest().swept;
        for table in (0..self.tables).filter(|&table| !swept[table]) {
            self.disk.write(vec![Put::ClearChunks { table }]);
            self.disk.flush();
        }
        let chunks = self.disk.latest().chunks;
        let (columns, tables) = (self.codec.columns(), self.tables);
        let table = |(list, swept): (&super::disk::ChunkList, bool)| TableStart {
            columns,
            key_columns: 1,
            reread_columns: 0,
            sweep: !swept && !list.all_done(),
            letters_max: usize::MAX,
            copied: list.all_done(),
        };
        let mut engine = Engine::new(self.settings, chunks.iter().zip(swept).take(tables).map(table).collect(), start);
        let letters = self.disk.latest().letters;
        for (table, letters) in letters.iter().enumerate().take(tables) {
            let keys = letters.iter().enumerate().filter(|(_, kept)| **kept).map(|(key, _)| self.codec.key(table, key));
            engine.known_letters(TableId(table as u32), keys);
        }
        if let Sabotage::Engine(flaw) = self.sabotage {
            engine.sabotage(flaw);
        }
        let let_go: Vec<usize> = (0..tables).filter(|&table| self.is_let_go(table)).collect();
        let_go.iter().for_each(|&table| engine.leave_out(TableId(table as u32), "let go".into()));
        let generation = self.source.generation;
        let daemon = self.daemon();
        let_go.iter().for_each(|&table| daemon.stopped[table] = true);
        daemon.engine = Some(engine);
        daemon.has_effects = true;
        daemon.stream = Some(stream);
        daemon.sql_generation = generation;
        daemon.copied = chunks.map(|list| list.all_done());
        daemon.last_progress = checkpoint;
    }

    /// Rule R: everything pending goes, what is in flight is waited for, then the pipeline starts at the checkpoint.
    pub(super) fn lose_stream(&mut self) {
        let daemon = self.daemon();
        let seen = daemon.engine.take().map_or(Lsn::ZERO, |engine| engine.dispatched_lsn());
        *daemon = Daemon {
            requests: std::mem::take(&mut daemon.requests),
            truncates: std::mem::take(&mut daemon.truncates),
            unsettled_until: daemon.unsettled_until,
            given_up: daemon.given_up,
            let_go_unwritten: daemon.let_go_unwritten,
            remake: daemon.remake,
            last_progress: seen,
            ..Daemon::new(daemon.checkpoint)
        };
    }

    pub(super) fn reconnect(&mut self) -> Result<(), String> {
        // The session that was lost ended when its writes were durable.
        self.disk.flush();
        let quiet_until = if self.has_flaw(ShellFlaw::ReconnectWithoutDrain) {
            self.orphan_requests();
            0
        } else {
            self.daemon().unsettled_until
        };
        self.start_stream(quiet_until);
        Ok(())
    }

    /// `kill -9`: what the target has received may still be applied.
    pub(super) fn kill(&mut self) {
        if self.daemon.is_some() {
            self.orphan_requests();
        }
        self.daemon = None;
        self.disk.crash(&mut self.rng);
    }

    fn orphan_requests(&mut self) {
        let daemon = self.daemon.as_mut().expect("there is one");
        let (requests, truncates) = (std::mem::take(&mut daemon.requests), std::mem::take(&mut daemon.truncates));
        for job in requests {
            for place in job.waiting {
                if self.rng.percent(50) {
                    self.target.late.push(Late { mutation: job.mutations[place], until: job.sent_at + LANDS_WITHIN });
                }
            }
        }
        for job in truncates.iter().filter(|job| !job.applied) {
            if self.rng.percent(50) {
                self.target.late.push(Late { mutation: job.mutation(), until: job.sent_at + LANDS_WITHIN });
            }
        }
    }

    pub(super) fn clean_stop(&mut self) {
        self.faults.clean_stops -= 1;
        let progress = self.daemon().feed().progress();
        let mut batch = vec![Put::Checkpoint(progress), Put::Clean(true)];
        if self.has_flaw(ShellFlaw::CleanStopLowersSentLimit) {
            batch.push(Put::SentLimit(progress));
        }
        self.disk.write(batch);
        self.disk.flush();
        self.daemon = None;
    }

    pub(super) fn unfit(&mut self, table: usize) {
        self.faults.unfit -= 1;
        self.daemon().feed().stop_table(TableId(table as u32), "its shape no longer fits".into());
    }

    /// Rule A: written down, and then a new session leaves the table out.
    pub(super) fn let_go(&mut self, table: usize) {
        self.faults.let_go -= 1;
        if self.has_flaw(ShellFlaw::LetGoNotWritten) {
            self.daemon().let_go_unwritten[table] = true;
        } else {
            self.disk.write(vec![Put::LetGo { table, let_go: true }]);
            self.disk.flush();
        }
        self.lose_stream();
    }

    /// `walvec resync`: copied again over its collection, beside the stream, from a new session on.
    pub(super) fn resync(&mut self, table: usize) {
        let swept = self.has_flaw(ShellFlaw::LetGoNotSwept);
        self.disk.write(vec![
            Put::LetGo { table, let_go: false },
            Put::ClearChunks { table },
            Put::Swept { table, swept },
        ]);
        self.disk.flush();
        self.daemon().let_go_unwritten[table] = false;
        self.lose_stream();
    }

    /// Rule N: written down with the first change of the state, and only then the old collection goes. A new one is made when
    /// nothing that was sent to the old one can land any more.
    fn remake(&mut self, table: usize) {
        if self.daemon().remake[table] {
            let flaw = self.has_flaw(ShellFlaw::SkipUnflushed);
            let until = if flaw { self.source.insert_lsn } else { self.source.flushed_lsn };
            let mut batch = vec![
                Put::Skip { table, until },
                Put::Remaking { table, remaking: true },
                Put::ClearChunks { table },
                Put::Swept { table, swept: true },
                Put::LetGo { table, let_go: false },
                Put::NoLetters { table },
            ];
            if !self.has_flaw(ShellFlaw::SkipWithoutSentLimit) {
                batch.push(Put::SentLimit(until.max(self.disk.latest().sent_limit)));
            }
            self.disk.write(batch);
            self.disk.flush();
            note!(self, "       table {table} is made anew, without what was committed up to {}", until.0);
            self.daemon().let_go_unwritten[table] = false;
            if self.faults.kills > 0 && self.rng.percent(30) {
                note!(self, "       killed before the old collection is gone");
                self.faults.kills -= 1;
                return self.kill();
            }
        }
        self.target.collections[table] = Default::default();
        if !self.has_flaw(ShellFlaw::RemadeBeforeLate) {
            while !self.target.late.is_empty() {
                match self.rng.percent(50) {
                    true => self.land_late(0),
                    false => self.target.late.truncate(self.target.late.len() - 1),
                }
            }
            self.target.collections[table] = Default::default();
            self.now += LANDS_WITHIN;
        }
        self.disk.write(vec![Put::Remaking { table, remaking: false }]);
        self.disk.flush();
        self.daemon().remake[table] = false;
    }

    /// Does the table's copy show this transaction, by N?
    fn skips(&self, table: usize, final_lsn: Lsn) -> bool {
        final_lsn <= self.disk.latest().skip[table]
    }

    pub(super) fn is_let_go(&self, table: usize) -> bool {
        self.disk.latest().let_go[table] || self.daemon.as_ref().is_some_and(|daemon| daemon.let_go_unwritten[table])
    }

    // ------------------------------------------------------------------------------------------------ the stream

    pub(super) fn stream_event(&mut self) {
        let daemon = self.daemon.as_mut().expect("running");
        let stream = daemon.stream.as_mut().expect("an engine has a stream");
        let engine = daemon.engine.as_mut().expect("running");
        let transaction = &self.source.committed[stream.next];
        daemon.has_effects = true;
        if transaction.end_lsn <= stream.from || (transaction.events.is_empty() && !self.sends_empty_transactions) {
            stream.next += 1;
        } else if !stream.begun {
            engine.begin(transaction.final_lsn, transaction.xid as u32);
            stream.begun = true;
        } else if let Some(&(event, _)) = transaction.events.get(stream.events) {
            stream.events += 1;
            let (final_lsn, end_lsn) = (transaction.final_lsn, transaction.end_lsn);
            self.deliver(event, final_lsn, end_lsn);
        } else {
            engine.commit(transaction.end_lsn);
            *stream = Stream { next: stream.next + 1, events: 0, begun: false, ..*stream };
        }
    }

    fn deliver(&mut self, event: Event, final_lsn: Lsn, end_lsn: Lsn) {
        note!(self, "       {event:?}");
        match event {
            Event::Insert { table, .. } | Event::Update { table, .. } | Event::Delete { table, .. } => {
                if self.skips(table, final_lsn) {
                    return;
                }
            }
            Event::Truncate { .. } => {}
        }
        match event {
            Event::Insert { table, key, row, missing } => {
                let (id, row) = (self.codec.key(table, key), self.row(table, key, row, missing));
                self.owe(table, Some(key), end_lsn);
                self.daemon().feed().change(TableId(table as u32), KeyedChange::Insert { key: id, row });
            }
            Event::Update { table, old_key, key, row, missing } => {
                let (id, row) = (self.codec.key(table, key), self.row(table, key, row, missing));
                if old_key.is_some() {
                    self.owe(table, old_key, end_lsn);
                }
                self.owe(table, Some(key), end_lsn);
                let old_key = old_key.map(|old_key| self.codec.key(table, old_key));
                self.daemon().feed().change(TableId(table as u32), KeyedChange::Update { old_key, key: id, row });
            }
            Event::Delete { table, key } => {
                self.owe(table, Some(key), end_lsn);
                let key = self.codec.key(table, key);
                self.daemon().feed().change(TableId(table as u32), KeyedChange::Delete { key });
            }
            Event::Truncate { tables } => {
                let concerned = |&table: &usize| tables & 1 << table != 0 && !self.skips(table, final_lsn);
                let all: Vec<usize> = (0..self.tables).filter(concerned).collect();
                if all.is_empty() {
                    return;
                }
                all.iter().for_each(|&table| self.owe(table, None, end_lsn));
                let all: Vec<TableId> = all.into_iter().map(|table| TableId(table as u32)).collect();
                self.daemon().feed().truncate(&all);
            }
        }
    }

    fn owe(&mut self, table: usize, key: Option<usize>, end_lsn: Lsn) {
        if self.is_let_go(table) {
            return;
        }
        let daemon = self.daemon();
        daemon.owed_number += 1;
        let number = daemon.owed_number;
        daemon.owed.push(Owed { table, key, end_lsn, number });
    }

    /// A row as the engine gets it, without the values of `missing`.
    pub(super) fn row(&self, table: usize, key: usize, row: SourceRow, missing: u64) -> Row {
        let value = |column: usize| match column {
            0 => self.codec.key_value(&self.codec.key(table, key)),
            _ if missing & 1 << column != 0 => Value::UnchangedToast,
            _ => self.codec.value(row.values[column]),
        };
        Row((0..self.codec.columns()).map(value).collect())
    }

    /// How far a keepalive may speak: up to what is not sent yet.
    fn keepalive_position(&self, stream: &Stream) -> Lsn {
        let flushed = self.source.flushed_lsn;
        match self.source.committed.get(stream.next) {
            Some(next) => flushed.min(next.final_lsn),
            None => flushed,
        }
    }

    pub(super) fn keepalive(&mut self) {
        let daemon = self.daemon.as_ref().expect("running");
        let position = self.keepalive_position(daemon.stream.as_ref().expect("an engine has a stream"));
        note!(self, "       up to {}", position.0);
        let daemon = self.daemon();
        daemon.feed().keepalive(position);
        daemon.stream.as_mut().expect("an engine has a stream").kept_alive = position;
    }

    // ---------------------------------------------------------------------------------- checkpoint and effects

    pub(super) fn write_checkpoint(&mut self) {
        let progress = self.daemon().feed().progress();
        note!(self, "       checkpoint {}", progress.0);
        self.daemon().checkpoint = progress;
        self.disk.write(vec![Put::Checkpoint(progress)]);
    }

    fn confirmable(&self) -> Lsn {
        if self.has_flaw(ShellFlaw::ConfirmBeforeFlush) {
            self.disk.latest().checkpoint
        } else {
            self.disk.durable.checkpoint
        }
    }

    pub(super) fn confirm(&mut self) {
        self.source.confirmed_flush = self.confirmable();
    }

    pub(super) fn tell_sent_limit(&mut self, place: usize) {
        let (lsn, _) = self.daemon().sent_limits.remove(place);
        self.daemon().feed().sent_limit_raised(lsn);
    }

    pub(super) fn tell_letter(&mut self, place: usize) {
        let (letter, _) = self.daemon().letters.remove(place);
        self.daemon().feed().letter_settled(letter);
    }

    pub(super) fn retry_letter(&mut self, table: usize, key: usize) {
        self.faults.retries = self.faults.retries.saturating_sub(u32::from(!self.target.healed));
        let id = self.codec.key(table, key);
        let value = |column: usize| if column == 0 { self.codec.key_value(&id) } else { Value::UnchangedToast };
        let row = Row((0..self.codec.columns()).map(value).collect());
        let tried = self.daemon().feed().retry_letter(TableId(table as u32), id, row);
        note!(self, "       {}", if tried { "tried" } else { "not now" });
    }

    pub(super) fn tell_flushed(&mut self) {
        let flushed = self.source.flushed_lsn;
        let daemon = self.daemon();
        daemon.flush_told = flushed;
        daemon.feed().flushed(flushed);
    }

    /// Somebody waits for the WAL, and there is news.
    pub(super) fn flush_is_news(&self, daemon: &Daemon) -> bool {
        daemon.flush_wanted > daemon.flush_told && self.source.flushed_lsn > daemon.flush_told
    }

    pub(super) fn poll_effect(&mut self) -> Result<(), String> {
        let daemon = self.daemon();
        let Some(effect) = daemon.engine.as_mut().and_then(Engine::poll_effect) else {
            daemon.has_effects = false;
            return Ok(());
        };
        note!(self, "       {effect:?}");
        match effect {
            Effect::RaiseSentLimit(lsn) => {
                let batch = self.disk.write(vec![Put::SentLimit(lsn)]);
                self.daemon().sent_limits.push((lsn, batch));
            }
            Effect::Send(request) => self.send(request)?,
            Effect::Fetch(fetch) => self.daemon().fetches.push(FetchJob::new(fetch)),
            Effect::WaitFlushed(lsn) => {
                let daemon = self.daemon();
                daemon.flush_wanted = daemon.flush_wanted.max(lsn);
            }
            Effect::Truncate(table) => {
                let job = TruncateJob::new(table.0 as usize, self.now);
                self.daemon().truncates.push(job);
            }
            Effect::ChunkDone { chunk, .. } => {
                if let Some(job) = self.take_chunk(chunk) {
                    self.disk.write(vec![Put::ChunkDone { table: job.table, range: job.range }]);
                }
            }
            Effect::ChunkAbandoned { chunk, overflow, .. } => {
                if let Some(job) = self.take_chunk(chunk) {
                    self.daemon().given_up[job.table][job.range] |= overflow;
                }
            }
            Effect::KeepLetter(id, dead) => {
                let table = dead.table.0 as usize;
                let key = self.codec.key_number(&dead.key);
                let batch = self.disk.write(vec![Put::Letter { table, key, kept: true }]);
                self.daemon().letters.push((id, batch));
            }
            Effect::ClearLetters { letter, table, key } => {
                let table = table.0 as usize;
                let put = match key {
                    Some(key) => Put::Letter { table, key: self.codec.key_number(&key), kept: false },
                    None => Put::NoLetters { table },
                };
                let batch = self.disk.write(vec![put]);
                self.daemon().letters.push((letter, batch));
            }
            Effect::TableStopped { table, .. } => self.daemon().stopped[table.0 as usize] = true,
        }
        Ok(())
    }

    fn take_chunk(&mut self, id: ChunkId) -> Option<ChunkJob> {
        let chunks = &mut self.daemon().chunks;
        chunks.iter().position(|job| job.id == id).map(|place| chunks.remove(place))
    }
}
