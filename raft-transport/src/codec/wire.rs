//! The metadata of an envelope as they are on the wire: plain fields, numbered variants, and the
//! way from and to the types of `raft-core`.

use bytes::Bytes;
use raft_core::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, ReadIndex,
    ReadIndexReply, Vote, VoteReply,
};
use raft_core::{
    ClusterId, Envelope, GroupId, Incarnation, Index, LogId, Message, NodeId, SnapshotDescriptor,
    SnapshotHash, SnapshotMeta, Term,
};
use serde::{Deserialize, Serialize};

use super::error::DecodeError;
use super::tail::{decode_entries, decode_membership};

/// What all envelopes have, and the message.
#[derive(Serialize, Deserialize)]
pub(super) struct WireEnvelope {
    cluster: [u8; 16],
    group: u64,
    from: u64,
    from_incarnation: u64,
    to: u64,
    to_incarnation: u64,
    term: u64,
    message: WireMessage,
}

#[derive(Serialize, Deserialize)]
struct WireLogId {
    term: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
struct WireRejection {
    base: WireLogId,
    conflict_term: u64,
    conflict_first: u64,
    conflict_last: u64,
    last: WireLogId,
}

/// The encoded membership follows the metadata.
#[derive(Serialize, Deserialize)]
struct WireSnapshot {
    last: WireLogId,
    parts: u64,
    bytes: u64,
    hash: u128,
    membership_bytes: u32,
}

/// Variants are numbered in this order. New ones go to the end; none is removed or changed.
#[derive(Serialize, Deserialize)]
enum WireMessage {
    PreVote {
        next_term: u64,
        last: WireLogId,
    },
    PreVoteReply {
        next_term: u64,
        granted: bool,
    },
    Vote {
        last: WireLogId,
    },
    VoteReply {
        granted: bool,
        last: WireLogId,
    },
    Append {
        base: WireLogId,
        commit: u64,
        entries: u32,
    },
    AppendAccepted {
        matched: u64,
    },
    AppendRejected(WireRejection),
    Heartbeat {
        commit: u64,
        round: u64,
    },
    HeartbeatReply {
        round: u64,
    },
    VoteByTransfer {
        last: WireLogId,
    },
    LastHeartbeat {
        commit: u64,
        round: u64,
    },
    Snapshot(WireSnapshot),
    TimeoutNow,
    ReadIndex {
        number: u64,
    },
    ReadIndexReply {
        number: u64,
        index: Option<u64>,
    },
    RefillAccepted {
        matched: u64,
    },
    RefillRejected(WireRejection),
    RefillHeartbeatReply {
        round: u64,
    },
    AppendNoRoom {
        matched: u64,
    },
    RefillNoRoom {
        matched: u64,
    },
}

impl From<LogId> for WireLogId {
    fn from(id: LogId) -> Self {
        Self {
            term: id.term.0,
            index: id.index.0,
        }
    }
}

impl From<WireLogId> for LogId {
    fn from(id: WireLogId) -> Self {
        Self::new(Term(id.term), Index(id.index))
    }
}

impl WireEnvelope {
    /// The metadata of an envelope. What follows them is not part of it, only how much that is:
    /// `membership_bytes` for a snapshot.
    pub(super) fn new(envelope: &Envelope, membership_bytes: usize) -> Self {
        Self {
            cluster: envelope.cluster.0,
            group: envelope.group.0,
            from: envelope.from.0,
            from_incarnation: envelope.from_incarnation.0,
            to: envelope.to.0,
            to_incarnation: envelope.to_incarnation.0,
            term: envelope.term.0,
            message: WireMessage::new(&envelope.message, membership_bytes),
        }
    }

