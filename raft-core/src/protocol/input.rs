//! Everything that can wake the protocol. Closed: what is not in this enum cannot happen to it.

use bytes::Bytes;

use crate::entry::Entry;
use crate::membership::MembershipChange;
use crate::message::Envelope;
use crate::snapshot::SnapshotDescriptor;
use crate::types::{Index, LogId, NodeId, Term};

/// One thing that happened. Time and randomness come in as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One tick of the clock passed.
    Tick,
    /// A peer said something.
    Message(Envelope),
    /// Clients want these commands replicated, in this order.
    Propose(Vec<Proposal>),
    /// Clients want to read.
    Read(Vec<ReadTicket>),
    /// The log store finished a write; so all earlier ones are finished too.
    Persisted(Persisted),
    /// The log reader answered an [`super::Load`].
    Loaded(Loaded),
    /// The state machine has applied everything up to here, or holds a snapshot up to here.
    Applied(Index),
    /// A message to this peer was certainly lost.
    Unreachable(NodeId),
    /// An operator wants other members.
    ChangeMembership(ChangeTicket, MembershipChange),
    /// An operator wants this voter to lead.
    Transfer(TransferTicket, NodeId),
    /// A snapshot that was asked for by [`super::Effects::take_snapshot`] is durable; or, with the
    /// error of no snapshot, could not be written this time.
    SnapshotTaken(Option<SnapshotDescriptor>),
    /// A transfer that was asked for by [`super::Effects::send_snapshot`] ended: the receiver has
    /// all of it, or not.
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// Whether it has it.
        is_delivered: bool,
    },
    /// What a clock says that counts through suspend, in nanoseconds from any start. Read after all
    /// inputs before it had happened. Needed for [`crate::ReadPolicy::Lease`] only.
    Clock(u64),
    /// The disk has no room for commands any more, or has it again: see
    /// [`crate::log_store::LogUsage::is_short_of_room`]. A node that was not told has room.
    Room {
        /// Whether it is short of it.
        is_short: bool,
    },
}

/// Names a change of membership between the driver and the protocol; the driver chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeTicket(pub u64);

/// Names a transfer of leadership between the driver and the protocol; the driver chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferTicket(pub u64);

/// Names a proposal between the driver and the protocol; the driver chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalTicket(pub u64);

/// Names a read between the driver and the protocol; the driver chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadTicket(pub u64);

/// A command that wants to be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Comes back in [`super::Effects::proposed`].
    pub ticket: ProposalTicket,
    /// The command.
    pub payload: Bytes,
}

/// A finished write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The number of the write ([`super::Write::number`]).
    pub number: u64,
    /// The last log id after that write ([`super::Write::last`]). Ignored when the log has another
    /// entry there by now: appended, truncated, appended again.
    pub last: LogId,
}

/// Old entries that were asked for. An answer to a question of an earlier term is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The follower that they are for.
    pub peer: NodeId,
    /// The term in which they were asked for.
    pub term: Term,
    /// Consecutive entries from [`super::Load::from`]; at least one.
    pub entries: Vec<Entry>,
}
