//! Carrying out one request of the engine: encode, send, repeat, bisect, until every key has an outcome.
//!
//! In: a `Request`. Out: an `Answer` that says which keys were refused and until when an attempt that got no answer
//! may still be applied. An outage is waited out here, for as long as it takes: the engine only sees the end.
//!
//! The size of requests and the time between them are `pace`'s.
//!
//! Holds: an attempt is repeated with the same rows only, so whatever lands late is what was sent last for its keys;
//! a row is refused by our own guards before anything is sent, or by the server alone in a request of one.
//!
//! Not here: what may leave when (the engine), columns (`encode`), what an error means (`milvus::error`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::change::TableId;
use crate::config::settings::OnMisfit;
use crate::engine::{Request, RequestId};
use crate::metrics::{Metrics, Outcome, TableMetrics};
use crate::milvus::{Class, Condition, Milvus, MilvusError};
use crate::mutation::{Key, Refusal};

use super::clock::{Backoff, Clock};
use super::encode::Encoder;
use super::pace::{Kind, Pace};

/// A collection as requests need it.
pub(super) struct Collection {
    pub(super) name: String,
    pub(super) primary_field: String,
    pub(super) encoder: Encoder,
    /// Rows that the server refuses become dead letters.
    pub(super) refused_to_letters: bool,
    pub(super) metrics: TableMetrics,
}

/// Everything that requests share.
pub(super) struct Target {
    pub(super) milvus: Arc<dyn Milvus>,
    pub(super) collections: Vec<Collection>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// Server-side deadline of a request, and how long after it the request may still be applied.
    pub(super) deadline: Duration,
    pub(super) margin: Duration,
    /// What the target last complained about, for people; `None` when it answered since.
    pub(super) trouble: tokio::sync::watch::Sender<Option<Trouble>>,
    pub(super) pace: Arc<Pace>,
    /// When the log was told last that the target takes nothing: a storm is not a line for each gust.
    pub(super) told_at: AtomicU64,
}

/// Milliseconds between two such lines.
const TOLD_INTERVAL: u64 = 10_000;

/// The target takes no writes.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) text: String,
    /// Since its last success.
    pub(super) since: Instant,
    pub(super) hint: Option<&'static str>,
    /// It was worth a line in the log; a limited rate is not.
    loud: bool,
}

/// The end of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) request: RequestId,
    pub(super) table: TableId,
    pub(super) refused: Vec<(Key, Refusal)>,
    pub(super) may_land_until: Option<u64>,
}

/// The collection, or the target as a whole, cannot be written as it is: a person must act.
#[derive(Debug, thiserror::Error)]
#[error("collection {collection:?} cannot be written{}", hint(.error))]
pub struct FatalRequest {
    pub table: TableId,
    pub collection: String,
    /// What was to be done; `None` when it was a TRUNCATE.
    pub request: Option<RequestId>,
    /// Its keys: none of them has an outcome.
    pub keys: Vec<Key>,
    /// An earlier attempt got no answer and may be applied until then.
    pub may_land_until: Option<u64>,
    #[source]
    pub error: MilvusError,
}

fn hint(error: &MilvusError) -> String {
    error.hint().map_or(String::new(), |hint| format!(" ({hint})"))
}

impl FatalRequest {
    /// Is it this collection only, so that the other tables can go on?
    pub fn concerns_one_collection(&self) -> bool {
        match self.error.condition() {
            Condition::NoDatabase
            | Condition::Unauthenticated
            | Condition::PermissionDenied
            | Condition::NotWritable
            | Condition::KeyRevoked
            | Condition::Configuration => false,
            Condition::ConnectFailed
            | Condition::ConnectionLost
            | Condition::TimedOut
            | Condition::Unavailable
            | Condition::RateLimited
            | Condition::QuotaExceeded
            | Condition::RequestTooLarge
            | Condition::AnswerTooLarge
            | Condition::InvalidData
            | Condition::SchemaStale
            | Condition::NotLoaded
            | Condition::NoCollection
            | Condition::NoPartition
            | Condition::NoIndex
            | Condition::NoAlias
            | Condition::AlreadyExists
            | Condition::LimitReached
            | Condition::Unsupported
            | Condition::Refused
            | Condition::Unexpected
            | Condition::InvalidRequest
            | Condition::InvalidAnswer => true,
        }
    }
}

