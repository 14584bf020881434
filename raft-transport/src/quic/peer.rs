//! A link to a member and a link from a node, as long as they are used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quic_link::{CLOSE_NORMAL, Link};
use raft_core::{Incarnation, NodeId, SendError};
use tokio::sync::Notify;

use super::lane::Lane;
use super::options::PeerAddress;

/// A link that we have dialled and may send on.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) link: Link,
    /// What the peer answered with.
    pub(super) incarnation: Incarnation,
    pub(super) boot: u64,
    pub(super) control: Arc<Lane>,
    pub(super) bulk: Arc<Lane>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.link.close(CLOSE_NORMAL, "not used any more");
    }
}

/// A link that a node has dialled. Replies go over it where there is no link to that node.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) link: Link,
    /// What the peer said.
    pub(super) incarnation: Incarnation,
    pub(super) boot: u64,
    pub(super) replies: Arc<Lane>,
}

#[derive(Debug)]
struct State {
    outgoing: Option<Arc<Outgoing>>,
    /// Why there is no link to it.
    problem: String,
}

/// A member that is dialled, for as long as it has this address and incarnation.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) address: PeerAddress,
    state: Mutex<State>,
    /// The peer has shown that it is there: dial now, whatever the back-off says.
    pub(super) seen: Notify,
}

impl Peer {
    pub(super) fn new(id: NodeId, address: PeerAddress) -> Self {
        Self {
            id,
            address,
            state: Mutex::new(State {
                outgoing: None,
                problem: "not dialled yet".to_owned(),
            }),
            seen: Notify::new(),
        }
    }

    /// The link to send on.
    pub(super) fn outgoing(&self) -> Result<Arc<Outgoing>, SendError> {
        let state = self.lock();
        state
            .outgoing
            .clone()
            .ok_or_else(|| SendError::Unreachable {
                to: self.id,
                why: state.problem.clone(),
            })
    }

    pub(super) fn set_outgoing(&self, outgoing: Arc<Outgoing>) {
        self.lock().outgoing = Some(outgoing);
    }

    /// There is no link to it, for this reason. Says whether the reason is news.
    pub(super) fn set_problem(&self, problem: String) -> bool {
        let mut state = self.lock();
        state.outgoing = None;
        let news = state.problem != problem;
        state.problem = problem;
        news
    }

    /// The peer has dialled us. A link to a process before that one leads nowhere, even if nobody
    /// has noticed yet.
    pub(super) fn has_shown(&self, incarnation: Incarnation, boot: u64) {
        if let Some(outgoing) = &self.lock().outgoing
            && (outgoing.incarnation != incarnation || outgoing.boot < boot)
        {
            outgoing.link.close(CLOSE_NORMAL, "the peer was restarted");
        }
        self.seen.notify_one();
    }

    /// Ends the link to it.
    pub(super) fn close(&self, why: &str) {
        let mut state = self.lock();
        if let Some(outgoing) = state.outgoing.take() {
            outgoing.link.close(CLOSE_NORMAL, why);
        }
        why.clone_into(&mut state.problem);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each holder leaves the state whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
