//! The table `documents` and the write load on it.
//!
//! In: a cluster, sizes, a seed. Out: rows, an HNSW index, and writers that insert, change and delete until they are told to
//! stop.
//!
//! Holds: each writer has keys of its own (those congruent to its number), so that no two wait for each other in
//! opposite order; what a writer counts is what was committed.
//!
//! Of the changes, updates that leave the embedding alone are the commonest, as in life: PostgreSQL does not send the
//! embedding with them, nor with a changed key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::SinkExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, Statement};

use super::documents::{Document, Random, embedding, words};

const COLUMNS: &str = "id, title, body, tags, meta, price, created, embedding";

#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub rows: u64,
    pub dimensions: u32,
    pub seed: u64,
    /// Concurrent transactions.
    pub writers: u64,
    /// Changed rows per second, all writers together.
    pub rate: u64,
}

/// What has been committed.
#[derive(Debug, Default)]
pub struct Counts {
    pub inserts: AtomicU64,
    pub scalar_updates: AtomicU64,
    pub embedding_updates: AtomicU64,
    pub key_changes: AtomicU64,
    pub deletes: AtomicU64,
    pub transactions: AtomicU64,
    pub rollbacks: AtomicU64,
}

impl Counts {
    /// Changed rows of all kinds.
    pub fn changes(&self) -> u64 {
        [&self.inserts, &self.scalar_updates, &self.embedding_updates, &self.key_changes, &self.deletes]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

/// Creates `documents` with pgvector.
pub async fn create(client: &Client, workload: &Workload) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "create extension if not exists vector;
             create table documents (
                 id bigint primary key,
                 title text not null,
                 body text,
                 tags text[],
                 meta jsonb,
                 price numeric(10, 2),
                 created timestamptz not null default now(),
                 embedding vector({}) not null
             )",
            workload.dimensions
        ))
        .await
}

/// Fills it; `done` hears of the rows so far.
pub async fn fill(
    client: &Client,
    workload: &Workload,
    mut done: impl FnMut(u64),
) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in::<_, bytes::Bytes>(&format!("copy documents ({COLUMNS}) from stdin")).await?;
    let mut sink = std::pin::pin!(sink);
    let mut random = Random::new(workload.seed);
    let mut lines = String::new();
    for id in 1..=workload.rows {
        let created = format!("2026-{:02}-{:02} 12:{:02}:00+00", id % 12 + 1, id % 28 + 1, id % 60);
        Document::generate(id as i64, workload.dimensions, &mut random).copy_line(&created, &mut lines);
        if lines.len() >= 1 << 18 || id == workload.rows {
            sink.send(std::mem::take(&mut lines).into()).await?;
            done(id);
        }
    }
    sink.finish().await.map(drop)
}

/// Adds the HNSW index. Without parallel workers: they would need more of /dev/shm than a container has.
pub async fn build_index(client: &Client) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(
            "set maintenance_work_mem = '512MB';
             set max_parallel_maintenance_workers = 0;
             create index documents_embedding on documents using hnsw (embedding vector_cosine_ops);
             analyze documents",
        )
        .await
}

/// Writers at work. Dropped, they end with their runtime; `stop` waits for them.
pub struct Load {
    stop: watch::Sender<bool>,
    writers: Vec<JoinHandle<Result<(), tokio_postgres::Error>>>,
    pub counts: Arc<Counts>,
}

impl Load {
    /// One writer for each client.
    pub fn start(clients: Vec<Client>, workload: Workload) -> Load {
        let counts = Arc::new(Counts::default());
        let stop = watch::Sender::new(false);
        let workload = Workload { writers: clients.len() as u64, ..workload };
        let spawn = |(number, client)| {
            let writer = Writer::new(number, client, workload, Arc::clone(&counts));
            tokio::spawn(writer.run(stop.subscribe()))
        };
        let writers = (0..).zip(clients).map(spawn).collect();
        Load { stop, writers, counts }
    }

    /// Whether a writer has ended, which without `stop` only an error does.
    pub fn failed(&self) -> bool {
        self.writers.iter().any(JoinHandle::is_finished)
    }

    /// Lets every writer end its transaction; the first error of any.
    pub async fn stop(mut self) -> Result<Arc<Counts>, tokio_postgres::Error> {
        self.stop.send_replace(true);
        for writer in std::mem::take(&mut self.writers) {
            writer.await.expect("a writer does not panic and nothing aborts it before this")?;
        }
        Ok(Arc::clone(&self.counts))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.writers.iter().for_each(JoinHandle::abort);
    }
}

struct Writer {
    client: Client,
    workload: Workload,
    random: Random,
    /// Keys that this writer owns and that exist.
    keys: Vec<i64>,
    next_key: i64,
    counts: Arc<Counts>,
}

struct Statements {
    insert: Statement,
    scalar: Statement,
    embedding: Statement,
    rekey: Statement,
    delete: Statement,
}

/// What a transaction did, until it is known whether it commits.
#[derive(Default)]
struct Pending {
    added: Vec<i64>,
    removed: Vec<i64>,
    inserts: u64,
    scalar_updates: u64,
    embedding_updates: u64,
    key_changes: u64,
    deletes: u64,
}

