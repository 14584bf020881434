//! What the checks share: the nodes under test, and a snapshot to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::message::{Append, Heartbeat};
use raft_core::{
    ClusterId, Entry, EntryKind, Envelope, GroupId, Incarnation, Incoming, IncomingSnapshot, Index,
    LogId, Member, MemberRole, Membership, Message, NodeId, SnapshotDescriptor, SnapshotHash,
    SnapshotMeta, SnapshotReader, StorageError, Term, Transport,
};
use tokio::time::timeout;

/// How long a check waits for what must happen: far longer than it takes, so that a busy machine
/// fails no check.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How long one attempt waits before the next; nothing is judged by it.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Nodes 1, 2 and 3 that know each other, and nobody else.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Starts a node. After [`Fixture::kill`] it is the same node, restarted at its old address.
    async fn start(&self, id: NodeId) -> Arc<dyn Transport>;

    /// Ends a node as a power cut does: nobody is told. The caller drops its transport afterwards,
    /// and what that does must not reach anybody either.
    async fn kill(&self, id: NodeId);

    /// Starts a node that was killed as another incarnation, at another address: from then on
    /// [`Fixture::incarnation`] and [`Fixture::address`] give these.
    async fn replace(&self, id: NodeId) -> Arc<dyn Transport>;

    /// Where a node is reached.
    fn address(&self, id: NodeId) -> String {
        format!("node-{id}")
    }

    /// Some of the nodes as members, all voters.
    ///
    /// # Panics
    /// When there are none, or too many.
    fn membership(&self, ids: &[NodeId]) -> Membership {
        let member = |id| Member {
            incarnation: self.incarnation(id),
            address: self.address(id),
            role: MemberRole::Voter,
        };
        let members = ids.iter().map(|id| (*id, member(*id)));
        Membership::new(members.collect()).expect("members of a test")
    }

    /// The cluster that messages must name.
    fn cluster(&self) -> ClusterId {
        ClusterId([1; 16])
    }

    /// The incarnation that messages must name for a node.
    fn incarnation(&self, id: NodeId) -> Incarnation {
        Incarnation(1_000 + id.0)
    }

    /// A message between two nodes as the transport expects it.
    fn envelope(&self, from: NodeId, to: NodeId, message: Message) -> Envelope {
        Envelope {
            cluster: self.cluster(),
            group: GroupId(7),
            from,
            from_incarnation: self.incarnation(from),
            to,
            to_incarnation: self.incarnation(to),
            term: Term(3),
            message,
        }
    }
}

pub(super) const ONE: NodeId = NodeId(1);
pub(super) const TWO: NodeId = NodeId(2);
pub(super) const THREE: NodeId = NodeId(3);

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_elapsed| panic!("not within {DEADLINE:?}: {what}"))
}

pub(super) fn message(received: Option<Incoming>) -> Envelope {
    match received.expect("still open") {
        Incoming::Message(envelope) => envelope,
        Incoming::Snapshot(snapshot) => panic!("unexpected snapshot: {:?}", snapshot.envelope),
    }
}

pub(super) fn heartbeat(round: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        commit: Index(5),
        round,
        is_last: false,
    })
}

/// An append of `count` entries with payloads of `bytes` each, after index `base`.
pub(super) fn append(base: u64, count: u64, bytes: usize) -> Message {
    let entry = |index| {
        let id = LogId::new(Term(2), Index(index));
        let payload = Bytes::from(vec![(index % 251) as u8; bytes]);
        Entry::new(id, EntryKind::Command, payload)
    };
    Message::Append(Append {
        base: LogId::new(Term(2), Index(base)),
        commit: Index(base),
        entries: (base + 1..=base + count).map(entry).collect(),
    })
}

/// The base of a probe, which no check uses.
const PROBE_BASE: u64 = 1 << 40;

/// Returns when entries from one node have arrived at the other: the link is up. What replies go
/// over would not do.
pub(super) async fn wait_for_link(fixture: &dyn Fixture, from: &Node, to: &Node) {
    wait_for_message(fixture, from, to, append(PROBE_BASE, 0, 0)).await;
}

