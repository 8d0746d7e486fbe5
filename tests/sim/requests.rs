//! The simulated shell's requests and what becomes of them at the target, and the time.
//!
//! An attempt may lose its answer after any part of it was applied. It is repeated at once; what it left behind may
//! still land until its deadline and margin are over (rule S), and the engine is told so.

use crate::change::TableId;
use crate::engine::{Request, RequestId};
use crate::mutation::Refusal;

use super::script::SCALAR;
use super::target::{Late, Mutation};
use super::world::{Action, LANDS_WITHIN, ShellFlaw, World, note};

pub(super) struct RequestJob {
    pub(super) id: RequestId,
    pub(super) mutations: Vec<Mutation>,
    /// Places in `mutations` that the current attempt has not applied.
    pub(super) waiting: Vec<usize>,
    refused: Vec<usize>,
    pub(super) sent_at: u64,
    /// An earlier attempt may land until then.
    may_land_until: Option<u64>,
    /// The changes that were dispatched before it was built.
    covers: u64,
}

pub(super) struct TruncateJob {
    table: usize,
    pub(super) applied: bool,
    pub(super) sent_at: u64,
    /// An earlier attempt may land until then.
    unsettled_until: u64,
}

impl TruncateJob {
    pub(super) fn new(table: usize, now: u64) -> TruncateJob {
        TruncateJob { table, applied: false, sent_at: now, unsettled_until: 0 }
    }

    pub(super) fn mutation(&self) -> Mutation {
        Mutation::Clear { table: self.table }
    }
}

impl World {
    pub(super) fn enabled_at_target(&self, actions: &mut Vec<Action>) {
        actions.extend((0..self.target.late.len()).map(Action::LandLate));
        let Some(daemon) = &self.daemon else { return };
        for (request, job) in daemon.requests.iter().enumerate() {
            actions.extend((0..job.waiting.len()).map(|waiting| Action::ApplyMutation { request, waiting }));
            if job.waiting.is_empty() {
                actions.push(Action::Answer(request));
            }
            if self.faults.lost_answers > 0 {
                actions.push(Action::LoseAnswer(request));
            }
        }
        for (place, job) in daemon.truncates.iter().enumerate() {
            if !job.applied {
                actions.push(Action::Truncate(place));
            } else if job.unsettled_until <= self.now || self.has_flaw(ShellFlaw::TruncateNotSettled) {
                actions.push(Action::TruncateAnswer(place));
            }
            if self.faults.lost_answers > 0 {
                actions.push(Action::LoseTruncateAnswer(place));
            }
        }
    }

    /// What every request must be, and then on its way with it.
    pub(super) fn send(&mut self, request: Request) -> Result<(), String> {
        let table = request.table.0 as usize;
        let mutations = self.codec.mutations(table, &request.mutations)?;
        if mutations.is_empty() {
            return Err("an empty request".into());
        }
        if mutations.len() > self.settings.request_rows_max {
            return Err(format!("{} rows in a request of at most {}", mutations.len(), self.settings.request_rows_max));
        }
        let daemon = self.daemon();
        for (place, mutation) in mutations.iter().enumerate() {
            if mutations[..place].iter().any(|other| other.key() == mutation.key()) {
                return Err(format!("a key twice in one request: {mutation:?}"));
            }
            let all_in_flight = daemon.requests.iter().flat_map(|job| &job.mutations);
            if all_in_flight.filter(|other| other.key() == mutation.key()).count() > 0 {
                return Err(format!("two requests in flight for one key: {mutation:?}"));
            }
        }
        let waiting = (0..mutations.len()).collect();
        let (covers, sent_at) = (daemon.owed_number, self.now);
        self.daemon().requests.push(RequestJob {
            id: request.id,
            mutations,
            waiting,
            refused: Vec::new(),
            sent_at,
            may_land_until: None,
            covers,
        });
        Ok(())
    }

    fn apply(&mut self, mutation: Mutation) -> bool {
        let source = &self.source;
        let taken = self.target.apply(mutation, |scalar| source.is_poisoned(scalar));
        note!(self, "       {mutation:?}{}", if taken { "" } else { ": refused" });
        taken
    }

    pub(super) fn apply_mutation(&mut self, request: usize, waiting: usize) {
        let job = &mut self.daemon().requests[request];
        let place = job.waiting.swap_remove(waiting);
        let mutation = job.mutations[place];
        if !self.apply(mutation) {
            self.daemon().requests[request].refused.push(place);
        }
    }