/// A failure that the server does not explain is taken for a bad value after so many tries of a request, and of a
/// single row: Milvus 2.3 reports bad values so.
const UNEXPLAINED_MAX: u32 = 3;
const UNEXPLAINED_MAX_OF_ONE: u32 = 6;

/// A share of the request's upserts or deletes.
#[derive(Clone, Debug)]
struct Part {
    upserts: bool,
    range: Range<usize>,
    /// Failures without an explanation, of it and of what it was a half of.
    unexplained: u32,
}

impl Part {
    fn whole(upserts: bool, len: usize) -> Part {
        Part { upserts, range: 0..len, unexplained: 0 }
    }

    fn kind(&self) -> Kind {
        if self.upserts { Kind::Upsert } else { Kind::Delete }
    }

    fn is_single(&self) -> bool {
        self.range.len() == 1
    }

    fn halves(&self) -> [Part; 2] {
        let Range { start, end } = self.range;
        let middle = start + (end - start) / 2;
        [start..middle, middle..end].map(|range| Part { range, ..self.clone() })
    }

    /// What the error means for this part: what stays unexplained long enough is a bad value.
    fn class_of(&mut self, error: &MilvusError) -> Class {
        if !error.may_be_poison() {
            return error.class();
        }
        self.unexplained += 1;
        let max = if self.is_single() { UNEXPLAINED_MAX_OF_ONE } else { UNEXPLAINED_MAX };
        if self.unexplained >= max { Class::Poison } else { Class::Retry }
    }
}

/// What one attempt came to.
enum Attempt {
    Done,
    /// Rows that do not fit were left out of it; the rest is acknowledged.
    Refused(Vec<(Key, Refusal)>),
    Failed(MilvusError),
}

/// What the policies of the fields did, in the end.
#[derive(Default)]
struct ByPolicy {
    skipped: u64,
    altered: Vec<(Arc<str>, OnMisfit, u64)>,
}