/// Sends a message until it has arrived.
pub(super) async fn wait_for_message(
    fixture: &dyn Fixture,
    from: &Node,
    to: &Node,
    message: Message,
) {
    let probe = fixture.envelope(from.id, to.id, message);
    within("a message goes over", async {
        loop {
            let _ = from.transport.send(to.id, probe.clone()).await;
            if timeout(ATTEMPT, to.next_matching(|found| *found == probe))
                .await
                .is_ok()
            {
                return;
            }
        }
    })
    .await;
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) transport: Arc<dyn Transport>,
}

impl Node {
    pub(super) async fn start(fixture: &dyn Fixture, id: NodeId) -> Self {
        Self {
            id,
            transport: fixture.start(id).await,
        }
    }

    /// Takes what comes until it is a snapshot. May be cancelled.
    pub(super) async fn next_offer(&self) -> IncomingSnapshot {
        loop {
            if let Incoming::Snapshot(offer) = self.transport.recv().await.expect("still open") {
                return offer;
            }
        }
    }

    /// Takes messages until one fits. May be cancelled.
    pub(super) async fn next_matching(&self, fits: impl Fn(&Envelope) -> bool) -> Envelope {
        loop {
            let envelope = message(self.transport.recv().await);
            if fits(&envelope) {
                return envelope;
            }
        }
    }
}

/// Two nodes with links in both directions. One after the other: of two that dial each other at the
/// same time, a link may be replaced by a newer one, with what is on its way.
pub(super) async fn pair(fixture: &dyn Fixture) -> (Node, Node) {
    let one = Node::start(fixture, ONE).await;
    one.transport.set_members(ONE, &fixture.membership(&[ONE]));
    let two = Node::start(fixture, TWO).await;
    two.transport.set_members(TWO, &fixture.membership(&[TWO]));
    let all = fixture.membership(&[ONE, TWO, THREE]);
    one.transport.set_members(ONE, &all);
    wait_for_link(fixture, &one, &two).await;
    two.transport.set_members(TWO, &all);
    wait_for_link(fixture, &two, &one).await;
    (one, two)
}

/// A snapshot of made-up parts, and how many of them were read.
#[derive(Clone, Debug)]
pub struct Parts {
    descriptor: SnapshotDescriptor,
    sizes: Arc<[usize]>,
    next: usize,
    read: Arc<AtomicU64>,
}

impl Parts {
    /// A snapshot whose parts have these sizes.
    #[must_use]
    pub fn new(sizes: &[usize], membership: Membership) -> Self {
        let last = LogId::new(Term(2), Index(77));
        let descriptor = SnapshotDescriptor {
            meta: SnapshotMeta { last, membership },
            parts: sizes.len() as u64,
            bytes: sizes.iter().sum::<usize>() as u64,
            hash: SnapshotHash(0x1234_5678_9abc_def0_1234_5678_9abc_def0),
        };
        Self {
            descriptor,
            sizes: sizes.into(),
            next: 0,
            read: Arc::default(),
        }
    }

    /// The message that offers it.
    #[must_use]
    pub fn offer(&self) -> Message {
        Message::Snapshot(self.descriptor.clone())
    }

    /// The bytes of a part.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn part(&self, number: usize) -> Bytes {
        Bytes::from(vec![(number % 251) as u8; self.sizes[number]])
    }

    /// A reader from the first part on.
    #[must_use]
    pub fn reader(&self) -> Box<dyn SnapshotReader> {
        Box::new(self.clone())
    }

    /// How many parts all readers together have read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SnapshotReader for Parts {
    fn descriptor(&self) -> &SnapshotDescriptor {
        &self.descriptor
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        self.next = usize::try_from(part).expect("a part of a test");
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        if self.next == self.sizes.len() {
            return Ok(None);
        }
        let part = self.part(self.next);
        self.next += 1;
        self.read.fetch_add(1, Ordering::SeqCst);
        Ok(Some(part))
    }
}
