//! Commands: what is replicated and changes the store. Variants are only ever appended, so that an
//! old log can be read by a new program.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{self, LimitExceeded};

/// Names a client session; given by the log when the session is opened, never re-used.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionId(pub u64);

/// Something that changes the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Registers a session (thesis 6.3). Repeating it opens another one, which is harmless: unused
    /// sessions are evicted.
    OpenSession,
    /// Changes one key. With a stamp it takes effect exactly once, however often it is repeated.
    Write {
        /// Which call of which session this is; none outside a session.
        stamp: Option<SessionStamp>,
        /// What to do.
        op: WriteOp,
    },
    /// Drops all revisions that were superseded at or before this one.
    Compact {
        /// The newest revision that can no longer be read at afterwards is the one before it.
        revision: u64,
    },
}

/// Identifies one call of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStamp {
    /// The session.
    pub session: SessionId,
    /// The number of the call, from 1.
    pub sequence: u64,
    /// Every call below this number has been answered: its reply need not be kept.
    pub unanswered_from: u64,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOp {
    /// Sets a value.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Puts bytes behind a value; an absent key counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// What to append.
        value: Bytes,
    },
    /// Removes a key. Removing an absent one changes nothing and takes no revision.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets a value where the current one is as expected.
    Cas {
        /// The key.
        key: Bytes,
        /// What must be there.
        expect: Expect,
        /// Its new value.
        value: Bytes,
    },
}

/// What a compare-and-set expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// The key is absent.
    Absent,
    /// The key has this value.
    Value(Bytes),
    /// The key has this version. A present key's version is at least 1; 0 expects it to be absent.
    Version(u64),
}

impl WriteOp {
    /// The key that is changed.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. }
            | Self::Append { key, .. }
            | Self::Delete { key }
            | Self::Cas { key, .. } => key,
        }
    }

    /// Checks the sizes of everything in it.
    ///
    /// # Errors
    /// The first part that is outside its limit.
    pub fn check_limits(&self) -> Result<(), LimitExceeded> {
        limits::check_key(self.key())?;
        match self {
            Self::Put { value, .. } | Self::Append { value, .. } => limits::check_value(value),
            Self::Delete { .. } => Ok(()),
            Self::Cas { expect, value, .. } => {
                if let Expect::Value(expected) = expect {
                    limits::check_value(expected)?;
                }
                limits::check_value(value)
            }
        }
    }
}

impl Command {
    /// Checks the sizes of everything in it.
    ///
    /// # Errors
    /// The first part that is outside its limit.
    pub fn check_limits(&self) -> Result<(), LimitExceeded> {
        match self {
            Self::Write { op, .. } => op.check_limits(),
            Self::OpenSession | Self::Compact { .. } => Ok(()),
        }
    }
}

/// What a command came to. The same on every replica, and for every repetition of a stamped write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandReply {
    /// The new session.
    SessionOpened(SessionId),
    /// The key was set.
    Written(Written),
    /// The answer to a delete.
    Deleted {
        /// Whether the key had been there.
        existed: bool,
        /// The store's revision afterwards.
        revision: u64,
    },
    /// A compare-and-set found something else; nothing was changed.
    Mismatch {
        /// The key's version, 0 where it is absent.
        version: u64,
        /// The store's revision.
        revision: u64,
    },
    /// History was dropped.
    Compacted {
        /// The oldest revision that can still be read at.
        oldest: u64,
    },
    /// Nothing was changed.
    Refused(CommandError),
}

/// Where a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The store's revision that the write made.
    pub revision: u64,
    /// The key's version: writes since it was created, 1 for the first.
    pub version: u64,
    /// Bytes of the value afterwards.
    pub value_bytes: u64,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CommandError {
    /// The session was evicted, or never was. Whether an earlier attempt of the call was applied is
    /// not known any more.
    #[error("session {} has expired", .0.0)]
    SessionExpired(SessionId),
    /// The call was answered before, and the client had said so; its reply is gone.
    #[error("call {sequence} of the session was acknowledged before")]
    AlreadyAcknowledged {
        /// The number of the call.
        sequence: u64,
    },
    /// The session has too many calls outstanding.
    #[error("call {sequence} is more than {limit} ahead of the oldest unanswered one, {from}")]
    WindowExceeded {
        /// The number of the call.
        sequence: u64,
        /// The oldest unanswered call.
        from: u64,
        /// The limit.
        limit: u64,
    },
    /// A key or value is outside its limit, or an append would make it so.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// A compaction to a revision that does not exist yet.
    #[error("revision {revision} is above the newest, {newest}")]
    FutureRevision {
        /// What was asked for.
        revision: u64,
        /// The newest.
        newest: u64,
    },
    /// The bytes are not a command that this version knows.
    #[error("not a command: {0}")]
    Malformed(String),
}
