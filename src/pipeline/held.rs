//! The copy of tables whose rows are numbered (`auto_id`): under one snapshot, which is taken before the first event is read and held
//! until the last row is.
//!
//! ```text
//!  stream started ─► X ─► snapshot, locks ─► what it sees is skipped, on disk ─► first event
//! ```
//!
//! Rows without a key cannot be dropped because the stream has touched them, so copy and stream must part exactly: a
//! transaction that the snapshot sees is the copy's, every other one is the stream's. What both brought would be two entities,
//! what neither brought would be missing for good. It is not enough to part them by LSN: a commit is in the WAL before it is
//! visible, so transactions become visible in another order than the stream has them (V).
//!
//! Holds: the snapshot sees everything from before the stream began (xmin ≥ X). What is to be skipped is on disk before a row of it is
//! sent, and T covers it (G). A copy that was interrupted begins anew, in an empty collection: another snapshot would part them
//! elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::change::{FullXid, Oid, Skip, TableId};
use crate::checkpoint::TableState;
use crate::plan::key::number_of_copied;
use crate::plan::{Plan, TablePlan};
use crate::postgres::copy::HeldSnapshot;
use crate::postgres::stream::Stream;
use crate::postgres::{self, Disposition, PostgresError, SelectColumn};

use super::clock::Backoff;
use super::copying::{self, Assignment, CopyNews};
use super::fetching::select;
use super::{Process, RunError, startup};

/// Less than PostgreSQL's default `deadlock_timeout` (`HeldSnapshot::take`).
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Take the snapshot, if a table is left that needs it, and have the stream skip what it sees. `visible_from` is X of rule V.
///
/// # Errors
/// `CopyBlocked`, which is transient, when the source's transactions or locks did not let us within `slot_lock_timeout`.
pub(super) async fn take(
    process: &mut Process,
    plan: &Plan,
    states: &mut BTreeMap<TableId, TableState>,
    visible_from: FullXid,
    stream: &mut Stream,
) -> Result<Option<HeldSnapshot>, RunError> {
    let is_left = |table: &&TablePlan| table.key.is_auto() && states.get(&table.id).is_some_and(|state| !state.copied);
    let left: Vec<&TablePlan> = plan.tables.iter().filter(is_left).collect();
    if left.is_empty() {
        return Ok(None);
    }
    let settings = Arc::clone(&process.settings);
    let oids: Vec<Oid> = left.iter().map(|table| table.oid).collect();
    let held = wait_for_snapshot(&settings.source, &oids, visible_from).await?;
    let skip = Skip { until: held.insert_lsn(), snapshot: Some(held.snapshot().clone()) };
    // A server that lost some of what is skipped would write others in their place (G).
    process.store.raise_sent_limit(skip.until).await?;
    if let Some(source) = &mut process.source {
        source.sent_limit = source.sent_limit.max(skip.until);
    }
    let sql = postgres::connect(&settings.source, "copy plan").await?;
    for table in left {
        let name = table.qualified_name();
        // From its file under the lock, which stays.
        let leaf = startup::plan_leaf(&sql, table.oid, settings.pipeline.chunk_bytes).await?;
        let Some(state) = states.get_mut(&table.id) else { continue };
        (state.skip, state.leaves) = (skip.clone(), vec![leaf]);
        process.store.put_table(&name, state.clone()).await?;
        process.tables.insert(name.clone(), state.clone());
        stream.skip(table.id, skip.clone());
        tracing::info!(table = %name, insert_lsn = %skip.until, "copied under one snapshot, as its rows have no key: VACUUM waits for that");
    }
    Ok(Some(held))
}

