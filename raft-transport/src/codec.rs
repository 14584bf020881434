//! The bytes of an envelope, version 1. The table is in `docs/wire-format.md`.
//!
//! ```text
//! version (1 byte) | metadata (bincode 2, fixed-size integers, little endian) | entries
//! ```
//!
//! The metadata are a wire format of their own, not the types of `raft-core`: those may change,
//! these bytes may not. The entries are in their one encoding, header and payload, and are never
//! copied: encoding shares the payloads with the log, decoding shares them with the frame.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bytes::{Bytes, BytesMut};
use raft_core::entry::ENTRY_HEADER_BYTES;
use raft_core::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, ReadIndex,
    ReadIndexReply, Vote, VoteReply,
};
use raft_core::{
    ClusterId, Entry, EntryDecodeError, Envelope, GroupId, Incarnation, Index, LogId, Membership,
    Message, NodeId, SnapshotDescriptor, SnapshotHash, SnapshotMeta, Term,
};
use serde::{Deserialize, Serialize};

/// The version of the encoding; its first byte.
pub const VERSION: u8 = 1;

/// The most bytes that the encoding of an envelope has besides its entries.
pub const METADATA_BYTES_MAX: usize = 256;

type Settings = Configuration<LittleEndian, Fixint, Limit<METADATA_BYTES_MAX>>;

fn settings() -> Settings {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<METADATA_BYTES_MAX>()
}

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
    /// Bytes behind the end.
    #[error("{0} bytes behind the end of the message")]
    Trailing(usize),
}

/// Encodes an envelope in parts, to be written one after the other. All small parts are slices of
/// one allocation; the payloads of entries are the entries' own.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<Bytes> {
    let entries = match &envelope.message {
        Message::Append(append) => &append.entries[..],
        _ => &[],
    };
    let membership = match &envelope.message {
        Message::Snapshot(descriptor) => descriptor.meta.membership.encode(),
        _ => Bytes::new(),
    };
    let mut metadata = [0; METADATA_BYTES_MAX];
    let length =
        bincode::serde::encode_into_slice(WireEnvelope::from(envelope), &mut metadata, settings())
            .expect("every kind of message fits, which a test shows");
    let mut fixed = BytesMut::with_capacity(1 + length + entries.len() * ENTRY_HEADER_BYTES);
    fixed.extend_from_slice(&[VERSION]);
    fixed.extend_from_slice(&metadata[..length]);
    let mut start_of_headers = fixed.len();
    for entry in entries {
        fixed.extend_from_slice(&entry.header());
    }
    let mut fixed = fixed.freeze();
    let mut parts = Vec::with_capacity(1 + 2 * entries.len());
    for entry in entries {
        parts.push(fixed.split_to(start_of_headers + ENTRY_HEADER_BYTES));
        parts.push(entry.payload().clone());
        start_of_headers = 0;
    }
    if !fixed.is_empty() {
        parts.push(fixed);
    }
    if !membership.is_empty() {
        parts.push(membership);
    }
    parts
}

