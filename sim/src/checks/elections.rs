//! Who led which term, and who promised whom a vote, over all lives of all nodes.

use std::collections::BTreeMap;

use raft_core::{Envelope, HardState, Incarnation, LogId, NodeId, Term};

use crate::disk::Disk;
use crate::node::Node;
use crate::violation::{Violation, require};

/// One who can promise: a member that lost its disk is somebody else.
type Voter = (NodeId, Incarnation);

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Elections {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Voter, Term), NodeId>,
    /// The last log id with which each candidate asked for votes in a term.
    claims: BTreeMap<(NodeId, Term), LogId>,
}

impl Elections {
    /// The newest term that anybody led.
    #[must_use]
    pub(crate) fn newest_term(&self) -> Term {
        let newest = self.leaders.keys().next_back();
        newest.copied().unwrap_or_default()
    }

    /// Terms that had a leader.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.leaders.len()
    }

    pub(super) fn leads(&mut self, node: &Node) -> Result<(), Violation> {
        let (id, hard_state) = (node.id, node.state.hard_state);
        let leader = *self.leaders.entry(hard_state.term).or_insert(id);
        require(leader == id, 20, || {
            format!("n{leader} and n{id} lead term {}", hard_state.term)
        })?;
        require(node.disk.hard_state() == hard_state, 33, || {
            let found = node.disk.hard_state();
            format!("n{id} leads with {hard_state:?}, its disk has {found:?}")
        })
    }

    pub(super) fn claimed(&mut self, envelope: &Envelope, last: LogId) {
        self.claims.insert((envelope.from, envelope.term), last);
    }

    pub(super) fn granted_to_newer(
        &self,
        envelope: &Envelope,
        last: LogId,
    ) -> Result<(), Violation> {
        let (from, to, term) = (envelope.from, envelope.to, envelope.term);
        let claimed = self.claims.get(&(to, term)).copied();
        require(claimed.is_none_or(|claimed| claimed >= last), 22, || {
            format!("n{from}, at {last}, votes in term {term} for n{to}, at {claimed:?}")
        })
    }

    pub(super) fn promised(
        &mut self,
        envelope: &Envelope,
        candidate: NodeId,
        disk: &Disk,
    ) -> Result<(), Violation> {
        let (from, term) = (envelope.from, envelope.term);
        let promised = HardState {
            term,
            vote: Some(candidate),
        };
        require(disk.hard_state() == promised, 33, || {
            let found = disk.hard_state();
            format!("n{from} votes for n{candidate} in term {term}, its disk has {found:?}")
        })?;
        let voter = (from, envelope.from_incarnation);
        let voted = *self.votes.entry((voter, term)).or_insert(candidate);
        require(voted == candidate, 21, || {
            format!("n{from} votes for n{voted} and for n{candidate} in term {term}")
        })
    }
}

#[cfg(test)]
mod tests {
    use raft_core::message::Vote;
    use raft_core::protocol::{LogStart, Write};
    use raft_core::{AppendBatch, ClusterId, GroupId, Index, Message};

    use super::*;

    fn asks(from: u64, to: u64, incarnation: u64) -> Envelope {
        let last = LogId::ZERO;
        Envelope {
            cluster: ClusterId::default(),
            group: GroupId(0),
            from: NodeId(from),
            from_incarnation: Incarnation(incarnation),
            to: NodeId(to),
            to_incarnation: Incarnation(to),
            term: Term(3),
            message: Message::Vote(Vote {
                last,
                is_transfer: false,
            }),
        }
    }

    fn disk_with_vote(candidate: u64) -> Disk {
        let mut disk = Disk::default();
        let hard_state = Some(HardState {
            term: Term(3),
            vote: Some(NodeId(candidate)),
        });
        disk.finish(&Write {
            number: 1,
            log_start: None::<LogStart>,
            batch: AppendBatch {
                hard_state,
                ..AppendBatch::default()
            },
            last: LogId::ZERO,
            promises: Vec::new(),
        });
        disk
    }

    #[test]
    fn a_voter_promises_one_candidate_per_term_and_only_what_is_on_its_disk() {
        let mut elections = Elections::default();
        let promised = |elections: &mut Elections, envelope: &Envelope, candidate, disk: &Disk| {
            let promised = elections.promised(envelope, NodeId(candidate), disk);
            promised.err().map(|violation| violation.invariant)
        };
        let (two, three) = (disk_with_vote(2), disk_with_vote(3));
        let voter = asks(1, 2, 100);
        assert_eq!(promised(&mut elections, &voter, 2, &two), None);
        assert_eq!(promised(&mut elections, &voter, 3, &two), Some(33));
        assert_eq!(promised(&mut elections, &voter, 3, &three), Some(21));
        let reborn = asks(1, 2, 101);
        assert_eq!(promised(&mut elections, &reborn, 3, &three), None);
    }

    #[test]
    fn a_vote_goes_to_a_log_that_is_at_least_as_new() {
        let mut elections = Elections::default();
        let at = |index| LogId::new(Term(2), Index(index));
        elections.claimed(&asks(2, 1, 200), at(5));
        let answer = asks(1, 2, 100);
        assert_eq!(elections.granted_to_newer(&answer, at(5)), Ok(()));
        let older = elections.granted_to_newer(&answer, at(6));
        assert_eq!(older.expect_err("it lacks one").invariant, 22);
    }
}
