//! How much there is to copy, from PostgreSQL's own statistics.
//!
//! Rows are those of the last ANALYZE. Bytes are what an entity has in a request: vectors and numbers by their types, everything
//! else by its average width, and by the size of the table where a value is out of line, so the sum is near and never exact.

use crate::milvus::DataType;
use crate::postgres::catalog::{Column, Table};

use super::TablePlan;

/// Of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// `None`: the table was never analysed.
    pub rows: Option<u64>,
    /// In PostgreSQL, TOAST included.
    pub table_bytes: u64,
    /// Of one entity as Milvus counts it.
    pub entity_bytes: u64,
}

/// A pointer to a value out of line has 18 bytes: such a width says nothing.
const POINTER: u32 = 18;
/// For a text of which nothing is known.
const TEXT: u64 = 32;

impl Estimate {
    pub fn of(table: &Table, plan: &TablePlan) -> Estimate {
        let column = |name: &str| table.columns.iter().find(|column| column.name == name);
        let (mut fixed, mut known, mut unknown) = (0, 0, 0);
        for planned in &plan.columns {
            let width = column(&planned.name).and_then(known_width);
            match plan.collection.fields.get(planned.field) {
                Some(field) => match (field.data_type, field.dim.map(u64::from)) {
                    (DataType::FloatVector, Some(dim)) => fixed += dim * 4,
                    (DataType::Float16Vector, Some(dim)) => fixed += dim * 2,
                    (DataType::BinaryVector, Some(dim)) => fixed += dim / 8,
                    (DataType::Bool | DataType::Int8, _) => fixed += 1,
                    (DataType::Int16, _) => fixed += 2,
                    (DataType::Int32 | DataType::Float, _) => fixed += 4,
                    (DataType::Int64 | DataType::Double, _) => fixed += 8,
                    _ => match width {
                        Some(width) => known += width,
                        None => unknown += 1,
                    },
                },
                None => known += width.unwrap_or(TEXT),
            }
        }
        let rows = table.estimated_rows;
        // What is out of line is what the table has beyond the rest, shared by those that are.
        let per_row = rows.filter(|&rows| rows > 0).map_or(0, |rows| table.bytes / rows);
        let rest = if unknown > 0 { per_row.saturating_sub(fixed + known).max(unknown * TEXT) } else { 0 };
        Estimate { rows, table_bytes: table.bytes, entity_bytes: fixed + known + rest }
    }

    /// Bytes that the copy writes.
    pub fn write_bytes(&self) -> Option<u64> {
        Some(self.rows?.saturating_mul(self.entity_bytes))
    }

    /// Seconds that writing takes at so many bytes per second.
    pub fn seconds_at(&self, bytes_per_second: u64) -> Option<u64> {
        Some(self.write_bytes()?.div_ceil(bytes_per_second.max(1)))
    }
}

fn known_width(column: &Column) -> Option<u64> {
    column.average_width.filter(|&width| width != POINTER).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{column, plan_of, settings, table, vector};
    use super::*;

    #[test]
    fn vectors_count_by_their_type_and_texts_by_their_width() {
        let mut columns = vec![column("id", "int8"), column("t", "text"), column("n", "int4"), vector("v", 100)];
        columns[1].average_width = Some(50);
        let mut table = table(columns);
        table.bytes = 1_000_000;
        let plan = plan_of(table.clone(), settings());
        let unknown = Estimate::of(&table, &plan);
        assert_eq!((unknown.rows, unknown.write_bytes(), unknown.seconds_at(1)), (None, None, None));
        table.estimated_rows = Some(1_000);
        let estimate = Estimate::of(&table, &plan);
        assert_eq!(estimate.entity_bytes, 8 + 50 + 4 + 400);
        assert_eq!((estimate.write_bytes(), estimate.seconds_at(100_000)), (Some(462_000), Some(5)));
        // A text out of line: what the table has beyond the rest.
        table.columns[1].average_width = Some(18);
        assert_eq!(Estimate::of(&table, &plan).entity_bytes, 1_000);
    }
}