    pub(super) fn answer(&mut self, request: usize) {
        let job = self.daemon().requests.remove(request);
        let forget = self.has_flaw(ShellFlaw::ForgetLateAttempts);
        let may_land_until = job.may_land_until.filter(|_| !forget);
        let (codec, dead_letter) = (self.codec, self.dead_letters);
        let daemon = self.daemon();
        daemon.unsettled_until = daemon.unsettled_until.max(may_land_until.unwrap_or(0));
        let refused: Vec<(usize, usize)> = job.refused.iter().filter_map(|&place| job.mutations[place].key()).collect();
        let acknowledged = |owed: &super::daemon::Owed| {
            let key = owed.key.map(|key| (owed.table, key));
            owed.number <= job.covers
                && key.is_some_and(|key| job.mutations.iter().any(|m| m.key() == Some(key)) && !refused.contains(&key))
        };
        daemon.owed.retain(|owed| !acknowledged(owed));
        if daemon.engine.is_none() {
            return; // the stream is lost: only waited for
        }
        let refusal = |(table, key): (usize, usize)| {
            let refusal = Refusal { field: Some(format!("column {SCALAR}")), reason: "poisoned".into(), dead_letter };
            (codec.key(table, key), refusal)
        };
        daemon.feed().answered(job.id, refused.into_iter().map(refusal).collect(), may_land_until);
    }

    pub(super) fn lose_answer(&mut self, request: usize) {
        self.faults.lost_answers -= 1;
        let now = self.now;
        let job = &mut self.daemon.as_mut().expect("running").requests[request];
        let until = job.sent_at + LANDS_WITHIN;
        for &place in &job.waiting {
            if self.rng.percent(75) {
                self.target.late.push(Late { mutation: job.mutations[place], until });
            }
        }
        job.may_land_until = Some(job.may_land_until.unwrap_or(0).max(until));
        job.waiting = (0..job.mutations.len()).collect();
        job.refused.clear();
        job.sent_at = now;
    }

    pub(super) fn land_late(&mut self, late: usize) {
        let late = self.target.late.swap_remove(late);
        self.apply(late.mutation);
    }

    pub(super) fn truncate(&mut self, place: usize) {
        let mutation = self.daemon().truncates[place].mutation();
        self.apply(mutation);
        self.daemon().truncates[place].applied = true;
    }

    pub(super) fn lose_truncate_answer(&mut self, place: usize) {
        self.faults.lost_answers -= 1;
        let now = self.now;
        let job = &mut self.daemon.as_mut().expect("running").truncates[place];
        let until = job.sent_at + LANDS_WITHIN;
        if !job.applied {
            self.target.late.push(Late { mutation: job.mutation(), until });
        }
        *job = TruncateJob { applied: false, sent_at: now, unsettled_until: job.unsettled_until.max(until), ..*job };
        let daemon = self.daemon();
        daemon.unsettled_until = daemon.unsettled_until.max(until);
    }

    pub(super) fn truncate_answer(&mut self, place: usize) {
        let daemon = self.daemon();
        let job = daemon.truncates.remove(place);
        daemon.owed.retain(|owed| owed.table != job.table || owed.key.is_some());
        if daemon.engine.is_some() {
            daemon.feed().truncated(TableId(job.table as u32));
        }
    }

    // ------------------------------------------------------------------------------------------------- the time

    /// No attempt outlives its deadline: before that it is answered or lost.
    pub(super) fn time_limit(&self) -> u64 {
        let Some(daemon) = &self.daemon else { return u64::MAX };
        let requests = daemon.requests.iter().map(|job| job.sent_at);
        let truncates = daemon.truncates.iter().filter(|job| !job.applied).map(|job| job.sent_at);
        requests.chain(truncates).min().map_or(u64::MAX, |sent_at| sent_at + LANDS_WITHIN - 1)
    }

    pub(super) fn waits_for_time(&self) -> bool {
        !self.target.late.is_empty() || self.deadlines().next().is_some()
    }

    fn deadlines(&self) -> impl Iterator<Item = u64> {
        let late = self.target.late.iter().map(|late| late.until);
        let daemon = self.daemon.iter().flat_map(|daemon| {
            let truncates = daemon.truncates.iter().filter(|job| job.applied && job.unsettled_until > self.now);
            let engine = daemon.engine.as_ref().and_then(|engine| engine.next_deadline());
            truncates.map(|job| job.unsettled_until).chain(engine)
        });
        late.chain(daemon)
    }

    pub(super) fn pass_time(&mut self) {
        let mut moments: Vec<u64> = self.deadlines().collect();
        moments.push(self.now + 1 + self.rng.below(LANDS_WITHIN as usize) as u64);
        let moment = self.rng.pick(&moments).max(self.now).min(self.time_limit());
        self.now = moment;
        note!(self, "       now {moment}");
        self.target.late.retain(|late| late.until > moment);
        if let Some(daemon) = self.daemon.as_mut().filter(|daemon| daemon.engine.is_some()) {
            daemon.feed().advance(moment);
        }
    }
}
