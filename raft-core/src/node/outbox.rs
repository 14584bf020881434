//! The messages that wait for one lane of one peer: a bounded queue with one consumer, where the
//! producer decides what goes when it is full. A push never waits.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::message::{Envelope, Message};

/// See the file.
#[derive(Debug)]
pub(crate) struct Outbox {
    messages_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Envelope>,
    bytes: usize,
}

impl Queue {
    fn remove(&mut self, at: usize) -> Option<Envelope> {
        let envelope = self.messages.remove(at)?;
        self.bytes -= envelope.message.entry_bytes();
        Some(envelope)
    }
}

impl Outbox {
    /// An empty outbox with room for so many messages with so many bytes of entries.
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages_max,
            bytes_max,
            queue: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Queues the message if it fits; an empty outbox takes any message.
    pub(crate) fn push(&self, envelope: Envelope) -> bool {
        let bytes = envelope.message.entry_bytes();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = queue.messages.len() < self.messages_max
            && queue.bytes.saturating_add(bytes) <= self.bytes_max;
        if !fits && !queue.messages.is_empty() {
            return false;
        }
        queue.bytes += bytes;
        queue.messages.push_back(envelope);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Queues the message in any case. In a full outbox the oldest heartbeat makes room, or where
    /// there is none the oldest message; whether one had to go comes back.
    pub(crate) fn push_over_oldest(&self, envelope: Envelope) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = queue.messages.len() >= self.messages_max;
        if is_full {
            let oldest = queue.messages.iter().position(is_repeated_soon);
            queue.remove(oldest.unwrap_or(0));
        }
        queue.bytes += envelope.message.entry_bytes();
        queue.messages.push_back(envelope);
        drop(queue);
        self.filled.notify_one();
        is_full
    }

    /// The oldest message, as soon as there is one.
    pub(crate) async fn pop(&self) -> Envelope {
        loop {
            let oldest = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.remove(0)
            };
            match oldest {
                Some(envelope) => return envelope,
                // A permit of an earlier push only costs another look.
                None => self.filled.notified().await,
            }
        }
    }

    /// Messages that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.queue.lock().unwrap().messages.len()
    }
}

/// Whether a newer message of the same kind says all that this one says.
fn is_repeated_soon(envelope: &Envelope) -> bool {
    matches!(
        envelope.message,
        Message::Heartbeat(_)
            | Message::HeartbeatReply(_)
            | Message::PreVote(_)
            | Message::PreVoteReply(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryKind};
    use crate::message::{Append, AppendReply, Heartbeat};
    use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};
    use bytes::Bytes;

    fn envelope(message: Message) -> Envelope {
        Envelope {
            cluster: ClusterId::default(),
            group: GroupId(1),
            from: NodeId(1),
            from_incarnation: Incarnation(1),
            to: NodeId(2),
            to_incarnation: Incarnation(2),
            term: Term(1),
            message,
        }
    }

    fn heartbeat(round: u64) -> Envelope {
        let commit = Index(0);
        envelope(Message::Heartbeat(Heartbeat {
            commit,
            round,
            is_last: false,
        }))
    }

    fn ack(matched: u64) -> Envelope {
        let matched = Index(matched);
        envelope(Message::AppendReply(AppendReply::Accepted { matched }))
    }

    fn append(payload_bytes: usize) -> Envelope {
        let id = LogId::new(Term(1), Index(1));
        let payload = Bytes::from(vec![0; payload_bytes]);
        envelope(Message::Append(Append {
            base: LogId::ZERO,
            commit: Index(0),
            entries: vec![Entry::new(id, EntryKind::Command, payload)],
        }))
    }

    #[tokio::test]
    async fn a_full_control_outbox_drops_its_oldest_heartbeat_and_keeps_acks() {
        let outbox = Outbox::new(3, usize::MAX);
        assert!(!outbox.push_over_oldest(ack(1)));
        assert!(!outbox.push_over_oldest(heartbeat(1)));
        assert!(!outbox.push_over_oldest(heartbeat(2)));
        assert!(outbox.push_over_oldest(ack(2)));
        assert!(outbox.push_over_oldest(ack(3)));
        assert!(outbox.push_over_oldest(ack(4)));
        for expected in [ack(2), ack(3), ack(4)] {
            assert_eq!(outbox.pop().await, expected);
        }
    }

    #[test]
    fn the_bulk_outbox_is_bounded_in_bytes_but_takes_one_large_message() {
        let outbox = Outbox::new(100, 1000);
        assert!(outbox.push(append(5000)));
        assert!(!outbox.push(append(1)));
    }
}