/// Decodes an envelope. The entries' payloads share the allocation of `bytes`.
///
/// # Errors
/// When the bytes are not exactly one envelope, or its entries do not follow its base
/// without a gap.
pub fn decode(bytes: Bytes) -> Result<Envelope, DecodeError> {
    let (&version, metadata) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (wire, used) = bincode::serde::decode_from_slice::<WireEnvelope, _>(metadata, settings())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    let mut rest = bytes.slice(1 + used..);
    let envelope = wire.into_envelope(&mut rest)?;
    if rest.is_empty() {
        Ok(envelope)
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}

fn decode_entries(rest: &mut Bytes, base: LogId, count: u32) -> Result<Vec<Entry>, DecodeError> {
    // What is announced takes no memory before it is there.
    let capacity = (count as usize).min(rest.len() / ENTRY_HEADER_BYTES);
    let mut entries = Vec::with_capacity(capacity);
    let mut previous = base;
    for position in 0..count {
        let entry = Entry::decode(rest).map_err(|source| DecodeError::Entry {
            position,
            count,
            source,
        })?;
        let found = entry.id();
        if previous.index.0.checked_add(1) != Some(found.index.0) || found.term < previous.term {
            return Err(DecodeError::Order { previous, found });
        }
        previous = found;
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_membership(rest: &mut Bytes, length: u32) -> Result<Membership, DecodeError> {
    let length = length as usize;
    if rest.len() < length {
        let what = format!("membership of {length} bytes is cut short");
        return Err(DecodeError::Malformed(what));
    }
    let bytes = rest.split_to(length);
    Membership::decode(&bytes).map_err(|error| DecodeError::Malformed(error.to_string()))
}

fn heartbeat(commit: u64, round: u64, is_last: bool) -> Message {
    Message::Heartbeat(Heartbeat {
        commit: Index(commit),
        round,
        is_last,
    })
}

impl WireMessage {
    fn snapshot(descriptor: &SnapshotDescriptor, membership_bytes: usize) -> Self {
        let membership_bytes =
            u32::try_from(membership_bytes).expect("a membership has at most MEMBERS_MAX members");
        Self::Snapshot {
            last: descriptor.meta.last.into(),
            parts: descriptor.parts,
            bytes: descriptor.bytes,
            hash: descriptor.hash.0,
            membership_bytes,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WireEnvelope {
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
    AppendRejected {
        base: WireLogId,
        conflict_term: u64,
        conflict_first: u64,
        conflict_last: u64,
        last: WireLogId,
    },
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
    /// The encoded membership follows the metadata.
    Snapshot {
        last: WireLogId,
        parts: u64,
        bytes: u64,
        hash: u128,
        membership_bytes: u32,
    },
    TimeoutNow,
    ReadIndex {
        number: u64,
    },
    ReadIndexReply {
        number: u64,
        index: Option<u64>,
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

impl From<&Envelope> for WireEnvelope {
    fn from(envelope: &Envelope) -> Self {
        Self {
            cluster: envelope.cluster.0,
            group: envelope.group.0,
            from: envelope.from.0,
            from_incarnation: envelope.from_incarnation.0,
            to: envelope.to.0,
            to_incarnation: envelope.to_incarnation.0,
            term: envelope.term.0,
            message: WireMessage::from(&envelope.message),
        }
    }
}

impl WireEnvelope {
    fn into_envelope(self, rest: &mut Bytes) -> Result<Envelope, DecodeError> {
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

impl From<&Message> for WireMessage {
    fn from(message: &Message) -> Self {
        match message {
            Message::PreVote(PreVote { next_term, last }) => Self::PreVote {
                next_term: next_term.0,
                last: (*last).into(),
            },
            Message::PreVoteReply(PreVoteReply { next_term, granted }) => Self::PreVoteReply {
                next_term: next_term.0,
                granted: *granted,
            },
            Message::Vote(Vote { last, is_transfer }) => {
                let last = (*last).into();
                if *is_transfer {
                    Self::VoteByTransfer { last }
                } else {
                    Self::Vote { last }
                }
            }
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
            Message::AppendReply(AppendReply::Accepted { matched }) => {
                Self::AppendAccepted { matched: matched.0 }
            }
            Message::AppendReply(AppendReply::Rejected {
                base,
                conflict,
                last,
            }) => Self::AppendRejected {
                base: (*base).into(),
                conflict_term: conflict.term.0,
                conflict_first: conflict.first.0,
                conflict_last: conflict.last.0,
                last: (*last).into(),
            },
            Message::Heartbeat(Heartbeat {
                commit,
                round,
                is_last,
            }) => {
                let (commit, round) = (commit.0, *round);
                if *is_last {
                    Self::LastHeartbeat { commit, round }
                } else {
                    Self::Heartbeat { commit, round }
                }
            }
            Message::Snapshot(descriptor) => {
                Self::snapshot(descriptor, descriptor.meta.membership.encode().len())
            }
            Message::TimeoutNow => Self::TimeoutNow,
            Message::ReadIndex(ReadIndex { number }) => Self::ReadIndex { number: *number },
            Message::ReadIndexReply(ReadIndexReply { number, index }) => Self::ReadIndexReply {
                number: *number,
                index: index.map(|index| index.0),
            },
            Message::HeartbeatReply(HeartbeatReply { round }) => {
                Self::HeartbeatReply { round: *round }
            }
        }
    }
}

impl WireMessage {
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
            Self::Vote { last } => Message::Vote(Vote {
                last: last.into(),
                is_transfer: false,
            }),
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
            Self::AppendRejected {
                base,
                conflict_term,
                conflict_first,
                conflict_last,
                last,
            } => Message::AppendReply(AppendReply::Rejected {
                base: base.into(),
                conflict: Conflict {
                    term: Term(conflict_term),
                    first: Index(conflict_first),
                    last: Index(conflict_last),
                },
                last: last.into(),
            }),
            Self::Heartbeat { commit, round } => heartbeat(commit, round, false),
            Self::LastHeartbeat { commit, round } => heartbeat(commit, round, true),
            Self::VoteByTransfer { last } => Message::Vote(Vote {
                last: last.into(),
                is_transfer: true,
            }),
            Self::Snapshot {
                last,
                parts,
                bytes,
                hash,
                membership_bytes,
            } => {
                let hash = SnapshotHash(hash);
                let last = last.into();
                let membership = decode_membership(rest, membership_bytes)?;
                Message::Snapshot(SnapshotDescriptor {
                    meta: SnapshotMeta { last, membership },
                    parts,
                    bytes,
                    hash,
                })
            }
            Self::TimeoutNow => Message::TimeoutNow,
            Self::ReadIndex { number } => Message::ReadIndex(ReadIndex { number }),
            Self::ReadIndexReply { number, index } => Message::ReadIndexReply(ReadIndexReply {
                number,
                index: index.map(Index),
            }),
            Self::HeartbeatReply { round } => Message::HeartbeatReply(HeartbeatReply { round }),
        })
    }
}
