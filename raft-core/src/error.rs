//! One error enum per boundary of the node.

use crate::types::{Index, NodeId, Term};

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// This node does not lead. The proposal was not applied and never will be.
    #[error("not the leader; {}", hint(.leader))]
    NotLeader {
        /// Who leads, where that is known.
        leader: Option<NodeId>,
    },
    /// The proposal is larger than a proposal may be. It was not applied.
    #[error("proposal of {bytes} bytes is above the limit of {limit} (proposal_bytes_max)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A queue is full. The proposal was not applied; try again a little later.
    #[error("busy: {limit_name} of {limit} is used up")]
    Busy {
        /// The limit that was met.
        limit_name: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The node lost its leadership after it had taken the proposal. It may or may not be applied.
    #[error("leadership lost; the proposal may or may not be applied")]
    Unknown,
    /// The node stopped. Where the proposal had been taken it may or may not be applied.
    #[error("the node stopped: {0}")]
    Stopped(StopReason),
}

/// Why a read has no result. A read never changes anything, so it can always be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This node does not lead, or lost its leadership while the read waited.
    #[error("not the leader; {}", hint(.leader))]
    NotLeader {
        /// Who leads, where that is known.
        leader: Option<NodeId>,
    },
    /// Too many reads wait.
    #[error("busy: {limit_name} of {limit} is used up")]
    Busy {
        /// The limit that was met.
        limit_name: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The node stopped.
    #[error("the node stopped: {0}")]
    Stopped(StopReason),
}

fn hint(leader: &Option<NodeId>) -> String {
    leader.map_or_else(
        || "no leader is known".to_owned(),
        |id| format!("node {id} leads"),
    )
}

/// A log store failed. The node that owns it stops: after a failed write nobody knows what is on
/// the disk, so nothing is retried (Rebello et al., ATC 2020).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused an operation.
    #[error("{operation} {path}: {message}")]
    Io {
        /// What was tried: `open`, `write`, `sync`, `read`.
        operation: &'static str,
        /// On which file or directory.
        path: String,
        /// What the system answered.
        message: String,
    },
    /// The disk is full. Kept apart from [`StorageError::Io`], so that an operator sees it at once.
    #[error("{operation} {path}: no space left on the device")]
    Full {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: String,
    },
    /// Data that had been synced is damaged. Never repaired by guessing.
    #[error("{path} is damaged at offset {offset}: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The directory belongs to somebody else or was written by a newer version.
    #[error("{path} {what}")]
    Foreign {
        /// The file or directory.
        path: String,
        /// Whose it is.
        what: String,
    },
    /// A range was asked for that the log does not hold.
    #[error("entries from {from} are not in the log, which holds {first} to {last}")]
    OutOfRange {
        /// First index that was asked for.
        from: Index,
        /// First index held.
        first: Index,
        /// Last index held.
        last: Index,
    },
    /// An earlier write failed, so the store is poisoned.
    #[error("the log store failed before: {0}")]
    Poisoned(String),
}

/// A state machine could not apply a committed entry. What differs between replicas may not come
/// out of `apply`, so this is never an answer to a client: the node stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StateMachineError(pub String);

/// Why a node ended, for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// Its owner asked for it.
    #[error("shut down")]
    Shutdown,
    /// The log store failed.
    #[error("log store: {0}")]
    Storage(StorageError),
    /// The state machine failed.
    #[error("state machine: {0}")]
    StateMachine(StateMachineError),
    /// The transport ended by itself.
    #[error("transport closed")]
    Transport,
    /// One of its tasks panicked: a bug of ours.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Which one.
        task: &'static str,
        /// What it said.
        message: String,
    },
}

/// Why a message was refused before the protocol saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Of another cluster.
    #[error("it is of another cluster")]
    Cluster,
    /// Of another group.
    #[error("it is of another group")]
    Group,
    /// Addressed to another node.
    #[error("it is addressed to node {0}")]
    Addressee(NodeId),
    /// From somebody who is not a member.
    #[error("node {0} is not a member")]
    Stranger(NodeId),
    /// From, or to, another incarnation of a member: one of the two lost its disk.
    #[error("node {0} runs as another incarnation than its members know")]
    Incarnation(NodeId),
    /// Self-contradictory: entries that do not follow their base, a term that goes back.
    #[error("node {from} sent a malformed {message} in term {term}")]
    Malformed {
        /// The sender.
        from: NodeId,
        /// The kind of message.
        message: &'static str,
        /// The term it named.
        term: Term,
    },
}
