//! What the node's own tasks tell the driver.

use crate::error::StorageError;
use crate::protocol::{Load, Loaded, Persisted};
use crate::snapshot::SnapshotDescriptor;
use crate::types::{Index, NodeId};

/// Events that may wait for the driver. The log task and the apply task wait when it is full, which
/// is safe because the driver never waits for them; reports of lost messages are dropped.
pub(crate) const EVENTS_MAX: usize = 1024;

/// One thing that one of our tasks finished.
#[derive(Debug)]
pub(crate) enum Event {
    /// The log task: a group of writes is durable; this is the last of them.
    Persisted(Persisted),
    /// The log task: whether the disk is short of room, where that changed.
    Room(bool),
    /// The apply task: everything up to here is applied.
    Applied(Index),
    /// The loader: old entries for a follower.
    Loaded(Loaded),
    /// The loader: the entries are not in the log any more.
    NotLoaded {
        /// What was asked for.
        load: Load,
        /// Why there is no answer.
        error: StorageError,
    },
    /// A peer's lane: a message was certainly lost.
    Unreachable(NodeId),
    /// The writer of images: an image is durable, or could not be written this time.
    SnapshotTaken(Option<SnapshotDescriptor>),
    /// A sender of a snapshot: the transfer ended.
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// Which transfer, as its sender counts them.
        number: u64,
        /// Whether the receiver has all of it.
        is_delivered: bool,
    },
}
