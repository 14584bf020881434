//! What a node says about itself, and the cell in which the driver publishes it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::log_store::LogUsage;
use crate::membership::Membership;
use crate::node::metrics::{Metrics, MetricsSnapshot};
use crate::protocol::{Role, State};
use crate::types::{Index, LogId, NodeId, Term};

/// Where a node stands, as of the last turn of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// What it is in `term`.
    pub role: Role,
    /// The newest term that it has seen.
    pub term: Term,
    /// Who leads, where that is known.
    pub leader: Option<NodeId>,
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
    /// The members of the group.
    pub members: Membership,
    /// How much the log took after its last append.
    pub log: LogUsage,
    /// Counters since the node started.
    pub metrics: MetricsSnapshot,
}

/// Where the driver publishes, at most once per turn, and handles read. Held for the time of a copy
/// of a pointer.
#[derive(Debug)]
pub(crate) struct StatusCell {
    id: NodeId,
    members: Membership,
    metrics: Arc<Metrics>,
    state: Mutex<Arc<State>>,
}

impl StatusCell {
    /// A cell that already has the first state.
    pub(crate) fn new(
        id: NodeId,
        members: Membership,
        metrics: Arc<Metrics>,
        state: State,
    ) -> Self {
        Self {
            id,
            members,
            metrics,
            state: Mutex::new(Arc::new(state)),
        }
    }

    /// Replaces the state where it differs.
    pub(crate) fn publish(&self, state: State) {
        let mut published = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if **published != state {
            *published = Arc::new(state);
        }
    }

    /// The last published state with the counters of this moment.
    pub(crate) fn read(&self) -> Status {
        let state = {
            let published = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&published)
        };
        Status {
            id: self.id,
            role: state.role,
            term: state.hard_state.term,
            leader: state.leader,
            last: state.last,
            durable: state.durable,
            commit: state.commit,
            applied: state.applied,
            matched: state.matched.clone(),
            members: self.members.clone(),
            log: self.metrics.log_usage(),
            metrics: self.metrics.snapshot(state.counters),
        }
    }
}
