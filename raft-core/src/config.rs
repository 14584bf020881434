//! What a node is told when it starts: who it is, how it measures time, and every limit.

use crate::entry::ENTRY_PAYLOAD_BYTES_MAX;
use crate::membership::Membership;
use crate::membership_codec::MembershipDecodeError;
use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};

/// Settings of one node of one group.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster; messages of another one are refused.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// This node.
    pub id: NodeId,
    /// The incarnation that this node's directory was formatted with.
    pub incarnation: Incarnation,
    /// The members that the group was bootstrapped with; empty for a node that joins later. Only
    /// believed while the log says nothing else.
    pub members: Membership,
    /// Seed of the election deadlines. The same seed and inputs give the same effects.
    pub seed: u64,
    /// How time is measured.
    pub timing: Timing,
    /// What may grow, and how far.
    pub limits: Limits,
    /// When snapshots are taken, and how much log is kept behind them.
    pub snapshots: SnapshotPolicy,
    /// How a leader makes sure that it leads before it answers a read.
    pub reads: ReadPolicy,
    /// Ticks without any work after which a group falls asleep: no heartbeats, no elections, until
    /// somebody wants something. None: never.
    pub quiesce_after_ticks: Option<u32>,
}

/// When snapshots are taken. Whichever limit is met first counts; 0 switches one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// Encoded bytes of applied entries behind the last snapshot.
    pub log_bytes: u64,
    /// Applied entries behind the last snapshot.
    pub entries: u64,
    /// Ticks since the last snapshot, where anything was applied since.
    pub ticks: u64,
    /// Encoded bytes of entries that are kept although a snapshot stands for them, for followers
    /// that lag a little: cheaper than to send them the snapshot. Kept only as far back as the
    /// slowest follower that lives needs it.
    pub tail_bytes_max: u64,
}

impl Default for SnapshotPolicy {
    /// A log of 256 MiB or of four million entries, with 64 MiB kept.
    fn default() -> Self {
        Self {
            log_bytes: 256 << 20,
            entries: 4_000_000,
            ticks: 0,
            tail_bytes_max: 64 << 20,
        }
    }
}

/// How linearizable reads are confirmed (thesis 6.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPolicy {
    /// By a round of heartbeats that a majority answers. Needs no clock.
    #[default]
    Round,
    /// By a lease that answered heartbeats renew. Saves the round, and trusts that no clock runs
    /// faster than another by more than the bound. All nodes of a group must have the same policy.
    Lease {
        /// How much faster one clock may run than another, in percent; 1 to 50.
        clock_drift_percent: u32,
    },
}

/// Durations in ticks, and the length of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Length of a tick in milliseconds. Only the driver uses it.
    pub tick_ms: u64,
    /// Ticks between heartbeats of an idle leader.
    pub heartbeat_ticks: u32,
    /// The shortest election deadline. Also how long a follower that hears its leader refuses votes
    /// (thesis 4.2.3), and how long a leader goes on without a quorum (check-quorum).
    pub election_ticks_min: u32,
    /// The longest election deadline; each is drawn anew, uniformly (paper 5.2).
    pub election_ticks_max: u32,
}

impl Timing {
    /// For nodes that are a millisecond apart: heartbeat 50 ms, deadline 200 to 400 ms. Four missed
    /// heartbeats are a dead leader; the width of the range makes split votes rare.
    pub const LAN: Self = Self {
        tick_ms: 10,
        heartbeat_ticks: 5,
        election_ticks_min: 20,
        election_ticks_max: 40,
    };

    /// For nodes tens of milliseconds apart: heartbeat 100 ms, deadline 1,000 to 2,000 ms.
    pub const WAN: Self = Self {
        tick_ms: 20,
        heartbeat_ticks: 5,
        election_ticks_min: 50,
        election_ticks_max: 100,
    };
}

/// Everything that could grow has a name and a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one proposal. Above it: `TooLarge`, nothing is written.
    pub proposal_bytes_max: usize,
    /// Encoded bytes of entries in one append message; a single larger entry still travels alone.
    pub append_bytes_max: usize,
    /// Entries in one append message.
    pub append_entries_max: usize,
    /// Append messages on the way to one follower. Deep windows destroy batching on a LAN.
    pub inflight_messages_max: usize,
    /// Bytes of entries on the way to one follower.
    pub inflight_bytes_max: usize,
    /// Bytes of entries that a leader holds without their being committed. Above it proposals are
    /// refused as `Busy`.
    pub uncommitted_bytes_max: usize,
    /// Ticks that a leader may go without any commit while entries wait for one. Above it proposals
    /// are refused as `Busy`, so that clients slow down before memory is full; 0 switches it off.
    pub uncommitted_ticks_max: u32,
    /// Bytes of durable entries that stay in memory for followers and the state machine.
    pub tail_bytes_max: usize,
    /// Bytes of entries handed to the state machine and not yet applied.
    pub apply_bytes_max: usize,
    /// Proposals of this node's clients without an answer, wherever they are. Above it: `Busy`.
    pub proposals_pending_max: usize,
    /// Bytes of those proposals. Above it: `Busy`.
    pub proposals_pending_bytes_max: usize,
    /// Reads that wait for a round or for the state machine. Above it: `Busy`.
    pub reads_pending_max: usize,
    /// Inputs that the driver steps before it executes their effects.
    pub inputs_per_turn_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proposal_bytes_max: 2 << 20,
            append_bytes_max: 1 << 20,
            append_entries_max: 4096,
            inflight_messages_max: 16,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
            uncommitted_ticks_max: 1000,
            tail_bytes_max: 64 << 20,
            apply_bytes_max: 8 << 20,
            proposals_pending_max: 65_536,
            proposals_pending_bytes_max: 128 << 20,
            reads_pending_max: 65_536,
            inputs_per_turn_max: 1024,
        }
    }
}

