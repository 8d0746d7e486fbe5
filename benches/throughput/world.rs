//! Source, target and daemon: PostgreSQL 18 with data, the discarding target, `walvec run` as a child.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use walvec::servers::{Postgres, PostgresOptions, free_port, http_get};

use crate::Sizes;
use crate::discard::Discard;
use crate::measure::{Usage, usage};

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A stuck scenario ends after this, with the daemon's log.
const PATIENCE: Duration = Duration::from_secs(600);

pub struct World {
    pub sizes: Sizes,
    pub discard: Discard,
    pub client: tokio_postgres::Client,
    pub postgres: Postgres,
    scratch: TempDir,
    setups: u32,
}

impl World {
    /// `docs`: about 3.5 kB a row in binary; `backlog`, `small` and `ticks` are empty.
    pub async fn start(sizes: Sizes) -> Outcome<World> {
        let settings = [("shared_buffers", "1GB"), ("max_wal_size", "16GB"), ("checkpoint_timeout", "1h")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
        let client = postgres.connect("postgres").await?;
        client.batch_execute("CREATE EXTENSION vector").await?;
        let documents = "(id bigint PRIMARY KEY, title text NOT NULL, meta jsonb, embedding vector(768) NOT NULL)";
        client
            .batch_execute(&format!(
                "CREATE TABLE docs {documents}; CREATE TABLE backlog {documents}; CREATE TABLE ticks {documents};
                 CREATE TABLE small (id bigint PRIMARY KEY, n int, v vector(2));"
            ))
            .await?;
        // A pool of vectors: what they hold does not matter here (pgvector stores them uncompressed), making them takes long.
        client
            .batch_execute(&format!(
                "CREATE TEMP TABLE pool AS SELECT i, array_agg(random()::real)::vector AS v
                     FROM generate_series(0, 96) i, generate_series(1, 768) GROUP BY i;
                 INSERT INTO docs SELECT id, 'document number ' || id || repeat(' lorem ipsum', 25),
                     jsonb_build_object('lang', 'en', 'tags', jsonb_build_array('a', id % 10), 'score', id::float8 / 7), v
                     FROM generate_series(1::bigint, {}) id JOIN pool ON i = id % 97",
                sizes.rows
            ))
            .await?;
        client.batch_execute("VACUUM ANALYZE docs").await?;
        let discard = Discard::start().await?;
        Ok(World { sizes, discard, client, postgres, scratch: TempDir::new()?, setups: 0 })
    }

    pub async fn stop(mut self) -> Outcome<()> {
        self.postgres.stop(walvec::servers::Stop::Fast).await?;
        Ok(())
    }

    /// A slot, a publication, a state and a configuration of their own for one table.
    pub fn setup(&mut self, table: &str, transport: &str) -> Outcome<Setup> {
        self.setups += 1;
        let name = format!("bench_{}", self.setups);
        let directory = self.scratch.path().join(&name);
        fs::create_dir(&directory)?;
        let admin_port = free_port()?;
        let configuration = format!(
            "[source]\nurl = \"postgresql://{user}@{host}:{port}/postgres\"\npassword = {{ env = \"{PASSWORD}\" }}\n\
             slot = \"{name}\"\npublication = \"{name}\"\n\
             [target]\nurl = \"{target}\"\ntransport = \"{transport}\"\n[state]\npath = \"{state}\"\n[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n\
             [[table]]\nname = \"public.{table}\"\nindex = \"none\"\n",
            user = self.postgres.user(),
            host = self.postgres.host(),
            port = self.postgres.port(),
            target = self.discard.url(),
            state = directory.join("state").display(),
        );
        let file = directory.join("walvec.toml");
        fs::write(&file, configuration)?;
        Ok(Setup { name, directory, file, admin_port, password: self.postgres.password().to_owned() })
    }

    /// Run one of PostgreSQL's own clients with its output thrown away, and say how long it took.
    pub async fn limit(&self, program: &str, arguments: &[&str]) -> Outcome<Duration> {
        let began = Instant::now();
        let status = Command::new(self.postgres.binaries().join(program))
            .args(["-d", &self.postgres.dsn()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await?;
        let took = began.elapsed();
        if status.success() { Ok(took) } else { Err(format!("{program} ended with {status}").into()) }
    }

    pub async fn insert_position(&self) -> Outcome<String> {
        let row = self.client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        Ok(row.try_get(0)?)
    }

    /// What a setup left in the source.
    pub async fn remove(&self, setup: Setup) -> Outcome<()> {
        self.client.execute("SELECT pg_drop_replication_slot($1)", &[&setup.name]).await?;
        self.client.batch_execute(&format!("DROP PUBLICATION {}", setup.name)).await?;
        fs::remove_dir_all(&setup.directory)?;
        Ok(())
    }
}

const PASSWORD: &str = "WALVEC_BENCH_PASSWORD";

pub struct Setup {
    /// Of the slot and of the publication.
    pub name: String,
    directory: PathBuf,
    file: PathBuf,
    admin_port: u16,
    password: String,
}

impl Setup {
    pub fn spawn(&self) -> Outcome<Daemon> {
        let log = self.directory.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_walvec"))
            .arg("run")
            .arg("--config")
            .arg(&self.file)
            .env(PASSWORD, &self.password)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("the daemon ended at once")?;
        Ok(Daemon { child, pid, began: Instant::now(), log, admin_port: self.admin_port })
    }
}

pub struct Daemon {
    child: Child,
    pid: u32,
    /// Just after it was started.
    pub began: Instant,
    log: PathBuf,
    admin_port: u16,
}

impl Daemon {
    pub fn usage(&self) -> Outcome<Usage> {
        Ok(usage(self.pid)?)
    }

    /// Wait for something while the daemon lives.
    pub async fn until<T>(&mut self, what: &str, event: impl Future<Output = T>) -> Outcome<T> {
        let failed = |reason: String, log: &Path| -> Box<dyn Error + Send + Sync> {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            format!("{reason}; the end of its log:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n")).into()
        };
        tokio::select! {
            value = event => Ok(value),
            status = self.child.wait() => Err(failed(format!("the daemon ended with {} before {what}", status?), &self.log)),
            () = tokio::time::sleep(PATIENCE) => Err(failed(format!("{what} did not come in {PATIENCE:?}"), &self.log)),
        }
    }

    /// Wait until every table follows.
    pub async fn ready(&mut self) -> Outcome<()> {
        let port = self.admin_port;
        let ready = async move {
            while !matches!(http_get(port, "/readyz").await, Ok((200, _))) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        self.until("every table follows", ready).await
    }

    /// SIGTERM, and wait for the end.
    pub async fn stop(mut self) -> Outcome<ExitStatus> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        kill_process(pid, Signal::TERM)?;
        Ok(tokio::time::timeout(PATIENCE, self.child.wait()).await??)
    }
}
