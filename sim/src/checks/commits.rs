//! What is committed: by whom it was first known, that it never changes, that it is on enough
//! disks, and that whoever leads has it.

use std::collections::BTreeMap;

use raft_core::protocol::{State, majority};
use raft_core::{Entry, Incarnation, Index, LogId, Membership, NodeId, Role, SnapshotMeta, Term};

use crate::budget::halves;
use crate::node::{Node, Standing};
use crate::violation::{Violation, require};

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// The membership with which the last entry was committed.
    members: Membership,
    /// The membership that the group began with.
    bootstrap: Membership,
    /// Every entry that anybody wrote and that carries a membership.
    changes: BTreeMap<LogId, Membership>,
    /// For each index the term of the entry, and the term in which it was first known to be
    /// committed.
    known: Vec<(Term, Term)>,
}

impl Commits {
    pub(super) fn new(members: Membership) -> Self {
        Self {
            bootstrap: members.clone(),
            members,
            changes: BTreeMap::new(),
            known: Vec::new(),
        }
    }

    /// Somebody writes an entry with another membership.
    pub(super) fn change(&mut self, entry: &Entry) -> Result<(), Violation> {
        if self.changes.contains_key(&entry.id()) {
            return Ok(());
        }
        let membership = Membership::decode(entry.payload()).map_err(|error| Violation {
            invariant: 44,
            what: format!("{}: {error}", entry.id()),
        })?;
        self.changes.insert(entry.id(), membership);
        Ok(())
    }

    /// A snapshot up to an entry says who the members are.
    ///
    /// # Errors
    /// When that is not what the log up to there says.
    pub(crate) fn snapshot(&self, id: NodeId, meta: &SnapshotMeta) -> Result<(), Violation> {
        self.is_committed(id, meta.last)?;
        let committed = self
            .changes
            .iter()
            .filter(|(at, _)| at.index <= meta.last.index && self.at(at.index) == Some(**at));
        let newest = committed.max_by_key(|(at, _)| at.index);
        let expected = newest.map_or(&self.bootstrap, |(_, membership)| membership);
        require(*expected == meta.membership, 44, || {
            let last = meta.last;
            format!(
                "n{id} at {last} says {:?}, the log {expected:?}",
                meta.membership
            )
        })
    }

    /// The last entry that anybody knows to be committed.
    #[must_use]
    pub(crate) fn last(&self) -> LogId {
        let index = Index(self.known.len() as u64);
        self.known
            .last()
            .map_or(LogId::ZERO, |(term, _)| LogId::new(*term, index))
    }

    /// The committed entry at an index.
    #[must_use]
    pub(crate) fn at(&self, index: Index) -> Option<LogId> {
        let position = usize::try_from(index.0.checked_sub(1)?).ok()?;
        let (term, _) = self.known.get(position)?;
        Some(LogId::new(*term, index))
    }

    /// A node begins its log behind an entry, which therefore has to be committed.
    pub(crate) fn is_committed(&self, id: NodeId, entry: LogId) -> Result<(), Violation> {
        let known = self.at(entry.index);
        require(known == Some(entry), 42, || {
            format!("n{id} begins behind {entry}; committed there is {known:?}")
        })
    }

    /// Takes in the commit index of a node. Returns whether that is news.
    pub(super) fn turn(&mut self, node: &Node, before: &State) -> Result<bool, Violation> {
        let (id, state) = (node.id, &node.state);
        if state.commit == before.commit {
            return Ok(false);
        }
        let own = state.hard_state.term;
        let mut grown = false;
        // What a snapshot stands for was compared when it was taken.
        let first = before.commit.next().max(node.log.start().index);
        for index in first.0.max(1)..=state.commit.0 {
            let Some(term) = node.log.term_at(Index(index)) else {
                return require(false, 36, || {
                    format!("n{id} commits {index}, its log ends at {}", node.log.last())
                })
                .map(|()| false);
            };
            let position = usize::try_from(index - 1).expect("logs fit into memory");
            match self.known.get(position) {
                None => {
                    self.known.push((term, own));
                    grown = true;
                }
                Some((known, _)) => require(*known == term, 26, || {
                    format!("n{id} commits {index}@{term}, known was {index}@{known}")
                })?,
            }
        }
        let led = before.role == Role::Leader && before.hard_state.term == own;
        if led && state.role == Role::Leader {
            let term = node.log.term_at(state.commit);
            require(term == Some(own), 30, || {
                format!(
                    "n{id} leads term {own} and commits {} of {term:?}",
                    state.commit
                )
            })?;
        }
        Ok(grown)
    }

    /// A node committed more than was known, with the membership that it had before this turn or
    /// has now: the turn may have begun a change behind what it committed.
    pub(super) fn committed_by(
        &mut self,
        node: &Node,
        before: &State,
        nodes: &[Node],
    ) -> Result<(), Violation> {
        self.members.clone_from(&node.state.membership);
        if before.membership_index == node.state.membership_index {
            return self.safe_on_disks(nodes);
        }
        if self.safe_on_disks(nodes).is_ok() {
            return Ok(());
        }
        self.members.clone_from(&before.membership);
        self.safe_on_disks(nodes)
    }

    /// By Log Matching it is enough to look at the last entry. A disk that was lost counts as a
    /// holder and as a voter that refuses: it never comes back under its name. So does one that
    /// lost this entry, until it has it again.
    ///
    /// # Errors
    /// When too few disks have it, or somebody without it could win.
    pub(crate) fn safe_on_disks(&self, nodes: &[Node]) -> Result<(), Violation> {
        let last = self.last();
        if last == LogId::ZERO {
            return Ok(());
        }
        let of = |id: NodeId, incarnation: Incarnation| {
            let mut disks = nodes.iter().filter(|node| node.standing != Standing::Lost);
            disks.find(|node| node.id == id && node.incarnation == incarnation)
        };
        for half in halves(&self.members) {
            let needed = majority(half.len());
            let lacking: Vec<_> = half
                .iter()
                .filter_map(|(id, incarnation)| of(*id, *incarnation))
                .filter(|node| !node.disk.has(last) && !node.disk.vouches_for(last))
                .collect();
            let holders = half.len() - lacking.len();
            require(half.is_empty() || holders >= needed, 27, || {
                format!("{last} is on {holders} of {} disks", half.len())
            })?;
            if !self.changes.is_empty() {
                continue;
            }
            // Who lost entries neither wins nor votes.
            for candidate in lacking.iter().filter(|node| !node.disk.is_refilling()) {
                let end = candidate.disk.last();
                let voters = half.iter().filter_map(|(id, life)| of(*id, *life));
                let votes = voters
                    .filter(|voter| !voter.disk.is_refilling() && voter.disk.last() <= end)
                    .count();
                require(votes < needed, 28, || {
                    format!(
                        "n{}, at {end}, lacks {last} and could win {votes} votes",
                        candidate.id
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Leader Completeness (paper figure 3). What was first known in a later term may be missing.
    pub(super) fn held_by_leader(&self, leader: &Node) -> Result<(), Violation> {
        let term = leader.state.hard_state.term;
        let newest = self
            .known
            .iter()
            .enumerate()
            .rev()
            .find(|(_, (_, known_in))| *known_in <= term);
        let Some((position, (entry_term, _))) = newest else {
            return Ok(());
        };
        let id = LogId::new(*entry_term, Index(position as u64 + 1));
        require(leader.log.has(id), 29, || {
            format!(
                "n{} leads term {term}, ends at {} and lacks {id}",
                leader.id,
                leader.log.last()
            )
        })
    }
}
