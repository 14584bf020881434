//! Reads on every node, with and without leases, and images of the state.

use std::time::Duration;

use bytes::Bytes;
use raft_core::{Consistency, Index, ReadError, ReadPolicy, Role, StopReason};

use crate::support::{Cluster, eventually, soon};

async fn leased() -> Cluster {
    Cluster::configured(3, |config| {
        config.reads = ReadPolicy::Lease {
            clock_drift_percent: 10,
        };
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn every_node_answers_linearizable_reads_and_sees_every_write_that_was_answered() {
    for cluster in [Cluster::start(3).await, leased().await] {
        let leader = cluster.leader().await;
        for number in 0..20 {
            let value = Bytes::from(format!("value {number}"));
            let handle = cluster.handle(leader);
            handle.propose(value.clone()).await.unwrap();
            for node in cluster.nodes.values() {
                let read = node.handle.read("".into(), Consistency::Linearizable).await;
                assert_eq!(read.unwrap(), value);
            }
        }
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_hears_nobody_answers_no_linearizable_read() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    cluster.propose(leader, 0..5).await;
    cluster.converges_to(5).await;
    cluster.network.isolate(follower);
    let handle = cluster.handle(follower);
    let read = soon(
        "it is answered",
        handle.read("".into(), Consistency::Linearizable),
    );
    let refused = read.await.unwrap_err();
    assert!(matches!(refused, ReadError::NotLeader { .. }), "{refused}");
    let stale = handle.read("".into(), Consistency::Stale).await;
    assert_eq!(stale.unwrap(), "command 4");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_answers_without_a_round_and_ends_with_the_leadership() {
    let cluster = leased().await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let handle = cluster.handle(leader);
    for _ in 0..100 {
        let read = handle.read("".into(), Consistency::Linearizable).await;
        assert_eq!(read.unwrap(), "command 4");
    }
    let served = handle.status().metrics.lease_reads;
    assert!(served >= 90, "{served}");

    cluster.network.isolate(leader);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let next = cluster.leader_among(&others).await;
    cluster.propose(next, 5..6).await;
    // Whoever still believes to lead must not answer from before.
    let read = soon(
        "it is answered",
        handle.read("".into(), Consistency::Linearizable),
    );
    assert!(matches!(read.await, Err(ReadError::NotLeader { .. })));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_is_as_fresh_as_a_read_and_later_commands_do_not_move_it() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..10).await;
    let follower = cluster.a_follower_of(leader);
    for id in [leader, follower] {
        let mut taken = cluster.handle(id).image().await.unwrap();
        cluster.propose(leader, 10..20).await;
        assert!(taken.meta.last.index >= Index(11));
        assert_eq!(taken.meta.membership.voters().count(), 3);
        let mut parts = 0;
        while let Some(part) = taken.image.next_part().await.unwrap() {
            parts += 1;
            assert!(part.len() > 8);
        }
        assert_eq!(parts, taken.meta.last.index.0 - 1, "all but the no-op");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_few_images_are_held_at_a_time() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let handle = cluster.handle(1);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(handle.image().await.unwrap());
    }
    let (limit_name, limit) = ("images_held_max", 4);
    let refused = handle.image().await.unwrap_err();
    assert_eq!(refused, ReadError::Busy { limit_name, limit });
    assert_eq!(handle.status().metrics.busy_refusals, 1);
    held.pop();
    handle.image().await.unwrap();
    drop(held);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_image_or_a_read_of_a_follower_is_always_answered() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    let handle = cluster.handle(follower).clone();
    cluster.nodes[&follower].deeds.lock().unwrap().apply_delay = Duration::from_secs(5);
    cluster.propose(leader, 0..1).await;
    let read = tokio::spawn({
        let handle = handle.clone();
        async move { handle.read("".into(), Consistency::Linearizable).await }
    });
    let image = tokio::spawn({
        let handle = handle.clone();
        async move { handle.image().await.map(|_| ()) }
    });
    eventually("both wait", || handle.reads_pending() == 2).await;
    assert_ne!(handle.status().role, Role::Leader);
    handle.shutdown().await;
    for answer in [read.await.unwrap().map(|_| ()), image.await.unwrap()] {
        // The machine may have come so far while the node stopped.
        assert!(matches!(
            answer,
            Ok(()) | Err(ReadError::Stopped(StopReason::Shutdown))
        ));
    }
    assert_eq!(handle.reads_pending(), 0);
    cluster.stop().await;
}
