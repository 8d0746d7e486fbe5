//! What only a real Milvus shows: it is killed, put to sleep, old, or not readable yet.

use std::time::Duration;

use walvec::servers::{Milvus23, Milvus23Options, MilvusLite, MilvusLiteOptions};

use crate::faults::load;
use crate::support::postgres::{major, options};
use crate::support::scene::{PATIENCE, Scene, embedding};

#[tokio::test(flavor = "multi_thread")]
async fn milvus_lite_is_killed_and_comes_back() {
    let database = crate::support::postgres::Database::create(major()).await;
    let mut lite = MilvusLite::start(MilvusLiteOptions::default()).await.expect("starts");
    let url = database.url();
    let mut scene = Scene::new(database.client, url, lite.url()).await;
    let table = scene.documents(600).await;
    scene.insert(&table, 1, 300, 600).await;
    let mut daemon = scene.started().await;
    for round in 0..3 {
        load(&scene, &table, round, 600).await;
        lite.kill().await.expect("killed");
        load(&scene, &table, 100 + round, 600).await;
        daemon.status("the target's absence is noticed", PATIENCE, |s| !s["target"]["last_error"].is_null()).await;
        lite.restart().await.expect("starts again");
        load(&scene, &table, 200 + round, 600).await;
        scene.caught_up(&mut daemon).await;
    }
    scene.converged(&mut daemon).await;
}

/// A server that was started again has nothing loaded, and nobody can see whether a collection is empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_loads_what_a_restarted_milvus_forgot() {
    let database = crate::support::postgres::Database::create(major()).await;
    let mut lite = MilvusLite::start(MilvusLiteOptions::default()).await.expect("starts");
    let url = database.url();
    let mut scene = Scene::new(database.client, url, lite.url()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 30, 8).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    lite.restart().await.expect("starts again");
    scene.sql(&format!("truncate {table}")).await;
    scene.insert(&table, 100, 104, 8).await;
    scene.converged(&mut daemon).await;
    assert!(daemon.log().contains("not loaded, and to be emptied: it is loaded"), "{}", daemon.log());
}

#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread")]
async fn a_milvus_that_sleeps_past_the_deadline_applies_nothing_late() {
    let database = crate::support::postgres::Database::create(major()).await;
    // A Milvus that sleeps longer than its lease in etcd ends itself when it wakes.
    let settings = vec![("common.session.ttl".to_owned(), "60".to_owned())];
    let options = Milvus23Options { settings, ..Milvus23Options::default() };
    let mut milvus = Milvus23::start(options).await.expect("starts");
    let url = database.url();
    let mut scene = Scene::new(database.client, url, milvus.url()).await;
    // 2.3 has no nullable fields: every column is NOT NULL.
    let table =
        scene.table("id bigint primary key, title text not null, n int not null, embedding vector(16) not null").await;
    scene.insert(&table, 1, 50, 16).await;
    let mut daemon = scene.started().await;
    for round in 0..3 {
        milvus.pause().await.expect("paused");
        for n in 0..5 {
            scene.sql(&format!("update {table} set n = {} where id <= 10", round * 100 + n)).await;
        }
        daemon.status("a request got no answer", PATIENCE, |s| !s["target"]["last_error"].is_null()).await;
        scene
            .sql(&format!(
                "update {table} set n = {} where id <= 10; delete from {table} where id = {}",
                round * 100 + 50,
                20 + round
            ))
            .await;
        milvus.resume().expect("resumed");
        scene.caught_up(&mut daemon).await;
    }
    scene.converged(&mut daemon).await;
}

