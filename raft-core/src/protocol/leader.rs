//! A node that leads: proposals, replication to each follower, the commit rule, heartbeats, and
//! giving up when no majority is heard.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::entry::EntryKind;
use crate::message::{Append, AppendReply, Heartbeat, HeartbeatReply, Message};
use crate::protocol::effects::Load;
use crate::protocol::input::{ChangeTicket, Loaded};
use crate::protocol::lease::Lease;
use crate::protocol::leaving::Leaving;
use crate::protocol::progress::Progress;
use crate::protocol::reads::Reads;
use crate::protocol::{Raft, RoleState};
use crate::types::{Index, LogId, NodeId};

#[derive(Debug)]
pub(crate) struct Leader {
    /// Every member but this one, in order.
    pub(crate) progress: Vec<Progress>,
    /// Members that were removed and do not know it yet.
    pub(crate) leaving: Vec<Leaving>,
    pub(crate) reads: Reads,
    pub(crate) lease: Lease,
    /// Who waits for the change of membership that is under way.
    pub(crate) change: Option<ChangeTicket>,
    /// The commit index at the last heartbeat, and at the one before: what a learner has to hold to
    /// count as caught up, although commits go on.
    commit_at_beat: Index,
    pub(crate) commit_before: Index,
    /// Ticks since this leadership began, without those that it slept.
    pub(crate) now: u64,
    /// When something was committed last, or there was nothing to commit.
    pub(crate) committed_at: u64,
    /// Ticks without any work.
    pub(crate) idle_ticks: u32,
    pub(crate) is_asleep: bool,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    /// Encoded bytes of entries that are not committed.
    pub(crate) uncommitted_bytes: usize,
}

impl Leader {
    /// There is something to do. A leader that slept starts to measure time anew, and is heard of
    /// at its next tick.
    pub(crate) fn wake(&mut self) {
        self.idle_ticks = 0;
        if self.is_asleep {
            self.is_asleep = false;
            self.quorum_elapsed = 0;
            self.heartbeat_elapsed = u32::MAX;
        }
    }

    pub(crate) fn progress_of(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.followers_mut().find(|progress| progress.id == id)
    }

    /// All that are sent something: the members, then those that left.
    pub(crate) fn followers_mut(&mut self) -> impl Iterator<Item = &mut Progress> {
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.progress);
        self.progress.iter_mut().chain(leaving)
    }

    /// One of [`Leader::followers_mut`], by its place.
    pub(crate) fn follower_at(&mut self, position: usize) -> &mut Progress {
        self.followers_mut()
            .nth(position)
            .expect("a place that was counted")
    }

    /// The newest read round that a member confirmed.
    pub(crate) fn round_of(&self, id: NodeId) -> u64 {
        let progress = self.progress.iter().find(|progress| progress.id == id);
        progress.map_or(0, |progress| progress.round)
    }

    pub(crate) fn matched(&self) -> impl Iterator<Item = (NodeId, Index, &'static str)> {
        self.progress
            .iter()
            .map(|p| (p.id, p.matched(), p.state_name()))
    }
}

impl Raft {
    /// Starts to lead: followers are taken up where their votes said they stand, and an entry of
    /// the own term is appended at once, because only with it older entries can be committed (paper
    /// 5.4.2).
    pub(crate) fn become_leader(&mut self, hints: &BTreeMap<NodeId, LogId>) {
        let next = self.last().index.next();
        let own = self.config.id;
        let members = self.membership().iter().filter(|(id, _)| *id != own);
        let mut progress: Vec<_> = members
            .map(|(id, member)| Progress::new(id, member.incarnation, next))
            .collect();
        for follower in &mut progress {
            if let Some(last) = hints.get(&follower.id) {
                follower.hint(*last, &self.log, 0);
            }
        }
        let first_open = self.commit.next();
        self.role = RoleState::Leader(Box::new(Leader {
            progress,
            leaving: Vec::new(),
            reads: Reads::default(),
            lease: Lease::default(),
            change: None,
            // Nothing is known to be caught up before it has the first entry of this term.
            commit_at_beat: next,
            commit_before: next,
            now: 0,
            committed_at: 0,
            idle_ticks: 0,
            is_asleep: false,
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            uncommitted_bytes: self.log.bytes_in_memory(first_open, self.last().index),
        }));
        self.forget_transfer();
        self.append_as_leader(EntryKind::Noop, Bytes::new());
        self.broadcast_heartbeat();
    }

    /// Whether an entry of the current term is committed: from then on this leader knows all that
    /// its predecessors committed.
    pub(crate) fn has_committed_in_term(&self) -> bool {
        self.log.term_at(self.commit) == Some(self.hard_state.term)
    }

