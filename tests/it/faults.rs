//! Lines that break, servers that die, answers that get lost. Everything ends equal.

use std::time::Duration;

use walvec::servers::{Postgres, Stop};

use crate::support::postgres::{major, options};
use crate::support::proxy::{Direction, Proxy};
use crate::support::scene::{PATIENCE, Scene, insert};

/// A few transactions of every kind, on rows that move with `round`.
pub(crate) async fn load(scene: &Scene, table: &str, round: i64, dim: usize) {
    let at = round * 10;
    scene
        .sql(&format!(
            "{}; update {table} set n = n + 1 where id % 3 = {}; delete from {table} where id = {at};
             update {table} set id = id + 1000000 where id = {at} + 1",
            insert(table, 5000 + at, 5009 + at, dim),
            round % 3
        ))
        .await;
}

pub(crate) fn through(url: &str, proxy: &Proxy) -> String {
    let (head, port) = url.rsplit_once(':').expect("a port");
    let rest = port.find('/').map_or("", |at| &port[at..]);
    format!("{head}:{}{rest}", proxy.port())
}

pub(crate) fn port_of(url: &str) -> u16 {
    let (_, port) = url.rsplit_once(':').expect("a port");
    port.split('/').next().expect("a port").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_to_the_source_is_cut_again_and_again() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(600).await;
    scene.insert(&table, 1, 500, 600).await;
    let proxy = Proxy::start(port_of(&scene.source_url)).await;
    scene.source_url = through(&scene.source_url, &proxy);
    scene.extra = "[pipeline]\nchunk_bytes = \"128KiB\"".to_owned();
    let mut daemon = scene.start();
    for round in 0..8 {
        load(&scene, &table, round, 600).await;
        proxy.cut_after(Direction::ToClient, 20_000 + 7_000 * round as u64);
        load(&scene, &table, 100 + round, 600).await;
        let reconnects = daemon.log().matches("stream started").count();
        daemon.status("the daemon answers", PATIENCE, |_| true).await;
        assert!(reconnects < 200, "no busy loop");
    }
    proxy.heal();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_line_to_the_source_is_noticed() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(8).await;
    let proxy = Proxy::start(port_of(&scene.source_url)).await;
    scene.source_url = through(&scene.source_url, &proxy);
    scene.source_url.push_str(if scene.source_url.contains('?') { "&" } else { "?" });
    scene.source_url.push_str("connect_timeout=3");
    scene.extra = "[pipeline]\n".to_owned();
    let mut daemon = scene.started().await;
    proxy.stall();
    scene.insert(&table, 1, 20, 8).await;
    daemon.status("the loss is noticed", PATIENCE, |s| s["state"] == "connecting" || !s["last_error"].is_null()).await;
    proxy.cut();
    proxy.heal();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_milvus_are_lost() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(600).await;
    let proxy = Proxy::start(port_of(&scene.target_url)).await;
    scene.target_url = through(&scene.target_url, &proxy);
    let mut daemon = scene.started().await;
    for round in 0..6 {
        proxy.cut_after(Direction::ToClient, 10 + 13 * round as u64);
        load(&scene, &table, round, 600).await;
        load(&scene, &table, 50 + round, 600).await;
    }
    proxy.heal();
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_and_is_restarted_under_load() {
    let mut server = Postgres::start(options()).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create extension vector").await.expect("made");
    let mut scene = super::target::over(client, server.url("postgres")).await;
    let table = scene.documents(600).await;
    scene.insert(&table, 1, 1000, 600).await;
    scene.extra = "[pipeline]\nchunk_bytes = \"128KiB\"".to_owned();
    let mut daemon = scene.start();
    for (round, stop) in [Stop::Immediate, Stop::Fast, Stop::Immediate].into_iter().enumerate() {
        load(&scene, &table, round as i64, 600).await;
        server.stop(stop).await.expect("stopped");
        server.restart().await.expect("starts again");
        scene.client = server.connect("postgres").await.expect("connected");
        load(&scene, &table, 100 + round as i64, 600).await;
    }
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walsender_is_terminated() {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(600).await;
    scene.insert(&table, 1, 100, 600).await;
    let mut daemon = scene.started().await;
    for round in 0..5 {
        load(&scene, &table, round, 600).await;
        scene
            .sql(&format!(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}' and active",
                scene.slot
            ))
            .await;
        load(&scene, &table, 100 + round, 600).await;
    }
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_in_the_wal_but_not_visible_is_waited_for() {
    let server = Postgres::start(options()).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create extension vector").await.expect("made");
    let mut scene = super::target::over(client, server.url("postgres")).await;
    let table = scene.documents(768).await;
    scene.insert(&table, 1, 20, 768).await;
    let mut daemon = scene.started().await;
    // From here on commits wait for a standby that does not exist; the stream has them at once.
    scene.sql("alter system set synchronous_standby_names = 'nosuch'").await;
    scene.sql("select pg_reload_conf()").await;
    let writer = server.connect("postgres").await.expect("connected");
    let vector = crate::support::scene::embedding("4711", 768);
    let statement = format!(
        "begin; update {table} set embedding = {vector} where id = 3; update {table} set n = 5 where id = 3; commit"
    );
    let write = tokio::spawn(async move { writer.batch_execute(&statement).await });
    let database = server.connect("postgres").await.expect("connected");
    crate::support::wait::until("the commit waits for its standby", PATIENCE, async || {
        let row =
            database.query_opt("select 1 from pg_stat_activity where wait_event = 'SyncRep'", &[]).await.expect("read");
        row.map(drop)
    })
    .await;
    // The daemon keeps its place; then the commit becomes visible.
    daemon.status("it still runs", Duration::from_secs(10), |_| true).await;
    scene.sql("set synchronous_commit = local").await;
    scene.sql("alter system reset synchronous_standby_names").await;
    scene.sql("select pg_reload_conf()").await;
    write.await.expect("no panic").expect("committed");
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_neighbours_do_not_pile_up_wal() {
    let mut scene = super::target::scene(major()).await;
    scene.documents(8).await;
    let mut daemon = scene.started().await;
    // Nothing of this is published.
    scene.sql("create table neighbour as select i, repeat('x', 500) from generate_series(1, 20000) i").await;
    scene.caught_up(&mut daemon).await;
}
