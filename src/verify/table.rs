//! One table against its collection.
//!
//! Two passes, each of constant memory. Rows: PostgreSQL's rows page by page in the order of its key, the entities of
//! these keys beside them, every mapped value compared. Entities: the collection's keys page by page in the order of its
//! key, each looked up in the table. So the two sides need not agree on an order, whatever the collation of the key.
//!
//! What differs may be lag, so it is only suspected; suspects are judged in rounds. Of each: the version of its row
//! (ctid and xmin), a fence, the entity, the row. Entity equals row: no difference. Row unchanged from before the fence
//! until after the entity was read: a difference, because everything committed before the fence was acknowledged by then.
//! Row changed meanwhile: another round. A row that is absent has no version, and could have come and gone in between: an
//! entity without a row is judged by two rounds that agree.
//!
//! A row inserted or changed behind the pass is not looked at again: what is said holds for the rows that were there.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::milvus::Key;
use crate::plan::{SourceType, TablePlan};

use super::compare::Expected;
use super::fence::Fence;
use super::key;
use super::source::{Source, SourceRow};
use super::target::{Entities, Target};
use super::{Difference, DifferenceKind, Progress, Step, TableReport, VerifyError, VerifyOptions};

/// Text of rows that one page aims at.
const PAGE_BYTES: usize = 8 << 20;
const PAGE_ROWS_MAX: usize = 1000;
/// Keys that one page of the collection aims at.
const PAGE_KEYS_MAX: usize = 5000;
const PAGE_KEYS_BYTES: usize = 4 << 20;
/// When so many keys are suspected, they are judged before the pass goes on.
const SUSPECTS_MAX: usize = 10_000;
const SUSPECTS_BYTES_MAX: usize = 8 << 20;

pub struct Comparison<'a> {
    pub table: &'a TablePlan,
    pub source: Source<'a>,
    pub target: Target<'a>,
    pub fence: &'a Fence<'a>,
    pub options: &'a VerifyOptions,
    /// The daemon gave the table up: nothing to wait for.
    pub stopped: bool,
    pub report: TableReport,
}

#[derive(Default)]
struct Suspects {
    keys: Vec<Key>,
    bytes: usize,
}

impl Suspects {
    fn add(&mut self, key: Key) {
        self.bytes += key::size(&key);
        self.keys.push(key);
    }

    fn is_full(&self) -> bool {
        self.keys.len() >= SUSPECTS_MAX || self.bytes >= SUSPECTS_BYTES_MAX
    }
}

/// How one key compares.
enum Finding {
    Equal,
    Missing,
    Extra,
    /// Indexes of the plan's columns.
    Different(Vec<usize>),
    /// The server has several entities of the key.
    Doubled,
}

