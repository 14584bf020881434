//! The in-memory network: the suite, its faults, and that chance repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use raft_core::message::Heartbeat;
use raft_core::{
    ClusterId, Envelope, GroupId, Incarnation, Incoming, Index, Membership, Message, NodeId,
    SendError, SnapshotStream, Term, Transport,
};
use raft_transport::conformance::{self, Fixture, Parts};
use raft_transport::{Faults, MemoryNetwork, MemoryTransport};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

struct Memory {
    network: MemoryNetwork,
    replaced: Mutex<BTreeSet<NodeId>>,
}

impl Memory {
    fn new() -> Self {
        Self {
            network: MemoryNetwork::new(1),
            replaced: Mutex::default(),
        }
    }
}

#[async_trait]
impl Fixture for Memory {
    async fn start(&self, id: NodeId) -> Arc<dyn Transport> {
        self.network.transport(id)
    }

    /// There are no farewells: a node is gone when its transport is dropped.
    async fn kill(&self, _id: NodeId) {}

    async fn replace(&self, id: NodeId) -> Arc<dyn Transport> {
        self.replaced.lock().unwrap().insert(id);
        self.network.transport(id)
    }

    fn incarnation(&self, id: NodeId) -> Incarnation {
        let is_replaced = self.replaced.lock().unwrap().contains(&id);
        Incarnation(if is_replaced { 2_000 } else { 1_000 } + id.0)
    }
}

#[tokio::test]
async fn conforms() {
    conformance::run(Memory::new).await;
}

#[tokio::test(start_paused = true)]
async fn conforms_on_a_paused_clock() {
    conformance::run(Memory::new).await;
}

fn envelope(from: NodeId, to: NodeId, round: u64) -> Envelope {
    Envelope {
        cluster: ClusterId::default(),
        group: GroupId(1),
        from,
        from_incarnation: Incarnation(1),
        to,
        to_incarnation: Incarnation(1),
        term: Term(1),
        message: Message::Heartbeat(Heartbeat {
            commit: Index(0),
            round,
            is_last: false,
        }),
    }
}

fn round(envelope: &Envelope) -> u64 {
    match envelope.message {
        Message::Heartbeat(Heartbeat { round, .. }) => round,
        _ => panic!("only heartbeats are sent here"),
    }
}

async fn arrived(transport: &MemoryTransport) -> Vec<u64> {
    let mut rounds = Vec::new();
    while let Ok(Some(Incoming::Message(envelope))) =
        tokio::time::timeout(Duration::from_secs(10), transport.recv()).await
    {
        rounds.push(round(&envelope));
    }
    rounds
}

async fn run_with(faults: Faults, seed: u64, count: u64) -> Vec<u64> {
    let network = MemoryNetwork::new(seed);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    network.set_faults(ONE, TWO, faults);
    for round in 0..count {
        one.send(TWO, envelope(ONE, TWO, round)).await.unwrap();
    }
    arrived(&two).await
}

#[tokio::test(start_paused = true)]
async fn lost_messages_are_lost_without_a_word_and_the_same_ones_each_time() {
    let faults = Faults {
        drop: 0.3,
        ..Faults::default()
    };
    let first = run_with(faults, 5, 500).await;
    assert!((250..450).contains(&first.len()), "{}", first.len());
    assert_eq!(run_with(faults, 5, 500).await, first);
    assert_ne!(run_with(faults, 6, 500).await, first);
}

#[tokio::test(start_paused = true)]
async fn duplicates_arrive_twice() {
    let faults = Faults {
        duplicate: 1.0,
        ..Faults::default()
    };
    let mut counts = BTreeMap::<u64, u32>::new();
    for round in run_with(faults, 5, 100).await {
        *counts.entry(round).or_default() += 1;
    }
    assert_eq!(counts.len(), 100);
    assert!(counts.values().all(|count| *count == 2));
}

#[tokio::test(start_paused = true)]
async fn reordered_messages_overtake_each_other_and_none_is_lost() {
    let faults = Faults {
        reorder: 0.5,
        ..Faults::default()
    };
    let mut rounds = run_with(faults, 5, 200).await;
    assert!(!rounds.is_sorted());
    rounds.sort_unstable();
    assert!(rounds.into_iter().eq(0..200));
}

