//! Real servers by package name: PostgreSQL with pgvector, Milvus Lite and Milvus 2.3.5, without containers or root.
//!
//! In: what to start. Out: a running server with its address, that can be stopped, killed, frozen and started again
//! on the same data and port. `walvec demo` and the integration tests share this module, so both meet the servers in
//! the same way.
//!
//! Holds:
//! - What runs is what was pinned: every wheel is checked against a SHA-256 in `requirements/`.
//! - A server that was returned has answered a request of its own protocol.
//! - No server outlives its owner: dropping it ends it, and if this process dies in any way (SIGKILL included), a small
//!   watcher in the server's own process group sees its pipe close and ends the server (`process.rs`).
//! - A data directory that was made here is removed with its server, unless it was to be kept.
//! - Everything listens on 127.0.0.1 only; PostgreSQL's superuser has a random password.
//!
//! Not here: tables, collections, load (`cli::demo`, the tests).
//!
//! These are servers to try things with. Durability is off by default in PostgreSQL, and Milvus Lite does not fsync.

mod directory;
mod fetch;
mod milvus23;
mod milvus_lite;
mod port;
mod postgres;
mod probe;
mod process;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use fetch::{Cache, Package};
pub use milvus_lite::{MilvusLite, MilvusLiteOptions};
pub use milvus23::{Milvus23, Milvus23Options};
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions, Stop, TlsPem};
pub use probe::http_get;
pub(crate) use process::{Process, Spec};

/// Why a server could not be fetched, started or stopped. Each line ends with the way out where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "python3 was not found; install it with `apt-get install python3 python3-pip` (Debian, Ubuntu) or \
         `dnf install python3 python3-pip` (Fedora)"
    )]
    NoPython,
    #[error(
        "python3 has neither pip nor a venv module that brings it; install it with `apt-get install python3-pip` \
         (Debian, Ubuntu) or `dnf install python3-pip` (Fedora)"
    )]
    NoPip,
    #[error(
        "could not download {package} with pip: {reason}; without a network, run `python3 -m pip download --no-deps{flags} \
         -d wheels -r {requirements}` on a machine of the same kind that has one, and put the wheels into {wheels}"
    )]
    Download {
        package: &'static str,
        /// pip's own last line.
        reason: String,
        /// More options of pip, each with a space before it.
        flags: String,
        requirements: PathBuf,
        wheels: PathBuf,
    },
    #[error(
        "a wheel of {package} is not the one that was pinned (SHA-256 differs); remove it from {wheels} if it lies there, else do not trust the index that served it"
    )]
    Tampered { package: &'static str, wheels: PathBuf },
    #[error("{package} could not be unpacked: {reason}")]
    Assemble { package: &'static str, reason: String },
    #[error("could not use {path}; set WALVEC_CACHE to a directory that can be written")]
    Cache { path: PathBuf, source: io::Error },
    #[error("could not use {path}; set TMPDIR to a directory that can be written")]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "the user `nobody`, which PostgreSQL runs as when started by root, cannot enter {path}; set {variable} to a directory that everybody may enter"
    )]
    NotReachable { path: PathBuf, variable: &'static str },
    #[error("there is no user `nobody` in /etc/passwd, and PostgreSQL refuses to run as root; start as another user")]
    NoAccount,
    #[error(
        "the path of PostgreSQL's socket under {path} is too long; set TMPDIR to a shorter directory, such as /tmp"
    )]
    SocketPath { path: PathBuf },
    #[error("PostgreSQL {major} is not among the servers that can be fetched (16 and 18 are)")]
    NoSuchMajor { major: u16 },
    #[error(
        "{path} belongs to another user and Milvus 2.3.5 needs it for its own; remove it, or start as the same user"
    )]
    MilvusRunDirectory { path: PathBuf },
    #[error("no free port on 127.0.0.1 was found")]
    NoPort { source: io::Error },
    #[error("could not run {program}")]
    Spawn { program: String, source: io::Error },
    #[error("{program} failed: {reason}")]
    Program { program: String, reason: String },
    #[error("{server} ended while it started; the end of its log {log}:\n{tail}")]
    Died { server: &'static str, log: PathBuf, tail: String },
    #[error("{server} did not answer within {} s; the end of its log {log}:\n{tail}", waited.as_secs())]
    NotReady { server: &'static str, waited: Duration, log: PathBuf, tail: String },
    #[error("{server} is still running {} s after it was told to stop", waited.as_secs())]
    StillRunning { server: &'static str, waited: Duration },
    #[error("{server} is not running")]
    NotRunning { server: &'static str },
    #[error("could not signal {server}")]
    Signal { server: &'static str, source: io::Error },
    #[error("could not connect to PostgreSQL")]
    Connect { source: tokio_postgres::Error },
}
