//! The contract of what is replicated. Commands, queries and replies are bytes that only the state
//! machine and its clients understand.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StateMachineError;
use crate::snapshot::SnapshotReader;
use crate::types::{Index, LogId};

/// A deterministic machine. Owned by one task, which calls one method at a time.
///
/// **The same commands in the same order give the same replies and the same state on every
/// replica.** So `apply` reads no clock, no randomness, no configuration that may differ, and
/// iterates over nothing whose order is arbitrary.
#[async_trait]
pub trait StateMachine: Send {
    /// Applies committed commands in log order and gives one reply for each. A command that the
    /// machine cannot read or refuses gets a reply that says so; it is not an error.
    ///
    /// # Errors
    /// Only for what stops this replica, such as a failed disk. The node then ends.
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError>;

    /// Answers a question about the state as it is. Bounded work: a long scan answers a page.
    ///
    /// # Errors
    /// As `apply`. A question that cannot be answered gets a reply that says so.
    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError>;

    /// An image of the state as it is, that later commands do not move. Returns without reading the
    /// state; the image is read in the background, while commands are applied. A machine that keeps
    /// its state through a restart has made it durable by then: the log behind it may be dropped.
    ///
    /// # Errors
    /// As `apply`.
    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError>;

    /// Replaces the whole state by that of a snapshot, all or nothing. Afterwards the state is what
    /// it was at [`crate::SnapshotMeta::last`] of the snapshot's descriptor.
    ///
    /// # Errors
    /// When the snapshot cannot be read or understood. The node then ends.
    async fn restore(&mut self, snapshot: Box<dyn SnapshotReader>)
    -> Result<(), StateMachineError>;

    /// The last command that is part of the state and will still be after a restart: a machine in
    /// memory answers [`LogId::ZERO`] when it starts, and is given the newest snapshot and the log
    /// behind it. A machine that keeps its state writes this together with the data, in one step:
    /// it is given the log from here on, so a command that is in the data and not in this, or the
    /// other way round, would be applied twice or never.
    fn applied(&self) -> LogId;

    /// Tells whether the disk that the state is on has room left. Asked for once, before anything
    /// else. `None`, unless told: the state needs no disk.
    fn room(&self) -> Option<Arc<dyn RoomWatch>> {
        None
    }
}

/// Says whether a disk has room left for what a state machine must still write. Asked from other
/// tasks than the machine's: after every append to the log, before and during a snapshot, and twice
/// a second while room is short. So an answer should cost no more than a system call or two.
pub trait RoomWatch: Send + Sync {
    /// How it is now.
    fn room_left(&self) -> RoomLeft;

    /// Whether so many bytes could be written beside what was accepted: a state that a snapshot
    /// brings stands beside the old one for a while.
    fn has_room_for(&self, bytes: u64) -> bool;
}

/// How much room a state machine's disk has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomLeft {
    /// For as much as is wanted.
    Enough,
    /// For what was accepted, and for a snapshot that may free some. The node takes no commands:
    /// see [`crate::LogUsage::is_short_of_room`].
    Short,
    /// For what was accepted, just. No snapshot is taken either, and one under way is given up.
    Reserve,
}

/// An immutable image of a state machine, to be read part by part.
#[async_trait]
pub trait StateImage: Send {
    /// The next part, of at most [`crate::snapshot::SNAPSHOT_PART_BYTES_MAX`] bytes; none after the
    /// last. Replicas in the same state need not give the same parts: a transfer is gone on with
    /// only where all of them are the same.
    ///
    /// # Errors
    /// When the state cannot be read. The node then ends.
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError>;
}

/// A committed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its place in the log.
    pub id: LogId,
    /// What was proposed. May share a larger buffer: a machine that keeps a part of it should copy
    /// that part.
    pub payload: Bytes,
}

impl Command {
    /// Its position in the log.
    #[must_use]
    pub fn index(&self) -> Index {
        self.id.index
    }
}
