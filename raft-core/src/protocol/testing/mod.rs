//! A cluster in one thread for the tests of the protocol: messages and writes wait until a test
//! delivers or persists them, and the safety properties of the paper are checked after every step.
//!
//! [`script`] drives it by text files, [`random`] by seeds.

mod checks;
mod cluster;
mod disk;
mod flow;
mod hostile;
mod members;
mod messages;
mod probes;
mod random;
mod render;
mod script;
mod snapshots;
mod start;
mod support;
mod time;

use cluster::Cluster;
