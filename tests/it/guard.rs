//! The slot guard: a table that stopped keeps WAL, and more and more is done about it.

use serde_json::Value;

use crate::support::daemon::walvec;
use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene};

/// So many MiB of WAL that concern nobody.
async fn write_wal(scene: &Scene, mebibytes: u32) {
    let sql = "select pg_logical_emit_message(false, 'test', repeat('x', 1048576))";
    for _ in 0..mebibytes {
        scene.sql(sql).await;
    }
}

/// A table that stops by its second row, and holds the slot.
async fn stopped(scene: &mut Scene) -> String {
    let table = scene.documents(8).await;
    scene.set_lines(&table, "[table.fields.title]\nmax_length = 12");
    scene.insert(&table, 1, 5, 8).await;
    table
}

async fn stop(scene: &Scene, table: &str) {
    scene.sql(&format!("update {table} set title = 'much longer than twelve' where id = 2")).await;
}

fn phase(status: &Value, table: &str) -> String {
    let tables = status["tables"].as_array().into_iter().flatten();
    let found = tables.into_iter().find(|found| found["name"] == format!("public.{table}"));
    found.and_then(|found| found["phase"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_wait_and_then_the_stopped_table_lets_go() {
    // What others write would fill the slot as well.
    let (_server, mut scene) = Scene::alone(&[]).await;
    scene.source = "heartbeat_interval = \"1s\"".to_owned();
    scene.extra =
        "[guard]\nwarn_bytes = \"1MiB\"\npause_copy_bytes = \"16MiB\"\nrelease_stopped_bytes = \"64MiB\"".to_owned();
    let table = stopped(&mut scene).await;
    let mut daemon = scene.started().await;
    crate::support::wait::until("a heartbeat came back", PATIENCE, async || {
        (daemon.metric("walvec_heartbeat_seconds").await > 0.0).then_some(())
    })
    .await;
    stop(&scene, &table).await;
    daemon.status("it stops", PATIENCE, |status| phase(status, &table) == "stopped").await;
    write_wal(&scene, 20).await;
    daemon.status("copies are paused", PATIENCE, |status| status["source"]["guard"] == "copy_paused").await;
    assert_eq!(daemon.metric("walvec_slot_guard{state=\"copy_paused\"}").await, 1.0);
    assert!(daemon.log().contains("copies are paused until the stream has caught up"), "{}", daemon.log());
    let (_, said, _) = walvec("status", daemon.config(), &[]);
    assert!(said.contains("copies are paused"), "{said}");
    // A table that comes now is not copied, in a session that begins paused, while another one follows its changes.
    let other = scene.documents(8).await;
    scene.insert(&other, 1, 50, 8).await;
    scene.reload(&daemon);
    daemon.status("it is known", PATIENCE, |status| phase(status, &other) == "pending").await;
    scene.insert(&other, 51, 53, 8).await;
    crate::support::wait::until("its changes are followed", PATIENCE, async || {
        (scene.count(&other).await > 0).then_some(())
    })
    .await;
    assert_eq!(
        (
            scene.count(&other).await,
            daemon.metric(&format!("walvec_rows_copied_total{{table=\"public.{other}\"}}")).await
        ),
        (3, 0.0)
    );

    write_wal(&scene, 64).await;
    let let_go = format!("let go, so that the slot can go on: `walvec resync public.{table}`");
    daemon.status("it is let go", PATIENCE, |status| status["tables"].to_string().contains(&let_go)).await;
    // The server moves restart_lsn when it logs who is running.
    crate::support::wait::until("the slot keeps little", PATIENCE, async || {
        scene.sql("checkpoint").await;
        scene.caught_up(&mut daemon).await;
        let (_, status) = daemon.get("/status").await.expect("an answer");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        (status["source"]["guard"] != "copy_paused").then_some(())
    })
    .await;
    scene.sql(&format!("update {table} set title = 'short' where id = 2")).await;
    let (code, out, err) = walvec("resync", daemon.config(), &[&table]);
    assert_eq!(code, 0, "{out}{err}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_is_given_up_before_the_disk_is_full() {
    let mut scene = Scene::shared(major()).await;
    scene.extra = "[guard]\nwarn_bytes = \"1MiB\"\npause_copy_bytes = \"1MiB\"\ngive_up_bytes = \"96MiB\"".to_owned();
    let table = stopped(&mut scene).await;
    let mut daemon = scene.started().await;
    stop(&scene, &table).await;
    daemon.status("it stops", PATIENCE, |status| phase(status, &table) == "stopped").await;
    write_wal(&scene, 100).await;
    let status = daemon.ended(PATIENCE).await;
    let log = daemon.log();
    assert!(!status.success() && log.contains("it was dropped to save the source's disk"), "{log}");
    let slots = scene.client.query("select 1 from pg_replication_slots where slot_name = $1", &[&scene.slot]).await;
    assert!(slots.expect("slots can be read").is_empty());
    daemon.restart();
    daemon.ended(PATIENCE).await;
    assert!(daemon.log().contains("the replication slot is gone"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_slots_that_nobody_reads() {
    let mut scene = Scene::shared(major()).await;
    scene.documents(8).await;
    let orphan = format!("{}_orphan", scene.slot);
    scene.sql(&format!("select pg_create_logical_replication_slot('{orphan}', 'pgoutput')")).await;
    let path = scene.settings_file();
    let (code, said, err) = walvec("check", &path, &[]);
    scene.sql(&format!("select pg_drop_replication_slot('{orphan}')")).await;
    // Other tests have slots on this server, and write WAL.
    let expected = format!("slot \"{orphan}\": nobody reads it and keeps ");
    assert!(
        said.contains(&expected) && said.contains(&format!("pg_drop_replication_slot('{orphan}')")),
        "{code}\n{said}{err}"
    );
    let (_, said, _) = walvec("check", &path, &[]);
    assert!(!said.contains(&orphan), "{said}");
}
