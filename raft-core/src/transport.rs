//! The contract of what carries messages between nodes. Implementations live in `raft-transport`,
//! or with the user.

use async_trait::async_trait;

use crate::message::Envelope;
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

    /// The next message from any peer; `None` after [`Transport::close`].
    async fn recv(&self) -> Option<Envelope>;

    /// Ends all connections and wakes `recv`. Later sends fail.
    async fn close(&self);
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
    /// The transport was closed.
    #[error("the transport is closed")]
    Closed,
}
