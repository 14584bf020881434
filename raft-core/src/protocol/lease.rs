//! Reads by lease (thesis 6.4.1): while a majority has promised by its silence not to elect anybody
//! else, the leader needs no round. Trusts clocks, so it is an option.
//!
//! A follower that answered a heartbeat votes for nobody for the shortest election deadline (leader
//! stickiness), which its clock may see pass early by the configured drift. A heartbeat's lease
//! begins before it was sent and ends, on our clock, before that. Handing leadership over lets
//! somebody be elected in spite of stickiness: from then on there is no lease in that term.

use std::collections::VecDeque;

use crate::config::{Config, ReadPolicy};
use crate::protocol::{Raft, RoleState};

/// Rounds whose beginning is remembered; older ones are confirmed too late to be of use.
const ROUNDS_MAX: usize = 64;

/// The lease of a leader in its term.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Numbers of rounds, and what the clock had said before they were begun.
    begun: VecDeque<(u64, u64)>,
    /// What the clock must be below.
    until: u64,
    is_forfeited: bool,
}

impl Lease {
    /// No lease in this term any more.
    pub(crate) fn forfeit(&mut self) {
        self.is_forfeited = true;
    }

    /// A heartbeat of this round is about to be sent. Only the first one of a round counts: an
    /// answer does not tell which it answers. Round 0 needs no answer, so it proves nothing.
    pub(crate) fn begun(&mut self, round: u64, clock: u64) {
        let is_known = self
            .begun
            .back()
            .is_some_and(|(newest, _)| *newest >= round);
        if round == 0 || is_known {
            return;
        }
        if self.begun.len() == ROUNDS_MAX {
            self.begun.pop_front();
        }
        self.begun.push_back((round, clock));
    }

    /// A majority confirmed this round.
    pub(crate) fn confirmed(&mut self, round: u64, length: u64) {
        while let Some((_, clock)) = self.begun.pop_front_if(|(number, _)| *number <= round) {
            self.until = self.until.max(clock.saturating_add(length));
        }
    }

    fn holds(&self, clock: u64) -> bool {
        !self.is_forfeited && clock < self.until
    }
}

/// Nanoseconds that a lease lasts from before the heartbeat that renews it; 0 without leases.
pub(crate) fn length(config: &Config) -> u64 {
    let ReadPolicy::Lease {
        clock_drift_percent,
    } = config.reads
    else {
        return 0;
    };
    // A follower may hear us at the end of its tick, so that a part of the first one is missing;
    // and its ticks may be handled late by up to one, so that the first one was over already.
    let ticks = u64::from(config.timing.election_ticks_min).saturating_sub(2);
    let promised = ticks.saturating_mul(config.timing.tick_ms) * 1_000_000;
    promised / (100 + u64::from(clock_drift_percent)) * 100
}

/// Ticks for which a node that starts votes for nobody: it may have renewed a lease just before.
/// That holds for one that knows no term too, because a heartbeat is answered before its term is on
/// the disk.
pub(crate) fn embargo(config: &Config) -> u32 {
    match config.reads {
        ReadPolicy::Lease { .. } => config.timing.election_ticks_max,
        ReadPolicy::Round => 0,
    }
}

impl Raft {
    pub(crate) fn uses_leases(&self) -> bool {
        matches!(self.config.reads, ReadPolicy::Lease { .. })
    }

    /// A heartbeat that is due renews the lease: it has to be told from those before it.
    pub(crate) fn renew_lease(&mut self) {
        let uses_leases = self.uses_leases();
        if let RoleState::Leader(role) = &mut self.role
            && uses_leases
        {
            role.reads.next_round();
        }
    }

    /// The clock was read, after all reads that wait had arrived. Their index was taken when they
    /// did; whether we still lead is looked at now.
    pub(crate) fn handle_clock(&mut self, nanoseconds: u64) {
        self.clock = self.clock.max(nanoseconds);
        let is_ready = self.uses_leases() && self.has_committed_in_term();
        let (commit, clock) = (self.commit, self.clock);
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        if !is_ready || !role.lease.holds(clock) {
            return;
        }
        let waiting = role.reads.take_waiting();
        self.counters.lease_reads += waiting.len() as u64;
        for reader in waiting {
            self.answer_reader(reader, commit);
        }
    }
}
