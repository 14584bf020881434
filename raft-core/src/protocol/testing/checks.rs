//! The safety properties of paper figure 3, and the promises that carry them, checked across all
//! nodes after every step.

use std::collections::BTreeMap;

use super::cluster::TestNode;
use super::disk::Disk;
use crate::entry::Entry;
use crate::message::{AppendReply, Envelope, Message};
use crate::protocol::{Electorate, Raft, ReadTicket, Role, State};
use crate::types::{HardState, Incarnation, Index, LogId, NodeId, Term};

#[derive(Debug, Default)]
pub(super) struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    /// For each node and term the candidate that was promised a vote, over all lives of the node.
    votes: BTreeMap<(NodeId, Incarnation, Term), NodeId>,
    /// The last log id with which each candidate asked for votes in a term.
    claims: BTreeMap<(NodeId, Term), LogId>,
    /// What anybody knew to be committed, and the term in which that was first known.
    committed: BTreeMap<Index, (LogId, Term)>,
    /// How far each node's commit index was compared.
    compared: BTreeMap<NodeId, Index>,
    /// What anybody has applied, by index.
    applied: BTreeMap<Index, Entry>,
    /// The highest index that was committed when a read began.
    reads: BTreeMap<ReadTicket, Index>,
}

impl Checks {
    pub(super) fn node(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, TestNode>) {
        let disk = &nodes[&id].disk;
        let raft = nodes[&id].raft.as_ref().expect("up");
        let state = raft.state();
        assert!(state.applied <= state.commit, "n{id}: applied is committed");
        assert!(
            state.commit <= state.last.index,
            "n{id}: committed is there"
        );
        assert!(state.durable <= state.last.index, "n{id}: durable is there");
        if state.durable >= state.start.index {
            let durable = raft.log.id_at(state.durable);
            assert!(disk.has(durable), "n{id}: {durable} is not on the disk");
        }
        self.compare_committed(id, raft, &state);
        self.committed_is_safe(nodes);
        if state.role == Role::Leader {
            self.leader(id, raft, &state, nodes);
        }
    }

    /// State machine safety, before anything is applied: nobody commits another entry.
    fn compare_committed(&mut self, id: NodeId, raft: &Raft, state: &State) {
        let term = state.hard_state.term;
        let compared = self.compared.entry(id).or_default();
        // A node that restarted begins anew.
        let from = if *compared > state.commit {
            Index(0)
        } else {
            *compared
        };
        *compared = state.commit;
        let from = from.max(state.start.index.previous());
        for index in from.next().0..=state.commit.0 {
            let entry = raft.log.id_at(Index(index));
            let (known, _) = *self.committed.entry(Index(index)).or_insert((entry, term));
            assert_eq!(known, entry, "n{id} commits another entry at {index}");
        }
    }

    /// Nobody who does not have what is committed could be elected by what is on the disks, in the
    /// membership that it knows itself (paper 5.4.3). By Log Matching it is enough to look at the
    /// highest entry.
    fn committed_is_safe(&self, nodes: &BTreeMap<NodeId, TestNode>) {
        let Some((_, (entry, _))) = self.committed.last_key_value() else {
            return;
        };
        for node in nodes.values().filter(|node| !node.disk.has(*entry)) {
            let last = node.disk.last();
            let membership = node.disk.membership(&node.bootstrap);
            let known = |id: NodeId| {
                let member = membership.get(id).expect("a voter is a member");
                let other = nodes.get(&id)?;
                (other.incarnation == member.incarnation).then_some(other)
            };
            // A disk that lost entries neither wins nor votes until it has them again.
            let is_refilling = node.disk.refill_to.is_some();
            if !membership.is_voter(node.id) || known(node.id).is_none() || is_refilling {
                continue;
            }
            let votes = |id| {
                known(id).is_some_and(|voter| {
                    voter.disk.refill_to.is_none() && voter.disk.last() <= last
                })
            };
            assert!(
                !Electorate::of(&membership).is_quorum(votes),
                "n{} could win without committed {entry}",
                node.id
            );
        }
    }

    /// The state after the entry `last`, as everybody else had it.
    pub(super) fn applied_up_to(&self, last: LogId) -> Vec<Entry> {
        let entries: Vec<_> = self
            .applied
            .range(..=last.index)
            .map(|(_, e)| e.clone())
            .collect();
        assert_eq!(
            entries.last().map(Entry::id),
            Some(last),
            "it was applied somewhere"
        );
        entries
    }

