//! The other nodes: one outbox per peer and lane, and the task that empties it. A push never waits:
//! what does not fit is dropped, because the protocol sends again and an old message is worth less
//! than a new one.
//!
//! Two lanes, so that a heartbeat never waits behind entries: `control` and `bulk`
//! ([`crate::Message::is_bulk`]). The lanes of a peer start with the first message for it and end
//! when it is not a member any more. Also somebody who is not a member may have to be answered: a
//! node that was just added knows nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, watch};

use crate::config::Limits;
use crate::error::StopReason;
use crate::membership::Membership;
use crate::message::Envelope;
use crate::node::event::Event;
use crate::node::lifecycle::Spawner;
use crate::node::metrics::Metrics;
use crate::node::outbox::Outbox;
use crate::transport::{SendError, Transport};
use crate::types::NodeId;

/// Messages in the outbox of a control lane: seconds of heartbeats and acks. Above it the oldest
/// heartbeat goes.
const CONTROL_MESSAGES_MAX: usize = 1024;

/// Nodes that are not members and have lanes. What is for others is dropped.
const GUESTS_MAX: usize = 8;

/// All outboxes of a node.
pub(crate) struct Peers {
    links: Arc<Links>,
    spawner: Spawner,
    bulk_messages_max: usize,
    bulk_bytes_max: usize,
    known: RwLock<Known>,
}

/// What every lane needs.
struct Links {
    transport: Arc<dyn Transport>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    members: BTreeSet<NodeId>,
    /// Those that something was said to.
    peers: BTreeMap<NodeId, Arc<Peer>>,
}

struct Peer {
    id: NodeId,
    control: Outbox,
    bulk: Outbox,
    /// A loss was reported, and the driver takes no other report before its next tick.
    reported: AtomicBool,
    /// Ends both lanes.
    is_dismissed: watch::Sender<bool>,
}

/// Which of a peer's two outboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Small messages that must not wait.
    Control,
    /// Entries.
    Bulk,
}

impl Peers {
    /// Knows nobody yet.
    pub(crate) fn new(
        limits: &Limits,
        transport: Arc<dyn Transport>,
        spawner: Spawner,
        events: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            links: Arc::new(Links {
                transport,
                events,
                metrics,
            }),
            spawner,
            // The protocol keeps a window of appends per follower; twice that leaves room for what
            // it sends again after a change of leadership.
            bulk_messages_max: limits.inflight_messages_max.saturating_mul(2),
            bulk_bytes_max: limits.inflight_bytes_max.saturating_mul(2),
            known: RwLock::default(),
        }
    }

    /// Whom the node talks to from now on. The lanes of all others end, with what waits in them.
    pub(crate) fn set_members(&self, own: NodeId, members: &Membership) {
        let ids = members.iter().map(|(id, _)| id).filter(|id| *id != own);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.members = ids.collect();
        let Known { members, peers } = &mut *known;
        peers.retain(|id, peer| {
            let stays = members.contains(id);
            if !stays {
                peer.is_dismissed.send_replace(true);
            }
            stays
        });
    }

    /// Queues a message for its addressee. Never waits.
    pub(crate) fn push(&self, envelope: Envelope) {
        let Some(peer) = self.peer(envelope.to) else {
            self.links.metrics.messages_dropped.increment();
            return;
        };
        if envelope.message.is_bulk() {
            if !peer.bulk.push(envelope) {
                self.links.metrics.messages_dropped.increment();
                self.links.report_loss(&peer);
            }
        } else if peer.control.push_over_oldest(envelope) {
            self.links.metrics.messages_dropped.increment();
        }
    }

    /// Lets a further loss per peer be reported. The driver calls it at every tick, so that a dead
    /// peer wakes it once per tick at most.
    pub(crate) fn allow_reports(&self) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        for peer in known.peers.values() {
            peer.reported.store(false, Ordering::Relaxed);
        }
    }

    fn peer(&self, id: NodeId) -> Option<Arc<Peer>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.peers.get(&id).cloned();
        drop(known);
        found.or_else(|| self.admit(id))
    }

    /// Starts the lanes of a peer; none where there is no room for it.
    fn admit(&self, id: NodeId) -> Option<Arc<Peer>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = known.peers.get(&id) {
            return Some(Arc::clone(peer));
        }
        let guests = known.peers.keys().filter(|id| !known.members.contains(id));
        if !known.members.contains(&id) && guests.count() >= GUESTS_MAX {
            return None;
        }
        let peer = Arc::new(Peer {
            id,
            control: Outbox::new(CONTROL_MESSAGES_MAX, usize::MAX),
            bulk: Outbox::new(self.bulk_messages_max, self.bulk_bytes_max),
            reported: AtomicBool::new(false),
            is_dismissed: watch::Sender::new(false),
        });
        for (name, lane) in [("control", Lane::Control), ("bulk", Lane::Bulk)] {
            let task = run_lane(Arc::clone(&self.links), Arc::clone(&peer), lane);
            if !self.spawner.try_spawn(name, task) {
                // The next message tries again.
                peer.is_dismissed.send_replace(true);
                return None;
            }
        }
        known.peers.insert(id, Arc::clone(&peer));
        Some(peer)
    }
}

