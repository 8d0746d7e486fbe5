//! SIGHUP: the configuration is read again, and one that is no good changes nothing.

use walvec::config::Transport;

use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::{self, major};
use crate::support::scene::{PATIENCE, Scene};
use crate::support::scripted::{Options, Scripted};
use crate::support::unique;
use crate::support::wait::until;

async fn said(daemon: &mut Daemon, what: &str, times: usize) {
    until(what, PATIENCE, async || {
        assert!(daemon.running(), "the daemon ended:\n{}", daemon.log());
        (daemon.log().matches(what).count() >= times).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_and_go_by_sighup() {
    let mut scene = Scene::shared(major()).await;
    let first = scene.documents(8).await;
    scene.insert(&first, 1, 100, 8).await;
    let mut daemon = scene.started().await;
    let second = scene.documents(8).await;
    scene.insert(&second, 1, 50, 8).await;
    scene.reload(&daemon);
    let both = |s: &serde_json::Value| s["tables"].as_array().is_some_and(|tables| tables.len() == 2);
    daemon.status("the second table is known", PATIENCE, both).await;
    daemon.ready(PATIENCE).await;
    scene.insert(&first, 101, 120, 8).await;
    scene.converged(&mut daemon).await;
    assert_eq!(daemon.log().matches("walvec::cli::run: starting").count(), 1, "it is the same process");

    // Back to one table: the other's collection stays as it is.
    scene.set_lines(&second, "exists = \"this key does not\"");
    scene.reload(&daemon);
    said(&mut daemon, "the configuration cannot be read", 1).await;
    scene.set_lines(&second, "");
    scene.follow("no_such_table", "");
    scene.reload(&daemon);
    said(&mut daemon, "the new configuration cannot be carried out", 1).await;
    daemon.ready(PATIENCE).await;
    scene.insert(&second, 51, 60, 8).await;
    scene.forget("no_such_table");
    scene.converged(&mut daemon).await;

    let slot = std::mem::replace(&mut scene.slot, "another_slot".to_owned());
    scene.reload(&daemon);
    said(&mut daemon, "these need a restart", 1).await;
    assert!(daemon.log().contains("source.slot, source.publication"), "{}", daemon.log());
    scene.slot = slot;
    scene.insert(&first, 121, 130, 8).await;
    scene.converged(&mut daemon).await;

    scene.forget(&second);
    scene.reload(&daemon);
    let one = |s: &serde_json::Value| s["tables"].as_array().is_some_and(|tables| tables.len() == 1);
    daemon.status("the second table is gone", PATIENCE, one).await;
    daemon.ready(PATIENCE).await;
    scene.insert(&first, 131, 140, 8).await;
    scene.insert(&second, 61, 70, 8).await;
    scene.converged(&mut daemon).await;
    // Back again: what happened to it meanwhile was not followed, and nobody takes it for in step.
    scene.follow(&second, "");
    scene.reload(&daemon);
    let sentence = format!(
        "it was not in the configuration for a while; what happened to it since was let go, so that the slot can go on: `walvec resync public.{second}`"
    );
    daemon.status("it is stopped", PATIENCE, |status| status["tables"].to_string().contains(&sentence)).await;
    let (code, out, err) = walvec("resync", daemon.config(), &[&second]);
    assert_eq!(code, 0, "{out}{err}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert!(daemon.terminate(PATIENCE).await.success());
}

/// Password and token are in files that somebody else renews: SIGHUP takes the new ones, and a daemon that was not told ends with the
/// reason, so that its next start has them.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_rotated_under_a_running_daemon() {
    let milvus = Scripted::start(Options { token: Some("token-1".to_owned()), ..Options::default() }).await;
    let mut scene = Scene::scripted(major(), &milvus, Transport::Rest).await;
    let role = unique("rotated");
    scene.sql(&format!("create role {role} superuser login password 'password-1'")).await;
    let (password, token) = (scene.directory.path().join("password"), scene.directory.path().join("token"));
    let write = |path: &std::path::Path, secret: &str| std::fs::write(path, format!("{secret}\n")).expect("written");
    write(&password, "password-1");
    write(&token, "token-1");
    let place = scene.source_url.split_once('@').expect("user and place").1.to_owned();
    let (_, database) = place.rsplit_once('/').expect("a database");
    scene.source_url = format!("postgresql://{role}@{place}");
    let client = postgres::shared(major()).await.connect(database).await.expect("connected");
    scene.moved_to(scene.source_url.clone(), client);
    scene.source = format!("password = {{ file = {password:?} }}");
    scene.target = format!("transport = \"rest\"\ntoken = {{ file = {token:?} }}");
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    let mut daemon = scene.started().await;
    let lose_the_line = || format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");

    scene.sql(&format!("alter role {role} password 'password-2'")).await;
    milvus.tokens(&["token-1", "token-2"]);
    write(&password, "password-2");
    write(&token, "token-2");
    scene.reload(&daemon);
    said(&mut daemon, "configuration read again", 1).await;
    daemon.ready(PATIENCE).await;
    milvus.tokens(&["token-2"]);
    scene.sql(&lose_the_line()).await;
    scene.insert(&table, 51, 100, 8).await;
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;

    scene.sql(&format!("alter role {role} password 'password-3'")).await;
    write(&password, "password-3");
    scene.sql(&lose_the_line()).await;
    let status = daemon.ended(PATIENCE).await;
    let log = daemon.log();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("check user, password and pg_hba.conf"), "{log}");
    assert!(!log.contains("password-") && !log.contains("token-"), "{log}");
    daemon.restart();
    scene.insert(&table, 101, 120, 8).await;
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}
