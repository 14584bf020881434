//! Raft as a library: a pure protocol, a node that drives it, and three traits that decouple both
//! from networks, disks and state machines.
//!
//! - [`protocol`] decides and does nothing else: inputs in, effects out. No clock, no IO, no tasks.
//! - `node` executes the effects with a log task, an apply task and one outbox per peer.
//! - [`LogStore`], [`Transport`] and [`StateMachine`] are what a user plugs in; `raft-storage` and
//!   `raft-transport` have implementations.

pub mod config;
pub mod entry;
pub mod error;
pub mod log_store;
pub mod membership;
pub mod membership_codec;
pub mod message;
#[cfg(feature = "node")]
pub mod node;
pub mod protocol;
pub mod snapshot;
pub mod state_machine;
pub mod transport;
pub mod types;

pub use config::{Config, ConfigError, Limits, ReadPolicy, SnapshotPolicy, Timing};
pub use entry::{Entry, EntryDecodeError, EntryKind};
pub use error::{
    ChangeError, ProposeError, ReadError, Refusal, StateMachineError, StopReason, StorageError,
    TransferError,
};
pub use log_store::{AppendBatch, LoadedLog, LogReader, LogStore, LogUsage};
pub use membership::{Member, MemberRole, Membership, MembershipChange, MembershipError};
pub use message::{Envelope, Message};
#[cfg(feature = "node")]
pub use node::{
    Clock, Committed, Consistency, MetricsSnapshot, Node, RaftHandle, StartError, StateImageAt,
    Status,
};
pub use protocol::{Role, RoleChange};
pub use snapshot::{
    SnapshotDescriptor, SnapshotHash, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
};
pub use state_machine::{Command, StateImage, StateMachine};
pub use transport::{Incoming, IncomingSnapshot, SendError, SnapshotStream, Transport};
pub use types::{ClusterId, GroupId, HardState, Incarnation, Index, LogId, NodeId, Term};
