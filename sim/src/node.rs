//! One simulated node: the protocol, its disk, its state machine and those who wait for answers.
//! Holds; what happens to it is in `turn`, `execute`, `storage` and `applying`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft_core::protocol::{Apply, Input, LogStart, ProposalTicket, Raft, ReadTicket, State};
use raft_core::{
    ChangeError, Incarnation, Index, LogId, Membership, MembershipChange, NodeId, ProposeError,
    ReadError, SnapshotDescriptor, SnapshotMeta, Term, TransferError,
};

use crate::disk::Disk;
use crate::machine::Machine;
use crate::queue::Microseconds;
use crate::shelf::Shelf;

/// Messages that wait for a node at most; what comes on top is lost.
pub(crate) const INBOX_MESSAGES_MAX: usize = 4_096;

/// Names a request of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of the workload, and which of its attempts it was.
    Client {
        /// Its position.
        client: usize,
        /// Counts all attempts of that client.
        attempt: u64,
    },
    /// The operator that the world plays.
    Operator,
    /// Whoever drives the world.
    Suite(RequestId),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Replicate this command.
    Propose(Bytes),
    /// Answer this query, linearizably.
    Read(Bytes),
    /// Change the members.
    Change(MembershipChange),
    /// Let this voter lead.
    Transfer(NodeId),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command was applied.
    Applied {
        /// Where it stands in the log.
        id: LogId,
        /// What the machine said.
        reply: Bytes,
    },
    /// The query was answered.
    Found {
        /// What the machine said.
        reply: Bytes,
    },
    /// The proposal has no result.
    NotProposed(ProposeError),
    /// The read has no result.
    NotRead(ReadError),
    /// The change of membership was made, or not.
    Changed(Result<LogId, ChangeError>),
    /// Leadership was handed over, or not.
    Transferred(Result<(), TransferError>),
    /// The node went down, and whoever waited at it heard no more.
    Gone,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Up,
    /// It has no power; its disk has what was synced.
    Down,
    /// Its disk is lost, and with it its identity: it never comes back as this member.
    Lost,
}

/// The log of a running node as its protocol believes it to be: all that it wrote, finished or not.
/// Terms are enough, because an index and a term are an entry.
#[derive(Clone, Debug, Default)]
pub struct LogMirror {
    start: LogId,
    terms: Vec<Term>,
}

impl LogMirror {
    /// What is on a disk.
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        let start = disk.start();
        let entries = disk.read(start.index.next(), disk.last().index);
        Self {
            start,
            terms: entries.iter().map(raft_core::Entry::term).collect(),
        }
    }

    /// The last entry; the start of the log where there is none.
    #[must_use]
    pub fn last(&self) -> LogId {
        let index = self.start.index.plus(self.terms.len() as u64);
        self.terms
            .last()
            .map_or(self.start, |term| LogId::new(*term, index))
    }

    /// The entry before the first one.
    #[must_use]
    pub fn start(&self) -> LogId {
        self.start
    }

    /// The term of the entry at `index`, the start of the log included; none elsewhere.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        let position = index.0.checked_sub(self.start.index.0 + 1)?;
        self.terms.get(usize::try_from(position).ok()?).copied()
    }

    /// Whether this very entry is there, as itself or as part of a snapshot.
    #[must_use]
    pub fn has(&self, id: LogId) -> bool {
        id.index < self.start.index || self.term_at(id.index) == Some(id.term)
    }

    /// Drops an entry and all behind it.
    pub fn truncate(&mut self, from: Index) {
        let kept = from.0.saturating_sub(self.start.index.0 + 1);
        self.terms
            .truncate(usize::try_from(kept).expect("logs fit into memory"));
    }

    /// Drops entries that a snapshot stands for.
    pub fn compact(&mut self, to: LogId) {
        let dropped = to.index.0.saturating_sub(self.start.index.0);
        let dropped = usize::try_from(dropped).expect("logs fit into memory");
        self.terms.drain(..dropped.min(self.terms.len()));
        self.start = self.start.max(to);
    }

    /// Drops everything and begins behind a snapshot.
    pub fn reset(&mut self, to: LogId) {
        self.terms.clear();
        self.start = to;
    }

    /// Puts an entry of this term at the end.
    pub fn push(&mut self, term: Term) {
        self.terms.push(term);
    }
}

/// Those who wait for a node, as the driver of a real node keeps them.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Proposals that the protocol has not placed yet.
    pub unplaced: BTreeMap<ProposalTicket, Origin>,
    /// Proposals in the log, in its order.
    pub placed: VecDeque<(LogId, Origin)>,
    /// Waiters up to here were given to the state machine's queue.
    pub handed_over: Index,
    /// Changes of membership and transfers of leadership under way.
    pub operations: BTreeMap<u64, Origin>,
    /// Reads that no round has confirmed yet.
    pub reads: BTreeMap<ReadTicket, (Origin, Bytes)>,
}

/// What waits for the state machine, in order.
#[derive(Debug)]
pub enum Work {
    /// The machine becomes what a snapshot says.
    Restore(SnapshotMeta),
    /// An image of the machine is taken and written down.
    TakeSnapshot(SnapshotMeta),
    /// Committed entries, and those who wait for some of them.
    Apply {
        /// The entries.
        range: Apply,
        /// Who waits, in the order of the log.
        waiters: Vec<(LogId, Origin)>,
    },
    /// A query that may be answered once this index is applied.
    Read {
        /// The index.
        index: Index,
        /// Who waits.
        origin: Origin,
        /// The query.
        query: Bytes,
    },
}

