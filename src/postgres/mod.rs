//! PostgreSQL as a source: catalog, publication, slot, stream, copy and fetch.
//!
//! In: `SourceSettings`. Out: what tables are (`catalog`), whether the slot may be used (`gate`), the events of the
//! stream (`stream`), the rows of chunks (`copy`) and single rows by key (`fetch`).
//!
//! Always holds: nothing here changes the source but the slot and the publication, and those only when the settings say
//! so. No lock is stronger than ACCESS SHARE, except for the instant in which a publication takes up a table. Values stay as PostgreSQL sent them: slices of the receive buffer. Every
//! session pins the settings that change what values look like (`connect`), so that stream, copy and fetch agree.
//!
//! Not here: what the values mean (`plan`, `decode`), when something is read or confirmed (`engine`, `pipeline`).
//!
//! ```text
//!  connect ──► catalog ──► publication        before anything starts
//!     │
//!     └──────► stream::Session ──► gate ──► stream::Stream ──► pgoutput ──► relation ──► Event
//!              copy, fetch, probe            beside the running stream
//! ```

pub mod array;
pub mod catalog;
pub mod connect;
pub mod copy;
pub mod decode;
pub mod fetch;
pub mod filter;
pub mod float;
pub mod gate;
pub mod pgoutput;
pub mod pgvector;
pub mod probe;
pub mod publication;
pub mod relation;
pub mod slot;
pub mod stream;

mod error;

pub use connect::{Connection, connect};
pub use error::{Disposition, PostgresError, Result};

use crate::change::Value;

/// In which form the stream is asked for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFormat {
    Binary,
    /// For a type whose binary form only PostgreSQL can read.
    Text,
}

/// A column to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectColumn {
    pub name: String,
    /// PostgreSQL prints it: its binary form cannot be read here.
    pub printed: bool,
}

impl From<&str> for SelectColumn {
    fn from(name: &str) -> SelectColumn {
        SelectColumn { name: name.to_owned(), printed: false }
    }
}

impl SelectColumn {
    /// The column for a SELECT list, of the relation that `prefix` names. `format` calls the output function, which a cast
    /// to text need not do, and makes an empty text of NULL. `IS NOT NULL` would be false for a composite with a NULL in it.
    fn expression(&self, prefix: &str) -> String {
        let column = format!("{prefix}{}", quote_ident(&self.name));
        match self.printed {
            false => column,
            true => format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {column}) END"),
        }
    }

    /// Of values that came in binary, those that PostgreSQL printed are text.
    fn mark_texts(columns: &[SelectColumn], values: &mut [Value]) {
        for (column, value) in columns.iter().zip(values) {
            if let (true, Value::Binary(text)) = (column.printed, &*value) {
                *value = Value::Text(text.clone());
            }
        }
    }
}

/// An identifier for SQL and for the replication commands: always in double quotes.
///
/// pgwire-replication 0.5 pastes slot and publication names as they are given, so a name that is not quoted is folded
/// to lower case or is a syntax error.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.table`, both quoted.
pub fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

/// A string literal for SQL, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_cannot_break_out_of_their_quotes() {
        for (name, quoted) in [("s", "\"s\""), ("My Slot", "\"My Slot\""), ("a\"; --", "\"a\"\"; --\""), ("", "\"\"")] {
            assert_eq!(quote_ident(name), quoted);
        }
        for (text, quoted) in [("a", "'a'"), ("O'Neil", "'O''Neil'"), ("\\'", "E'\\\\'''"), ("", "''")] {
            assert_eq!(quote_literal(text), quoted);
        }
        assert_eq!(quote_qualified("My", "t\"x"), "\"My\".\"t\"\"x\"");
    }
}
