//! Disks that stall, fail, or are lost.

use crate::coverage::Mark;
use crate::node::Standing;
use crate::world::World;

impl World {
    /// A disk finishes nothing for a while.
    pub(super) fn strike_stall(&mut self) {
        let id = if self.chances.faults.chance(500) {
            self.draw_leader()
        } else {
            self.draw_node()
        };
        let until = self.now + self.draw_time(6);
        let leads = self.node(id).leads();
        self.node_mut(id).stalled_until = until;
        self.coverage.count_if(leads, Mark::DiskStalledLeader);
        self.trace.note(self.now, || {
            format!("the disk of n{id} stalls until {until}")
        });
    }

    /// The next sync fails, which stops the node.
    pub(super) fn strike_disk_error(&mut self) {
        let id = self.draw_node();
        self.node_mut(id).disk_fails = true;
    }

    /// A disk is lost, and with it the member: nothing comes back under its name. Never more of
    /// them than the budget has.
    pub(super) fn strike_wipe(&mut self) {
        let id = self.draw_node();
        if self.node(id).standing == Standing::Lost || !self.may_lose_disk(id) {
            return;
        }
        self.power_off(id);
        let node = self.node_mut(id);
        node.life += 1;
        node.standing = Standing::Lost;
        node.disk.wipe();
        node.applier.image = None;
        self.coverage.count(Mark::DiskWiped);
        self.trace.mix([6, id.0]);
        self.trace
            .note(self.now, || format!("n{id} loses its disk"));
    }
}
