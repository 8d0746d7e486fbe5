//! What SQL shows and what the WAL holds are not the same at every moment: a commit that waits for its standby is in the one and not in
//! the other, and so is an asynchronous commit the other way round. Copies read by SQL beside a stream that reads the WAL.

use tokio_postgres::Client;
use walvec::servers::{Postgres, Stop};

use crate::support::daemon::walvec;
use crate::support::scene::{PATIENCE, Scene, embedding, insert};
use crate::support::wait::until;

/// From here on commits of sessions that do not say otherwise wait for a standby that does not exist, until `commits_go_on`.
async fn commits_wait(scene: &Scene) {
    scene.sql("alter system set synchronous_standby_names = 'nosuch'").await;
    scene.sql("select pg_reload_conf()").await;
    scene.sql("set synchronous_commit = local").await;
}

async fn commits_go_on(scene: &Scene) {
    scene.sql("alter system reset synchronous_standby_names").await;
    scene.sql("select pg_reload_conf()").await;
}

/// Waits until so many sessions are in that state.
pub(crate) async fn sessions(scene: &Scene, condition: &str, count: i64) {
    let sql = format!("select count(*) from pg_stat_activity where {condition}");
    until(&format!("{count} sessions with {condition}"), PATIENCE, async || {
        let found: i64 = scene.client.query_one(&sql, &[]).await.expect("sessions can be read").get(0);
        (found == count).then_some(())
    })
    .await;
}

async fn session(server: &Postgres, statement: &str) -> Client {
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute(statement).await.expect("done");
    client
}

fn blocked(status: &serde_json::Value) -> bool {
    status["tables"].as_array().is_some_and(|tables| tables.iter().any(|table| table["blocked_by"].is_string()))
}

/// The slot becomes consistent behind commits that nobody sees yet: the stream will never bring them, so the copy has to wait
/// until it sees them.
#[tokio::test(flavor = "multi_thread")]
async fn commits_below_the_slot_that_wait_for_a_standby_are_copied() {
    let (server, mut scene) = Scene::alone(&[]).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    // Made by walvec, its commit would wait like any other.
    scene.sql(&format!("create publication {} for table {table}", scene.slot)).await;
    commits_wait(&scene).await;
    // The slot waits for `first`, and then for those who ran when it ended: for `second`.
    let open = |n: i64| format!("set synchronous_commit = local; begin; {}", insert(&table, n, n, 8));
    let first = session(&server, &open(1_001)).await;
    let mut daemon = scene.start();
    sessions(&scene, "backend_type = 'walsender' and wait_event_type = 'Lock'", 1).await;
    let second = session(&server, &open(1_002)).await;
    first.batch_execute("commit").await.expect("committed");
    let waits_for_second = format!(
        "backend_type = 'walsender' and wait_event_type = 'Lock' and {} = any(pg_blocking_pids(pid))",
        second.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get::<_, i32>(0)
    );
    sessions(&scene, &waits_for_second, 1).await;
    // In the WAL, before the point at which the slot is consistent, and visible to nobody.
    let mut waiting = Vec::new();
    for statement in [
        insert(&table, 2_000, 2_000, 8),
        format!("update {table} set embedding = {} where id = 7", embedding("4711", 8)),
        format!("delete from {table} where id = 8"),
    ] {
        let client = server.connect("postgres").await.expect("connected");
        waiting.push(tokio::spawn(async move { client.batch_execute(&statement).await }));
    }
    sessions(&scene, "wait_event = 'SyncRep'", 3).await;
    second.batch_execute("commit").await.expect("committed");
    daemon.status("the copy waits for them, and says so", PATIENCE, blocked).await;
    commits_go_on(&scene).await;
    for commit in waiting {
        commit.await.expect("no panic").expect("committed");
    }
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

/// Streamed, acknowledged, checkpointed, and after a kill still visible to nobody: a copy that begins now must not bring the old row.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_after_a_kill_waits_for_what_the_stream_has_brought_before() {
    let (server, mut scene) = Scene::alone(&[]).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    let mut daemon = scene.started().await;
    commits_wait(&scene).await;
    let writer = server.connect("postgres").await.expect("connected");
    let update = format!("update {table} set embedding = {}, n = -1 where id = 7", embedding("4711", 8));
    let write = tokio::spawn(async move { writer.batch_execute(&update).await });
    sessions(&scene, "wait_event = 'SyncRep'", 1).await;
    scene.caught_up(&mut daemon).await;
    daemon.kill();
    daemon.restart();
    daemon.ready(PATIENCE).await;
    let path = daemon.config().to_owned();
    let name = table.clone();
    let resync = tokio::task::spawn_blocking(move || walvec("resync", &path, &[&name]));
    daemon.status("the copy waits for it, and says so", PATIENCE, blocked).await;
    commits_go_on(&scene).await;
    write.await.expect("no panic").expect("committed");
    let (code, said, err) = resync.await.expect("no panic");
    assert_eq!(code, 0, "{said}{err}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

/// A chunk is read, and the server loses in a crash what it showed: asynchronous commits that were in no file yet.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_crash_of_the_server_takes_back_do_not_arrive() {
    let (mut server, mut scene) = Scene::alone(&[("wal_writer_delay", "10s"), ("autovacuum", "off")]).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 100, 8).await;
    scene.sql("checkpoint").await;
    let writer = server.connect("postgres").await.expect("connected");
    let (update, insert) = (format!("update {table} set n = n + 1"), insert(&table, 1_000, 1_000, 8));
    let load = tokio::spawn(async move {
        writer.batch_execute("set synchronous_commit = off").await.expect("set");
        let mut rounds = 0;
        // Until the server dies. The heap stays small: what is in it is read by one chunk.
        while writer.batch_execute(&update).await.is_ok() {
            drop(writer.batch_execute(&insert).await);
            rounds += 1;
        }
        rounds
    });
    let mut daemon = scene.start_with(&[("WALVEC_STOP_AT", "chunk:1")]);
    until("the daemon has a chunk in its hands", PATIENCE, async || daemon.frozen().then_some(())).await;
    server.stop(Stop::Immediate).await.expect("stopped");
    assert!(load.await.expect("no panic") > 0);
    server.restart().await.expect("starts again");
    scene.client = server.connect("postgres").await.expect("connected");
    daemon.thaw();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}
