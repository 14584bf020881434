//! What the benches share: three nodes in one process over a network in memory, with logs in memory
//! or in files, and a state machine that only counts.

mod cluster;
mod counter;

pub use cluster::{Cluster, Storage};

/// The example in the README, so that it is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
