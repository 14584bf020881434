//! What a handle sends to the node, and the waiter that travels with it until it is answered. A
//! waiter that is dropped without an answer tells its client that the node stopped.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{ProposeError, ReadError};
use crate::node::budget::Claim;
use crate::types::LogId;

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
    /// As if the read happened at one instant between its call and its return. Only the leader
    /// answers, after it made sure of its leadership.
    Linearizable,
    /// The state of the asked node as it is, however old. Every node answers.
    Stale,
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
}

/// A client that waits for its proposal.
#[derive(Debug)]
pub(crate) struct ProposeWaiter {
    reply: oneshot::Sender<Result<Committed, ProposeError>>,
    claims: [Claim; 2],
}

impl ProposeWaiter {
    /// `claims` are the room for one proposal and for its bytes.
    pub(crate) fn new(
        reply: oneshot::Sender<Result<Committed, ProposeError>>,
        claims: [Claim; 2],
    ) -> Self {
        Self { reply, claims }
    }

    /// Gives the room back, then answers.
    pub(crate) fn answer(self, result: Result<Committed, ProposeError>) {
        drop(self.claims);
        // An error means that the client does not wait any more, which is its right.
        let _ = self.reply.send(result);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A client that waits for an answer of the state machine.
#[derive(Debug)]
pub(crate) struct ReadWaiter {
    /// The question.
    pub(crate) query: Bytes,
    reply: oneshot::Sender<Result<Bytes, ReadError>>,
    claim: Claim,
}

impl ReadWaiter {
    /// `claim` is the room for one read.
    pub(crate) fn new(
        query: Bytes,
        reply: oneshot::Sender<Result<Bytes, ReadError>>,
        claim: Claim,
    ) -> Self {
        Self {
            query,
            reply,
            claim,
        }
    }

    /// Gives the room back, then answers.
    pub(crate) fn answer(self, result: Result<Bytes, ReadError>) {
        drop(self.claim);
        // An error means that the client does not wait any more, which is its right.
        let _ = self.reply.send(result);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}