/// Nothing is held back while we wait.
async fn wait_for_snapshot(
    source: &crate::config::SourceSettings,
    oids: &[Oid],
    visible_from: FullXid,
) -> Result<HeldSnapshot, PostgresError> {
    let began = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(500));
    loop {
        let blocking = match HeldSnapshot::take(source, oids, LOCK_TIMEOUT).await {
            Ok(held) if held.snapshot().xmin >= visible_from => return Ok(held),
            Ok(held) => Some(held.snapshot().xmin),
            Err(error) if error.sqlstate() == Some("55P03") => None,
            Err(error) => return Err(error),
        };
        let waited = began.elapsed();
        if waited > source.slot_lock_timeout {
            let by = match blocking {
                Some(xid) => copying::describe_blockers(source, xid).await,
                None => "a lock on one of them".to_owned(),
            };
            return Err(PostgresError::CopyBlocked { waited, by });
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Read the chunks of the snapshot's tables, until nothing of them is left.
pub(super) async fn read(held: HeldSnapshot, plan: Arc<Plan>, news: mpsc::Sender<CopyNews>) {
    // An error of `send` says that the session is over, which is nothing to tell anybody.
    while let Ok(assignment) = ask(&news).await {
        if read_chunk(&held, &plan, assignment, &news).await.is_err() {
            return;
        }
    }
}

/// The session is over, or has no more work.
struct Over;

async fn ask(news: &mpsc::Sender<CopyNews>) -> Result<Assignment, Over> {
    let (reader, answer) = oneshot::channel();
    news.send(CopyNews::Idle { held: true, reader }).await.map_err(|_| Over)?;
    answer.await.map_err(|_| Over)
}

async fn read_chunk(
    held: &HeldSnapshot,
    plan: &Plan,
    Assignment { chunk, work }: Assignment,
    news: &mpsc::Sender<CopyNews>,
) -> Result<(), Over> {
    let say = async |what: CopyNews| news.send(what).await.map_err(|_| Over);
    let table = plan.table(work.table);
    let columns: Vec<SelectColumn> = table.columns.iter().map(select).collect();
    let filter = table.row_filter.as_deref();
    match held.read_rows(work.leaf, &columns, filter, copying::range(work.range)).await {
        Ok(read) => {
            let numbers = read.tids.iter().map(|tid| number_of_copied(tid.block, tid.offset));
            let rows = numbers.zip(read.rows.into_iter().map(Some)).collect();
            say(CopyNews::HeldSnapshot { chunk, insert_lsn: held.insert_lsn() }).await?;
            say(CopyNews::Rows { chunk, rows, bytes: read.bytes }).await
        }
        Err(error) if error.disposition() == Disposition::Definite => say(CopyNews::Failed { chunk, error }).await,
        Err(error) => {
            say(CopyNews::HeldSnapshotLost { error }).await?;
            Err(Over)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::change::{Lsn, Snapshot};

    use super::*;

    /// A transaction as PostgreSQL lives it, in moments: its id is given, its commit record is written, it becomes visible.
    /// Its commit record starts at the LSN of that moment, and its id is the moment at which it was given.
    #[derive(Clone, Copy, Debug)]
    struct Transaction {
        assigned: u64,
        committed: u64,
        visible: u64,
    }

    fn transactions() -> impl Strategy<Value = Vec<Transaction>> {
        let one =
            (1u64..60, 1u64..30, prop_oneof![Just(0u64), 0u64..30]).prop_map(|(assigned, runs, waits)| Transaction {
                assigned,
                committed: assigned + runs,
                visible: assigned + runs + waits, // a synchronous standby is waited for
            });
        proptest::collection::vec(one, 1..12).prop_map(|mut all| {
            all.sort_by_key(|transaction| transaction.assigned);
            all.dedup_by_key(|transaction| transaction.assigned);
            all
        })
    }

    fn snapshot_at(all: &[Transaction], moment: u64) -> Snapshot {
        let running: Vec<FullXid> =
            all.iter().filter(|t| t.assigned < moment && t.visible >= moment).map(|t| t.assigned).collect();
        Snapshot { xmin: running.first().copied().unwrap_or(moment), xmax: moment, running }
    }

    /// How often each transaction's rows arrive, of a copy at the first valid snapshot after `x`, with a stream from `start` on.
    fn arrivals(all: &[Transaction], start: u64, x: FullXid, skip: impl Fn(u64, Snapshot) -> Skip) -> Vec<usize> {
        let taken = (start.max(x) + 1..).find(|&moment| snapshot_at(all, moment).xmin >= x).expect("all end");
        let skip = skip(taken, snapshot_at(all, taken));
        all.iter()
            .map(|t| {
                let copied = t.visible < taken;
                let streamed = t.committed >= start && !skip.covers(Lsn(t.committed), t.assigned as u32);
                usize::from(copied) + usize::from(streamed)
            })
            .collect()
    }

    fn by_snapshot(taken: u64, snapshot: Snapshot) -> Skip {
        Skip { until: Lsn(taken), snapshot: Some(snapshot) }
    }

    proptest! {
        /// X is an id given after the stream began.
        #[test]
        fn copy_and_stream_part_at_the_snapshot(all in transactions(), start in 1u64..70, later in 1u64..5) {
            prop_assert!(arrivals(&all, start, start + later, by_snapshot).iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn without_x_or_parted_by_lsn_alone_rows_are_lost() {
        // Its commit is before the stream, and it is not visible when the snapshot is taken.
        let hidden = [Transaction { assigned: 1, committed: 3, visible: 20 }];
        assert_eq!(arrivals(&hidden, 5, 0, by_snapshot), [0]);
        assert_eq!(arrivals(&hidden, 5, 6, by_snapshot), [1]);
        // The snapshot waits for the first. The second's commit is before its LSN then, and becomes visible behind it.
        let late = [
            Transaction { assigned: 3, committed: 9, visible: 10 },
            Transaction { assigned: 5, committed: 8, visible: 30 },
        ];
        let by_lsn = |taken, _| Skip { until: Lsn(taken), snapshot: None };
        assert_eq!(arrivals(&late, 1, 4, by_lsn), [1, 0]);
        assert_eq!(arrivals(&late, 1, 4, by_snapshot), [1, 1]);
    }
}
