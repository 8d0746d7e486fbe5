//! A table whose entities are numbered (`auto_id`): nobody knows which entity is which row's, so they are counted.
//!
//! Rows, a fence, entities, rows again: every row of the first count is an entity by then, and no entity is there that the second
//! count lacks. So the entities are right anywhere between the two, and writers may go on. Entities of rows that were updated or
//! deleted under `on_update_delete = "ignore"` stay, so there are at least as many as rows; rows that a policy leaves out make
//! them fewer.

use postgres_protocol::escape::escape_identifier;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::settings::{OnMisfit, OnUpdateDelete};
use crate::milvus::Milvus;
use crate::plan::TablePlan;

use super::fence::Fence;
use super::target::patiently;
use super::{TableReport, VerifyError, VerifyOptions};

pub struct Count<'a> {
    pub table: &'a TablePlan,
    pub source: &'a Client,
    pub target: &'a dyn Milvus,
    pub fence: &'a Fence<'a>,
    pub options: &'a VerifyOptions,
    /// The daemon gave the table up: nothing to wait for.
    pub stopped: bool,
    pub report: TableReport,
}

impl Count<'_> {
    pub async fn run(mut self) -> Result<TableReport, VerifyError> {
        let collection = self.table.collection.name.as_str();
        let failed = |source| VerifyError::Target { collection: collection.to_owned(), source };
        let deadline = Instant::now() + self.options.timeout;
        self.report.counted = true;
        // A TRUNCATE in between needs another round.
        for _ in 0..self.options.rounds {
            let before = self.rows().await?;
            self.report.fence_not_passed = !self.stopped && !self.fence.pass(deadline).await?;
            let entities =
                patiently(self.options.timeout, async || self.target.count(collection).await).await.map_err(failed)?;
            let after = self.rows().await?;
            (self.report.rows_compared, self.report.entities_compared) = (after, entities);
            (self.report.missing, self.report.extra) = self.differences(before, entities, after);
            if self.report.missing + self.report.extra == 0 {
                self.report.fence_not_passed = false;
                break;
            }
            if self.report.fence_not_passed {
                self.report.undecided = self.report.missing + self.report.extra;
                (self.report.missing, self.report.extra) = (0, 0);
                break;
            }
        }
        Ok(self.report)
    }

    fn differences(&self, before: u64, entities: u64, after: u64) -> (u64, u64) {
        let skips = self.table.columns.iter().any(|column| column.on_misfit == OnMisfit::SkipRow);
        let keeps = self.table.on_update_delete == OnUpdateDelete::Ignore;
        let missing = before.min(after).saturating_sub(entities);
        let extra = entities.saturating_sub(before.max(after));
        (if skips { 0 } else { missing }, if keeps { 0 } else { extra })
    }

    async fn rows(&self) -> Result<u64, VerifyError> {
        let name = format!("{}.{}", escape_identifier(&self.table.schema), escape_identifier(&self.table.name));
        let filter = self.table.row_filter.as_ref().map_or_else(String::new, |filter| format!(" WHERE {filter}"));
        let sql = format!("SELECT pg_catalog.count(*) FROM ONLY {name}{filter}");
        let rows: i64 =
            self.source.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(VerifyError::Source)?;
        Ok(rows.unsigned_abs()) // a count is not negative
    }
}
