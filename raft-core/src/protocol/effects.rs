//! Everything that the protocol wants done, one field per executor. An effect is complete in
//! itself: there is no second handshake, and progress comes back as plain inputs.

use crate::entry::Entry;
use crate::error::{ChangeError, ProposeError, ReadError, TransferError};
use crate::log_store::AppendBatch;
use crate::membership::Membership;
use crate::message::Envelope;
use crate::protocol::input::{ChangeTicket, ProposalTicket, ReadTicket, TransferTicket};
use crate::snapshot::SnapshotMeta;
use crate::types::{Index, LogId, NodeId, Term};

/// What is to be done after one or more steps. The fields may be executed at the same time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// For the log task, in order. A write ends where the term changes or the log is truncated, so
    /// that none carries a promise about an entry that it removes.
    pub writes: Vec<Write>,
    /// For the peers: these leave now.
    pub send: Vec<Envelope>,
    /// For the log reader.
    pub load: Vec<Load>,
    /// For the apply task, before `apply`: replace the state by this snapshot. Comes back as
    /// [`super::Input::Applied`].
    pub restore: Option<SnapshotMeta>,
    /// For the apply task.
    pub apply: Option<Apply>,
    /// For the apply task, after `apply`: take an image of the state and let it be written in the
    /// background. Comes back as [`super::Input::SnapshotTaken`]; one at a time.
    pub take_snapshot: Option<SnapshotMeta>,
    /// For the snapshot sender: envelopes with a [`crate::Message::Snapshot`]. Each comes back as
    /// [`super::Input::SnapshotSent`]; one at a time per receiver, and a newer one replaces it.
    pub send_snapshot: Vec<Envelope>,
    /// For the waiters of proposals: where each was appended, or why it was refused. Refused means
    /// not applied.
    pub proposed: Vec<(ProposalTicket, Result<LogId, ProposeError>)>,
    /// For the apply task: reads that may be answered once this index is applied.
    pub reads_ready: Vec<(ReadTicket, Index)>,
    /// For the waiters of reads.
    pub reads_refused: Vec<(ReadTicket, ReadError)>,
    /// For the waiters of changes: the entry that completed it, or why it was refused.
    pub changed: Vec<(ChangeTicket, Result<LogId, ChangeError>)>,
    /// For the waiters of transfers: done once the target is known to lead.
    pub transferred: Vec<(TransferTicket, Result<(), TransferError>)>,
    /// For the peers and the transport: whom to talk to from now on.
    pub members_changed: Option<Membership>,
    /// For everybody who watches who leads.
    pub role_changed: Option<RoleChange>,
}

/// A write, and the promises that may leave only after it is durable. Writes are executed in the
/// order of their numbers; an empty batch keeps its place in the order and needs no sync.
#[derive(Debug, PartialEq, Eq)]
pub struct Write {
    /// Grows by one from write to write.
    pub number: u64,
    /// What happens to the beginning of the log, before the batch.
    pub log_start: Option<LogStart>,
    /// What becomes durable.
    pub batch: AppendBatch,
    /// The last log id once it is.
    pub last: LogId,
    /// What may be said then: append acks, granted votes, and our own vote requests.
    pub promises: Vec<Envelope>,
}

/// A new beginning of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// [`crate::LogStore::compact`].
    Compact(LogId),
    /// [`crate::LogStore::reset`].
    Reset(LogId),
}

/// Entries that a lagging follower needs and that are not in memory any more. One at a time per
/// follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The follower.
    pub peer: NodeId,
    /// The current term; comes back with the answer.
    pub term: Term,
    /// The first entry wanted.
    pub from: Index,
    /// The last entry wanted.
    pub to: Index,
    /// Encoded bytes to read at most, but at least one entry.
    pub bytes_max: usize,
}

/// Committed and locally durable entries, to be applied in order. Those before the first of
/// `entries` are read from the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Apply {
    /// The first entry to apply.
    pub from: Index,
    /// The last one.
    pub to: Index,
    /// The end of the range `from..=to` as far as it is in memory; may be empty.
    pub entries: Vec<Entry>,
}

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleChange {
    /// The current term.
    pub term: Term,
    /// What this node is in it.
    pub role: Role,
    /// Who leads it, where that is known.
    pub leader: Option<NodeId>,
}

/// What a node is in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits for a leader.
    #[default]
    Follower,
    /// Asks whether it could win (thesis 9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// The role in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}
