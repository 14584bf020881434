//! Who belongs to a group, in the words of its administrators. What a change means and when it
//! takes effect is the business of the replication.

use serde::{Deserialize, Serialize};

use crate::limits::{self, LimitExceeded};

/// A change of who belongs to the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// A new member, as a learner: it receives the log and never votes.
    Add {
        /// Its id, which nobody has.
        id: u64,
        /// What its data directory was formatted with.
        incarnation: u64,
        /// `host:port` where it is reached.
        address: String,
    },
    /// A learner that has caught up becomes a voter.
    Promote {
        /// The learner.
        id: u64,
    },
    /// A member goes, voter or learner.
    Remove {
        /// The member.
        id: u64,
    },
    /// A member that lost its disk comes back as a learner with a new incarnation.
    Replace {
        /// The member.
        id: u64,
        /// What its new data directory was formatted with.
        incarnation: u64,
        /// `host:port` where it is reached now.
        address: String,
    },
}

impl MemberChange {
    /// The member that is changed.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            Self::Add { id, .. }
            | Self::Promote { id }
            | Self::Remove { id }
            | Self::Replace { id, .. } => *id,
        }
    }

    /// Checks the sizes of everything in it.
    ///
    /// # Errors
    /// When an address is outside its limit.
    pub fn check_limits(&self) -> Result<(), LimitExceeded> {
        match self {
            Self::Add { address, .. } | Self::Replace { address, .. } => {
                limits::check_address(address)
            }
            Self::Promote { .. } | Self::Remove { .. } => Ok(()),
        }
    }

    /// Whether a group with these members is as the change wants it: it was carried out, or there
    /// was nothing to do.
    #[must_use]
    pub fn holds_in(&self, report: &MembersReport) -> bool {
        let member = report.member(self.id()).filter(|it| !it.is_leaving);
        match self {
            Self::Add { incarnation, .. } | Self::Replace { incarnation, .. } => {
                member.is_some_and(|it| it.incarnation == *incarnation)
            }
            Self::Promote { .. } => member.is_some_and(|it| it.role == MemberKind::Voter),
            Self::Remove { .. } => member.is_none(),
        }
    }
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberKind {
    /// Votes and may lead.
    Voter,
    /// Receives the log only.
    Learner,
}

impl MemberKind {
    /// The word for it on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its id.
    pub id: u64,
    /// What its data directory was formatted with.
    pub incarnation: u64,
    /// Where it is reached.
    pub address: String,
    /// What it may do: as it will be, once no change is under way.
    pub role: MemberKind,
    /// It is a member only until the change that is under way is done.
    pub is_leaving: bool,
}

/// The members of a group, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReport {
    /// All that have to be talked to.
    pub members: Vec<MemberReport>,
    /// A change is under way. Until it is done, none of it is certain.
    pub is_changing: bool,
}

impl MembersReport {
    /// The member with this id.
    #[must_use]
    pub fn member(&self, id: u64) -> Option<&MemberReport> {
        self.members.iter().find(|member| member.id == id)
    }
}