    /// The envelope; takes what belongs to it from the front of `rest`.
    pub(super) fn into_envelope(self, rest: &mut Bytes) -> Result<Envelope, DecodeError> {
        Ok(Envelope {
            cluster: ClusterId(self.cluster),
            group: GroupId(self.group),
            from: NodeId(self.from),
            from_incarnation: Incarnation(self.from_incarnation),
            to: NodeId(self.to),
            to_incarnation: Incarnation(self.to_incarnation),
            term: Term(self.term),
            message: self.message.into_message(rest)?,
        })
    }
}

impl WireMessage {
    fn new(message: &Message, membership_bytes: usize) -> Self {
        match message {
            Message::PreVote(PreVote { next_term, last }) => Self::PreVote {
                next_term: next_term.0,
                last: (*last).into(),
            },
            Message::PreVoteReply(PreVoteReply { next_term, granted }) => Self::PreVoteReply {
                next_term: next_term.0,
                granted: *granted,
            },
            Message::Vote(vote) => vote.into(),
            Message::VoteReply(VoteReply { granted, last }) => Self::VoteReply {
                granted: *granted,
                last: (*last).into(),
            },
            Message::Append(append) => Self::Append {
                base: append.base.into(),
                commit: append.commit.0,
                entries: u32::try_from(append.entries.len())
                    .expect("more entries would not fit into memory"),
            },
            Message::AppendReply(reply) => Self::of_append_reply(*reply, false),
            Message::RefillReply(reply) => Self::of_append_reply(*reply, true),
            Message::Heartbeat(heartbeat) => heartbeat.into(),
            Message::HeartbeatReply(reply) => reply.into(),
            Message::Snapshot(descriptor) => {
                Self::Snapshot(WireSnapshot::new(descriptor, membership_bytes))
            }
            Message::TimeoutNow => Self::TimeoutNow,
            Message::ReadIndex(ReadIndex { number }) => Self::ReadIndex { number: *number },
            Message::ReadIndexReply(ReadIndexReply { number, index }) => Self::ReadIndexReply {
                number: *number,
                index: index.map(|index| index.0),
            },
        }
    }

    fn of_append_reply(reply: AppendReply, is_refilling: bool) -> Self {
        match (reply, is_refilling) {
            (AppendReply::Accepted { matched }, false) => {
                Self::AppendAccepted { matched: matched.0 }
            }
            (AppendReply::Accepted { matched }, true) => {
                Self::RefillAccepted { matched: matched.0 }
            }
            (AppendReply::NoRoom { matched }, false) => Self::AppendNoRoom { matched: matched.0 },
            (AppendReply::NoRoom { matched }, true) => Self::RefillNoRoom { matched: matched.0 },
            (
                AppendReply::Rejected {
                    base,
                    conflict,
                    last,
                },
                is_refilling,
            ) => {
                let rejection = WireRejection {
                    base: base.into(),
                    conflict_term: conflict.term.0,
                    conflict_first: conflict.first.0,
                    conflict_last: conflict.last.0,
                    last: last.into(),
                };
                if is_refilling {
                    Self::RefillRejected(rejection)
                } else {
                    Self::AppendRejected(rejection)
                }
            }
        }
    }