#[tokio::test(start_paused = true)]
async fn delayed_messages_take_their_time() {
    let network = MemoryNetwork::new(1);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    network.set_faults(
        ONE,
        TWO,
        Faults {
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_millis(200),
            ..Faults::default()
        },
    );
    for count in 0..50 {
        let start = tokio::time::Instant::now();
        one.send(TWO, envelope(ONE, TWO, count)).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        two.recv().await.unwrap();
        let took = start.elapsed().as_millis();
        assert!((100..=202).contains(&took), "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn cuts_are_directed_or_not_and_heal() {
    let network = MemoryNetwork::new(1);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    let reachable = async |from: &MemoryTransport, to: NodeId| {
        from.send(to, envelope(from.id(), to, 0)).await.is_ok()
    };
    network.set_faults(
        ONE,
        TWO,
        Faults {
            cut: true,
            ..Faults::default()
        },
    );
    assert!(!reachable(&one, TWO).await && reachable(&two, ONE).await);
    network.heal_all();
    assert!(reachable(&one, TWO).await);
    network.cut(TWO, ONE);
    assert!(!reachable(&one, TWO).await && !reachable(&two, ONE).await);
    network.heal(ONE, TWO);
    assert!(reachable(&one, TWO).await && reachable(&two, ONE).await);

    network.isolate(ONE);
    let three = network.transport(THREE);
    assert!(!reachable(&one, THREE).await && !reachable(&three, ONE).await);
    assert!(reachable(&two, THREE).await);
    network.rejoin(ONE);
    assert!(reachable(&one, THREE).await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_closes_the_transport_before_it() {
    let network = MemoryNetwork::new(1);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    one.send(TWO, envelope(ONE, TWO, 1)).await.unwrap();
    let again = network.transport(TWO);
    assert!(two.recv().await.is_none());
    let error = two.send(ONE, envelope(TWO, ONE, 1)).await.unwrap_err();
    assert_eq!(error, SendError::Closed);
    // Dropping the old one does not touch the new one.
    drop(two);
    one.send(TWO, envelope(ONE, TWO, 2)).await.unwrap();
    assert_eq!(arrived(&again).await, [2]);
}

fn offer(parts: &Parts) -> Envelope {
    Envelope {
        message: parts.offer(),
        ..envelope(ONE, TWO, 0)
    }
}

async fn accepted(two: &MemoryTransport) -> Box<dyn SnapshotStream> {
    let Some(Incoming::Snapshot(mut offer)) = two.recv().await else {
        panic!("a snapshot was offered");
    };
    offer.stream.accept(0).await.unwrap();
    offer.stream
}

/// Nothing but the cut wakes the two.
#[tokio::test(start_paused = true)]
async fn a_cut_in_either_direction_ends_a_transfer_on_both_sides() {
    for (from, to) in [(ONE, TWO), (TWO, ONE)] {
        let network = MemoryNetwork::new(1);
        let (one, two) = (network.transport(ONE), network.transport(TWO));
        let parts = Parts::new(&[10; 100], Membership::default());
        let take = async {
            let mut stream = accepted(&two).await;
            stream.next_part().await.unwrap();
            // Until the sender waits, with as many parts under way as there may be.
            while parts.read() < 4 {
                tokio::task::yield_now().await;
            }
            let faults = Faults {
                cut: true,
                ..Faults::default()
            };
            network.set_faults(from, to, faults);
            assert!(stream.next_part().await.is_err());
            stream
        };
        let (sent, _stream) =
            tokio::join!(one.send_snapshot(TWO, offer(&parts), parts.reader()), take);
        assert!(
            matches!(sent, Err(SendError::Unreachable { .. })),
            "{sent:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_part_ends_a_transfer_and_a_delay_makes_it_slow() {
    let network = MemoryNetwork::new(1);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    let parts = Parts::new(&[10; 100], Membership::default());
    let take = async || {
        let mut stream = accepted(&two).await;
        while let Ok(Some(_)) = stream.next_part().await {}
        stream.finish(Ok(())).await;
    };
    let mut faults = Faults {
        drop: 0.2,
        ..Faults::default()
    };
    network.set_faults(ONE, TWO, faults);
    let (sent, ()) = tokio::join!(
        one.send_snapshot(TWO, offer(&parts), parts.reader()),
        take()
    );
    assert!(
        matches!(sent, Err(SendError::Unreachable { .. })),
        "{sent:?}"
    );
    faults.drop = 0.0;
    faults.delay_min = Duration::from_millis(10);
    faults.delay_max = Duration::from_millis(10);
    network.set_faults(ONE, TWO, faults);
    let start = tokio::time::Instant::now();
    let (sent, ()) = tokio::join!(
        one.send_snapshot(TWO, offer(&parts), parts.reader()),
        take()
    );
    assert_eq!(sent, Ok(()));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn snapshots_keep_to_the_rate_of_the_network() {
    let network = MemoryNetwork::new(1);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    network.set_snapshot_rate(1_000_000);
    let parts = Parts::new(&[10_000; 200], Membership::default());
    let take = async {
        let mut stream = accepted(&two).await;
        while let Ok(Some(_)) = stream.next_part().await {}
        stream.finish(Ok(())).await;
    };
    let start = tokio::time::Instant::now();
    let (sent, ()) = tokio::join!(one.send_snapshot(TWO, offer(&parts), parts.reader()), take);
    assert_eq!(sent, Ok(()));
    let took = start.elapsed().as_millis();
    assert!((1_900..2_300).contains(&took), "2 MB took {took} ms");
}

#[tokio::test(start_paused = true)]
async fn more_offers_than_a_node_holds_are_refused() {
    let network = MemoryNetwork::new(1);
    let (one, two) = (network.transport(ONE), network.transport(TWO));
    let parts = Parts::new(&[10], Membership::default());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (one, parts) = (Arc::clone(&one), parts.clone());
        waiting.spawn(async move { one.send_snapshot(TWO, offer(&parts), parts.reader()).await });
    }
    for _ in 0..2 {
        let refused = waiting.join_next().await.unwrap().unwrap();
        assert!(
            matches!(refused, Err(SendError::Refused { .. })),
            "{refused:?}"
        );
    }
    // The others wait, until the node is gone.
    two.close().await;
    while let Some(ended) = waiting.join_next().await {
        let ended = ended.unwrap();
        assert!(
            matches!(ended, Err(SendError::Unreachable { .. })),
            "{ended:?}"
        );
    }
}
