//! The copy beside a running stream.

use std::time::Duration;

use crate::support::postgres::{major, majors};
use crate::support::scene::{PATIENCE, embedding, insert};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_there_and_rows_that_come_later_both_arrive() {
    for major in majors() {
        let mut scene = super::target::scene(major).await;
        let table = scene.documents(8).await;
        scene.insert(&table, 1, 500, 8).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        scene.insert(&table, 501, 600, 8).await;
        scene
            .sql(&format!(
                "update {table} set title = 'changed' where id % 10 = 0; delete from {table} where id % 7 = 0"
            ))
            .await;
        scene.converged(&mut daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_load_ends_equal() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(600).await;
    scene.extra = "[pipeline]\nchunk_bytes = \"256KiB\"".to_owned();
    scene.insert(&table, 1, 3000, 600).await;
    let mut daemon = scene.start();
    // Every kind of change, on keys all over the table, while it is copied.
    for round in 0..40 {
        let at = round * 71;
        scene
            .sql(&format!(
                "update {table} set n = n + 1 where id between {at} and {at} + 50;
                 update {table} set embedding = {vector} where id between {at} + 30 and {at} + 40;
                 delete from {table} where id between {at} + 60 and {at} + 64;
                 update {table} set id = id + 100000 where id between {at} + 65 and {at} + 67;
                 {more}",
                vector = embedding("id + 1", 600),
                more = insert(&table, 5000 + round * 3, 5002 + round * 3, 600),
            ))
            .await;
    }
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_goes_on_where_it_was() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(600).await;
    scene.extra = "[pipeline]\nchunk_bytes = \"128KiB\"\ncopy_readers = 1".to_owned();
    scene.insert(&table, 1, 3000, 600).await;
    let mut daemon = scene.start();
    let some = |status: &serde_json::Value| status["tables"][0]["chunks_done"].as_u64().is_some_and(|done| done > 2);
    let before = daemon.status("some chunks are done", PATIENCE, some).await;
    daemon.kill();
    scene.sql(&format!("delete from {table} where id % 5 = 0; update {table} set n = -1 where id % 3 = 0")).await;
    daemon.restart();
    let after = daemon.status("the copy is known again", PATIENCE, some).await;
    assert!(
        after["tables"][0]["chunks_done"].as_u64() >= before["tables"][0]["chunks_done"].as_u64(),
        "{before} {after}"
    );
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_or_emptied_while_it_is_copied_ends_equal() {
    for statement in ["vacuum full {t}", "cluster {t} using {t}_pkey", "truncate {t}"] {
        let mut scene = super::target::scene(major()).await;
        let table = scene.documents(600).await;
        scene.extra = "[pipeline]\nchunk_bytes = \"128KiB\"\ncopy_readers = 1".to_owned();
        scene.insert(&table, 1, 2000, 600).await;
        scene.sql(&format!("delete from {table} where id % 4 = 0")).await;
        let mut daemon = scene.start();
        daemon
            .status("the copy is under way", PATIENCE, |s| {
                s["tables"][0]["chunks_done"].as_u64().is_some_and(|done| done > 0)
            })
            .await;
        scene.sql(&statement.replace("{t}", &table)).await;
        scene.insert(&table, 10_000, 10_050, 600).await;
        daemon.ready(PATIENCE).await;
        scene.converged(&mut daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_older_than_the_stream_delays_the_copy_and_is_named() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    // Another table is added to the configuration while a transaction is open.
    let later = scene.documents(8).await;
    scene.insert(&later, 1, 50, 8).await;
    let database = scene.source_url.clone();
    let (writer, connection) = tokio_postgres::connect(&database, tokio_postgres::NoTls).await.expect("connected");
    let connection = tokio::spawn(connection);
    writer
        .batch_execute(&format!("begin; insert into {later} values (99, 'old writer', 1, '[1,2,3,4,5,6,7,8]')"))
        .await
        .expect("written");
    let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get(0);
    let mut daemon = scene.start();
    let named = daemon
        .status("the blocking pid is named", PATIENCE, |s| {
            s["tables"].as_array().is_some_and(|t| {
                t.iter().any(|t| t["blocked_by"].as_str().is_some_and(|b| b.contains(&pid.to_string())))
            })
        })
        .await;
    assert!(named["tables"].as_array().expect("tables").iter().any(|t| t["phase"] == "copying"), "{named}");
    // The first table is followed meanwhile.
    scene.sql(&format!("update {table} set title = 'meanwhile' where id = 7")).await;
    scene.caught_up(&mut daemon).await;
    writer.batch_execute("commit").await.expect("committed");
    drop(writer);
    connection.await.expect("no panic").expect("closed");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_copy_follows_at_once_on_a_quiet_server() {
    let mut scene = super::target::scene(16).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 10, 8).await;
    let mut daemon = scene.start();
    daemon.ready(PATIENCE).await;
    let log = daemon.log();
    assert!(log.contains("copy finished"), "{log}");
    daemon.ready(Duration::from_secs(1)).await;
}
