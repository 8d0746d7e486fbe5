//! Dead letters in a session: written when the engine says so, tried again or discarded when a person does.
//!
//! Holds: what `Letters` lists is on disk, and the engine learns only then (E).

use crate::change::{Row, TableId, Value};
use crate::commands::{Taken, Which};
use crate::engine::{DeadRow, LetterId};
use crate::letters::{Letter, Origin};
use crate::mutation::Key;
use crate::plan::TablePlan;

use super::report::unix_seconds;
use super::session::{Session, Written};

impl Session {
    /// Write the letter down. The count of attempts goes on where an earlier letter of the key is.
    pub(super) fn keep_letter(&mut self, id: LetterId, dead: DeadRow) {
        if self.asked_anew.contains(&dead.table) {
            return; // its letters are being forgotten, and the session ends
        }
        let table = self.context.plan.table(dead.table);
        let name = table.qualified_name();
        let before = self.context.letters.get(&name, &dead.key);
        let letter = Letter {
            field: dead.refusal.field,
            reason: dead.refusal.reason,
            lsn: dead.position.to_string(),
            origin: if dead.copied && before.is_none() { Origin::Copy } else { Origin::Stream },
            unix_seconds: before.as_ref().map_or_else(unix_seconds, |before| before.unix_seconds),
            attempts: before.map_or(0, |before| before.attempts).saturating_add(1),
            payload: payload(table, &dead.row, self.context.settings.pipeline.dead_letter_payload_bytes),
        };
        tracing::warn!(
            table = %name, key = %dead.key, field = letter.field, reason = letter.reason, lsn = letter.lsn,
            "row refused: it is a dead letter now, and absent from the collection"
        );
        self.context.target.collections[dead.table.0 as usize].metrics.dead_lettered.inc();
        let (store, key) = (self.context.store.clone(), dead.key);
        self.push_write(async move {
            store.keep_letter(&name, key.clone(), letter.clone()).await?;
            Ok(Written::LetterKept { id, name, key, letter })
        });
    }

    /// `None`: all letters of the table.
    pub(super) fn clear_letters(&mut self, id: Option<LetterId>, table: TableId, key: Option<Key>) {
        let (store, name) = (self.context.store.clone(), self.name(table));
        self.push_write(async move {
            match key.clone() {
                Some(key) => store.clear_letters(&name, vec![key]).await?,
                None => store.clear_all_letters(&name).await?,
            }
            Ok(Written::LettersCleared { id, name, key })
        });
    }

    /// Read the rows again and send them.
    pub(super) fn retry_letters(&mut self, which: &Which) -> Taken {
        let matching = self.context.letters.matching(which);
        let mut taken = Taken { matched: matching.len(), taken: 0 };
        for (name, key) in matching {
            let Some(table) = self.table_of(&name) else { continue };
            let Some(row) = row_of(table, &key) else { continue };
            let id = table.id;
            taken.taken += usize::from(self.engine.retry_letter(id, key, row));
        }
        if taken.taken > 0 {
            tracing::info!(letters = taken.taken, "dead letters are read again");
        }
        taken
    }

    /// Give the rows up.
    pub(super) fn discard_letters(&mut self, which: &Which) -> Taken {
        let matching = self.context.letters.matching(which);
        let mut taken = Taken { matched: matching.len(), taken: 0 };
        for (name, key) in matching {
            let Some(id) = self.table_of(&name).map(|table| table.id) else { continue };
            tracing::warn!(table = %name, %key, "dead letter discarded: the row stays absent until it changes");
            self.engine.discard_letter(id, &key);
            self.clear_letters(None, id, Some(key));
            taken.taken += 1;
        }
        taken
    }

    /// A table that is no longer configured keeps its letters until it is copied anew.
    pub(super) fn table_of(&self, name: &str) -> Option<&TablePlan> {
        self.context.plan.tables.iter().find(|table| table.qualified_name() == name)
    }
}

/// The row of a key, of which only the key is known.
fn row_of(table: &TablePlan, key: &Key) -> Option<Row> {
    let texts = table.key.texts_of(key)?;
    let mut values = vec![Value::UnchangedToast; table.columns.len()];
    for (&column, text) in table.key.columns().iter().zip(texts) {
        *values.get_mut(column)? = Value::Text(text.into());
    }
    Some(Row(values.into()))
}

/// The row's values as text, cut at a character where `bytes` end.
fn payload(table: &TablePlan, row: &Row, bytes: usize) -> Vec<(String, String)> {
    let mut left = bytes;
    let mut payload = Vec::new();
    for (column, value) in table.columns.iter().zip(row.0.iter()) {
        if left == 0 {
            break;
        }
        let Ok(Some(text)) = column.source.text(value) else { continue }; // NULL, or what cannot be read
        let text = String::from_utf8_lossy(&text);
        let end = text.floor_char_boundary(left);
        left -= end;
        payload.push((column.name.clone(), text[..end].to_owned()));
    }
    payload
}
