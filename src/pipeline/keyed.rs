//! From a change as PostgreSQL sends it to one with its keys worked out, which is what the engine orders by.
//!
//! Pure. A key column can be missing in the new row (a TOASTed key: then the old row has it), and a `K` row does not
//! prove that the key changed: the rendered keys are compared, bytewise.

use crate::change::{Change, OldRow, Row, Value};
use crate::engine::KeyedChange;
use crate::mutation::Refusal;
use crate::plan::TablePlan;

/// Work out the keys, and take what a complete old row knows of the columns that the new one lacks.
pub(super) fn keyed(table: &TablePlan, change: Change) -> Result<KeyedChange, Refusal> {
    match change {
        Change::Insert { new } => {
            let key = table.key.key(table, &new)?;
            Ok(KeyedChange::Insert { key, row: new })
        }
        Change::Delete { old: OldRow::Key(row) | OldRow::Full(row) } => {
            Ok(KeyedChange::Delete { key: table.key.key(table, &row)? })
        }
        Change::Update { old: None, new } => {
            let key = table.key.key(table, &new)?;
            Ok(KeyedChange::Update { old_key: None, key, row: new })
        }
        Change::Update { old: Some(old), mut new } => {
            match &old {
                OldRow::Key(old) => fill(&mut new, old, table.key.columns().iter().copied()),
                OldRow::Full(old) => fill(&mut new, old, 0..table.columns.len()),
            }
            let (OldRow::Key(old) | OldRow::Full(old)) = &old;
            let old_key = table.key.key(table, old)?;
            let key = table.key.key(table, &new)?;
            let old_key = if old_key == key { None } else { Some(old_key) };
            Ok(KeyedChange::Update { old_key, key, row: new })
        }
    }
}

fn fill(new: &mut Row, old: &Row, columns: impl Iterator<Item = usize>) {
    for column in columns {
        if let (Some(value @ Value::UnchangedToast), Some(old)) = (new.0.get_mut(column), old.0.get(column)) {
            *value = old.clone();
        }
    }
}
