//! Sleep of idle groups, an option: once everything is everywhere and nobody wants anything, the
//! leader sends one last heartbeat and all clocks of the group stand still. Any message, request or
//! lost connection wakes; whoever wakes alone asks for a pre-vote after its deadline, which wakes
//! the others.

use crate::message::{Heartbeat, Message};
use crate::protocol::progress::Progress;
use crate::protocol::{Raft, RoleState};
use crate::types::NodeId;

impl Raft {
    /// Whether this node's clock stands still.
    pub(crate) fn is_asleep(&self) -> bool {
        match &self.role {
            RoleState::Follower(role) => role.is_asleep,
            RoleState::Leader(role) => role.is_asleep,
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => false,
        }
    }

    /// Somebody wants something.
    pub(crate) fn wake(&mut self) {
        match &mut self.role {
            RoleState::Follower(role) => role.wake(),
            RoleState::Leader(role) => role.wake(),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {}
        }
    }

    /// Every message but those of falling asleep.
    pub(crate) fn wake_for(&mut self, message: &Message) {
        let lulls = match message {
            Message::Heartbeat(heartbeat) => heartbeat.is_last,
            Message::HeartbeatReply(_) => true,
            _ => false,
        };
        if !lulls && self.is_asleep() {
            self.wake();
        }
    }

    /// A connection to this peer broke: where it is the leader, somebody has to look.
    pub(crate) fn wake_for_loss_of(&mut self, peer: NodeId) {
        let is_leader = matches!(self.role, RoleState::Leader(_));
        if self.is_asleep() && (is_leader || self.leader() == Some(peer)) {
            self.wake();
        }
    }

    /// Counts idle ticks of a leader; true when it fell asleep.
    pub(crate) fn falls_asleep(&mut self) -> bool {
        let Some(limit) = self.config.quiesce_after_ticks else {
            return false;
        };
        let last = self.last().index;
        let is_settled = self.commit == last
            && self.log.durable() == last
            && !self.membership().is_joint()
            && self.transfer.is_none();
        let patience = u64::from(self.config.timing.election_ticks_min);
        let RoleState::Leader(role) = &mut self.role else {
            return false;
        };
        let now = role.now;
        let is_done = |p: &Progress| p.matched() == last && p.is_alive(now, patience);
        let is_told = role.leaving.is_empty();
        let is_idle =
            is_settled && is_told && role.reads.is_idle() && role.progress.iter().all(is_done);
        role.idle_ticks = if is_idle { role.idle_ticks + 1 } else { 0 };
        if role.idle_ticks < limit {
            return false;
        }
        role.is_asleep = true;
        let heartbeat = Heartbeat {
            commit: last,
            round: role.reads.round(),
            is_last: true,
        };
        self.broadcast(&Message::Heartbeat(heartbeat));
        true
    }

    /// The leader said that all is done. True only where that holds here too.
    pub(crate) fn may_sleep(&self, heartbeat: &Heartbeat) -> bool {
        let last = self.last().index;
        heartbeat.is_last && heartbeat.commit == last && self.commit == last
    }
}
