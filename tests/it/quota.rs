//! A target that limits the rate, denies writes, is slow or has been away: nothing is lost, and everybody can see it.

use std::time::{Duration, Instant};

use walvec::config::Transport;

use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene, insert};
use crate::support::scripted::faults::{Fault, When};
use crate::support::scripted::{Operation, Options, Scripted, Version};
use crate::support::wait::until;

const MB: f64 = 1_048_576.0;

/// A backlog many times as large as the quota's second goes through at the quota, over either transport.
async fn a_backlog_at_the_quota(transport: Transport) {
    let milvus = Scripted::start(Options::default()).await;
    let mut scene = Scene::scripted(major(), &milvus, transport).await;
    let table = scene.documents(768).await;
    let mut daemon = scene.started().await;
    // No more than an unoptimised build on a busy machine can write as JSON.
    milvus.limit(Some(MB), Some(0.025 * MB));
    let began = Instant::now();
    // 3 KB a row as the limiter counts: 9 MB.
    scene.insert(&table, 1, 3000, 768).await;
    let status = daemon.status("it is throttled", PATIENCE, |s| s["target"]["state"] == "throttled").await;
    assert!(status["target"]["write_bytes_per_second"].as_u64().is_some_and(|rate| rate > 0), "{status}");
    scene.caught_up(&mut daemon).await;
    let took = began.elapsed();
    // Deletes have a budget of their own: 2,000 keys of about 5 bytes are 10 KB of 25 KB a second.
    scene.sql(&format!("delete from {table} where id <= 2000")).await;
    scene.converged(&mut daemon).await;
    let usage = milvus.usage();
    let requests = usage.granted + usage.refused;
    assert!(usage.refused >= 1, "the quota was met");
    // A few to find the rate, and one in twenty after that.
    assert!(usage.refused <= 5 + requests / 20, "{usage:?}");
    let floor = usage.upsert_bytes as f64 / MB - 1.5;
    assert!(took >= Duration::from_secs_f64(floor), "9 MB in {took:?}: the limiter let more through than it may");
    let log = daemon.log();
    assert!(!log.contains("ERROR") && !log.contains("milvus does not take"), "{log}");
    assert_eq!(milvus.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_at_the_quota_over_grpc() {
    a_backlog_at_the_quota(Transport::Grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_at_the_quota_over_rest() {
    a_backlog_at_the_quota(Transport::Rest).await;
}

/// A whole minute at the quota of a serverless cluster, for the figures of `docs/performance.md`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than a minute; run by hand, in a release build"]
async fn a_minute_at_the_quota() {
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options::default()).await;
        let mut scene = Scene::scripted(major(), &milvus, transport).await;
        let table = scene.documents(768).await;
        // 3.1 KB a row: more than a minute's worth of 10 MiB/s.
        for at in 0..10 {
            scene.insert(&table, at * 22_000 + 1, (at + 1) * 22_000, 768).await;
        }
        milvus.limit(Some(10.0 * MB), Some(0.5 * MB));
        let daemon = scene.start();
        let begin = Instant::now();
        tokio::time::sleep(Duration::from_secs(5)).await; // the quota's first second, and what is found out in it
        let before = milvus.usage();
        let from = Instant::now();
        tokio::time::sleep(Duration::from_secs(60).saturating_sub(begin.elapsed())).await;
        let after = milvus.usage();
        let used = (after.upsert_bytes - before.upsert_bytes) as f64 / from.elapsed().as_secs_f64() / (10.0 * MB);
        let requests = after.granted + after.refused;
        println!("{transport:?}: {:.1} % of the quota, {} of {requests} requests refused", used * 100.0, after.refused);
        assert!(used >= 0.95 && after.refused * 100 < requests, "{after:?}");
        drop(daemon);
    }
}

/// With the plan's quota known, no request is refused at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_quota_is_not_exceeded() {
    let milvus = Scripted::start(Options { version: Version::Zilliz, ..Options::default() }).await;
    let mut scene = Scene::scripted(major(), &milvus, Transport::Rest).await;
    scene.target += "\nmax_write_mb_per_s = 2.0\nmax_delete_mb_per_s = 0.05";
    let table = scene.documents(768).await;
    milvus.limit(Some(2.0 * MB), Some(0.05 * MB));
    scene.insert(&table, 1, 4000, 768).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("delete from {table} where id <= 3000")).await;
    scene.converged(&mut daemon).await;
    assert_eq!(milvus.usage().refused, 0, "{:?}", milvus.usage());
}

