//! `walvec demo`: all of it once, on this machine, with nothing installed but Python.
//!
//! In: sizes and a seed. Out: what happens, line by line, and a verdict: 0 when PostgreSQL and Milvus are equal in the end.
//!
//! It fetches and starts a PostgreSQL with pgvector and a Milvus Lite, fills a table, writes to it all the while, runs this
//! very program against them, kills it in the copy, kills it in the stream (and at random moments after that, if asked to),
//! lets it recover each time, and then compares both sides row by row with `walvec verify`.
//!
//! Holds: when it ends, however it ends, nothing that it started runs on (`servers::process` tells how), and the
//! temporary directories are gone.

mod child;
pub mod documents;
mod say;
pub mod workload;

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use self::child::{Daemon, Status};
use self::documents::Random;
use self::say::{Doing, line};
use self::workload::{Load, Workload};
use crate::servers::{MilvusLite, MilvusLiteOptions, Postgres, PostgresOptions, ServerError};

/// Show a whole run against servers fetched for it: copy, stream, kills, recovery, comparison.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rows in the table when the copy begins.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub rows: u64,
    /// Dimensions of the embedding.
    #[arg(long, default_value_t = 768, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub dimensions: u32,
    /// Rows changed per second while the daemon runs.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: u64,
    /// How often the daemon is killed: first in the copy, then in the stream, then at random moments.
    #[arg(long, default_value_t = 2)]
    pub kills: u32,
    /// Makes the rows, the writes and the moments of the kills the same again. Default: another each time.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Leave everything running until Ctrl-C, and print the addresses.
    #[arg(long)]
    pub keep: bool,
}

/// Why the demo could not come to a verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("a server could not be fetched, started or stopped")]
    Server {
        #[from]
        source: ServerError,
    },
    #[error("PostgreSQL refused a statement of the demo")]
    Sql {
        #[from]
        source: tokio_postgres::Error,
    },
    #[error("could not use {path}; set TMPDIR to a directory that can be written")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("could not find this program to run it as the daemon")]
    OwnProgram { source: std::io::Error },
    #[error("could not run `walvec verify`")]
    Verify { source: std::io::Error },
    #[error("could not wait for Ctrl-C")]
    Signal { source: std::io::Error },
    #[error("the daemon ended by itself; the end of its log:\n{tail}")]
    DaemonEnded { tail: String },
    #[error("the daemon stood still (state {state:?}) while the demo waited until {what}; the end of its log:\n{tail}")]
    StoodStill { what: &'static str, state: String, tail: String },
    #[error("the writers ended early")]
    LoadEnded,
}

/// Exit code 0: equal. 1: different. 130: interrupted.
pub async fn run(args: Args) -> Result<ExitCode, DemoError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|source| DemoError::Signal { source })?;
    let interrupted = async {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended.map_err(|source| DemoError::Signal { source }),
            _ = terminate.recv() => Ok(()),
        }
    };
    let mut interrupted = std::pin::pin!(interrupted);
    let stage = tokio::select! {
        interrupted = &mut interrupted => {
            interrupted?;
            line("interrupted; everything that was started is stopped");
            return Ok(ExitCode::from(130));
        }
        stage = story(&args) => stage?,
    };
    if args.keep {
        stage.addresses();
        interrupted.await?;
    }
    let (equal, rows, kills) = (stage.equal, stage.rows, stage.kills);
    stage.strike().await?;
    if equal {
        line(&format!("PostgreSQL and Milvus are equal: {rows} rows, after {kills} kills"));
        Ok(ExitCode::SUCCESS)
    } else {
        line("PostgreSQL and Milvus are NOT equal");
        Ok(ExitCode::FAILURE)
    }
}

/// What runs at the end. Fields are dropped in this order: the daemon before its servers.
struct Stage {
    daemon: Daemon,
    milvus: MilvusLite,
    postgres: Postgres,
    equal: bool,
    rows: i64,
    kills: u32,
}

impl Stage {
    fn addresses(&self) {
        line("everything keeps running until Ctrl-C:");
        line(&format!(
            "  PostgreSQL   PGPASSWORD={} {} -h 127.0.0.1 -p {} -U postgres",
            self.postgres.password(),
            self.postgres.binaries().join("psql").display(),
            self.postgres.port()
        ));
        line(&format!("  Milvus       {} (collection documents)", self.milvus.url()));
        line(&format!("  walvec       {}", self.daemon.status_url()));
        line(&format!("  config       {}", self.daemon.config().display()));
    }