impl Work {
    /// Those who wait for it.
    #[must_use]
    pub fn origins(self) -> Vec<Origin> {
        match self {
            Self::Apply { waiters, .. } => waiters.into_iter().map(|(_, origin)| origin).collect(),
            Self::Read { origin, .. } => vec![origin],
            Self::Restore(_) | Self::TakeSnapshot(_) => Vec::new(),
        }
    }
}

/// The state machine of a node and its queue.
#[derive(Debug)]
pub struct Applier {
    /// The machine.
    pub machine: Box<dyn Machine>,
    /// What a machine with a disk of its own comes back as.
    pub image: Option<Box<dyn Machine>>,
    /// The last entry that was applied in this life.
    pub applied: Index,
    /// What the machine had applied at the start of this life, where the log lost that.
    pub ahead: Index,
    /// What waits, in order.
    pub queue: VecDeque<Work>,
    /// Whether an event is planned that works on the queue.
    pub is_planned: bool,
    /// Reads that wait for entries.
    pub reads: BTreeMap<Index, Vec<(Origin, Bytes)>>,
}

/// A node. Everything but the disk and the image of the machine is gone when its power is.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The incarnation that its disk was formatted with.
    pub incarnation: Incarnation,
    /// The members that it was formatted with; empty for one that joins.
    pub bootstrap: Membership,
    /// Whether it runs.
    pub standing: Standing,
    /// Counts starts and crashes: what was planned for an earlier life is void.
    pub life: u64,
    /// The protocol, while the node runs.
    pub raft: Option<Raft>,
    /// What the protocol said of itself after its last turn.
    pub state: State,
    /// Its log, finished writes and others.
    pub log: LogMirror,
    /// Its disk.
    pub disk: Disk,
    /// The snapshots on its disk.
    pub shelf: Shelf,
    /// What waits for its next turn, in the order of arrival.
    pub inbox: Vec<Input>,
    /// Whether that turn is planned.
    pub turn_is_planned: bool,
    /// Transfers of snapshots that it sends, by receiver.
    pub sending: BTreeMap<NodeId, u64>,
    /// The transfer of a snapshot that it takes, and the term of its leader.
    pub receiving: Option<(Term, u64)>,
    /// Those who wait for answers.
    pub waiters: Waiters,
    /// The state machine.
    pub applier: Applier,
    /// The length of its ticks, by its own clock.
    pub tick: Microseconds,
    /// The process stands still until then.
    pub paused_until: Microseconds,
    /// Its clock stands still until then, but the process goes on.
    pub clock_stops_until: Microseconds,
    /// The disk stalls until then.
    pub stalled_until: Microseconds,
    /// The next write fails.
    pub disk_fails: bool,
    /// The disk has no room for commands until then.
    pub short_until: Microseconds,
    /// Whether the protocol was told that there is no room.
    pub is_short: bool,
}

impl Applier {
    /// Whether the machine was ahead of its log when it started, and is not handed anything new
    /// yet.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.ahead > Index(0) && self.applied <= self.ahead
    }
}

impl Node {
    /// A formatted node that has never run.
    #[must_use]
    pub fn new(
        id: NodeId,
        incarnation: Incarnation,
        bootstrap: Membership,
        machine: Box<dyn Machine>,
    ) -> Self {
        Self {
            id,
            incarnation,
            bootstrap,
            standing: Standing::Down,
            life: 0,
            raft: None,
            state: State::default(),
            log: LogMirror::default(),
            disk: Disk::default(),
            shelf: Shelf::default(),
            inbox: Vec::new(),
            turn_is_planned: false,
            sending: BTreeMap::new(),
            receiving: None,
            waiters: Waiters::default(),
            applier: Applier {
                machine,
                image: None,
                applied: Index(0),
                ahead: Index(0),
                queue: VecDeque::new(),
                is_planned: false,
                reads: BTreeMap::new(),
            },
            tick: 0,
            paused_until: 0,
            clock_stops_until: 0,
            stalled_until: 0,
            disk_fails: false,
            short_until: 0,
            is_short: false,
        }
    }

    /// The node runs, with nothing but what its disk and its machine bring.
    pub fn begin_life(&mut self, raft: Raft, machine: Box<dyn Machine>) {
        let applied = machine.applied().index;
        self.standing = Standing::Up;
        self.state = raft.state();
        self.raft = Some(raft);
        self.log = LogMirror::of(&self.disk);
        self.paused_until = 0;
        self.clock_stops_until = 0;
        self.stalled_until = 0;
        self.disk_fails = false;
        self.is_short = false;
        self.waiters = Waiters {
            handed_over: applied,
            ..Waiters::default()
        };
        self.applier = Applier {
            machine,
            image: self.applier.image.take(),
            applied,
            ahead: if applied > self.disk.last().index {
                applied
            } else {
                Index(0)
            },
            queue: VecDeque::new(),
            is_planned: false,
            reads: BTreeMap::new(),
        };
        self.inbox.clear();
        self.turn_is_planned = false;
        self.sending.clear();
        self.receiving = None;
    }

    /// What a node does first: the newest snapshot takes the place of a log that does not reach
    /// it. Gives its descriptor.
    pub fn begin_with_snapshot(&mut self) -> Option<SnapshotDescriptor> {
        self.shelf.keep_newest();
        let descriptor = self.shelf.newest()?.descriptor.clone();
        if !self.disk.has(descriptor.meta.last) {
            let last = descriptor.meta.last;
            self.disk.begin_behind(LogStart::Reset(last));
        }
        Some(descriptor)
    }

    /// Whether it runs; a paused process does.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.standing == Standing::Up
    }

    /// Whether it runs and believes that it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.is_up() && self.state.role == raft_core::Role::Leader
    }
}