impl Target {
    /// Carry the request out. Ends only with an outcome for every key, or with an error that a person must mend.
    pub(super) async fn carry_out(&self, request: Request) -> Result<Answer, FatalRequest> {
        let collection = &self.collections[request.table.0 as usize];
        let mutations = &request.mutations;
        let mut parts = Vec::with_capacity(2);
        if !mutations.deletes.is_empty() {
            parts.push(Part::whole(false, mutations.deletes.len()));
        }
        if !mutations.upserts.is_empty() {
            parts.push(Part::whole(true, mutations.upserts.len()));
        }
        let mut refused = Vec::new();
        let mut unanswered: Option<u64> = None;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut doubtful = 0;
        let mut by_policy = ByPolicy::default();
        while let Some(mut part) = parts.pop() {
            let kind = part.kind();
            let bytes = collection.bytes(&request, &part);
            if bytes > self.pace.request_bytes(kind) && !part.is_single() {
                parts.extend(part.halves());
                continue;
            }
            loop {
                self.rest(self.pace.reserve(kind, bytes)).await;
                if !self.pace.withdraw(kind, bytes) {
                    break;
                }
            }
            let sent_at = self.clock.now();
            let started = Instant::now();
            let in_flight = self.metrics.in_flight();
            let attempt = self.attempt(collection, &request, &part, &mut by_policy).await;
            drop(in_flight);
            let took = started.elapsed();
            self.metrics.request_seconds.observe(took.as_secs_f64());
            let error = match attempt {
                Attempt::Done => {
                    self.metrics.requests(Outcome::Ok).inc();
                    self.pace.acknowledged(kind, bytes, took);
                    self.calm();
                    backoff.reset();
                    continue;
                }
                Attempt::Refused(mut rows) => {
                    self.metrics.requests(Outcome::Ok).inc();
                    self.pace.acknowledged(kind, bytes, took);
                    refused.append(&mut rows);
                    continue;
                }
                Attempt::Failed(error) => error,
            };
            if error.outcome_unknown() {
                self.metrics.requests(Outcome::Unknown).inc();
                let may_land = sent_at + self.late_by();
                unanswered = Some(unanswered.map_or(may_land, |until| until.max(may_land)));
            }
            match part.class_of(&error) {
                Class::Poison | Class::Split if part.is_single() => {
                    self.metrics.requests(Outcome::Refused).inc();
                    let at = part.range.start;
                    let key = if part.upserts { &mutations.upserts[at].0 } else { &mutations.deletes[at] };
                    // Not the server's own text: it may quote the value, and this goes to logs and to `/status`.
                    refused.push((
                        key.clone(),
                        Refusal {
                            field: None,
                            reason: error.to_string(),
                            dead_letter: part.upserts && collection.refused_to_letters,
                        },
                    ));
                }
                Class::Poison | Class::Split => {
                    self.metrics.requests(Outcome::Refused).inc();
                    parts.extend(part.halves());
                }
                Class::SchemaStale if doubtful < 3 => {
                    doubtful += 1;
                    parts.push(part);
                    tokio::time::sleep(backoff.next()).await;
                }
                Class::SchemaStale | Class::Fatal => {
                    self.metrics.requests(Outcome::Failed).inc();
                    let upserts = mutations.upserts.iter().map(|(key, _)| key);
                    let keys = upserts.chain(&mutations.deletes).cloned().collect();
                    return Err(FatalRequest {
                        table: request.table,
                        collection: collection.name.clone(),
                        request: Some(request.id),
                        keys,
                        may_land_until: self.settled_at(unanswered),
                        error,
                    });
                }
                Class::Throttle => {
                    self.metrics.requests(Outcome::Throttled).inc();
                    self.complain(&collection.name, &error);
                    parts.push(part);
                    // A denial passes when somebody makes room; only a limited rate says something about the rate.
                    let wait = if error.condition() == Condition::RateLimited {
                        self.pace.refused(kind, bytes, error.asked_to_wait())
                    } else {
                        error.retry_after().unwrap_or_else(|| backoff.next())
                    };
                    self.rest(wait).await;
                }
                Class::Retry => {
                    self.metrics.requests(Outcome::Retried).inc();
                    self.complain(&collection.name, &error);
                    parts.push(part);
                    tokio::time::sleep(error.retry_after().unwrap_or_else(|| backoff.next())).await;
                }
            }
        }
        let may_land_until = self.settled_at(unanswered);
        let refused_upserts = refused.iter().filter(|(key, _)| !mutations.deletes.contains(key)).count();
        let not_upserted = refused_upserts as u64 + by_policy.skipped;
        collection.metrics.upserted.inc_by((mutations.upserts.len() as u64).saturating_sub(not_upserted));
        collection.metrics.skipped.inc_by(by_policy.skipped);
        for (field, policy, values) in by_policy.altered {
            collection.metrics.altered(&field, policy.name()).inc_by(values);
        }
        collection.metrics.deleted.inc_by((mutations.deletes.len() - (refused.len() - refused_upserts)) as u64);
        collection.metrics.refused.inc_by(refused.len() as u64);
        Ok(Answer { request: request.id, table: request.table, refused, may_land_until })
    }