/// Denied for a while: waited for, said once and plainly, and taken up again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_denies_writes_is_reported_as_blocked() {
    let milvus = Scripted::start(Options::default()).await;
    let mut scene = Scene::scripted(major(), &milvus, Transport::Grpc).await;
    scene.target += "\nblocked_after = \"1s\"";
    let table = scene.documents(8).await;
    let mut daemon = scene.started().await;
    milvus.fail(Operation::Upsert, When::Always, Fault::Refuse(106, "collection on recovering"));
    scene.insert(&table, 1, 10, 8).await;
    let status = daemon.status("it is blocked", PATIENCE, |s| s["target"]["state"] == "blocked").await;
    assert!(status["target"]["last_error"].as_str().is_some_and(|error| error.contains("106")), "{status}");
    let told = "milvus is blocked";
    assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
    milvus.heal();
    scene.converged(&mut daemon).await;
    daemon.status("it is well again", PATIENCE, |s| s["target"]["state"] == "ok").await;
    assert_eq!(daemon.log().matches(told).count(), 1);
}

/// Storms of everything at once, under load: every row arrives, and nothing newer overtakes an attempt without an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_faults_ends_equal_over_both_transports() {
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options::default()).await;
        let mut scene = Scene::scripted(major(), &milvus, transport).await;
        let table = scene.documents(600).await;
        scene.insert(&table, 1, 300, 600).await;
        let mut daemon = scene.started().await;
        for (every, fault) in [
            (7, Fault::Late),
            (5, Fault::Half(1302, "some shards failed")),
            (4, Fault::ResetAfter),
            (11, Fault::ResetBefore),
            (13, Fault::Gateway { status: 503, retry_after: Some(1) }),
        ] {
            milvus.limit(Some(2.0 * MB), Some(0.5 * MB));
            milvus.fail(Operation::Upsert, When::Every(every), fault.clone());
            milvus.fail(Operation::Delete, When::Every(every), fault);
        }
        for round in 0..10 {
            let at = round * 10;
            let calls = milvus.calls(Operation::Upsert);
            scene
                .sql(&format!(
                    "{}; update {table} set n = n + 1 where id % 5 = {}; delete from {table} where id = {at}; \
                     update {table} set id = id + 1000000 where id = {at} + 1",
                    insert(&table, 5000 + at, 5009 + at, 600),
                    round % 5
                ))
                .await;
            // Without a pause all of it would be coalesced into a few requests.
            until("another request", PATIENCE, async || (milvus.calls(Operation::Upsert) > calls).then_some(())).await;
            if round % 3 == 2 {
                // What was answered with a timeout lands now, within its deadline.
                milvus.release_late(Duration::from_secs(3));
            }
        }
        milvus.heal();
        scene.converged(&mut daemon).await;
        assert!(daemon.running());
    }
}

/// A target that takes a row a second while the source writes a thousand: memory stays, the connection lives, PostgreSQL keeps the WAL
/// and we say so; nothing is lost when the target is quick again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_far_too_slow_costs_no_memory() {
    let seconds: u64 = std::env::var("WALVEC_SLOW_TARGET_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(15);
    let milvus = Scripted::start(Options::default()).await;
    let mut scene = Scene::scripted(major(), &milvus, Transport::Grpc).await;
    scene.extra = "[pipeline]\nmemory_bytes = \"16MiB\"".to_owned();
    let table = scene.documents(768).await;
    let mut daemon = scene.started().await;
    milvus.limit(Some(3_100.0), Some(3_100.0));
    let began = Instant::now();
    let mut written = 0;
    let mut most = 0;
    let mut full_at = None;
    let mut retained = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        scene.insert(&table, written + 1, written + 200, 768).await;
        written += 200;
        let status = daemon.status("an answer", PATIENCE, |_| true).await;
        retained = status["source"]["retained_wal_bytes"].as_u64().unwrap_or(0);
        let rss = daemon.metric("process_resident_memory_bytes").await as u64;
        // Full once 16 MiB of rows are held: from there on it must not grow.
        if written >= 8000 && full_at.is_none() {
            full_at = Some(rss);
        }
        most = most.max(rss);
        let behind = Duration::from_millis(written as u64).saturating_sub(began.elapsed());
        tokio::time::sleep(behind).await; // the pace of the source, a thousand rows a second
    }
    let full = full_at.expect("the source wrote enough");
    println!("{written} rows in {seconds} s: resident {full} when full, {most} at most, WAL retained {retained}");
    assert!(most < full + (16 << 20), "resident memory grew from {full} to {most}");
    assert!(retained > 10 << 20, "WAL is retained and shown: {retained}");
    assert_eq!(daemon.log().matches("reconnect").count(), 0, "{}", daemon.log());
    milvus.limit(None, None);
    scene.converged(&mut daemon).await;
}
