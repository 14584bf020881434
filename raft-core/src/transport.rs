//! The contract of what carries messages between nodes. Implementations live in `raft-transport`,
//! or with the user.

use async_trait::async_trait;
use bytes::Bytes;

use crate::membership::Membership;
use crate::message::Envelope;
use crate::snapshot::SnapshotReader;
use crate::types::NodeId;

/// Carries messages. Shared by all tasks of a node.
///
/// A message may be lost, delayed, duplicated or overtaken; the protocol does not care. It may not
/// be changed: an implementation checks what it receives and that `from` is who it claims to be.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Hands a message over. Waits while the connection takes no more; the caller owns the one
    /// bounded queue and calls once at a time per peer and lane (see [`crate::Message::is_bulk`]:
    /// bulk and the rest travel apart, so that a heartbeat never waits behind entries).
    ///
    /// # Errors
    /// When the message is certainly lost, so that the caller can slow down. `Ok` promises nothing.
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError>;

    /// Sends a snapshot: the envelope, which carries a [`crate::Message::Snapshot`], and its
    /// content on a stream of its own that holds up no message, at a limited rate. Asks the
    /// receiver first from which part on it wants it. Returns when the receiver has all of it on
    /// its disk; may take as long as the content is large. Dropping the future ends the transfer.
    ///
    /// # Errors
    /// When the receiver did not take all of it, or said why it does not want it.
    async fn send_snapshot(
        &self,
        to: NodeId,
        envelope: Envelope,
        content: Box<dyn SnapshotReader>,
    ) -> Result<(), SendError>;

    /// What comes next from any peer; `None` after [`Transport::close`].
    async fn recv(&self) -> Option<Incoming>;

    /// Whom to reach and where, from now on. What comes from others is still handed over, where it
    /// is authentic: a node that was just added does not know anybody, and one that lags does not
    /// know the newest members. `own` is left out.
    fn set_members(&self, own: NodeId, members: &Membership);

    /// Ends all connections and wakes `recv`. Later sends fail.
    async fn close(&self);
}

/// What a transport received.
pub enum Incoming {
    /// A message.
    Message(Envelope),
    /// The beginning of a snapshot.
    Snapshot(IncomingSnapshot),
}

/// A snapshot that a peer wants to send. Dropping it refuses it.
pub struct IncomingSnapshot {
    /// From whom, and which: its message is a [`crate::Message::Snapshot`].
    pub envelope: Envelope,
    /// The content.
    pub stream: Box<dyn SnapshotStream>,
}

/// The content of a snapshot as it arrives.
#[async_trait]
pub trait SnapshotStream: Send {
    /// Says from which part on the content is wanted, once and first.
    ///
    /// # Errors
    /// When the sender is gone.
    async fn accept(&mut self, first_part: u64) -> Result<(), SendError>;

    /// The next part, checked; none after the last. Holds no more than a few parts.
    ///
    /// # Errors
    /// When the sender is gone, or sent something else.
    async fn next_part(&mut self) -> Result<Option<Bytes>, SendError>;

    /// Tells the sender how it ended, instead of `accept` or at the end: `Ok` when all of it is on
    /// the disk, or why not.
    async fn finish(self: Box<Self>, outcome: Result<(), String>);
}

/// A message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection at the moment.
    #[error("node {to} is not reachable: {why}")]
    Unreachable {
        /// The peer.
        to: NodeId,
        /// What is in the way.
        why: String,
    },
    /// The transport has no address for this peer.
    #[error("node {0} has no address")]
    UnknownPeer(NodeId),
    /// The message is larger than a frame may be.
    #[error("message of {bytes} bytes is above the frame limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The receiver of a snapshot did not take it.
    #[error("node {to} did not take the snapshot: {why}")]
    Refused {
        /// The peer.
        to: NodeId,
        /// What it said.
        why: String,
    },
    /// A snapshot could not be read, or its stream broke a rule.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The transport was closed.
    #[error("the transport is closed")]
    Closed,
}
