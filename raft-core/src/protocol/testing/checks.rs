//! The safety properties of paper figure 3, checked across all nodes after every step.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::message::{Envelope, Message};
use crate::protocol::{Raft, ReadTicket, Role};
use crate::types::{Index, LogId, NodeId, Term};

#[derive(Debug, Default)]
pub(super) struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    /// For each node and term the candidate that was promised a vote, over all lives of the node.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// What anybody has applied, by index.
    committed: BTreeMap<Index, Entry>,
    /// The highest index that was committed when a read began.
    reads: BTreeMap<ReadTicket, Index>,
}

impl Checks {
    /// `held` tells what a node has on its disk at an index.
    pub(super) fn node(
        &mut self,
        id: NodeId,
        raft: &Raft,
        held: impl Fn(NodeId, Index) -> Option<LogId>,
    ) {
        let state = raft.state();
        let term = state.hard_state.term;
        assert!(state.applied <= state.commit, "n{id}: applied is committed");
        assert!(
            state.commit <= state.last.index,
            "n{id}: committed is in the log"
        );
        assert!(
            state.durable <= state.last.index,
            "n{id}: durable is in the log"
        );
        if state.role == Role::Leader {
            let leader = *self.leaders.entry(term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {term}");
            for entry in self.committed.values() {
                assert!(
                    raft.log.contains(entry.id()) || entry.term() > term,
                    "n{id} leads term {term} without committed entry {}",
                    entry.id()
                );
            }
            // A deposed leader may count entries that its successor has removed by now.
            let newest = self.leaders.keys().next_back() == Some(&term);
            for (follower, matched) in state.matched {
                if newest && matched > Index(0) {
                    let claimed = raft.log.id_at(matched);
                    assert_eq!(
                        held(follower, matched),
                        Some(claimed),
                        "n{follower} matched"
                    );
                }
            }
        }
    }

    /// Every promise that leaves is remembered: nobody votes twice in a term, whatever it forgot.
    pub(super) fn sent(&mut self, envelope: &Envelope) {
        let candidate = match &envelope.message {
            Message::VoteReply(reply) if reply.granted => envelope.to,
            Message::Vote(_) => envelope.from,
            _ => return,
        };
        let key = (envelope.from, envelope.term);
        let voted = *self.votes.entry(key).or_insert(candidate);
        assert_eq!(
            voted, candidate,
            "n{} votes twice in term {}",
            envelope.from, envelope.term
        );
    }

    /// All nodes apply the same entries in the same order.
    pub(super) fn applied(&mut self, entry: &Entry) {
        let committed = self
            .committed
            .entry(entry.index())
            .or_insert_with(|| entry.clone());
        assert_eq!(
            committed,
            entry,
            "another entry was applied at {}",
            entry.index()
        );
    }

    pub(super) fn read_begun(&mut self, ticket: ReadTicket) {
        self.reads.insert(ticket, self.highest());
    }

    /// A read sees at least what was committed when it began.
    pub(super) fn read_ready(&mut self, id: NodeId, ticket: ReadTicket, index: Index) {
        let needed = self.reads.remove(&ticket).unwrap_or_default();
        assert!(
            index >= needed,
            "n{id}: a read at {index} misses what was applied at {needed}"
        );
    }

    fn highest(&self) -> Index {
        self.committed
            .keys()
            .next_back()
            .copied()
            .unwrap_or_default()
    }
}
