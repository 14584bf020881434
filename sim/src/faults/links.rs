//! The network's faults that come and go: partitions of all shapes, clogs, replays.

use raft_core::{NodeId, ReadPolicy};

use crate::coverage::Mark;
use crate::event::{Copy, Event};
use crate::options::Family;
use crate::partitions::{Shape, between};
use crate::world::World;

/// Leaders of 1,000 that are cut off while they hand over.
const CUT_OFF_AT_HANDOVER: u64 = 400;

/// Leaders of 1,000 that are cut off when they win.
const CUT_OFF_AT_ELECTION: u64 = 100;

impl World {
    /// Cuts the links of a shape, in place of those that were cut before, and repairs them after a
    /// while.
    pub(super) fn strike_partition(&mut self) {
        let shape = *self.chances.faults.pick(Shape::ALL);
        let center = self.draw_leader();
        let ids = self.ids();
        let cuts = shape.cuts(&ids, center, &mut self.chances.faults);
        let leads = self.node(center).leads();
        let coverage = &mut self.coverage;
        match shape {
            Shape::OneWay => coverage.count(Mark::CutOneWay),
            Shape::Apart => coverage.count(Mark::CutApart),
            Shape::Deaf => coverage.count_if(leads, Mark::LeaderCutOneWay),
            Shape::Isolate => coverage.count_if(leads, Mark::LeaderIsolated),
            Shape::Halves => coverage.count(Mark::CutHalves),
            Shape::Bridge => coverage.count_if(ids.len() > 2, Mark::CutBridge),
            Shape::Ring => coverage.count_if(ids.len() > 3, Mark::CutRing),
        }
        self.trace
            .note(self.now, || format!("{shape:?} around n{center}: {cuts:?}"));
        self.diagram_note(None, &format!("{shape:?} around n{center}"));
        self.network.repair_all();
        for (from, to) in cuts {
            self.network.cut(from, to);
        }
        let after = self.draw_time(8);
        self.plan_repair(after);
    }

    /// Cuts links a little later, and repairs them after a while.
    pub(super) fn plan_cuts(&mut self, after: u64, links: Vec<(NodeId, NodeId)>) {
        self.plan(after, Event::Cut { links });
    }

    pub(crate) fn cut_after_fault(&mut self, links: Vec<(NodeId, NodeId)>) {
        if self.is_hostile && !links.is_empty() {
            for (from, to) in links {
                self.network.cut(from, to);
            }
            let after = self.draw_time(6);
            self.plan_repair(after);
        }
    }

    fn plan_repair(&mut self, after: u64) {
        self.cuts += 1;
        let cut = self.cuts;
        self.plan(after, Event::Repair { cut });
    }

    pub(crate) fn repair_after_fault(&mut self, cut: u64) {
        if cut == self.cuts && self.is_hostile {
            self.network.repair_all();
            self.trace.note(self.now, || "all links are repaired");
            self.diagram_note(None, "all links are repaired");
        }
    }

    /// A leader is cut off and its clock stands still, so that nothing tells it. The others elect
    /// somebody else and go on; clients still reach the old one.
    pub(super) fn strike_depose(&mut self) {
        let leader = self.draw_leader();
        let ids = self.ids();
        let others: Vec<_> = ids.into_iter().filter(|id| *id != leader).collect();
        self.network.repair_all();
        for (from, to) in between(&[leader], &others) {
            self.network.cut(from, to);
        }
        let after = self.draw_time(4) + self.options.election();
        // A lease trusts that clocks go on.
        if self.options.reads == ReadPolicy::Round {
            self.node_mut(leader).clock_stops_until = self.now + after;
        }
        // What it takes in now it can never commit.
        for _ in 0..self.chances.faults.between(0, 4) {
            self.propose_unheard(leader);
        }
        self.plan_repair(after);
        if !others.is_empty() {
            let next = *self.chances.faults.pick(&others);
            self.jump(next);
        }
        self.trace
            .note(self.now, || format!("n{leader} is to be deposed"));
    }

    /// A leader is cut off in the very moment in which its successor hears that it may take over.
    pub(crate) fn disturb_handover(&mut self, leader: NodeId) {
        let is_wanted = self.is_hostile && self.options.has(Family::Transfer);
        if is_wanted && self.chances.faults.chance(CUT_OFF_AT_HANDOVER) {
            self.coverage.count(Mark::CutAtHandover);
            self.cut_off(leader);
        }
    }

    /// A leader is cut off in the very moment in which it wins: what it appends reaches nobody.
    pub(crate) fn disturb_election(&mut self, leader: NodeId) {
        let is_wanted = self.is_hostile && self.options.has(Family::Churn);
        if is_wanted && self.chances.faults.chance(CUT_OFF_AT_ELECTION) {
            self.coverage.count(Mark::CutAtElection);
            self.cut_off(leader);
        }
    }

    fn cut_off(&mut self, leader: NodeId) {
        let others = self.ids().into_iter().filter(|id| *id != leader);
        let others: Vec<_> = others.collect();
        self.cut_after_fault(between(&[leader], &others));
    }

    /// A link holds back all that it gets, and then lets go at once.
    pub(super) fn strike_clog(&mut self) {
        let (from, to) = (self.draw_leader(), self.draw_node());
        if from != to {
            let until = self.now + self.draw_time(3);
            self.network.clog(from, to, until);
            self.coverage.count(Mark::Clogged);
        }
    }

    /// A few messages from the past come again.
    pub(super) fn strike_replay(&mut self) {
        for _ in 0..self.chances.faults.between(1, 8) {
            let replayed = if self.chances.faults.chance(500) {
                let leader = self.draw_leader();
                self.network.replay_ack(leader)
            } else {
                self.network.replay()
            };
            if let Some(envelope) = replayed {
                let copy = Copy::Replay;
                let after = self.chances.faults.between(0, 1_000);
                let sent = self.now;
                self.plan(
                    after,
                    Event::Message {
                        envelope,
                        sent,
                        copy,
                    },
                );
            }
        }
    }
}
