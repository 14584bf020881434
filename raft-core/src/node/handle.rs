//! What the owner of a node holds: propose, read, watch, stop. Limits are checked here, before
//! anything is written.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{ProposeError, ReadError, StopReason};
use crate::node::budget::{Budget, Exhausted};
use crate::node::lifecycle::LifeWatch;
use crate::node::request::{Committed, Consistency, ProposeWaiter, ReadWaiter, Request};
use crate::node::status::{Status, StatusCell};
use crate::protocol::RoleChange;

/// A handle of a running node; clones are cheap and share the node. The node ends when the last one
/// is dropped.
#[derive(Clone)]
pub struct RaftHandle {
    links: Arc<HandleLinks>,
}

/// What joins the handles to the tasks.
pub(crate) struct HandleLinks {
    /// Bytes of one proposal.
    pub(crate) proposal_bytes_max: usize,
    pub(crate) proposals: Arc<Budget>,
    pub(crate) proposal_bytes: Arc<Budget>,
    pub(crate) reads: Arc<Budget>,
    /// To the driver.
    pub(crate) requests: mpsc::Sender<Request>,
    /// Straight to the apply task.
    pub(crate) stale: mpsc::Sender<ReadWaiter>,
    pub(crate) status: Arc<StatusCell>,
    pub(crate) leadership: watch::Receiver<RoleChange>,
    pub(crate) life: LifeWatch,
}

impl fmt::Debug for RaftHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftHandle")
            .field("status", &self.links.status.read())
            .finish_non_exhaustive()
    }
}

impl From<Exhausted> for ProposeError {
    fn from(Exhausted { limit_name, limit }: Exhausted) -> Self {
        Self::Busy { limit_name, limit }
    }
}

impl From<Exhausted> for ReadError {
    fn from(Exhausted { limit_name, limit }: Exhausted) -> Self {
        Self::Busy { limit_name, limit }
    }
}

impl RaftHandle {
    pub(crate) fn new(links: HandleLinks) -> Self {
        Self {
            links: Arc::new(links),
        }
    }

    /// Replicates a command and waits until this node's state machine has applied it. May wait as
    /// long as there is no quorum; the caller sets the deadline. Dropping the future takes nothing
    /// back: the command may still be applied.
    ///
    /// # Errors
    /// [`ProposeError`]: `NotLeader`, `TooLarge` and `Busy` were certainly not applied, `Unknown`
    /// and `Stopped` may or may not be.
    pub async fn propose(&self, payload: Bytes) -> Result<Committed, ProposeError> {
        let links = &self.links;
        let (bytes, limit) = (payload.len(), links.proposal_bytes_max);
        if bytes > limit {
            return Err(ProposeError::TooLarge { bytes, limit });
        }
        let claims = [
            links.proposals.claim(1)?,
            links.proposal_bytes.claim(bytes)?,
        ];
        let (reply, answer) = oneshot::channel();
        let waiter = ProposeWaiter::new(reply, claims);
        let sent = links
            .requests
            .try_send(Request::Propose { payload, waiter });
        // A channel that closed after the send may or may not have given the request to the driver.
        if sent.is_err() || links.requests.is_closed() {
            return Err(ProposeError::Stopped(links.life.cause().await));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(ProposeError::Stopped(links.life.cause().await)),
        }
    }

    /// Asks the state machine. May wait as long as there is no quorum; the caller sets the
    /// deadline.
    ///
    /// # Errors
    /// [`ReadError`]; a read changes nothing, so it can be tried again anywhere.
    pub async fn read(&self, query: Bytes, consistency: Consistency) -> Result<Bytes, ReadError> {
        let links = &self.links;
        let claim = links.reads.claim(1)?;
        let (reply, answer) = oneshot::channel();
        let waiter = ReadWaiter::new(query, reply, claim);
        let is_taken = match consistency {
            Consistency::Linearizable => {
                let sent = links.requests.try_send(Request::Read(waiter));
                sent.is_ok() && !links.requests.is_closed()
            }
            Consistency::Stale => {
                let sent = links.stale.try_send(waiter);
                sent.is_ok() && !links.stale.is_closed()
            }
        };
        if !is_taken {
            return Err(ReadError::Stopped(links.life.cause().await));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(ReadError::Stopped(links.life.cause().await)),
        }
    }

    /// Where the node stands, as of the last turn of its driver. Never waits; works after the end
    /// too.
    #[must_use]
    pub fn status(&self) -> Status {
        self.links.status.read()
    }

    /// Proposals of this node that have no answer yet.
    #[must_use]
    pub fn proposals_pending(&self) -> usize {
        self.links.proposals.used()
    }

    /// Reads of this node that have no answer yet.
    #[must_use]
    pub fn reads_pending(&self) -> usize {
        self.links.reads.used()
    }

    /// Changes of term, role and leader; only the newest is kept.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<RoleChange> {
        self.links.leadership.clone()
    }

    /// Waits until the node has ended and all its tasks are joined; the store, the machine and the
    /// transport are then dropped.
    pub async fn stopped(&self) -> StopReason {
        self.links.life.stopped().await
    }

    /// Asks the node to end and waits as [`RaftHandle::stopped`]: at most for the append and the
    /// apply that are under way. A second call is harmless; the reason is the one that came first.
    pub async fn shutdown(&self) -> StopReason {
        self.links.life.ask_shutdown();
        self.stopped().await
    }
}