    fn leader(
        &mut self,
        id: NodeId,
        raft: &Raft,
        state: &State,
        nodes: &BTreeMap<NodeId, TestNode>,
    ) {
        let hard_state = state.hard_state;
        let term = hard_state.term;
        let is_new = !self.leaders.contains_key(&term);
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "two leaders in term {term}");
        assert_eq!(
            nodes[&id].disk.hard_state, hard_state,
            "n{id} leads by a vote on its disk"
        );
        let newest_only = if is_new { usize::MAX } else { 1 };
        for (entry, known_in) in self.committed.values().rev().take(newest_only) {
            assert!(
                raft.log.contains(*entry) || entry.index < state.start.index || *known_in > term,
                "n{id} leads term {term} without committed entry {entry}"
            );
        }
        // A deposed leader may count entries that its successor has removed by now.
        if self.leaders.keys().next_back() == Some(&term) {
            for (follower, matched) in &state.matched {
                let life = state
                    .membership
                    .get(*follower)
                    .map(|member| member.incarnation);
                let other = nodes.get(follower).map(|node| node.incarnation);
                if *matched < state.start.index || life != other {
                    continue;
                }
                let claimed = raft.log.id_at(*matched);
                assert!(
                    nodes[follower].disk.has(claimed) || nodes[follower].disk.vouches_for(claimed),
                    "n{follower} matched {claimed}"
                );
            }
        }
    }

    /// A promise that leaves is true on the disk of whoever makes it. Each is remembered: nobody
    /// votes twice in a term, whatever it forgot, and only for a log at least as new as its own.
    pub(super) fn sent(&mut self, envelope: &Envelope, disk: &Disk) {
        let (from, to, term) = (envelope.from, envelope.to, envelope.term);
        let (candidate, last) = match &envelope.message {
            Message::Vote(vote) => {
                self.claims.insert((from, term), vote.last);
                (Some(from), vote.last)
            }
            Message::VoteReply(reply) => {
                if let Some(claimed) = self.claims.get(&(to, term)).filter(|_| reply.granted) {
                    assert!(*claimed >= reply.last, "n{from} votes for an older log");
                }
                (Some(to).filter(|_| reply.granted), reply.last)
            }
            Message::AppendReply(
                AppendReply::Accepted { matched } | AppendReply::NoRoom { matched },
            )
            | Message::RefillReply(
                AppendReply::Accepted { matched } | AppendReply::NoRoom { matched },
            ) => {
                assert!(
                    disk.last().index >= *matched,
                    "n{from} acknowledges {matched}"
                );
                (None, LogId::ZERO)
            }
            Message::AppendReply(AppendReply::Rejected { last, .. })
            | Message::RefillReply(AppendReply::Rejected { last, .. }) => (None, *last),
            _ => return,
        };
        assert_eq!(
            disk.hard_state.term, term,
            "n{from} speaks in a durable term"
        );
        assert!(
            disk.has(last),
            "n{from} claims {last}, which is not on its disk"
        );
        let is_counted = candidate.is_some() || matches!(envelope.message, Message::AppendReply(_));
        assert!(
            disk.refill_to.is_none() || !is_counted,
            "n{from} lost entries and wants to be counted"
        );
        let Some(candidate) = candidate else {
            return;
        };
        let durable = HardState {
            term,
            vote: Some(candidate),
        };
        assert_eq!(disk.hard_state, durable, "n{from}'s vote is on its disk");
        let voted = *self
            .votes
            .entry((from, envelope.from_incarnation, term))
            .or_insert(candidate);
        assert_eq!(voted, candidate, "n{from} votes twice in term {term}");
    }

    /// All nodes apply the same entries in the same order.
    pub(super) fn applied(&mut self, entry: &Entry) {
        let known = self
            .applied
            .entry(entry.index())
            .or_insert_with(|| entry.clone());
        assert_eq!(
            known,
            entry,
            "another entry was applied at {}",
            entry.index()
        );
    }

    pub(super) fn read_begun(&mut self, ticket: ReadTicket) {
        let highest = self.committed.keys().next_back().copied();
        self.reads.insert(ticket, highest.unwrap_or_default());
    }

    /// A read sees at least what was committed when it began.
    pub(super) fn read_ready(&mut self, id: NodeId, ticket: ReadTicket, index: Index) {
        let needed = self.reads.remove(&ticket).unwrap_or_default();
        assert!(
            index >= needed,
            "n{id}: a read at {index} misses what was committed at {needed}"
        );
    }
}
