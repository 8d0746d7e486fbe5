//! How far Milvus has built the indexes: asked now and then, for people who wait to cut over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::change::TableId;
use crate::metrics::Metrics;
use crate::milvus::{IndexProgress, IndexState, Milvus};
use crate::plan::Plan;

/// How often a collection is asked for while one of its indexes is built, and when none is: rows go on coming.
const BUILDING_INTERVAL: Duration = Duration::from_secs(5);
const FINISHED_INTERVAL: Duration = Duration::from_secs(300);
/// The first answers are of an empty collection.
const EARLY: Duration = Duration::from_secs(60);

pub(super) type Indexes = BTreeMap<TableId, Vec<IndexProgress>>;

/// Ask until the receiver is gone.
pub(super) async fn watch(
    milvus: Arc<dyn Milvus>,
    plan: Arc<Plan>,
    metrics: Arc<Metrics>,
    found: watch::Sender<Indexes>,
) {
    let began = Instant::now();
    let mut due: Vec<(TableId, Instant)> =
        plan.tables.iter().filter(|table| !table.indexes.is_empty()).map(|table| (table.id, began)).collect();
    while !due.is_empty() && !found.is_closed() {
        for (id, at) in due.iter_mut().filter(|(_, at)| *at <= Instant::now()) {
            let table = plan.table(*id);
            // What cannot be asked now is asked again: writes tell what is wrong with the target.
            let Ok(progress) = milvus.index_progress(&table.collection.name).await else {
                *at = Instant::now() + BUILDING_INTERVAL;
                continue;
            };
            let finished = progress.iter().all(|index| index.state == IndexState::Finished);
            let early = began.elapsed() < EARLY;
            *at = Instant::now() + if finished && !early { FINISHED_INTERVAL } else { BUILDING_INTERVAL };
            for index in &progress {
                let pending = match index.state {
                    IndexState::Finished => 0,
                    IndexState::InProgress | IndexState::Failed(_) => {
                        index.total_rows.saturating_sub(index.indexed_rows).max(1)
                    }
                };
                metrics.index_pending_rows(&table.qualified_name(), &index.field).set(pending as i64);
            }
            found.send_modify(|found| drop(found.insert(*id, progress)));
        }
        let next = due.iter().map(|(_, at)| *at).min().unwrap_or(began);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = found.closed() => return,
        }
    }
}
