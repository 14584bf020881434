//! The protocol: a pure state machine. Inputs go in by [`Raft::step`], what is to be done comes out
//! by [`Raft::take_effects`]. No clock, no IO, no tasks, no randomness but a seed; the same inputs
//! give the same effects.
//!
//! This file holds what all roles share: who we are, the rules about terms, and how effects are put
//! together. What a role decides is in its own file.

mod admission;
mod candidate;
mod effects;
mod follower;
mod input;
mod leader;
mod log;
mod outbox;
mod progress;
mod quorum;
mod random;
mod reads;
#[cfg(test)]
mod testing;

use std::collections::VecDeque;

pub use effects::{Apply, Effects, Load, LogStart, Role, RoleChange, Write};
pub use input::{
    ChangeTicket, Input, Loaded, Persisted, Proposal, ProposalTicket, ReadTicket, TransferTicket,
};
pub use quorum::{Tally, confirmed_by_majority, held_by_majority, majority, tally};

use crate::config::{Config, ConfigError};
use crate::entry::Entry;
use crate::error::Refusal;
use crate::log_store::LoadedLog;
use crate::message::{Envelope, Message};
use crate::types::{HardState, Index, LogId, NodeId};
use candidate::{Candidate, PreCandidate};
use follower::Follower;
use leader::Leader;
use log::Log;
use outbox::Outbox;
use random::Random;

/// Entries that are handed to the state machine at once when they are read from the disk.
const COLD_APPLY_ENTRIES_MAX: u64 = 65_536;

/// The protocol state of one node.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    voters: Vec<NodeId>,
    hard_state: HardState,
    log: Log,
    commit: Index,
    /// Applied by the state machine.
    applied: Index,
    /// Handed to the state machine and not applied yet: end of each part, and its bytes.
    applying: VecDeque<(Index, usize)>,
    role: RoleState,
    random: Random,
    outbox: Outbox,
    refusals: Vec<Refusal>,
    counters: Counters,
    /// What was last told about who leads.
    told: RoleChange,
}

#[derive(Debug)]
enum RoleState {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// What happened since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that this node asked for votes.
    pub elections: u64,
    /// Appends of this node that a follower rejected.
    pub probes_rejected: u64,
    /// Messages that were refused before they meant anything.
    pub refused: u64,
}

/// A summary of one node, for status, metrics and invariant checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Term and vote.
    pub hard_state: HardState,
    /// What the node is.
    pub role: Role,
    /// Who leads, where that is known.
    pub leader: Option<NodeId>,
    /// The last entry.
    pub last: LogId,
    /// The last entry that is on this node's disk.
    pub durable: Index,
    /// The last entry known to be committed.
    pub commit: Index,
    /// The last entry applied.
    pub applied: Index,
    /// What the leader knows each other member to hold; empty elsewhere.
    pub matched: Vec<(NodeId, Index)>,
    /// What happened so far.
    pub counters: Counters,
}

impl Raft {
    /// A node with what its log store loaded, and a state machine that has applied up to `applied`.
    /// It starts as a follower with a random deadline.
    ///
    /// # Errors
    /// When a setting cannot work.
    pub fn new(config: Config, loaded: LoadedLog, applied: LogId) -> Result<Self, ConfigError> {
        config.validate()?;
        if applied.index > loaded.last.index {
            return Err(ConfigError::LogBehind {
                applied,
                last: loaded.last,
            });
        }
        let (term, last) = (loaded.hard_state.term, loaded.last);
        if term < last.term {
            return Err(ConfigError::TermBehind { term, last });
        }
        let voters: Vec<_> = config.members.voters().collect();
        let mut random = Random::of_node(config.seed, config.id);
        let (min, max) = (
            config.timing.election_ticks_min,
            config.timing.election_ticks_max,
        );
        let deadline = random.between(min, max);
        let hard_state = loaded.hard_state;
        let told = RoleChange {
            term: hard_state.term,
            role: Role::Follower,
            leader: None,
        };
        Ok(Self {
            config,
            voters,
            hard_state,
            log: Log::new(loaded),
            commit: applied.index,
            applied: applied.index,
            applying: VecDeque::new(),
            role: RoleState::Follower(Follower::new(None, deadline, u32::MAX)),
            random,
            outbox: Outbox::new(),
            refusals: Vec::new(),
            counters: Counters::default(),
            told,
        })
    }

