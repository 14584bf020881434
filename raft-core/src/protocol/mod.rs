//! The protocol: a pure state machine. Inputs go in by [`Raft::step`], what is to be done comes out
//! by [`Raft::take_effects`]. No clock, no IO, no tasks, no randomness but a seed; the same inputs
//! give the same effects.
//!
//! This file holds what all roles share: who we are, the rules about terms, and how effects are put
//! together. What a role decides is in its own file.

mod admission;
mod apply;
mod candidate;
mod configurations;
mod effects;
mod follower;
mod input;
#[cfg(any(debug_assertions, feature = "invariants"))]
mod invariants;
mod leader;
mod lease;
mod leaving;
mod log;
mod outbox;
mod progress;
mod proposals;
mod quiescence;
mod quorum;
mod random;
mod reads;
mod reconfig;
mod refill;
mod room;
mod sizes;
mod snapshots;
mod stall;
#[cfg(test)]
mod testing;
mod transfer;

pub use effects::{Apply, Effects, Load, LogStart, Role, RoleChange, Write};
pub use input::{
    ChangeTicket, Input, Loaded, Persisted, Proposal, ProposalTicket, ReadTicket, TransferTicket,
};
pub use quorum::{Electorate, Tally, confirmed_by_majority, held_by_majority, majority, tally};

use crate::config::{Config, ConfigError};
use crate::entry::Entry;
use crate::error::Refusal;
use crate::log_store::LoadedLog;
use crate::membership::Membership;
use crate::message::{Envelope, Message};
use crate::snapshot::SnapshotDescriptor;
use crate::types::{HardState, Incarnation, Index, LogId, NodeId};
use apply::Applying;
use candidate::{Candidate, PreCandidate};
use configurations::Configurations;
use follower::Follower;
use leader::Leader;
use log::Log;
use outbox::Outbox;
use random::Random;
use refill::Refill;
use snapshots::Snapshots;
use stall::Stall;
use transfer::Transfer;

/// The protocol state of one node.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    configurations: Configurations,
    /// The voters of the current membership.
    electorate: Electorate,
    hard_state: HardState,
    log: Log,
    commit: Index,
    applying: Applying,
    snapshots: Snapshots,
    transfer: Option<Transfer>,
    stall: Stall,
    /// The disk lost entries that may have been acknowledged, and the log has not reached them.
    refill: Option<Refill>,
    /// What [`Input::Room`] said last.
    is_short_of_room: bool,
    /// Ticks since the node started.
    now: u64,
    /// What [`Input::Clock`] said last.
    clock: u64,
    /// Ticks that this node still votes for nobody, because it may have renewed a lease before it
    /// was started anew.
    vote_embargo: u32,
    /// The sender of the message that is being handled: answers go to the life of it that asked.
    asking: Option<(NodeId, Incarnation)>,
    /// The number of the last index that was asked of a leader.
    index_asked: u64,
    role: RoleState,
    random: Random,
    outbox: Outbox,
    refusals: Vec<Refusal>,
    counters: Counters,
    /// What was last told about who leads.
    told: RoleChange,
    #[cfg(any(debug_assertions, feature = "invariants"))]
    before: invariants::Before,
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
    /// Snapshots of a leader that replaced this node's log.
    pub snapshots_installed: u64,
    /// Snapshots that this leader began to send.
    pub snapshots_sent: u64,
    /// Reads that a lease answered without a round.
    pub lease_reads: u64,
    /// Times that a leader gave up because its disk did not finish a write.
    pub stalled: u64,
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
    /// The last entry that was compacted: the log begins behind it.
    pub start: LogId,
    /// The last entry of the newest snapshot.
    pub snapshot: LogId,
    /// The last entry.
    pub last: LogId,
    /// The last entry that is on this node's disk.
    pub durable: Index,
    /// The last entry known to be committed.
    pub commit: Index,
    /// The last entry applied.
    pub applied: Index,
    /// What the log on the disk has to reach before this node is part of a quorum again: see
    /// [`LoadedLog::refill_to`]. None on a healthy node.
    pub refilling: Option<LogId>,
    /// Whether the disk has no room for commands.
    pub is_short_of_room: bool,
    /// The membership in effect.
    pub membership: Membership,
    /// The entry that brought it.
    pub membership_index: Index,
    /// What the leader knows each other member to hold; empty elsewhere.
    pub matched: Vec<(NodeId, Index)>,
    /// What happened so far.
    pub counters: Counters,
}

