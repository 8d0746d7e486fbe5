//! `walvec teardown`: leave the source as it was: the slot goes, and with it the WAL that it keeps.
//!
//! In this order, so that a second run can finish what a first one did not: nobody is at work (the lock of the state), slot,
//! publication, then what the state says of them. Collections stay.

use std::io::ErrorKind;

use crate::checkpoint::{Saved, Store, StoreError};
use crate::config::Settings;
use crate::pipeline;
use crate::postgres::slot::{self, Slot};
use crate::postgres::{self, PostgresError, publication};

use super::{Exit, Failure, Global};

/// Drop the slot and the publication, and forget the state; collections stay
///
/// For a pipeline that is not needed any more. Says what it would do; does it with --yes. A publication stays if
/// source.create is false or if this role does not own it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Leave the publication, which others may use
    #[arg(long)]
    keep_publication: bool,
}

pub async fn run(Args { yes, keep_publication }: Args, global: &Global) -> Result<Exit, Failure> {
    let settings = global.load_with_warnings()?;
    let source = &settings.source;
    let state = open_state(&settings)?;
    let failed = |error: PostgresError| {
        let (exit, hint) = (exit(&error), error.hint());
        Failure::new(exit, error).with_way_out(hint)
    };
    let connection = postgres::connect(source, "teardown").await.map_err(failed)?;
    let found = slot::read_slot(&connection, &source.slot).await.map_err(failed)?;
    if let Some(slot) = &found {
        may_be_dropped(slot, &settings)?;
    }
    let published = publication::read_publication(&connection, &source.publication).await.map_err(failed)?;
    // What walvec may not make, or does not own, somebody else has made.
    let drops_publication = published.as_ref().is_some_and(|found| found.owned) && source.create && !keep_publication;

    let did = |done: &'static str, would: &'static str| if yes { done } else { would };
    match &found {
        None => println!("slot {:?} does not exist", source.slot),
        Some(slot) => {
            if yes {
                slot::drop_slot(&connection, &source.slot).await.map_err(failed)?;
            }
            let bytes = slot
                .retained_bytes
                .map_or_else(String::new, |bytes| format!(", which keeps {} MiB of WAL", bytes >> 20));
            println!("slot {:?}{bytes}: {}", source.slot, did("dropped", "would be dropped"));
        }
    }
    match (published.is_some(), drops_publication) {
        (false, _) => println!("publication {:?} does not exist", source.publication),
        (true, false) => println!("publication {:?} stays", source.publication),
        (true, true) => {
            if yes {
                publication::drop_publication(&connection, &source.publication).await.map_err(failed)?;
            }
            println!("publication {:?}: {}", source.publication, did("dropped", "would be dropped"));
        }
    }
    let path = &settings.state.path;
    let collections: Vec<String> = match state {
        None => {
            println!("state {}: there is none", path.display());
            Vec::new()
        }
        Some((store, saved)) => {
            store.close().await.map_err(|error| Failure::new(Exit::State, error))?;
            if yes {
                match std::fs::remove_dir_all(path.join("sled")) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Failure::new(Exit::State, error)
                            .with_way_out(Some(format!("remove {} by hand", path.display()))));
                    }
                    _ => {}
                }
            }
            println!("state {}: {}", path.display(), did("forgotten", "would be forgotten"));
            saved.tables.values().map(|table| table.collection.clone()).collect()
        }
    };
    if !collections.is_empty() {
        println!("collections that stay: {}", collections.join(", "));
    }
    if !yes {
        println!("nothing was changed; do it with --yes");
    }
    Ok(if yes { Exit::Ok } else { Exit::No })
}

/// With its lock, which says that no daemon is at work; `None` when there is no state.
fn open_state(settings: &Settings) -> Result<Option<(Store, Saved)>, Failure> {
    let path = &settings.state.path;
    if !path.join("sled").exists() {
        return Ok(None);
    }
    Store::open(path, &pipeline::identity(&settings.source)).map(Some).map_err(|error| {
        let way_out = matches!(error, StoreError::Held { .. }).then(|| "stop the daemon first".to_owned());
        Failure::new(Exit::State, error).with_way_out(way_out)
    })
}

/// A slot of that name that is not one of ours, or that somebody reads from, is left alone.
fn may_be_dropped(slot: &Slot, settings: &Settings) -> Result<(), Failure> {
    let name = &slot.name;
    let refuse = |sentence: String| Err(Failure::new(Exit::Source, sentence));
    if slot.slot_type != "logical" || slot.plugin.as_deref() != Some("pgoutput") {
        return refuse(format!("slot {name:?} is no logical slot of pgoutput: it is not walvec's"));
    }
    if slot.database.as_deref() != Some(&*settings.source.database) {
        let database = slot.database.as_deref().unwrap_or_default();
        return refuse(format!("slot {name:?} is of database {database:?}, not {:?}", settings.source.database));
    }
    if slot.synced {
        return refuse(format!("slot {name:?} is a copy of the primary's: drop it there"));
    }
    if let Some(pid) = slot.active_pid {
        let who = slot.active_application.as_deref().unwrap_or("unknown");
        return refuse(format!("slot {name:?} is in use by process {pid} ({who}): stop it first"));
    }
    Ok(())
}

fn exit(error: &PostgresError) -> Exit {
    match error.disposition() {
        postgres::Disposition::Transient => Exit::Temporary,
        postgres::Disposition::Definite => Exit::Source,
    }
}
