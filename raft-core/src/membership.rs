//! Who belongs to a group, and how that changes: by joint consensus (paper section 6, thesis 4.3),
//! so any set of voters can follow any other. Plain data and arithmetic; when a change takes effect
//! is the protocol's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Incarnation, NodeId};

/// The most members that a group may have; quorum arithmetic and hellos are tested up to it.
pub const MEMBERS_MAX: usize = 9;

/// Bytes of a member's address.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Votes, counts towards quorums, may lead.
    Voter,
    /// Receives the log, and answers when it is asked for a vote, but never counts and never
    /// campaigns: what a new member is until it has caught up (thesis 4.2.1).
    Learner,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The incarnation that its directory was formatted with.
    pub incarnation: Incarnation,
    /// `host:port` where its peers and clients reach it. Opaque to the protocol.
    pub address: String,
    /// What it may do.
    pub role: MemberRole,
}

/// The members of a group, ordered by id. While a change is under way it is *joint*: it has the new
/// members and, beside them, the voters that are being left, and every decision needs a majority of
/// both.
///
/// The empty membership is that of a node that has not heard of its group yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    members: BTreeMap<NodeId, Member>,
    /// The voters that are being left; empty when the membership is not joint.
    #[serde(default)]
    outgoing: BTreeMap<NodeId, Member>,
}

/// A list of members that no group can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// Nobody could ever commit.
    #[error("a group needs at least one voter")]
    NoVoter,
    /// More than [`MEMBERS_MAX`].
    #[error("{0} members are above the limit of {MEMBERS_MAX}")]
    TooMany(usize),
    /// 0 means "nobody" on the wire.
    #[error("member id 0 is not allowed; ids start at 1")]
    ZeroId,
    /// An address above [`ADDRESS_BYTES_MAX`].
    #[error("the address of member {id} has {bytes} bytes, above the limit of {ADDRESS_BYTES_MAX}")]
    AddressTooLong {
        /// The member.
        id: NodeId,
        /// Bytes of its address.
        bytes: usize,
    },
    /// Asked to change somebody who is not there.
    #[error("node {0} is not a member")]
    NotAMember(NodeId),
    /// Asked to add somebody who is there already.
    #[error("node {0} is already a member; `replace` swaps a member that lost its disk")]
    AlreadyAMember(NodeId),
    /// Asked to promote a voter.
    #[error("node {0} is a voter already")]
    AlreadyAVoter(NodeId),
    /// Asked to replace a member by itself.
    #[error("node {id} is known as incarnation {incarnation} already")]
    SameIncarnation {
        /// The member.
        id: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
}

/// What can be asked for. A change of voters goes through a joint membership by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// A new member, as a learner.
    AddLearner {
        /// Its id, which nobody has.
        id: NodeId,
        /// What its directory was formatted with.
        incarnation: Incarnation,
        /// Where it is reached.
        address: String,
    },
    /// A learner that has caught up becomes a voter.
    Promote {
        /// The learner.
        id: NodeId,
    },
    /// A member goes, voter or learner.
    Remove {
        /// The member.
        id: NodeId,
    },
    /// A member that lost its disk: out with the old incarnation, in with the new one as a learner.
    Replace {
        /// The member.
        id: NodeId,
        /// What its new directory was formatted with.
        incarnation: Incarnation,
        /// Where it is reached now.
        address: String,
    },
    /// Any other set of members at once. New voters that are not caught up are refused.
    Set(BTreeMap<NodeId, Member>),
}

impl Membership {
    /// A list of members, not joint.
    ///
    /// # Errors
    /// When it has no voter, more than [`MEMBERS_MAX`] members, the id 0 or a long address.
    pub fn new(members: BTreeMap<NodeId, Member>) -> Result<Self, MembershipError> {
        Self::joint(members, BTreeMap::new())
    }

