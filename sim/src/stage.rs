//! What a suite may do to a world beyond the course's harness: members that come, disks that are
//! lost, clocks that jump, snapshots that take long.

use raft_core::protocol::Input;
use raft_core::{Incarnation, Membership, NodeId};

use crate::node::{Answer, Node, RequestId, Standing};
use crate::queue::Microseconds;
use crate::world::World;

impl World {
    /// A formatted node that belongs to no group starts, and waits to be added.
    pub fn add_node(&mut self) -> (NodeId, Incarnation) {
        let id = NodeId(self.nodes.len() as u64 + 1);
        let incarnation = Incarnation(id.0 * 100);
        let machine = (self.machines)();
        self.nodes
            .push(Node::new(id, incarnation, Membership::default(), machine));
        self.start(id);
        (id, incarnation)
    }

    /// A node loses its power and its disk for good; see [`World::format_anew`].
    pub fn lose_disk(&mut self, id: NodeId) {
        self.power_off(id);
        let node = self.node_mut(id);
        node.life += 1;
        node.standing = Standing::Lost;
        node.disk.wipe();
        node.applier.image = None;
    }

    /// The directory of a lost disk is formatted anew, and the node waits to be added under the
    /// incarnation that is returned.
    pub fn format_anew(&mut self, id: NodeId) -> Incarnation {
        let empty = (self.machines)();
        let node = self.node_mut(id);
        assert_eq!(node.standing, Standing::Lost, "n{id} has lost its disk");
        let incarnation = Incarnation(node.incarnation.0 + 1);
        let life = node.life;
        *node = Node::new(id, incarnation, Membership::default(), empty);
        node.life = life;
        self.start(id);
        incarnation
    }

    /// The clock of a node jumps forward by so many ticks.
    pub fn jump_clock(&mut self, id: NodeId, ticks: u32) {
        if self.node(id).is_up() {
            for _ in 0..ticks {
                self.put(id, Input::Tick);
            }
        }
    }

    /// From now on a snapshot takes so much longer to be written.
    pub fn set_snapshot_time(&mut self, time: Microseconds) {
        self.snapshot_time = time;
    }

    /// How many requests of the suite have an answer that was not taken.
    #[must_use]
    pub fn answers_waiting(&self) -> usize {
        self.answers.len()
    }

    /// Takes what became of a request, once that is known; it is forgotten then.
    pub fn take_answer(&mut self, request: RequestId) -> Option<Answer> {
        self.answers.remove(&request)
    }
}
