//! A whole scene: a database with tables, a target, a state directory and a daemon between them, all its own.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::Client;
use walvec::config::{self, Settings, Transport};
use walvec::servers::{Postgres, PostgresOptions};
use walvec::verify::{self, Verdict, VerifyOptions};

use super::daemon::Daemon;
use super::postgres::{Database, options};
use super::scripted::Scripted;
use super::unique;
use super::wait::until;

/// Long enough for anything that a loaded machine of two cores may do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// See the module's head. The daemon is started by `start`, so that a test can arrange things first.
pub struct Scene {
    pub client: Client,
    pub slot: String,
    pub directory: TempDir,
    /// Source URL and target URL, as the daemon gets them: replace them to go through a proxy.
    pub source_url: String,
    pub target_url: String,
    /// The same for the test's own reading, never through a proxy.
    verify_source_url: String,
    verify_target_url: String,
    /// Each with more lines for its `[[table]]`.
    tables: Vec<(String, String)>,
    /// More lines for the source's section.
    pub source: String,
    /// More lines for the target's section.
    pub target: String,
    /// More lines for the configuration, before the tables.
    pub extra: String,
    /// More lines for each table of it.
    pub per_table: String,
    /// `target.request_deadline` of the daemon. Short, as a start after SIGKILL is quiet so long.
    pub request_deadline: &'static str,
}

impl Scene {
    /// A database in the shared cluster, and the shared Milvus Lite.
    pub async fn shared(major: u16) -> Scene {
        let database = Database::create(major).await;
        let (url, client) = (database.url(), database.client);
        Scene::new(client, url, super::milvus::lite().await.url()).await
    }

    /// A server of its own with these settings, and the shared Milvus Lite: where WAL, crashes or settings of others would matter.
    pub async fn alone(settings: &[(&str, &str)]) -> (Postgres, Scene) {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let server = Postgres::start(PostgresOptions { settings, ..options() }).await.expect("starts");
        let client = server.connect("postgres").await.expect("connected");
        client.batch_execute("create extension vector").await.expect("made");
        let scene = Scene::new(client, server.url("postgres"), super::milvus::lite().await.url()).await;
        (server, scene)
    }

    /// A database in the shared cluster, and a scripted Milvus over that transport.
    pub async fn scripted(major: u16, milvus: &Scripted, transport: Transport) -> Scene {
        let database = Database::create(major).await;
        let (url, client) = (database.url(), database.client);
        Scene::over_scripted(client, url, milvus, transport).await
    }

    /// The same with a given source.
    pub async fn over_scripted(client: Client, source_url: String, milvus: &Scripted, transport: Transport) -> Scene {
        let mut scene = Scene::new(client, source_url, milvus.url()).await;
        if transport == Transport::Rest {
            scene.target = "transport = \"rest\"".to_owned();
        }
        scene
    }

    /// Over given servers; `client` is a superuser's session in the database of `source_url`.
    pub async fn new(client: Client, source_url: String, target_url: String) -> Scene {
        Scene {
            client,
            slot: unique(&format!("slot_{}", std::process::id())),
            directory: tempfile::tempdir().expect("a directory"),
            verify_source_url: source_url.clone(),
            verify_target_url: target_url.clone(),
            source_url,
            target_url,
            tables: Vec::new(),
            source: String::new(),
            target: String::new(),
            extra: String::new(),
            per_table: String::new(),
            request_deadline: "3s",
        }
    }

    /// The source is another server from now on, for the test's own sessions; the daemon's line is the test's to move.
    pub fn moved_to(&mut self, source_url: String, client: Client) {
        self.verify_source_url = source_url;
        self.client = client;
    }

    pub async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Makes a table with `columns` and a collection for it; returns the table's name.
    pub async fn table(&mut self, columns: &str) -> String {
        let name = unique("docs");
        self.sql(&format!("create table {name} ({columns})")).await;
        self.follow(&name, "");
        name
    }

    /// Takes a table into the configuration that is there already: `name` in `public`, or `schema.name`, with more lines
    /// for its `[[table]]`.
    pub fn follow(&mut self, name: &str, lines: &str) {
        self.tables.push((name.to_owned(), lines.to_owned()));
    }

    /// Takes a table out of the configuration.
    pub fn forget(&mut self, table: &str) {
        self.tables.retain(|(name, _)| name != table);
    }

    /// Changes the lines of a table's `[[table]]`.
    pub fn set_lines(&mut self, table: &str, lines: &str) {
        let entry = self.tables.iter_mut().find(|(name, _)| name == table).expect("a table of the configuration");
        lines.clone_into(&mut entry.1);
    }

    /// `id bigint, title text, n int, embedding vector(dim)`. From about 500 dimensions the embedding is stored out of line.
    pub async fn documents(&mut self, dim: usize) -> String {
        self.table(&format!("id bigint primary key, title text, n int, embedding vector({dim}) not null")).await
    }

    /// Inserts documents `from..=to` with embeddings that differ in every row.
    pub async fn insert(&self, table: &str, from: i64, to: i64, dim: usize) {
        self.sql(&insert(table, from, to, dim)).await;
    }

    /// The daemon's configuration.
    fn config(&self) -> String {
        self.config_with(&self.source_url, &self.target_url, self.request_deadline)
    }