/// Settings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The node is not in its own list of members.
    #[error("node {0} is not in the list of members")]
    NotAMember(NodeId),
    /// The list of members names another incarnation of this node.
    #[error(
        "node {id} was formatted as incarnation {ours}, the list of members says {listed}: \
         its data directory was replaced"
    )]
    Incarnation {
        /// This node.
        id: NodeId,
        /// What its directory says.
        ours: Incarnation,
        /// What the members know.
        listed: Incarnation,
    },
    /// The state machine holds more than the log: the log was lost or replaced.
    #[error("the state machine has applied {applied}, but the log ends at {last}")]
    LogBehind {
        /// The last command in the state machine.
        applied: LogId,
        /// The last entry in the log.
        last: LogId,
    },
    /// The log begins behind entries that no snapshot stands for: the snapshot was lost.
    #[error("the log begins behind {start}, but the newest snapshot ends at {snapshot}")]
    SnapshotMissing {
        /// The last entry that was compacted.
        start: LogId,
        /// The last entry of the newest snapshot.
        snapshot: LogId,
    },
    /// The newest snapshot ends in an entry that the log does not have.
    #[error("the newest snapshot ends at {snapshot}, which is not in the log, whose end is {last}")]
    SnapshotBeyondLog {
        /// The last entry of the newest snapshot.
        snapshot: LogId,
        /// The last entry in the log.
        last: LogId,
    },
    /// An entry of the log is no membership, although it says so.
    #[error("entry {index} of the log: {error}")]
    Membership {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        error: MembershipDecodeError,
    },
    /// The log holds entries of a term that the node says it has never seen: it could vote again in
    /// a term that it has voted in.
    #[error("the newest term on the disk is {term}, but the log ends at {last}")]
    TermBehind {
        /// The term of the hard state.
        term: Term,
        /// The last entry in the log.
        last: LogId,
    },
    /// A setting is outside its range.
    #[error("{name} is {value}, but must be {rule}")]
    Range {
        /// Name of the setting.
        name: &'static str,
        /// What was given.
        value: u64,
        /// What is allowed.
        rule: &'static str,
    },
}

impl Config {
    /// Checks all settings before anything is started.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let ReadPolicy::Lease {
            clock_drift_percent: drift,
        } = self.reads
        {
            let rule = "from 1 to 50 percent";
            let fits = (1..=50).contains(&drift);
            require(fits, "clock_drift_percent", drift.into(), rule)?;
        }
        let idle = self.quiesce_after_ticks.unwrap_or(1);
        require(
            idle >= 1,
            "quiesce_after_ticks",
            idle.into(),
            "at least 1, or none",
        )?;
        self.timing.validate()?;
        self.limits.validate()
    }

    /// Checks that the bootstrapped members know this node, where the log does not say more.
    pub(crate) fn validate_bootstrap(&self) -> Result<(), ConfigError> {
        if self.members.is_empty() {
            return Ok(());
        }
        let (id, ours) = (self.id, self.incarnation);
        let listed = self.members.get(id).ok_or(ConfigError::NotAMember(id))?;
        let listed = listed.incarnation;
        if listed == ours {
            Ok(())
        } else {
            Err(ConfigError::Incarnation { id, ours, listed })
        }
    }
}

fn require(
    holds: bool,
    name: &'static str,
    value: u64,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Range { name, value, rule })
    }
}

impl Timing {
    fn validate(&self) -> Result<(), ConfigError> {
        let (beat, min, max) = (
            self.heartbeat_ticks,
            self.election_ticks_min,
            self.election_ticks_max,
        );
        require(self.tick_ms >= 1, "tick_ms", self.tick_ms, "at least 1")?;
        require(beat >= 1, "heartbeat_ticks", beat.into(), "at least 1")?;
        let rule = "at least twice heartbeat_ticks";
        require(
            min >= beat.saturating_mul(2),
            "election_ticks_min",
            min.into(),
            rule,
        )?;
        require(
            max > min,
            "election_ticks_max",
            max.into(),
            "above election_ticks_min",
        )
    }
}

impl Limits {
    fn validate(&self) -> Result<(), ConfigError> {
        let largest = self.proposal_bytes_max;
        let rule = "from 1 to 67108864 bytes";
        let fits = (1..=ENTRY_PAYLOAD_BYTES_MAX).contains(&largest);
        require(fits, "proposal_bytes_max", largest as u64, rule)?;
        for (name, value) in [
            ("append_entries_max", self.append_entries_max),
            ("inflight_messages_max", self.inflight_messages_max),
            ("proposals_pending_max", self.proposals_pending_max),
            ("reads_pending_max", self.reads_pending_max),
            ("inputs_per_turn_max", self.inputs_per_turn_max),
        ] {
            require(value >= 1, name, value as u64, "at least 1")?;
        }
        for (name, value) in [
            ("append_bytes_max", self.append_bytes_max),
            ("inflight_bytes_max", self.inflight_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("apply_bytes_max", self.apply_bytes_max),
        ] {
            require(value >= 4096, name, value as u64, "at least 4096 bytes")?;
        }
        let rule = "at least proposal_bytes_max";
        for (name, bound) in [
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            (
                "proposals_pending_bytes_max",
                self.proposals_pending_bytes_max,
            ),
        ] {
            require(bound >= largest, name, bound as u64, rule)?;
        }
        Ok(())
    }
}
