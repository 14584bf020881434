//! What a node says about itself, and the cell in which the driver publishes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log_store::LogUsage;
use crate::membership::{MemberRole, Membership};
use crate::node::metrics::{Metrics, MetricsSnapshot};
use crate::protocol::{Role, State};
use crate::snapshot::SnapshotDescriptor;
use crate::types::{Incarnation, Index, LogId, NodeId, Term};

/// Where a node stands, as of the last turn of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// The incarnation that it runs as.
    pub incarnation: Incarnation,
    /// What it is in `term`.
    pub role: Role,
    /// The newest term that it has seen.
    pub term: Term,
    /// Who leads, where that is known.
    pub leader: Option<NodeId>,
    /// The entry before the first one of its log: what is up to it, a snapshot stands for.
    pub log_start: LogId,
    /// The last entry of its log.
    pub last: LogId,
    /// The last entry that is on its disk.
    pub durable: Index,
    /// The last entry that it knows to be committed.
    pub commit: Index,
    /// The last entry that its state machine applied.
    pub applied: Index,
    /// What its log on the disk has to reach before the node votes, leads and acknowledges again:
    /// entries that it may have acknowledged were lost ([`crate::LoadedLog::refill_to`]). None on a
    /// healthy node.
    pub refilling: Option<LogId>,
    /// What the leader knows each other member to hold; empty on other nodes.
    pub matched: Vec<(NodeId, Index)>,
    /// The members of the group, as the newest entry says that this node has. Empty where it has
    /// not heard of its group yet.
    pub members: Membership,
    /// The entry that brought them; 0 for those that the group was bootstrapped with.
    pub members_since: Index,
    /// The newest complete snapshot on its disk.
    pub snapshot: Option<SnapshotDescriptor>,
    /// How much the log took after its last append, and whether there is room for more.
    pub log: LogUsage,
    /// Counters since the node started.
    pub metrics: MetricsSnapshot,
}

impl Status {
    /// Whether the node belongs to its group as the incarnation that it is. One that does not never
    /// campaigns: it was removed or replaced, or has not been added yet.
    #[must_use]
    pub fn is_member(&self) -> bool {
        let member = self.members.get(self.id);
        member.is_some_and(|member| member.incarnation == self.incarnation)
    }

    /// Whether a change of membership is under way: not committed, or the old voters not left yet.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.members.is_joint() || self.members_since > self.commit
    }

    /// The members that receive the log and do not vote, in order.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        let members = self.members.members().iter();
        let learners = members.filter(|(_, member)| member.role == MemberRole::Learner);
        learners.map(|(id, _)| *id)
    }
}

/// Where the driver publishes, at most once per turn, and handles read. Held for the time of a copy
/// of a pointer.
#[derive(Debug)]
pub(crate) struct StatusCell {
    id: NodeId,
    incarnation: Incarnation,
    metrics: Arc<Metrics>,
    state: Mutex<Arc<State>>,
    snapshot: Mutex<Option<SnapshotDescriptor>>,
}

impl StatusCell {
    /// A cell that already has the first state.
    pub(crate) fn new(
        (id, incarnation): (NodeId, Incarnation),
        metrics: Arc<Metrics>,
        state: State,
        snapshot: Option<SnapshotDescriptor>,
    ) -> Self {
        Self {
            id,
            incarnation,
            metrics,
            state: Mutex::new(Arc::new(state)),
            snapshot: Mutex::new(snapshot),
        }
    }

    /// Replaces the state where it differs.
    pub(crate) fn publish(&self, state: State) {
        let mut published = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if **published != state {
            *published = Arc::new(state);
        }
    }

    /// A complete snapshot is on the disk.
    pub(crate) fn set_snapshot(&self, snapshot: &SnapshotDescriptor) {
        let mut newest = self.lock_snapshot();
        let end = |snapshot: &SnapshotDescriptor| snapshot.meta.last.index;
        if newest.as_ref().map(end) < Some(end(snapshot)) {
            *newest = Some(snapshot.clone());
        }
    }

    /// The term and the commit index that were published last.
    pub(crate) fn term_and_commit(&self) -> (Term, Index) {
        let state = self.state();
        (state.hard_state.term, state.commit)
    }

    /// The last published state with the counters of this moment.
    pub(crate) fn read(&self) -> Status {
        let state = self.state();
        Status {
            id: self.id,
            incarnation: self.incarnation,
            role: state.role,
            term: state.hard_state.term,
            leader: state.leader,
            log_start: state.start,
            last: state.last,
            durable: state.durable,
            commit: state.commit,
            applied: state.applied,
            refilling: state.refilling,
            matched: state.matched.clone(),
            members: state.membership.clone(),
            members_since: state.membership_index,
            snapshot: self.lock_snapshot().clone(),
            log: LogUsage {
                is_short_of_room: state.is_short_of_room,
                ..self.metrics.log_usage()
            },
            metrics: self.metrics.snapshot(state.counters),
        }
    }

    fn lock_snapshot(&self) -> MutexGuard<'_, Option<SnapshotDescriptor>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Arc<State> {
        let published = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&published)
    }
}