impl Links {
    fn report_loss(&self, peer: &Peer) {
        if peer.reported.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.events.try_send(Event::Unreachable(peer.id)).is_err() {
            // No room for the report; the next loss tries again.
            peer.reported.store(false, Ordering::Relaxed);
        }
    }
}

/// Empties one lane of one peer until the peer is dismissed.
async fn run_lane(links: Arc<Links>, peer: Arc<Peer>, lane: Lane) -> Result<(), StopReason> {
    let mut dismissed = peer.is_dismissed.subscribe();
    tokio::select! {
        biased;
        _ = dismissed.wait_for(|is_dismissed| *is_dismissed) => Ok(()),
        never = empty(&links, &peer, lane) => match never {},
    }
}

async fn empty(links: &Links, peer: &Peer, lane: Lane) -> std::convert::Infallible {
    let outbox = match lane {
        Lane::Control => &peer.control,
        Lane::Bulk => &peer.bulk,
    };
    let to = peer.id;
    loop {
        let envelope = outbox.pop().await;
        match links.transport.send(to, envelope).await {
            Ok(()) => links.metrics.messages_sent.increment(),
            // The receive task sees the same and ends the node.
            Err(SendError::Closed) => links.metrics.messages_failed.increment(),
            Err(error) => {
                links.metrics.messages_failed.increment();
                tracing::debug!(%to, %error, "message lost");
                links.report_loss(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryKind};
    use crate::membership::{Member, MemberRole};
    use crate::message::{Append, Heartbeat, Message};
    use crate::node::lifecycle::{self, LifeWatch};
    use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, Term};
    use async_trait::async_trait;
    use bytes::Bytes;
    use std::sync::Mutex;

    fn envelope(to: u64, message: Message) -> Envelope {
        Envelope {
            cluster: ClusterId::default(),
            group: GroupId(1),
            from: NodeId(1),
            from_incarnation: Incarnation(1),
            to: NodeId(to),
            to_incarnation: Incarnation(to),
            term: Term(1),
            message,
        }
    }

    fn heartbeat_to(to: u64, round: u64) -> Envelope {
        let commit = Index(0);
        let is_last = false;
        let beat = Heartbeat {
            commit,
            round,
            is_last,
        };
        envelope(to, Message::Heartbeat(beat))
    }

    fn append(payload_bytes: usize) -> Envelope {
        let id = LogId::new(Term(1), Index(1));
        let payload = Bytes::from(vec![0; payload_bytes]);
        let append = Append {
            base: LogId::ZERO,
            commit: Index(0),
            entries: vec![Entry::new(id, EntryKind::Command, payload)],
        };
        envelope(2, Message::Append(append))
    }

    fn members(ids: &[u64]) -> Membership {
        let member = |id: u64| Member {
            incarnation: Incarnation(id),
            address: String::new(),
            role: MemberRole::Voter,
        };
        Membership::new(ids.iter().map(|id| (NodeId(*id), member(*id))).collect()).unwrap()
    }

    /// Fails every bulk message and never finishes a control message, but for that to node 3.
    #[derive(Default)]
    struct Broken {
        begun: Mutex<Vec<u64>>,
    }

    #[async_trait]
    impl Transport for Broken {
        async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
            self.begun.lock().unwrap().push(to.0);
            if !envelope.message.is_bulk() && to != NodeId(3) {
                std::future::pending::<()>().await;
            }
            let why = "no route".to_owned();
            Err(SendError::Unreachable { to, why })
        }

        async fn send_snapshot(
            &self,
            _: NodeId,
            _: Envelope,
            _: Box<dyn crate::snapshot::SnapshotReader>,
        ) -> Result<(), SendError> {
            unreachable!("no snapshot is sent")
        }

        fn set_members(&self, _: NodeId, _: &Membership) {}

        async fn recv(&self) -> Option<crate::transport::Incoming> {
            std::future::pending().await
        }

        async fn close(&self) {}
    }

    struct Bench {
        peers: Peers,
        events: mpsc::Receiver<Event>,
        metrics: Arc<Metrics>,
        transport: Arc<Broken>,
        _life: LifeWatch,
    }

    /// Node 1 of three.
    fn bench(limits: &Limits) -> Bench {
        let (mut supervisor, _life) = lifecycle::new();
        let (sender, events) = mpsc::channel(8);
        let transport = Arc::new(Broken::default());
        let metrics = Arc::<Metrics>::default();
        let shared = Arc::clone(&transport) as Arc<dyn Transport>;
        let spawner = supervisor.spawner();
        let peers = Peers::new(limits, shared, spawner, sender, Arc::clone(&metrics));
        peers.set_members(NodeId(1), &members(&[1, 2, 3]));
        supervisor.spawn("idle", lifecycle::Ending::Abort, std::future::pending());
        let end = Arc::clone(&transport) as Arc<dyn Transport>;
        tokio::spawn(supervisor.run(end));
        Bench {
            peers,
            events,
            metrics,
            transport,
            _life,
        }
    }

    async fn until(mut holds: impl FnMut() -> bool) {
        while !holds() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_full_bulk_outbox_reports_the_peer_once_until_the_next_tick() {
        let limits = Limits {
            inflight_messages_max: 1,
            ..Limits::default()
        };
        let mut bench = bench(&limits);
        // Nothing awaits here, so no lane runs.
        for _ in 0..10 {
            bench.peers.push(append(10));
        }
        let event = bench.events.try_recv();
        assert!(matches!(event, Ok(Event::Unreachable(NodeId(2)))));
        assert!(bench.events.try_recv().is_err());
        bench.peers.allow_reports();
        bench.peers.push(append(10));
        assert!(bench.events.try_recv().is_ok());
        assert_eq!(bench.metrics.messages_dropped.value(), 9);
    }

    #[tokio::test]
    async fn a_few_strangers_are_answered_and_the_others_dropped_until_the_members_change() {
        let bench = bench(&Limits::default());
        let strangers = 10..10 + GUESTS_MAX as u64 + 3;
        for id in strangers.clone() {
            bench.peers.push(heartbeat_to(id, 1));
        }
        assert_eq!(bench.metrics.messages_dropped.value(), 3);
        bench.peers.push(heartbeat_to(2, 1));
        assert_eq!(
            bench.metrics.messages_dropped.value(),
            3,
            "members have room"
        );
        until(|| bench.transport.begun.lock().unwrap().len() == GUESTS_MAX + 1).await;
        bench.peers.set_members(NodeId(1), &members(&[1, 2, 3]));
        bench.peers.push(heartbeat_to(strangers.end - 1, 1));
        assert_eq!(bench.metrics.messages_dropped.value(), 3);
    }

    #[tokio::test]
    async fn the_lanes_of_a_member_that_goes_end_though_a_send_hangs_and_start_anew() {
        let bench = bench(&Limits::default());
        let begun = || bench.transport.begun.lock().unwrap().len();
        bench.peers.push(heartbeat_to(2, 1));
        until(|| begun() == 1).await;
        bench.peers.push(heartbeat_to(2, 2));
        tokio::task::yield_now().await;
        assert_eq!(begun(), 1, "the first one hangs");
        let lanes = bench.peers.peer(NodeId(2)).unwrap();
        bench.peers.set_members(NodeId(1), &members(&[1, 3]));
        until(|| lanes.is_dismissed.receiver_count() == 0).await;
        bench.peers.set_members(NodeId(1), &members(&[1, 2, 3]));
        bench.peers.push(heartbeat_to(2, 3));
        until(|| begun() == 2).await;
    }

    #[tokio::test]
    async fn a_peer_that_fails_every_message_is_reported_once_until_the_next_tick() {
        let mut bench = bench(&Limits::default());
        for count in 1..=20 {
            bench.peers.push(append(1));
            until(|| bench.metrics.messages_failed.value() >= count).await;
        }
        assert!(matches!(bench.events.try_recv(), Ok(Event::Unreachable(_))));
        assert!(bench.events.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_lane_that_hangs_holds_up_nobody() {
        let bench = bench(&Limits::default());
        for round in 0..5000 {
            bench.peers.push(heartbeat_to(2, round));
        }
        bench.peers.push(append(1));
        until(|| bench.metrics.messages_failed.value() == 1).await;
        let peer = bench.peers.peer(NodeId(2)).unwrap();
        assert!(peer.control.len() <= CONTROL_MESSAGES_MAX);
        bench.peers.push(heartbeat_to(3, 1));
        until(|| bench.metrics.messages_failed.value() == 2).await;
    }
}
