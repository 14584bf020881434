//! Clocks that run at different speeds, within the drift that a lease allows for.

use std::collections::BTreeMap;

use crate::protocol::random::Random;
use crate::types::NodeId;

/// Nanoseconds of a tick, by the clock of whoever ticks.
pub(super) const TICK: u64 = 10_000_000;

/// How much faster than the slowest a clock may run.
pub(super) const DRIFT_PERCENT: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// True time, by the slowest clock that there may be.
    time: u64,
    /// For each node what its clock shows more than it should, and how many percent too fast it is.
    clocks: BTreeMap<NodeId, (u64, u64)>,
    /// When its next tick is due, by its own clock.
    due: BTreeMap<NodeId, u64>,
    /// Time that passes before the next clock is read: a process stands still with inputs in hand.
    pub(super) pause: u64,
}

impl Clocks {
    /// Nodes that are new begin with a clock of any speed that is allowed.
    pub(super) fn set(&mut self, id: NodeId, random: &mut Random) {
        let offset = u64::from(random.between(0, u32::MAX));
        let faster = [0, random.between(0, DRIFT_PERCENT), DRIFT_PERCENT];
        let faster = faster[random.between(0, 2) as usize];
        self.clocks.entry(id).or_insert((offset, faster.into()));
    }

    pub(super) fn pass(&mut self, time: u64) {
        self.time += time;
    }

    fn now(&self, id: NodeId) -> u64 {
        let (offset, faster) = self.clocks.get(&id).copied().unwrap_or_default();
        offset + self.time + self.time / 100 * faster
    }

    pub(super) fn read(&mut self, id: NodeId) -> u64 {
        self.time += std::mem::take(&mut self.pause);
        self.now(id)
    }

    /// Whether a tick is due. Those that were missed are not made up for.
    pub(super) fn takes_tick(&mut self, id: NodeId) -> bool {
        let now = self.now(id);
        let due = self.due.entry(id).or_insert(now + TICK);
        if now < *due {
            return false;
        }
        let is_late = now - *due >= TICK;
        *due = if is_late { now } else { *due } + TICK;
        true
    }

    /// Lets time pass until the next tick of this node is due.
    pub(super) fn pass_to_tick(&mut self, id: NodeId) {
        while !self.takes_tick(id) {
            self.time += TICK / 20;
        }
    }
}
