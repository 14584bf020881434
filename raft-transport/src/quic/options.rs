//! Who speaks, whom it knows, and the settings and numbers of the protocol between peers.

use std::time::Duration;

use raft_core::{ClusterId, Incarnation, NodeId};

/// The frame that opens a link, and its answer.
pub(super) const KIND_HELLO: u8 = 1;

/// A frame with one envelope.
pub(super) const KIND_ENVELOPE: u8 = 2;

/// The frames of a snapshot's stream: from the sender the offer, parts and the end...
pub(super) const KIND_OFFER: u8 = 3;
pub(super) const KIND_PART: u8 = 4;
pub(super) const KIND_END: u8 = 5;

/// ...and from the receiver, its answers.
pub(super) const KIND_FROM: u8 = 6;
pub(super) const KIND_REFUSED: u8 = 7;
pub(super) const KIND_STORED: u8 = 8;

/// Frames of the control lane; the largest message without entries is far below it.
pub(super) const CONTROL_FRAME_BYTES_MAX: usize = 4 << 10;

/// Closed because the hello did not fit, or what came later did not fit the hello.
pub(super) const CLOSE_REFUSED: u32 = 16;

/// Closed because the peer took nothing for too long.
pub(super) const CLOSE_STALLED: u32 = 17;

/// A snapshot's stream was given up by its sender, or is not read any more by its receiver.
pub(super) const STREAM_GIVEN_UP: u32 = 18;

/// Among the lanes and streams of a link, what is more urgent leaves first.
pub(super) const PRIORITY_CONTROL: i32 = 1;
pub(super) const PRIORITY_SNAPSHOT: i32 = -1;

/// Who this process is to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub id: NodeId,
    /// The incarnation that its directory was formatted with.
    pub incarnation: Incarnation,
    /// Counts the starts of this incarnation. A link of a later start replaces one of an earlier.
    pub boot: u64,
}

/// Where a peer is, and which one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port`; looked up at each dial.
    pub address: String,
    /// The incarnation that is a member.
    pub incarnation: Incarnation,
}

/// Times and bounds of a [`QuicTransport`](super::QuicTransport).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QuicOptions {
    /// The pause after a failed dial. Doubled after each, with jitter. Short, because each
    /// millisecond without a link delays an election or a commit.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// How long a dial may take, from the look-up of the address to the answered hello.
    pub dial_deadline: Duration,
    /// How long a link that came in may take to say hello.
    pub hello_deadline: Duration,
    /// How long a message may wait for the peer to take bytes. Then the link is given up: a new one
    /// starts with empty buffers, and Raft repeats what matters.
    pub write_deadline: Duration,
    /// The largest message with entries, encoded. A larger one is not sent, and not received.
    pub bulk_frame_bytes_max: usize,
    /// Messages without entries that have arrived and were not taken.
    pub control_queue_len: usize,
    /// Messages with entries that have arrived and were not taken. The windows of the leaders bound
    /// their bytes.
    pub bulk_queue_len: usize,
    /// Links at a time from nodes that are no members as far as this node knows.
    pub strangers_max: usize,
    /// How fast snapshots leave this process, all together, in bytes per second; 0 is no limit.
    /// Leaves room on the network and on the receiver's disk for what the group does meanwhile.
    pub snapshot_bytes_per_second: u64,
    /// How long each step of a snapshot's transfer may stand still: the answer to the offer, bytes
    /// that come, bytes that are taken.
    pub snapshot_step_deadline: Duration,
    /// How long the receiver may take to make all of it durable, after the last part.
    pub snapshot_store_deadline: Duration,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            dial_deadline: Duration::from_secs(1),
            hello_deadline: Duration::from_secs(3),
            write_deadline: Duration::from_secs(2),
            bulk_frame_bytes_max: 16 << 20,
            control_queue_len: 1_024,
            bulk_queue_len: 64,
            strangers_max: 16,
            snapshot_bytes_per_second: 128 << 20,
            snapshot_step_deadline: Duration::from_secs(10),
            snapshot_store_deadline: Duration::from_secs(120),
        }
    }
}
