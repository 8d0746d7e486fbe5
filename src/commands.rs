//! What people may ask of the running daemon, on its way from the admin server to the session that carries it out.
//!
//! Holds: a command is carried out by the session, in the order of everything else. While there is none (the source is
//! away), it waits, and its asker gives up first.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::mutation::Key;

/// Which tables or rows: all, those of a table, or one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    pub table: Option<String>,
    pub key: Option<String>,
}

impl Which {
    pub fn includes(&self, table: &str, key: &Key) -> bool {
        self.table.as_deref().is_none_or(|wanted| wanted == table)
            && self.key.as_deref().is_none_or(|wanted| wanted == key.plain())
    }
}

/// What people may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Read the rows of dead letters again and send them.
    Retry,
    /// Forget them; the rows stay absent.
    Discard,
    /// Copy the table again over its collection, and remove entities that have no row.
    Resync,
}

/// A wish on its way to the session.
#[derive(Debug)]
pub struct Command {
    pub wish: Wish,
    pub which: Which,
    pub answer: oneshot::Sender<Taken>,
}

/// What became of a wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Letters, or tables, that were meant.
    pub matched: usize,
    /// Of these, taken. A letter is not while a change of its key is on its way, which decides, or its table is stopped.
    pub taken: usize,
}

/// The asking end.
#[derive(Clone, Debug)]
pub struct Commands(mpsc::Sender<Command>);

impl Commands {
    /// And where the session gets them from.
    pub fn channel() -> (Commands, mpsc::Receiver<Command>) {
        let (sender, inbox) = mpsc::channel(16);
        (Commands(sender), inbox)
    }

    /// `None`: the pipeline has ended. The answer comes when a session has taken the command.
    pub async fn ask(&self, wish: Wish, which: Which) -> Option<Taken> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Command { wish, which, answer }).await.ok()?;
        answered.await.ok()
    }
}
