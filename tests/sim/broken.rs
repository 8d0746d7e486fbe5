//! The simulator can fail: every rule, broken on purpose, is found within a bounded number of runs.

use std::time::Duration;

use crate::engine::Flaw;

use super::script::{
    Faults, Op, Scenario, delete, insert, insert_poison, rekey, scalar, scalar_poison, truncate, vector,
};
use super::world::{Sabotage, ShellFlaw};
use super::{Budget, run, search};

fn assert_found(sabotage: Sabotage, scenario: Scenario) {
    // Seeds are the same each time, so it is the runs that decide; the time only ends what would never end.
    let budget = Budget { runs: 200_000, time: Duration::from_secs(600) };
    match search(&|_| scenario.clone(), 0, sabotage, budget) {
        Err((runs, _)) => panic!("{sabotage:?} was not noticed in {runs} runs"),
        Ok(failure) => {
            println!("{sabotage:?}: seed {}, {} steps: {}", failure.seed, failure.size, failure.error);
            let (again, _) = run(&|_| scenario.clone(), failure.seed, sabotage, false);
            assert_eq!(again.err(), Some(failure.error), "the same seed is the same run");
        }
    }
}

macro_rules! broken {
    ($($name:ident: $kind:ident($flaw:expr), $scenario:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_found(Sabotage::$kind($flaw), $scenario);
        })*
    };
}

