//! What is measured, one function each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::measure::{median, quantile};
use crate::report::Results;
use crate::world::{Daemon, Outcome, Setup, World};

/// Rows of a transaction of the backlog.
const TRANSACTION_ROWS: u64 = 1000;
/// 200 changes a second.
const BETWEEN_CHANGES: Duration = Duration::from_millis(5);

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// CPU seconds per 100,000 rows.
fn cpu(daemon: &Daemon, rows: u64) -> Outcome<f64> {
    Ok(daemon.usage()?.cpu.as_secs_f64() * 1e5 / rows as f64)
}

/// From starting the daemon without a slot until the target has every row of `docs`; the limit reads the same over one
/// connection. Then until `/readyz` says that the table follows.
pub async fn copy(world: &mut World, results: &mut Results, transport: &str) -> Outcome<()> {
    let scenario = if transport == "rest" { "copy, REST" } else { "copy" };
    let rows = world.sizes.rows;
    let limit = world.limit("psql", &["-qc", "COPY docs TO STDOUT (FORMAT binary)"]).await?.as_secs_f64();

    let setup = world.setup("docs", transport)?;
    let before = world.discard.counts().rows;
    let mut daemon = setup.spawn()?;
    daemon.until("the first row is copied", world.discard.until_rows(before + 1)).await?;
    let first = daemon.began.elapsed();
    daemon.until("every row is copied", world.discard.until_rows(before + rows)).await?;
    let copied = Instant::now();
    let wall = (copied - daemon.began).as_secs_f64();
    let cpu = cpu(&daemon, rows)?;
    daemon.ready().await?;
    let to_following = copied.elapsed();
    let peak = daemon.usage()?.peak_rss_bytes;
    daemon.stop().await?;
    world.remove(setup).await?;

    results.add(scenario, "limit: psql COPY binary", "s", limit);
    results.add(scenario, "walvec, from its start", "s", wall);
    results.add(scenario, "of it, until the first row", "s", first.as_secs_f64());
    results.add(scenario, "walvec ÷ limit", "", wall / limit);
    results.add(scenario, "walvec rows", "1000/s", rows as f64 / wall / 1e3);
    results.add(scenario, "walvec CPU per 100k rows", "s", cpu);
    results.add(scenario, "walvec peak RSS", "MB", megabytes(peak));
    results.add(scenario, "last row copied → following", "ms", to_following.as_secs_f64() * 1e3);
    Ok(())
}

/// A backlog of as many rows as `docs` has, in transactions of 1000, written while the daemon is stopped.
pub async fn drain(world: &mut World, results: &mut Results, transport: &str) -> Outcome<()> {
    let rows = world.sizes.rows;
    let drained = backlog(world, "backlog", transport, rows + 1, async |world| {
        for first in (1..=rows).step_by(TRANSACTION_ROWS as usize) {
            let sql = "INSERT INTO backlog SELECT * FROM docs WHERE id >= $1 AND id < $2";
            world.client.execute(sql, &[&(first as i64), &((first + TRANSACTION_ROWS) as i64)]).await?;
        }
        Ok("INSERT INTO backlog SELECT 0, title, meta, embedding FROM docs WHERE id = 1")
    })
    .await?;
    drained.add(if transport == "rest" { "drain, REST" } else { "drain" }, results);
    Ok(())
}

/// One transaction of small rows: memory must not grow with it.
pub async fn large(world: &mut World, results: &mut Results) -> Outcome<()> {
    let rows = world.sizes.small_rows;
    let drained = backlog(world, "small", "grpc", rows + 1, async |world| {
        let sql =
            "INSERT INTO small SELECT id, id % 1000, ARRAY[id % 7, 1]::int[]::vector FROM generate_series(1::bigint, $1) id";
        world.client.execute(sql, &[&(rows as i64)]).await?;
        Ok("INSERT INTO small VALUES (0, 0, '[1,2]')")
    })
    .await?;
    drained.add("large", results);
    Ok(())
}

struct Drained {
    rows: u64,
    limit: f64,
    first: f64,
    wall: f64,
    cpu: f64,
    peak: u64,
}

impl Drained {
    fn add(&self, scenario: &'static str, results: &mut Results) {
        results.add(scenario, "limit: pg_recvlogical", "s", self.limit);
        results.add(scenario, "walvec, from its start", "s", self.wall);
        results.add(scenario, "of it, until the first row", "s", self.first);
        results.add(scenario, "walvec ÷ limit", "", self.wall / self.limit);
        results.add(scenario, "walvec rows", "1000/s", self.rows as f64 / self.wall / 1e3);
        results.add(scenario, "walvec CPU per 100k rows", "s", self.cpu);
        results.add(scenario, "walvec peak RSS", "MB", megabytes(self.peak));
    }
}

