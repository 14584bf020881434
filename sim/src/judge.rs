//! The end of a run: everybody agrees, and what clients were told has an explanation.

use history::{Budget, History, Verdict};
use raft_core::{Index, NodeId};

use crate::node::Node;
use crate::violation::{Violation, require};
use crate::world::World;

impl World {
    /// Whether the cluster is at rest: one leader, and everybody has applied all that it has.
    #[must_use]
    pub fn is_agreed(&self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let state = &self.node(leader).state;
        let (last, members) = (state.last.index, &state.membership);
        let is_member = |node: &&Node| {
            let member = members.get(node.id).map(|member| member.incarnation);
            node.is_up() && member == Some(node.incarnation)
        };
        let mut running = self.nodes.iter().filter(is_member);
        !members.is_joint()
            && state.commit == last
            && last > Index(0)
            && running.all(|node| node.applier.applied == last && node.state.last.index == last)
    }

    /// Compares all machines that have applied the same.
    ///
    /// # Errors
    /// When two of them differ.
    pub fn compare_machines(&mut self) -> Result<(), Violation> {
        let running = self.nodes.iter().filter(|node| node.is_up());
        let digests: Vec<(NodeId, Index, u64)> = running
            .map(|node| (node.id, node.applier.applied, node.applier.machine.digest()))
            .collect();
        for (id, index, digest) in digests {
            self.checks.machines.digest(id, index, digest)?;
        }
        Ok(())
    }
}

/// Judges what clients were told, twice over: by the order of the log, and as a black box.
///
/// # Errors
/// When there is no explanation, or none was found within the budget.
pub(crate) fn judge(history: &History) -> Result<(), Violation> {
    history::witness::check(history).map_err(|error| Violation {
        invariant: 40,
        what: error.to_string(),
    })?;
    let verdict = history::check(history, Budget::default());
    let is_good = matches!(verdict, Verdict::Linearizable);
    require(is_good, 41, || verdict.to_string())
}