impl Comparison<'_> {
    pub async fn run(mut self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<TableReport, VerifyError> {
        self.rows(progress).await?;
        self.entities(progress).await?;
        Ok(self.report)
    }

    async fn rows(&mut self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), VerifyError> {
        let mut suspects = Suspects::default();
        let mut limit = page_rows(self.estimated_row_bytes());
        let mut page = self.source.page(None, limit).await?;
        while let Some((last, _)) = page.last() {
            let keys = page.iter().map(|(texts, _)| self.source.entity_key(texts)).collect::<Result<Vec<_>, _>>()?;
            let (next, entities) = tokio::join!(self.source.page(Some(last), limit), self.target.entities(&keys));
            let entities = entities?;
            let mut bytes = 0;
            for (key, (_, row)) in keys.into_iter().zip(&page) {
                bytes += row.size(self.table.columns.len())?;
                if !matches!(self.compare(&key, Some(row), &entities)?, Finding::Equal) {
                    suspects.add(key);
                }
            }
            self.report.rows_compared += page.len() as u64;
            progress(Progress { table: &self.report.table, step: Step::Rows, done: self.report.rows_compared });
            if suspects.is_full() {
                self.judge(std::mem::take(&mut suspects), Step::Rows, progress).await?;
            }
            limit = page_rows(bytes / page.len());
            page = next?;
        }
        self.judge(suspects, Step::Rows, progress).await
    }

    async fn entities(&mut self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), VerifyError> {
        let mut suspects = Suspects::default();
        let mut limit = PAGE_KEYS_MAX;
        let mut page = self.target.keys_after(None, limit).await?;
        while let Some(last) = page.last() {
            let (next, rows) = tokio::join!(self.target.keys_after(Some(last), limit), self.source.versions(&page));
            let rows = rows?;
            let bytes: usize = page.iter().map(key::size).sum();
            limit = (PAGE_KEYS_BYTES / (bytes / page.len()).max(1)).clamp(1, PAGE_KEYS_MAX);
            self.report.entities_compared += page.len() as u64;
            for key in page {
                if !rows.contains_key(&key) {
                    suspects.add(key);
                }
            }
            progress(Progress { table: &self.report.table, step: Step::Entities, done: self.report.entities_compared });
            if suspects.is_full() {
                self.judge(std::mem::take(&mut suspects), Step::Entities, progress).await?;
            }
            page = next?;
        }
        self.judge(suspects, Step::Entities, progress).await
    }

    /// Tell lag from difference. Nothing is counted twice: an entity without a row is left to the pass over entities.
    async fn judge(
        &mut self,
        suspects: Suspects,
        pass: Step,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), VerifyError> {
        let deadline = Instant::now() + self.options.timeout;
        let mut open = suspects.keys;
        let mut absent_before: BTreeSet<Key> = BTreeSet::new();
        let chunk = page_rows(self.estimated_row_bytes());
        self.report.rechecked += open.len() as u64;
        for _ in 0..self.options.rounds {
            if open.is_empty() {
                return Ok(());
            }
            progress(Progress { table: &self.report.table, step: Step::Recheck, done: open.len() as u64 });
            let mut versions = BTreeMap::new();
            for keys in open.chunks(chunk) {
                versions.extend(self.source.versions(keys).await?);
            }
            if !self.stopped && !self.fence.pass(deadline).await? {
                self.report.fence_not_passed = true;
                break;
            }
            let mut undecided = Vec::new();
            let mut absent = BTreeSet::new();
            for keys in open.chunks(chunk) {
                let entities = self.target.entities(keys).await?;
                let rows = self.source.whole(keys).await?;
                for key in keys {
                    let row = rows.get(key);
                    let finding = self.compare(key, row.map(|(_, row)| row), &entities)?;
                    match finding {
                        Finding::Equal => {}
                        Finding::Extra if pass == Step::Rows => {}
                        Finding::Extra if !absent_before.contains(key) => {
                            if !versions.contains_key(key) {
                                absent.insert(key.clone());
                            }
                            undecided.push(key.clone());
                        }
                        _ if versions.get(key) == row.map(|(version, _)| version) => self.report(key, finding),
                        _ => undecided.push(key.clone()),
                    }
                }
            }
            absent_before = absent;
            open = undecided;
        }
        for key in &open {
            self.report.undecided += 1;
            self.list(key, DifferenceKind::Undecided, Vec::new());
        }
        Ok(())
    }

    fn compare(&self, key: &Key, row: Option<&SourceRow>, entities: &Entities) -> Result<Finding, VerifyError> {
        let skips = row.map(|row| self.skipping(row)).transpose()?.unwrap_or_default();
        let (row, place) = match (row, entities.find(key)) {
            (None, None) => return Ok(Finding::Equal),
            (Some(_), None) if !skips.is_empty() => return Ok(Finding::Equal),
            (Some(_), None) => return Ok(Finding::Missing),
            (Some(_), Some(_)) if !skips.is_empty() => return Ok(Finding::Different(skips)),
            (None, Some(_)) => return Ok(Finding::Extra),
            (Some(_), Some(place)) if place.doubled => return Ok(Finding::Doubled),
            (Some(row), Some(place)) => (row, place),
        };
        let mut different = Vec::new();
        for i in 0..self.table.columns.len() {
            let (field, entity) = self.target.field(entities, place, i);
            if !field.equals(entity, self.expected(i), row.text(i)?) {
                different.push(i);
            }
        }
        Ok(if different.is_empty() { Finding::Equal } else { Finding::Different(different) })
    }

    /// Columns because of which the row is to be left out, by the policy of their fields.
    fn skipping(&self, row: &SourceRow) -> Result<Vec<usize>, VerifyError> {
        let mut skipping = Vec::new();
        for i in 0..self.table.columns.len() {
            if self.expected(i).skips(row.text(i)?) {
                skipping.push(i);
            }
        }
        Ok(skipping)
    }

    fn expected(&self, i: usize) -> Expected<'_> {
        let column = &self.table.columns[i];
        Expected { column, field: self.table.collection.fields.get(column.field) }
    }

    fn report(&mut self, key: &Key, finding: Finding) {
        let report = &mut self.report;
        let (count, kind, fields) = match finding {
            Finding::Equal => return,
            Finding::Missing => (&mut report.missing, DifferenceKind::Missing, Vec::new()),
            Finding::Extra => (&mut report.extra, DifferenceKind::Extra, Vec::new()),
            Finding::Doubled => (&mut report.different, DifferenceKind::Doubled, Vec::new()),
            Finding::Different(columns) => {
                let fields = columns.into_iter().map(|column| self.target.field_name(column).to_owned()).collect();
                (&mut report.different, DifferenceKind::Different, fields)
            }
        };
        *count += 1;
        self.list(key, kind, fields);
    }

    fn list(&mut self, key: &Key, kind: DifferenceKind, fields: Vec<String>) {
        if self.report.differences.len() < self.options.list_max {
            self.report.differences.push(Difference { key: key::display(key), kind, fields });
        }
    }

    /// Before the first page is read: vectors are printed with about twelve characters an element.
    fn estimated_row_bytes(&self) -> usize {
        let columns = self.table.columns.iter().map(|column| match column.source {
            SourceType::Vector { dim } | SourceType::HalfVec { dim } => dim as usize * 12,
            _ => 64,
        });
        columns.sum()
    }
}

fn page_rows(row_bytes: usize) -> usize {
    (PAGE_BYTES / row_bytes.max(1)).clamp(1, PAGE_ROWS_MAX)
}
