//! Tests of whole nodes over stores, transports and machines in memory. The doubles are in
//! `support`: the real backends depend on this crate.

mod cluster;
mod damage;
mod endings;
mod limits;
mod members;
mod reads;
mod restart;
mod slow;
mod snapshots;
mod support;
mod throughput;
