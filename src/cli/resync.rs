//! `walvec resync`: copy a table again over its collection, for one that stopped or that is not trusted any more.

use crate::checkpoint::Batch;
use crate::commands::Which;

use super::place::{self, Place};
use super::{Exit, Failure, Global};

/// Copy a table again over its collection, and remove entities that have no row
///
/// Readers keep what is there meanwhile. Asks the running daemon; where none runs, its next start begins with it. A
/// collection that no longer fits the table is dropped and made anew. Watch it with `walvec status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `schema.table`
    table: String,
}

pub async fn run(Args { table }: Args, global: &Global) -> Result<Exit, Failure> {
    let settings = global.load_with_warnings()?;
    let table = if table.contains('.') { table } else { format!("public.{table}") };
    let known = match Place::find(&settings).await? {
        Place::Daemon(address) => {
            let which = Which { table: Some(table.clone()), key: None };
            place::wish(address, &settings, "resync", &which).await?.taken > 0
        }
        Place::State(state) => {
            let (store, saved) = *state;
            match saved.tables.get(&table) {
                None => false,
                Some(saved) => {
                    let batch = Batch::new().put_table(&table, saved.clone().anew()).clear_all_letters(&table);
                    store.write(batch).await.map_err(|error| Failure::new(Exit::State, error))?;
                    true
                }
            }
        }
    };
    if !known {
        let sentence = format!("{table} was never copied: no state knows it");
        let way_out = "name it as schema.table, as `walvec status` does".to_owned();
        return Err(Failure::new(Exit::Configuration, sentence).with_way_out(Some(way_out)));
    }
    println!("{table} is copied again");
    Ok(Exit::Ok)
}
