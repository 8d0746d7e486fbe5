//! The command line: one file a command, each with its `Args` and `run`.
//!
//! In: arguments and the configuration's path. Out: text on standard output, an exit code (`exit`), and for what went
//! wrong one line on standard error with its causes below.
//!
//! Holds: standard output is the command's answer and nothing else; logs and errors are on standard error. Secrets are
//! in neither.
//!
//! Not here: the work itself. A command joins the parts that do it.

pub mod check;
pub mod completions;
pub mod dead_letters;
pub mod demo;
pub mod exit;
pub mod man;
mod place;
pub mod plan;
pub mod resync;
pub mod run;
pub mod status;
pub mod teardown;
pub mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Loaded};

pub use exit::{Exit, Failure};

/// Keep Milvus collections in step with PostgreSQL tables
///
/// walvec copies tables with pgvector columns into Milvus or Zilliz Cloud and then follows every insert, update and
/// delete through logical replication.
#[derive(Debug, Parser)]
#[command(name = "walvec", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Configuration file; default ./walvec.toml, then /etc/walvec/walvec.toml
    #[arg(long, short, global = true, env = "WALVEC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Plan(plan::Args),
    Status(status::Args),
    Verify(verify::Args),
    DeadLetters(dead_letters::Args),
    Resync(resync::Args),
    Teardown(teardown::Args),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Global {
    /// The file in force.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        config::find(self.config.as_deref()).map_err(|error| Failure::new(Exit::Configuration, error))
    }

    /// The settings in force, secrets fetched.
    pub fn load(&self) -> Result<Loaded, Failure> {
        config::load(&self.path()?).map_err(|error| Failure::new(Exit::Configuration, error))
    }

    /// The same for a command that only asks: warnings go to standard error.
    pub fn load_with_warnings(&self) -> Result<config::Settings, Failure> {
        let Loaded { settings, warnings } = self.load()?;
        for warning in warnings {
            eprintln!("warning: {warning}");
        }
        Ok(settings)
    }
}

fn command() -> clap::Command {
    Cli::command().after_help(exit::help())
}

/// The whole program.
pub fn main() -> ExitCode {
    // One provider for every TLS connection. Someone else's being there already is as good: there is only ring.
    drop(rustls::crypto::ring::default_provider().install_default());
    let matches = command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // Two threads: the data path is one task, the rest are requests and readers that wait.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli)),
        Err(error) => Err(Failure::new(Exit::Temporary, error)),
    };
    result.unwrap_or_else(|failure| {
        report(&failure);
        failure.exit().into()
    })
}

async fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    // Boxed: the largest command would set the size of all.
    let exit = match command {
        Command::Run(args) => Box::pin(run::run(args, &global)).await?,
        Command::Check(args) => Box::pin(check::run(args, &global)).await?,
        Command::Plan(args) => Box::pin(plan::run(args, &global)).await?,
        Command::Status(args) => Box::pin(status::run(args, &global)).await?,
        Command::Verify(args) => Box::pin(verify::run(args, &global)).await?,
        Command::Resync(args) => Box::pin(resync::run(args, &global)).await?,
        Command::Teardown(args) => Box::pin(teardown::run(args, &global)).await?,
        Command::DeadLetters(args) => Box::pin(dead_letters::run(args, &global)).await?,
        Command::Demo(args) => {
            return Box::pin(demo::run(args)).await.map_err(|error| Failure::new(Exit::Temporary, error));
        }
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args)?,
    };
    Ok(exit.into())
}

/// Once, where it ends: as a log line where there is a log, else as text.
fn report(failure: &Failure) {
    let chain = failure.chain();
    let (first, causes) = chain.split_first().map_or(("failed", &[][..]), |(first, causes)| (first.as_str(), causes));
    if tracing::dispatcher::has_been_set() {
        let (causes, exit, way_out) = (causes.join(": "), failure.exit().code(), failure.way_out());
        tracing::error!(causes, exit, way_out, "{first}");
        return;
    }
    eprintln!("walvec: {first}");
    for cause in causes {
        eprintln!("  because: {cause}");
    }
    if let Some(way_out) = failure.way_out() {
        eprintln!("  way out: {way_out}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_shows_the_exit_codes_and_every_command_says_what_it_is() {
        let help = command().render_long_help().to_string();
        assert!(help.contains("75  something did not answer"), "{help}");
        for command in command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }

    #[test]
    fn the_configuration_may_stand_before_and_behind_the_command() {
        for arguments in [["walvec", "--config", "x.toml", "run"], ["walvec", "run", "-c", "x.toml"]] {
            let cli = Cli::try_parse_from(arguments).expect("valid");
            assert_eq!(cli.global.config, Some(PathBuf::from("x.toml")));
        }
    }
}