    fn config_with(&self, source_url: &str, target_url: &str, request_deadline: &str) -> String {
        let state = self.directory.path().join("state");
        let mut text = format!(
            "[source]\nurl = {source_url:?}\nslot = {slot:?}\npublication = {slot:?}\n{source}\n\
             [target]\nurl = {target_url:?}\nrequest_deadline = {request_deadline:?}\nlate_margin = \"1s\"\n\
             {target}\n[state]\npath = {state:?}\n{extra}\n",
            slot = self.slot,
            source = self.source,
            target = self.target,
            extra = self.extra,
        );
        for (table, lines) in &self.tables {
            let collection = self.collection(table);
            let name = if table.contains('.') { table.clone() } else { format!("public.{table}") };
            let more = &self.per_table;
            write!(text, "[[table]]\nname = {name:?}\ncollection = {collection:?}\n{more}\n{lines}\n")
                .expect("a string takes text");
        }
        text
    }

    /// The name of a table's collection: test processes share servers one after the other.
    pub fn collection(&self, table: &str) -> String {
        let valid = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        format!("{}_{}", table.chars().map(valid).collect::<String>(), self.slot)
    }

    pub fn start(&self) -> Daemon {
        Daemon::start(self.directory.path(), &self.config())
    }

    /// Gives a running daemon the configuration as it is now.
    pub fn reload(&self, daemon: &Daemon) {
        daemon.reload(&self.config());
    }

    /// The same with more environment.
    pub fn start_with(&self, environment: &[(&str, &str)]) -> Daemon {
        Daemon::start_with(self.directory.path(), &self.config(), environment)
    }

    /// The database of the source.
    pub fn database(&self) -> String {
        self.settings().source.database
    }

    /// Starts the daemon and waits until every table follows.
    pub async fn started(&self) -> Daemon {
        let mut daemon = self.start();
        daemon.ready(PATIENCE).await;
        daemon
    }

    /// The settings as the daemon has them, but without proxies, and patient with a server that is busy with others' requests.
    pub fn settings(&self) -> Settings {
        config::load(&self.settings_file()).expect("the configuration is right").settings
    }

    /// A file with them.
    pub fn settings_file(&self) -> PathBuf {
        let text = self.config_with(&self.verify_source_url, &self.verify_target_url, "60s");
        let path = self.directory.path().join("verify.toml");
        std::fs::write(&path, text).expect("the configuration is written");
        path
    }

    /// Waits until the daemon has confirmed everything that was committed up to now.
    pub async fn caught_up(&self, daemon: &mut Daemon) {
        let fence = self.fence().await;
        until("the slot's confirmed position passes the last commit", PATIENCE, async || {
            assert!(daemon.running(), "the daemon ended:\n{}", daemon.log());
            self.is_past(&fence).await.then_some(())
        })
        .await;
    }

    /// A position behind all that was committed up to now, and behind a commit of our own: so there is something to confirm on
    /// a server where nothing else happens.
    pub async fn fence(&self) -> String {
        let sql = "select pg_logical_emit_message(true, 'test', 'fence')::text, pg_current_wal_insert_lsn()::text";
        self.client.query_one(sql, &[]).await.expect("a message").get(1)
    }

    /// The daemon has confirmed that position.
    pub async fn is_past(&self, fence: &str) -> bool {
        let sql =
            format!("select confirmed_flush_lsn >= '{fence}'::pg_lsn from pg_replication_slots where slot_name = $1");
        let row = self.client.query_opt(&sql, &[&self.slot]).await.expect("slots can be read");
        row.and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false)
    }

    /// Caught up, and every value of every row the same on both sides.
    pub async fn converged(&self, daemon: &mut Daemon) {
        self.caught_up(daemon).await;
        self.assert_equal().await;
    }

    /// How many entities the table's collection has.
    pub async fn count(&self, table: &str) -> u64 {
        let target = walvec::pipeline::connect_target(&self.settings().target).expect("a client");
        target.count(&self.collection(table)).await.expect("counted")
    }

    /// When nobody needs it any more: it would keep WAL.
    pub async fn drop_slot(&self) {
        let sql = format!("select pg_drop_replication_slot('{}')", self.slot);
        until("the slot is let go", PATIENCE, async || self.client.batch_execute(&sql).await.ok()).await;
    }

    /// Starts the daemon, which must end by itself, and returns what it said.
    pub async fn refused(&self) -> String {
        let mut daemon = self.start();
        let status = daemon.ended(PATIENCE).await;
        let log = daemon.log();
        assert!(!status.success(), "it started:\n{log}");
        log
    }

    /// Every value of every row the same on both sides, now.
    pub async fn assert_equal(&self) {
        let report =
            verify::verify(&self.settings(), VerifyOptions::default(), |_| {}).await.expect("both sides can be read");
        assert_eq!(report.verdict(), Verdict::Equal, "{report:#?}");
    }
}

/// The statement behind `Scene::insert`.
pub fn insert(table: &str, from: i64, to: i64, dim: usize) -> String {
    format!(
        "insert into {table} (id, title, n, embedding) select i, 'title ' || i, i % 100, {} from generate_series({from}, {to}) i",
        embedding("i", dim)
    )
}

/// An SQL expression for an embedding that depends on `seed`.
pub fn embedding(seed: &str, dim: usize) -> String {
    format!("(select array_agg(sin({seed} * 7.13 + k)::real order by k) from generate_series(1, {dim}) k)::vector")
}
