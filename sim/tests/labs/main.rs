//! The test suites of the course's labs (MIT 6.5840: Raft, the replicated machine, the key-value
//! service), test by test and by name, in virtual time. What a suite left weak is strict here, and
//! what a number means for a Raft with no-ops, pre-votes and check-quorum stands beside it.
//!
//! Every test that leaves anything to chance runs over the seeds 1 to 100; those in `rules` are
//! scripts, and leave nothing to it. `SEED=n` runs one seed alone, and `TRACE=1` writes down what
//! happened where it failed.

mod election;
mod faults;
mod figures;
mod harness;
mod kvraft;
mod log;
mod members;
mod network;
mod persistence;
mod rsm;
mod rules;
mod snapshots;
