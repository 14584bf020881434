//! A cluster in one thread for the tests of the protocol: messages and writes wait until a test
//! delivers or persists them, and the safety properties of the paper are checked after every step.
//!
//! [`script`] drives it by text files, [`random`] by seeds.

mod checks;
mod clocks;
mod cluster;
mod disk;
mod flow;
mod hostile;
mod leases;
mod leaving;
mod members;
mod messages;
mod pressure;
mod probes;
mod quiescence;
mod random;
mod reads;
mod refill;
mod render;
mod room;
mod script;
mod snapshots;
mod stall;
mod start;
mod support;
mod time;
mod transfer;

use cluster::Cluster;
