//! What nodes of a group say to each other: an envelope, and one kind of message per purpose, each
//! request with its reply beside it.

use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::snapshot::SnapshotDescriptor;
use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};

/// A message with all that is needed to decide whether it is for us at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The cluster that the sender belongs to.
    pub cluster: ClusterId,
    /// The group that the message is about.
    pub group: GroupId,
    /// The sender, and the incarnation it runs as.
    pub from: NodeId,
    /// See [`Envelope::from`].
    pub from_incarnation: Incarnation,
    /// The receiver, and the incarnation that the sender knows it as.
    pub to: NodeId,
    /// See [`Envelope::to`].
    pub to_incarnation: Incarnation,
    /// The sender's current term.
    pub term: Term,
    /// What it says.
    pub message: Message,
}

/// What a message says. A reply echoes what it answers, so that a late one is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Would you vote for me in `next_term`?" Changes nothing on either side (thesis 9.6).
    PreVote(PreVote),
    /// The answer to [`Message::PreVote`].
    PreVoteReply(PreVoteReply),
    /// "Vote for me in the envelope's term." A promise: it leaves after the candidate's own term
    /// and vote are durable.
    Vote(Vote),
    /// The answer to [`Message::Vote`]; a grant leaves after it is durable.
    VoteReply(VoteReply),
    /// Entries after `base`, or a probe that carries none.
    Append(Append),
    /// The answer to [`Message::Append`]; leaves after what it acknowledges is durable.
    AppendReply(AppendReply),
    /// An [`Message::AppendReply`] of a node that lost entries which it may have acknowledged, and
    /// has not got all of them again: it tells how far to send, and counts for nothing.
    RefillReply(AppendReply),
    /// "I lead, this much is committed." Carries no log, so it never waits for a disk.
    Heartbeat(Heartbeat),
    /// The answer to [`Message::Heartbeat`].
    HeartbeatReply(HeartbeatReply),
    /// A snapshot that reached the receiver's disk. It travels at the head of a stream of its own
    /// ([`crate::Transport::send_snapshot`]), never by itself, and reaches the protocol after all
    /// parts are durable. The answer is an [`AppendReply`].
    Snapshot(SnapshotDescriptor),
    /// "Campaign now, without asking first": leadership is handed over (thesis 3.10).
    TimeoutNow,
    /// A follower asks for an index that its reads have to wait for (thesis 6.4).
    ReadIndex(ReadIndex),
    /// The answer to [`Message::ReadIndex`].
    ReadIndexReply(ReadIndexReply),
}

/// See [`Message::ReadIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndex {
    /// Numbered by the follower, growing within a term; every read that the follower had when it
    /// sent this shares it.
    pub number: u64,
}

/// See [`Message::ReadIndexReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndexReply {
    /// The number of the question.
    pub number: u64,
    /// What the reads have to see; none where the receiver cannot say, because it does not lead or
    /// too many wait.
    pub index: Option<Index>,
}

/// See [`Message::PreVote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVote {
    /// The term that the sender would campaign in.
    pub next_term: Term,
    /// Its last log id (paper 5.4.1).
    pub last: LogId,
}

/// See [`Message::PreVoteReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVoteReply {
    /// The `next_term` of the question.
    pub next_term: Term,
    /// Whether a vote would be given.
    pub granted: bool,
}

/// See [`Message::Vote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The candidate's last log id, durable when this is sent.
    pub last: LogId,
    /// The leader itself asked the candidate to campaign, so that hearing a leader is no reason to
    /// refuse (thesis 3.10 and 4.2.3).
    pub is_transfer: bool,
}

/// See [`Message::VoteReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteReply {
    /// Whether the vote is given.
    pub granted: bool,
    /// The voter's last log id: a hint where to start replicating to it.
    pub last: LogId,
}

/// See [`Message::Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The id of the entry before the first of `entries` (prevLogIndex and prevLogTerm of the
    /// paper).
    pub base: LogId,
    /// The leader's commit index. The receiver commits no further than what this append verifies.
    pub commit: Index,
    /// Consecutive entries after `base`; none in a probe.
    pub entries: Vec<Entry>,
}

/// See [`Message::AppendReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendReply {
    /// The log is equal to the leader's up to here, on disk.
    Accepted {
        /// Base plus number of entries of the append that is answered (or the commit index, where
        /// that is higher); never derived from what else the log holds.
        matched: Index,
    },
    /// As `Accepted`; but the receiver's disk is short of room, and it takes no more commands for
    /// now, however often they are sent.
    NoRoom {
        /// As in `Accepted`.
        matched: Index,
    },
    /// The entry at `base` is missing or another one.
    Rejected {
        /// The base of the append that is answered.
        base: LogId,
        /// The newest run of the receiver's log that could still agree with the leader's.
        conflict: Conflict,
        /// The receiver's last log id.
        last: LogId,
    },
}

/// The receiver's half of a two-sided hint (paper 5.3, end): the newest run of entries of one term
/// that lies at or below the rejected base and whose term is not above the base's. Everything
/// behind it is known to differ. All zero when there is no such run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The term of the run.
    pub term: Term,
    /// Its first index that is retained.
    pub first: Index,
    /// Its last index, or the base's where that is lower.
    pub last: Index,
}

/// See [`Message::Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The leader's commit index, clamped to what it knows the receiver to hold.
    pub commit: Index,
    /// The read round that this heartbeat confirms (thesis 6.4); grows within a term.
    pub round: u64,
    /// All is committed everywhere and nobody wants anything: the receiver may sleep until it hears
    /// something else.
    pub is_last: bool,
}

/// See [`Message::HeartbeatReply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The round of the heartbeat that is answered.
    pub round: u64,
    /// The sender lost entries that it may have acknowledged, and has not got all of them again.
    /// The answer says that it lives, and confirms nothing.
    pub is_refilling: bool,
}

impl Message {
    /// A short name for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::PreVote(_) => "pre-vote",
            Self::PreVoteReply(_) => "pre-vote-reply",
            Self::Vote(_) => "vote",
            Self::VoteReply(_) => "vote-reply",
            Self::Append(_) => "append",
            Self::AppendReply(_) => "append-reply",
            Self::RefillReply(_) => "refill-reply",
            Self::Heartbeat(_) => "heartbeat",
            Self::HeartbeatReply(_) => "heartbeat-reply",
            Self::Snapshot(_) => "snapshot",
            Self::TimeoutNow => "timeout-now",
            Self::ReadIndex(_) => "read-index",
            Self::ReadIndexReply(_) => "read-index-reply",
        }
    }

    /// Whether the message carries entries, and so belongs on the stream for bulk: a heartbeat
    /// never waits behind it.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        matches!(self, Self::Append(_))
    }

    /// Bytes of entries that it carries.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.entries.iter().map(Entry::encoded_len).sum(),
            _ => 0,
        }
    }
}
