//! A primary that dies, a standby that becomes one, and the slot that came along: PostgreSQL 17 and newer.

use std::time::Duration;

use walvec::servers::{Postgres, PostgresOptions};

use crate::faults::{port_of, through};
use crate::support::daemon::{Daemon, walvec};
use crate::support::proxy::Proxy;
use crate::support::scene::{PATIENCE, Scene, insert};
use crate::support::wait::until;

const STANDBY: &str = "standby_1";

struct Pair {
    daemon: Daemon,
    scene: Scene,
    table: String,
    /// The one name under which the daemon knows the source.
    line: Proxy,
    primary: Postgres,
    standby: Postgres,
}

impl Pair {
    /// Both servers, a failover slot, and a daemon that follows. `waits`: walsenders of failover slots send nothing that the
    /// standby does not have.
    async fn start(waits: bool) -> Pair {
        let mut options = PostgresOptions { major: 18, ..PostgresOptions::default() };
        if waits {
            options.settings.push(("synchronized_standby_slots".to_owned(), STANDBY.to_owned()));
        }
        let primary = Postgres::start(options).await.expect("starts");
        let client = primary.connect("postgres").await.expect("connected");
        client.batch_execute("create extension vector").await.expect("made");
        let standby = primary.standby(STANDBY).await.expect("a standby");
        let mut scene = crate::target::over(client, primary.url("postgres")).await;
        let table = scene.documents(8).await;
        scene.insert(&table, 1, 200, 8).await;
        let line = Proxy::start(port_of(&scene.source_url)).await;
        scene.source_url = through(&scene.source_url, &line);
        scene.source = "failover = true".to_owned();
        let daemon = scene.started().await;
        Pair { daemon, scene, table, line, primary, standby }
    }

    /// The standby's copy of the slot is one that a promotion keeps.
    async fn slot_is_synced(&self) {
        let client = self.standby.connect("postgres").await.expect("connected");
        let sql = "select 1 from pg_replication_slots where slot_name = $1 and synced and not temporary and invalidation_reason is null";
        until("the standby has the slot", PATIENCE, async || {
            // Rows make the slot move, without which the standby's copy may stay temporary.
            self.scene
                .sql(&format!("update {} set n = n + 1 where id = 1; select pg_log_standby_snapshot()", self.table))
                .await;
            client.query_opt(sql, &[&self.scene.slot]).await.expect("slots can be read").map(drop)
        })
        .await;
    }

    /// Promotes the standby, and lets the source's name and the test's own session mean it.
    async fn fail_over(&mut self) {
        let client = self.standby.connect("postgres").await.expect("connected");
        client.batch_execute("select pg_promote()").await.expect("promoted");
        self.line.redirect(self.standby.port());
        self.scene.moved_to(self.standby.url("postgres"), client);
    }
}

/// Under load, by SIGKILL: what walvec was sent the standby has, so it goes on by itself, and both sides are equal.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_follows_a_failover_slot_to_the_new_primary() {
    let mut pair = Pair::start(true).await;
    pair.slot_is_synced().await;
    let writer = pair.primary.connect("postgres").await.expect("connected");
    let table = pair.table.clone();
    let load = tokio::spawn(async move {
        let mut at = 1_000;
        // Until the server dies.
        while writer
            .batch_execute(&format!(
                "{}; update {table} set n = n + 1 where id % 10 = {}; delete from {table} where id = {}",
                insert(&table, at, at + 4, 8),
                at % 10,
                at - 1
            ))
            .await
            .is_ok()
        {
            at += 5;
        }
        at
    });
    let rows = pair.daemon.metric("walvec_acknowledged_lsn_bytes").await;
    until("some of it arrived", PATIENCE, async || {
        (pair.daemon.metric("walvec_acknowledged_lsn_bytes").await > rows + 100_000.0).then_some(())
    })
    .await;
    pair.primary.kill().await.expect("killed");
    assert!(load.await.expect("no panic") > 1_000);
    pair.fail_over().await;
    // The new primary has the old one's settings, and waits for a standby that it does not have: that is told.
    let status = pair
        .daemon
        .status("the absent standby is named", PATIENCE, |status| status["source"]["absent_standbys"] == STANDBY)
        .await;
    assert!(pair.daemon.log().contains("out of synchronized_standby_slots"), "{status:#}");
    let (code, said, err) = walvec("check", &pair.scene.settings_file(), &[]);
    assert!(said.contains(STANDBY), "{code}\n{said}{err}");
    pair.scene.sql("alter system reset synchronized_standby_slots").await;
    pair.scene.sql("select pg_reload_conf()").await;
    let nobody_is_missed = |status: &serde_json::Value| status["source"]["absent_standbys"].is_null();
    pair.daemon.status("no standby is missed any more", PATIENCE, nobody_is_missed).await;
    pair.scene.insert(&pair.table, 900_000, 900_049, 8).await;
    pair.scene.converged(&mut pair.daemon).await;
    assert!(pair.daemon.metric("walvec_reconnects_total").await >= 1.0);
    // And it is a state to start from.
    pair.daemon.kill();
    pair.daemon.restart();
    pair.scene.insert(&pair.table, 900_050, 900_059, 8).await;
    pair.daemon.ready(PATIENCE).await;
    pair.scene.converged(&mut pair.daemon).await;
}

/// A standby that lacked changes which the target has: refused with the reason, nothing touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_lost_what_the_target_has_is_refused() {
    let mut pair = Pair::start(false).await;
    pair.slot_is_synced().await;
    pair.scene.converged(&mut pair.daemon).await;
    let client = pair.standby.connect("postgres").await.expect("connected");
    // The standby stays reachable and hears no more of the primary.
    client.batch_execute("alter system set primary_conninfo = ''").await.expect("set");
    client.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    let receivers = "select 1 from pg_stat_wal_receiver";
    until("the standby is alone", PATIENCE, async || {
        client.query_opt(receivers, &[]).await.expect("read").is_none().then_some(())
    })
    .await;
    pair.scene.insert(&pair.table, 5_000, 5_099, 8).await;
    pair.scene.converged(&mut pair.daemon).await;
    pair.primary.kill().await.expect("killed");
    pair.fail_over().await;
    let status = pair.daemon.ended(Duration::from_secs(60)).await;
    let log = pair.daemon.log();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("the target may have changes that this server never had"), "{log}");
}
