//! SIGHUP: the configuration is read again, and one that is no good changes nothing.

use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene};
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
