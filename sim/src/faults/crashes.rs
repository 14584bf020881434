//! Power goes, for one node or for all, at any moment, and comes back.

use bytes::Bytes;
use history::Condition;
use raft_core::protocol::{Effects, Input, Proposal, ProposalTicket};
use raft_core::{NodeId, ProposeError};

use crate::coverage::Mark;
use crate::event::Event;
use crate::node::{Answer, Origin, Standing, Work};
use crate::world::World;

impl World {
    /// The power of a running node goes. Everything but its disk is gone, and of what was being
    /// written a prefix may be left.
    pub(crate) fn power_off(&mut self, id: NodeId) {
        let is_torn = self.chances.disks.chance(self.options.disk.torn);
        let prng = &mut self.chances.disks;
        let node = &mut self.nodes[Self::place(id)];
        if !node.is_up() {
            return;
        }
        let wreck = node.disk.crash(is_torn, prng);
        node.standing = Standing::Down;
        node.life += 1;
        node.raft = None;
        node.inbox.clear();
        let waiters = std::mem::take(&mut node.waiters);
        let queue = std::mem::take(&mut node.applier.queue);
        let reads = std::mem::take(&mut node.applier.reads);
        let (hard_state, last) = (node.disk.hard_state(), node.disk.last());
        let coverage = &mut self.coverage;
        coverage.count_if(wreck.lost > 0, Mark::CrashLostWrite);
        coverage.count_if(wreck.kept > 0, Mark::CrashKeptWrite);
        coverage.count_if(wreck.torn, Mark::CrashTornWrite);
        coverage.count_if(wreck.lost_hard_state, Mark::CrashLostHardState);
        self.trace.mix([5, id.0, last.index.0, last.term.0]);
        self.trace.note(self.now, || {
            format!("n{id} loses power; its disk ends at {last}, {hard_state:?}, {wreck:?}")
        });
        self.diagram_condition(id, Condition::Crashed);
        let unplaced = waiters.unplaced.into_values();
        let placed = waiters.placed.into_iter().map(|(_, origin)| origin);
        let asked = waiters.reads.into_values().map(|(origin, _)| origin);
        let handed = queue.into_iter().flat_map(Work::origins);
        let operations = waiters.operations.into_values();
        let waiting = reads.into_values().flatten().map(|(origin, _)| origin);
        let all: Vec<_> = unplaced
            .chain(placed)
            .chain(asked)
            .chain(handed)
            .chain(waiting)
            .chain(operations)
            .collect();
        for origin in all {
            // A client hears nothing at all.
            match origin {
                Origin::Client { .. } => {}
                Origin::Operator => self.operator_answered(&Answer::Gone),
                Origin::Suite(request) => {
                    self.answers.insert(request, Answer::Gone);
                    let gone = Err(ProposeError::Unknown);
                    self.placed.entry(request).or_insert(gone);
                }
            }
        }
        let safe = self.checks.commits.safe_on_disks(&self.nodes);
        self.note_violation(safe);
    }

    /// The power goes, and comes back after a while.
    pub(crate) fn crash_and_return(&mut self, id: NodeId) {
        if !self.node(id).is_up() {
            return;
        }
        self.power_off(id);
        // Half of them come back at once, before anybody noticed that they were gone.
        let after = if self.chances.faults.chance(500) {
            self.draw_time(4)
        } else {
            self.draw_time(1) / 8
        };
        let life = self.node(id).life;
        self.plan(after, Event::Restart { node: id, life });
    }

    pub(crate) fn restart_after_fault(&mut self, id: NodeId, life: u64) {
        let node = self.node(id);
        if node.standing == Standing::Down && node.life == life {
            self.start(id);
        }
    }

    pub(super) fn strike_crash(&mut self) {
        let id = if self.chances.faults.chance(400) {
            self.draw_leader()
        } else {
            self.draw_node()
        };
        self.crash_and_return(id);
    }

    pub(super) fn strike_power_cut(&mut self) {
        self.coverage.count(Mark::PowerCut);
        for id in self.ids() {
            self.crash_and_return(id);
        }
    }

    /// Paper figure 8: a leader proposes, reaches a few others or none, and is gone. Somebody who
    /// was down comes back, and somebody else wants to lead.
    pub(super) fn strike_churn(&mut self) {
        let leader = self.draw_leader();
        if !self.node(leader).is_up() {
            return;
        }
        self.propose_unheard(leader);
        let life = self.node(leader).life;
        let longest = self.options.turn_max + self.options.network.delay_max * 3;
        let after = self
            .chances
            .faults
            .between(0, longest + self.options.disk.sync_max);
        self.plan(after, Event::Churn { node: leader, life });
    }

    /// Proposes something that nobody waits for.
    pub(super) fn propose_unheard(&mut self, id: NodeId) {
        if !self.node(id).is_up() {
            return;
        }
        self.tickets += 1;
        let proposal = Proposal {
            ticket: ProposalTicket(self.tickets),
            payload: Bytes::from(format!("unheard {}", self.tickets)),
        };
        self.put(id, Input::Propose(vec![proposal]));
    }

    /// The second half of [`World::strike_churn`].
    pub(crate) fn churn(&mut self, id: NodeId, life: u64) {
        if !self.is_hostile || !self.is_current(id, life) {
            return;
        }
        self.crash_and_return(id);
        let back = self.draw_node();
        if self.node(back).standing == Standing::Down && back != id {
            self.start(back);
        }
        let next = self.draw_node();
        self.jump(next);
    }

    /// The power goes after a turn was decided, and before all of it was done: nothing was written,
    /// and only some messages left.
    pub(crate) fn crash_within_turn(&mut self, id: NodeId, effects: Effects) {
        self.coverage.count(Mark::CrashWithinTurn);
        let count = effects.send.len() as u64;
        let sent = self.chances.faults.between(0, count);
        let sent = usize::try_from(sent).expect("at most a length");
        for envelope in effects.send.into_iter().take(sent) {
            self.transmit(envelope);
        }
        self.crash_and_return(id);
    }
}