/// Let the daemon follow the empty table and stop it; write; then let `pg_recvlogical` and the daemon read the same log, each
/// from a slot of its own. `write` returns the statement of one more row: the reader that is told to stop at a position
/// only stops at the first message behind it, and on a quiet server none would come.
async fn backlog(
    world: &mut World,
    table: &str,
    transport: &str,
    rows: u64,
    write: impl AsyncFnOnce(&World) -> Outcome<&'static str>,
) -> Outcome<Drained> {
    world.client.batch_execute(&format!("TRUNCATE {table}")).await?;
    let setup = world.setup(table, transport)?;
    let mut daemon = setup.spawn()?;
    daemon.ready().await?;
    daemon.stop().await?;
    let slot = format!("{}_limit", setup.name);
    world.client.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await?;

    let last = write(world).await?;
    let end = world.insert_position().await?;
    world.client.batch_execute(last).await?;

    let limit = recvlogical(world, &setup, &slot, &end).await?;
    world.client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await?;

    let before = world.discard.counts().rows;
    let mut daemon = setup.spawn()?;
    daemon.until("the first row of the backlog", world.discard.until_rows(before + 1)).await?;
    let first = daemon.began.elapsed().as_secs_f64();
    daemon.until("the backlog is drained", world.discard.until_rows(before + rows)).await?;
    let wall = daemon.began.elapsed().as_secs_f64();
    let (cpu, peak) = (cpu(&daemon, rows)?, daemon.usage()?.peak_rss_bytes);
    daemon.stop().await?;
    world.remove(setup).await?;
    world.client.batch_execute(&format!("TRUNCATE {table}")).await?;
    Ok(Drained { rows, limit, first, wall, cpu, peak })
}

async fn recvlogical(world: &World, setup: &Setup, slot: &str, end: &str) -> Outcome<f64> {
    let publication = format!("publication_names={}", setup.name);
    let options = ["-o", "proto_version=1", "-o", &publication, "-o", "binary=true"];
    let start = ["--slot", slot, "--start", "--no-loop", "-f", "-", "--endpos", end];
    Ok(world.limit("pg_recvlogical", &[&start[..], &options[..]].concat()).await?.as_secs_f64())
}

/// From sending a single-row INSERT, which is also its commit, until its row is at the target; so it includes what
/// PostgreSQL takes for the statement.
pub async fn latency(world: &mut World, results: &mut Results) -> Outcome<()> {
    let changes = world.sizes.latency_changes;
    // The tables of the other scenarios are on their way to the disk for a minute: a flush of ours would wait behind them.
    world.client.batch_execute("CHECKPOINT").await?;
    std::process::Command::new("sync").status()?;
    let setup = world.setup("ticks", "grpc")?;
    let mut daemon = setup.spawn()?;
    daemon.ready().await?;
    let all = world.discard.counts().rows + changes;
    world.discard.note_arrivals();
    let before = daemon.usage()?.cpu;

    let insert = world
        .client
        .prepare("INSERT INTO ticks SELECT $1::bigint, title, meta, embedding FROM docs WHERE id = 1 + $1::bigint % 97")
        .await?;
    let mut sent = Vec::with_capacity(changes as usize);
    let mut pace = tokio::time::interval(BETWEEN_CHANGES);
    for id in 0..changes as i64 {
        pace.tick().await;
        sent.push((id, Instant::now()));
        world.client.execute(&insert, &[&id]).await?;
    }
    daemon.until("every change has arrived", world.discard.until_rows(all)).await?;
    let cpu = daemon.usage()?.cpu - before;
    daemon.stop().await?;
    world.remove(setup).await?;
    world.client.batch_execute("TRUNCATE ticks").await?;

    // A change that was sent again counts with its first arrival.
    let mut arrived: HashMap<i64, Instant> = HashMap::new();
    for (id, at) in world.discard.take_arrivals() {
        arrived.entry(id).or_insert(at);
    }
    let latencies = sent.into_iter().map(|(id, at)| {
        let arrival = arrived.get(&id).ok_or_else(|| format!("change {id} never arrived"))?;
        Ok(arrival.saturating_duration_since(at).as_secs_f64() * 1e3)
    });
    let latencies = latencies.collect::<Result<Vec<f64>, String>>()?;
    results.add("latency", "commit → target, p50", "ms", median(&latencies));
    results.add("latency", "commit → target, p90", "ms", quantile(&latencies, 0.9));
    results.add("latency", "commit → target, p99", "ms", quantile(&latencies, 0.99));
    results.add("latency", "commit → target, max", "ms", quantile(&latencies, 1.0));
    results.add("latency", "walvec CPU per 1000 changes", "s", cpu.as_secs_f64() * 1e3 / changes as f64);
    Ok(())
}

/// Following, and nothing happens.
pub async fn idle(world: &mut World, results: &mut Results) -> Outcome<()> {
    let setup = world.setup("ticks", "grpc")?;
    let mut daemon = setup.spawn()?;
    daemon.ready().await?;
    let before = daemon.usage()?;
    let span = Duration::from_secs(world.sizes.idle_seconds);
    daemon.until("the end of the idle time", tokio::time::sleep(span)).await?;
    let after = daemon.usage()?;
    daemon.stop().await?;
    world.remove(setup).await?;
    let share = (after.cpu - before.cpu).as_secs_f64() / span.as_secs_f64();
    results.add("idle", "walvec CPU", "%", share * 100.0);
    results.add("idle", "walvec RSS", "MB", megabytes(after.rss_bytes));
    Ok(())
}
