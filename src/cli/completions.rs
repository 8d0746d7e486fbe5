//! `walvec completions`: a completion script on standard output.

use super::{Exit, command};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Exit {
    clap_complete::generate(args.shell, &mut command(), "walvec", &mut std::io::stdout());
    Exit::Ok
}
