//! How a session ends: in order, or because the source is gone.
//!
//! Holds: what is handed to the next session is on disk; nothing is sent by it while a request of this one may still be applied
//! (S); a stop is called clean only if nothing is in flight and nothing at the target is newer than the checkpoint (G).

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;

use crate::change::{Lsn, TableId};
use crate::checkpoint::TableState;
use crate::pipeline::RunError;
use crate::pipeline::copying::Copy;
use crate::postgres::PostgresError;

use super::{Session, finished};

/// After a loss, requests in flight get this long to be answered before they are given up as unknown.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a session ended.
pub(in crate::pipeline) enum Ended {
    /// Stopped in order: drained, checkpointed, confirmed.
    Stopped,
    /// The source was lost.
    Lost { error: PostgresError, kept: Kept },
}

/// What the next session goes on from. Not newer than what is on disk.
pub(in crate::pipeline) struct Kept {
    pub(in crate::pipeline) checkpoint: Lsn,
    pub(in crate::pipeline) sent_limit: Lsn,
    pub(in crate::pipeline) tables: BTreeMap<TableId, TableState>,
    /// Columns that came, for which it ended.
    pub(in crate::pipeline) noticed: Vec<(TableId, Vec<String>)>,
    /// The table that it could not follow any further, and why: its collection is to be made anew.
    pub(in crate::pipeline) unfit: Option<(TableId, String)>,
    /// Nothing may be sent before: an attempt without an answer may land until then (S).
    pub(in crate::pipeline) quiet_until: u64,
}

impl Session {
    pub(super) fn begin_stop(&mut self) {
        tracing::info!("stopping: draining what is in flight");
        let grace = self.context.settings.pipeline.grace_period.as_millis() as u64;
        self.stopping = Some(self.context.clock.now() + grace);
        for table in self.tables.keys().copied().collect::<Vec<_>>() {
            for chunk in self.copy.forget(table, None) {
                self.engine.abandon_chunk(chunk);
            }
        }
        self.copy = Copy::new();
        self.copy_news.close();
    }

    pub(in crate::pipeline) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    pub(super) fn may_stop(&self) -> bool {
        self.engine.at_boundary() && self.engine.is_idle() && self.writes.is_empty()
    }

    pub(super) async fn finish_stop(mut self) -> Result<Ended, RunError> {
        let drained = self.may_stop();
        while let Some(written) = self.writes.next().await {
            self.written(written?);
        }
        self.write_checkpoint(true);
        while let Some(written) = self.writes.next().await {
            self.written(written?);
        }
        self.engine.advance(self.context.clock.now());
        let settled = drained && self.engine.settled();
        if settled {
            // Is anything at the target that a failover before the checkpoint could take back? Then T stays (G).
            let nothing_beyond = self.tables.keys().all(|id| {
                let table = self.engine.table(*id);
                table.exact && table.stopped.is_none()
            });
            self.context.store.clean_stop(nothing_beyond).await?;
        } else {
            tracing::warn!("stopped before everything was drained: it is replayed at the next start");
        }
        self.requests.abort_all();
        if let Err(error) = self.stream.shutdown(SETTLE_TIMEOUT).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the stream did not end in order");
        }
        tracing::info!(checkpoint = %self.checkpoint, "stopped");
        Ok(Ended::Stopped)
    }

    /// The source is gone: let requests in flight end, keep what they achieved, and say when the next may be sent (R, S).
    pub(super) async fn lose(mut self, error: PostgresError) -> Result<Ended, RunError> {
        self.context.metrics.lag.connected(false, std::time::Instant::now());
        let deadline = tokio::time::Instant::now() + SETTLE_TIMEOUT;
        loop {
            let answer = match tokio::time::timeout_at(deadline, self.requests.join_next()).await {
                Ok(Some(answer)) => finished(answer),
                Ok(None) | Err(_) => break,
            };
            self.answered(answer)?;
        }
        let mut unanswered = !self.requests.is_empty() || !self.truncates.is_empty();
        self.requests.abort_all();
        self.truncates.abort_all();
        self.write_checkpoint(true);
        // All of them: the next session begins with what is known to be on disk.
        while let Some(written) = self.writes.next().await {
            self.written(written?);
        }
        let now = self.context.clock.now();
        self.engine.advance(now);
        unanswered |= !self.engine.settled();
        let quiet_until = if unanswered { now + self.context.quiet_millis() } else { 0 };
        let kept = Kept {
            checkpoint: self.checkpoint,
            sent_limit: self.engine.sent_limit(),
            tables: self.tables,
            noticed: self.noticed,
            unfit: self.unfit,
            quiet_until,
        };
        Ok(Ended::Lost { error, kept })
    }
}
