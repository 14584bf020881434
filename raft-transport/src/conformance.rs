//! What every transport must do, as a suite that an implementation runs against itself.
//!
//! Each check gets a fresh [`Fixture`] and panics when the transport does not keep to the contract.
//! The order of messages is nowhere relied on. All waiting is for a condition, up to [`DEADLINE`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Vote,
    VoteReply,
};
use raft_core::{
    ClusterId, Entry, EntryKind, Envelope, GroupId, Incarnation, Incoming, Index, LogId, Message,
    NodeId, SendError, Term, Transport,
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

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// Runs all checks, one after the other.
///
/// # Panics
/// When the transport fails a check.
pub async fn run<F: Fixture>(fixture: impl Fn() -> F) {
    every_kind_of_message_arrives_unchanged(&fixture()).await;
    all_nodes_hear_each_other(&fixture()).await;
    a_large_append_arrives(&fixture()).await;
    many_messages_arrive_in_both_lanes(&fixture()).await;
    a_stuck_bulk_lane_does_not_delay_control(&fixture()).await;
    an_unknown_peer_is_an_error(&fixture()).await;
    a_closed_transport_says_so(&fixture()).await;
    a_restarted_peer_is_reached_again(&fixture()).await;
    a_dead_peer_is_an_error_and_never_a_hang(&fixture()).await;
    a_cancelled_recv_loses_nothing(&fixture()).await;
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_elapsed| panic!("not within {DEADLINE:?}: {what}"))
}

fn message(received: Option<Incoming>) -> Envelope {
    match received.expect("still open") {
        Incoming::Message(envelope) => envelope,
        Incoming::Snapshot(snapshot) => panic!("unexpected snapshot: {:?}", snapshot.envelope),
    }
}

fn heartbeat(round: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        commit: Index(5),
        round,
        is_last: false,
    })
}

/// An append of `count` entries with payloads of `bytes` each, after index `base`.
fn append(base: u64, count: u64, bytes: usize) -> Message {
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

/// Returns when a message from one node has arrived at the other: the link is up.
async fn wait_for_link(fixture: &dyn Fixture, from: &Node, to: &Node) {
    const ROUND: u64 = u64::MAX;
    let probe = fixture.envelope(from.id, to.id, heartbeat(ROUND));
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

struct Node {
    id: NodeId,
    transport: Arc<dyn Transport>,
}

impl Node {
    async fn start(fixture: &dyn Fixture, id: NodeId) -> Self {
        Self {
            id,
            transport: fixture.start(id).await,
        }
    }

    /// Takes messages until one fits. May be cancelled.
    async fn next_matching(&self, fits: impl Fn(&Envelope) -> bool) -> Envelope {
        loop {
            let envelope = message(self.transport.recv().await);
            if fits(&envelope) {
                return envelope;
            }
        }
    }
}

async fn pair(fixture: &dyn Fixture) -> (Node, Node) {
    let one = Node::start(fixture, ONE).await;
    let two = Node::start(fixture, TWO).await;
    wait_for_link(fixture, &one, &two).await;
    (one, two)
}

fn one_of_each_kind() -> Vec<Message> {
    let id = |term, index| LogId::new(Term(term), Index(index));
    vec![
        Message::PreVote(PreVote {
            next_term: Term(4),
            last: id(2, 9),
        }),
        Message::PreVoteReply(PreVoteReply {
            next_term: Term(4),
            granted: true,
        }),
        Message::Vote(Vote {
            last: id(2, 9),
            is_transfer: false,
        }),
        Message::VoteReply(VoteReply {
            granted: false,
            last: id(3, 1),
        }),
        append(9, 0, 0),
        append(9, 3, 100),
        Message::AppendReply(AppendReply::Accepted { matched: Index(12) }),
        Message::AppendReply(AppendReply::Rejected {
            base: id(2, 9),
            conflict: Conflict {
                term: Term(1),
                first: Index(3),
                last: Index(6),
            },
            last: id(1, 6),
        }),
        heartbeat(17),
        Message::HeartbeatReply(HeartbeatReply { round: 17 }),
    ]
}

async fn every_kind_of_message_arrives_unchanged(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    for message in one_of_each_kind() {
        let sent = fixture.envelope(ONE, TWO, message);
        one.transport.send(TWO, sent.clone()).await.expect("sent");
        let what = sent.message.name();
        within(what, two.next_matching(|found| *found == sent)).await;
    }
}

async fn all_nodes_hear_each_other(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let three = Node::start(fixture, THREE).await;
    let nodes = [&one, &two, &three];
    for from in nodes {
        for to in nodes {
            if from.id != to.id {
                wait_for_link(fixture, from, to).await;
            }
        }
    }
}

async fn a_large_append_arrives(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let sent = fixture.envelope(ONE, TWO, append(100, 8, 1 << 20));
    let send = async { one.transport.send(TWO, sent.clone()).await.expect("sent") };
    let receive = two.next_matching(|found| found.message.is_bulk());
    let ((), received) = within("8 MiB of entries", async { tokio::join!(send, receive) }).await;
    assert!(received == sent, "the entries are others");
}

async fn many_messages_arrive_in_both_lanes(fixture: &dyn Fixture) {
    const COUNT: u64 = 3_000;
    let (one, two) = pair(fixture).await;
    let control = async {
        for round in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, heartbeat(round));
            one.transport.send(TWO, envelope).await.expect("sent");
        }
    };
    let bulk = async {
        for base in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, append(base, 2, 30));
            one.transport.send(TWO, envelope).await.expect("sent");
        }
    };
    let receive = async {
        let (mut rounds, mut bases) = (BTreeSet::new(), BTreeSet::new());
        while rounds.len() + bases.len() < 2 * COUNT as usize {
            match message(two.transport.recv().await).message {
                Message::Heartbeat(Heartbeat { round, .. }) if round < COUNT => {
                    rounds.insert(round);
                }
                Message::Append(append) => {
                    assert_eq!(append.entries.len(), 2);
                    bases.insert(append.base.index.0);
                }
                _ => {} // A late probe.
            }
        }
    };
    within("all messages", async {
        tokio::join!(control, bulk, receive)
    })
    .await;
}