    pub(crate) fn leader_tick(&mut self) {
        let (timing, own) = (self.config.timing, self.own_voice());
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        if role.is_asleep {
            return;
        }
        role.now += 1;
        role.heartbeat_elapsed = role.heartbeat_elapsed.saturating_add(1);
        role.quorum_elapsed += 1;
        if role.quorum_elapsed >= timing.election_ticks_min {
            role.quorum_elapsed = 0;
            let is_active = |id: NodeId| {
                Some(id) == own || role.progress.iter().any(|p| p.id == id && p.active)
            };
            let is_followed = self.electorate.is_quorum(is_active);
            role.progress.iter_mut().for_each(|p| p.active = false);
            if !is_followed {
                // Check-quorum (thesis 6.2): whoever can reach a majority should lead.
                self.become_follower(None);
                return;
            }
        }
        self.leaving_tick();
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let is_due = role.heartbeat_elapsed >= timing.heartbeat_ticks;
        if is_due {
            role.commit_before = role.commit_at_beat;
            role.commit_at_beat = role.commit_at_beat.max(self.commit);
        }
        if self.gives_up_stalled() || self.falls_asleep() {
            return;
        }
        if is_due {
            self.ends_term_for_refill();
            self.renew_lease();
            self.broadcast_heartbeat();
        }
    }

    pub(crate) fn broadcast_heartbeat(&mut self) {
        let (commit, clock) = (self.commit, self.clock);
        let uses_leases = self.uses_leases();
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        role.heartbeat_elapsed = 0;
        let asked = role.reads.round();
        if role.progress.iter().any(|p| p.proof() > Some(asked)) {
            role.reads.next_round();
        }
        let round = role.reads.round();
        if uses_leases {
            role.lease.begun(round, clock);
        }
        let beat = |p: &Progress| Heartbeat {
            commit: commit.min(p.matched()),
            round,
            is_last: false,
        };
        let beats: Vec<_> = role.followers_mut().map(|p| (p.id, beat(p))).collect();
        for (to, heartbeat) in beats {
            self.send(to, Message::Heartbeat(heartbeat));
        }
    }