    /// A list of members beside the voters that are being left.
    ///
    /// # Errors
    /// As [`Membership::new`], for both.
    pub fn joint(
        members: BTreeMap<NodeId, Member>,
        outgoing: BTreeMap<NodeId, Member>,
    ) -> Result<Self, MembershipError> {
        for list in [&members, &outgoing] {
            if list.len() > MEMBERS_MAX {
                return Err(MembershipError::TooMany(list.len()));
            }
            if list.contains_key(&NodeId(0)) {
                return Err(MembershipError::ZeroId);
            }
            for (id, member) in list {
                let (id, bytes) = (*id, member.address.len());
                if bytes > ADDRESS_BYTES_MAX {
                    return Err(MembershipError::AddressTooLong { id, bytes });
                }
            }
        }
        let membership = Self { members, outgoing };
        if membership.voters().next().is_none() {
            return Err(MembershipError::NoVoter);
        }
        Ok(membership)
    }

    /// Whether nobody belongs to it: a node that waits to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a change of voters is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The member with this id: as it will be, or, where it is only being left, as it was.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id).or_else(|| self.outgoing.get(&id))
    }

    /// All that have to be talked to, in order of their ids: the members, and those being left.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let mut all: BTreeMap<_, _> = self.outgoing.iter().collect();
        all.extend(&self.members);
        all.into_iter().map(|(id, member)| (*id, member))
    }

    /// The members as they will be once no change is under way.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The voters that are being left, with the incarnations that they had.
    #[must_use]
    pub fn outgoing(&self) -> &BTreeMap<NodeId, Member> {
        &self.outgoing
    }

    /// The ids of those that vote once no change is under way, in order.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        voters_of(&self.members)
    }

    /// Whether this id votes, in the new or in the old half.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters().any(|voter| voter == id) || self.leaving(id)
    }

    /// Whether this id votes in the half that is being left, as the incarnation that is known now.
    fn leaving(&self, id: NodeId) -> bool {
        self.outgoing_voters().any(|voter| voter == Some(id))
    }

    /// The voters that are being left. None stands for one whose disk is lost: it has come back as
    /// another incarnation, which made none of the promises and so answers for none of them.
    pub fn outgoing_voters(&self) -> impl Iterator<Item = Option<NodeId>> {
        self.outgoing.iter().map(|(id, old)| {
            let current = self.members.get(id).unwrap_or(old);
            (current.incarnation == old.incarnation).then_some(*id)
        })
    }

    /// The membership that a change leads to, not joint.
    ///
    /// # Errors
    /// When the change makes no sense here, or no group could be left over.
    pub fn after(&self, change: &MembershipChange) -> Result<Self, MembershipError> {
        let mut members = self.members.clone();
        match change {
            MembershipChange::AddLearner {
                id,
                incarnation,
                address,
            } => {
                let learner = learner(*incarnation, address);
                if members.insert(*id, learner).is_some() {
                    return Err(MembershipError::AlreadyAMember(*id));
                }
            }
            MembershipChange::Promote { id } => match members.get_mut(id) {
                None => return Err(MembershipError::NotAMember(*id)),
                Some(member) if member.role == MemberRole::Voter => {
                    return Err(MembershipError::AlreadyAVoter(*id));
                }
                Some(member) => member.role = MemberRole::Voter,
            },
            MembershipChange::Remove { id } => {
                if members.remove(id).is_none() {
                    return Err(MembershipError::NotAMember(*id));
                }
            }
            MembershipChange::Replace {
                id,
                incarnation,
                address,
            } => match members.insert(*id, learner(*incarnation, address)) {
                None => return Err(MembershipError::NotAMember(*id)),
                Some(old) if old.incarnation == *incarnation => {
                    let (id, incarnation) = (*id, *incarnation);
                    return Err(MembershipError::SameIncarnation { id, incarnation });
                }
                Some(_) => {}
            },
            MembershipChange::Set(target) => members.clone_from(target),
        }
        Self::new(members)
    }

    /// The first step towards `target`: joint where the voters differ, else `target` itself.
    #[must_use]
    pub fn towards(&self, target: Self) -> Self {
        let voters = |members: &BTreeMap<NodeId, Member>| -> BTreeMap<NodeId, Incarnation> {
            let ids = voters_of(members);
            ids.map(|id| (id, members[&id].incarnation)).collect()
        };
        if voters(&self.members) == voters(&target.members) {
            return target;
        }
        let leaving = self.members.iter();
        let leaving = leaving.filter(|(_, member)| member.role == MemberRole::Voter);
        Self {
            outgoing: leaving.map(|(id, m)| (*id, m.clone())).collect(),
            members: target.members,
        }
    }

    /// The second step: the old voters are left.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self {
            members: self.members.clone(),
            outgoing: BTreeMap::new(),
        }
    }
}