    /// Takes in one thing that happened.
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Tick => self.tick(),
            Input::Message(envelope) => self.handle_message(envelope),
            Input::Propose(proposals) => self.handle_propose(proposals),
            Input::Read(tickets) => self.handle_read(tickets),
            Input::Persisted(done) => self.handle_persisted(done),
            Input::Loaded(loaded) => self.handle_loaded(loaded),
            Input::Applied(index) => self.handle_applied(index),
            Input::Unreachable(peer) => self.handle_unreachable(peer),
            Input::ChangeMembership(..)
            | Input::Transfer(..)
            | Input::SnapshotTaken(_)
            | Input::SnapshotSent { .. }
            | Input::Clock(_) => {}
        }
    }

    /// All effects since the last call: one write per disk batch, one round of appends per
    /// follower, one read round, one batch to apply.
    pub fn take_effects(&mut self) -> Effects {
        self.begin_read_round();
        self.replicate();
        self.hand_to_apply();
        let keep_above = self.commit;
        self.log.trim(self.config.limits.tail_bytes_max, keep_above);
        let state = RoleChange {
            term: self.hard_state.term,
            role: self.role(),
            leader: self.leader(),
        };
        if state != self.told {
            self.told = state;
            self.outbox.effects().role_changed = Some(state);
        }
        self.outbox.take(self.log.last())
    }

    /// Messages that were refused since the last call; at most a few are kept.
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    /// Where this node stands.
    #[must_use]
    pub fn state(&self) -> State {
        let matched = match &self.role {
            RoleState::Leader(role) => role.matched().map(|(id, index, _)| (id, index)).collect(),
            _ => Vec::new(),
        };
        State {
            hard_state: self.hard_state,
            role: self.role(),
            leader: self.leader(),
            last: self.log.last(),
            durable: self.log.durable(),
            commit: self.commit,
            applied: self.applied,
            matched,
            counters: self.counters,
        }
    }

    /// What this node is.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.role {
            RoleState::Follower(_) => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// Who leads this term, where that is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Follower(follower) => follower.leader,
            RoleState::Leader(_) => Some(self.config.id),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    fn tick(&mut self) {
        match &self.role {
            RoleState::Follower(_) => self.follower_tick(),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => self.candidate_tick(),
            RoleState::Leader(_) => self.leader_tick(),
        }
    }

    /// The rules about terms that hold for every message and role (paper figure 2, *all servers*).
    fn handle_message(&mut self, envelope: Envelope) {
        if let Err(refusal) = self.check(&envelope) {
            self.refuse(refusal);
            return;
        }
        let Envelope {
            from,
            term,
            message,
            ..
        } = envelope;
        let own = self.hard_state.term;
        // A question about the future changes nothing, whatever term it comes from.
        if let Message::PreVote(pre_vote) = message {
            self.handle_pre_vote(from, pre_vote);
            return;
        }
        if term > own {
            // While we hear a leader a vote request only disturbs: its sender may have been cut
            // off, or removed (thesis 4.2.3). Its term is not even looked at.
            if matches!(message, Message::Vote(_)) && self.is_led() {
                return;
            }
            self.adopt_term(term);
        } else if term < own && !matches!(message, Message::PreVoteReply(_)) {
            self.answer_stale(from, &message);
            return;
        }
        self.dispatch(from, message);
    }

    /// A sender of an older term. A leader or candidate is told the newer term, because it would go
    /// on undisturbed otherwise; everything else is just late.
    fn answer_stale(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::Append(_) | Message::Heartbeat(_) => {
                let reply = crate::message::HeartbeatReply { round: 0 };
                self.send(from, Message::HeartbeatReply(reply));
            }
            Message::Vote(_) => {
                let reply = crate::message::VoteReply {
                    granted: false,
                    last: self.last(),
                };
                self.promise(from, Message::VoteReply(reply));
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, from: NodeId, message: Message) {
        let leads = matches!(self.role, RoleState::Leader(_));
        match message {
            Message::Append(_) | Message::Heartbeat(_) if leads => {
                self.refuse_malformed(from, message.name());
            }
            Message::PreVote(pre_vote) => self.handle_pre_vote(from, pre_vote),
            Message::PreVoteReply(reply) => self.handle_pre_vote_reply(from, reply),
            Message::Vote(vote) => self.handle_vote(from, vote),
            Message::VoteReply(reply) => self.handle_vote_reply(from, reply),
            Message::Append(append) => self.handle_append(from, append),
            Message::AppendReply(reply) => self.handle_append_reply(from, reply),
            Message::Heartbeat(heartbeat) => self.handle_heartbeat(from, heartbeat),
            Message::HeartbeatReply(reply) => self.handle_heartbeat_reply(from, reply),
            Message::Snapshot(_)
            | Message::TimeoutNow
            | Message::ReadIndex(_)
            | Message::ReadIndexReply(_) => {}
        }
    }

    fn handle_persisted(&mut self, done: Persisted) {
        self.log.persisted(done);
        self.candidate_persisted(done.number);
        self.advance_commit();
    }

    fn handle_applied(&mut self, index: Index) {
        assert!(index <= self.commit, "only committed entries are applied");
        self.applied = self.applied.max(index);
        while self.applying.front().is_some_and(|(to, _)| *to <= index) {
            self.applying.pop_front();
        }
    }

    /// Hands committed entries over, but none that is not on the local disk: a durable state
    /// machine must never run ahead of its log.
    fn hand_to_apply(&mut self) {
        let handed = self.applying.back().map_or(self.applied, |(to, _)| *to);
        let to = self.commit.min(self.log.durable());
        let used: usize = self.applying.iter().map(|(_, bytes)| bytes).sum();
        let limit = self.config.limits.apply_bytes_max;
        if handed >= to || used >= limit {
            return;
        }
        let from = handed.next();
        let tail_first = self.log.tail_first();
        let apply = if from < tail_first {
            let to = to
                .min(tail_first.previous())
                .min(handed.plus(COLD_APPLY_ENTRIES_MAX));
            self.applying.push_back((to, limit));
            Apply {
                from,
                to,
                entries: Vec::new(),
            }
        } else {
            let (entries, bytes) = self.log.in_memory(from, to, limit - used, usize::MAX);
            let to = entries.last().expect("at least one entry").index();
            self.applying.push_back((to, bytes));
            Apply { from, to, entries }
        };
        self.outbox.effects().apply = Some(apply);
    }

    /// Puts an entry at the end of the log and into the open write.
    fn append_entry(&mut self, entry: Entry) {
        self.log.append(entry.clone());
        self.outbox.write_entry(entry);
    }

    fn set_vote(&mut self, candidate: NodeId) {
        assert!(self.hard_state.vote.is_none(), "one vote per term");
        self.hard_state.vote = Some(candidate);
        self.outbox.write_hard_state(self.hard_state);
    }

    fn is_voter(&self) -> bool {
        self.voters.contains(&self.config.id)
    }

    fn peers(&self) -> Vec<NodeId> {
        let own = self.config.id;
        self.config
            .members
            .iter()
            .map(|(id, _)| id)
            .filter(|id| *id != own)
            .collect()
    }

    fn draw_deadline(&mut self) -> u32 {
        let timing = self.config.timing;
        self.random
            .between(timing.election_ticks_min, timing.election_ticks_max)
    }

    fn envelope(&self, to: NodeId, message: Message) -> Envelope {
        let receiver = self.config.members.get(to).expect("messages go to members");
        Envelope {
            cluster: self.config.cluster,
            group: self.config.group,
            from: self.config.id,
            from_incarnation: self.config.incarnation,
            to,
            to_incarnation: receiver.incarnation,
            term: self.hard_state.term,
            message,
        }
    }

    /// Says something that promises nothing: it leaves now.
    fn send(&mut self, to: NodeId, message: Message) {
        let envelope = self.envelope(to, message);
        self.outbox.send(envelope);
    }

    /// Says something that holds only once all that was written so far is durable.
    fn promise(&mut self, to: NodeId, message: Message) {
        let envelope = self.envelope(to, message);
        self.outbox.promise(envelope);
    }

    fn broadcast(&mut self, message: &Message) {
        for peer in self.peers() {
            self.send(peer, message.clone());
        }
    }
}
