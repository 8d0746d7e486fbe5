//! Each fault in each state of the daemon, generated: it is frozen at a place of its own, struck there, and ends equal.
//!
//! `cargo test` strikes with a part of it, in which each fault and each state is; all of it, on both versions of PostgreSQL and over
//! both transports, takes most of an hour:
//!
//! ```sh
//! cargo test --test it -- --ignored --nocapture the_whole_matrix
//! ```

use walvec::config::Transport;

use crate::support::daemon::Daemon;
use crate::support::scene::{PATIENCE, Scene, insert};
use crate::support::wait::until;
use crate::support::world::{Fault, World};

const DIM: usize = 600;

/// Where the daemon is when it is struck.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A chunk was answered, and nobody has heard it yet.
    Copying,
    /// The same of a change.
    Streaming,
    /// Acknowledged, and not in the checkpoint.
    Acknowledged,
    /// In the checkpoint, and PostgreSQL does not know.
    Checkpointed,
    /// A TRUNCATE is to be carried out.
    Barrier,
}

impl State {
    const ALL: [State; 5] =
        [State::Copying, State::Streaming, State::Acknowledged, State::Checkpointed, State::Barrier];

    fn place(self) -> &'static str {
        match self {
            State::Copying => "sent:2",
            State::Streaming => "sent:3",
            State::Acknowledged => "acknowledged:3",
            State::Checkpointed => "checkpointed:2",
            State::Barrier => "barrier:1",
        }
    }
}

async fn load(scene: &Scene, table: &str, round: i64) {
    let at = 5_000 + round * 10;
    scene
        .sql(&format!(
            "begin; {}; update {table} set n = n + 1 where id % 7 = {}; commit; delete from {table} where id = {at} - 19;
             update {table} set id = id + 1000000 where id = {at} - 18",
            insert(table, at, at + 9, DIM),
            round % 7
        ))
        .await;
}

async fn cell(world: &mut World, state: State, fault: Fault) {
    eprintln!("{state:?}, {fault:?}");
    let mut scene = world.scene().await;
    scene.extra =
        "[pipeline]\nchunk_bytes = \"128KiB\"\nrequest_rows_max = 50\ncheckpoint_interval = \"50ms\"".to_owned();
    let table = scene.documents(DIM).await;
    scene.insert(&table, 1, 200, DIM).await;
    let place = [("WALVEC_STOP_AT", state.place())];
    let mut daemon: Daemon;
    let mut round = 0;
    if let State::Copying = state {
        daemon = scene.start_with(&place);
        until("it is frozen", PATIENCE, async || daemon.frozen().then_some(())).await;
    } else {
        daemon = scene.started().await;
        daemon.terminate(PATIENCE).await;
        daemon.restart_with(&place);
        while !daemon.frozen() {
            round += 1;
            assert!(round < 3_000 && daemon.running(), "{state:?} is never reached:\n{}", daemon.log());
            if let State::Barrier = state {
                scene.sql(&format!("truncate {table}")).await;
            }
            load(&scene, &table, round).await;
        }
    }
    world.strike(fault, &mut scene, &mut daemon).await;
    for more in 1..4 {
        load(&scene, &table, round + more).await;
    }
    assert_eq!(daemon.running(), !fault.ends_daemon(), "{state:?}, {fault:?}:\n{}", daemon.log());
    if !daemon.running() {
        daemon.restart();
    }
    daemon.ready(PATIENCE).await;
    world.heal();
    scene.converged(&mut daemon).await;
    let tries = daemon.log().matches("columns could not be fetched").count();
    assert!(tries < 60, "{tries} tries to fetch, {state:?}, {fault:?}:\n{}", daemon.log());
    daemon.terminate(PATIENCE).await;
    scene.drop_slot().await;
    assert_eq!(world.violations(), Vec::<String>::new());
}

/// Faults that this world has, the states in turn. What each world has is struck in one of them only.
async fn a_part(mut world: World, common: usize) {
    let all: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.concerns(&world)).collect();
    let (everywhere, own): (Vec<Fault>, Vec<Fault>) = all.into_iter().partition(|fault| fault.is_everywhere());
    let faults = everywhere.into_iter().skip(common).step_by(2).chain(own);
    for (fault, state) in faults.zip(State::ALL.into_iter().cycle()) {
        cell(&mut world, state, fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_milvus_lite() {
    a_part(World::real(18).await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_the_scripted_milvus_over_rest() {
    a_part(World::scripted(16, Transport::Rest).await, 1).await;
}

async fn whole(mut world: World) {
    let mut cells = 0;
    for state in State::ALL {
        for fault in Fault::ALL {
            if fault.concerns(&world) {
                cell(&mut world, state, fault).await;
                cells += 1;
            }
        }
    }
    eprintln!("{cells} cells");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long; see the head of this file"]
async fn the_whole_matrix_with_milvus_lite_on_18() {
    whole(World::real(18).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long; see the head of this file"]
async fn the_whole_matrix_with_milvus_lite_on_16() {
    whole(World::real(16).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long; see the head of this file"]
async fn the_whole_matrix_over_grpc_on_18() {
    whole(World::scripted(18, Transport::Grpc).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long; see the head of this file"]
async fn the_whole_matrix_over_rest_on_16() {
    whole(World::scripted(16, Transport::Rest).await).await;
}
