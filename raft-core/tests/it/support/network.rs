//! Channels between nodes, with faults that a test switches on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{
    Envelope, Incoming, IncomingSnapshot, Membership, NodeId, SendError, SnapshotReader,
    SnapshotStream, Transport,
};
use tokio::sync::{mpsc, oneshot, watch};

#[derive(Default)]
struct Wires {
    inboxes: BTreeMap<NodeId, mpsc::Sender<Incoming>>,
    /// Messages from the first to the second vanish.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Sends to these fail.
    unreachable: BTreeSet<NodeId>,
    /// Appends that failed so, since the test last asked.
    failed_appends: u64,
    /// Sends to these never return.
    hanging: BTreeSet<NodeId>,
    panic_receive: BTreeSet<NodeId>,
    /// Whom each node was last told to reach.
    members: BTreeMap<NodeId, Membership>,
    snapshots: SnapshotWires,
}

/// How snapshots travel, and what was seen of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotWires {
    /// Every transfer breaks after so many parts.
    pub(crate) breaks_after: Option<u64>,
    /// A part takes so long.
    pub(crate) part_delay: Duration,
    /// For each transfer that was accepted: the receiver, and the part that it wanted first.
    pub(crate) accepted: Vec<(NodeId, u64)>,
    /// How each transfer ended that was refused.
    pub(crate) refused: Vec<String>,
    /// Parts that left.
    pub(crate) parts: u64,
}

/// See the file.
#[derive(Clone, Default)]
pub(crate) struct TestNetwork {
    wires: Arc<Mutex<Wires>>,
}

impl TestNetwork {
    pub(crate) fn transport(&self, id: NodeId, token: Arc<()>) -> Arc<TestTransport> {
        let (sender, inbox) = mpsc::channel(1024);
        self.wires.lock().unwrap().inboxes.insert(id, sender);
        Arc::new(TestTransport {
            id,
            wires: Arc::clone(&self.wires),
            inbox: tokio::sync::Mutex::new(inbox),
            closed: watch::Sender::new(false),
            _token: token,
        })
    }

    /// Cuts a node off from all others, in both directions.
    pub(crate) fn isolate(&self, id: u64) {
        let mut wires = self.wires.lock().unwrap();
        let others: Vec<_> = wires.inboxes.keys().copied().collect();
        for other in others {
            wires.cut.insert((NodeId(id), other));
            wires.cut.insert((other, NodeId(id)));
        }
    }

    pub(crate) fn heal(&self) {
        let mut wires = self.wires.lock().unwrap();
        wires.cut.clear();
        wires.unreachable.clear();
        wires.hanging.clear();
    }

    /// Puts a message of nobody's transport into its addressee's inbox, as far as there is room.
    pub(crate) fn inject(&self, envelope: Envelope) -> bool {
        let to = envelope.to;
        self.put(to, Incoming::Message(envelope))
    }

    /// Offers a snapshot of nobody's transport to its addressee.
    pub(crate) fn offer(&self, envelope: Envelope) -> Option<Offer> {
        let (offer, stream) = offer();
        let to = envelope.to;
        let stream = Box::new(stream);
        let incoming = Incoming::Snapshot(IncomingSnapshot { envelope, stream });
        self.put(to, incoming).then_some(offer)
    }

    fn put(&self, to: NodeId, incoming: Incoming) -> bool {
        let inbox = self.wires.lock().unwrap().inboxes.get(&to).cloned();
        inbox.is_some_and(|inbox| inbox.try_send(incoming).is_ok())
    }

    pub(crate) fn hang_sends_to(&self, id: u64) {
        self.wires.lock().unwrap().hanging.insert(NodeId(id));
    }

    pub(crate) fn fail_sends_to(&self, id: u64) {
        self.wires.lock().unwrap().unreachable.insert(NodeId(id));
    }

    pub(crate) fn take_failed_appends(&self) -> u64 {
        std::mem::take(&mut self.wires.lock().unwrap().failed_appends)
    }

    pub(crate) fn panic_at(&self, id: u64) {
        self.wires.lock().unwrap().panic_receive.insert(NodeId(id));
    }

    /// Whom this node reaches, by its own account.
    pub(crate) fn members_of(&self, id: u64) -> Vec<u64> {
        let wires = self.wires.lock().unwrap();
        let members = wires.members.get(&NodeId(id));
        members.map_or_else(Vec::new, |m| m.iter().map(|(id, _)| id.0).collect())
    }

    pub(crate) fn snapshots<T>(&self, look: impl FnOnce(&mut SnapshotWires) -> T) -> T {
        look(&mut self.wires.lock().unwrap().snapshots)
    }
}

pub(crate) struct TestTransport {
    id: NodeId,
    wires: Arc<Mutex<Wires>>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    closed: watch::Sender<bool>,
    _token: Arc<()>,
}

impl TestTransport {
    fn is_cut(&self, to: NodeId) -> bool {
        self.wires.lock().unwrap().cut.contains(&(self.id, to))
    }
}

