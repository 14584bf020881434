//! What reaches a node, and its turns: everything that waits is stepped, then the effects are taken
//! once, as the driver of a real node does.

use raft_core::message::AppendReply;
use raft_core::protocol::{
    ChangeTicket, Effects, Input, LogStart, Proposal, ProposalTicket, ReadTicket, State,
    TransferTicket,
};
use raft_core::{Envelope, Index, Message, NodeId, ReadPolicy, Refusal, Role};

use crate::coverage::Mark;
use crate::event::{Copy, Event};
use crate::network::Fate;
use crate::node::{Ask, INBOX_MESSAGES_MAX, Node, Origin};
use crate::queue::Microseconds;
use crate::render;
use crate::violation::{Violation, require};
use crate::world::World;

impl World {
    /// Plans the turn of a node that has something to do.
    pub(crate) fn plan_turn(&mut self, id: NodeId) {
        let now = self.now;
        let longest = self.options.turn_max;
        let node = self.node_mut(id);
        if node.turn_is_planned {
            return;
        }
        node.turn_is_planned = true;
        let (life, paused) = (node.life, node.paused_until.saturating_sub(now));
        let after = paused.max(self.chances.turns.between(0, longest));
        self.plan(after, Event::Turn { node: id, life });
    }

    pub(crate) fn put(&mut self, id: NodeId, input: Input) {
        self.node_mut(id).inbox.push(input);
        self.plan_turn(id);
    }

    /// Ticks that a paused process missed are skipped, and never come in a burst.
    pub(crate) fn tick(&mut self, id: NodeId, life: u64) {
        if !self.is_current(id, life) {
            return;
        }
        let now = self.now;
        let node = self.node(id);
        let tick = node.tick;
        let is_short = node.short_until > now;
        if node.is_short != is_short {
            self.node_mut(id).is_short = is_short;
            self.put(id, Input::Room { is_short });
        }
        let node = self.node(id);
        let is_paused = node.paused_until.max(node.clock_stops_until) > now;
        if !is_paused {
            self.put(id, Input::Tick);
        }
        self.plan(tick, Event::Tick { node: id, life });
    }

    /// A message comes to the end of its way.
    pub(crate) fn arrive(&mut self, envelope: Envelope, sent: Microseconds, copy: Copy) {
        let to = envelope.to;
        let node = &self.nodes[Self::place(to)];
        if !self.network.passes(envelope.from, to) || !node.is_up() {
            let fate = self.network.unreachable(self.now);
            self.lose(&envelope, sent, fate);
            return;
        }
        if node.inbox.len() >= INBOX_MESSAGES_MAX {
            return;
        }
        let is_old = envelope.term < node.state.hard_state.term;
        let is_old_reply =
            is_old && node.leads() && matches!(envelope.message, Message::AppendReply(_));
        self.coverage.count_if(is_old, Mark::OldTermMessage);
        self.coverage.count_if(is_old_reply, Mark::OldTermReply);
        self.diagram_message(&envelope, sent, history::Fate::Delivered(self.now));
        self.cover_refill(&envelope);
        match copy {
            Copy::Original => {}
            Copy::Duplicate => self.coverage.count(Mark::Duplicated),
            Copy::Replay => self.coverage.count(Mark::Replayed),
        }
        let (from, hands_over) = (envelope.from, envelope.message == Message::TimeoutNow);
        self.put(to, Input::Message(envelope));
        if hands_over {
            self.disturb_handover(from);
        }
    }

    fn cover_refill(&mut self, envelope: &Envelope) {
        let (from, to) = (self.node(envelope.from), self.node(envelope.to));
        let asks = matches!(envelope.message, Message::PreVote(_) | Message::Vote(_));
        let is_asked = asks && to.disk.is_refilling();
        let counts = |matched| to.leads() && from.disk.vouches_at(matched);
        let is_late = match &envelope.message {
            Message::AppendReply(AppendReply::Accepted { matched }) => counts(*matched),
            _ => false,
        };
        let no_room = matches!(
            envelope.message,
            Message::AppendReply(AppendReply::NoRoom { .. })
                | Message::RefillReply(AppendReply::NoRoom { .. })
        );
        self.coverage.count_if(is_asked, Mark::RefillVoteAsked);
        self.coverage.count_if(is_late, Mark::LateAckOfLost);
        self.coverage.count_if(no_room, Mark::FollowerShort);
    }

