//! Everything that can be planned. Closed: what is not in this enum does not happen.

use raft_core::protocol::Load;
use raft_core::{Envelope, NodeId};

use crate::node::{Answer, Ask, Origin};
use crate::options::Family;
use crate::queue::Microseconds;
use crate::shelf::{Snapshot, Transfer};

/// How a message came to be on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// As it was sent.
    Original,
    /// Once more.
    Duplicate,
    /// From long ago.
    Replay,
}

/// An event. What is about one life of a node is void in the next.
#[derive(Debug)]
pub(crate) enum Event {
    /// A node's clock ticks.
    Tick { node: NodeId, life: u64 },
    /// A node steps what waits for it.
    Turn { node: NodeId, life: u64 },
    /// A message arrives.
    Message {
        envelope: Envelope,
        sent: Microseconds,
        copy: Copy,
    },
    /// A sender hears that a message was lost.
    Unreachable {
        node: NodeId,
        life: u64,
        peer: NodeId,
    },
    /// A sync ends.
    Synced { node: NodeId, life: u64 },
    /// Old entries were read.
    Loaded { node: NodeId, life: u64, load: Load },
    /// A snapshot of a node's own state was written.
    SnapshotWritten {
        node: NodeId,
        life: u64,
        snapshot: Box<Snapshot>,
    },
    /// The next part of a snapshot arrives.
    SnapshotPart { transfer: Box<Transfer> },
    /// A sender hears how a transfer ended.
    SnapshotSent {
        node: NodeId,
        life: u64,
        to: NodeId,
        is_delivered: bool,
    },
    /// A state machine works on its queue.
    Work { node: NodeId, life: u64 },
    /// A node gets its power back.
    Restart { node: NodeId, life: u64 },
    /// A leader that just proposed loses power.
    Churn { node: NodeId, life: u64 },
    /// A request of a client arrives.
    Request {
        node: NodeId,
        origin: Origin,
        ask: Ask,
    },
    /// An answer reaches a client.
    Answer {
        node: NodeId,
        client: usize,
        attempt: u64,
        answer: Answer,
    },
    /// A client has waited long enough, or thought long enough.
    Client { client: usize, alarm: u64 },
    /// A fault strikes.
    Strike {
        family: Family,
        /// Whether the next one of its family follows.
        goes_on: bool,
    },
    /// Links are cut.
    Cut { links: Vec<(NodeId, NodeId)> },
    /// A cut ends, if no later one was made.
    Repair { cut: u64 },
}