#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread")]
async fn postgresql_16_into_milvus_23() {
    let database = crate::support::postgres::Database::create(16).await;
    let url = database.url();
    let mut scene = Scene::new(database.client, url, crate::support::milvus::milvus23().await.url()).await;
    // 2.3 has no nullable fields: every column is NOT NULL.
    let table = scene
        .table("id bigint primary key, title text not null, n int not null, meta jsonb not null, tags text[] not null, embedding vector(768) not null")
        .await;
    let rows = |from: i64, to: i64| {
        format!(
            "insert into {table} select i, 'title ' || i, i, jsonb_build_object('i', i), array['a', i::text], {} from generate_series({from}, {to}) i",
            embedding("i", 768)
        )
    };
    scene.sql(&rows(1, 300)).await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!(
            "begin; {}; update {table} set n = -n where id % 2 = 0; delete from {table} where id % 7 = 0; commit",
            rows(301, 350)
        ))
        .await;
    scene.sql(&format!("update {table} set id = id + 1000 where id between 20 and 30; update {table} set embedding = {} where id = 40", embedding("4711", 768))).await;
    scene.converged(&mut daemon).await;
    scene.sql(&format!("truncate {table}; {}", rows(1, 20))).await;
    scene.converged(&mut daemon).await;
    daemon.kill();
    scene.sql(&format!("update {table} set title = 'while it was away'; delete from {table} where id = 5")).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread")]
async fn without_an_index_the_collection_is_written_though_nobody_can_read_it_yet() {
    let database = crate::support::postgres::Database::create(major()).await;
    let url = database.url();
    let mut scene = Scene::new(database.client, url, crate::support::milvus::milvus23().await.url()).await;
    let table = scene.table("id bigint primary key, n int not null, embedding vector(8) not null").await;
    scene.per_table = "index = \"none\"".to_owned();
    scene.sql(&format!("insert into {table} select i, i, {} from generate_series(1, 20) i", embedding("i", 8))).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("delete from {table} where id = 3")).await;
    scene.caught_up(&mut daemon).await;
    // The user makes the index, and finds everything there.
    let settings = scene.settings();
    let target = walvec::pipeline::connect_target(&settings.target).expect("a client");
    let collection = scene.collection(&table);
    let index = walvec::milvus::IndexSpec {
        field: "embedding".to_owned(),
        index_type: "AUTOINDEX".to_owned(),
        metric_type: "COSINE".to_owned(),
        params: std::collections::BTreeMap::new(),
    };
    target.create_index(&collection, &index).await.expect("indexed");
    target.load_collection(&collection, PATIENCE).await.expect("loaded");
    scene.assert_equal().await;
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_stops_at_once_although_we_are_connected() {
    use walvec::servers::{Postgres, Stop};
    let mut server = Postgres::start(options()).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create extension vector").await.expect("made");
    let mut lite =
        walvec::servers::MilvusLite::start(walvec::servers::MilvusLiteOptions::default()).await.expect("starts");
    let mut scene = Scene::new(client, server.url("postgres"), lite.url()).await;
    let table = scene.documents(8).await;
    let mut daemon = scene.started().await;
    scene.insert(&table, 1, 10, 8).await;
    scene.converged(&mut daemon).await;
    let stopped = std::time::Instant::now();
    server.stop(Stop::Fast).await.expect("stopped");
    assert!(stopped.elapsed() < Duration::from_secs(10), "fast shutdown took {:?}", stopped.elapsed());
    server.restart().await.expect("starts");
    scene.client = server.connect("postgres").await.expect("connected");
    scene.caught_up(&mut daemon).await;
    daemon.ready(PATIENCE).await;
    // And while the target is down, so that nothing can be confirmed.
    lite.kill().await.expect("killed");
    scene.insert(&table, 11, 500, 8).await;
    daemon.status("the target's absence is noticed", PATIENCE, |s| !s["target"]["last_error"].is_null()).await;
    let stopped = std::time::Instant::now();
    server.stop(Stop::Fast).await.expect("stopped");
    assert!(stopped.elapsed() < Duration::from_secs(30), "fast shutdown took {:?}", stopped.elapsed());
    server.restart().await.expect("starts");
    lite.restart().await.expect("starts");
    scene.client = server.connect("postgres").await.expect("connected");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}