async fn a_stuck_bulk_lane_does_not_delay_control(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    // Nobody receives, so at some point the lane takes no more.
    let mut sent = 0_u32;
    let envelope = fixture.envelope(ONE, TWO, append(0, 1, 1 << 20));
    while let Ok(result) = timeout(
        Duration::from_millis(500),
        one.transport.send(TWO, envelope.clone()),
    )
    .await
    {
        result.expect("sent");
        sent += 1;
        assert!(sent < 10_000, "the bulk lane has no bound");
    }
    let vote = fixture.envelope(ONE, TWO, heartbeat(1));
    within("control is sent", one.transport.send(TWO, vote.clone()))
        .await
        .expect("sent");
    let mut bulk_before = 0;
    within("control arrives", async {
        while message(two.transport.recv().await) != vote {
            bulk_before += 1;
            // Entries are taken slowly; control must not wait for them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(
        bulk_before <= sent / 2,
        "control came behind {bulk_before} of {sent} messages with entries"
    );
}

async fn an_unknown_peer_is_an_error(fixture: &dyn Fixture) {
    let one = Node::start(fixture, ONE).await;
    let nobody = NodeId(99);
    let envelope = fixture.envelope(ONE, nobody, heartbeat(1));
    let result = within("an answer", one.transport.send(nobody, envelope)).await;
    assert_eq!(result, Err(SendError::UnknownPeer(nobody)));
}

async fn a_closed_transport_says_so(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let waiting = async {
        // What arrived before may still come out, or not.
        while two.transport.recv().await.is_some() {}
    };
    let close = async {
        tokio::task::yield_now().await;
        two.transport.close().await;
    };
    within("recv ends", async { tokio::join!(waiting, close) }).await;
    assert!(within("recv", two.transport.recv()).await.is_none());
    let envelope = fixture.envelope(TWO, ONE, heartbeat(1));
    let result = within("an answer", two.transport.send(ONE, envelope)).await;
    assert_eq!(result, Err(SendError::Closed));
    within("a second close", two.transport.close()).await;
    errors_come(fixture, &one, TWO).await;
}

/// Sends until a send fails; none may hang.
async fn errors_come(fixture: &dyn Fixture, from: &Node, to: NodeId) {
    within("an error", async {
        loop {
            let envelope = fixture.envelope(from.id, to, heartbeat(1));
            let sent = from.transport.send(to, envelope).await;
            if let Err(error) = sent {
                assert!(matches!(error, SendError::Unreachable { .. }), "{error}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn a_restarted_peer_is_reached_again(fixture: &dyn Fixture) {
    let (one, mut two) = pair(fixture).await;
    wait_for_link(fixture, &two, &one).await;
    for _ in 0..3 {
        fixture.kill(TWO).await;
        drop(two);
        two = Node::start(fixture, TWO).await;
        wait_for_link(fixture, &one, &two).await;
        wait_for_link(fixture, &two, &one).await;
    }
}

async fn a_dead_peer_is_an_error_and_never_a_hang(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    fixture.kill(TWO).await;
    drop(two);
    errors_come(fixture, &one, TWO).await;
    // From here on it is known, and known at once.
    let envelope = fixture.envelope(ONE, TWO, append(0, 1, 1 << 20));
    let result = within("an answer", one.transport.send(TWO, envelope)).await;
    assert!(matches!(result, Err(SendError::Unreachable { .. })));
}

async fn a_cancelled_recv_loses_nothing(fixture: &dyn Fixture) {
    const COUNT: u64 = 200;
    let (one, two) = pair(fixture).await;
    let send = async {
        for round in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, heartbeat(round));
            one.transport.send(TWO, envelope).await.expect("sent");
            tokio::task::yield_now().await;
        }
    };
    let receive = async {
        let mut rounds = BTreeSet::new();
        while rounds.len() < COUNT as usize {
            // Given up after one look, again and again.
            let envelope = tokio::select! {
                biased;
                envelope = two.transport.recv() => message(envelope),
                () = tokio::task::yield_now() => continue,
            };
            if let Message::Heartbeat(Heartbeat { round, .. }) = envelope.message
                && round < COUNT
            {
                rounds.insert(round);
            }
        }
    };
    within("all messages", async { tokio::join!(send, receive) }).await;
}
