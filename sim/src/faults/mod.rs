//! Faults: each family strikes at its own random distances, as long as the world is hostile. One
//! file per family of faults; here is only who strikes when, and the end of all of it.

mod clocks;
mod crashes;
mod disks;
mod links;
mod operators;

use raft_core::NodeId;

use crate::event::Event;
use crate::node::Standing;
use crate::options::Family;
use crate::queue::Microseconds;
use crate::world::World;

impl World {
    pub(crate) fn plan_first_strikes(&mut self) {
        for (family, mean) in self.options.faults.clone() {
            let after = self.chances.faults.between(1, mean * 2);
            self.plan_strike(family, after, true);
        }
    }

    fn plan_strike(&mut self, family: Family, after: Microseconds, goes_on: bool) {
        self.plan(after, Event::Strike { family, goes_on });
    }

    /// A fault strikes, and the next one of its family is planned.
    pub(crate) fn strike(&mut self, family: Family, goes_on: bool) {
        if !self.is_hostile {
            return;
        }
        match family {
            Family::Crash => self.strike_crash(),
            Family::PowerCut => self.strike_power_cut(),
            Family::Churn => self.strike_churn(),
            Family::Depose => self.strike_depose(),
            Family::Partition => self.strike_partition(),
            Family::Clog => self.strike_clog(),
            Family::Replay => self.strike_replay(),
            Family::Pause => self.strike_pause(),
            Family::Jump => self.strike_jump(),
            Family::Stall => self.strike_stall(),
            Family::DiskError => self.strike_disk_error(),
            Family::Wipe => self.strike_wipe(),
            Family::Reconfigure => self.strike_reconfigure(),
            Family::Transfer => self.strike_transfer(),
            Family::Damage => self.strike_damage(),
            Family::Short => self.strike_short(),
        }
        let drawn = self.options.faults.iter().find(|(f, _)| *f == family);
        if let Some((_, mean)) = drawn.copied()
            && goes_on
        {
            let after = self.chances.faults.between(1, mean * 2);
            self.plan_strike(family, after, true);
        }
    }

    /// Any node.
    pub(crate) fn draw_node(&mut self) -> NodeId {
        let ids = self.ids();
        *self.chances.faults.pick(&ids)
    }

    /// Mostly somebody who believes that it leads, also one that was deposed and does not know; at
    /// times anybody.
    pub(crate) fn draw_leader(&mut self) -> NodeId {
        let leaders = self.nodes.iter().filter(|node| node.leads());
        let leaders: Vec<_> = leaders.map(|node| node.id).collect();
        if leaders.is_empty() || self.chances.faults.chance(150) {
            return self.draw_node();
        }
        *self.chances.faults.pick(&leaders)
    }

    /// Some time, measured in longest election deadlines.
    pub(crate) fn draw_time(&mut self, elections_max: u64) -> Microseconds {
        let longest = self.options.election() * elections_max;
        self.chances.faults.between(1, longest)
    }

    /// No more faults from now on: everything is repaired, everybody who can come back does.
    pub fn heal(&mut self) {
        self.is_hostile = false;
        self.network.repair_all();
        self.network.end_faults();
        for id in self.ids() {
            self.network.connect(id);
            let now = self.now;
            let node = self.node_mut(id);
            node.paused_until = node.paused_until.min(now);
            node.stalled_until = node.stalled_until.min(now);
            node.clock_stops_until = 0;
            node.disk_fails = false;
            node.short_until = 0;
            if node.standing == Standing::Down {
                self.start(id);
            } else if node.is_up() {
                node.turn_is_planned = false;
                self.plan_turn(id);
            }
        }
    }
}
