//! What a handle sends to the node, and the waiter that travels with it until it is answered. A
//! waiter that is dropped without an answer tells its client that the node stopped.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{ChangeError, ProposeError, ReadError, StateMachineError, TransferError};
use crate::membership::MembershipChange;
use crate::node::budget::Claim;
use crate::snapshot::SnapshotMeta;
use crate::state_machine::StateImage;
use crate::types::{LogId, NodeId};

/// A proposal that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where in the log it is.
    pub id: LogId,
    /// What the state machine replied.
    pub reply: Bytes,
}

/// How fresh the answer of a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// As if the read happened at one instant between its call and its return. Every node that
    /// knows a leader answers, after the leader made sure that it leads.
    Linearizable,
    /// The state of the asked node as it is, however old. Every node answers.
    Stale,
}

/// An image of the state, and what it stands for.
pub struct StateImageAt {
    /// The last entry that is part of it, and the membership as of that entry.
    pub meta: SnapshotMeta,
    /// The state. It costs memory for as long as it is held.
    pub image: Box<dyn StateImage>,
}

impl fmt::Debug for StateImageAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateImageAt")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// What clients want from the driver.
#[derive(Debug)]
pub(crate) enum Request {
    /// Replicate and apply a command.
    Propose {
        /// The command.
        payload: Bytes,
        /// Who asked.
        waiter: ProposeWaiter,
    },
    /// Ask the state machine, linearizably.
    Read(ReadWaiter),
    /// Have other members.
    Change {
        /// Which.
        change: MembershipChange,
        /// Who asked.
        waiter: ChangeWaiter,
    },
    /// Let another node lead.
    Transfer {
        /// Which.
        to: NodeId,
        /// Who asked.
        waiter: TransferWaiter,
    },
}

/// A client that waits, and the room that it takes.
pub(crate) struct Waiter<T, E, const CLAIMS: usize = 1> {
    reply: oneshot::Sender<Result<T, E>>,
    claims: [Claim; CLAIMS],
}

/// Waits for a proposal; the room is that of one proposal and of its bytes.
pub(crate) type ProposeWaiter = Waiter<Committed, ProposeError, 2>;

/// Waits for a change of membership.
pub(crate) type ChangeWaiter = Waiter<LogId, ChangeError>;

/// Waits for a transfer of leadership.
pub(crate) type TransferWaiter = Waiter<(), TransferError>;

impl<T, E, const CLAIMS: usize> fmt::Debug for Waiter<T, E, CLAIMS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

impl<T, E, const CLAIMS: usize> Waiter<T, E, CLAIMS> {
    /// Holds `claims` until the answer.
    pub(crate) fn new(reply: oneshot::Sender<Result<T, E>>, claims: [Claim; CLAIMS]) -> Self {
        Self { reply, claims }
    }

    /// Gives the room back, then answers.
    pub(crate) fn answer(self, result: Result<T, E>) {
        drop(self.claims);
        // An error means that the client does not wait any more, which is its right.
        let _ = self.reply.send(result);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A client that waits for something of the state machine. The room is that of one read.
#[derive(Debug)]
pub(crate) enum ReadWaiter {
    /// An answer to a question.
    Query {
        /// The question.
        query: Bytes,
        /// Who asked.
        waiter: Waiter<Bytes, ReadError>,
    },
    /// An image of the state.
    Image {
        /// Who asked.
        waiter: Waiter<StateImageAt, ReadError>,
        /// The room of one image, until it is dropped.
        room: Claim,
    },
}

impl ReadWaiter {
    /// There will be no answer.
    pub(crate) fn refuse(self, error: ReadError) {
        match self {
            Self::Query { waiter, .. } => waiter.answer(Err(error)),
            Self::Image { waiter, .. } => waiter.answer(Err(error)),
        }
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Self::Query { waiter, .. } => waiter.is_abandoned(),
            Self::Image { waiter, .. } => waiter.is_abandoned(),
        }
    }
}

/// An image that takes its room for as long as it is held.
pub(crate) struct HeldImage {
    image: Box<dyn StateImage>,
    _room: Claim,
}

impl HeldImage {
    /// Holds `room`.
    pub(crate) fn new(image: Box<dyn StateImage>, room: Claim) -> Self {
        Self { image, _room: room }
    }
}

#[async_trait]
impl StateImage for HeldImage {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
        self.image.next_part().await
    }
}
