//! Who belongs to a group. Changes of membership are entries of the log; what is here is the plain
//! list, and the one that a group is bootstrapped with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Incarnation, NodeId};

/// The most members that a group may have; quorum arithmetic and hellos are tested up to it.
pub const MEMBERS_MAX: usize = 9;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Votes, counts towards quorums, may lead.
    Voter,
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

/// The members of a group, ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    members: BTreeMap<NodeId, Member>,
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
}

impl Membership {
    /// A list of members.
    ///
    /// # Errors
    /// When it has no voter, more than [`MEMBERS_MAX`] members, or the id 0.
    pub fn new(members: BTreeMap<NodeId, Member>) -> Result<Self, MembershipError> {
        if members.contains_key(&NodeId(0)) {
            return Err(MembershipError::ZeroId);
        }
        if members.len() > MEMBERS_MAX {
            return Err(MembershipError::TooMany(members.len()));
        }
        let membership = Self { members };
        if membership.voters().next().is_none() {
            return Err(MembershipError::NoVoter);
        }
        Ok(membership)
    }

    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// All members, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// The ids of those that vote, in order.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.iter()
            .filter(|(_, m)| m.role == MemberRole::Voter)
            .map(|(id, _)| id)
    }

    /// Whether this id votes.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.get(id)
            .is_some_and(|member| member.role == MemberRole::Voter)
    }
}
