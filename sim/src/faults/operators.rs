//! An operator who changes the members and hands leadership around, in the worst moments, but never
//! so that a majority of disks would be gone.

use std::collections::BTreeMap;

use raft_core::{
    Incarnation, Index, Member, MemberRole, Membership, MembershipChange, NodeId, Role,
};

use crate::budget::has_quorum_of_disks;
use crate::coverage::Mark;
use crate::event::Event;
use crate::node::{Answer, Ask, Node, Origin, Standing};
use crate::options::Family;
use crate::partitions::between;
use crate::queue::Microseconds;
use crate::world::World;

/// Changes of 1,000 that are disturbed on purpose.
const DISTURBED: u64 = 400;

/// Members that the operator lets a group have.
const MEMBERS_WANTED_MAX: usize = 7;

impl World {
    /// Leadership is handed to some voter, or to somebody who cannot have it.
    pub(super) fn strike_transfer(&mut self) {
        let leader = self.draw_leader();
        let target = self.draw_node();
        self.request(leader, Origin::Operator, Ask::Transfer(target));
        if self.chances.faults.chance(DISTURBED) {
            // The old leader may not hear who took over, and be asked all the same.
            let after = self.draw_disturbance();
            self.plan_strike(Family::Depose, after, false);
        }
    }

    /// Soon enough to meet what was just begun.
    fn draw_disturbance(&mut self) -> Microseconds {
        let longest = self.options.network.delay_max + self.options.disk.sync_max;
        self.chances.faults.between(0, longest * 4)
    }

    /// Another set of members is asked for.
    pub(super) fn strike_reconfigure(&mut self) {
        let leader = self.draw_leader();
        if !self.node(leader).leads() || self.operator.is_waiting {
            return;
        }
        let membership = self.node(leader).state.membership.clone();
        let Some(change) = self.draw_change(&membership) else {
            return;
        };
        if !self.is_survivable(&membership, &change) {
            return;
        }
        self.trace
            .note(self.now, || format!("n{leader} is asked for {change:?}"));
        self.operator.is_waiting = true;
        let target = membership.after(&change).ok();
        self.request(leader, Origin::Operator, Ask::Change(change));
        if self.chances.faults.chance(DISTURBED) {
            self.disturb(leader);
        } else if self.chances.faults.chance(DISTURBED) {
            self.part_along(&membership, target.as_ref());
        }
    }

    /// Something goes wrong while the change is under way.
    fn disturb(&mut self, leader: NodeId) {
        let after = self.draw_disturbance();
        if self.chances.faults.chance(500) {
            self.plan_strike(Family::Partition, after, false);
        } else {
            let life = self.node(leader).life;
            self.plan(after, Event::Churn { node: leader, life });
        }
    }

    /// A partition runs between those who will vote and those who do not vote any more: each side
    /// may think that it decides.
    fn part_along(&mut self, membership: &Membership, target: Option<&Membership>) {
        let Some(target) = target else {
            return;
        };
        let new: Vec<_> = target.voters().collect();
        let left = membership.voters().filter(|id| !new.contains(id));
        let left: Vec<_> = left.collect();
        let after = self.draw_disturbance();
        let links = between(&new, &left);
        self.coverage
            .count_if(!links.is_empty(), Mark::CutAlongChange);
        self.plan_cuts(after, links);
    }

    pub(crate) fn operator_answered(&mut self, answer: &Answer) {
        self.operator.answered(answer);
    }

    fn draw_change(&mut self, membership: &Membership) -> Option<MembershipChange> {
        let members = membership.members();
        let ids: Vec<_> = members.keys().copied().collect();
        let lost = ids.iter().copied().find(|id| {
            let node = self.node(*id);
            node.standing == Standing::Lost || node.incarnation != members[id].incarnation
        });
        if let Some(id) = lost
            && self.chances.faults.chance(600)
        {
            return Some(self.replace(id));
        }
        let is_learner = |id: &&NodeId| members[*id].role == MemberRole::Learner;
        let learners: Vec<_> = ids.iter().filter(is_learner).copied().collect();
        match self.chances.faults.below(12) {
            0..=1 if !learners.is_empty() => {
                let id = *self.chances.faults.pick(&learners);
                Some(MembershipChange::Promote { id })
            }
            2..=5 if members.len() < MEMBERS_WANTED_MAX => self.add(),
            6..=7 => {
                let id = *self.chances.faults.pick(&ids);
                Some(MembershipChange::Remove { id })
            }
            8..=9 if !learners.is_empty() => Some(self.swap_roles(members)),
            _ => Some(self.shuffle_roles(members)),
        }
    }

