//! Dimensions that nobody declared: a column `vector` without `(n)` is measured on one of its values.

use super::{Column, PgType, Table, TypeKind};
use crate::postgres::{Connection, PostgresError, Result, quote_ident, quote_qualified};

const DOING: &str = "measure a vector";

/// How far into a table a value is looked for: a column of NULLs must not cost a scan of the whole table.
const BLOCKS: u32 = 4_096;

/// Fills `sampled_dimension` of the columns that need it.
pub(super) async fn sample_dimensions(connection: &Connection, table: &mut Table) -> Result<()> {
    // Under row security our session is refused (row_security = off); the plan refuses such a table anyway.
    if !table.can_select || table.row_security_applies {
        return Ok(());
    }
    let from = quote_qualified(&table.schema, &table.name);
    for column in &mut table.columns {
        let Some(expression) = dimension_of(column) else { continue };
        let name = quote_ident(&column.name);
        // A Tid Range Scan: no block beyond these is read.
        let sql = format!(
            "SELECT {expression} FROM {from} WHERE ctid < '({BLOCKS},0)'::pg_catalog.tid AND {name} IS NOT NULL LIMIT 1"
        );
        let rows = connection.simple(DOING, &sql).await?;
        column.sampled_dimension = match rows.first().map(Vec::as_slice) {
            Some([Some(text)]) => Some(text.parse().map_err(|_| PostgresError::Answer {
                doing: DOING,
                what: format!("column {name} of {from} has {text:?} dimensions"),
            })?),
            _ => None,
        };
    }
    Ok(())
}

/// SQL for the dimensions of a value of the column; `None` when it is no vector or declares them.
fn dimension_of(column: &Column) -> Option<String> {
    let mut data_type: &PgType = &column.data_type;
    let mut declared = column.typmod >= 0;
    loop {
        declared |= data_type.typmod >= 0;
        match &data_type.kind {
            TypeKind::Domain(base) => data_type = base,
            TypeKind::Base if !declared && data_type.extension.as_deref() == Some("vector") => break,
            _ => return None,
        }
    }
    let name = quote_ident(&column.name);
    match &*data_type.name {
        // A domain is not found by the function's name alone: the argument is cast to its base.
        kind @ ("vector" | "halfvec") => {
            let schema = quote_ident(&data_type.schema);
            Some(format!("{schema}.vector_dims({name}::{schema}.{kind})"))
        }
        // `{1:0.5}/7`
        "sparsevec" => Some(format!("pg_catalog.split_part(pg_catalog.format('%s', {name}), '/', 2)")),
        _ => None,
    }
}
