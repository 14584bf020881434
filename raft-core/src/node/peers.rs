//! One outbox per peer and lane, and the task that empties it. A push never waits: what does not
//! fit is dropped, because the protocol sends again and an old message is worth less than a new
//! one.
//!
//! Two lanes, so that a heartbeat never waits behind entries: `control` and `bulk`
//! ([`crate::Message::is_bulk`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::config::Limits;
use crate::error::StopReason;
use crate::message::{Envelope, Message};
use crate::node::event::Event;
use crate::node::metrics::Metrics;
use crate::transport::{SendError, Transport};
use crate::types::NodeId;

/// Messages in the outbox of a control lane: seconds of heartbeats and acks. Above it the oldest
/// heartbeat goes.
const CONTROL_MESSAGES_MAX: usize = 1024;

/// All outboxes of a node.
#[derive(Debug)]
pub(crate) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Peer {
    control: Outbox,
    bulk: Outbox,
    /// A loss was reported, and the driver takes no other report before its next tick.
    reported: AtomicBool,
}

/// Which of a peer's two outboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small messages that must not wait.
    Control,
    /// Entries.
    Bulk,
}

impl Peers {
    /// Empty outboxes for these peers.
    pub(crate) fn new(
        ids: impl Iterator<Item = NodeId>,
        limits: &Limits,
        events: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Self {
        // The protocol keeps a window of appends per follower; twice that leaves room for what it
        // sends again after a change of leadership.
        let bulk_messages = limits.inflight_messages_max.saturating_mul(2);
        let bulk_bytes = limits.inflight_bytes_max.saturating_mul(2);
        let peer = || Peer {
            control: Outbox::new(CONTROL_MESSAGES_MAX, usize::MAX),
            bulk: Outbox::new(bulk_messages, bulk_bytes),
            reported: AtomicBool::new(false),
        };
        Self {
            peers: ids.map(|id| (id, peer())).collect(),
            events,
            metrics,
        }
    }

    /// The peers, in order of their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Queues a message for its addressee. Never waits.
    pub(crate) fn push(&self, envelope: Envelope) {
        let to = envelope.to;
        let Some(peer) = self.peers.get(&to) else {
            self.metrics.messages_dropped.increment();
            return;
        };
        if envelope.message.is_bulk() {
            if !peer.bulk.push(envelope) {
                self.metrics.messages_dropped.increment();
                self.report_loss(to, peer);
            }
        } else if peer.control.push_over_oldest(envelope) {
            self.metrics.messages_dropped.increment();
        }
    }

    /// Lets a further loss per peer be reported. The driver calls it at every tick, so that a dead
    /// peer wakes it once per tick at most.
    pub(crate) fn allow_reports(&self) {
        for peer in self.peers.values() {
            peer.reported.store(false, Ordering::Relaxed);
        }
    }

    fn report_loss(&self, id: NodeId, peer: &Peer) {
        if peer.reported.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.events.try_send(Event::Unreachable(id)).is_err() {
            // No room for the report; the next loss tries again.
            peer.reported.store(false, Ordering::Relaxed);
        }
    }
}

/// Empties one lane of one peer until it is aborted.
pub(crate) async fn run_lane(
    peers: Arc<Peers>,
    to: NodeId,
    lane: Lane,
    transport: Arc<dyn Transport>,
) -> Result<(), StopReason> {
    let peer = &peers.peers[&to];
    let outbox = match lane {
        Lane::Control => &peer.control,
        Lane::Bulk => &peer.bulk,
    };
    loop {
        let envelope = outbox.pop().await;
        match transport.send(to, envelope).await {
            Ok(()) => peers.metrics.messages_sent.increment(),
            // The receive task sees the same and ends the node.
            Err(SendError::Closed) => peers.metrics.messages_failed.increment(),
            Err(error) => {
                peers.metrics.messages_failed.increment();
                tracing::debug!(%to, %error, "message lost");
                peers.report_loss(to, peer);
            }
        }
    }
}

/// A bounded queue with one consumer, where the producer decides what goes when it is full.
#[derive(Debug)]
struct Outbox {
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
    fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            messages_max,
            bytes_max,
            queue: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Queues the message if it fits; an empty outbox takes any message.
    fn push(&self, envelope: Envelope) -> bool {
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
    fn push_over_oldest(&self, envelope: Envelope) -> bool {
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

    async fn pop(&self) -> Envelope {
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
    use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, Term};
    use async_trait::async_trait;
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

    fn peers(limits: &Limits) -> (Arc<Peers>, mpsc::Receiver<Event>) {
        let (sender, events) = mpsc::channel(8);
        let ids = [NodeId(2)].into_iter();
        let peers = Peers::new(ids, limits, sender, Arc::default());
        (Arc::new(peers), events)
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

    #[tokio::test]
    async fn a_full_bulk_outbox_reports_the_peer_once_until_the_next_tick() {
        let limits = Limits {
            inflight_messages_max: 1,
            ..Limits::default()
        };
        let (peers, mut events) = peers(&limits);
        for _ in 0..10 {
            peers.push(append(10));
        }
        assert!(matches!(
            events.try_recv(),
            Ok(Event::Unreachable(NodeId(2)))
        ));
        assert!(events.try_recv().is_err());
        peers.allow_reports();
        peers.push(append(10));
        assert!(events.try_recv().is_ok());
        assert_eq!(peers.metrics.messages_dropped.value(), 9);
    }

    #[test]
    fn the_bulk_outbox_is_bounded_in_bytes_but_takes_one_large_message() {
        let outbox = Outbox::new(100, 1000);
        assert!(outbox.push(append(5000)));
        assert!(!outbox.push(append(1)));
    }

    #[test]
    fn a_message_for_a_stranger_is_counted_and_dropped() {
        let (peers, _events) = peers(&Limits::default());
        peers.push(Envelope {
            to: NodeId(9),
            ..heartbeat(1)
        });
        assert_eq!(peers.metrics.messages_dropped.value(), 1);
    }

    /// Fails every bulk message and never finishes a control message.
    struct Broken;

    #[async_trait]
    impl Transport for Broken {
        async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
            if !envelope.message.is_bulk() {
                std::future::pending::<()>().await;
            }
            let why = "no route".to_owned();
            Err(SendError::Unreachable { to, why })
        }

        async fn recv(&self) -> Option<crate::transport::Incoming> {
            None
        }

        async fn close(&self) {}
    }

    #[tokio::test]
    async fn a_peer_that_fails_every_message_is_reported_once_until_the_next_tick() {
        let (peers, mut events) = peers(&Limits::default());
        let transport: Arc<dyn Transport> = Arc::new(Broken);
        let lane = run_lane(Arc::clone(&peers), NodeId(2), Lane::Bulk, transport);
        let lane = tokio::spawn(lane);
        for count in 1..=20 {
            peers.push(append(1));
            while peers.metrics.messages_failed.value() < count {
                tokio::task::yield_now().await;
            }
        }
        assert!(matches!(events.try_recv(), Ok(Event::Unreachable(_))));
        assert!(events.try_recv().is_err());
        lane.abort();
    }

    #[tokio::test]
    async fn a_lane_that_hangs_holds_up_nobody() {
        let (peers, _events) = peers(&Limits::default());
        let transport: Arc<dyn Transport> = Arc::new(Broken);
        let run = |lane| run_lane(Arc::clone(&peers), NodeId(2), lane, Arc::clone(&transport));
        let control = tokio::spawn(run(Lane::Control));
        let bulk = tokio::spawn(run(Lane::Bulk));
        for round in 0..5000 {
            peers.push(heartbeat(round));
        }
        peers.push(append(1));
        while peers.metrics.messages_failed.value() < 1 {
            tokio::task::yield_now().await;
        }
        let control_queue = peers.peers[&NodeId(2)].control.queue.lock().unwrap();
        assert!(control_queue.messages.len() <= CONTROL_MESSAGES_MAX);
        drop(control_queue);
        control.abort();
        bulk.abort();
    }
}
