//! Disks that stall, fail, are short of room, lose entries, or are lost.

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

    /// A node comes back without synced entries at the end of its log. Never so many of them at
    /// once that no majority would be whole: it could not refill anybody.
    pub(super) fn strike_damage(&mut self) {
        let id = if self.chances.faults.chance(300) {
            self.draw_leader()
        } else {
            self.draw_node()
        };
        let count = self.node(id).disk.count();
        let is_lost = self.node(id).standing == Standing::Lost;
        if is_lost || count == 0 || !self.may_lose_disk(id) {
            return;
        }
        self.crash_and_return(id);
        let count = self.node(id).disk.count() as u64;
        let most = if self.chances.faults.chance(500) {
            count.min(4)
        } else {
            count
        };
        let lost = self.chances.faults.between(most.min(1), most);
        let doubt = self.chances.faults.between(0, 1) * self.chances.faults.between(0, 500);
        let node = self.node_mut(id);
        let lost = usize::try_from(lost).expect("at most a length");
        node.disk.damage(lost, doubt);
        let (last, image) = (node.disk.last(), node.applier.image.as_ref());
        let is_ahead = image.is_some_and(|machine| machine.applied().index > last.index);
        self.coverage.count(Mark::DiskDamaged);
        self.coverage.count_if(is_ahead, Mark::MachineAhead);
        self.trace.mix([10, id.0, last.index.0]);
        self.trace.note(self.now, || {
            format!("the disk of n{id} is damaged, its log ends at {last}")
        });
        let safe = self.checks.commits.safe_on_disks(&self.nodes);
        self.note_violation(safe);
    }

    /// A disk has no room for commands for a while.
    pub(super) fn strike_short(&mut self) {
        let id = if self.chances.faults.chance(500) {
            self.draw_leader()
        } else {
            self.draw_node()
        };
        let until = self.now + self.draw_time(8);
        self.node_mut(id).short_until = until;
        self.trace.note(self.now, || {
            format!("the disk of n{id} is short of room until {until}")
        });
    }
}
