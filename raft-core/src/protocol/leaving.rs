//! Members that were removed, until they know it. A removal is in effect as soon as it is appended,
//! so by the rules alone a removed follower would never get the entry that says so. The leader
//! that removed it goes on sending for a while: the entry, and that it is committed. Nothing that
//! it says counts. Best effort: whoever cannot be reached in time, or whose leader goes first, has
//! to be told by its operator.

use crate::membership::{MEMBERS_MAX, Member, Membership};
use crate::protocol::progress::Progress;
use crate::protocol::{Raft, RoleState};
use crate::types::{Incarnation, Index, NodeId};

/// Longest election deadlines for which a removed member is still talked to.
const LEAVING_DEADLINES: u64 = 8;

/// A member that was removed.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) progress: Progress,
    /// What it was.
    member: Member,
    /// The entry that removed it.
    since: Index,
    /// When it is given up, in ticks of this leadership.
    until: u64,
    /// The read round that it answers once it knows that the entry is committed.
    told_with: Option<u64>,
}

impl Leaving {
    /// Whether nothing more is to be said to it.
    fn is_over(&self, now: u64) -> bool {
        now >= self.until
            || self
                .told_with
                .is_some_and(|round| self.progress.round >= round)
    }
}

impl Raft {
    /// Followers without a member: those that are in the list no more are told so.
    pub(crate) fn members_left(&mut self, left: Vec<Progress>) {
        let (since, current) = self.configurations.current();
        let before = self.configurations.at(since.previous());
        let longest = u64::from(self.config.timing.election_ticks_max);
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        // One that is back is an ordinary follower again.
        role.leaving
            .retain(|leaving| current.get(leaving.progress.id).is_none());
        for progress in left {
            let id = progress.id;
            let Some(member) = before.get(id).filter(|_| current.get(id).is_none()) else {
                continue;
            };
            if role.leaving.len() == MEMBERS_MAX {
                role.leaving.remove(0);
            }
            role.leaving.push(Leaving {
                member: member.clone(),
                progress,
                since,
                until: role.now + LEAVING_DEADLINES * longest,
                told_with: None,
            });
        }
    }

    /// Lets those go that know, and those that were not reached in time.
    pub(crate) fn leaving_tick(&mut self) {
        let commit = self.commit;
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        for leaving in &mut role.leaving {
            let has_it = leaving.progress.matched() >= leaving.since && commit >= leaving.since;
            if has_it && leaving.told_with.is_none() {
                leaving.told_with = Some(role.reads.next_round());
            }
        }
        let (now, count) = (role.now, role.leaving.len());
        role.leaving.retain(|leaving| !leaving.is_over(now));
        if role.leaving.len() < count {
            self.outbox.effects().members_changed = Some(self.talks_to());
        }
    }

    /// The incarnation of a member that was removed and is still talked to.
    pub(crate) fn leaving_incarnation(&self, id: NodeId) -> Option<Incarnation> {
        let RoleState::Leader(role) = &self.role else {
            return None;
        };
        let leaving = role.leaving.iter().find(|l| l.progress.id == id)?;
        Some(leaving.progress.incarnation)
    }

    /// The members, and beside them those that have left and do not know it.
    pub(crate) fn talks_to(&self) -> Membership {
        let membership = self.membership();
        let RoleState::Leader(role) = &self.role else {
            return membership.clone();
        };
        if role.leaving.is_empty() {
            return membership.clone();
        }
        let mut outgoing = membership.outgoing().clone();
        for leaving in &role.leaving {
            let member = leaving.member.clone();
            outgoing.entry(leaving.progress.id).or_insert(member);
        }
        let both = Membership::joint(membership.members().clone(), outgoing);
        both.unwrap_or_else(|_| membership.clone())
    }

    /// Leadership ends, and with it what only this leader would have said.
    pub(crate) fn forget_leaving(&mut self) {
        if let RoleState::Leader(role) = &mut self.role
            && !std::mem::take(&mut role.leaving).is_empty()
        {
            self.outbox.effects().members_changed = Some(self.talks_to());
        }
    }
}
