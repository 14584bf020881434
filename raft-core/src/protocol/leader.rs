//! A node that leads: proposals, replication to each follower, the commit rule, heartbeats, and
//! giving up when no majority is heard.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::error::ProposeError;
use crate::message::{Append, AppendReply, Heartbeat, HeartbeatReply, Message};
use crate::protocol::effects::Load;
use crate::protocol::input::{Loaded, Proposal};
use crate::protocol::progress::Progress;
use crate::protocol::quorum::{held_by_majority, majority};
use crate::protocol::reads::Reads;
use crate::protocol::{Raft, RoleState};
use crate::types::{Index, LogId, NodeId};

#[derive(Debug)]
pub(crate) struct Leader {
    /// Every member but this one, in order.
    progress: Vec<Progress>,
    pub(crate) reads: Reads,
    /// Ticks since this leadership began.
    now: u64,
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    /// Encoded bytes of entries that are not committed.
    uncommitted_bytes: usize,
}

impl Leader {
    fn progress_of(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|progress| progress.id == id)
    }

    /// The newest read round that a follower confirmed; none for the leader itself.
    pub(crate) fn round_of(&self, id: NodeId) -> Option<u64> {
        self.progress
            .iter()
            .find(|progress| progress.id == id)
            .map(|progress| progress.round)
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
        let mut progress: Vec<_> = self
            .peers()
            .into_iter()
            .map(|peer| Progress::new(peer, next))
            .collect();
        for follower in &mut progress {
            if let Some(last) = hints.get(&follower.id) {
                follower.hint(*last, &self.log, 0);
            }
        }
        let first_open = self.commit.next();
        self.role = RoleState::Leader(Box::new(Leader {
            progress,
            reads: Reads::default(),
            now: 0,
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            uncommitted_bytes: self.log.bytes_in_memory(first_open, self.last().index),
        }));
        self.append_as_leader(EntryKind::Noop, Bytes::new());
        self.broadcast_heartbeat();
    }

    pub(crate) fn leader_tick(&mut self) {
        let timing = self.config.timing;
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        role.now += 1;
        role.heartbeat_elapsed += 1;
        role.quorum_elapsed += 1;
        if role.quorum_elapsed >= timing.election_ticks_min {
            role.quorum_elapsed = 0;
            let active = 1 + role.progress.iter().filter(|p| p.active).count();
            role.progress.iter_mut().for_each(|p| p.active = false);
            if active < majority(self.voters.len()) {
                // Check-quorum (thesis 6.2): whoever can reach a majority should lead.
                self.become_follower(None);
                return;
            }
        }
        if role.heartbeat_elapsed >= timing.heartbeat_ticks {
            self.broadcast_heartbeat();
        }
    }

    pub(crate) fn broadcast_heartbeat(&mut self) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        role.heartbeat_elapsed = 0;
        let round = role.reads.round();
        let beats: Vec<_> = role
            .progress
            .iter()
            .map(|p| {
                (
                    p.id,
                    Heartbeat {
                        commit: self.commit.min(p.matched()),
                        round,
                        is_last: false,
                    },
                )
            })
            .collect();
        for (to, heartbeat) in beats {
            self.send(to, Message::Heartbeat(heartbeat));
        }
    }

    pub(crate) fn handle_propose(&mut self, proposals: Vec<Proposal>) {
        for Proposal { ticket, payload } in proposals {
            let outcome = self.propose_one(payload);
            self.outbox.effects().proposed.push((ticket, outcome));
        }
    }

    fn propose_one(&mut self, payload: Bytes) -> Result<LogId, ProposeError> {
        let limits = self.config.limits;
        let leader = self.leader();
        let RoleState::Leader(role) = &self.role else {
            return Err(ProposeError::NotLeader { leader });
        };
        let bytes = payload.len();
        if bytes > limits.proposal_bytes_max {
            return Err(ProposeError::TooLarge {
                bytes,
                limit: limits.proposal_bytes_max,
            });
        }
        let limit = limits.uncommitted_bytes_max;
        if role.uncommitted_bytes > 0 && role.uncommitted_bytes + bytes > limit {
            return Err(ProposeError::Busy {
                limit_name: "uncommitted_bytes_max",
                limit,
            });
        }
        Ok(self.append_as_leader(EntryKind::Command, payload))
    }

    fn append_as_leader(&mut self, kind: EntryKind, payload: Bytes) -> LogId {
        let id = LogId::new(self.hard_state.term, self.last().index.next());
        let entry = Entry::new(id, kind, payload);
        if let RoleState::Leader(role) = &mut self.role {
            role.uncommitted_bytes += entry.encoded_len();
        }
        self.append_entry(entry);
        id
    }

    /// Sends to each follower what its window takes, once per turn: this is where batches are made.
    pub(crate) fn replicate(&mut self) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        for position in 0..role.progress.len() {
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
            let follower = &mut role.progress[position];
            let (to, next) = (follower.id, follower.next());
            let base = self.log.id_at(next.previous());
            if follower.wants_probe() {
                follower.probe_sent(now);
                self.send(
                    to,
                    Message::Append(Append {
                        base,
                        commit,
                        entries: Vec::new(),
                    }),
                );
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
                let to_index = self.log.tail_first().previous();
                let load = Load {
                    peer: to,
                    term,
                    from: next,
                    to: to_index,
                    bytes_max: room,
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

    pub(crate) fn handle_append_reply(&mut self, from: NodeId, reply: AppendReply) {
        let last = self.log.last().index;
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let now = role.now;
        let Some(follower) = role.progress_of(from) else {
            return;
        };
        follower.active = true;
        match reply {
            AppendReply::Accepted { matched } if matched > last => {
                // It acknowledges entries of ours that we do not have: a wrong or damaged peer.
                self.refuse_malformed(from, "append-reply");
            }
            AppendReply::Accepted { matched } => {
                if follower.accepted(matched, now) {
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
        let now = role.now;
        let Some(follower) = role.progress_of(from) else {
            return;
        };
        follower.round = follower.round.max(reply.round);
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
        let own = self.log.durable();
        let mut held: Vec<_> = self
            .voters
            .iter()
            .map(|id| {
                role.progress
                    .iter()
                    .find(|p| p.id == *id)
                    .map_or(own, Progress::matched)
            })
            .collect();
        let index = held_by_majority(&mut held);
        if index <= self.commit || self.log.term_at(index) != Some(self.hard_state.term) {
            return;
        }
        let committed = self.log.bytes_in_memory(self.commit.next(), index);
        self.commit_to(index);
        if let RoleState::Leader(role) = &mut self.role {
            role.uncommitted_bytes = role.uncommitted_bytes.saturating_sub(committed);
        }
    }
}
