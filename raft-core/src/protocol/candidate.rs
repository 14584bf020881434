//! Campaigns: first a pre-vote that changes nothing anywhere, then the vote itself.

use std::collections::BTreeMap;

use crate::message::{Message, PreVote, PreVoteReply, Vote, VoteReply};
use crate::protocol::quorum::Tally;
use crate::protocol::{Raft, RoleState};
use crate::types::{LogId, NodeId};

/// Asks whether it could win.
#[derive(Debug)]
pub(crate) struct PreCandidate {
    answers: BTreeMap<NodeId, bool>,
    elapsed: u32,
    deadline: u32,
}

/// Asks for votes in its term.
#[derive(Debug)]
pub(crate) struct Candidate {
    answers: BTreeMap<NodeId, bool>,
    /// Last log ids of those who answered: hints where to start replicating.
    hints: BTreeMap<NodeId, LogId>,
    /// The write that holds our own vote. It counts once that is durable, like everybody's.
    own_vote: u64,
    elapsed: u32,
    deadline: u32,
}

impl Raft {
    pub(crate) fn become_pre_candidate(&mut self) {
        let deadline = self.draw_deadline();
        let own = self.own_voice();
        let answers = own.into_iter().map(|id| (id, true)).collect();
        self.refuse_reads(None);
        self.role = RoleState::PreCandidate(PreCandidate {
            answers,
            elapsed: 0,
            deadline,
        });
        if self.count_pre_votes() == Tally::Pending {
            let next_term = self.hard_state.term.next();
            self.broadcast(&Message::PreVote(PreVote {
                next_term,
                last: self.last(),
            }));
        }
    }

    /// A new term, and our vote in it for ourselves. The request is a promise of all that it
    /// claims, so it rides in the write: asking before the vote is durable, losing power and asking
    /// again could win the same term twice.
    ///
    /// `is_transfer`: the leader asked for it.
    pub(crate) fn become_candidate(&mut self, is_transfer: bool) {
        self.adopt_term(self.hard_state.term.next());
        self.set_vote(self.config.id);
        self.counters.elections += 1;
        let deadline = self.draw_deadline();
        self.role = RoleState::Candidate(Candidate {
            answers: BTreeMap::new(),
            hints: BTreeMap::new(),
            own_vote: self.outbox.open_write(),
            elapsed: 0,
            deadline,
        });
        let vote = Vote {
            last: self.last(),
            is_transfer,
        };
        for peer in self.peers() {
            self.promise(peer, Message::Vote(vote));
        }
    }

    pub(crate) fn candidate_tick(&mut self) {
        let (elapsed, deadline) = match &mut self.role {
            RoleState::PreCandidate(role) => (&mut role.elapsed, role.deadline),
            RoleState::Candidate(role) => (&mut role.elapsed, role.deadline),
            RoleState::Follower(_) | RoleState::Leader(_) => return,
        };
        *elapsed += 1;
        if *elapsed >= deadline {
            // Nobody won in time. Ask anew from the beginning, with another deadline.
            self.become_pre_candidate();
        }
    }

    pub(crate) fn handle_pre_vote_reply(&mut self, from: NodeId, reply: PreVoteReply) {
        let RoleState::PreCandidate(role) = &mut self.role else {
            return;
        };
        if reply.next_term != self.hard_state.term.next() {
            return; // An answer to an earlier round.
        }
        role.answers.insert(from, reply.granted);
        self.count_pre_votes();
    }

    fn count_pre_votes(&mut self) -> Tally {
        let RoleState::PreCandidate(role) = &self.role else {
            return Tally::Pending;
        };
        let outcome = self.electorate.tally(|id| role.answers.get(&id).copied());
        match outcome {
            Tally::Won => self.become_candidate(false),
            Tally::Lost => self.become_follower(None),
            Tally::Pending => {}
        }
        outcome
    }

    pub(crate) fn handle_vote_reply(&mut self, from: NodeId, reply: VoteReply) {
        match &mut self.role {
            RoleState::Candidate(role) => {
                role.answers.insert(from, reply.granted);
                role.hints.insert(from, reply.last);
                self.count_votes();
            }
            // We have won already; the answer still tells where to start replicating.
            RoleState::Leader(_) => self.hint_progress(from, reply.last),
            RoleState::Follower(_) | RoleState::PreCandidate(_) => {}
        }
    }

    /// A write is durable: perhaps the one with our own vote.
    pub(crate) fn candidate_persisted(&mut self, number: u64) {
        let own = self.own_voice();
        let RoleState::Candidate(role) = &mut self.role else {
            return;
        };
        if number >= role.own_vote {
            role.answers.extend(own.map(|id| (id, true)));
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let RoleState::Candidate(role) = &mut self.role else {
            return;
        };
        match self.electorate.tally(|id| role.answers.get(&id).copied()) {
            Tally::Won => {
                assert_eq!(
                    self.hard_state.vote,
                    Some(self.config.id),
                    "it voted for itself"
                );
                let hints = std::mem::take(&mut role.hints);
                self.become_leader(&hints);
            }
            Tally::Lost => self.become_follower(None),
            Tally::Pending => {}
        }
    }
}
