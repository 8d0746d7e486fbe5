//! `walvec man`: manual pages from the same text as `--help`.

use std::path::PathBuf;

use super::{Exit, Failure, command};

/// Print the manual page, or write one page a command into a directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write walvec.1, walvec-run.1 … here
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(Exit::No, error);
    match &args.directory {
        Some(directory) => clap_mangen::generate_to(command(), directory).map_err(failed)?,
        None => clap_mangen::Man::new(command()).render(&mut std::io::stdout()).map_err(failed)?,
    }
    Ok(Exit::Ok)
}