broken! {
    no_visibility_check: Engine(Flaw::NoVisibilityCheck),
        Scenario::new(&[(0, 0)], true, &[&[vector(0)]]);
    visibility_of_this_process_only: Engine(Flaw::VisibilityOfThisProcessOnly),
        Scenario::new(&[(0, 0)], true, &[&[vector(0), insert(1, 1)]]).below_slot(1);
    half_dispatched_transaction_not_checked: Engine(Flaw::HalfDispatchedNotChecked),
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[vector(1), vector(0)]]);
    no_touched_sets: Engine(Flaw::NoTouchedSets),
        Scenario::new(&[(0, 0)], true, &[&[vector(0)]]);
    lossy_touched_set: Engine(Flaw::LossyTouchedSet),
        Scenario::new(&[(0, 0), (1, 0), (2, 0), (3, 0)], true, &[&[vector(0)], &[vector(1)]]);
    chunk_row_dropped_if_its_key_is_busy: Engine(Flaw::DropChunkRowIfBusy),
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[Op::VacuumFull]]).with(|f| *f = Faults { kills: 1, ..Faults::default() });
    update_merged_onto_a_delete: Engine(Flaw::MergeOntoDelete),
        Scenario::new(&[(0, 0), (2, 0)], false, &[&[vector(0)], &[delete(0), rekey(2, 0)], &[scalar(0)]]);
    delete_and_upsert_in_one_flush: Engine(Flaw::DeleteAndUpsertInOneFlush),
        Scenario::new(&[(0, 0)], false, &[&[delete(0), insert(0, 0)]]);
    fetch_without_guard: Engine(Flaw::FetchWithoutGuard),
        Scenario::new(&[(0, 0)], false, &[&[scalar(0), rekey(0, 1), scalar(1)]]);
    fetch_guarded_by_the_oldest: Engine(Flaw::GuardByOldest),
        Scenario::new(&[(0, 0), (2, 0)], false, &[&[scalar(0)], &[delete(0)], &[rekey(2, 0)]]);
    key_change_carries_a_chunk_row: Engine(Flaw::CarryFromChunkRow),
        Scenario::new(&[(0, 0), (2, 0)], true, &[&[rekey(0, 3)], &[rekey(2, 0)]]);
    no_embargo: Engine(Flaw::NoEmbargo),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.lost_answers = 2);
    no_quiet_start: Engine(Flaw::NoQuietStart),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]);
    progress_before_acknowledgement: Engine(Flaw::ProgressBeforeAck),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)]]);
    chunk_done_before_acknowledgement: Engine(Flaw::ChunkDoneBeforeAck),
        Scenario::new(&[(0, 0)], true, &[&[]]);
    no_flush_wait: Engine(Flaw::NoFlushWait),
        Scenario::new(&[(0, 0)], true, &[&[insert(1, 0)]]).with(|f| f.server_crashes = 1);
    no_delete_beneath: Engine(Flaw::NoBeneath),
        Scenario::new(&[(0, 0), (2, 0)], false, &[&[delete(0), rekey(2, 0)], &[rekey(0, 1)]]);
    no_sent_limit: Engine(Flaw::NoSentLimit),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)]]).with(|f| f.failovers = 1);
    truncate_leaves_chunks: Engine(Flaw::TruncateLeavesChunks),
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[truncate()]]);
    no_horizon: Engine(Flaw::NoHorizon),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[truncate()], &[insert(0, 0)]]).with(|f| f.kills = 3);
    letter_not_awaited: Engine(Flaw::LetterNotAwaited),
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)]]).dead_letters();
    letter_without_delete: Engine(Flaw::LetterWithoutDelete),
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)]]).dead_letters();
    sweep_forgets_what_lies_beneath: Engine(Flaw::SweepForgetsBeneath),
        Scenario::new(&[(0, 0)], true, &[&[insert_poison(3, 1)], &[delete(3)]]).sweeps().with(|f| *f = Faults::default());

    swept_before_the_horizon: Shell(ShellFlaw::SweptBeforeHorizon),
        Scenario::new(&[(0, 0)], true, &[&[insert_poison(3, 1)], &[delete(3)]]).sweeps().with(|f| *f = Faults::default());
    confirm_before_flush: Shell(ShellFlaw::ConfirmBeforeFlush),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)]]);
    flags_outlive_the_file_node: Shell(ShellFlaw::FlagsOutliveFileNode),
        Scenario::new(&[(0, 1), (1, 0)], true, &[&[Op::VacuumFull], &[]]).with(|f| f.kills = 3);
    snapshot_before_lock: Shell(ShellFlaw::SnapshotBeforeLock),
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[Op::Rewrite]]);
    chunk_marked_when_read: Shell(ShellFlaw::MarkChunkWhenRead),
        Scenario::new(&[(0, 0)], true, &[&[]]);
    reconnect_keeps_progress: Shell(ShellFlaw::ReconnectKeepsProgress),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.cuts = 2);
    reconnect_forgets_the_quiet_start: Shell(ShellFlaw::ReconnectForgetsQuietStart),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.cuts = 2);
    reconnect_without_drain: Shell(ShellFlaw::ReconnectWithoutDrain),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.cuts = 2);
    start_below_the_checkpoint: Shell(ShellFlaw::StartBelowCheckpoint),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.kills = 3);
    gate_ignores_the_sent_limit: Shell(ShellFlaw::GateIgnoresSentLimit),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)]]).with(|f| f.failovers = 1);
    sent_limit_not_flushed: Shell(ShellFlaw::SentLimitNotFlushed),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)]]).with(|f| f.failovers = 1);
    unflushed_rows_kept: Shell(ShellFlaw::KeepUnflushedRows),
        Scenario::new(&[(0, 0)], true, &[&[insert(1, 0)], &[insert(2, 1)]])
            .with(|f| *f = Faults { server_crashes: 1, ..Faults::default() });
    rows_in_hand_survive_the_discard: Engine(Flaw::RowsInHandSurviveDiscard),
        Scenario::new(&[(0, 0)], true, &[&[insert(1, 0)], &[insert(2, 1)]])
            .with(|f| *f = Faults { server_crashes: 1, ..Faults::default() });
    clean_mark_stays: Shell(ShellFlaw::CleanMarkStays),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]);
    clean_stop_lowers_the_sent_limit: Shell(ShellFlaw::CleanStopLowersSentLimit),
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[vector(0)]]).with(|f| (f.failovers, f.clean_stops) = (1, 2));
    late_attempts_forgotten: Shell(ShellFlaw::ForgetLateAttempts),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.lost_answers = 2);
    truncate_not_settled: Shell(ShellFlaw::TruncateNotSettled),
        Scenario::new(&[(0, 0)], false, &[&[truncate()], &[insert(0, 0)]]).with(|f| f.lost_answers = 2);
    let_go_not_written: Shell(ShellFlaw::LetGoNotWritten),
        Scenario::new(&[(0, 0), (1, 1)], false, &[&[vector(0)], &[vector(1)]]).with(|f| (f.unfit, f.let_go) = (1, 1));
    let_go_not_swept: Shell(ShellFlaw::LetGoNotSwept),
        Scenario::new(&[(0, 0), (1, 1)], false, &[&[delete(0)], &[delete(1)]]).with(|f| (f.unfit, f.let_go) = (1, 1));
    skip_of_what_is_not_flushed: Shell(ShellFlaw::SkipUnflushed),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)]])
            .with(|f| *f = Faults { unfit: 1, remakes: 1, server_crashes: 1, ..Faults::default() });
    skip_without_sent_limit: Shell(ShellFlaw::SkipWithoutSentLimit),
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[vector(0)], &[vector(1)], &[delete(0)], &[delete(1)]])
            .with(|f| *f = Faults { unfit: 2, remakes: 2, failovers: 2, ..Faults::default() });
    made_anew_before_late_requests: Shell(ShellFlaw::RemadeBeforeLate),
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)]])
            .with(|f| *f = Faults { unfit: 1, remakes: 1, kills: 2, lost_answers: 2, ..Faults::default() });
    chunk_without_the_row_filter: Shell(ShellFlaw::ChunkWithoutFilter),
        Scenario::new(&[(0, 0)], true, &[&[Op::Leave { key: 0 }], &[vector(0)]]);
}
