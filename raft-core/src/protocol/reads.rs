//! Linearizable reads by ReadIndex (thesis 6.4), confirmed in numbered rounds.
//!
//! A round takes the commit index, asks everybody "do I still lead?" and is confirmed when a
//! majority has answered a round with its number or a higher one. Rounds are numbered by the leader
//! and never named by a caller, so that a late answer to one question can never confirm another.
//! All reads that wait share the next round; one round is under way at a time.
//!
//! A follower asks its leader for the index, in questions that it numbers itself, and waits until
//! it has applied that much. All reads that it has when it asks share one question.

use std::collections::VecDeque;

use crate::config::Config;
use crate::error::ReadError;
use crate::message::{Message, ReadIndex, ReadIndexReply};
use crate::protocol::input::ReadTicket;
use crate::protocol::random::Random;
use crate::protocol::{Raft, RoleState};
use crate::types::{Index, NodeId};

/// Who waits for an index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    /// A client of this node.
    Local(ReadTicket),
    /// A follower, and the number of its question.
    Remote(NodeId, u64),
}

/// Reads at a leader.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The newest round that was begun in this term.
    round: u64,
    /// Those that no round was begun for.
    waiting: VecDeque<Reader>,
    asked: Option<Round>,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// The commit index when the round began: what the reads have to see.
    index: Index,
    readers: VecDeque<Reader>,
}

/// Reads at a follower.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    /// Those that no question was sent for.
    waiting: VecDeque<ReadTicket>,
    asked: Option<Question>,
}

#[derive(Debug)]
struct Question {
    number: u64,
    asked_at: u64,
    tickets: VecDeque<ReadTicket>,
}

impl Reads {
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Begins a round that no read asked for, to renew a lease.
    pub(crate) fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    pub(crate) fn take_waiting(&mut self) -> VecDeque<Reader> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_none()
    }

    fn pending(&self) -> usize {
        self.waiting.len() + self.asked.as_ref().map_or(0, |round| round.readers.len())
    }

    fn take_all(&mut self) -> impl Iterator<Item = Reader> {
        let asked = self.asked.take().map(|round| round.readers);
        asked
            .unwrap_or_default()
            .into_iter()
            .chain(self.take_waiting())
    }
}

impl Forwarding {
    fn pending(&self) -> usize {
        self.waiting.len()
            + self
                .asked
                .as_ref()
                .map_or(0, |question| question.tickets.len())
    }

    fn take_all(&mut self) -> impl Iterator<Item = ReadTicket> {
        let asked = self.asked.take().map(|question| question.tickets);
        asked
            .unwrap_or_default()
            .into_iter()
            .chain(std::mem::take(&mut self.waiting))
    }
}

/// Where a node begins to number its questions: at random, because a late answer to a question of
/// its former life, in the same term, must not be taken for one of this life.
pub(crate) fn first_number(config: &Config) -> u64 {
    let mut random = Random::of_node(!config.seed, config.id);
    u64::from(random.between(0, u32::MAX)) << 31
}

impl Raft {
    pub(crate) fn handle_read(&mut self, tickets: Vec<ReadTicket>) {
        self.wake();
        let limit = self.config.limits.reads_pending_max;
        let leader = self.leader();
        let effects = self.outbox.effects();
        for ticket in tickets {
            let pending = match &mut self.role {
                RoleState::Leader(role) if role.reads.pending() < limit => {
                    role.reads.waiting.push_back(Reader::Local(ticket));
                    continue;
                }
                RoleState::Follower(role) if leader.is_some() && role.reads.pending() < limit => {
                    role.reads.waiting.push_back(ticket);
                    continue;
                }
                RoleState::Leader(role) => role.reads.pending(),
                RoleState::Follower(role) => role.reads.pending(),
                _ => 0,
            };
            let error = if pending >= limit {
                let limit_name = "reads_pending_max";
                ReadError::Busy { limit_name, limit }
            } else {
                ReadError::NotLeader { leader }
            };
            effects.reads_refused.push((ticket, error));
        }
    }

    /// The newest round of this leader.
    #[cfg(test)]
    pub(crate) fn read_round(&self) -> u64 {
        match &self.role {
            RoleState::Leader(role) => role.reads.round(),
            _ => 0,
        }
    }

    /// Begins a round for the reads that wait. Held back until an entry of the own term is
    /// committed: before that a new leader does not know what its predecessors committed.
    pub(crate) fn begin_read_round(&mut self) {
        let own_term_committed = self.has_committed_in_term();
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        if !own_term_committed || role.reads.asked.is_some() || role.reads.waiting.is_empty() {
            return;
        }
        role.reads.asked = Some(Round {
            number: role.reads.next_round(),
            index: self.commit,
            readers: role.reads.take_waiting(),
        });
        self.broadcast_heartbeat();
        self.confirm_reads();
    }

