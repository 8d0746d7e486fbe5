//! From a change as PostgreSQL sends it to one with its keys worked out, which is what the engine orders by.
//!
//! Pure. A key column can be missing in the new row (a TOASTed key: then the old row has it), and a `K` row does not
//! prove that the key changed: the rendered keys are compared, bytewise. Where rows have no key, an INSERT is numbered by its
//! place in the WAL, and no other change of a row can be followed.

use crate::change::{Change, Lsn, OldRow, Row, Value};
use crate::config::settings::OnUpdateDelete;
use crate::engine::KeyedChange;
use crate::mutation::Refusal;
use crate::plan::TablePlan;
use crate::plan::key::number_of_change;

/// Work out the keys, and take what a complete old row knows of the columns that the new one lacks. `None`: the change is ignored,
/// as the settings say. Errors are why the table must stop.
pub(super) fn keyed(table: &TablePlan, lsn: Lsn, change: Change) -> Result<Option<KeyedChange>, String> {
    match table.key.is_auto() {
        true => numbered(table, lsn, change),
        false => with_keys(table, change).map(Some).map_err(|refusal| format!("a row cannot have a key: {refusal}")),
    }
}

fn numbered(table: &TablePlan, lsn: Lsn, change: Change) -> Result<Option<KeyedChange>, String> {
    let what = match change {
        // An UPDATE that brings a row into the row filter comes as an INSERT, without what it left alone out of line.
        Change::Insert { new } if new.missing() != 0 => {
            "a row came without all of its values, and with `auto_id = true` they cannot be read from the table by a key"
        }
        Change::Insert { new } => return Ok(Some(KeyedChange::Insert { key: number_of_change(lsn), row: new })),
        Change::Update { .. } | Change::Delete { .. } if table.on_update_delete == OnUpdateDelete::Ignore => {
            return Ok(None);
        }
        Change::Update { .. } => "a row was updated, and with `auto_id = true` nobody knows its entity",
        Change::Delete { .. } => "a row was deleted, and with `auto_id = true` nobody knows its entity",
    };
    Err(format!(
        "{what}: `walvec resync {name}` copies the table anew; to have UPDATEs and DELETEs followed, take `auto_id` out, which needs \
         a key; to leave entities as they are, set `on_update_delete = \"ignore\"`",
        name = table.qualified_name()
    ))
}

fn with_keys(table: &TablePlan, change: Change) -> Result<KeyedChange, Refusal> {
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
