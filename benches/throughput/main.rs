//! `cargo bench`: how fast, how small and how prompt the daemon is, next to the limit of PostgreSQL's own clients.
//!
//! A real PostgreSQL 18, the real `walvec` as a child process, and in place of Milvus a server that throws everything away,
//! over gRPC and over REST: what is measured is walvec and the source. Limits are measured in the same run, in turn with the daemon: `psql`
//! with `COPY … (FORMAT binary)` for the copy, `pg_recvlogical` with the same options for the stream, both into
//! /dev/null. Ratios are taken within a repetition; medians over repetitions.
//!
//! Scenarios: `copy` (rows × 768 dimensions), `drain` (a backlog of as many rows in transactions of 1000), `large`
//! (one transaction of small rows), `latency` (single-row commits, 200 a second), `idle`.
//! CPU seconds and ratios are firm; wall times move with whatever else the machine does.

#[path = "../discard.rs"]
mod discard;
mod measure;
mod report;
mod scenarios;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use report::Results;
use world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Copy,
    Drain,
    Large,
    Latency,
    Idle,
}

/// Measure walvec against the limit of PostgreSQL's own clients
#[derive(Parser, Debug)]
struct Args {
    /// Small sizes and one repetition: to see that it works, not for numbers
    #[arg(long)]
    quick: bool,
    /// Repetitions of copy, drain and large
    #[arg(long)]
    repetitions: Option<usize>,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Rows of copy and drain
    #[arg(long)]
    rows: Option<u64>,
    /// Also write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Cargo says so to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub rows: u64,
    pub small_rows: u64,
    pub latency_changes: u64,
    pub idle_seconds: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  caused by: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut sizes = match args.quick {
        true => Sizes { rows: 5_000, small_rows: 100_000, latency_changes: 400, idle_seconds: 3 },
        false => Sizes { rows: 100_000, small_rows: 2_000_000, latency_changes: 6_000, idle_seconds: 30 },
    };
    sizes.rows = args.rows.unwrap_or(sizes.rows);
    let repetitions = args.repetitions.unwrap_or(if args.quick { 1 } else { 5 });
    let wanted = |scenario| args.only.is_empty() || args.only.contains(&scenario);

    eprintln!("starting PostgreSQL 18 and filling {} rows", sizes.rows);
    let mut world = World::start(sizes).await?;
    let mut results = Results::default();
    for repetition in 1..=repetitions {
        eprintln!("repetition {repetition} of {repetitions}");
        if wanted(Scenario::Copy) {
            scenarios::copy(&mut world, &mut results, "grpc").await?;
            scenarios::copy(&mut world, &mut results, "rest").await?;
        }
        if wanted(Scenario::Drain) {
            scenarios::drain(&mut world, &mut results, "grpc").await?;
            scenarios::drain(&mut world, &mut results, "rest").await?;
        }
        if wanted(Scenario::Large) {
            scenarios::large(&mut world, &mut results).await?;
        }
    }
    if wanted(Scenario::Latency) {
        scenarios::latency(&mut world, &mut results).await?;
    }
    if wanted(Scenario::Idle) {
        scenarios::idle(&mut world, &mut results).await?;
    }
    world.stop().await?;

    print!("{}", results.table());
    let json = results.json(args.quick);
    println!("{json}");
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{json:#}\n"))?;
    }
    Ok(())
}
