//! Which messages are let in: only those that are for us, from whom they say, and sound in
//! themselves. What gets past here may be wrong, but it never makes an assertion fail.

use crate::entry::{Entry, EntryKind};
use crate::error::Refusal;
use crate::membership::Membership;
use crate::message::{Append, Envelope, HeartbeatReply, Message, VoteReply};
use crate::protocol::Raft;
use crate::snapshot::SnapshotMeta;
use crate::types::{Index, LogId, NodeId, Term};

/// Refusals that are kept until they are taken; what comes on top is only counted.
const REFUSALS_MAX: usize = 16;

/// No cluster comes near this term by elections. Whoever claims more is wrong, and to believe it
/// would leave no term to elect anybody in.
const TERM_MAX: Term = Term(u64::MAX >> 1);

/// Nor will any log. Behind the end of all indexes there would be no room for another entry.
const INDEX_MAX: Index = Index(u64::MAX >> 1);

impl Raft {
    /// Whether a message is for us, from whom it says, and not contradictory in itself.
    pub(crate) fn check(&self, envelope: &Envelope) -> Result<(), Refusal> {
        let config = &self.config;
        if envelope.cluster != config.cluster {
            return Err(Refusal::Cluster);
        }
        if envelope.group != config.group {
            return Err(Refusal::Group);
        }
        if envelope.to != config.id || envelope.from == config.id {
            return Err(Refusal::Addressee(envelope.to));
        }
        if envelope.from == NodeId(0) {
            return Err(Refusal::Stranger(envelope.from));
        }
        if envelope.to_incarnation != config.incarnation {
            return Err(Refusal::Incarnation(envelope.to));
        }
        // Only members count. But whoever asks may be a member of a newer membership than ours: its
        // question is answered, because a vote or an ack says nothing of who asked.
        if !is_question(&envelope.message) {
            let member = self.membership().get(envelope.from);
            let known = member.map(|member| member.incarnation);
            let known = known.or_else(|| self.leaving_incarnation(envelope.from));
            let known = known.ok_or(Refusal::Stranger(envelope.from))?;
            if known != envelope.from_incarnation {
                return Err(Refusal::Incarnation(envelope.from));
            }
        }
        let sound = match &envelope.message {
            Message::Append(append) => is_sound(append, envelope.term),
            Message::Snapshot(snapshot) => {
                let SnapshotMeta { last, membership } = &snapshot.meta;
                let is_real = last.index > Index(0) && last.term > Term(0);
                let is_real = is_real && last.index <= INDEX_MAX;
                is_real && last.term <= envelope.term && !membership.is_empty()
            }
            Message::PreVote(pre_vote) => pre_vote.next_term > envelope.term,
            _ => envelope.term > Term(0) || matches!(envelope.message, Message::PreVoteReply(_)),
        };
        if sound && envelope.term <= TERM_MAX {
            Ok(())
        } else {
            Err(malformed(envelope.from, &envelope.message, envelope.term))
        }
    }

    /// A sender of an older term. A leader or candidate is told the newer term, because it would go
    /// on undisturbed otherwise; everything else is just late.
    pub(crate) fn answer_stale(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::Append(_) | Message::Heartbeat(_) | Message::Snapshot(_) => {
                let reply = HeartbeatReply {
                    round: 0,
                    is_refilling: self.is_refilling(),
                };
                self.send(from, Message::HeartbeatReply(reply));
            }
            Message::Vote(_) => {
                let reply = VoteReply {
                    granted: false,
                    last: self.last(),
                };
                self.promise(from, Message::VoteReply(reply));
            }
            _ => {}
        }
    }

    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.counters.refused += 1;
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push(refusal);
        }
    }

    pub(crate) fn refuse_malformed(&mut self, from: NodeId, message: &'static str) {
        let term = self.hard_state.term;
        self.refuse(Refusal::Malformed {
            from,
            message,
            term,
        });
    }
}

/// Entries follow their base and each other; terms never fall and are never above the sender's.
/// Only the position before the first entry has the term 0.
fn is_sound(append: &Append, term: Term) -> bool {
    let mut before = append.base;
    for entry in &append.entries {
        let follows = before.index.0.checked_add(1) == Some(entry.index().0);
        if !follows || entry.term() < before.term || entry.term() == Term(0) {
            return false;
        }
        let is_membership = entry.kind() == EntryKind::Membership;
        if is_membership && !is_membership_sound(entry) {
            return false;
        }
        before = entry.id();
    }
    let base_is_real = append.base.index > Index(0) && append.base.term > Term(0);
    let has_room = before.index <= INDEX_MAX;
    term > Term(0)
        && has_room
        && before.term <= term
        && (base_is_real || append.base == LogId::ZERO)
}

fn is_membership_sound(entry: &Entry) -> bool {
    Membership::decode(entry.payload()).is_ok_and(|membership| !membership.is_empty())
}

/// Whether a message asks or tells something in its sender's name, rather than answering in it.
fn is_question(message: &Message) -> bool {
    match message {
        Message::PreVote(_)
        | Message::Vote(_)
        | Message::Append(_)
        | Message::Heartbeat(_)
        | Message::Snapshot(_)
        | Message::TimeoutNow => true,
        Message::PreVoteReply(_)
        | Message::VoteReply(_)
        | Message::AppendReply(_)
        | Message::RefillReply(_)
        | Message::HeartbeatReply(_)
        | Message::ReadIndex(_)
        | Message::ReadIndexReply(_) => false,
    }
}

fn malformed(from: NodeId, message: &Message, term: Term) -> Refusal {
    Refusal::Malformed {
        from,
        message: message.name(),
        term,
    }
}
