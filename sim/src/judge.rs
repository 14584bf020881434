//! The end of a run: everybody agrees, and what clients were told has an explanation.

use history::{Budget, History, LoggedWrite, Scene, Verdict, WitnessError};
use raft_core::{Index, NodeId};

use crate::node::Node;
use crate::violation::Violation;
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
            && running.all(|node| {
                let is_whole = !node.disk.is_refilling() && node.state.refilling.is_none();
                is_whole && node.applier.applied == last && node.state.last.index == last
            })
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

/// What a judge objects to, and the part of the history that shows it.
#[derive(Debug)]
pub(crate) struct Objection {
    pub(crate) violation: Violation,
    pub(crate) scene: Option<Box<Scene>>,
}

/// Judges what clients were told, three times over: by the log as a whole, by the places that
/// answers named, and as a black box.
///
/// # Errors
/// When there is no explanation, or none was found within the budget.
pub(crate) fn judge(history: &History, log: &[LoggedWrite]) -> Result<(), Objection> {
    let witnessed = |error: WitnessError| Objection {
        scene: Scene::of_witness(history, &error).map(Box::new),
        violation: Violation {
            invariant: 40,
            what: error.to_string(),
        },
    };
    history::dumped_log::check(history, log).map_err(witnessed)?;
    history::witness::check(history).map_err(witnessed)?;
    let verdict = history::check(history, Budget::default());
    let scene = match &verdict {
        Verdict::Linearizable => return Ok(()),
        Verdict::Illegal(violation) => Scene::of_violation(violation),
        Verdict::Unknown(exhausted) => Scene::of_exhausted(exhausted),
    };
    Err(Objection {
        violation: Violation {
            invariant: 41,
            what: verdict.to_string(),
        },
        scene: Some(Box::new(scene)),
    })
}
