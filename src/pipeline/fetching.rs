//! Columns that the stream left out, read from the source by key. Whether what was read may be used is the engine's to say.

use crate::change::TableId;
use crate::engine::FetchRequest;
use crate::mutation::{Key, Refusal};
use crate::plan::{ColumnPlan, TablePlan};
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
    let shape = shape(table, columns_of(request.columns));
    let keys: Vec<Vec<String>> = request
        .rows
        .iter()
        .map(|(_, row)| table.key.key_texts(table, row))
        .collect::<Result<_, Refusal>>()
        .expect("a row that the engine has was keyed before");
    connected(context, fetcher).await?.fetch(&shape, &keys).await
}

/// Look rows up by their keys alone. The answer's indexes are those of `keys`; a key that no row of the table could have
/// is in none of them.
pub(super) async fn fetch_keys(
    context: &Context,
    fetcher: &mut Option<Fetcher>,
    table: TableId,
    keys: &[Key],
) -> Result<Fetched, PostgresError> {
    let table = context.plan.table(table);
    // One column, as a COPY of none would say nothing.
    let shape = shape(table, table.key.columns().iter().copied().take(1));
    let (places, texts): (Vec<usize>, Vec<Vec<String>>) =
        keys.iter().enumerate().filter_map(|(place, key)| Some((place, table.key.texts_of(key)?))).unzip();
    let mut fetched = connected(context, fetcher).await?.fetch(&shape, &texts).await?;
    fetched.rows.iter_mut().for_each(|(index, _)| *index = places[*index]);
    Ok(fetched)
}

fn shape(table: &TablePlan, columns: impl Iterator<Item = usize>) -> FetchShape {
    FetchShape {
        schema: table.schema.clone(),
        name: table.name.clone(),
        key: table
            .key
            .columns()
            .iter()
            .map(|column| (table.columns[*column].name.clone(), table.columns[*column].type_name.clone()))
            .collect(),
        columns: columns.map(|column| select(&table.columns[column])).collect(),
        filter: table.row_filter.clone(),
        is_partitioned: table.is_partitioned,
    }
}

async fn connected<'a>(context: &Context, fetcher: &'a mut Option<Fetcher>) -> Result<&'a mut Fetcher, PostgresError> {
    if fetcher.is_none() {
        *fetcher = Some(Fetcher::connect(&context.settings.source).await?);
    }
    Ok(fetcher.as_mut().expect("just connected"))
}
