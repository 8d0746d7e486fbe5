//! The machine around the daemon: its wall clock, its names of hosts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::faults::{port_of, through};
use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::major;
use crate::support::proxy::Proxy;
use crate::support::scene::{PATIENCE, Scene};
use crate::support::wait::until;

const DAY: i64 = 86_400;

/// See `tests/support/surroundings.c`, which is built with the linker's own compiler.
struct Surroundings {
    directory: TempDir,
    library: PathBuf,
}

impl Surroundings {
    fn new() -> Surroundings {
        let directory = tempfile::tempdir().expect("a directory");
        let library = directory.path().join("surroundings.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/surroundings.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(built.expect("cc, which Rust links with, can be run").success());
        Surroundings { directory, library }
    }

    fn start(&self, scene: &Scene) -> Daemon {
        let directory = self.directory.path().to_str().expect("UTF-8");
        let library = self.library.to_str().expect("UTF-8");
        scene.start_with(&[("LD_PRELOAD", library), ("WALVEC_SURROUNDINGS", directory)])
    }

    /// By rename, as it is read at any moment.
    fn clock(&self, seconds_ahead: i64) {
        let written = self.directory.path().join("clock.new");
        std::fs::write(&written, seconds_ahead.to_string()).expect("written");
        std::fs::rename(written, self.directory.path().join("clock")).expect("renamed");
    }

    fn names(&self, known: bool) {
        let path = self.directory.path().join("nameless");
        if known { std::fs::remove_file(path).expect("removed") } else { std::fs::write(path, "").expect("written") }
    }
}

/// Deadlines, pauses, pace and lag go by clocks that nobody can set.
#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_changes_nothing() {
    let surroundings = Surroundings::new();
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    let mut daemon = surroundings.start(&scene);
    daemon.ready(PATIENCE).await;
    let mut from = 100;
    for ahead in [DAY, -2 * DAY, 40 * 365 * DAY, -3600, 0] {
        surroundings.clock(ahead);
        scene.insert(&table, from, from + 49, 8).await;
        scene
            .sql(&format!("update {table} set n = n + 1 where id % 7 = 0; delete from {table} where id = {from}"))
            .await;
        scene.converged(&mut daemon).await;
        let lag = daemon.metric("walvec_lag_seconds").await;
        assert!((0.0..60.0).contains(&lag), "{lag} s of lag when the clock is {ahead} s ahead");
        from += 50;
    }
    assert_eq!(daemon.metric("walvec_reconnects_total").await, 0.0, "{}", daemon.log());
    // That the clock did jump: the log goes by it.
    surroundings.clock(40 * 365 * DAY);
    assert!(daemon.terminate(PATIENCE).await.success());
    let log = daemon.log();
    let year = |line: &str| line.get(..4).and_then(|year| year.parse::<u32>().ok());
    let years: Vec<u32> = log.lines().filter_map(year).collect();
    let (first, last) = (years.first().expect("a line"), years.last().expect("a line"));
    assert!(last - first >= 39, "{log}");
}

/// Both servers are known by name only, and for a while no name is known.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_gone_for_a_while_are_waited_for() {
    let surroundings = Surroundings::new();
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    let (source, target) =
        (Proxy::start(port_of(&scene.source_url)).await, Proxy::start(port_of(&scene.target_url)).await);
    scene.source_url = through(&scene.source_url, &source).replace("127.0.0.1", "db.walvec.test");
    scene.target_url = through(&scene.target_url, &target).replace("127.0.0.1", "milvus.walvec.test");
    let mut daemon = surroundings.start(&scene);
    daemon.ready(PATIENCE).await;
    surroundings.names(false);
    source.cut();
    target.cut();
    scene.insert(&table, 100, 149, 8).await;
    let error = |status: &serde_json::Value| status["last_error"].to_string();
    let status =
        daemon.status("the missing name is reported", PATIENCE, |status| error(status).contains(".walvec.test")).await;
    assert!(status["state"] != "following", "{status:#}");
    surroundings.names(true);
    scene.converged(&mut daemon).await;

    // A machine whose names come up after the daemon: it waits as well.
    daemon.terminate(PATIENCE).await;
    surroundings.names(false);
    let mut daemon = surroundings.start(&scene);
    until("the name is asked for", PATIENCE, async || {
        assert!(daemon.running(), "the daemon ended:\n{}", daemon.log());
        daemon.log().rsplit("starting").next().is_some_and(|log| log.contains("db.walvec.test")).then_some(())
    })
    .await;
    scene.insert(&table, 200, 249, 8).await;
    surroundings.names(true);
    daemon.ready(Duration::from_secs(60)).await;
    scene.converged(&mut daemon).await;

    let (code, said, err) = walvec("check", daemon.config(), &[]);
    assert!(code != 0 && format!("{said}{err}").contains("db.walvec.test"), "{code}\n{said}{err}");
}
