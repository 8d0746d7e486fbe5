//! Chaos: tables of several kinds, writers that do everything, and faults at any moment, all of it chosen by one seed. In the
//! end every row of both sides is compared.
//!
//! ```sh
//! WALVEC_CHAOS_SECONDS=3600 cargo test --test it -- --nocapture chaos     # seeds one after the other, for an hour
//! WALVEC_CHAOS_SEED=1234 cargo test --test it -- --nocapture chaos        # the same choices again
//! ```
//!
//! A seed fixes what is done and in which order, not the moments at which servers answer.

use std::time::{Duration, Instant};

use walvec::config::Transport;

use crate::support::daemon::{Daemon, walvec};
use crate::support::rng::Rng;
use crate::support::scene::{PATIENCE, Scene, embedding};
use crate::support::world::{Fault, World};

/// How long `cargo test` does this.
const SECONDS: u64 = 180;
/// Steps of one seed: of the workload, or faults.
const STEPS: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Embeddings in the row.
    Small,
    /// Out of line, so that most updates come without them.
    Large,
    /// Complete old rows.
    Full,
    /// A key of two columns, one of them text.
    Composite,
    Partitioned,
    /// Numbered.
    Keyless,
}

struct Table {
    name: String,
    kind: Kind,
    dim: usize,
    next: i64,
}

impl Table {
    async fn make(kind: Kind, scene: &mut Scene) -> Table {
        let dim = match kind {
            Kind::Small | Kind::Keyless => 8,
            Kind::Large => 1536,
            Kind::Full | Kind::Composite | Kind::Partitioned => 700,
        };
        let columns = format!(
            "id bigint not null, t text not null default 'a|b', n int, title text, embedding vector({dim}) not null"
        );
        let name = match kind {
            Kind::Small | Kind::Large | Kind::Full => scene.table(&format!("{columns}, primary key (id)")).await,
            Kind::Composite => scene.table(&format!("{columns}, primary key (t, id)")).await,
            Kind::Partitioned => scene.table(&format!("{columns}, primary key (id)) partition by hash (id")).await,
            Kind::Keyless => scene.table(&columns).await,
        };
        match kind {
            Kind::Full => scene.sql(&format!("alter table {name} replica identity full")).await,
            Kind::Keyless => {
                scene.sql(&format!("alter table {name} replica identity full")).await;
                scene.set_lines(&name, "auto_id = true");
            }
            Kind::Partitioned => {
                for i in 0..3 {
                    scene
                        .sql(&format!(
                            "create table {name}_{i} partition of {name} for values with (modulus 3, remainder {i})"
                        ))
                        .await;
                }
            }
            Kind::Small | Kind::Large | Kind::Composite => {}
        }
        Table { name, kind, dim, next: 1 }
    }

    fn insert(&mut self, rows: i64) -> String {
        let (from, to) = (self.next, self.next + rows - 1);
        self.next += rows;
        format!(
            "insert into {} (id, n, title, embedding) select i, i % 100, 'title ' || i, {} from generate_series({from}, {to}) i",
            self.name,
            embedding("i", self.dim)
        )
    }

    /// One statement. `far`: a row that is there, more likely than not.
    fn statement(&mut self, rng: &mut Rng) -> String {
        let name = self.name.clone();
        let at = 1 + rng.below(usize::try_from(self.next).unwrap_or(1)) as i64;
        let hot = 1 + rng.below(3) as i64;
        if self.kind == Kind::Keyless {
            return match rng.below(12) {
                0 => format!("truncate {name}"),
                _ => {
                    let rows = 1 + rng.below(40) as i64;
                    self.insert(rows)
                }
            };
        }
        match rng.below(13) {
            0..3 => {
                let rows = [1, 3, 40, 150][rng.below(4)];
                self.insert(rows)
            }
            3..5 => format!("update {name} set n = n + 1 where id between {at} and {at} + 20"),
            5 => format!("update {name} set n = n + 1, title = 'hot ' || n where id = {hot}"),
            6 => format!(
                "update {name} set embedding = {} where id between {at} and {at} + 3",
                embedding(&format!("({at} + 0.5)"), self.dim)
            ),
            7 => format!("delete from {name} where id between {at} and {at} + {}", rng.below(10)),
            8 => format!("update {name} set id = id + 1000000 where id = {at}"),
            9 => format!(
                "delete from {name} where id = {hot}; insert into {name} (id, n, embedding) values ({hot}, 0, {})",
                embedding(&hot.to_string(), self.dim)
            ),
            10 => format!("update {name} set t = t || '|' where id = {at}"),
            11 => format!(
                "insert into {name} (id, embedding) values (-{at}, {}) on conflict do nothing",
                embedding(&at.to_string(), self.dim)
            ),
            _ if rng.percent(30) => format!("truncate {name}"),
            _ => format!("update {name} set title = null where id % 5 = {}", at % 5),
        }
    }
}