    /// Puts a message on its way.
    pub(crate) fn transmit(&mut self, envelope: Envelope) {
        let fate = self.network.send(self.now, &envelope);
        match fate {
            Fate::Lost { .. } => self.lose(&envelope, self.now, fate),
            Fate::Arrives { at, again } => {
                if let Some(again) = again {
                    let copy = Event::Message {
                        envelope: envelope.clone(),
                        sent: self.now,
                        copy: Copy::Duplicate,
                    };
                    self.queue.plan(again, copy);
                }
                let original = Event::Message {
                    envelope,
                    sent: self.now,
                    copy: Copy::Original,
                };
                self.queue.plan(at, original);
            }
        }
    }

    fn lose(&mut self, envelope: &Envelope, sent: Microseconds, fate: Fate) {
        self.coverage.count(Mark::Lost);
        self.diagram_message(envelope, sent, history::Fate::Lost(self.now));
        if let Fate::Lost {
            reported_at: Some(at),
        } = fate
        {
            let (node, peer) = (envelope.from, envelope.to);
            let life = self.node(node).life;
            self.queue.plan(at, Event::Unreachable { node, life, peer });
        }
    }

    pub(crate) fn unreachable(&mut self, id: NodeId, life: u64, peer: NodeId) {
        if self.is_current(id, life) {
            self.coverage.count(Mark::UnreachableReported);
            self.put(id, Input::Unreachable(peer));
        }
    }

