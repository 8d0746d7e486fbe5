//! Columns that the stream left out, read from the source by key. Whether what was read may be used is the engine's to say.

use crate::engine::FetchRequest;
use crate::mutation::Refusal;
use crate::plan::ColumnPlan;
use crate::postgres::fetch::{FetchShape, Fetched, Fetcher};
use crate::postgres::{PostgresError, SelectColumn};

use super::Context;

/// The columns of a mask, in order: `FetchRequest::columns` as indexes.
pub(super) fn columns_of(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |column| mask & (1 << column) != 0)
}

/// How a column of the plan is read.
pub(super) fn select(column: &ColumnPlan) -> SelectColumn {
    SelectColumn { name: column.name.clone(), printed: column.source.is_opaque() }
}

/// Read the columns that a request of the engine names, over a connection that is kept for the next one.
pub(super) async fn fetch(
    context: &Context,
    fetcher: &mut Option<Fetcher>,
    request: &FetchRequest,
) -> Result<Fetched, PostgresError> {
    let table = context.plan.table(request.table);
    let shape = FetchShape {
        schema: table.schema.clone(),
        name: table.name.clone(),
        key: table
            .key
            .columns()
            .iter()
            .map(|column| (table.columns[*column].name.clone(), table.columns[*column].type_name.clone()))
            .collect(),
        columns: columns_of(request.columns).map(|column| select(&table.columns[column])).collect(),
        filter: table.row_filter.clone(),
        is_partitioned: table.is_partitioned,
    };
    let keys: Vec<Vec<String>> = request
        .rows
        .iter()
        .map(|(_, row)| table.key.key_texts(table, row))
        .collect::<Result<_, Refusal>>()
        .expect("a row that the engine has was keyed before");
    if fetcher.is_none() {
        *fetcher = Some(Fetcher::connect(&context.settings.source).await?);
    }
    let fetcher = fetcher.as_mut().expect("just connected");
    fetcher.fetch(&shape, &keys).await
}
