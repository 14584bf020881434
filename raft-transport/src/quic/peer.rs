//! One peer as this node sees it: the link to it, and the newest link from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quic_link::{CLOSE_NORMAL, FrameWriter, Link};
use raft_core::{NodeId, SendError};
use tokio::sync::Notify;

use super::options::PeerAddress;

/// A link that we have dialled and may send on.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) link: Link,
    /// The boot counter that the peer answered with.
    pub(super) boot: u64,
    pub(super) control: tokio::sync::Mutex<FrameWriter>,
    pub(super) bulk: tokio::sync::Mutex<FrameWriter>,
}

#[derive(Debug)]
struct State {
    outgoing: Option<Arc<Outgoing>>,
    /// Why there is no link to it.
    problem: String,
    /// The newest link from it, with its boot counter. Stays when the link has ended, so that a
    /// link of an earlier boot is still recognised.
    incoming: Option<(u64, Link)>,
}

/// A peer, for as long as the transport lives.
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
                incoming: None,
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

    /// Makes `link` the one that is received from, in place of an older one. An error, with the
    /// newer boot counter, when that one is of a later boot.
    pub(super) fn replace_incoming(&self, boot: u64, link: Link) -> Result<(), u64> {
        let mut state = self.lock();
        if let Some((newest, _)) = &state.incoming
            && *newest > boot
        {
            return Err(*newest);
        }
        if let Some((_, older)) = state.incoming.replace((boot, link)) {
            older.close(CLOSE_NORMAL, "replaced by a newer link");
        }
        // The process that we have a link to is gone, even if nobody has noticed yet.
        if let Some(outgoing) = &state.outgoing
            && outgoing.boot < boot
        {
            outgoing.link.close(CLOSE_NORMAL, "the peer was restarted");
        }
        drop(state);
        self.seen.notify_one();
        Ok(())
    }

    /// Ends the links in both directions.
    pub(super) fn close(&self, why: &str) {
        let mut state = self.lock();
        if let Some(outgoing) = state.outgoing.take() {
            outgoing.link.close(CLOSE_NORMAL, why);
        }
        if let Some((_, link)) = &state.incoming {
            link.close(CLOSE_NORMAL, why);
        }
        why.clone_into(&mut state.problem);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each holder leaves the state whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
