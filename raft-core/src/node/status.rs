//! What a node says about itself, and the cell in which the driver publishes it.

use std::sync::{Arc, Mutex, PoisonError};

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
    /// The entry before the first one of its log: what a snapshot stands for.
    pub log_start: Index,
    /// The last entry of its log.
    pub last: LogId,
    /// The last entry that is on its disk.
    pub durable: Index,
    /// The last entry that it knows to be committed.
    pub commit: Index,
    /// The last entry that its state machine applied.
    pub applied: Index,
    /// What the leader knows each other member to hold; empty on other nodes.
    pub matched: Vec<(NodeId, Index)>,
    /// The members of the group, as the newest entry says that this node has. Empty where it has
    /// not heard of its group yet.
    pub members: Membership,
    /// The newest complete snapshot on its disk.
    pub snapshot: Option<SnapshotDescriptor>,
    /// How much the log took after its last append.
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

    /// Whether a change of voters is under way.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.members.is_joint()
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
    /// What changes rarely.
    facts: Mutex<Arc<Facts>>,
}

/// See [`StatusCell`].
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// See [`Status::members`].
    pub(crate) members: Membership,
    /// See [`Status::snapshot`].
    pub(crate) snapshot: Option<SnapshotDescriptor>,
}

impl StatusCell {
    /// A cell that already has the first state.
    pub(crate) fn new(
        (id, incarnation): (NodeId, Incarnation),
        metrics: Arc<Metrics>,
        state: State,
        facts: Facts,
    ) -> Self {
        Self {
            id,
            incarnation,
            metrics,
            state: Mutex::new(Arc::new(state)),
            facts: Mutex::new(Arc::new(facts)),
        }
    }

    /// Replaces the state where it differs.
    pub(crate) fn publish(&self, state: State) {
        let mut published = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if **published != state {
            *published = Arc::new(state);
        }
    }

    /// The members changed.
    pub(crate) fn set_members(&self, members: Membership) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut facts).members = members;
    }

    /// A newer snapshot is there.
    pub(crate) fn set_snapshot(&self, snapshot: SnapshotDescriptor) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut facts).snapshot = Some(snapshot);
    }

    /// The term and the commit index that were published last.
    pub(crate) fn term_and_commit(&self) -> (Term, Index) {
        let state = self.state();
        (state.hard_state.term, state.commit)
    }

    /// The last published state with the counters of this moment.
    pub(crate) fn read(&self) -> Status {
        let state = self.state();
        let facts = {
            let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&facts)
        };
        Status {
            id: self.id,
            incarnation: self.incarnation,
            role: state.role,
            term: state.hard_state.term,
            leader: state.leader,
            log_start: Index(self.metrics.log_start.value()),
            last: state.last,
            durable: state.durable,
            commit: state.commit,
            applied: state.applied,
            matched: state.matched.clone(),
            members: facts.members.clone(),
            snapshot: facts.snapshot.clone(),
            log: self.metrics.log_usage(),
            metrics: self.metrics.snapshot(state.counters),
        }
    }

    fn state(&self) -> Arc<State> {
        let published = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&published)
    }
}
