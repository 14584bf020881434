//! A leader whose disk does not finish its writes gives up: it can commit nothing by itself, and
//! while it goes on sending heartbeats nobody else may lead.

use crate::protocol::{Raft, RoleState};

/// Longest election deadlines without any finished write after which a leader gives up.
const STALL_DEADLINES: u64 = 4;

/// When the disk last did something.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    progressed_at: u64,
}

impl Stall {
    /// A write finished, or the disk had nothing to do until now.
    pub(crate) fn progressed(&mut self, now: u64) {
        self.progressed_at = now;
    }
}

impl Raft {
    /// Whether this leader gave up.
    pub(crate) fn gives_up_stalled(&mut self) -> bool {
        let patience = STALL_DEADLINES * u64::from(self.config.timing.election_ticks_max);
        let is_waiting = self.log.durable() < self.log.last().index;
        let is_stalled = is_waiting && self.now > self.stall.progressed_at + patience;
        if is_stalled && matches!(self.role, RoleState::Leader(_)) {
            self.counters.stalled += 1;
            self.become_follower(None);
            return true;
        }
        false
    }
}
