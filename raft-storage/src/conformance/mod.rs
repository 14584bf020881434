//! What every log store and its snapshots must do, as one suite. It panics, naming the case, at the
//! first thing that a store does differently from a plain vector of entries.
//!
//! ```no_run
//! # async fn example() {
//! use raft_storage::{MemoryLogStore, conformance};
//!
//! conformance::run(|| {
//!     let log = MemoryLogStore::new(); // what outlives a restart
//!     Box::new(move || Ok(Box::new(log.clone())))
//! })
//! .await;
//! # }
//! ```

mod cases;
mod compaction;
mod killed;
mod model;
mod place;
mod random;
mod snapshots;

pub use killed::{copy_as_if_killed, files_below};
pub use place::Place;
pub use random::{RandomOptions, run_random};

/// Runs all cases, each in a new place.
///
/// # Panics
/// When the store breaks a rule; the message says which.
pub async fn run(mut new_place: impl FnMut() -> Place) {
    cases::an_empty_log_loads_as_empty(new_place()).await;
    cases::every_step_survives_a_reopen(new_place()).await;
    cases::a_hard_state_alone_is_kept(new_place()).await;
    cases::a_truncation_drops_an_entry_and_all_behind_it(new_place()).await;
    cases::the_same_index_takes_another_term_after_a_truncation(new_place()).await;
    cases::a_truncation_behind_the_end_drops_nothing(new_place()).await;
    cases::reads_take_as_many_as_fit_and_at_least_one(new_place()).await;
    cases::a_read_from_outside_the_log_is_out_of_range(new_place()).await;
    cases::many_entries_come_back_in_order(new_place()).await;
    cases::large_entries_come_back_whole(new_place()).await;
    cases::an_old_hard_state_survives_much_writing(new_place()).await;
    cases::readers_work_beside_appends(new_place()).await;
    compaction::drops_entries_and_keeps_the_rest(new_place()).await;
    compaction::of_the_whole_log_leaves_where_it_goes_on(new_place()).await;
    compaction::of_a_log_over_many_files(new_place()).await;
    compaction::keeps_term_and_vote(new_place()).await;
    compaction::loads_the_memberships_that_are_left(new_place()).await;
    compaction::a_reset_leaves_nothing_but_term_and_vote(new_place()).await;
    compaction::a_log_goes_on_behind_a_reset(new_place()).await;
    compaction::readers_beside_it_meet_the_start(new_place()).await;
    run_snapshots(&mut new_place).await;
    for seed in 0..6 {
        run_random(new_place(), RandomOptions { seed, steps: 60 }).await;
    }
}

async fn run_snapshots(new_place: &mut impl FnMut() -> Place) {
    snapshots::a_store_begins_without(new_place()).await;
    snapshots::one_is_there_once_it_is_finished(new_place()).await;
    snapshots::one_that_is_not_finished_leaves_nothing(new_place()).await;
    snapshots::a_newer_one_takes_the_place(new_place()).await;
    snapshots::an_older_one_that_ends_later_goes(new_place()).await;
    snapshots::readers_go_to_any_part(new_place()).await;
    snapshots::a_transfer_goes_on_where_it_ended(new_place()).await;
    snapshots::a_transfer_of_another_one_begins_anew(new_place()).await;
    snapshots::what_was_not_announced_is_refused(new_place()).await;
    snapshots::one_transfer_at_a_time(new_place()).await;
    snapshots::parts_have_a_largest_size(new_place()).await;
    snapshots::the_log_and_they_do_not_touch_each_other(new_place()).await;
    for seed in 0..4 {
        snapshots::random_steps(new_place(), seed).await;
    }
}
