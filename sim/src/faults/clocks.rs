//! Time as nodes see it: processes that stand still, clocks that jump.

use raft_core::protocol::Input;
use raft_core::{NodeId, ReadPolicy};

use crate::coverage::Mark;
use crate::world::World;

impl World {
    /// A process stands still. What reaches it meanwhile waits; ticks that it misses are skipped.
    pub(super) fn strike_pause(&mut self) {
        let id = self.draw_leader();
        let until = self.now + self.draw_time(6);
        let leads = self.node(id).leads();
        if self.node(id).is_up() {
            self.node_mut(id).paused_until = until;
            self.coverage.count(Mark::Paused);
            self.coverage.count_if(leads, Mark::LeaderPaused);
            self.trace
                .note(self.now, || format!("n{id} stands still until {until}"));
        }
    }

    pub(super) fn strike_jump(&mut self) {
        let id = self.draw_node();
        self.jump(id);
    }

    /// Enough ticks at once that a follower campaigns, though it heard its leader just now.
    pub(super) fn jump(&mut self, id: NodeId) {
        // A lease trusts that clocks do not jump.
        if !self.node(id).is_up() || self.options.reads != ReadPolicy::Round {
            return;
        }
        self.coverage.count(Mark::ClockJumped);
        for _ in 0..self.options.timing.election_ticks_max {
            self.put(id, Input::Tick);
        }
    }
}