/// A transaction over one or more tables: committed, rolled back, or with a part of it rolled back. One that meets a key that is
/// there already fails, as an application's would.
async fn transaction(tables: &mut [Table], scene: &Scene, rng: &mut Rng) {
    let mut sql = String::from("begin; ");
    for _ in 0..=rng.below(4) {
        let at = rng.below(tables.len());
        sql += &tables[at].statement(rng);
        sql += "; ";
        if rng.percent(15) {
            sql += &format!("savepoint s; {}; rollback to s; ", tables[at].statement(rng));
        }
    }
    sql += if rng.percent(10) { "rollback" } else { "commit" };
    if let Err(error) = scene.client.batch_execute(&sql).await {
        let state = error.code().map(|state| state.code().to_owned());
        assert_eq!(state.as_deref(), Some("23505"), "{sql}: {error:?}");
        scene.sql("rollback").await;
    }
}

async fn disturb(world: &mut World, scene: &mut Scene, daemon: &mut Daemon, tables: &[Table], rng: &mut Rng) {
    let possible: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.concerns(world)).collect();
    match rng.below(10) {
        0 => {
            daemon.terminate(PATIENCE).await;
        }
        1 => {
            // Before it listens for it, SIGHUP ends a process.
            daemon.status("it answers", PATIENCE, |_| true).await;
            scene.reload(daemon);
        }
        2 => {
            let table = &tables[rng.below(tables.len())];
            // A daemon that is just connecting may not know the table yet.
            let (code, out, err) = walvec("resync", daemon.config(), &[&table.name]);
            eprintln!("  resync of {:?}: {code} {}", table.kind, (out + &err).lines().next().unwrap_or_default());
        }
        3 => {
            let table = &tables[rng.below(tables.len())];
            scene.sql(&format!("vacuum full {}", table.name)).await;
        }
        _ => {
            let fault = rng.pick(&possible);
            eprintln!("  {fault:?}");
            world.strike(fault, scene, daemon).await;
        }
    }
    if !daemon.running() {
        daemon.restart();
    }
}

async fn one(world: &mut World, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut scene = world.scene().await;
    scene.extra = format!(
        "[pipeline]\nchunk_bytes = \"{}KiB\"\nrequest_rows_max = {}\nlanes = {}\nmemory_bytes = \"{}MiB\"\ncheckpoint_interval = \"{}ms\"",
        [64, 128, 1024][rng.below(3)],
        [7, 50, 1000][rng.below(3)],
        1 + rng.below(4),
        [8, 32][rng.below(2)],
        [10, 200, 1000][rng.below(3)],
    );
    let all = [Kind::Small, Kind::Large, Kind::Full, Kind::Composite, Kind::Partitioned, Kind::Keyless];
    let mut tables = Vec::new();
    for _ in 0..=rng.below(3) {
        tables.push(Table::make(rng.pick(&all), &mut scene).await);
    }
    for table in &mut tables {
        let rows = [0, 20, 400][rng.below(3)];
        scene.sql(&table.insert(rows)).await;
    }
    eprintln!("seed {seed}: {:?}", tables.iter().map(|table| table.kind).collect::<Vec<_>>());
    let mut daemon = scene.start();
    for _ in 0..STEPS {
        match rng.percent(8) {
            true => disturb(world, &mut scene, &mut daemon, &tables, &mut rng).await,
            false => transaction(&mut tables, &scene, &mut rng).await,
        }
    }
    world.heal();
    if !daemon.running() {
        daemon.restart();
    }
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    scene.drop_slot().await;
    assert_eq!(world.violations(), Vec::<String>::new());
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_ends_equal() {
    let began = Instant::now();
    let lasts = Duration::from_secs(number("WALVEC_CHAOS_SECONDS").unwrap_or(SECONDS));
    let given = number("WALVEC_CHAOS_SEED");
    let first = given.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    let mut worlds = Vec::new();
    let mut seeds = 0;
    loop {
        let seed = first + seeds;
        // The world belongs to the seed too; each is started when it is first needed.
        let which = (seed % 4) as usize;
        if !worlds.iter().any(|(made, _)| *made == which) {
            worlds.push((
                which,
                match which {
                    0 | 2 => World::real([18, 16][which / 2]).await,
                    1 => World::scripted(18, Transport::Rest).await,
                    _ => World::scripted(16, Transport::Grpc).await,
                },
            ));
        }
        let (_, world) = worlds.iter_mut().find(|(made, _)| *made == which).expect("just made");
        one(world, seed).await;
        seeds += 1;
        if given.is_some() || began.elapsed() >= lasts {
            break;
        }
    }
    eprintln!("{seeds} seeds from {first} on, in {:?}", began.elapsed());
}
