//! The plain identifiers of the protocol: newtypes, so that a term is never taken for an index.
//!
//! No behaviour lives here beyond ordering, display and checked arithmetic.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }
    };
}

id_type!(
    /// A member of a group. Never re-used for another machine; 0 is not a valid id.
    NodeId
);
id_type!(
    /// A Raft term (paper section 5.1). 0 is before the first election.
    Term
);
id_type!(
    /// A position in the log. The first entry has index 1; 0 is the position before it.
    Index
);
id_type!(
    /// One of the Raft groups that a process serves.
    GroupId
);
id_type!(
    /// The random number that a member's directory was formatted with. A member whose disk was lost
    /// comes back with another incarnation, so it cannot be taken for the one that made promises.
    Incarnation
);

impl Term {
    /// The term that the next election runs in.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("terms do not run out of 64 bits"),
        )
    }
}

impl Index {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("indexes do not run out of 64 bits"),
        )
    }

    /// The position before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The position `count` after this one.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(
            self.0
                .checked_add(count)
                .expect("indexes do not run out of 64 bits"),
        )
    }
}

/// The name of a cluster: random bytes that its first node was formatted with.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// Text that is not 32 hexadecimal digits was given as a cluster id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster id {0:?} is not 32 hexadecimal digits")]
pub struct InvalidClusterId(pub String);

impl std::str::FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, InvalidClusterId> {
        let invalid = || InvalidClusterId(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| invalid())?;
        Ok(Self(value.to_be_bytes()))
    }
}

/// The identity of a log entry. Two entries with the same id are the same entry (Log Matching,
/// paper section 5.3). Ordered by term, then index: the *up-to-date* rule of section 5.4.1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Its position.
    pub index: Index,
}

impl LogId {
    /// The position before the first entry.
    pub const ZERO: Self = Self {
        term: Term(0),
        index: Index(0),
    };

    /// A log id from its two parts.
    #[must_use]
    pub fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What a node must never forget (paper figure 2, *persistent state*), besides its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The newest term that the node has seen.
    pub term: Term,
    /// The candidate that it voted for in `term`.
    pub vote: Option<NodeId>,
}
