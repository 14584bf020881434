//! Whom this node dials, and who has dialled it: members and strangers.
//!
//! A *stranger* is a node of the cluster that is no member as far as this node knows. It is heard
//! and answered all the same: a node that was just added knows nobody, and one that lags does not
//! know the newest members.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quic_link::CLOSE_NORMAL;
use raft_core::{Incarnation, NodeId, SendError};
use tokio::task::AbortHandle;

use super::hello::HelloError;
use super::lane::Lane;
use super::options::PeerAddress;
use super::peer::{Incoming, Outgoing, Peer};

/// A peer, and the task that keeps a link to it.
#[derive(Debug)]
struct Member {
    peer: Arc<Peer>,
    task: AbortHandle,
}

impl Member {
    fn end(&self, why: &str) {
        self.task.abort();
        self.peer.close(why);
    }
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<NodeId, Member>,
    /// The newest link from each node. A member's stays when the link has ended, so that a link of
    /// an earlier boot is still recognised; a stranger's, until its place is needed.
    incoming: BTreeMap<NodeId, Arc<Incoming>>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Peers {
    strangers_max: usize,
    state: Mutex<State>,
}

impl Peers {
    pub(super) fn new(strangers_max: usize) -> Self {
        Self {
            strangers_max,
            state: Mutex::default(),
        }
    }

    /// Replaces the list of members. Who stays as it is keeps its link; who goes loses it in both
    /// directions, but may come back as a stranger; who has another address or incarnation is
    /// dialled anew. `dial` starts the task that keeps a link to a peer.
    pub(super) fn set_members(
        &self,
        members: BTreeMap<NodeId, PeerAddress>,
        mut dial: impl FnMut(Arc<Peer>) -> AbortHandle,
    ) {
        let mut state = self.lock();
        let State {
            members: known,
            incoming,
        } = &mut *state;
        known.retain(|id, member| {
            let stays = members.contains_key(id);
            if !stays {
                let why = "not a member any more";
                member.end(why);
                if let Some(incoming) = incoming.remove(id) {
                    incoming.link.close(CLOSE_NORMAL, why);
                }
            }
            stays
        });
        for (id, address) in members {
            if let Some(member) = known.get(&id) {
                if member.peer.address == address {
                    continue;
                }
                member.end("the member has another address or incarnation");
            }
            let peer = Arc::new(Peer::new(id, address));
            let task = dial(Arc::clone(&peer));
            known.insert(id, Member { peer, task });
        }
    }

    /// The link that we have dialled to a member.
    pub(super) fn outgoing(&self, to: NodeId) -> Result<Arc<Outgoing>, SendError> {
        let state = self.lock();
        let member = state.members.get(&to).ok_or(SendError::UnknownPeer(to))?;
        member.peer.outgoing()
    }

    /// Where messages to a node go: over the link that we have dialled, and, where there is none
    /// and they are no bulk, over the one that the node has dialled.
    pub(super) fn lane_to(&self, to: NodeId, is_bulk: bool) -> Result<Arc<Lane>, SendError> {
        let problem = match self.outgoing(to) {
            Ok(outgoing) if is_bulk => return Ok(Arc::clone(&outgoing.bulk)),
            Ok(outgoing) => return Ok(Arc::clone(&outgoing.control)),
            Err(problem) => problem,
        };
        let state = self.lock();
        let incoming = state.incoming.get(&to).filter(|_| !is_bulk);
        match incoming.filter(|incoming| !incoming.link.is_closed()) {
            Some(incoming) => Ok(Arc::clone(&incoming.replies)),
            None => Err(problem),
        }
    }

    /// The incarnation that a node is known as, if it is a member.
    pub(super) fn member_incarnation(&self, id: NodeId) -> Option<Incarnation> {
        let state = self.lock();
        let member = state.members.get(&id);
        member.map(|member| member.peer.address.incarnation)
    }

    /// Whether a process is known to be over, because a later one of the same incarnation has
    /// dialled us.
    pub(super) fn check_boot(
        &self,
        id: NodeId,
        incarnation: Incarnation,
        found: u64,
    ) -> Result<(), HelloError> {
        self.lock().check_boot(id, incarnation, found)
    }

    /// Makes `link` the one that is received from, in place of an older one, and says whether it
    /// is a member's. Of one incarnation, a link of an earlier boot is refused. Between two
    /// incarnations there is no order: the newest link wins, and the protocol tells messages apart.
    pub(super) fn replace_incoming(
        &self,
        id: NodeId,
        link: Arc<Incoming>,
    ) -> Result<bool, HelloError> {
        let mut state = self.lock();
        let (incarnation, boot) = (link.incarnation, link.boot);
        state.check_boot(id, incarnation, boot)?;
        if !state.members.contains_key(&id) && !state.incoming.contains_key(&id) {
            state.make_room(self.strangers_max)?;
        }
        if let Some(older) = state.incoming.insert(id, link) {
            older.link.close(CLOSE_NORMAL, "replaced by a newer link");
        }
        let member = state.members.get(&id);
        if let Some(member) = member {
            member.peer.has_shown(incarnation, boot);
        }
        Ok(member.is_some())
    }

    /// Ends all links in both directions.
    pub(super) fn close(&self, why: &str) {
        let state = self.lock();
        for member in state.members.values() {
            member.end(why);
        }
        for incoming in state.incoming.values() {
            incoming.link.close(CLOSE_NORMAL, why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each holder leaves the state whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_boot(
        &self,
        id: NodeId,
        incarnation: Incarnation,
        found: u64,
    ) -> Result<(), HelloError> {
        match self.incoming.get(&id) {
            Some(newest) if newest.incarnation == incarnation && newest.boot > found => {
                let newest = newest.boot;
                Err(HelloError::Boot { id, found, newest })
            }
            _ => Ok(()),
        }
    }

    /// Room for one more stranger, if need be in place of one whose link has ended.
    fn make_room(&mut self, strangers_max: usize) -> Result<(), HelloError> {
        let Self { members, incoming } = self;
        let strangers = incoming.iter().filter(|(id, _)| !members.contains_key(id));
        if strangers.clone().count() < strangers_max {
            return Ok(());
        }
        let mut gone = strangers.filter(|(_, incoming)| incoming.link.is_closed());
        let gone = gone.next().map(|(id, _)| *id);
        let gone = gone.ok_or(HelloError::TooManyStrangers(strangers_max))?;
        incoming.remove(&gone);
        Ok(())
    }
}