fn learner(incarnation: Incarnation, address: &str) -> Member {
    Member {
        incarnation,
        address: address.to_owned(),
        role: MemberRole::Learner,
    }
}

fn voters_of(members: &BTreeMap<NodeId, Member>) -> impl Iterator<Item = NodeId> {
    let voters = members.iter().filter(|(_, m)| m.role == MemberRole::Voter);
    voters.map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(incarnation: u64, role: MemberRole) -> Member {
        Member {
            incarnation: Incarnation(incarnation),
            address: format!("host{incarnation}:1"),
            role,
        }
    }

    fn voters(ids: &[u64]) -> Membership {
        let members = ids
            .iter()
            .map(|id| (NodeId(*id), member(*id, MemberRole::Voter)));
        Membership::new(members.collect()).unwrap()
    }

    fn step(from: &Membership, change: &MembershipChange) -> Membership {
        from.towards(from.after(change).unwrap())
    }

    #[test]
    fn learners_come_and_go_without_a_joint_membership() {
        let add = MembershipChange::AddLearner {
            id: NodeId(4),
            incarnation: Incarnation(4),
            address: "d:1".to_owned(),
        };
        let with_learner = step(&voters(&[1, 2, 3]), &add);
        assert!(!with_learner.is_joint() && !with_learner.is_voter(NodeId(4)));
        assert_eq!(
            with_learner.after(&add),
            Err(MembershipError::AlreadyAMember(NodeId(4)))
        );
        let without = step(&with_learner, &MembershipChange::Remove { id: NodeId(4) });
        assert_eq!(without, voters(&[1, 2, 3]));
    }

    #[test]
    fn a_change_of_voters_keeps_the_old_ones_beside_the_new_until_it_settles() {
        let before = voters(&[1, 2, 3]);
        let joint = step(&before, &MembershipChange::Remove { id: NodeId(1) });
        assert!(joint.is_joint() && joint.is_voter(NodeId(1)));
        let all: Vec<_> = joint.iter().map(|(id, _)| id.0).collect();
        assert_eq!(all, [1, 2, 3], "the one that goes is still talked to");
        assert_eq!(joint.settled(), voters(&[2, 3]));
    }

    #[test]
    fn a_replaced_voter_answers_for_nothing_that_its_former_self_promised() {
        let replace = MembershipChange::Replace {
            id: NodeId(2),
            incarnation: Incarnation(22),
            address: "b:2".to_owned(),
        };
        let joint = step(&voters(&[1, 2, 3]), &replace);
        let outgoing: Vec<_> = joint.outgoing_voters().collect();
        assert_eq!(outgoing, [Some(NodeId(1)), None, Some(NodeId(3))]);
        assert!(!joint.is_voter(NodeId(2)));
        assert_eq!(
            joint.get(NodeId(2)).unwrap().incarnation,
            Incarnation(22),
            "and it is the new one that is talked to"
        );
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let one = voters(&[1]);
        let refused = |change: MembershipChange| one.after(&change).unwrap_err();
        let id = NodeId(1);
        assert_eq!(
            refused(MembershipChange::Remove { id }),
            MembershipError::NoVoter
        );
        assert_eq!(
            refused(MembershipChange::Promote { id }),
            MembershipError::AlreadyAVoter(id)
        );
        let id = NodeId(9);
        assert_eq!(
            refused(MembershipChange::Promote { id }),
            MembershipError::NotAMember(id)
        );
        assert_eq!(
            refused(MembershipChange::Remove { id }),
            MembershipError::NotAMember(id)
        );
        let members = (1..=10).map(|id| (NodeId(id), member(id, MemberRole::Voter)));
        assert_eq!(
            refused(MembershipChange::Set(members.collect())),
            MembershipError::TooMany(10)
        );
        let id = NodeId(2);
        let address = "x".repeat(256);
        let long = MembershipChange::AddLearner {
            id,
            incarnation: Incarnation(2),
            address,
        };
        assert_eq!(
            refused(long),
            MembershipError::AddressTooLong { id, bytes: 256 }
        );
    }
}
