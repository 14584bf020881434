//! Hands each field of the effects to its executor. A new field is one more place here.

use raft_core::protocol::{Apply, Effects, RoleChange};
use raft_core::{LogId, NodeId, ProposeError, Role};

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
            restore: _,
            apply,
            take_snapshot: _,
            send_snapshot: _,
            proposed,
            reads_ready,
            reads_refused,
            changed: _,
            transferred: _,
            members_changed: _,
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
        if let Some(range) = apply {
            self.hand_over(id, range);
        }
        for (ticket, placed) in proposed {
            let origin = self.node_mut(id).waiters.unplaced.remove(&ticket);
            if let Some(origin) = origin {
                self.place_waiter(id, origin, placed);
            }
        }
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
        if let Some(change) = role_changed {
            self.role_changed(id, change);
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
                self.coverage.count_if(is_busy, Mark::Busy);
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
