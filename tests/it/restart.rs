//! Killed, stopped, started again, and started where it must not start.

use super::faults::through;
use crate::support::daemon::Daemon;
use crate::support::postgres::{Database, major, options};
use crate::support::proxy::{Direction, Proxy};
use crate::support::scene::{PATIENCE, Scene, insert};
use crate::support::wait::until;
use crate::visibility::sessions;

/// A daemon that kills itself at a point of the durability order, with changes of every kind under way.
async fn killed_at(point: &str) {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(600).await;
    scene.insert(&table, 1, 100, 600).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    daemon.restart_with(&[("WALVEC_CRASH_AT", &format!("{point}:3"))]);
    let mut round = 0;
    while daemon.running() {
        round += 1;
        assert!(round < 2000, "{point} is never reached:\n{}", daemon.log());
        scene
            .sql(&format!(
                "begin; update {table} set n = {round} where id % 5 = 0; {}; delete from {table} where id = {round}; commit;
                 update {table} set id = id + 100000 where id = {round} + 40",
                insert(&table, 1000 + round * 2, 1001 + round * 2, 600)
            ))
            .await;
    }
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_after_the_answer_before_it_is_heard_loses_nothing() {
    killed_at("sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_after_ack_before_checkpoint_replays_without_loss() {
    killed_at("acknowledged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_after_checkpoint_before_confirm_loses_nothing() {
    killed_at("checkpointed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_after_confirm_loses_nothing() {
    killed_at("confirmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_the_next_start_goes_on_at_once() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    let mut daemon = scene.started().await;
    scene.insert(&table, 1, 500, 8).await;
    let status = daemon.terminate(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    scene.insert(&table, 501, 600, 8).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    assert!(
        !daemon.log().contains("nothing is sent until"),
        "a clean stop leaves nothing to wait for:\n{}",
        daemon.log()
    );
    scene.converged(&mut daemon).await;
}

/// A daemon with the configuration and the state of the scene's, and an admin address of its own.
fn twin(scene: &Scene, directory: &std::path::Path) -> Daemon {
    let text = std::fs::read_to_string(scene.directory.path().join("walvec.toml")).expect("the configuration");
    Daemon::start(directory, text.split("[admin]").next().expect("a part before"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_stands_by_and_takes_over() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    let mut first = scene.started().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut second = twin(&scene, directory.path());
    second.status("it stands by", PATIENCE, |s| s["state"] == "standing_by").await;
    scene.insert(&table, 1, 20, 8).await;
    scene.converged(&mut first).await;
    first.kill();
    scene.insert(&table, 21, 40, 8).await;
    second.ready(PATIENCE).await;
    scene.converged(&mut second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_an_older_state_waits_for_the_slot_and_is_then_refused() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    let mut first = scene.started().await;
    first.terminate(PATIENCE).await;
    let other = tempfile::tempdir().expect("a directory");
    copy_directory(&scene.directory.path().join("state"), &other.path().join("state"));
    first.restart();
    first.ready(PATIENCE).await;
    let text = std::fs::read_to_string(first.config()).expect("the configuration");
    let (here, there) = (scene.directory.path().display().to_string(), other.path().display().to_string());
    let text = text.split("[admin]").next().expect("a part before").replace(&here, &there);
    let mut second = Daemon::start(other.path(), &text);
    second.status("it waits for the slot", PATIENCE, |s| s["state"] == "waiting_for_slot").await;
    scene.insert(&table, 1, 20, 8).await;
    scene.converged(&mut first).await;
    first.kill();
    let ended = second.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", second.log());
    first.restart();
    first.ready(PATIENCE).await;
    scene.converged(&mut first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_was_dropped_is_not_made_again_in_silence() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 10, 8).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    let collection = scene.collection(&table);
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    target.drop_collection(&collection).await.expect("dropped");
    daemon.restart();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(4), "{}", daemon.log());
    assert!(daemon.log().contains(&collection), "{}", daemon.log());
    assert!(target.describe_collection(&collection).await.expect("an answer").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_dropped_while_we_run_stops_its_table_and_no_other() {
    let mut scene = super::target::scene(major()).await;
    let (gone, there) = (scene.documents(8).await, scene.documents(8).await);
    let mut daemon = scene.started().await;
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    target.drop_collection(&scene.collection(&gone)).await.expect("dropped");
    scene.insert(&gone, 1, 5, 8).await;
    scene.insert(&there, 1, 5, 8).await;
    daemon
        .status("its table is stopped", PATIENCE, |s| {
            s["tables"].as_array().is_some_and(|tables| tables.iter().any(|t| t["phase"] == "stopped"))
        })
        .await;
    until("the other table goes on", PATIENCE, async || {
        target.count(&scene.collection(&there)).await.ok().filter(|count| *count == 5)
    })
    .await;
    assert!(daemon.running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_is_not_made_again_in_silence() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    let mut daemon = scene.started().await;
    daemon.terminate(PATIENCE).await;
    scene.sql(&format!("select pg_drop_replication_slot('{}')", scene.slot)).await;
    scene.insert(&table, 1, 5, 8).await;
    daemon.restart();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", daemon.log());
    assert!(daemon.log().contains(&scene.slot), "{}", daemon.log());
    let slots: i64 = scene
        .client
        .query_one("select count(*) from pg_replication_slots where slot_name = $1", &[&scene.slot])
        .await
        .expect("read")
        .get(0);
    assert_eq!(slots, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_moved_is_refused() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    let mut daemon = scene.started().await;
    daemon.terminate(PATIENCE).await;
    scene.insert(&table, 1, 5, 8).await;
    scene.sql(&format!("select pg_replication_slot_advance('{}', pg_current_wal_lsn())", scene.slot)).await;
    daemon.restart();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_restored_from_an_older_backup_is_refused() {
    use walvec::servers::{Postgres, Stop};
    let mut server = Postgres::start(options()).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create extension vector").await.expect("made");
    let mut scene = super::target::over(client, server.url("postgres")).await;
    let table = scene.documents(8).await;
    let mut daemon = scene.started().await;
    scene.insert(&table, 1, 10, 8).await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    server.stop(Stop::Fast).await.expect("stopped");
    let backup = tempfile::tempdir().expect("a directory");
    let data = server.directory().join("data");
    let saved = backup.path().join("data");
    copy_directory(&data, &saved);
    server.restart().await.expect("starts");
    scene.client = server.connect("postgres").await.expect("connected");
    daemon.restart();
    scene.insert(&table, 11, 500, 8).await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    server.stop(Stop::Fast).await.expect("stopped");
    restore_directory(&saved, &data);
    server.restart().await.expect("starts from the backup");
    daemon.restart();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_was_killed_leaves_no_orphan() {
    let mut scene = super::target::scene(16).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 20, 8).await;
    let mut daemon = scene.start();
    until("the slot exists", PATIENCE, async || {
        let row = scene
            .client
            .query_opt("select 1 from pg_replication_slots where slot_name = $1", &[&scene.slot])
            .await
            .expect("read");
        row.map(drop)
    })
    .await;
    daemon.kill();
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_later_is_copied_and_the_others_go_on() {
    let mut scene = super::target::scene(major()).await;
    let first = scene.documents(8).await;
    scene.insert(&first, 1, 50, 8).await;
    let mut daemon = scene.started().await;
    daemon.terminate(PATIENCE).await;
    let second = scene.documents(8).await;
    scene.insert(&second, 1, 50, 8).await;
    scene.insert(&first, 51, 60, 8).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("update {second} set n = 5; delete from {first} where id < 5")).await;
    scene.converged(&mut daemon).await;
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success());
}

fn restore_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::remove_dir_all(to).expect("removed");
    copy_directory(from, to);
}

#[tokio::test(flavor = "multi_thread")]
async fn walvec_as_a_synchronous_standby_is_refused() {
    use walvec::servers::{Postgres, PostgresOptions};
    let settings = vec![("synchronous_standby_names".to_owned(), "*".to_owned())];
    let server = Postgres::start(PostgresOptions { settings, ..options() }).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("set synchronous_commit = local; create extension vector").await.expect("made");
    let mut scene = super::target::over(client, server.url("postgres")).await;
    scene.documents(8).await;
    let mut daemon = scene.start();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", daemon.log());
    assert!(daemon.log().contains("synchronous_standby_names"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_slot_of_our_name_is_not_adopted() {
    let database = Database::create(major()).await;
    let url = database.url();
    let mut scene = super::target::over(database.client, url).await;
    scene.documents(8).await;
    scene.sql(&format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", scene.slot)).await;
    let mut daemon = scene.start();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", daemon.log());
}

/// The slot comes to be, and the answer never arrives: it is nobody else's, although nothing on disk says that it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_making_was_not_answered_is_made_again() {
    let server = walvec::servers::Postgres::start(options()).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create extension vector").await.expect("made");
    let proxy = Proxy::start(server.port()).await;
    let mut scene = super::target::over(client, server.url("postgres")).await;
    scene.source_url = through(&scene.source_url, &proxy);
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    // Slots wait for transactions that are under way.
    let writer = server.connect("postgres").await.expect("connected");
    writer.batch_execute(&format!("begin; {}", insert(&table, 51, 60, 8))).await.expect("done");
    let mut daemon = scene.start();
    sessions(&scene, "backend_type = 'walsender' and wait_event_type = 'Lock'", 1).await;
    proxy.cut_after(Direction::ToClient, 0);
    writer.batch_execute("commit").await.expect("committed");
    until("the loss is noticed", PATIENCE, async || {
        daemon.log().contains("failed to create the replication slot").then_some(())
    })
    .await;
    proxy.heal();
    daemon.ready(PATIENCE).await;
    assert!(daemon.log().contains("dropped the slot of an interrupted first start"), "{}", daemon.log());
    scene.converged(&mut daemon).await;
}

/// Somebody makes a slot of our name a moment before we do: it is theirs, also at the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_made_meanwhile_is_not_dropped() {
    let mut scene = super::target::scene(major()).await;
    scene.documents(8).await;
    let mut daemon = scene.start_with(&[("WALVEC_STOP_AT", "intended:1")]);
    until("it is about to make the slot", PATIENCE, async || daemon.frozen().then_some(())).await;
    scene.sql(&format!("select pg_create_logical_replication_slot('{}', 'pgoutput')", scene.slot)).await;
    let sql = format!("select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{}'", scene.slot);
    let made: String = scene.client.query_one(&sql, &[]).await.expect("it is there").get(0);
    daemon.thaw();
    let ended = daemon.ended(PATIENCE).await;
    assert!(!ended.success(), "{}", daemon.log());
    daemon.restart();
    let ended = daemon.ended(PATIENCE).await;
    assert_eq!(ended.code(), Some(3), "{}", daemon.log());
    assert!(daemon.log().contains("the state directory knows nothing of it"), "{}", daemon.log());
    let left: String = scene.client.query_one(&sql, &[]).await.expect("it is still there").get(0);
    assert_eq!(made, left);
}
