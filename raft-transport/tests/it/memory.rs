//! The in-memory network: the suite, its faults, and that chance repeats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use raft_core::message::Heartbeat;
use raft_core::{
    ClusterId, Envelope, GroupId, Incarnation, Index, Message, NodeId, SendError, Term, Transport,
};
use raft_transport::conformance::{self, Fixture};
use raft_transport::{Faults, MemoryNetwork, MemoryTransport};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

struct Memory(MemoryNetwork);

#[async_trait]
impl Fixture for Memory {
    async fn start(&self, id: NodeId) -> Arc<dyn Transport> {
        self.0.transport(id)
    }

    /// There are no farewells: a node is gone when its transport is dropped.
    async fn kill(&self, _id: NodeId) {}
}

#[tokio::test]
async fn conforms() {
    conformance::run(|| Memory(MemoryNetwork::new(1))).await;
}

#[tokio::test(start_paused = true)]
async fn conforms_on_a_paused_clock() {
    conformance::run(|| Memory(MemoryNetwork::new(1))).await;
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
    while let Ok(Some(envelope)) =
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
    assert_eq!(two.recv().await, None);
    let error = two.send(ONE, envelope(TWO, ONE, 1)).await.unwrap_err();
    assert_eq!(error, SendError::Closed);
    // Dropping the old one does not touch the new one.
    drop(two);
    one.send(TWO, envelope(ONE, TWO, 2)).await.unwrap();
    assert_eq!(round(&again.recv().await.unwrap()), 2);
}