    /// Stops the daemon as an operator would; the servers go by being dropped.
    async fn strike(mut self) -> Result<(), DemoError> {
        self.daemon.stop().await
    }
}

async fn story(args: &Args) -> Result<Stage, DemoError> {
    let seed = args.seed.unwrap_or_else(another_seed);
    let workload = Workload { rows: args.rows, dimensions: args.dimensions, seed, writers: 2, rate: args.rate };
    let mut random = Random::new(seed);
    line(&format!(
        "walvec demo: {} rows with vector({}), {} changes/s, {} kills, seed {seed}",
        args.rows, args.dimensions, args.rate, args.kills
    ));

    let doing =
        Doing::open("fetching and starting PostgreSQL 18 with pgvector, and Milvus Lite (330 MB the first time)");
    let (postgres, milvus) =
        tokio::try_join!(Postgres::start(PostgresOptions::default()), MilvusLite::start(MilvusLiteOptions::default()))?;
    doing.done(&format!("PostgreSQL at 127.0.0.1:{}, Milvus Lite at {}", postgres.port(), milvus.url()));

    let client = postgres.connect("postgres").await?;
    let table_bytes = furnish(&client, &workload).await?;

    let load = Load::start(vec![postgres.connect("postgres").await?, postgres.connect("postgres").await?], workload);
    line("two writers insert, update, re-key and delete rows from now on");
    let mut daemon = Daemon::start(&milvus.directory().join("walvec"), &postgres, &milvus, args, table_bytes)?;
    let mut kills = 0;

    if args.kills > 0 && kill_in_copy(&mut daemon).await? {
        kills += 1;
    }
    follow(&mut daemon, &load).await?;
    if args.kills > 1 {
        kill_in_stream(&mut daemon, &load).await?;
        kills += 1;
        if args.kills > 2 {
            let more = args.kills - 2;
            kill_at_random(&mut daemon, &load, more, &mut random).await?;
            kills += more;
        }
        follow(&mut daemon, &load).await?;
    }

    if load.failed() {
        // Stopping it tells the error, if it is one of PostgreSQL's.
        load.stop().await?;
        return Err(DemoError::LoadEnded);
    }
    let counts = load.stop().await?;
    line(&format!(
        "writers stopped after {} transactions (and {} rolled back), {} changes: {} inserts, {} updates without the embedding, \
         {} with, {} changed keys, {} deletes",
        read(&counts.transactions),
        read(&counts.rollbacks),
        counts.changes(),
        read(&counts.inserts),
        read(&counts.scalar_updates),
        read(&counts.embedding_updates),
        read(&counts.key_changes),
        read(&counts.deletes),
    ));

    let equal = verify(&mut daemon).await?;
    let rows = client.query_one("select count(*) from documents", &[]).await?.try_get(0)?;
    Ok(Stage { daemon, milvus, postgres, equal, rows, kills })
}

/// Makes the table, its rows and its index. Returns the size of its heap and TOAST in bytes.
async fn furnish(client: &tokio_postgres::Client, workload: &Workload) -> Result<u64, DemoError> {
    let begun = Instant::now();
    workload::create(client, workload).await?;
    let doing = Doing::counted("filling table documents", workload.rows);
    workload::fill(client, workload, |rows| doing.at(rows, workload.rows)).await?;
    doing.done(&format!("table documents filled, {} s", seconds(begun)));
    let begun = Instant::now();
    let doing = Doing::open("building its HNSW index (vector_cosine_ops)");
    workload::build_index(client).await?;
    doing.done(&format!("HNSW index built, {} s", seconds(begun)));
    let bytes: i64 = client.query_one("select pg_table_size('documents')", &[]).await?.try_get(0)?;
    Ok(bytes.unsigned_abs())
}

