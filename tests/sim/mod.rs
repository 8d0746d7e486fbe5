//! The deterministic simulator: runs the real engine against a simulated PostgreSQL, Milvus, sled and shell, through
//! random interleavings, crashes and lost answers, and checks after every step what the engine promises.
//!
//! It is compiled into the library's own tests (`engine` names this file), because the switches that break a rule on
//! purpose exist under `cfg(test)` only: `broken` proves with each of them that the simulator would notice.
//!
//! ```text
//!   script ─► source ──stream, SQL──► daemon (the shell) ◄─► crate::engine::Engine
//!   (what       │                        │    │
//!   happens)    └ commits, snapshots     │    └─ requests ─► target        world: chooses the next step by chance
//!                                        └─ disk (sled)                    check: what must be true after it
//! ```
//!
//! A run is one number: the same seed gives the same run. A failure prints it with the trace and the command that
//! replays it. `WALVEC_SIM_SEED=n` replays one run of the test that is asked for, step by step;
//! `WALVEC_SIM_SECONDS=n` runs each test for so long, from a seed taken from the clock.
//!
//! Not here: SQL and bytes as they are (`tests/it`), the shell as it is (`pipeline`): the simulated one follows the
//! same rules and can break them one at a time.

mod broken;
mod check;
mod copy;
mod daemon;
mod disk;
mod requests;
mod rng;
mod scenarios;
mod script;
mod source;
mod target;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use rng::Rng;
use script::Scenario;
use world::{Outcome, Sabotage, World};

/// A run that broke a promise.
struct Failure {
    seed: u64,
    error: String,
    /// Steps and statements: the smaller, the better to read.
    size: usize,
}

/// How long to search.
#[derive(Clone, Copy)]
struct Budget {
    runs: u64,
    time: Duration,
}

fn run(
    make: &dyn Fn(&mut Rng) -> Scenario,
    seed: u64,
    sabotage: Sabotage,
    traced: bool,
) -> (Result<Outcome, String>, World) {
    let mut rng = Rng::new(seed);
    let scenario = make(&mut rng);
    let mut world = World::new(&scenario, rng, sabotage, traced);
    if traced {
        world.note(format!("     {scenario:?}\n     {:?}, keys from {}", world.settings, world.codec.salt));
    }
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without words")))
    });
    (result, world)
}

/// Runs until one fails. `Err`: how many runs were good, and how many of them the start gate refused.
fn search(
    make: &dyn Fn(&mut Rng) -> Scenario,
    first: u64,
    sabotage: Sabotage,
    budget: Budget,
) -> Result<Failure, (u64, u64)> {
    let start = Instant::now();
    let (mut runs, mut refused) = (0, 0);
    while runs < budget.runs && (runs % 16 != 0 || start.elapsed() < budget.time) {
        let seed = first.wrapping_add(runs);
        let (result, world) = run(make, seed, sabotage, false);
        match result {
            Ok(outcome) => refused += u64::from(outcome == Outcome::Refused),
            Err(error) => return Ok(Failure { seed, error, size: world.steps() }),
        }
        runs += 1;
    }
    Err((runs, refused))
}

/// The test of a scenario: none of its runs may fail.
fn hold(name: &str, make: &dyn Fn(&mut Rng) -> Scenario, budget: Budget) {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = setting("WALVEC_SIM_SEED") {
        let (result, world) = run(make, seed, Sabotage::None, true);
        println!("{}", world.report());
        match result {
            Ok(outcome) => return println!("{name}, seed {seed}: {outcome:?}"),
            Err(error) => panic!("{name}, seed {seed}: {error}"),
        }
    }
    let (first, budget) = match setting("WALVEC_SIM_SECONDS") {
        None => (0, budget),
        Some(seconds) => {
            let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
            (clock.as_nanos() as u64, Budget { runs: u64::MAX, time: Duration::from_secs(seconds) })
        }
    };
    match search(make, first, Sabotage::None, budget) {
        Err((runs, refused)) => {
            println!("{name}: {runs} runs from seed {first}, the start gate refused {refused}");
            assert!(runs > refused, "runs that the start gate refuses prove nothing");
        }
        Ok(failure) => {
            let failure = shortest(make, failure);
            let (_, world) = run(make, failure.seed, Sabotage::None, true);
            panic!(
                "{name}, seed {seed}: {error}\n{trace}\nreplay: WALVEC_SIM_SEED={seed} cargo test --lib {name} -- --nocapture",
                seed = failure.seed,
                error = failure.error,
                trace = world.report()
            );
        }
    }
}

/// Of the next failures the one with the fewest steps: the same fault, but easier to read.
fn shortest(make: &dyn Fn(&mut Rng) -> Scenario, first: Failure) -> Failure {
    let start = Instant::now();
    let mut best = first;
    let mut seed = best.seed;
    while start.elapsed() < Duration::from_secs(3) {
        let budget = Budget { runs: 4000, time: Duration::from_secs(1) };
        let Ok(next) = search(make, seed.wrapping_add(1), Sabotage::None, budget) else { break };
        seed = next.seed;
        if next.size < best.size {
            best = next;
        }
    }
    best
}