    /// Answers the reads of the round that a majority has confirmed, and begins the next.
    pub(crate) fn confirm_reads(&mut self) {
        let own = self.own_voice();
        let length = super::lease::length(&self.config);
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let own_round = role.reads.round;
        let confirmed = self.electorate.confirmed(|id| {
            if Some(id) == own {
                own_round
            } else {
                role.round_of(id)
            }
        });
        role.lease.confirmed(confirmed, length);
        let asked = &mut role.reads.asked;
        let Some(asked) = asked.take_if(|asked| asked.number <= confirmed) else {
            return;
        };
        for reader in asked.readers {
            self.answer_reader(reader, asked.index);
        }
    }

    pub(crate) fn answer_reader(&mut self, reader: Reader, index: Index) {
        match reader {
            Reader::Local(ticket) => self.outbox.effects().reads_ready.push((ticket, index)),
            Reader::Remote(peer, number) => {
                // It may have been removed meanwhile; then nobody waits any more.
                if self.membership().get(peer).is_some() {
                    let index = Some(index);
                    let reply = ReadIndexReply { number, index };
                    self.send(peer, Message::ReadIndexReply(reply));
                }
            }
        }
    }

    /// A follower's reads need an index.
    pub(crate) fn handle_read_index(&mut self, from: NodeId, question: ReadIndex) {
        let limit = self.config.limits.reads_pending_max;
        let number = question.number;
        match &mut self.role {
            RoleState::Leader(role) if role.reads.pending() < limit => {
                role.reads.waiting.push_back(Reader::Remote(from, number));
            }
            _ => {
                let reply = ReadIndexReply {
                    number,
                    index: None,
                };
                self.send(from, Message::ReadIndexReply(reply));
            }
        }
    }

    /// Asks the leader for an index, or asks again where the answer seems lost. A new number each
    /// time: only the answer to the newest question counts.
    pub(crate) fn ask_index(&mut self) {
        let patience = u64::from(self.config.timing.heartbeat_ticks) * 2;
        let (now, number) = (self.now, self.index_asked + 1);
        let RoleState::Follower(role) = &mut self.role else {
            return;
        };
        let Some(leader) = role.leader else {
            return;
        };
        let is_overdue = |question: &Question| now >= question.asked_at + patience;
        let mut tickets = match &mut role.reads.asked {
            Some(question) if !is_overdue(question) => return,
            Some(question) => std::mem::take(&mut question.tickets),
            None => VecDeque::new(),
        };
        tickets.append(&mut role.reads.waiting);
        role.reads.asked = None;
        if tickets.is_empty() {
            return;
        }
        role.reads.asked = Some(Question {
            number,
            asked_at: now,
            tickets,
        });
        self.index_asked = number;
        let question = Message::ReadIndex(ReadIndex { number });
        self.send_to_leader(leader, question);
    }

    /// Only the leader knows.
    pub(crate) fn handle_read_index_reply(&mut self, from: NodeId, reply: ReadIndexReply) {
        let leader = self.leader();
        let RoleState::Follower(role) = &mut self.role else {
            return;
        };
        if leader != Some(from) {
            return;
        }
        let is_answer = |question: &mut Question| question.number == reply.number;
        let Some(question) = role.reads.asked.take_if(is_answer) else {
            return;
        };
        let effects = self.outbox.effects();
        for ticket in question.tickets {
            match reply.index {
                Some(index) => effects.reads_ready.push((ticket, index)),
                None => {
                    let error = ReadError::NotLeader { leader };
                    effects.reads_refused.push((ticket, error));
                }
            }
        }
    }

    /// The role ends, or the leader that was asked: whoever waits is told where to go.
    pub(crate) fn refuse_reads(&mut self, leader: Option<NodeId>) {
        let tickets: Vec<ReadTicket> = match &mut self.role {
            RoleState::Leader(role) => {
                let local = |reader| match reader {
                    Reader::Local(ticket) => Some(ticket),
                    Reader::Remote(..) => None,
                };
                role.reads.take_all().filter_map(local).collect()
            }
            RoleState::Follower(role) => role.reads.take_all().collect(),
            _ => return,
        };
        let refused = tickets.into_iter();
        let refused = refused.map(|ticket| (ticket, ReadError::NotLeader { leader }));
        self.outbox.effects().reads_refused.extend(refused);
    }
}
