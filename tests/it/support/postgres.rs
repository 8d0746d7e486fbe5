//! One PostgreSQL of each major for all tests of this process, a fresh database for each.
//!
//! The clusters live in statics, which are never dropped: their watchers end them when this process does.
//! A test that stops or kills its server starts its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::Client;
use walvec::config::settings::{Secret, SourceSettings, SslMode};
use walvec::servers::{Postgres, PostgresOptions};

use super::unique;

/// The major version where a test needs no certain one: 18, or what `WALVEC_TEST_POSTGRES` says.
///
/// ```sh
/// WALVEC_TEST_POSTGRES=16 cargo test --test it      # everything on 16
/// WALVEC_TEST_POSTGRES=/usr/lib/postgresql/15 cargo test --test it    # on an installed one, with pgvector
/// ```
pub fn major() -> u16 {
    chosen().0
}

/// Where it matters which it is: 18 and 16, or the one that is installed.
pub fn majors() -> Vec<u16> {
    if chosen().1.is_some() { vec![major()] } else { vec![18, 16] }
}

/// That version, and where it is installed.
fn chosen() -> &'static (u16, Option<PathBuf>) {
    static CHOSEN: OnceLock<(u16, Option<PathBuf>)> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let Ok(text) = std::env::var("WALVEC_TEST_POSTGRES") else { return (18, None) };
        if let Ok(major) = text.parse() {
            return (major, None);
        }
        // `postgres (PostgreSQL) 15.19 (Debian …)`
        let output = Command::new(Path::new(&text).join("bin/postgres")).arg("--version").output();
        let version = String::from_utf8(output.expect("a number, or a directory with bin/postgres").stdout);
        let version = version.expect("UTF-8");
        let number = version.split(' ').nth(2).and_then(|number| number.split('.').next());
        (number.and_then(|major| major.trim().parse().ok()).expect("a version"), Some(text.into()))
    })
}

/// For a server of a test's own, of that version.
pub fn options() -> PostgresOptions {
    options_of(major())
}

/// For a server of a test's own.
pub fn options_of(major: u16) -> PostgresOptions {
    let (chosen, installed) = chosen();
    let installed = installed.clone().filter(|_| *chosen == major);
    PostgresOptions { major, installed, ..PostgresOptions::default() }
}

/// Slots of a shared cluster: tests leave theirs behind.
pub const SLOTS: u32 = 400;

/// The shared cluster of `major`: 16, 18, or the one that was chosen.
pub async fn shared(major: u16) -> &'static Postgres {
    static SIXTEEN: OnceCell<Postgres> = OnceCell::const_new();
    static EIGHTEEN: OnceCell<Postgres> = OnceCell::const_new();
    static CHOSEN: OnceCell<Postgres> = OnceCell::const_new();
    let cell = match major {
        16 => &SIXTEEN,
        18 => &EIGHTEEN,
        _ => &CHOSEN,
    };
    cell.get_or_init(async || {
        let settings = ["max_replication_slots", "max_wal_senders", "max_connections"];
        let settings = settings.map(|name| (name.to_owned(), SLOTS.to_string())).to_vec();
        Postgres::start(PostgresOptions { settings, ..options_of(major) }).await.expect("PostgreSQL starts")
    })
    .await
}

/// A database of its own with `vector`, and a superuser's session in it.
pub struct Database {
    pub server: &'static Postgres,
    pub name: String,
    pub client: Client,
}

impl Database {
    /// In the shared cluster of `major`.
    pub async fn create(major: u16) -> Database {
        let server = shared(major).await;
        let name = unique("test");
        let admin = server.connect("postgres").await.expect("connected");
        admin.batch_execute(&format!("create database {name}")).await.expect("database created");
        let client = server.connect(&name).await.expect("connected");
        client.batch_execute("create extension vector").await.expect("pgvector is there");
        Database { server, name, client }
    }

    /// With the password.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The same through a line on another port of 127.0.0.1.
    pub fn url_through(&self, port: u16) -> String {
        self.url().replace(&format!(":{}/", self.server.port()), &format!(":{port}/"))
    }

    /// Another session as superuser.
    pub async fn session(&self) -> Client {
        self.server.connect(&self.name).await.expect("connected")
    }

    /// For a session, slot and publication of its own.
    pub fn settings(&self) -> SourceSettings {
        settings(self.server, &self.name)
    }
}

/// The same for a database of any server.
pub fn settings(server: &Postgres, database: &str) -> SourceSettings {
    SourceSettings {
        host: server.host().to_owned(),
        port: server.port(),
        user: server.user().to_owned(),
        password: Some(Secret::new(server.password())),
        database: database.to_owned(),
        sslmode: SslMode::Prefer,
        sslrootcert: None,
        sslcert: None,
        sslkey: None,
        application_name: unique("walvec"),
        connect_timeout: Duration::from_secs(10),
        slot: unique("slot"),
        publication: unique("Pub"),
        create: true,
        failover: false,
        slot_lock_timeout: Duration::from_secs(30),
        wal_sender_timeout: Duration::from_secs(20),
        heartbeat_interval: None,
    }
}