impl Raft {
    /// A node with what its log store loaded, the newest snapshot of its snapshot store, and a
    /// state machine that has applied up to `applied`. It starts as a follower with a random
    /// deadline.
    ///
    /// The machine may be ahead of the log only where the log lost entries
    /// ([`LoadedLog::refill_to`]). What it has applied already is then handed over once more when
    /// the log has it again; whoever executes that leaves it out.
    ///
    /// # Errors
    /// When a setting cannot work, or the three do not belong together.
    pub fn new(
        config: Config,
        loaded: LoadedLog,
        snapshot: Option<SnapshotDescriptor>,
        applied: LogId,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let (term, last) = (loaded.hard_state.term, loaded.last);
        let (refill, applying) = refill::at_start(loaded.refill_to, last, applied)?;
        // A snapshot reaches the disk before the term of the leader that sent it.
        let is_installed = last == loaded.start;
        if term < last.term && !is_installed {
            return Err(ConfigError::TermBehind { term, last });
        }
        let hard_state = loaded.hard_state;
        let configurations = reconfig::load(&config, &loaded, snapshot.as_ref())?;
        let log = Log::new(loaded);
        let snapshots = Snapshots::new(snapshot, &log)?;
        let mut random = Random::of_node(config.seed, config.id);
        let timing = config.timing;
        let deadline = random.between(timing.election_ticks_min, timing.election_ticks_max);
        let told = RoleChange {
            term: hard_state.term,
            role: Role::Follower,
            leader: None,
        };
        let mut raft = Self {
            electorate: Electorate::of(configurations.current().1),
            configurations,
            hard_state,
            commit: applying.applied().max(log.start().index),
            log,
            applying,
            snapshots,
            transfer: None,
            stall: Stall::default(),
            refill,
            is_short_of_room: false,
            now: 0,
            clock: 0,
            vote_embargo: lease::embargo(&config),
            asking: None,
            index_asked: reads::first_number(&config),
            role: RoleState::Follower(Follower::new(None, deadline, u32::MAX)),
            random,
            outbox: Outbox::new(),
            refusals: Vec::new(),
            counters: Counters::default(),
            told,
            #[cfg(any(debug_assertions, feature = "invariants"))]
            before: invariants::Before::default(),
            config,
        };
        if term < last.term {
            raft.hard_state = HardState {
                term: last.term,
                vote: None,
            };
            raft.outbox.write_hard_state(raft.hard_state);
        }
        raft.restore_at_start();
        raft.members_changed();
        Ok(raft)
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
            Input::ChangeMembership(ticket, change) => self.handle_change(ticket, &change),
            Input::Transfer(ticket, target) => self.handle_transfer(ticket, target),
            Input::SnapshotTaken(taken) => self.handle_snapshot_taken(taken),
            Input::SnapshotSent { to, .. } => self.handle_snapshot_sent(to),
            Input::Clock(nanoseconds) => self.handle_clock(nanoseconds),
            Input::Room { is_short } => self.handle_room(is_short),
        }
        self.asking = None;
        #[cfg(any(debug_assertions, feature = "invariants"))]
        self.check_invariants();
    }

    /// All effects since the last call: one write per disk batch, one round of appends per
    /// follower, one read round, one batch to apply.
    pub fn take_effects(&mut self) -> Effects {
        self.advance_membership();
        self.advance_transfer();
        self.begin_read_round();
        self.ask_index();
        self.replicate();
        self.hand_to_apply();
        self.take_snapshot();
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
            start: self.log.start(),
            snapshot: self.snapshots.last(),
            last: self.log.last(),
            durable: self.log.durable(),
            commit: self.commit,
            applied: self.applying.applied(),
            refilling: self.refill_to(),
            is_short_of_room: self.is_short_of_room,
            membership: self.membership().clone(),
            membership_index: self.configurations.current().0,
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
        self.now += 1;
        self.vote_embargo = self.vote_embargo.saturating_sub(1);
        self.transfer_tick();
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
            from_incarnation,
            term,
            message,
            ..
        } = envelope;
        self.asking = Some((from, from_incarnation));
        self.wake_for(&message);
        let own = self.hard_state.term;
        // A question about the future changes nothing, whatever term it comes from.
        if let Message::PreVote(pre_vote) = message {
            self.handle_pre_vote(from, pre_vote);
            return;
        }
        if term > own {
            // While we hear a leader a vote request only disturbs: its sender may have been cut
            // off, or removed (thesis 4.2.3). Its term is not even looked at.
            let is_unasked = matches!(&message, Message::Vote(vote) if !vote.is_transfer);
            if is_unasked && self.is_led() {
                return;
            }
            self.adopt_term(term);
        } else if term < own && !matches!(message, Message::PreVoteReply(_)) {
            self.answer_stale(from, &message);
            return;
        }
        self.dispatch(from, message);
    }

    fn dispatch(&mut self, from: NodeId, message: Message) {
        let leads = matches!(self.role, RoleState::Leader(_));
        match message {
            Message::Append(_) | Message::Heartbeat(_) | Message::Snapshot(_) if leads => {
                self.refuse_malformed(from, message.name());
            }
            Message::PreVote(pre_vote) => self.handle_pre_vote(from, pre_vote),
            Message::PreVoteReply(reply) => self.handle_pre_vote_reply(from, reply),
            Message::Vote(vote) => self.handle_vote(from, vote),
            Message::VoteReply(reply) => self.handle_vote_reply(from, reply),
            Message::Append(append) => self.handle_append(from, append),
            Message::AppendReply(reply) => self.handle_append_reply(from, reply),
            Message::RefillReply(reply) => self.handle_refill_reply(from, reply),
            Message::Heartbeat(heartbeat) => self.handle_heartbeat(from, heartbeat),
            Message::HeartbeatReply(reply) => self.handle_heartbeat_reply(from, reply),
            Message::Snapshot(descriptor) => self.handle_snapshot(from, descriptor),
            Message::TimeoutNow => self.handle_timeout_now(from),
            Message::ReadIndex(question) => self.handle_read_index(from, question),
            Message::ReadIndexReply(reply) => self.handle_read_index_reply(from, reply),
        }
    }

    fn handle_persisted(&mut self, done: Persisted) {
        self.log.persisted(done);
        self.refill_persisted(done.number);
        self.stall.progressed(self.now);
        self.candidate_persisted(done.number);
        self.advance_commit();
    }

    /// Puts an entry at the end of the log and into the open write.
    fn append_entry(&mut self, entry: Entry) {
        if self.log.durable() == self.log.last().index {
            self.stall.progressed(self.now);
        }
        let membership = reconfig::membership_of(&entry);
        self.log.append(entry.clone());
        self.outbox.write_entry(entry);
        self.note_refilled();
        if let Some(membership) = membership {
            self.configurations
                .append(self.log.last().index, membership);
            self.members_changed();
        }
    }

    fn set_vote(&mut self, candidate: NodeId) {
        assert!(self.hard_state.vote.is_none(), "one vote per term");
        self.hard_state.vote = Some(candidate);
        self.outbox.write_hard_state(self.hard_state);
    }

    /// Everybody who has to be talked to, but this node.
    fn peers(&self) -> Vec<NodeId> {
        let own = self.config.id;
        let ids = self.membership().iter().map(|(id, _)| id);
        ids.filter(|id| *id != own).collect()
    }

    fn draw_deadline(&mut self) -> u32 {
        let timing = self.config.timing;
        self.random
            .between(timing.election_ticks_min, timing.election_ticks_max)
    }

    fn envelope(&self, to: NodeId, message: Message) -> Envelope {
        let asking = self.asking.filter(|(id, _)| *id == to);
        let known = || Some((to, self.membership().get(to)?.incarnation));
        let leaving = || Some((to, self.leaving_incarnation(to)?));
        let (_, to_incarnation) = asking
            .or_else(known)
            .or_else(leaving)
            .expect("messages go to members, and to those who ask");
        Envelope {
            cluster: self.config.cluster,
            group: self.config.group,
            from: self.config.id,
            from_incarnation: self.config.incarnation,
            to,
            to_incarnation,
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
