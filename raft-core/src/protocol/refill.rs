//! A node whose disk lost entries that it may have acknowledged (Alagappan et al., FAST 2018): its
//! term and vote are intact, its log is shorter than what it promised. Until the log has reached
//! the last entry that may have been acknowledged, the node belongs to no quorum: it gives no vote,
//! does not campaign, and its answers say so, so that a leader counts none of them.
//!
//! Why that is enough. Say an entry is committed because a majority acknowledged it, this node
//! among them, and was lost here since. Whoever is elected later had the votes of a majority that
//! this node was not part of; so the two majorities share somebody else, who has the entry and
//! votes only for a log that has it. And a log whose last id is not below `to` has all that was
//! acknowledged here and committed: its last entry either comes from the leader of the term in
//! which `to` was written, at or behind `to`, or from a leader of a later term, who had all that
//! was committed before. From then on the node is like any other.
//!
//! What waits is the log on the disk, never the one in memory.

use crate::config::ConfigError;
use crate::message::{AppendReply, Message};
use crate::protocol::apply::Applying;
use crate::protocol::progress::Progress;
use crate::protocol::{Raft, RoleState};
use crate::types::{LogId, NodeId};

/// Longest election deadlines for which a voter has everything and is not whole, until the term
/// ends for its sake.
const FULL_DEADLINES: u64 = 4;

/// What a log has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refill {
    /// The last entry that may have been acknowledged.
    to: LogId,
    /// The write with which the log reaches it.
    reached_with: Option<u64>,
}

impl Refill {
    /// What a log that ends at `last` still has to reach, if that is anything.
    fn of(to: Option<LogId>, last: LogId) -> Option<Self> {
        let to = to.filter(|to| *to > last)?;
        let reached_with = None;
        Some(Self { to, reached_with })
    }
}

/// What a log that ends at `last` still has to reach, and where a machine that has applied up to
/// `applied` goes on.
///
/// # Errors
/// When the machine is ahead of a log that lost nothing: the two do not belong together.
pub(crate) fn at_start(
    refill_to: Option<LogId>,
    last: LogId,
    applied: LogId,
) -> Result<(Option<Refill>, Applying), ConfigError> {
    let is_ahead = applied.index > last.index;
    if is_ahead && refill_to.is_none() {
        return Err(ConfigError::LogBehind { applied, last });
    }
    // What was applied was on the disk, so it may have been acknowledged.
    let ahead = if is_ahead { applied } else { LogId::ZERO };
    let refill = Refill::of(refill_to.map(|to| to.max(ahead)), last);
    let applying = Applying::new(applied.index.min(last.index), ahead.index);
    Ok((refill, applying))
}

impl Raft {
    /// What the log on the disk still has to reach.
    pub(crate) fn refill_to(&self) -> Option<LogId> {
        self.refill.map(|refill| refill.to)
    }

    /// Whether this node is part of no quorum.
    pub(crate) fn is_refilling(&self) -> bool {
        self.refill.is_some()
    }

    /// Something was put at the end of the log.
    pub(crate) fn note_refilled(&mut self) {
        let (last, write) = (self.log.last(), self.outbox.open_write());
        if let Some(refill) = &mut self.refill
            && refill.reached_with.is_none()
            && last >= refill.to
        {
            refill.reached_with = Some(write);
        }
    }

    /// This write is on the disk, and all before it.
    pub(crate) fn refill_persisted(&mut self, number: u64) {
        let is_reached = |refill: &mut Refill| refill.reached_with.is_some_and(|w| number >= w);
        self.refill.take_if(is_reached);
    }

    /// A store may not know how far the log went that it lost, and names an entry that is not
    /// there in this term. Any entry of a later one makes such a follower whole. So when a member
    /// has everything and is not whole for a while, another voter gets to lead; where this node
    /// decides alone, it follows until it has won a new term.
    pub(crate) fn ends_term_for_refill(&mut self) {
        let last = self.log.last().index;
        let timing = self.config.timing;
        let patience = FULL_DEADLINES * u64::from(timing.election_ticks_max);
        let is_busy = self.transfer.is_some() || self.commit < last || self.membership().is_joint();
        let RoleState::Leader(role) = &self.role else {
            return;
        };
        let voters: Vec<_> = self.membership().voters().collect();
        let is_stuck = |p: &Progress| p.lacks_only_a_term(last, role.now, patience);
        if is_busy || !role.progress.iter().any(is_stuck) {
            return;
        }
        let mut others = role.progress.iter().filter(|p| voters.contains(&p.id));
        let lives = u64::from(timing.election_ticks_min);
        let can_lead = |p: &&Progress| p.matched() == last && p.is_alive(role.now, lives);
        let own = self.own_voice();
        if let Some(successor) = others.find(can_lead).map(|p| p.id) {
            self.start_transfer(None, successor);
        } else if self.electorate.is_quorum(|id| Some(id) == own) {
            self.become_follower(None);
        }
    }

    /// Answers an append or a snapshot, once all that was written so far is on the disk. By then
    /// this node is whole, if the log has reached what it had to.
    pub(crate) fn acknowledge(&mut self, to: NodeId, reply: AppendReply) {
        let is_short = |refill: &Refill| refill.reached_with.is_none();
        let message = if self.refill.as_ref().is_some_and(is_short) {
            Message::RefillReply(reply)
        } else {
            Message::AppendReply(reply)
        };
        self.promise(to, message);
    }
}
