//! What the owner of a node holds: propose, read, watch, stop. Limits are checked here, before
//! anything is written.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{ChangeError, ProposeError, ReadError, StopReason, TransferError};
use crate::membership::MembershipChange;
use crate::node::budget::{Budget, Claim, Exhausted};
use crate::node::lifecycle::LifeWatch;
use crate::node::metrics::Metrics;
use crate::node::request::{Committed, Consistency, ReadWaiter, Request, StateImageAt, Waiter};
use crate::node::status::{Status, StatusCell};
use crate::protocol::RoleChange;
use crate::types::{LogId, NodeId};

/// Changes of membership of one node without an answer. Above it: `Busy`. One is under way at a
/// time; the others learn that.
pub(crate) const CHANGES_PENDING_MAX: usize = 16;

/// Transfers of leadership of one node without an answer. Above it: `Busy`.
pub(crate) const TRANSFERS_PENDING_MAX: usize = 16;

/// Images of the state that are asked for or held by somebody. Above it: `Busy`. Each keeps what
/// was overwritten since in memory.
pub(crate) const IMAGES_HELD_MAX: usize = 4;

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
    pub(crate) images: Arc<Budget>,
    pub(crate) changes: Arc<Budget>,
    pub(crate) transfers: Arc<Budget>,
    /// To the driver.
    pub(crate) requests: mpsc::Sender<Request>,
    /// Straight to the apply task.
    pub(crate) stale: mpsc::Sender<ReadWaiter>,
    pub(crate) status: Arc<StatusCell>,
    pub(crate) metrics: Arc<Metrics>,
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

impl From<Exhausted> for ChangeError {
    fn from(Exhausted { limit_name, limit }: Exhausted) -> Self {
        Self::Busy { limit_name, limit }
    }
}

impl From<Exhausted> for TransferError {
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
            self.claim(&links.proposals, 1)?,
            self.claim(&links.proposal_bytes, bytes)?,
        ];
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(reply, claims);
        let request = Request::Propose { payload, waiter };
        self.ask(request, answer, ProposeError::Stopped).await
    }

    /// Asks the state machine. May wait as long as there is no quorum; the caller sets the
    /// deadline.
    ///
    /// # Errors
    /// [`ReadError`]; a read changes nothing, so it can be tried again anywhere.
    pub async fn read(&self, query: Bytes, consistency: Consistency) -> Result<Bytes, ReadError> {
        let links = &self.links;
        let claims = [self.claim(&links.reads, 1)?];
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(reply, claims);
        let reader = ReadWaiter::Query { query, waiter };
        match consistency {
            Consistency::Linearizable => {
                let request = Request::Read(reader);
                self.ask(request, answer, ReadError::Stopped).await
            }
            Consistency::Stale => {
                let sent = links.stale.try_send(reader);
                let is_taken = sent.is_ok() && !links.stale.is_closed();
                self.wait(is_taken, answer, ReadError::Stopped).await
            }
        }
    }

    /// An image of the state, as fresh as a linearizable read; later commands do not move it. For
    /// copies that an operator keeps. Only a few may be held at a time: the image costs memory
    /// until it is dropped.
    ///
    /// # Errors
    /// As [`RaftHandle::read`].
    pub async fn image(&self) -> Result<StateImageAt, ReadError> {
        let links = &self.links;
        let room = self.claim(&links.images, 1)?;
        let claims = [self.claim(&links.reads, 1)?];
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(reply, claims);
        let request = Request::Read(ReadWaiter::Image { waiter, room });
        self.ask(request, answer, ReadError::Stopped).await
    }

    /// Changes who belongs to the group, and waits until the change is complete: for a change of
    /// voters, until the old ones are left (paper section 6). May wait as long as there is no
    /// quorum; the caller sets the deadline. Dropping the future takes nothing back. Gives the
    /// entry that completed it.
    ///
    /// # Errors
    /// [`ChangeError`]: after `Unknown` and `Stopped` the change may or may not take effect, after
    /// all others it was not begun.
    pub async fn change_membership(&self, change: MembershipChange) -> Result<LogId, ChangeError> {
        let claims = [self.claim(&self.links.changes, 1)?];
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(reply, claims);
        let request = Request::Change { change, waiter };
        self.ask(request, answer, ChangeError::Stopped).await
    }

    /// Hands leadership to another voter (thesis 3.10), and waits until that one is known to lead.
    ///
    /// # Errors
    /// [`TransferError`]; but for `LostToAnother` this node leads on, where it did.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), TransferError> {
        let claims = [self.claim(&self.links.transfers, 1)?];
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter::new(reply, claims);
        let request = Request::Transfer { to, waiter };
        self.ask(request, answer, TransferError::Stopped).await
    }

    fn claim(&self, budget: &Arc<Budget>, amount: usize) -> Result<Claim, Exhausted> {
        let claim = budget.claim(amount);
        if claim.is_err() {
            self.links.metrics.busy_refusals.increment();
        }
        claim
    }

    /// Gives a request to the driver and waits for the answer. There is room for it in the queue,
    /// because it holds a claim.
    async fn ask<T, E>(
        &self,
        request: Request,
        answer: oneshot::Receiver<Result<T, E>>,
        stopped: impl FnOnce(StopReason) -> E,
    ) -> Result<T, E> {
        let requests = &self.links.requests;
        // A channel that closed after the send may or may not have given the request to the driver.
        let is_taken = requests.try_send(request).is_ok() && !requests.is_closed();
        self.wait(is_taken, answer, stopped).await
    }

    async fn wait<T, E>(
        &self,
        is_taken: bool,
        answer: oneshot::Receiver<Result<T, E>>,
        stopped: impl FnOnce(StopReason) -> E,
    ) -> Result<T, E> {
        if is_taken && let Ok(result) = answer.await {
            return result;
        }
        Err(stopped(self.links.life.cause().await))
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
