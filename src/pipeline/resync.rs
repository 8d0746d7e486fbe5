//! `walvec resync`: a table is copied again over its collection, beside the stream, and entities that have no row are
//! removed behind the copy. Readers of the collection keep what is there meanwhile.
//!
//! Asked for, it is written down and the session ends; start-up plans the copy as for a new table, and changes from before
//! that moment are skipped, because every chunk sees them (N). When the last chunk is done, the sweep goes through the
//! collection's keys page by page: a chunk is opened, the rows of these keys are looked up by a snapshot that V allows,
//! and keys without a row leave as deletes, unless the stream has touched them since.
//!
//! Holds: a key is deleted only if a valid snapshot has no row that makes exactly this key, bytewise; a table is called
//! copied only when the sweep has met the end of its collection and progress has passed what it saw (P). A sweep that was
//! interrupted begins anew.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::change::{TableId, Value};
use crate::checkpoint::Batch;
use crate::commands::{Taken, Which};
use crate::engine::{ChunkId, Visibility};
use crate::milvus::{ColumnData, Key as MilvusKey, MilvusError, Query, Selection};
use crate::mutation::Key;
use crate::postgres::PostgresError;
use crate::postgres::copy::ChunkView;
use crate::postgres::fetch::Fetcher;

use super::Context;
use super::clock::Backoff;
use super::copying::CopyNews;
use super::fetching;
use super::session::{Session, Written};

/// Keys that one step looks up.
const PAGE_KEYS: usize = 1_000;

/// A chunk of keys, opened for a sweep.
pub(super) struct Opened {
    pub(super) chunk: ChunkId,
    /// True: every key of it has its outcome. False, or gone: it must be looked up again.
    pub(super) done: oneshot::Receiver<bool>,
}

impl Session {
    /// Copy the table again. The answer comes when that is written down, which ends the session.
    pub(super) fn resync(&mut self, which: &Which, answer: oneshot::Sender<Taken>) {
        let table = which.table.as_deref().and_then(|name| self.table_of(name)).map(|table| table.id);
        let Some((table, state)) = table.and_then(|table| Some((table, self.tables.get(&table)?.clone().anew())))
        else {
            return answer.send(Taken::default()).unwrap_or_default(); // an asker that went away needs no answer
        };
        // Nothing of the old copy may be written behind the new state.
        self.asked_anew.insert(table);
        for chunk in self.copy.forget(table, None) {
            self.engine.abandon_chunk(chunk);
        }
        let (store, name) = (self.context.store.clone(), self.name(table));
        self.push_write(async move {
            store.write(Batch::new().put_table(&name, state.clone()).clear_all_letters(&name)).await?;
            Ok(Written::AskedAnew { table, state, answer })
        });
    }

    /// The chunks are done: go through the collection, once.
    pub(super) fn start_sweep(&mut self, table: TableId) {
        if !self.copy.begin_sweep(table) {
            return;
        }
        tracing::info!(table = %self.name(table), "entities that have no row are looked for");
        let (context, news) = (Arc::clone(&self.context), self.copy_say.clone());
        self.helpers.spawn(async move {
            // Its end is the session's, which nobody has to be told.
            sweep(&context, table, &news).await.unwrap_or_default();
        });
    }
}

enum Failed {
    Source(PostgresError),
    Target(MilvusError),
    /// The session is over.
    Gone,
}

impl From<PostgresError> for Failed {
    fn from(error: PostgresError) -> Failed {
        Failed::Source(error)
    }
}

impl From<MilvusError> for Failed {
    fn from(error: MilvusError) -> Failed {
        Failed::Target(error)
    }
}

/// `None`: the session is over.
async fn sweep(context: &Context, table: TableId, news: &mpsc::Sender<CopyNews>) -> Option<()> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut after: Option<MilvusKey> = None;
    let mut fetcher = None;
    loop {
        let swept = match page(context, table, after.as_ref()).await {
            Ok(keys) if keys.is_empty() => return news.send(CopyNews::Swept { table }).await.ok(),
            Ok(keys) => step(context, table, &keys, &mut fetcher, news).await.map(|done| (done, keys)),
            Err(error) => Err(error.into()),
        };
        match swept {
            Ok((true, keys)) => {
                backoff.reset();
                after = keys.into_iter().next_back().map(|key| match key {
                    Key::Int(key) => MilvusKey::Int64(key),
                    Key::Text(key) => MilvusKey::VarChar(key),
                });
            }
            Ok((false, _)) => tokio::time::sleep(backoff.next()).await,
            Err(Failed::Gone) => return None,
            Err(Failed::Source(error)) => {
                fetcher = None;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a sweep could not look rows up, trying again"
                );
                tokio::time::sleep(backoff.next()).await;
            }
            Err(Failed::Target(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a sweep could not read the collection, trying again"
                );
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// The next keys of the collection, in its order.
async fn page(context: &Context, table: TableId, after: Option<&MilvusKey>) -> Result<Vec<Key>, MilvusError> {
    let collection = &context.target.collections[table.0 as usize];
    let fields = [Arc::<str>::from(collection.primary_field.as_str())];
    let selection = Selection::After { after, limit: PAGE_KEYS };
    let columns =
        context.target.milvus.query(Query { collection: &collection.name, selection, output_fields: &fields }).await?;
    Ok(match columns.into_iter().next().map(|column| column.data) {
        Some(ColumnData::Int64(keys)) => keys.into_iter().map(Key::Int).collect(),
        Some(ColumnData::VarChar(keys)) => {
            keys.iter().map(|key| Key::Text(String::from_utf8_lossy(key).as_ref().into())).collect()
        }
        _ => Vec::new(),
    })
}

/// Delete those of the keys that have no row. False: it must be done again.
async fn step(
    context: &Context,
    table: TableId,
    keys: &[Key],
    fetcher: &mut Option<Fetcher>,
    news: &mpsc::Sender<CopyNews>,
) -> Result<bool, Failed> {
    let say = async |what: CopyNews| news.send(what).await.map_err(|_| Failed::Gone);
    let (reply, opened) = oneshot::channel();
    say(CopyNews::OpenSweep { table, reply }).await?;
    let Opened { chunk, done } = opened.await.map_err(|_| Failed::Gone)?;
    let mut waiting = Backoff::new(Duration::from_millis(2), Duration::from_millis(200));
    let absent = loop {
        let fetched = match fetching::fetch_keys(context, fetcher, table, keys).await {
            Ok(fetched) => fetched,
            Err(error) => {
                say(CopyNews::SweepFailed { chunk }).await?;
                return Err(error.into());
            }
        };
        let (reply, verdict) = oneshot::channel();
        let view = ChunkView { filenode: 0, snapshot: fetched.snapshot, insert_lsn: fetched.insert_lsn };
        say(CopyNews::Snapshot { chunk, view, reply }).await?;
        match verdict.await.map_err(|_| Failed::Gone)? {
            Visibility::Valid => break absent(keys, &fetched.rows),
            Visibility::NotYet { .. } => tokio::time::sleep(waiting.next()).await,
        }
    };
    say(CopyNews::Absent { chunk, keys: absent }).await?;
    Ok(done.await.unwrap_or(false))
}

/// A row answers to a key only when it prints the same (`postgres::fetch`).
fn absent(keys: &[Key], rows: &[(usize, Vec<Value>)]) -> Vec<Key> {
    let present: HashSet<usize> = rows.iter().map(|(index, _)| *index).collect();
    keys.iter().enumerate().filter(|(index, _)| !present.contains(index)).map(|(_, key)| key.clone()).collect()
}
