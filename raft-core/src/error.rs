//! One error enum per boundary of the node.

use crate::membership::MembershipError;
use crate::types::{Index, LogId, NodeId, Term};

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
    /// The disk of this node, or of so many that no majority is left, has no room for commands.
    /// The proposal was not applied. Ends by itself when there is room again.
    #[error(
        "the disk of node {0} is short of room, nothing was applied; make room there, reads and \
         changes of members go on meanwhile"
    )]
    NoRoom(NodeId),
    /// Leadership is being handed over. The proposal was not applied; try the new leader.
    #[error("leadership is being handed to node {0}")]
    Transferring(NodeId),
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

fn list(ids: &[NodeId]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("node {id}")).collect();
    ids.join(", ")
}

fn hint(leader: &Option<NodeId>) -> String {
    leader.map_or_else(
        || "no leader is known".to_owned(),
        |id| format!("node {id} leads"),
    )
}

/// Why a change of membership was refused or has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// This node does not lead. Nothing was changed.
    #[error("not the leader; {}", hint(.leader))]
    NotLeader {
        /// Who leads, where that is known.
        leader: Option<NodeId>,
    },
    /// The change makes no sense. Nothing was changed.
    #[error(transparent)]
    Invalid(#[from] MembershipError),
    /// One change at a time. Nothing was changed by this one.
    #[error("another change of membership is under way since entry {since}; wait until it is done")]
    InProgress {
        /// The entry that began it.
        since: Index,
    },
    /// The leader has not committed an entry of its term yet, so it does not know whether a change
    /// is under way (Ongaro 2015). Nothing was changed; try again a little later.
    #[error("the leader has just been elected and is not ready for a change; try again")]
    NotReady,
    /// Leadership is being handed over. Nothing was changed.
    #[error("leadership is being handed to node {0}; try again with the new leader")]
    Transferring(NodeId),
    /// A new voter would not have the log. Nothing was changed.
    #[error("node {id} has entries up to {matched} of {needed}; wait until it has caught up")]
    Lagging {
        /// The learner.
        id: NodeId,
        /// What it is known to hold.
        matched: Index,
        /// What it needs.
        needed: Index,
    },
    /// With the new voters nothing could be committed. Nothing was changed.
    #[error("too few of the new voters answer; silent: {}", list(.silent))]
    NoQuorum {
        /// The new voters that were not heard of for a while.
        silent: Vec<NodeId>,
    },
    /// The node lost its leadership after the change had begun. It may or may not take effect.
    #[error("leadership lost; the change may or may not take effect")]
    Unknown,
    /// Too many wait. Nothing was changed by this one; try again a little later.
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

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// This node does not lead.
    #[error("not the leader; {}", hint(.leader))]
    NotLeader {
        /// Who leads, where that is known.
        leader: Option<NodeId>,
    },
    /// Only a voter can lead.
    #[error("node {0} is not a voter")]
    NotAVoter(NodeId),
    /// It has not been heard for a while.
    #[error("node {0} does not answer")]
    Unreachable(NodeId),
    /// Its disk lost entries; it cannot lead before it has them again.
    #[error("node {0} is being refilled, because its log was damaged")]
    Refilling(NodeId),
    /// One at a time.
    #[error("leadership is being handed to node {0} already")]
    InProgress(NodeId),
    /// It did not take over in time; this node leads on.
    #[error("node {target} did not take over within {ticks} ticks; node {leader} leads on")]
    TimedOut {
        /// Who should have led.
        target: NodeId,
        /// How long was waited.
        ticks: u32,
        /// Who leads.
        leader: NodeId,
    },
    /// Another node than the target took over.
    #[error("leadership was lost, but not to node {0}")]
    LostToAnother(NodeId),
    /// Too many wait. Nothing was changed by this one; try again a little later.
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
    /// Synced data is damaged, and with it perhaps the newest term and vote: nothing that is left
    /// proves which ones they were. To the cluster this is a node that lost its disk.
    #[error(
        "{path} is damaged at offset {offset}: {what}; the newest term and vote may be among what \
         was lost, so this node counts as one that lost its disk: bring it back with \
         `flotilla member replace`"
    )]
    LostPromises {
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
    /// A snapshot was asked for that is not there, or not any more.
    #[error("there is no snapshot up to {0}")]
    NoSnapshot(LogId),
    /// A snapshot is not what was announced.
    #[error("{path} is not the announced snapshot: {what}")]
    SnapshotMismatch {
        /// The file.
        path: String,
        /// What differs.
        what: String,
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