    /// Any roles for the members that there are, and some of them gone.
    fn shuffle_roles(&mut self, members: &BTreeMap<NodeId, Member>) -> MembershipChange {
        let mut target = members.clone();
        for id in members.keys() {
            match self.chances.faults.below(6) {
                0 => drop(target.remove(id)),
                1 => target.get_mut(id).into_iter().for_each(|member| {
                    member.role = MemberRole::Learner;
                }),
                2..=3 => target.get_mut(id).into_iter().for_each(|member| {
                    member.role = MemberRole::Voter;
                }),
                _ => {}
            }
        }
        MembershipChange::Set(target)
    }

    /// Learners vote and most voters do not any more: the two halves have little in common.
    fn swap_roles(&mut self, members: &BTreeMap<NodeId, Member>) -> MembershipChange {
        let mut target = members.clone();
        for member in target.values_mut() {
            member.role = match member.role {
                MemberRole::Learner => MemberRole::Voter,
                MemberRole::Voter if self.chances.faults.chance(700) => MemberRole::Learner,
                MemberRole::Voter => MemberRole::Voter,
            };
        }
        MembershipChange::Set(target)
    }

    /// A node that nobody knows yet starts and is added; or one that was removed and has lost its
    /// disk since comes back.
    fn add(&mut self) -> Option<MembershipChange> {
        let id = self.operator.new_id()?;
        let incarnation = Incarnation(id.0 * 100);
        let machine = (self.machines)();
        let node = Node::new(id, incarnation, Membership::default(), machine);
        self.nodes.push(node);
        self.start(id);
        Some(MembershipChange::AddLearner {
            id,
            incarnation,
            address: String::new(),
        })
    }

    /// The directory of a lost disk is formatted anew.
    fn replace(&mut self, id: NodeId) -> MembershipChange {
        let empty = (self.machines)();
        let node = self.node_mut(id);
        if node.standing == Standing::Lost {
            let incarnation = Incarnation(node.incarnation.0 + 1);
            let life = node.life;
            *node = Node::new(id, incarnation, Membership::default(), empty);
            node.life = life;
            self.coverage.count(Mark::Replaced);
            self.start(id);
        }
        MembershipChange::Replace {
            id,
            incarnation: self.node(id).incarnation,
            address: String::new(),
        }
    }

    /// Whether a member has all that it ever promised.
    fn has_disk(&self, id: NodeId, incarnation: Incarnation) -> bool {
        let node = self.node(id);
        let is_there = node.incarnation == incarnation && node.standing != Standing::Lost;
        is_there && !node.disk.is_refilling()
    }

    /// Whether a majority of disks is left, on the way there and at the end.
    fn is_survivable(&self, membership: &Membership, change: &MembershipChange) -> bool {
        let Ok(target) = membership.after(change) else {
            // Refused, and nothing changes: worth trying.
            return true;
        };
        let has_disk = |id, incarnation| self.has_disk(id, incarnation);
        let joint = membership.towards(target.clone());
        has_quorum_of_disks(&joint, has_disk) && has_quorum_of_disks(&target, has_disk)
    }

    /// Whether the disk of a node may be lost for good: no change is under way anywhere, and a
    /// majority of the members' disks is left.
    pub(super) fn may_lose_disk(&self, id: NodeId) -> bool {
        let newest = self.nodes.iter().map(|node| node.state.membership_index);
        let newest = newest.max().unwrap_or_default();
        let Some(known) = self.nodes.iter().find(|node| {
            node.state.membership_index == newest && !node.state.membership.is_empty()
        }) else {
            return false;
        };
        let membership = &known.state.membership;
        let is_settled = newest == Index(0)
            || (newest <= self.checks.commits.last().index && !membership.is_joint());
        let changes = self.operator.is_waiting || self.any_change_is_open();
        let has_disk = |member, incarnation| member != id && self.has_disk(member, incarnation);
        is_settled && !changes && has_quorum_of_disks(membership, has_disk)
    }

    /// A request that its operator gave up may still be in an inbox, or an entry in some log.
    fn any_change_is_open(&self) -> bool {
        self.nodes.iter().any(|node| {
            let is_joint = node.is_up() && node.state.membership.is_joint();
            is_joint || !node.waiters.operations.is_empty()
        })
    }

    /// Counts what an election in the middle of a change is.
    pub(crate) fn cover_joint_leader(&mut self, position: usize) {
        let state = &self.nodes[position].state;
        let is_joint = state.role == Role::Leader && state.membership.is_joint();
        self.coverage.count_if(is_joint, Mark::LeaderChangedInJoint);
    }
}
