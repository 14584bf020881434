//! What carries messages between the nodes of a Raft group: two implementations of
//! [`raft_core::Transport`].
//!
//! - [`MemoryNetwork`] connects nodes of one process, and can cut, lose, duplicate, delay and
//!   reorder what they say. For tests, simulations and clusters within one process.
//! - [`QuicTransport`] connects processes over authenticated QUIC links.
//! - [`codec`] is the one encoding of an envelope; only QUIC needs it.
//! - `conformance` (feature `conformance`) is what any transport must pass.
//!
//! In both, messages travel in two lanes: entries in one, everything else in the other, so that a
//! heartbeat or a vote never waits behind entries.

pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod inbox;
mod memory;
mod quic;
mod random;
mod rate;
mod transfer;

pub use memory::{Faults, MemoryNetwork, MemoryTransport};
pub use quic::{LocalPeer, PeerAddress, QuicOptions, QuicTransport, TransportCounters};
