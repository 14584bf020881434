//! What all suites share: seeds, the course's harness on top of a world, and a state machine that
//! remembers what it was given.

mod bench;
mod churners;
mod clerks;
mod counter;
mod lab;
mod parts;
mod recorder;
mod seeds;

pub(crate) use bench::{Bench, Disk, Sent, entries, entry, id};
pub(crate) use churners::Churners;
pub(crate) use clerks::{Clerks, text};
pub(crate) use counter::{DECREMENT, INCREMENT, counters, value_of};
pub(crate) use lab::{Lab, MILLISECOND, SECOND, number};
pub(crate) use recorder::recorders;
pub(crate) use seeds::each_seed;
