//! Counters of rare states: a generator that never gets there proves nothing.

use std::fmt;

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A state that is worth knowing to have been reached.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark {
            $($(#[$doc])* $name,)*
        }

        impl Mark {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it says in the table.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

marks! {
    /// A node won an election.
    LeaderElected = "a leader was elected",
    /// A candidate gave up.
    ElectionLost = "an election was lost or split",
    /// A leader followed again without having heard of a newer term.
    LeaderLostQuorum = "a leader stepped down because it heard no quorum",
    /// A leader heard of a newer term.
    LeaderDeposed = "a leader was deposed by a newer term",
    /// Two nodes led at the same moment, in different terms.
    TwoLeaders = "two nodes led at once, in different terms",
    /// A follower cut entries.
    Truncated = "a log was truncated",
    /// A follower cut entries of at least two terms at once.
    TruncatedTerms = "entries of several terms were truncated at once",
    /// A restarted node had entries that its leader did not.
    DivergedAfterCrash = "a node came back with entries that were replaced",
    /// A leader committed entries of an earlier term through one of its own.
    CommittedEarlierTerm = "entries of an earlier term were committed through a newer one",
    /// Power failed with writes under way.
    CrashLostWrite = "a crash lost a write that was not finished",
    /// ... and a complete one was on the disk nevertheless.
    CrashKeptWrite = "a crash kept a write whose promises never left",
    /// ... and one was torn.
    CrashTornWrite = "a crash tore a write",
    /// A vote or term was forgotten.
    CrashLostHardState = "a crash lost a term or vote that nobody had been told",
    /// A node crashed between its decision and its deeds.
    CrashWithinTurn = "a node crashed between deciding and doing",
    /// All power went.
    PowerCut = "all nodes lost power at once",
    /// A machine with a disk of its own came back.
    MachineFromDisk = "a state machine came back from its own disk",
    /// A write failed.
    DiskError = "a disk failed and stopped its node",
    /// A disk stalled.
    DiskStalledLeader = "the disk of a leader stalled",
    /// A disk was lost for good.
    DiskWiped = "a node lost its disk",
    /// Old entries were read for a follower.
    ColdLoad = "a leader read old entries from its disk for a follower",
    /// Old entries were read for the state machine.
    ColdApply = "a state machine was fed from the disk",
    /// A message was lost.
    Lost = "a message was lost",
    /// A message came twice.
    Duplicated = "a message came twice",
    /// A message of an older term reached a node of a newer one.
    OldTermMessage = "a message came from an older term",
    /// A message came back long after it had been sent.
    Replayed = "an old message was replayed",
    /// A reply that was sent to an earlier life or leadership of its receiver.
    OldTermReply = "a leader got an append reply of an older term",
    /// A link was cut in one direction.
    CutOneWay = "a link was cut in one direction",
    /// Both directions of one link.
    CutApart = "two nodes were cut off from each other",
    /// What a new leader appends reaches nobody.
    CutAtElection = "a leader was cut off as soon as it had won",
    /// The old leader hears nothing of its successor.
    CutAtHandover = "a leader was cut off while it handed over",
    /// A leader could not be heard, or could not hear.
    LeaderCutOneWay = "a leader was cut off in one direction",
    /// One node saw both halves.
    CutBridge = "a partition left one bridge",
    /// Everybody sees two neighbours only.
    CutRing = "a partition left a ring",
    /// Two halves.
    CutHalves = "a partition made two halves",
    /// A leader alone.
    LeaderIsolated = "a leader was isolated",
    /// Old voters here, new ones there.
    CutAlongChange = "a partition ran between old and new voters",
    /// A link held everything back and let it go at once.
    Clogged = "a clogged link let go",
    /// A process stood still.
    Paused = "a node was paused",
    /// The process of a leader stood still.
    LeaderPaused = "a leader was paused",
    /// A clock jumped.
    ClockJumped = "a clock jumped past an election deadline",
    /// A read was answered under a later leader than it began with.
    ReadCrossedLeader = "a read crossed a leader change",
    /// A read had to be refused.
    ReadRefused = "a read was refused by a node that does not lead any more",
    /// Nobody could know.
    OutcomeUnknown = "a write ended as unknown",
    /// A write was sent again under its stamp and executed once.
    RetryDeduplicated = "a repeated write was recognised",
    /// A write was answered through another node than the first.
    AnsweredElsewhere = "a write was answered by another node than it was first sent to",
    /// A session was evicted.
    SessionExpired = "a session had expired",
    /// A compare-and-set that did not match.
    CasMismatch = "a compare-and-set found something else",
    /// A queue was full.
    Busy = "a proposal was refused as busy",
    /// An append was rejected.
    AppendRejected = "an append was rejected",
    /// A node wrote a snapshot of its own.
    SnapshotTaken = "a snapshot was taken",
    /// There was no room for it.
    SnapshotNoRoom = "a snapshot could not be written",
    /// All parts arrived.
    SnapshotDelivered = "a snapshot was delivered",
    /// A transfer broke.
    SnapshotBroken = "the transfer of a snapshot broke off",
    /// It went on where it had broken.
    SnapshotResumed = "the transfer of a snapshot was resumed",
    /// A machine became a snapshot.
    SnapshotRestored = "a state machine became a snapshot",
    /// The log of the receiver was not a prefix of the snapshot.
    SnapshotOverDivergent = "a snapshot replaced a log that had diverged",
    /// A node came back with a snapshot that its log did not reach.
    SnapshotBeyondLog = "a node came back with a snapshot beyond its log",
    /// A log got a new beginning.
    Compacted = "a log was compacted",
    /// A change of membership was completed.
    Changed = "a change of membership was completed",
    /// Two majorities were needed.
    Joint = "a joint membership was in effect",
    /// A membership entry was cut.
    TruncatedMembership = "a membership entry was truncated",
    /// A member that lost its disk was replaced.
    Replaced = "a member that lost its disk was replaced",
    /// A leader left its own group.
    LeaderRemoved = "a leader was removed",
    /// A leader changed while two majorities were needed.
    LeaderChangedInJoint = "a leader was elected in a joint membership",
    /// Nobody has to talk to it any more, and somebody did.
    RemovedHeard = "a follower heard that it was removed",
    /// Leadership was handed over.
    Transferred = "leadership was handed over",
    /// A lease answered a read.
    LeaseRead = "a lease answered a read",
    /// A follower answered a read.
    FollowerRead = "a follower answered a read",
    /// A leader with a bad disk gave up.
    LeaderStalled = "a leader gave up because its disk stalled",
    /// Synced entries were lost.
    DiskDamaged = "a disk lost synced entries",
    /// A machine kept what its log lost.
    MachineAhead = "a state machine was ahead of its damaged log",
    /// Its vote could have elected somebody without what it had acknowledged.
    RefillVoteAsked = "a node that lacks entries was asked for its vote",
    /// What was acknowledged is not there any more.
    MatchForgotten = "a leader forgot what a damaged follower had acknowledged",
    /// It had been sent before the damage.
    LateAckOfLost = "an acknowledgement of entries arrived that were lost since",
    /// All is there again.
    Refilled = "a damaged log was whole again",
    /// A command was left out.
    FollowerShort = "a follower had no room for a command",
    /// A command was not taken.
    LeaderShort = "a proposal was refused for lack of room",
    /// An append to a follower was behind the window.
    UnreachableReported = "a sender was told that a message was lost",
}

/// How often each mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage(Vec<u64>);

impl Default for Coverage {
    fn default() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }
}

impl Coverage {
    /// It was reached.
    pub fn count(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// It was reached, if `reached`.
    pub fn count_if(&mut self, reached: bool, mark: Mark) {
        self.0[mark as usize] += u64::from(reached);
    }

    /// How often it was reached.
    #[must_use]
    pub fn of(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum += count;
        }
    }

    /// What was never reached.
    pub fn missing(&self) -> impl Iterator<Item = Mark> {
        let marks = Mark::ALL.iter().copied();
        marks.filter(|mark| self.of(*mark) == 0)
    }
}

/// A table, one line each.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mark in Mark::ALL {
            writeln!(f, "{:>10}  {}", self.of(*mark), mark.name())?;
        }
        Ok(())
    }
}
