//! Linearizable reads by ReadIndex (thesis 6.4), confirmed in numbered rounds.
//!
//! A round takes the commit index, asks everybody "do I still lead?" and is confirmed when a
//! majority has answered a round with its number or a higher one. Rounds are numbered by the leader
//! and never named by a caller, so that a late answer to one question can never confirm another.
//! All reads that wait share the next round; one round is under way at a time.

use std::collections::VecDeque;

use crate::error::ReadError;
use crate::protocol::input::ReadTicket;
use crate::protocol::quorum::confirmed_by_majority;
use crate::protocol::{Raft, RoleState};
use crate::types::{Index, NodeId};

/// Reads at a leader.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The newest round that was begun in this term.
    round: u64,
    /// Reads that no round was begun for.
    waiting: VecDeque<ReadTicket>,
    asked: Option<Round>,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// The commit index when the round began: what the reads have to see.
    index: Index,
    tickets: VecDeque<ReadTicket>,
}

impl Reads {
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    fn pending(&self) -> usize {
        self.waiting.len() + self.asked.as_ref().map_or(0, |round| round.tickets.len())
    }
}

impl Raft {
    pub(crate) fn handle_read(&mut self, tickets: Vec<ReadTicket>) {
        let limit = self.config.limits.reads_pending_max;
        let leader = self.leader();
        let effects = self.outbox.effects();
        let RoleState::Leader(role) = &mut self.role else {
            let refused = tickets
                .into_iter()
                .map(|t| (t, ReadError::NotLeader { leader }));
            effects.reads_refused.extend(refused);
            return;
        };
        for ticket in tickets {
            if role.reads.pending() < limit {
                role.reads.waiting.push_back(ticket);
            } else {
                let busy = ReadError::Busy {
                    limit_name: "reads_pending_max",
                    limit,
                };
                effects.reads_refused.push((ticket, busy));
            }
        }
    }

    /// Begins a round for the reads that wait. Held back until an entry of the own term is
    /// committed: before that a new leader does not know what its predecessors committed.
    pub(crate) fn begin_read_round(&mut self) {
        let own_term_committed = self.log.term_at(self.commit) == Some(self.hard_state.term);
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        if !own_term_committed || role.reads.asked.is_some() || role.reads.waiting.is_empty() {
            return;
        }
        role.reads.round += 1;
        role.reads.asked = Some(Round {
            number: role.reads.round,
            index: self.commit,
            tickets: std::mem::take(&mut role.reads.waiting),
        });
        self.broadcast_heartbeat();
        self.confirm_reads();
    }

    /// Answers the reads of the round that a majority has confirmed, and begins the next.
    pub(crate) fn confirm_reads(&mut self) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let own_round = role.reads.round;
        let mut rounds: Vec<_> = self
            .voters
            .iter()
            .map(|id| role.round_of(*id).unwrap_or(own_round))
            .collect();
        let confirmed = confirmed_by_majority(&mut rounds);
        let Some(asked) = role.reads.asked.take_if(|asked| asked.number <= confirmed) else {
            return;
        };
        let ready = asked
            .tickets
            .into_iter()
            .map(|ticket| (ticket, asked.index));
        self.outbox.effects().reads_ready.extend(ready);
    }

    /// Leadership ends: whoever waits is told where to go.
    pub(crate) fn refuse_reads(&mut self, leader: Option<NodeId>) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let asked = role
            .reads
            .asked
            .take()
            .map(|round| round.tickets)
            .unwrap_or_default();
        let waiting = std::mem::take(&mut role.reads.waiting);
        let refused = asked
            .into_iter()
            .chain(waiting)
            .map(|ticket| (ticket, ReadError::NotLeader { leader }));
        self.outbox.effects().reads_refused.extend(refused);
    }
}
