//! What must be true after every step, and at rest.
//!
//! - Progress never goes back and never passes a change that no acknowledgement covers.
//! - A table called *exact* is the source's table at the position that the stream has reached.
//! - A table called *following*: every key shows a state that the source had between progress and that position. A key
//!   that was fetched may be newer, or wait for the deletion that its fetch has seen, until progress is past the fetch.
//! - At rest the target equals the source but for rows that it will not take: these are absent, and each has a letter, progress is at its end and the memory budget is free.

use crate::change::{Lsn, TableId};

use super::daemon::Daemon;
use super::script::{KEYS, SCALAR};
use super::source::SourceRow;
use super::target::Entity;
use super::world::World;

impl World {
    pub(super) fn check(&mut self) -> Result<(), String> {
        let Some(daemon) = self.daemon.as_mut() else { return Ok(()) };
        let Some(engine) = &daemon.engine else { return Ok(()) };
        let progress = engine.progress();
        if progress < daemon.last_progress {
            return Err(format!("progress went back from {} to {}", daemon.last_progress.0, progress.0));
        }
        daemon.last_progress = progress;
        if let Some(owed) = daemon.owed.iter().find(|owed| owed.end_lsn <= progress) {
            return Err(format!(
                "progress {} passed the transaction that ends at {}, whose change of table {} key {:?} is not acknowledged",
                progress.0, owed.end_lsn.0, owed.table, owed.key
            ));
        }
        let daemon = self.daemon.as_ref().expect("just seen");
        for table in 0..self.tables {
            self.check_table(daemon, table, progress)?;
        }
        Ok(())
    }

    fn check_table(&self, daemon: &Daemon, table: usize, progress: Lsn) -> Result<(), String> {
        let (Some(engine), Some(stream)) = (&daemon.engine, &daemon.stream) else { return Ok(()) };
        let status = engine.table(TableId(table as u32));
        // After a crash of the server the stream's position is one in a history that is gone.
        if !status.following || stream.generation != self.source.generation {
            return Ok(());
        }
        let reached = stream.next.max(self.source.first_after(progress));
        let events = if reached == stream.next { stream.events } else { 0 };
        for key in 0..KEYS {
            let shown = self.target.collections[table][key];
            let shows = |row: Option<SourceRow>| self.entity(row) == self.shown(shown);
            if status.exact {
                let state = self.source.states(progress, reached, events).last().expect("at least one state");
                if !shows(state[table][key]) {
                    return Err(format!("table {table} is called exact, but key {key} shows {shown:?}"));
                }
            }
            let in_range = self.source.states(progress, reached, events).any(|state| shows(state[table][key]));
            let fetched = daemon.fetched_at[table][key] > progress;
            let dead = self.may_be_dead(table, key, progress, shown);
            if !(in_range || dead || fetched && self.may_wait_for_its_fetch(table, key, progress, shown)) {
                return Err(format!(
                    "table {table} is called following at progress {}, but key {key} shows {shown:?}, a state that the \
                     source did not have since",
                    progress.0
                ));
            }
        }
        Ok(())
    }

    /// A key that was fetched may show columns that are newer than what the stream has reached, or be gone early, or
    /// keep its last state until the deletion that the fetch has seen arrives. But never a row that the source deleted
    /// before `progress`: its scalar is of the life that the key had then, or of a later one.
    fn may_wait_for_its_fetch(&self, table: usize, key: usize, progress: Lsn, shown: Option<Entity>) -> bool {
        let Some(shown) = shown else { return true };
        let end = self.source.committed.len();
        let past = self.source.states(Lsn::ZERO, self.source.first_after(progress), 0);
        let past: Vec<Option<Entity>> = past.map(|state| self.entity(state[table][key])).collect();
        let life = past.iter().rev().take_while(|entity| entity.is_some()).flatten().copied();
        let later = self.source.states(progress, end, 0).filter_map(|state| self.entity(state[table][key]));
        life.chain(later).any(|entity| entity[SCALAR] == shown[SCALAR])
    }

    /// A row that the target will not take is absent, from its refusal on, as long as it is the key's state or one to come.
    fn may_be_dead(&self, table: usize, key: usize, progress: Lsn, shown: Option<Entity>) -> bool {
        let end = self.source.committed.len();
        let mut states = self.source.states(progress, end, 0).filter_map(|state| self.entity(state[table][key]));
        self.dead_letters && shown.is_none() && states.any(|entity| self.source.is_poisoned(entity[SCALAR]))
    }

    /// What the collection should show for a row.
    fn entity(&self, row: Option<SourceRow>) -> Option<Entity> {
        self.shown(row.filter(|row| row.published).map(|row| row.values))
    }

    fn shown(&self, entity: Option<Entity>) -> Option<Entity> {
        entity.map(|mut entity| {
            entity[self.codec.columns()..].fill(0);
            entity
        })
    }

    /// The script is over, everything is visible, flushed, streamed, copied and acknowledged.
    pub(super) fn is_at_rest(&self) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let Some(engine) = &daemon.engine else { return false };
        self.source.script_is_over()
            && self.source.committed.iter().all(|transaction| transaction.visible)
            && self.source.flushed_lsn == self.source.insert_lsn
            && daemon.stream.as_ref().is_some_and(|stream| {
                stream.generation == self.source.generation && stream.next == self.source.committed.len()
            })
            && !daemon.has_effects
            && daemon.copied.iter().take(self.tables).all(|&copied| copied)
            && !(0..self.tables).any(|table| self.is_let_go(table))
            && engine.is_idle()
            && engine.settled()
            && self.target.late.is_empty()
            && !(self.target.healed && self.disk.latest().letters.iter().flatten().any(|&kept| kept))
            && engine.progress() >= self.source.committed.last().map_or(Lsn::ZERO, |transaction| transaction.end_lsn)
    }

    pub(super) fn check_converged(&self) -> Result<(), String> {
        let held =
            self.daemon.as_ref().and_then(|daemon| daemon.engine.as_ref()).map_or(0, |engine| engine.held_bytes());
        if held > 0 {
            return Err(format!("at rest, {held} bytes of the budget are still charged"));
        }
        for table in 0..self.tables {
            for key in 0..KEYS {
                let source = self.entity(self.source.current()[table][key]);
                let target = self.shown(self.target.collections[table][key]);
                let kept = self.disk.durable.letters[table][key];
                let poisoned = source.is_some_and(|entity| self.source.is_poisoned(entity[SCALAR]));
                let source = source.filter(|_| !kept);
                if kept && (!poisoned || self.target.healed) {
                    return Err(format!(
                        "at rest, table {table} key {key} has a dead letter, and the target would take it"
                    ));
                }
                if source != target {
                    return Err(format!(
                        "at rest, table {table} key {key}: the source has {source:?}, the target {target:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
