//! What the benches share: nodes in one process over a network in memory, with a state machine
//! that only counts; the log stores that are compared; the ceiling that they are compared with.

mod aged;
mod cluster;
mod counter;
pub mod place;
mod raw;
mod samples;
mod storage;

pub use aged::{AgedLog, forget};
pub use cluster::Cluster;
pub use raw::{RawFile, RawThread};
pub use samples::Samples;
pub use storage::{Storage, entries, id, payload};

/// The example in the README, so that it is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