impl Writer {
    fn new(number: u64, client: Client, workload: Workload, counts: Arc<Counts>) -> Writer {
        let keys: Vec<i64> =
            (1..=workload.rows).filter(|id| id % workload.writers == number).map(|id| id as i64).collect();
        // The first multiple above all rows, plus our number: congruent to it, as is every key after it.
        let next_key = ((workload.rows / workload.writers + 1) * workload.writers + number) as i64;
        let random = Random::new(workload.seed ^ (number + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
        Writer { client, workload, random, keys, next_key, counts }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), tokio_postgres::Error> {
        let statements = Statements {
            insert: self
                .client
                .prepare(&format!(
                    "insert into documents ({COLUMNS}) values
                     ($1, $2, $3, $4, $5::text::jsonb, $6::text::numeric, now(), $7::text::vector)"
                ))
                .await?,
            scalar: self
                .client
                .prepare(
                    "update documents set title = $2, price = coalesce(price, 0) + 1,
                     meta = meta || jsonb_build_object('touched', now()) where id = $1",
                )
                .await?,
            embedding: self.client.prepare("update documents set embedding = $2::text::vector where id = $1").await?,
            rekey: self.client.prepare("update documents set id = $2 where id = $1").await?,
            delete: self.client.prepare("delete from documents where id = $1").await?,
        };
        let mut next = Instant::now();
        while !*stop.borrow_and_update() {
            let changes = self.transaction(&statements).await?;
            // Transactions are spread so that the rate holds on average; one that was late is not made up for.
            let share = changes * self.workload.writers * 1000 / self.workload.rate.max(1);
            next = (next + Duration::from_millis(share)).max(Instant::now());
            tokio::select! {
                _ = stop.changed() => {}
                () = sleep_until(next) => {}
            }
        }
        Ok(())
    }

    /// One transaction of 1 to 20 changes; one in ten is rolled back. Returns how many it made.
    async fn transaction(&mut self, statements: &Statements) -> Result<u64, tokio_postgres::Error> {
        let size = 1 + self.random.below(20);
        let mut pending = Pending::default();
        self.client.batch_execute("begin").await?;
        for _ in 0..size {
            self.change(statements, &mut pending).await?;
        }
        if self.random.below(10) == 0 {
            self.client.batch_execute("rollback").await?;
            self.counts.rollbacks.fetch_add(1, Ordering::Relaxed);
            return Ok(size);
        }
        self.client.batch_execute("commit").await?;
        self.keys.retain(|key| !pending.removed.contains(key));
        self.keys.extend(pending.added.iter().filter(|key| !pending.removed.contains(key)));
        for (count, made) in [
            (&self.counts.inserts, pending.inserts),
            (&self.counts.scalar_updates, pending.scalar_updates),
            (&self.counts.embedding_updates, pending.embedding_updates),
            (&self.counts.key_changes, pending.key_changes),
            (&self.counts.deletes, pending.deletes),
            (&self.counts.transactions, 1),
        ] {
            count.fetch_add(made, Ordering::Relaxed);
        }
        Ok(size)
    }

    async fn change(&mut self, statements: &Statements, pending: &mut Pending) -> Result<(), tokio_postgres::Error> {
        let Writer { client, random, .. } = self;
        let Statements { insert, scalar, embedding: embed, rekey, delete } = statements;
        // A key that this transaction has removed already is picked at times: then nothing is changed, nor counted.
        let key = match random.below(4) {
            0 => pending.added.last().copied(),
            _ => None,
        };
        let key = key.or_else(|| self.keys.get(random.below(self.keys.len() as u64) as usize).copied());
        let dimensions = self.workload.dimensions;
        match (random.below(100), key) {
            (0..25, _) | (_, None) => {
                let document = Document::generate(fresh(&mut self.next_key, self.workload.writers), dimensions, random);
                let Document { id, title, body, tags, meta, price, embedding } = &document;
                client.execute(insert, &[id, title, body, tags, meta, price, embedding]).await?;
                pending.added.push(*id);
                pending.inserts += 1;
            }
            (25..65, Some(key)) => {
                pending.scalar_updates += client.execute(scalar, &[&key, &words(random, 4)]).await?;
            }
            (65..80, Some(key)) => {
                pending.embedding_updates += client.execute(embed, &[&key, &embedding(dimensions, random)]).await?;
            }
            (80..88, Some(key)) => {
                let new = fresh(&mut self.next_key, self.workload.writers);
                let changed = client.execute(rekey, &[&key, &new]).await?;
                if changed > 0 {
                    pending.removed.push(key);
                    pending.added.push(new);
                    pending.key_changes += 1;
                }
            }
            (_, Some(key)) => {
                let deleted = client.execute(delete, &[&key]).await?;
                if deleted > 0 {
                    pending.removed.push(key);
                    pending.deletes += 1;
                }
            }
        }
        Ok(())
    }
}

fn fresh(next_key: &mut i64, writers: u64) -> i64 {
    let key = *next_key;
    *next_key += writers as i64;
    key
}
