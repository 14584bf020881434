//! What every log store must do, as one suite. It panics, naming the case, at the first thing that
//! a store does differently from a plain vector of entries.
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
mod model;
mod place;
mod random;

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
    for seed in 0..4 {
        run_random(new_place(), RandomOptions { seed, steps: 60 }).await;
    }
}