    fn into_message(self, rest: &mut Bytes) -> Result<Message, DecodeError> {
        Ok(match self {
            Self::PreVote { next_term, last } => Message::PreVote(PreVote {
                next_term: Term(next_term),
                last: last.into(),
            }),
            Self::PreVoteReply { next_term, granted } => Message::PreVoteReply(PreVoteReply {
                next_term: Term(next_term),
                granted,
            }),
            Self::Vote { last } => vote(last, false),
            Self::VoteByTransfer { last } => vote(last, true),
            Self::VoteReply { granted, last } => Message::VoteReply(VoteReply {
                granted,
                last: last.into(),
            }),
            Self::Append {
                base,
                commit,
                entries,
            } => {
                let base = LogId::from(base);
                Message::Append(Append {
                    base,
                    commit: Index(commit),
                    entries: decode_entries(rest, base, entries)?,
                })
            }
            Self::AppendAccepted { matched } => Message::AppendReply(AppendReply::Accepted {
                matched: Index(matched),
            }),
            Self::AppendRejected(rejection) => Message::AppendReply(rejection.into()),
            Self::RefillAccepted { matched } => Message::RefillReply(AppendReply::Accepted {
                matched: Index(matched),
            }),
            Self::RefillRejected(rejection) => Message::RefillReply(rejection.into()),
            Self::AppendNoRoom { matched } => Message::AppendReply(AppendReply::NoRoom {
                matched: Index(matched),
            }),
            Self::RefillNoRoom { matched } => Message::RefillReply(AppendReply::NoRoom {
                matched: Index(matched),
            }),
            Self::Heartbeat { commit, round } => heartbeat(commit, round, false),
            Self::LastHeartbeat { commit, round } => heartbeat(commit, round, true),
            Self::HeartbeatReply { round } => heartbeat_reply(round, false),
            Self::RefillHeartbeatReply { round } => heartbeat_reply(round, true),
            Self::Snapshot(snapshot) => Message::Snapshot(snapshot.into_descriptor(rest)?),
            Self::TimeoutNow => Message::TimeoutNow,
            Self::ReadIndex { number } => Message::ReadIndex(ReadIndex { number }),
            Self::ReadIndexReply { number, index } => Message::ReadIndexReply(ReadIndexReply {
                number,
                index: index.map(Index),
            }),
        })
    }
}

impl From<&Vote> for WireMessage {
    fn from(vote: &Vote) -> Self {
        let last = vote.last.into();
        if vote.is_transfer {
            Self::VoteByTransfer { last }
        } else {
            Self::Vote { last }
        }
    }
}

fn vote(last: WireLogId, is_transfer: bool) -> Message {
    let last = last.into();
    Message::Vote(Vote { last, is_transfer })
}

impl From<&Heartbeat> for WireMessage {
    fn from(heartbeat: &Heartbeat) -> Self {
        let (commit, round) = (heartbeat.commit.0, heartbeat.round);
        if heartbeat.is_last {
            Self::LastHeartbeat { commit, round }
        } else {
            Self::Heartbeat { commit, round }
        }
    }
}

impl From<&HeartbeatReply> for WireMessage {
    fn from(reply: &HeartbeatReply) -> Self {
        let round = reply.round;
        if reply.is_refilling {
            Self::RefillHeartbeatReply { round }
        } else {
            Self::HeartbeatReply { round }
        }
    }
}

fn heartbeat_reply(round: u64, is_refilling: bool) -> Message {
    Message::HeartbeatReply(HeartbeatReply {
        round,
        is_refilling,
    })
}

fn heartbeat(commit: u64, round: u64, is_last: bool) -> Message {
    Message::Heartbeat(Heartbeat {
        commit: Index(commit),
        round,
        is_last,
    })
}

impl From<WireRejection> for AppendReply {
    fn from(wire: WireRejection) -> Self {
        Self::Rejected {
            base: wire.base.into(),
            conflict: Conflict {
                term: Term(wire.conflict_term),
                first: Index(wire.conflict_first),
                last: Index(wire.conflict_last),
            },
            last: wire.last.into(),
        }
    }
}

impl WireSnapshot {
    fn new(descriptor: &SnapshotDescriptor, membership_bytes: usize) -> Self {
        Self {
            last: descriptor.meta.last.into(),
            parts: descriptor.parts,
            bytes: descriptor.bytes,
            hash: descriptor.hash.0,
            membership_bytes: u32::try_from(membership_bytes)
                .expect("a membership has at most MEMBERS_MAX members"),
        }
    }

    fn into_descriptor(self, rest: &mut Bytes) -> Result<SnapshotDescriptor, DecodeError> {
        Ok(SnapshotDescriptor {
            meta: SnapshotMeta {
                last: self.last.into(),
                membership: decode_membership(rest, self.membership_bytes)?,
            },
            parts: self.parts,
            bytes: self.bytes,
            hash: SnapshotHash(self.hash),
        })
    }
}