#[async_trait]
impl Transport for TestTransport {
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
        if *self.closed.borrow() {
            return Err(SendError::Closed);
        }
        let (inbox, is_cut, hangs) = {
            let mut wires = self.wires.lock().unwrap();
            if wires.unreachable.contains(&to) {
                wires.failed_appends += u64::from(envelope.message.is_bulk());
                let why = "the test says so".to_owned();
                return Err(SendError::Unreachable { to, why });
            }
            let inbox = wires.inboxes.get(&to).cloned();
            let is_cut = wires.cut.contains(&(self.id, to));
            (inbox, is_cut, wires.hanging.contains(&to))
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(inbox) = inbox
            && !is_cut
        {
            // A full or closed inbox loses the message.
            let _ = inbox.try_send(Incoming::Message(envelope));
        }
        Ok(())
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        envelope: Envelope,
        mut content: Box<dyn SnapshotReader>,
    ) -> Result<(), SendError> {
        let gone = |what: &str| SendError::Unreachable {
            to,
            why: what.to_owned(),
        };
        let inbox = self.wires.lock().unwrap().inboxes.get(&to).cloned();
        let inbox = inbox.filter(|_| !self.is_cut(to)).ok_or(gone("cut off"))?;
        let (mut offer, stream) = offer();
        let stream = Box::new(stream);
        let incoming = Incoming::Snapshot(IncomingSnapshot { envelope, stream });
        inbox.try_send(incoming).map_err(|_| gone("its inbox"))?;
        let wires = Arc::clone(&self.wires);
        let settings = wires.lock().unwrap().snapshots.clone();
        let refused = |outcome: Result<(), String>| {
            outcome.map_err(|why| {
                let mut wires = wires.lock().unwrap();
                wires.snapshots.refused.push(why.clone());
                SendError::Refused { to, why }
            })
        };
        if let Some(first) = offer.first_part().await {
            wires.lock().unwrap().snapshots.accepted.push((to, first));
            let unreadable = |e: raft_core::StorageError| SendError::Snapshot(e.to_string());
            content.seek(first).await.map_err(unreadable)?;
            let mut sent = 0;
            while let Some(part) = content.next_part().await.map_err(unreadable)? {
                if settings.breaks_after == Some(sent) || self.is_cut(to) {
                    return Err(gone("the connection broke"));
                }
                if !settings.part_delay.is_zero() {
                    tokio::time::sleep(settings.part_delay).await;
                }
                wires.lock().unwrap().snapshots.parts += 1;
                sent += 1;
                if !offer.send(part).await {
                    return refused(offer.outcome().await);
                }
            }
            offer.end().await;
        }
        refused(offer.outcome().await)
    }

    async fn recv(&self) -> Option<Incoming> {
        let mut inbox = self.inbox.lock().await;
        let mut closed = self.closed.subscribe();
        let incoming = tokio::select! {
            incoming = inbox.recv() => incoming,
            _ = closed.wait_for(|closed| *closed) => None,
        };
        let must_panic = {
            let mut wires = self.wires.lock().unwrap();
            wires.panic_receive.remove(&self.id)
        };
        assert!(!must_panic, "the transport panics");
        incoming
    }

    fn set_members(&self, own: NodeId, members: &Membership) {
        assert_eq!(own, self.id);
        let mut wires = self.wires.lock().unwrap();
        wires.members.insert(own, members.clone());
    }

    async fn close(&self) {
        self.closed.send_replace(true);
        self.wires.lock().unwrap().inboxes.remove(&self.id);
    }
}

/// The sender's side of a snapshot on its way.
pub(crate) struct Offer {
    first: Option<oneshot::Receiver<u64>>,
    parts: mpsc::Sender<Option<Bytes>>,
    outcome: oneshot::Receiver<Result<(), String>>,
}

/// The receiver's side of it.
struct TestStream {
    first: Option<oneshot::Sender<u64>>,
    parts: mpsc::Receiver<Option<Bytes>>,
    outcome: oneshot::Sender<Result<(), String>>,
}

fn offer() -> (Offer, TestStream) {
    let (first, first_asked) = oneshot::channel();
    let (parts, parts_taken) = mpsc::channel(2);
    let (outcome, outcome_told) = oneshot::channel();
    let offer = Offer {
        first: Some(first_asked),
        parts,
        outcome: outcome_told,
    };
    let stream = TestStream {
        first: Some(first),
        parts: parts_taken,
        outcome,
    };
    (offer, stream)
}

impl Offer {
    /// The part that the receiver wants first; none where it told the outcome instead.
    pub(crate) async fn first_part(&mut self) -> Option<u64> {
        self.first.take().unwrap().await.ok()
    }

    /// Whether it went.
    pub(crate) async fn send(&self, part: Bytes) -> bool {
        self.parts.send(Some(part)).await.is_ok()
    }

    pub(crate) async fn end(&self) {
        let _ = self.parts.send(None).await;
    }

    pub(crate) async fn outcome(self) -> Result<(), String> {
        let dropped = || Err("dropped".to_owned());
        self.outcome.await.unwrap_or_else(|_| dropped())
    }
}

#[async_trait]
impl SnapshotStream for TestStream {
    async fn accept(&mut self, first_part: u64) -> Result<(), SendError> {
        let first = self.first.take().expect("once");
        let gone = |_| SendError::Snapshot("the sender is gone".to_owned());
        first.send(first_part).map_err(gone)
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, SendError> {
        let part = self.parts.recv().await;
        part.ok_or_else(|| SendError::Snapshot("the sender is gone".to_owned()))
    }

    async fn finish(self: Box<Self>, outcome: Result<(), String>) {
        let _ = self.outcome.send(outcome);
    }
}
