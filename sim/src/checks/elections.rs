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