    /// Sends to each follower what its window takes, once per turn: this is where batches are made.
    pub(crate) fn replicate(&mut self) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        for position in 0..role.progress.len() + role.leaving.len() {
            self.replicate_to(position);
        }
    }

    fn replicate_to(&mut self, position: usize) {
        let limits = self.config.limits;
        let (term, commit, last) = (self.hard_state.term, self.commit, self.log.last().index);
        loop {
            let RoleState::Leader(role) = &mut self.role else {
                return;
            };
            let now = role.now;
            let follower = role.follower_at(position);
            let (to, next) = (follower.id, follower.next());
            if follower.wants_snapshot(&self.log) {
                self.send_snapshot(position);
                return;
            }
            if next.previous() < self.log.start().index {
                return;
            }
            let base = self.log.id_at(next.previous());
            if follower.wants_probe() {
                follower.probe_sent(now);
                let is_short = follower.is_short_of_room();
                self.probe(to, base, is_short);
                return;
            }
            let (messages, bytes) = (limits.inflight_messages_max, limits.inflight_bytes_max);
            let Some(room) = follower.window(messages, bytes) else {
                return;
            };
            if next > last || follower.loading {
                return;
            }
            if next < self.log.tail_first() {
                follower.loading = true;
                // What the appends that may leave cannot carry would be read in vain.
                let appends = follower.appends_left(messages);
                let entries = limits.append_entries_max.saturating_mul(appends);
                let carried = Index(next.previous().0.saturating_add(entries as u64));
                let load = Load {
                    peer: to,
                    term,
                    from: next,
                    to: self.log.tail_first().previous().min(carried),
                    bytes_max: room.min(limits.append_bytes_max.saturating_mul(appends)),
                };
                self.outbox.effects().load.push(load);
                return;
            }
            let bytes_max = limits.append_bytes_max.min(room);
            let (entries, bytes) =
                self.log
                    .in_memory(next, last, bytes_max, limits.append_entries_max);
            let sent_to = entries.last().expect("at least one entry").index();
            follower.sent(sent_to, bytes, now);
            self.send(
                to,
                Message::Append(Append {
                    base,
                    commit,
                    entries,
                }),
            );
        }
    }

    /// Asks where the logs meet; a follower without room is sent what it takes all the same.
    fn probe(&mut self, to: NodeId, base: LogId, is_short: bool) {
        let entries = if is_short {
            self.small_entries(base.index.next())
        } else {
            Vec::new()
        };
        let append = Append {
            base,
            commit: self.commit,
            entries,
        };
        self.send(to, Message::Append(append));
    }

    /// Old entries came from the disk. They are used only where they are still what comes next.
    pub(crate) fn handle_loaded(&mut self, loaded: Loaded) {
        let limits = self.config.limits;
        if loaded.term != self.hard_state.term {
            return;
        }
        let mut entries = loaded.entries.into_iter().peekable();
        loop {
            let RoleState::Leader(role) = &mut self.role else {
                return;
            };
            let now = role.now;
            let Some(follower) = role.progress_of(loaded.peer) else {
                return;
            };
            follower.loading = false;
            let next = follower.next();
            // Compacted meanwhile: only the snapshot helps now.
            if next.previous() < self.log.start().index {
                return;
            }
            // What exceeds the window is read again when there is room: a load is bounded in bytes,
            // which may be many small messages.
            let window = follower.window(limits.inflight_messages_max, usize::MAX);
            while entries.next_if(|entry| entry.index() < next).is_some() {}
            let fits = entries
                .peek()
                .is_some_and(|entry| entry.index() == next && self.log.contains(entry.id()));
            if window.is_none() || !fits {
                return;
            }
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while let Some(entry) = entries.next_if(|entry| {
                let full = bytes + entry.encoded_len() > limits.append_bytes_max
                    || chunk.len() >= limits.append_entries_max;
                chunk.is_empty() || !full
            }) {
                bytes += entry.encoded_len();
                chunk.push(entry);
            }
            let base = self.log.id_at(next.previous());
            follower.sent(
                chunk.last().expect("at least one entry").index(),
                bytes,
                now,
            );
            let append = Append {
                base,
                commit: self.commit,
                entries: chunk,
            };
            self.send(loaded.peer, Message::Append(append));
        }
    }

    /// An answer of a node that lost entries: it steers what is sent, and is not counted.
    pub(crate) fn handle_refill_reply(&mut self, from: NodeId, reply: AppendReply) {
        if let RoleState::Leader(role) = &mut self.role {
            let proof = role.reads.round() + 1;
            if let Some(follower) = role.progress_of(from) {
                follower.refills(proof);
            }
        }
        self.handle_append_reply(from, reply);
    }

    pub(crate) fn handle_append_reply(&mut self, from: NodeId, reply: AppendReply) {
        let last = self.log.last().index;
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let now = role.now;
        let Some(follower) = role.progress_of(from) else {
            return;
        };
        follower.heard(now);
        let start = self.log.start().index;
        match reply {
            AppendReply::Accepted { matched } | AppendReply::NoRoom { matched }
                if matched > last =>
            {
                // It acknowledges entries of ours that we do not have: a wrong or damaged peer.
                self.refuse_malformed(from, "append-reply");
            }
            AppendReply::Accepted { matched } => {
                follower.has_room();
                if follower.accepted(matched, start, now) {
                    self.advance_commit();
                }
            }
            AppendReply::NoRoom { matched } => {
                let is_news = follower.accepted(matched, start, now);
                follower.no_room(matched, now);
                if is_news {
                    self.advance_commit();
                }
            }
            AppendReply::Rejected {
                base,
                conflict,
                last,
            } => {
                self.counters.probes_rejected += 1;
                follower.rejected(base, conflict, last, &self.log, now);
            }
        }
    }

    pub(crate) fn handle_heartbeat_reply(&mut self, from: NodeId, reply: HeartbeatReply) {
        let patience = u64::from(self.config.timing.heartbeat_ticks) * 2;
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        if reply.round > role.reads.round() {
            self.refuse_malformed(from, "heartbeat-reply");
            return;
        }
        let (now, proof) = (role.now, role.reads.round() + 1);
        let Some(follower) = role.progress_of(from) else {
            return;
        };
        if reply.is_refilling {
            follower.refills(proof);
            follower.refill_idle();
        } else {
            follower.is_whole(reply.round);
        }
        if !follower.is_refilling() {
            follower.round = follower.round.max(reply.round);
        }
        follower.alive(now, patience);
        self.confirm_reads();
    }

    pub(crate) fn hint_progress(&mut self, from: NodeId, last: LogId) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let now = role.now;
        if let Some(follower) = role.progress_of(from) {
            follower.hint(last, &self.log, now);
        }
    }

    pub(crate) fn handle_unreachable(&mut self, peer: NodeId) {
        self.wake_for_loss_of(peer);
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let now = role.now;
        if let Some(follower) = role.progress_of(peer) {
            follower.lost(now);
        }
    }

    /// Commits what a majority holds on its disks, this node counted by its own disk like any
    /// other, but only up to an entry of the own term (paper 5.4.2, figure 8).
    pub(crate) fn advance_commit(&mut self) {
        let RoleState::Leader(role) = &self.role else {
            return;
        };
        let (own, durable) = (self.own_voice(), self.log.durable());
        let index = self.electorate.held(|id| {
            let progress = role.progress.iter().find(|p| p.id == id);
            match progress {
                Some(progress) => progress.matched(),
                None if Some(id) == own => durable,
                None => Index(0),
            }
        });
        if index <= self.commit || self.log.term_at(index) != Some(self.hard_state.term) {
            return;
        }
        let committed = self.log.bytes_in_memory(self.commit.next(), index);
        self.commit_to(index);
        if let RoleState::Leader(role) = &mut self.role {
            role.uncommitted_bytes = role.uncommitted_bytes.saturating_sub(committed);
            role.committed_at = role.now;
        }
    }
}