    /// A row that a policy leaves out is deleted, so that no older form of it stays: within the same attempt, so that it is
    /// done when the rest is.
    async fn attempt(
        &self,
        collection: &Collection,
        request: &Request,
        part: &Part,
        by_policy: &mut ByPolicy,
    ) -> Attempt {
        match part.upserts {
            true => {
                let rows = &request.mutations.upserts[part.range.clone()];
                let encoded = collection.encoder.encode(rows);
                let refused: Vec<(Key, Refusal)> =
                    encoded.refused.into_iter().map(|(index, refusal)| (rows[index].0.clone(), refusal)).collect();
                if encoded.rows > 0
                    && let Err(error) = self.milvus.upsert(&collection.name, encoded.columns, encoded.rows).await
                {
                    return Attempt::Failed(error);
                }
                if !encoded.skipped.is_empty() {
                    let keys: Vec<Key> = encoded.skipped.iter().map(|&(index, _)| rows[index].0.clone()).collect();
                    let keys = collection.encoder.keys(&keys);
                    if let Err(error) = self.milvus.delete(&collection.name, &collection.primary_field, &keys).await {
                        return Attempt::Failed(error);
                    }
                }
                for (index, refusal) in &encoded.skipped {
                    tracing::debug!(collection = collection.name, key = %rows[*index].0, %refusal, "row skipped by policy");
                }
                by_policy.skipped += encoded.skipped.len() as u64;
                by_policy.altered.extend(encoded.altered);
                if refused.is_empty() { Attempt::Done } else { Attempt::Refused(refused) }
            }
            false => {
                let keys = collection.encoder.keys(&request.mutations.deletes[part.range.clone()]);
                match self.milvus.delete(&collection.name, &collection.primary_field, &keys).await {
                    Ok(()) => Attempt::Done,
                    Err(error) => Attempt::Failed(error),
                }
            }
        }
    }

    /// Wait because the target takes no more now.
    async fn rest(&self, wait: Duration) {
        if !wait.is_zero() {
            self.metrics.throttled_seconds.inc_by(wait.as_secs_f64());
            tokio::time::sleep(wait).await;
        }
    }

    /// From sending a request until it can no longer be applied, in milliseconds.
    fn late_by(&self) -> u64 {
        (self.deadline + self.margin).as_millis() as u64
    }

    /// A server that slept may read what is buffered when it wakes: the margin counts from its first answer too.
    fn settled_at(&self, unanswered: Option<u64>) -> Option<u64> {
        unanswered.map(|until| until.max(self.clock.now() + self.margin.as_millis() as u64))
    }

    pub(super) fn complain(&self, collection: &str, error: &MilvusError) {
        let now = self.clock.now();
        let told_at = self.told_at.load(Ordering::Relaxed);
        let loud = error.condition() != Condition::RateLimited && (told_at == 0 || now >= told_at + TOLD_INTERVAL);
        let new = self.trouble.send_if_modified(|trouble| {
            let before = trouble.take();
            let was_loud = before.as_ref().is_some_and(|before| before.loud);
            *trouble = Some(Trouble {
                text: format!("{collection}: {error}"),
                since: before.map_or_else(Instant::now, |before| before.since),
                hint: error.hint(),
                loud: loud || was_loud,
            });
            loud && !was_loud
        });
        if new {
            self.told_at.store(now.max(1), Ordering::Relaxed);
            tracing::warn!(
                collection,
                error = error as &dyn std::error::Error,
                "milvus does not take writes, trying on"
            );
        }
    }

    pub(super) fn calm(&self) {
        let mut was_loud = false;
        self.trouble.send_if_modified(|trouble| {
            let before = trouble.take();
            was_loud = before.as_ref().is_some_and(|before| before.loud);
            before.is_some()
        });
        if was_loud {
            tracing::info!("milvus takes writes again");
        }
    }
}

impl Collection {
    /// Bytes of a part as servers count them: the columns of an upsert, the filter of a delete.
    fn bytes(&self, request: &Request, part: &Part) -> usize {
        let mutations = &request.mutations;
        match part.upserts {
            true => {
                mutations.upserts[part.range.clone()].iter().map(|(key, row)| self.encoder.row_bytes(key, row)).sum()
            }
            false => mutations.deletes[part.range.clone()]
                .iter()
                .map(|key| match key {
                    Key::Int(key) => key.checked_ilog10().map_or(4, |digits| digits as usize + 2),
                    Key::Text(key) => key.len() + 3,
                })
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests;
