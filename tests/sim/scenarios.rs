//! Scenarios, each aimed at one difficulty, and the random walk over all that a script can be.

use std::time::Duration;

use super::script::{
    Op, Scenario, body, both_poison, delete, insert, insert_poison, rekey, scalar, scalar_moves, scalar_poison,
    truncate, vector,
};
use super::{Budget, hold};

#[test]
fn random_walks() {
    let budget = Budget { runs: u64::MAX, time: Duration::from_secs(10) };
    hold("random_walks", &|rng| Scenario::random(rng), budget);
}

macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        $(#[test]
        fn $name() {
            let scenario: Scenario = $scenario;
            let budget = Budget { runs: 2500, time: Duration::from_millis(400) };
            hold(stringify!($name), &|_| scenario.clone(), budget);
        })*
    };
}

// `new(rows at the start as (key, range), is the copy still to be done, transactions)`.
scenarios! {
    // The stream alone.
    s01_insert_and_scalar_update_in_one_transaction:
        Scenario::new(&[(0, 0)], false, &[&[insert(1, 0), scalar(1)], &[vector(1)]]);
    s02_vector_then_scalar_update_while_the_commit_is_invisible:
        Scenario::new(&[(0, 0)], false, &[&[vector(0), scalar(0)], &[scalar(0)]]);
    s03_keys_swapped_through_a_free_key:
        Scenario::new(&[(0, 0), (2, 0)], false, &[&[rekey(0, 1), rekey(2, 0), rekey(1, 2)]]);
    s04_key_deleted_and_taken_by_another_row:
        Scenario::new(&[(0, 0), (2, 1)], false, &[&[delete(0), rekey(2, 0)], &[scalar(0)]]);
    s05_update_delete_insert_again:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[delete(0)], &[insert(0, 0)], &[scalar(0)]]);
    s06_chain_of_key_changes_through_one_key:
        Scenario::new(&[(0, 0), (2, 1)], false, &[&[rekey(0, 1)], &[rekey(1, 0)], &[rekey(2, 1)], &[scalar(1)]]);
    s07_requests_that_land_late:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)], &[delete(0)]]).with(|f| f.lost_answers = 3);
    s08_truncate_in_the_middle_of_a_transaction:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[scalar(0)], &[insert(2, 0), truncate(), insert(0, 0)], &[scalar(0)]]);
    s09_truncate_whose_step_lands_late:
        Scenario::new(&[(0, 0)], false, &[&[truncate()], &[insert(0, 0)], &[truncate(), insert(1, 0)]])
            .with(|f| f.lost_answers = 3);
    s10_two_large_columns_and_a_key_change:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[rekey(0, 1)], &[body(1)], &[scalar(1)]]).wide();
    s11_update_delete_and_a_key_change_onto_the_key:
        Scenario::new(&[(0, 0), (2, 0)], false, &[&[scalar(0)], &[delete(0)], &[rekey(2, 0)]]);

    // The copy beside the stream.
    c01_copy_beside_scalar_updates:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[scalar(0)], &[scalar(1)]]);
    c02_copy_beside_a_vector_update_that_is_not_visible:
        Scenario::new(&[(0, 0)], true, &[&[vector(0)], &[scalar(0)]]);
    c03_row_moves_into_a_range_already_read:
        Scenario::new(&[(0, 1)], true, &[&[scalar_moves(0, 0)], &[scalar(0)]]);
    c04_row_moves_out_of_a_range_already_read:
        Scenario::new(&[(0, 0)], true, &[&[scalar_moves(0, 1)], &[vector(0)]]);
    c05_update_then_delete_during_the_copy:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[scalar(0)], &[delete(0)]]);
    c06_key_change_across_lanes_and_chunks:
        Scenario::new(&[(0, 0), (2, 1)], true, &[&[rekey(0, 1)], &[scalar(1)]]);
    c07_key_changes_onto_a_key_just_left:
        Scenario::new(&[(0, 0), (2, 0)], true, &[&[rekey(0, 1)], &[rekey(2, 0)]]);
    c08_truncate_during_the_copy:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[truncate()], &[insert(0, 1)]]);
    c09_vacuum_full_during_the_copy:
        Scenario::new(&[(0, 1)], true, &[&[Op::VacuumFull], &[scalar(0)]]);
    c10_rewriting_alter_during_the_copy:
        Scenario::new(&[(0, 1), (1, 0)], true, &[&[Op::Rewrite]]);
    c11_committed_below_the_slot_and_not_visible:
        Scenario::new(&[(0, 0)], true, &[&[vector(0), insert(1, 1)], &[scalar(0)]]).below_slot(1);
    c12_delete_and_insert_again_during_the_copy:
        Scenario::new(&[(0, 0)], true, &[&[delete(0)], &[insert(0, 1)], &[scalar(0)]]);
    c13_transaction_of_two_rows_around_a_chunk:
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[vector(0), vector(1)]]);
    c14_scalar_updates_of_a_row_that_is_gone:
        Scenario::new(&[(0, 0)], true, &[&[scalar(0)], &[scalar(0)], &[delete(0)]]);
    c15_key_changes_to_and_fro:
        Scenario::new(&[(0, 0), (2, 1)], true, &[&[rekey(0, 1)], &[rekey(1, 0)], &[rekey(2, 1)]]);
    c16_late_requests_during_the_copy:
        Scenario::new(&[(0, 0)], true, &[&[vector(0)], &[delete(0)]]).with(|f| f.lost_answers = 3);
    c17_scalar_update_takes_a_copied_row_over:
        Scenario::new(&[(0, 0)], true, &[&[scalar(0)]]);
    c18_two_scalar_updates_take_a_copied_row_over:
        Scenario::new(&[(0, 0)], true, &[&[scalar(0)], &[scalar(0)]]);
    c19_rewriting_alter_between_two_readings_of_a_chunk:
        Scenario::new(&[(2, 0)], true, &[&[Op::Rewrite]]);
    c20_two_scalar_updates_then_delete_after_the_copy:
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[scalar(1)], &[scalar(0)], &[delete(0)]]);
    c21_one_transaction_updates_twice_around_a_request:
        Scenario::new(&[(0, 0)], true, &[&[vector(0), scalar(0)]]);
    c22_fetch_beside_a_rewrite_and_an_open_chunk:
        Scenario::new(&[(0, 0), (2, 0)], true, &[&[scalar(0)], &[Op::VacuumFull]]);
    c23_rows_enter_and_leave_the_row_filter:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[Op::Leave { key: 0 }], &[vector(0)], &[Op::Enter { key: 0 }], &[scalar(0)]]);
    c24_many_changes_overflow_the_touched_set:
        Scenario::new(&[(0, 0), (1, 1), (2, 0)], true, &[&[vector(0)], &[vector(1)], &[vector(2)], &[delete(0)], &[vector(1)]]);

    c25_two_chunks_whose_snapshots_are_judged_in_the_other_order:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[vector(0)]]);

    // The sixteen holes that a first reading of the design had.
    h01_visibility_of_what_an_earlier_process_dispatched:
        Scenario::new(&[(0, 0)], true, &[&[vector(0)], &[]]).with(|f| f.kills = 3);
    h02_chunk_opened_inside_a_transaction:
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[vector(1), vector(0)]]);
    h03_rewrite_between_snapshot_and_lock:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[Op::VacuumFull], &[Op::Rewrite]]);
    h04_progress_after_a_lost_stream:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.cuts = 2);
    h05_late_attempt_after_its_repeat_was_acknowledged:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[vector(0)]]).with(|f| f.lost_answers = 2);
    h06_vector_of_a_chunk_row_carried_to_another_key:
        Scenario::new(&[(0, 0), (2, 0)], true, &[&[rekey(0, 3)], &[rekey(2, 0)]]);
    h07_replay_of_an_update_whose_row_is_deleted:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[delete(0)]]).with(|f| f.kills = 3);
    h09_fetch_behind_a_truncate:
        Scenario::new(&[(0, 0)], true, &[&[scalar(0)], &[truncate()]]);
    h10_refusal_over_a_delete:
        Scenario::new(&[(0, 0)], false, &[&[delete(0)], &[insert_poison(0, 0)]]);
    h12_refused_row_beside_newer_changes:
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)], &[vector(0)], &[scalar(0)]]);
    h13_chunk_reads_what_a_crash_takes_back:
        Scenario::new(&[(0, 0)], true, &[&[insert(1, 0)], &[vector(0)]]).with(|f| f.server_crashes = 2);
    h14_failover_behind_what_was_sent:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)]]).with(|f| f.failovers = 1);
    h15_rows_of_a_chunk_after_a_truncate:
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[truncate()]]);
    h16_in_step_is_said_too_early:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[truncate()], &[insert(0, 0)]]).with(|f| f.kills = 3);

    // Rows that the target refuses.
    d01_refused_update_then_scalar_update:
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)], &[scalar(0)]]);
    d02_delete_then_refused_insert:
        Scenario::new(&[(0, 0)], false, &[&[delete(0)], &[insert_poison(0, 0)], &[scalar(0)]]);
    d03_refused_insert_then_updates:
        Scenario::new(&[(1, 0)], false, &[&[insert_poison(0, 0)], &[vector(0)], &[scalar(0)]]);
    d04_refused_row_then_key_change:
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)], &[rekey(0, 1)], &[scalar(1)]]);
    d05_refused_row_in_the_copy:
        Scenario::new(&[(0, 0)], true, &[&[scalar_poison(0)], &[scalar(0)]]);
    d06_delete_then_refused_insert_at_rest:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[delete(0)], &[insert_poison(0, 0)], &[vector(1)]]);
    d07_refused_row_with_a_new_vector_then_scalar_update:
        Scenario::new(&[(0, 0)], false, &[&[both_poison(0)], &[scalar(0)]]);
    d08_table_that_no_longer_fits:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[vector(0)], &[delete(1)], &[truncate()], &[insert(0, 0)]])
            .with(|f| f.unfit = 2);

    // Tables that stopped, let go of the slot and are copied again.
    a01_let_go_in_the_stream:
        Scenario::new(&[(0, 0), (1, 1)], false, &[&[vector(0)], &[delete(1)], &[insert(2, 0)], &[scalar(0)]])
            .with(|f| (f.unfit, f.let_go) = (2, 2));
    a02_let_go_in_the_copy:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[vector(0)], &[delete(1)], &[rekey(0, 2)]])
            .with(|f| (f.unfit, f.let_go, f.kills) = (2, 2, 3));
    a03_let_go_at_a_refused_row:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[scalar_poison(0)], &[delete(1)], &[truncate()], &[insert(0, 0)]])
            .with(|f| f.let_go = 2);
    a04_let_go_before_a_server_forgets:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[scalar(0)], &[delete(1)], &[vector(0)]])
            .with(|f| (f.unfit, f.let_go, f.server_crashes, f.failovers) = (1, 1, 1, 1));

    // Tables that stopped and get a new collection, while the stream goes on.
    n01_made_anew_in_the_stream:
        Scenario::new(&[(0, 0), (1, 1)], false, &[&[vector(0)], &[delete(1)], &[rekey(0, 2)], &[scalar(2)]])
            .with(|f| (f.unfit, f.remakes, f.kills) = (2, 2, 3));
    n02_made_anew_in_the_copy:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[vector(0)], &[delete(1)], &[insert(1, 0)]])
            .with(|f| (f.unfit, f.remakes) = (2, 2));
    n03_made_anew_beside_late_requests:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[delete(0)], &[truncate()], &[insert(1, 0)]])
            .with(|f| (f.unfit, f.remakes, f.lost_answers) = (2, 2, 3));
    n04_made_anew_before_a_server_forgets:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[scalar(0)], &[delete(1)], &[vector(0)]])
            .with(|f| (f.unfit, f.remakes, f.server_crashes, f.failovers) = (1, 1, 1, 1));

    // The same, set aside as dead letters.
    x01_refused_update_then_scalar_update:
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)], &[scalar(0)]]).dead_letters();
    x02_delete_then_refused_insert:
        Scenario::new(&[(0, 0)], false, &[&[delete(0)], &[insert_poison(0, 0)], &[vector(0)]]).dead_letters();
    x03_refused_row_then_key_change:
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)], &[rekey(0, 1)], &[insert(0, 0)]]).dead_letters();
    x04_refused_row_in_the_copy:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[scalar_poison(0)], &[scalar_poison(1)]]).dead_letters();
    x05_refused_row_then_delete:
        Scenario::new(&[(0, 0)], false, &[&[both_poison(0)], &[delete(0)]]).dead_letters();
    x06_refused_row_then_truncate:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[scalar_poison(0)], &[truncate()], &[insert(1, 0)]]).dead_letters();
    x07_tried_again_while_changes_come:
        Scenario::new(&[(0, 0)], false, &[&[scalar_poison(0)], &[vector(0)], &[scalar_poison(0)], &[scalar(0)]])
            .dead_letters().with(|f| f.retries = 4);
    x08_letters_of_a_server_that_forgets:
        Scenario::new(&[(0, 0)], true, &[&[scalar_poison(0)], &[scalar(0)]])
            .dead_letters().with(|f| { f.server_crashes = 1; f.failovers = 1 });

    // A copy over a collection that has entities already, some of rows that are gone.
    w01_sweep_beside_changes:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[vector(0)], &[delete(1)], &[insert(2, 0)]]).sweeps();
    w02_sweep_of_a_key_that_comes_back:
        Scenario::new(&[(0, 0)], true, &[&[delete(0)], &[insert(0, 1)], &[scalar(0)]]).sweeps();
    w03_sweep_beside_key_changes:
        Scenario::new(&[(0, 0), (2, 0)], true, &[&[rekey(0, 3)], &[rekey(2, 0)], &[scalar(3)]]).sweeps();
    w04_sweep_beside_a_truncate:
        Scenario::new(&[(0, 0), (1, 0)], true, &[&[insert(2, 1)], &[truncate()], &[insert(0, 0)]]).sweeps();
    w05_sweep_of_a_server_that_forgets:
        Scenario::new(&[(0, 0)], true, &[&[delete(0)], &[insert(1, 0)]]).sweeps()
            .with(|f| { f.server_crashes = 2; f.failovers = 1 });
    w07_sweep_of_a_row_that_is_refused_and_then_gone:
        Scenario::new(&[(0, 0)], true, &[&[insert_poison(3, 1)], &[delete(3)], &[insert_poison(2, 0)], &[truncate()]]).sweeps();
    w06_sweep_with_a_refused_row:
        Scenario::new(&[(0, 0)], true, &[&[scalar_poison(0)], &[insert(1, 1)]]).sweeps().dead_letters();

    // Servers that forget.
    l01_asynchronous_commit_lost_during_the_copy:
        Scenario::new(&[(0, 0)], true, &[&[insert(1, 0)]]).with(|f| f.server_crashes = 1);
    l02_asynchronous_commit_lost_under_a_scalar_update:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[vector(0)]]).with(|f| f.server_crashes = 1);
    l03_failover_after_a_fetch_that_saw_the_future:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[vector(0)]])
            .with(|f| (f.failovers, f.clean_stops) = (1, 2));
    l04_failover_in_the_copy:
        Scenario::new(&[(0, 0), (1, 1)], true, &[&[vector(0)], &[delete(1)]]).with(|f| f.failovers = 1);
    l05_failover_after_a_fetch_that_found_nothing:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[delete(0)]]).with(|f| f.failovers = 1);
    l06_asynchronous_delete_seen_by_a_fetch_and_lost:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0)], &[delete(0)]]).with(|f| f.server_crashes = 1);

    // Starts and starts again.
    r01_stream_cut_between_transactions:
        Scenario::new(&[(0, 0), (1, 0)], false, &[&[vector(0)], &[vector(1)], &[vector(0)]]).with(|f| f.cuts = 2);
    r02_kills_while_streaming:
        Scenario::new(&[(0, 0)], false, &[&[vector(0)], &[scalar(0)], &[vector(0)]]).with(|f| f.kills = 3);
    r03_kills_while_copying:
        Scenario::new(&[(0, 0)], true, &[&[vector(0)], &[scalar_moves(0, 1)]]).with(|f| f.kills = 3);
    r04_stream_cut_inside_a_transaction_with_a_key_change:
        Scenario::new(&[(0, 0)], false, &[&[rekey(0, 2), insert(0, 0), insert(1, 0)]]).with(|f| f.cuts = 2);
    r05_stream_cut_between_scalar_update_and_key_change:
        Scenario::new(&[(0, 0)], false, &[&[scalar(0), rekey(0, 2), scalar(2)]]).with(|f| f.cuts = 2);
    r06_nothing_but_keepalives:
        Scenario::new(&[(0, 0)], true, &[&[], &[], &[]]);
}
