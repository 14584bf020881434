//! Feeds the space-time diagram of a run: who sent what to whom, who fell and who led.

use history::{Condition, Fate, Role, SpaceTime, SpaceTimeEvent};
use raft_core::{Envelope, Message, NodeId, Role as RaftRole};

use crate::queue::Microseconds;
use crate::world::World;

/// Events that are kept: the end of the run.
const EVENTS_KEPT: usize = 600;

impl World {
    /// Keeps the last events for a diagram from now on.
    pub fn keep_diagram(&mut self) {
        self.diagram = Some(SpaceTime::new(EVENTS_KEPT));
    }

    /// The end of the run as a page of HTML, if a diagram is kept.
    #[must_use]
    pub fn draw(&self, title: &str, problem: &str) -> Option<String> {
        let diagram = self.diagram.as_ref()?;
        Some(diagram.draw(title, problem))
    }

    fn diagram(&mut self, event: impl FnOnce(Microseconds) -> SpaceTimeEvent) {
        let now = self.now;
        if let Some(diagram) = &mut self.diagram {
            diagram.push(event(now));
        }
    }

    pub(crate) fn diagram_message(&mut self, envelope: &Envelope, sent: Microseconds, fate: Fate) {
        let (from, to) = (envelope.from.0, envelope.to.0);
        self.diagram(|_| SpaceTimeEvent::Message {
            from,
            to,
            sent,
            fate,
            label: label(envelope),
        });
    }

    pub(crate) fn diagram_condition(&mut self, id: NodeId, condition: Condition) {
        let node = id.0;
        self.diagram(|at| SpaceTimeEvent::Node {
            node,
            at,
            condition,
        });
    }

    pub(crate) fn diagram_role(&mut self, id: NodeId) {
        let state = &self.node(id).state;
        let (node, term) = (id.0, state.hard_state.term.0);
        let votes = state.membership.is_voter(id);
        let role = match state.role {
            RaftRole::Follower if !votes => Role::Learner,
            RaftRole::Follower => Role::Follower,
            RaftRole::PreCandidate | RaftRole::Candidate => Role::Candidate,
            RaftRole::Leader => Role::Leader,
        };
        self.diagram(|at| SpaceTimeEvent::Role {
            node,
            at,
            role,
            term,
        });
    }

    pub(crate) fn diagram_note(&mut self, id: Option<NodeId>, label: &str) {
        let (node, label) = (id.map(|id| id.0), label.to_owned());
        self.diagram(|at| SpaceTimeEvent::Note { node, at, label });
    }

    pub(crate) fn diagram_violation(&mut self, label: String) {
        self.diagram(|at| SpaceTimeEvent::Violation {
            node: None,
            at,
            label,
        });
    }
}

fn label(envelope: &Envelope) -> String {
    let term = envelope.term;
    match &envelope.message {
        Message::Append(append) => {
            let count = append.entries.len();
            format!("t{term} append {count} behind {}", append.base)
        }
        other => format!("t{term} {}", other.name()),
    }
}
