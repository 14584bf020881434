//! The driver's table of proposals without an answer: first by ticket, until the protocol says
//! where each was appended, then by log id, until the apply task takes over. Bounded by the claims
//! that every waiter holds.

use std::collections::VecDeque;

use crate::error::ProposeError;
use crate::node::request::ProposeWaiter;
use crate::protocol::{ProposalTicket, Role, RoleChange};
use crate::types::{Index, LogId};

/// A waiter and the entry that it waits for.
pub(crate) type PlacedWaiter = (LogId, ProposeWaiter);

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    tickets_given: u64,
    /// In order of their tickets.
    unplaced: VecDeque<(ProposalTicket, ProposeWaiter)>,
    /// In order of the log.
    placed: VecDeque<PlacedWaiter>,
    /// The apply task has the waiters up to here.
    handed_over: Index,
}

impl Waiters {
    /// A table of a node whose state machine starts behind `applied`.
    pub(crate) fn new(applied: Index) -> Self {
        Self {
            handed_over: applied,
            ..Self::default()
        }
    }

    /// Takes in a new proposal and names it.
    pub(crate) fn enter(&mut self, waiter: ProposeWaiter) -> ProposalTicket {
        self.tickets_given += 1;
        let ticket = ProposalTicket(self.tickets_given);
        self.unplaced.push_back((ticket, waiter));
        ticket
    }

    /// The protocol said what became of a proposal.
    pub(crate) fn place(&mut self, ticket: ProposalTicket, placed: Result<LogId, ProposeError>) {
        // Tickets come back in order, so this is nearly always the front.
        let found = self
            .unplaced
            .binary_search_by_key(&ticket, |(ticket, _)| *ticket);
        let Some((_, waiter)) = found.ok().and_then(|at| self.unplaced.remove(at)) else {
            return;
        };
        match placed {
            Err(error) => waiter.answer(Err(error)),
            Ok(id) if id.index <= self.handed_over => waiter.answer(Err(ProposeError::Unknown)),
            Ok(id) => {
                // Whoever waits for an entry at or behind this one waits for one that is gone.
                while let Some((_, stale)) = self
                    .placed
                    .pop_back_if(|(placed, _)| placed.index >= id.index)
                {
                    stale.answer(Err(ProposeError::Unknown));
                }
                self.placed.push_back((id, waiter));
            }
        }
    }

    /// The waiters of all entries up to `to`, for the apply task.
    pub(crate) fn take_through(&mut self, to: Index) -> Vec<PlacedWaiter> {
        self.handed_over = self.handed_over.max(to);
        let count = self.placed.partition_point(|(id, _)| id.index <= to);
        self.placed.drain(..count).collect()
    }

    /// Who leads changed. What this node appended as the leader of another term may still be
    /// committed by somebody else, so nobody here can know.
    pub(crate) fn role_changed(&mut self, change: RoleChange) {
        let leads = change.role == Role::Leader;
        let (kept, lost) = std::mem::take(&mut self.placed)
            .into_iter()
            .partition(|(id, _)| leads && id.term == change.term);
        self.placed = kept;
        for (_, waiter) in lost {
            waiter.answer(Err(ProposeError::Unknown));
        }
    }

    /// Forgets those whose clients went away, so that their room can be used again.
    pub(crate) fn sweep(&mut self) {
        self.placed.retain(|(_, waiter)| !waiter.is_abandoned());
    }

    /// Proposals in the table.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.unplaced.len() + self.placed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::budget::Budget;
    use crate::node::request::Committed;
    use crate::types::{NodeId, Term};
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    type Answer = oneshot::Receiver<Result<Committed, ProposeError>>;

    fn waiter() -> (ProposeWaiter, Answer) {
        let budget = Budget::new("test_max", 100);
        let claims = [budget.claim(1).unwrap(), budget.claim(1).unwrap()];
        let (reply, answer) = oneshot::channel();
        (ProposeWaiter::new(reply, claims), answer)
    }

    fn placed(waiters: &mut Waiters, term: u64, index: u64) -> Answer {
        let (waiter, answer) = waiter();
        let ticket = waiters.enter(waiter);
        waiters.place(ticket, Ok(LogId::new(Term(term), Index(index))));
        answer
    }

    #[test]
    fn a_refused_proposal_is_answered_at_once() {
        let mut waiters = Waiters::default();
        let (waiter, mut answer) = waiter();
        let ticket = waiters.enter(waiter);
        let leader = Some(NodeId(2));
        waiters.place(ticket, Err(ProposeError::NotLeader { leader }));
        let refused = answer.try_recv().unwrap();
        assert_eq!(refused, Err(ProposeError::NotLeader { leader }));
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn waiters_leave_in_log_order_up_to_the_index_that_is_applied() {
        let mut waiters = Waiters::default();
        let _answers: Vec<_> = (3..8).map(|i| placed(&mut waiters, 1, i)).collect();
        let taken = waiters.take_through(Index(5));
        let indexes: Vec<u64> = taken.iter().map(|(id, _)| id.index.0).collect();
        assert_eq!(indexes, [3, 4, 5]);
        assert_eq!(waiters.len(), 2);
    }

    #[test]
    fn losing_the_leadership_answers_unknown_to_all_that_were_placed() {
        let mut waiters = Waiters::default();
        let mut answer = placed(&mut waiters, 1, 3);
        waiters.role_changed(RoleChange {
            term: Term(2),
            role: Role::Follower,
            leader: None,
        });
        assert_eq!(answer.try_recv().unwrap(), Err(ProposeError::Unknown));
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn winning_a_term_keeps_what_was_placed_in_it_and_only_that() {
        let mut waiters = Waiters::default();
        let mut old = placed(&mut waiters, 1, 3);
        let mut new = placed(&mut waiters, 2, 5);
        waiters.role_changed(RoleChange {
            term: Term(2),
            role: Role::Leader,
            leader: Some(NodeId(1)),
        });
        assert_eq!(old.try_recv().unwrap(), Err(ProposeError::Unknown));
        assert_eq!(new.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn a_place_that_was_already_applied_or_overwritten_is_unknown_and_never_lost() {
        let mut waiters = Waiters::new(Index(3));
        let mut applied = placed(&mut waiters, 1, 3);
        assert_eq!(applied.try_recv().unwrap(), Err(ProposeError::Unknown));
        let mut overwritten = placed(&mut waiters, 1, 5);
        let _new = placed(&mut waiters, 2, 4);
        assert_eq!(overwritten.try_recv().unwrap(), Err(ProposeError::Unknown));
        assert_eq!(waiters.len(), 1);
    }

    #[test]
    fn clients_that_went_away_are_swept() {
        let mut waiters = Waiters::default();
        drop(placed(&mut waiters, 1, 1));
        let _kept = placed(&mut waiters, 1, 2);
        waiters.sweep();
        assert_eq!(waiters.len(), 1);
    }
}
