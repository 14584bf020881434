//! What bytes can be instead of an envelope, and the numbers that tell.

use raft_core::membership::{ADDRESS_BYTES_MAX, MEMBERS_MAX};
use raft_core::membership_codec::MembershipDecodeError;
use raft_core::{EntryDecodeError, LogId};

/// The version of the encoding; its first byte.
pub const VERSION: u8 = 1;

/// The most bytes that a membership has: two full lists of members, each with the longest address.
pub const MEMBERSHIP_BYTES_MAX: usize = 3 + 2 * MEMBERS_MAX * (18 + ADDRESS_BYTES_MAX);

/// Bytes that are not an envelope of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing there.
    #[error("empty message")]
    Empty,
    /// Made by another version.
    #[error("message has version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// The metadata are not a valid encoding.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// One of the entries is not one.
    #[error("entry {position} of {count}: {source}")]
    Entry {
        /// Its place, from 0.
        position: u32,
        /// How many were announced.
        count: u32,
        /// What is wrong with it.
        source: EntryDecodeError,
    },
    /// The entries do not continue each other.
    #[error("entry {found} follows {previous}")]
    Order {
        /// The id before it, which may be the base.
        previous: LogId,
        /// Its id.
        found: LogId,
    },
    /// A membership that is longer than any, or than the bytes that are there.
    #[error(
        "membership of {bytes} bytes, {there} are there and {MEMBERSHIP_BYTES_MAX} is the limit"
    )]
    MembershipLength {
        /// Its length, as announced.
        bytes: usize,
        /// Bytes that are there.
        there: usize,
    },
    /// The membership is not one.
    #[error(transparent)]
    Membership(#[from] MembershipDecodeError),
    /// Bytes behind the end.
    #[error("{0} bytes behind the end of the message")]
    Trailing(usize),
}