/// Kills the daemon when some rows are copied and some are not. False when the copy was too quick for that.
async fn kill_in_copy(daemon: &mut Daemon) -> Result<bool, DemoError> {
    let doing = Doing::counted("copying, to be killed under way", 1);
    let under_way = |status: &Status| {
        let table = status.table();
        doing.at(table.chunks_done, table.chunks_total);
        match table.phase.as_str() {
            "copying" if table.rows_copied > 0 && table.chunks_done < table.chunks_total => Some(Some(table)),
            "catching_up" | "following" => Some(None),
            _ => None,
        }
    };
    match daemon.until("the copy is under way", under_way).await? {
        Some(table) => {
            daemon.kill().await?;
            doing.done(&format!(
                "daemon killed (SIGKILL) in the copy: {} of {} chunks, {} rows",
                table.chunks_done, table.chunks_total, table.rows_copied
            ));
            daemon.start_again()?;
            Ok(true)
        }
        None => {
            doing.done("the copy was over before the daemon could be killed in it; more --rows would make it longer");
            Ok(false)
        }
    }
}

/// Waits until the table follows.
async fn follow(daemon: &mut Daemon, load: &Load) -> Result<(), DemoError> {
    let begun = Instant::now();
    let doing = Doing::open("starting");
    daemon
        .until("the table follows", |status| {
            let table = status.table();
            doing.now(format!(
                "{}: {}/{} chunks copied, {} rows written, {} changes committed meanwhile, {} kB behind",
                status.state,
                table.chunks_done,
                table.chunks_total,
                status.sent(),
                load.counts.changes(),
                status.lag_bytes() / 1000
            ));
            status.following().then_some(())
        })
        .await?;
    doing.done(&format!("the collection follows the table, {} s after the daemon's start", seconds(begun)));
    Ok(())
}

/// Kills the daemon in the middle of streaming, after it has written 200 rows since now.
async fn kill_in_stream(daemon: &mut Daemon, load: &Load) -> Result<(), DemoError> {
    const ROWS: u64 = 200;
    let doing = Doing::counted("streaming, to be killed under way", ROWS);
    let mut first = None;
    daemon
        .until("the stream is under way", |status| {
            let first = *first.get_or_insert(status.sent());
            let rows = status.sent().saturating_sub(first);
            doing.at(rows.min(ROWS), ROWS);
            (rows >= ROWS || load.failed()).then_some(())
        })
        .await?;
    daemon.kill().await?;
    doing.done(&format!("daemon killed (SIGKILL) in the stream, after {} changes", load.counts.changes()));
    daemon.start_again()
}

/// Kills the daemon `times` more, most often up to 1.5 s after it began to write, one time in five up to 1 s after its start.
async fn kill_at_random(daemon: &mut Daemon, load: &Load, times: u32, random: &mut Random) -> Result<(), DemoError> {
    let doing = Doing::counted("killing the daemon at random moments", u64::from(times));
    for kill in 1..=times {
        let (when, wait) = if random.below(5) == 0 {
            ("after its start", random.below(1000))
        } else {
            daemon.until("it writes", |status| (status.sent() > 0 || load.failed()).then_some(())).await?;
            ("after it began to write", random.below(1500))
        };
        if load.failed() {
            return Ok(());
        }
        // No waiting for a condition: the moment itself is what is drawn.
        tokio::time::sleep(Duration::from_millis(wait)).await;
        daemon.kill().await?;
        doing.line(&format!("kill {kill} of {times}: {wait} ms {when}, {} changes so far", load.counts.changes()));
        doing.at(u64::from(kill), u64::from(times));
        daemon.start_again()?;
    }
    doing.done(&format!("daemon killed {times} times at random moments"));
    Ok(())
}

/// Runs `walvec verify` with the daemon's configuration; its output is shown as it comes.
async fn verify(daemon: &mut Daemon) -> Result<bool, DemoError> {
    daemon.alive()?;
    line("comparing both sides row by row: walvec verify");
    let program = std::env::current_exe().map_err(|source| DemoError::OwnProgram { source })?;
    let status = tokio::process::Command::new(program)
        .arg("verify")
        .arg("--config")
        .arg(daemon.config())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|source| DemoError::Verify { source })?;
    Ok(status.success())
}

fn another_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed again.
    Random::new(now.as_nanos() as u64 ^ u64::from(std::process::id())).below(1_000_000)
}

fn read(count: &std::sync::atomic::AtomicU64) -> u64 {
    count.load(std::sync::atomic::Ordering::Relaxed)
}

fn seconds(since: Instant) -> String {
    format!("{:.1}", since.elapsed().as_secs_f64())
}
