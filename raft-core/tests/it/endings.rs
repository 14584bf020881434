//! A node ends as a whole, with the first cause, with every waiter answered and nothing left
//! behind.

use std::time::Duration;

use bytes::Bytes;
use raft_core::{Consistency, ProposeError, ReadError, StopReason, Transport};
use tokio::time::Instant;

use crate::support::{Cluster, SharedDisk, eventually, soon};

/// Waits for the end of a node by itself and checks that nothing of it is left.
async fn ended(cluster: &Cluster, id: u64) -> StopReason {
    let node = &cluster.nodes[&id];
    let reason = soon("the node ends", node.handle.stopped()).await;
    assert!(node.is_gone(), "something of node {id} is left");
    let proposed = node.handle.propose("late".into()).await;
    assert_eq!(proposed, Err(ProposeError::Stopped(reason.clone())));
    for consistency in [Consistency::Linearizable, Consistency::Stale] {
        let read = node.handle.read("late".into(), consistency).await;
        assert_eq!(read, Err(ReadError::Stopped(reason.clone())));
    }
    // A shutdown afterwards is harmless and tells the first cause.
    assert_eq!(node.handle.shutdown().await, reason);
    reason
}

#[tokio::test(start_paused = true)]
async fn a_failed_append_ends_the_node_and_answers_its_waiters() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].disk.lock().unwrap().fail_appends = true;
    let proposed = soon(
        "the waiter is answered",
        cluster.handle(leader).propose("a".into()),
    );
    let Err(ProposeError::Stopped(reason)) = proposed.await else {
        panic!("the node must have stopped");
    };
    assert!(matches!(reason, StopReason::Storage(_)), "{reason}");
    assert_eq!(ended(&cluster, leader).await, reason);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let next = cluster.leader_among(&others).await;
    cluster.handle(next).propose("b".into()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_store_ends_the_node() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    cluster.nodes[&1].disk.lock().unwrap().panic_appends = true;
    let proposed = cluster.handle(1).propose("a".into()).await;
    let reason = StopReason::Panicked {
        task: "log",
        message: "the store panics".to_owned(),
    };
    assert_eq!(proposed, Err(ProposeError::Stopped(reason.clone())));
    assert_eq!(ended(&cluster, 1).await, reason);
}

#[tokio::test(start_paused = true)]
async fn a_failed_apply_ends_the_node() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let proposed = cluster.handle(1).propose("fail".into()).await;
    let Err(ProposeError::Stopped(StopReason::StateMachine(error))) = proposed else {
        panic!("{proposed:?}");
    };
    assert_eq!(
        ended(&cluster, 1).await,
        StopReason::StateMachine(error.clone())
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_query_ends_the_node() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let read = cluster
        .handle(1)
        .read("fail".into(), Consistency::Linearizable);
    assert!(matches!(
        read.await,
        Err(ReadError::Stopped(StopReason::StateMachine(_)))
    ));
    ended(&cluster, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_state_machine_ends_the_node_and_answers_every_waiter() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].deeds.lock().unwrap().apply_delay = Duration::from_millis(100);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        let handle = cluster.handle(leader).clone();
        let command = if number == 50 { "panic" } else { "a" };
        tasks.spawn(async move { handle.propose(command.into()).await });
        let handle = cluster.handle(leader).clone();
        tasks.spawn(async move {
            let read = handle.read("".into(), Consistency::Linearizable).await;
            read.map(|_| panic!("answered"))
                .map_err(|error| match error {
                    ReadError::Stopped(reason) => ProposeError::Stopped(reason),
                    other => panic!("{other}"),
                })
        });
    }
    let mut stopped = 0;
    while let Some(answered) = soon("all are answered", tasks.join_next()).await {
        match answered {
            Ok(Err(ProposeError::Stopped(reason))) => {
                assert_eq!(
                    reason,
                    StopReason::Panicked {
                        task: "apply",
                        message: "told to panic".to_owned()
                    }
                );
                stopped += 1;
            }
            // Reads that were ready before the panic, and proposals of earlier batches.
            Ok(Ok(_)) => {}
            Ok(Err(other)) => panic!("{other}"),
            Err(_) => {}
        }
    }
    assert!(stopped > 0);
    ended(&cluster, leader).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_transport_ends_the_node() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.network.panic_at(leader);
    let reason = ended(&cluster, leader).await;
    let expected = StopReason::Panicked {
        task: "receive",
        message: "the transport panics".to_owned(),
    };
    assert_eq!(reason, expected);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_closes_ends_the_node() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let transport = cluster.nodes[&leader].transport.upgrade().unwrap();
    transport.close().await;
    drop(transport);
    assert_eq!(ended(&cluster, leader).await, StopReason::Transport);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_node_whose_peers_hang() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for id in 1..=3 {
        cluster.network.hang_sends_to(id);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let node = &cluster.nodes[&leader];
    assert_eq!(node.handle.shutdown().await, StopReason::Shutdown);
    assert!(node.is_gone());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_append_that_is_under_way_and_no_longer() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    node.disk.lock().unwrap().append_delay = Duration::from_secs(10);
    let waiters: Vec<_> = (0..5)
        .map(|_| {
            let handle = node.handle.clone();
            tokio::spawn(async move { handle.propose("a".into()).await })
        })
        .collect();
    eventually("an append is under way", || {
        node.handle.status().metrics.log_backlog_writes > 0
    })
    .await;
    let started = Instant::now();
    assert_eq!(node.handle.shutdown().await, StopReason::Shutdown);
    assert!(started.elapsed() <= Duration::from_secs(10));
    assert!(node.is_gone());
    for waiter in waiters {
        let answer = waiter.await.unwrap();
        assert_eq!(answer, Err(ProposeError::Stopped(StopReason::Shutdown)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_ends_when_its_last_handle_is_dropped() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    let node = cluster.nodes.remove(&1).unwrap();
    let crate::support::TestNode {
        handle, transport, ..
    } = node;
    drop(handle.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(handle.status().term.0, 1);
    drop(handle);
    eventually("all is dropped", || transport.strong_count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn damage_that_shows_while_the_log_is_replayed_ends_the_node() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    cluster.handle(1).propose("a".into()).await.unwrap();
    let disk: SharedDisk = cluster.stop_node(1).await;
    disk.lock().unwrap().fail_reads = true;
    cluster.start_node(1, disk).await;
    let reason = ended(&cluster, 1).await;
    assert!(matches!(reason, StopReason::Storage(_)), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_race_with_a_shutdown_are_all_answered() {
    for _ in 0..20 {
        let cluster = Cluster::start(1).await;
        cluster.leader().await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let handle = cluster.handle(1).clone();
            tasks.spawn(async move {
                loop {
                    match handle.propose(Bytes::from_static(b"x")).await {
                        Ok(_) => {}
                        Err(error) => return error,
                    }
                }
            });
        }
        tokio::task::yield_now().await;
        let node = &cluster.nodes[&1];
        assert_eq!(node.handle.shutdown().await, StopReason::Shutdown);
        assert!(node.is_gone());
        while let Some(error) = soon("all are answered", tasks.join_next()).await {
            let expected = ProposeError::Stopped(StopReason::Shutdown);
            assert_eq!(error.unwrap(), expected);
        }
    }
}
