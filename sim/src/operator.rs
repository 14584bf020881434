//! What the operator of a simulated cluster knows: which ids are free, and whether it waits for an
//! answer. What it does is in `faults::operators`.

use raft_core::NodeId;

use crate::node::Answer;

/// Ids that are ever given at most.
const IDS_MAX: u64 = 12;

/// See the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator {
    ids_given: u64,
    /// It asked for a change and has not heard what came of it.
    pub(crate) is_waiting: bool,
}

impl Operator {
    /// Of a cluster whose first members have the ids 1 to `nodes`.
    pub(crate) fn new(nodes: u64) -> Self {
        Self {
            ids_given: nodes,
            is_waiting: false,
        }
    }

    /// An id that nobody had, while there are any.
    pub(crate) fn new_id(&mut self) -> Option<NodeId> {
        if self.ids_given == IDS_MAX {
            return None;
        }
        self.ids_given += 1;
        Some(NodeId(self.ids_given))
    }

    /// It heard what came of its change.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        if !matches!(answer, Answer::Transferred(_)) {
            self.is_waiting = false;
        }
    }
}
