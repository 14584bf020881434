//! Hands each field of the effects to its executor. A new field is one more place here.

use raft_core::protocol::{Apply, Effects, ProposalTicket, ReadTicket, RoleChange};
use raft_core::{Index, LogId, NodeId, ProposeError, ReadError, Role, SnapshotMeta};

use crate::coverage::Mark;
use crate::event::Event;
use crate::node::{Answer, Origin, Work};
use crate::violation::Violation;
use crate::world::World;

impl World {
    /// In the order in which the driver of a real node does it.
    pub(crate) fn execute(&mut self, id: NodeId, effects: Effects) -> Result<(), Violation> {
        let Effects {
            writes,
            send,
            load,
            restore,
            apply,
            take_snapshot,
            send_snapshot,
            proposed,
            reads_ready,
            reads_refused,
            changed,
            transferred,
            members_changed,
            role_changed,
        } = effects;
        for write in writes {
            self.node_mut(id).disk.push(write);
        }
        self.begin_sync(id);
        for envelope in send {
            self.transmit(envelope);
        }
        for load in load {
            self.begin_load(id, load);
        }
        if let Some(meta) = restore {
            self.hand_over_snapshot(id, meta);
        }
        if let Some(range) = apply {
            self.hand_over(id, range);
        }
        if let Some(meta) = take_snapshot {
            self.queue_work(id, Work::TakeSnapshot(meta));
        }
        for envelope in send_snapshot {
            self.send_snapshot(envelope)?;
        }
        self.answer_proposals(id, proposed);
        self.answer_reads_of_turn(id, reads_ready, reads_refused)?;
        for (ticket, outcome) in changed {
            self.coverage.count_if(outcome.is_ok(), Mark::Changed);
            self.answer_operation(id, ticket.0, Answer::Changed(outcome));
        }
        for (ticket, outcome) in transferred {
            self.coverage.count_if(outcome.is_ok(), Mark::Transferred);
            self.answer_operation(id, ticket.0, Answer::Transferred(outcome));
        }
        if let Some(members) = members_changed {
            self.coverage.count_if(members.is_joint(), Mark::Joint);
        }
        if let Some(change) = role_changed {
            self.role_changed(id, change);
        }
        Ok(())
    }

    fn answer_operation(&mut self, id: NodeId, ticket: u64, answer: Answer) {
        let origin = self.node_mut(id).waiters.operations.remove(&ticket);
        if let Some(origin) = origin {
            self.answer(id, origin, answer);
        }
    }

    /// Whoever waits for an entry that a snapshot stands for does not hear what it came to.
    fn hand_over_snapshot(&mut self, id: NodeId, meta: SnapshotMeta) {
        let waiters = &mut self.node_mut(id).waiters;
        waiters.handed_over = waiters.handed_over.max(meta.last.index);
        let count = waiters
            .placed
            .partition_point(|(placed, _)| placed.index <= meta.last.index);
        let gone: Vec<_> = waiters.placed.drain(..count).collect();
        for (_, origin) in gone {
            self.answer(id, origin, Answer::NotProposed(ProposeError::Unknown));
        }
        self.queue_work(id, Work::Restore(meta));
    }

    fn answer_proposals(
        &mut self,
        id: NodeId,
        proposed: Vec<(ProposalTicket, Result<LogId, ProposeError>)>,
    ) {
        for (ticket, placed) in proposed {
            let origin = self.node_mut(id).waiters.unplaced.remove(&ticket);
            if let Some(origin) = origin {
                self.place_waiter(id, origin, placed);
            }
        }
    }

    fn answer_reads_of_turn(
        &mut self,
        id: NodeId,
        reads_ready: Vec<(ReadTicket, Index)>,
        reads_refused: Vec<(ReadTicket, ReadError)>,
    ) -> Result<(), Violation> {
        for (ticket, index) in reads_ready {
            self.checks.reads.ready(id, ticket, index)?;
            let waiting = self.node_mut(id).waiters.reads.remove(&ticket);
            if let Some((origin, query)) = waiting {
                self.queue_work(
                    id,
                    Work::Read {
                        index,
                        origin,
                        query,
                    },
                );
            }
        }
        for (ticket, error) in reads_refused {
            self.checks.reads.refused(ticket);
            self.coverage.count(Mark::ReadRefused);
            let waiting = self.node_mut(id).waiters.reads.remove(&ticket);
            if let Some((origin, _)) = waiting {
                self.answer(id, origin, Answer::NotRead(error));
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, id: NodeId, range: Apply) {
        let waiters = &mut self.node_mut(id).waiters;
        waiters.handed_over = waiters.handed_over.max(range.to);
        let count = waiters
            .placed
            .partition_point(|(placed, _)| placed.index <= range.to);
        let waiters = waiters.placed.drain(..count).collect();
        self.queue_work(id, Work::Apply { range, waiters });
    }

    fn place_waiter(&mut self, id: NodeId, origin: Origin, placed: Result<LogId, ProposeError>) {
        if let Origin::Suite(request) = origin {
            self.placed.insert(request, placed.clone());
        }
        let at = match placed {
            Err(error) => {
                let is_busy = matches!(error, ProposeError::Busy { .. });
                let is_short = matches!(error, ProposeError::NoRoom(_));
                self.coverage.count_if(is_busy, Mark::Busy);
                self.coverage.count_if(is_short, Mark::LeaderShort);
                self.answer(id, origin, Answer::NotProposed(error));
                return;
            }
            Ok(at) => at,
        };
        let unknown = || Answer::NotProposed(ProposeError::Unknown);
        let waiters = &mut self.node_mut(id).waiters;
        if at.index <= waiters.handed_over {
            self.answer(id, origin, unknown());
            return;
        }
        // Whoever waits for an entry at or behind this one waits for one that is gone.
        let first = waiters
            .placed
            .partition_point(|(placed, _)| placed.index < at.index);
        let stale: Vec<_> = waiters.placed.drain(first..).collect();
        waiters.placed.push_back((at, origin));
        for (_, origin) in stale {
            self.answer(id, origin, unknown());
        }
    }

    /// What a node appended as the leader of another term may still be committed by somebody else.
    fn role_changed(&mut self, id: NodeId, change: RoleChange) {
        let leads = change.role == Role::Leader;
        let waiters = &mut self.node_mut(id).waiters;
        let (kept, lost) = std::mem::take(&mut waiters.placed)
            .into_iter()
            .partition(|(at, _)| leads && at.term == change.term);
        waiters.placed = kept;
        for (_, origin) in lost {
            self.answer(id, origin, Answer::NotProposed(ProposeError::Unknown));
        }
    }

    /// Somebody gets an answer: a suite at once, a client when the network brings it.
    pub(crate) fn answer(&mut self, id: NodeId, origin: Origin, answer: Answer) {
        match origin {
            Origin::Suite(request) => {
                self.answers.insert(request, answer);
            }
            Origin::Operator => self.operator_answered(&answer),
            Origin::Client { client, attempt } => {
                let Some(after) = self.client_delay() else {
                    return;
                };
                let event = Event::Answer {
                    node: id,
                    client,
                    attempt,
                    answer,
                };
                self.plan(after, event);
            }
        }
    }
}