    /// A request reaches a node; at one that is down it is never heard of again.
    pub(crate) fn request(&mut self, id: NodeId, origin: Origin, ask: Ask) {
        if !self.node(id).is_up() {
            return;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let waiters = &mut self.node_mut(id).waiters;
        let input = match ask {
            Ask::Propose(payload) => {
                let ticket = ProposalTicket(ticket);
                waiters.unplaced.insert(ticket, origin);
                Input::Propose(vec![Proposal { ticket, payload }])
            }
            Ask::Change(change) => {
                waiters.operations.insert(ticket, origin);
                Input::ChangeMembership(ChangeTicket(ticket), change)
            }
            Ask::Transfer(target) => {
                waiters.operations.insert(ticket, origin);
                Input::Transfer(TransferTicket(ticket), target)
            }
            Ask::Read(query) => {
                let ticket = ReadTicket(ticket);
                waiters.reads.insert(ticket, (origin, query));
                Input::Read(vec![ticket])
            }
        };
        self.put(id, input);
    }

    /// Steps all that waits for a node, and does what comes of it.
    pub(crate) fn turn(&mut self, id: NodeId, life: u64) -> Result<(), Violation> {
        if !self.is_current(id, life) {
            return Ok(());
        }
        let now = self.now;
        let node = self.node_mut(id);
        node.turn_is_planned = false;
        if node.paused_until > now {
            self.plan_turn(id);
            return Ok(());
        }
        let mut inputs = std::mem::take(&mut node.inbox);
        // Time moves only after all that was heard before.
        inputs.sort_by_key(|input| matches!(input, Input::Tick));
        for input in inputs {
            self.step_input(id, input);
        }
        if matches!(self.options.reads, ReadPolicy::Lease { .. }) {
            // After all that it may answer.
            let clock = self.clock_of(id);
            self.step_input(id, Input::Clock(clock));
        }
        self.take_effects(id)
    }

    /// What a node's own clock says, in nanoseconds.
    fn clock_of(&self, id: NodeId) -> u64 {
        self.now * 1_000 * self.options.tick() / self.node(id).tick
    }

    fn step_input(&mut self, id: NodeId, input: Input) {
        self.steps += 1;
        let now = self.now;
        self.trace.mix([2, id.0, now, digest(&input)]);
        self.trace
            .note(now, || format!("n{id} <- {}", render::input(&input)));
        if let Input::Read(tickets) = &input {
            let committed = self.checks.commits.last().index;
            for ticket in tickets {
                self.checks.reads.begin(*ticket, committed);
            }
        }
        let refilling = refilling_member(&input, self.node(id));
        let raft = self.node_mut(id).raft.as_mut();
        let raft = raft.expect("a running node has a protocol");
        raft.step(input);
        let Some(from) = refilling else {
            return;
        };
        let state = raft.state();
        let counted = state.matched.iter().find(|(peer, _)| *peer == from);
        let counts = counted.is_some_and(|(_, matched)| *matched > Index(0));
        self.note_violation(require(!counts, 46, || {
            format!("n{id} heard that n{from} lost entries, and counts {counted:?}")
        }));
    }

    /// Takes the effects of a turn and hands them to their executors, unless the power goes first.
    fn take_effects(&mut self, id: NodeId) -> Result<(), Violation> {
        let raft = self.node_mut(id).raft.as_mut();
        let raft = raft.expect("a running node has a protocol");
        let effects = raft.take_effects();
        let refusals = raft.take_refusals();
        let state = raft.state();
        for refusal in refusals {
            let is_malformed = matches!(refusal, Refusal::Malformed { .. });
            require(!is_malformed, 38, || format!("n{id}: {refusal}"))?;
        }
        let before = std::mem::replace(&mut self.node_mut(id).state, state);
        let position = Self::place(id);
        for write in &effects.writes {
            self.cover_truncation(position, write);
            self.checks
                .write(&mut self.nodes[position], write, &before)?;
        }
        self.checks.turn(position, &before, &self.nodes)?;
        self.cover_turn(position, &before);
        if before.role != Role::Leader && self.nodes[position].leads() {
            self.disturb_election(id);
        }
        self.cover_log_start(position, &before, &effects);
        let unlucky = self.options.crash_within_turn;
        let crashes = self.is_hostile && unlucky > 0 && {
            let draw = self.chances.faults.below(1_000_000);
            draw < unlucky
        };
        if crashes {
            self.crash_within_turn(id, effects);
            return Ok(());
        }
        self.execute(id, effects)
    }

    fn cover_log_start(&mut self, position: usize, before: &State, effects: &Effects) {
        for write in &effects.writes {
            match write.log_start {
                None => {}
                Some(LogStart::Compact(_)) => self.coverage.count(Mark::Compacted),
                Some(LogStart::Reset(to)) => {
                    let diverged = before.last.index > before.commit || before.last > to;
                    self.coverage
                        .count_if(diverged, Mark::SnapshotOverDivergent);
                }
            }
        }
        let after = &self.nodes[position].state;
        let leases = after.counters.lease_reads > before.counters.lease_reads;
        let stalls = after.counters.stalled > before.counters.stalled;
        let follows = after.role == Role::Follower && !effects.reads_ready.is_empty();
        let whole = before.refilling.is_some() && after.refilling.is_none();
        let same_term = before.hard_state.term == after.hard_state.term;
        let forgot = same_term
            && before.role == Role::Leader
            && after.role == Role::Leader
            && before.membership == after.membership
            && before
                .matched
                .iter()
                .any(|(id, held)| *held > Index(0) && after.matched.contains(&(*id, Index(0))));
        let id = self.nodes[position].id;
        let was_member = before.role != Role::Leader && before.membership.get(id).is_some();
        let removed = was_member && after.membership.get(id).is_none();
        self.coverage.count_if(removed, Mark::RemovedHeard);
        self.coverage.count_if(whole, Mark::Refilled);
        self.coverage.count_if(forgot, Mark::MatchForgotten);
        let back = after.membership_index < before.membership_index;
        let left = before.role == Role::Leader
            && after.role != Role::Leader
            && !after.membership.is_voter(self.nodes[position].id);
        self.coverage.count_if(leases, Mark::LeaseRead);
        self.coverage.count_if(stalls, Mark::LeaderStalled);
        self.coverage.count_if(follows, Mark::FollowerRead);
        self.coverage.count_if(back, Mark::TruncatedMembership);
        self.coverage.count_if(left, Mark::LeaderRemoved);
        if before.role != Role::Leader {
            self.cover_joint_leader(position);
        }
    }

    fn cover_truncation(&mut self, position: usize, write: &raft_core::protocol::Write) {
        let Some(from) = write.batch.truncate_from else {
            return;
        };
        let node = &self.nodes[position];
        let (first, last) = (node.log.term_at(from), node.log.last());
        self.coverage.count(Mark::Truncated);
        self.coverage
            .count_if(first != Some(last.term), Mark::TruncatedTerms);
        let old_life = node.life > 1 && write.number <= 3;
        self.coverage.count_if(old_life, Mark::DivergedAfterCrash);
    }

    fn cover_turn(&mut self, position: usize, before: &State) {
        let node = &self.nodes[position];
        let (id, after) = (node.id, &node.state);
        self.trace.mix([
            3,
            id.0,
            after.commit.0,
            after.last.index.0,
            after.last.term.0,
        ]);
        let coverage = &mut self.coverage;
        let rejected = after.counters.probes_rejected > before.counters.probes_rejected;
        coverage.count_if(rejected, Mark::AppendRejected);
        if after.role == Role::Leader && after.commit > before.commit {
            let oldest = node.log.term_at(before.commit.next());
            let earlier = oldest.is_some_and(|term| term < after.hard_state.term);
            coverage.count_if(earlier, Mark::CommittedEarlierTerm);
        }
        if after.role == before.role && after.hard_state == before.hard_state {
            return;
        }
        let newer = after.hard_state.term > before.hard_state.term;
        match (before.role, after.role) {
            (Role::Leader, Role::Leader) => {}
            (_, Role::Leader) => {
                coverage.count(Mark::LeaderElected);
                let others = self.nodes.iter().filter(|node| node.leads()).count();
                coverage.count_if(others > 1, Mark::TwoLeaders);
            }
            (Role::Leader, _) if newer => coverage.count(Mark::LeaderDeposed),
            (Role::Leader, _) => coverage.count(Mark::LeaderLostQuorum),
            (Role::Candidate, _) => coverage.count(Mark::ElectionLost),
            _ => {}
        }
        let (role, term) = (after.role.name(), after.hard_state.term);
        self.trace
            .note(self.now, || format!("n{id} is {role} in term {term}"));
        self.diagram_role(id);
    }
}

/// Who says, to a leader that still leads, that it lost entries.
fn refilling_member(input: &Input, node: &Node) -> Option<NodeId> {
    let Input::Message(envelope) = input else {
        return None;
    };
    let says_so = match &envelope.message {
        Message::RefillReply(_) => true,
        Message::HeartbeatReply(reply) => reply.is_refilling,
        _ => false,
    };
    let is_heard = node.leads() && envelope.term == node.state.hard_state.term;
    let member = node.state.membership.get(envelope.from);
    let is_member = member.is_some_and(|m| m.incarnation == envelope.from_incarnation);
    (says_so && is_heard && is_member).then_some(envelope.from)
}

/// A number that tells inputs apart.
fn digest(input: &Input) -> u64 {
    match input {
        Input::Tick => 1,
        Input::Message(envelope) => {
            let kind = envelope.message.name().len() as u64;
            let size = envelope.message.entry_bytes() as u64;
            (envelope.from.0 << 40) ^ (envelope.term.0 << 20) ^ (size << 8) ^ kind
        }
        Input::Propose(proposals) => 3 + ((proposals.len() as u64) << 8),
        Input::Read(tickets) => 4 + ((tickets.len() as u64) << 8),
        Input::Persisted(done) => 5 + (done.number << 8),
        Input::Loaded(loaded) => 6 + ((loaded.entries.len() as u64) << 8),
        Input::Applied(index) => 7 + (index.0 << 8),
        Input::Unreachable(peer) => 8 + (peer.0 << 8),
        Input::ChangeMembership(ticket, _) => 9 + (ticket.0 << 8),
        Input::Transfer(_, to) => 10 + (to.0 << 8),
        Input::SnapshotTaken(taken) => 11 + (u64::from(taken.is_some()) << 8),
        Input::SnapshotSent { to, is_delivered } => {
            12 + (to.0 << 8) + (u64::from(*is_delivered) << 16)
        }
        Input::Clock(nanoseconds) => 13 + (nanoseconds << 8),
        Input::Room { is_short } => 14 + (u64::from(*is_short) << 8),
    }
}
