//! Carrying out one request of the engine: encode, send, repeat, bisect, until every key has an outcome.
//!
//! In: a `Request`. Out: an `Answer` that says which keys were refused and until when an attempt that got no answer
//! may still be applied. An outage is waited out here, for as long as it takes: the engine only sees the end.
//!
//! Holds: an attempt is repeated with the same rows only, so whatever lands late is what was sent last for its keys;
//! a row is refused by our own guards before anything is sent, or by the server alone in a request of one.
//!
//! Not here: what may leave when (the engine), columns (`encode`), what an error means (`milvus::error`).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::change::TableId;
use crate::engine::{Request, RequestId};
use crate::metrics::{Metrics, Outcome, TableMetrics};
use crate::milvus::{Class, Condition, Milvus, MilvusError};
use crate::mutation::{Key, Refusal};

use super::clock::{Backoff, Clock};
use super::encode::Encoder;

/// A collection as requests need it.
pub(super) struct Collection {
    pub(super) name: String,
    pub(super) primary_field: String,
    pub(super) encoder: Encoder,
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
    pub(super) trouble: tokio::sync::watch::Sender<Option<String>>,
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
        if error.condition() != Condition::Unexpected {
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
        while let Some(mut part) = parts.pop() {
            let sent_at = self.clock.now();
            let started = std::time::Instant::now();
            let in_flight = self.metrics.in_flight();
            let attempt = self.attempt(collection, &request, &part).await;
            drop(in_flight);
            self.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
            let error = match attempt {
                Attempt::Done => {
                    self.metrics.requests(Outcome::Ok).inc();
                    self.calm();
                    backoff.reset();
                    continue;
                }
                Attempt::Refused(mut rows) => {
                    self.metrics.requests(Outcome::Ok).inc();
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
                    refused.push((key.clone(), Refusal { field: None, reason: error.reason().to_owned() }));
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
                    let (table, collection) = (request.table, collection.name.clone());
                    return Err(FatalRequest { table, collection, request: Some(request.id), keys, error });
                }
                class @ (Class::Retry | Class::Throttle) => {
                    let outcome = if class == Class::Throttle { Outcome::Throttled } else { Outcome::Retried };
                    self.metrics.requests(outcome).inc();
                    self.complain(&collection.name, &error);
                    parts.push(part);
                    let wait = error.retry_after().unwrap_or_else(|| backoff.next());
                    if class == Class::Throttle {
                        self.metrics.throttled_seconds.inc_by(wait.as_secs_f64());
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
        // A server that slept may read what is buffered when it wakes: the margin counts from its first answer too.
        let may_land_until = unanswered.map(|until| until.max(self.clock.now() + self.margin.as_millis() as u64));
        let refused_upserts = refused.iter().filter(|(key, _)| !mutations.deletes.contains(key)).count();
        collection.metrics.upserted.inc_by((mutations.upserts.len() - refused_upserts) as u64);
        collection.metrics.deleted.inc_by((mutations.deletes.len() - (refused.len() - refused_upserts)) as u64);
        collection.metrics.refused.inc_by(refused.len() as u64);
        Ok(Answer { request: request.id, table: request.table, refused, may_land_until })
    }

    async fn attempt(&self, collection: &Collection, request: &Request, part: &Part) -> Attempt {
        match part.upserts {
            true => {
                let rows = &request.mutations.upserts[part.range.clone()];
                let encoded = collection.encoder.encode(rows);
                let refused: Vec<(Key, Refusal)> =
                    encoded.refused.into_iter().map(|(index, refusal)| (rows[index].0.clone(), refusal)).collect();
                let count = rows.len() - refused.len();
                if count > 0
                    && let Err(error) = self.milvus.upsert(&collection.name, encoded.columns, count).await
                {
                    return Attempt::Failed(error);
                }
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

    /// From sending a request until it can no longer be applied, in milliseconds.
    fn late_by(&self) -> u64 {
        (self.deadline + self.margin).as_millis() as u64
    }

    fn complain(&self, collection: &str, error: &MilvusError) {
        let text = format!("{collection}: {error}");
        let new = self.trouble.send_if_modified(|trouble| {
            let new = trouble.is_none();
            *trouble = Some(text);
            new
        });
        if new {
            tracing::warn!(
                collection,
                error = error as &dyn std::error::Error,
                "milvus does not take writes, trying on"
            );
        }
    }

    fn calm(&self) {
        if self.trouble.send_if_modified(|trouble| trouble.take().is_some()) {
            tracing::info!("milvus takes writes again");
        }
    }
}
