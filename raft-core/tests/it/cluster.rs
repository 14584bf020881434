//! What a group of nodes does together.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{Consistency, Index, NodeId, ProposeError, ReadError, Role};

use crate::support::{Cluster, SharedDisk, eventually, soon};

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_a_leader_and_every_replica_applies_the_same() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for number in 1..=20_u64 {
        let command = Bytes::from(format!("command {number}"));
        let proposed = cluster.handle(leader).propose(command).await;
        let committed = proposed.unwrap();
        assert_eq!(committed.reply, number.to_string());
        assert_eq!(committed.id.index, Index(number + 1), "after the no-op");
    }
    for node in cluster.nodes.values() {
        eventually("all replicas applied", || node.commands().len() == 20).await;
        assert_eq!(node.commands()[19], "command 20");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_single_node_leads_itself() {
    let cluster = Cluster::start(1).await;
    assert_eq!(cluster.leader().await, 1);
    let committed = cluster.handle(1).propose("a".into()).await.unwrap();
    assert_eq!(committed.reply, "1");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader_to_proposals() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.handle(cluster.a_follower_of(leader));
    let leader = Some(NodeId(leader));
    let proposed = follower.propose("a".into()).await;
    assert_eq!(proposed, Err(ProposeError::NotLeader { leader }));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_linearizable_read_sees_every_write_that_was_answered() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let handle = cluster.handle(leader);
    for number in 0..50 {
        let value = Bytes::from(format!("value {number}"));
        handle.propose(value.clone()).await.unwrap();
        let read = handle.read("".into(), Consistency::Linearizable).await;
        assert_eq!(read.unwrap(), value);
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_node_answers_stale_reads_and_catches_up() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.handle(leader).propose("x".into()).await.unwrap();
    for (id, node) in &cluster.nodes {
        eventually("replicas applied", || node.commands().len() == 1).await;
        let read = node.handle.read("".into(), Consistency::Stale).await;
        assert_eq!(read.unwrap(), "x", "node {id}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_others_elect_a_new_leader_and_lose_nothing_when_the_leader_dies() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    cluster
        .handle(first)
        .propose("before".into())
        .await
        .unwrap();
    let disk = cluster.stop_node(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster
        .handle(second)
        .propose("after".into())
        .await
        .unwrap();
    cluster.start_node(first, disk).await;
    let returned = &cluster.nodes[&first];
    eventually("the old leader catches up", || {
        returned.commands().len() == 2
    })
    .await;
    assert_eq!(returned.commands(), ["before", "after"]);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_gives_up_and_its_waiters_learn_unknown() {
    let cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    let mut roles = cluster.handle(first).leadership();
    assert_eq!(roles.borrow_and_update().role, Role::Leader);
    cluster.network.isolate(first);
    let proposed = soon(
        "waiters are answered",
        cluster.handle(first).propose("lost?".into()),
    );
    assert_eq!(proposed.await, Err(ProposeError::Unknown));
    roles.changed().await.unwrap();
    assert_ne!(roles.borrow().role, Role::Leader);

    let others: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    let second = cluster.leader_among(&others).await;
    cluster.handle(second).propose("kept".into()).await.unwrap();
    cluster.network.heal();
    let returned = &cluster.nodes[&first];
    eventually("the cut is healed", || returned.commands() == ["kept"]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_leader_that_is_cut_off_are_refused_and_never_stale() {
    let cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    cluster.handle(first).propose("old".into()).await.unwrap();
    cluster.network.isolate(first);
    let read = cluster
        .handle(first)
        .read("".into(), Consistency::Linearizable);
    let refused = soon("reads are answered", read).await.unwrap_err();
    assert!(matches!(refused, ReadError::NotLeader { .. }), "{refused}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_in_memory_is_given_the_log_from_its_beginning_after_a_restart() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    // More than one page, so that the replay reads the log in parts.
    let payload = |number: u32| Bytes::from(vec![u8::try_from(number % 251).unwrap(); 100_000]);
    for number in 0..50 {
        let handle = cluster.handle(1);
        handle.propose(payload(number)).await.unwrap();
    }
    let disk = cluster.stop_node(1).await;
    cluster.start_node(1, disk).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    eventually("replayed", || node.commands().len() == 50).await;
    let expected: Vec<Bytes> = (0..50).map(payload).collect();
    assert_eq!(node.commands(), expected);
    assert!(node.disk.lock().unwrap().reads > 1, "read in parts");
    let committed = node.handle.propose("next".into()).await.unwrap();
    assert_eq!(committed.reply, "51");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lost_its_place_is_fed_from_the_leaders_disk() {
    let limits = raft_core::Limits {
        tail_bytes_max: 0,
        ..raft_core::Limits::default()
    };
    let mut cluster = Cluster::start_with(3, limits).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    let disk = cluster.stop_node(follower).await;
    for _ in 0..200 {
        let payload = Bytes::from(vec![1; 10_000]);
        cluster.handle(leader).propose(payload).await.unwrap();
    }
    cluster.start_node(follower, disk).await;
    let node = &cluster.nodes[&follower];
    eventually("caught up", || node.commands().len() == 200).await;
    assert!(cluster.handle(leader).status().metrics.loads > 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_proposals_are_each_answered_once_in_log_order() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let handle = cluster.handle(leader).clone();
        let command = Bytes::from(format!("{number}"));
        tasks.spawn(async move { (handle.propose(command.clone()).await, command) });
    }
    let mut seen = BTreeSet::new();
    while let Some(answered) = soon("all are answered", tasks.join_next()).await {
        let (committed, command) = answered.unwrap();
        let committed = committed.unwrap();
        assert!(seen.insert((committed.id, committed.reply, command)));
    }
    assert_eq!(seen.len(), 1000);
    // In log order the machine's own count must be 1, 2, 3 ..., and the commands those it applied.
    let commands = cluster.nodes[&leader].commands();
    for (position, (_, reply, command)) in seen.iter().enumerate() {
        assert_eq!(*reply, (position + 1).to_string());
        assert_eq!(*command, commands[position]);
    }
    let metrics = cluster.handle(leader).status().metrics;
    assert!(metrics.appends < 1000, "proposals share their syncs");
    assert_eq!(cluster.handle(leader).proposals_pending(), 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn status_says_where_the_node_stands() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.handle(leader).propose("a".into()).await.unwrap();
    let handle = cluster.handle(leader);
    eventually("published", || handle.status().applied == Index(2)).await;
    let status = handle.status();
    assert_eq!(status.role, Role::Leader);
    assert_eq!(status.commit, Index(2));
    assert_eq!(status.last.index, Index(2));
    assert_eq!(status.members.voters().count(), 3);
    assert_eq!(status.matched.len(), 2);
    assert!(status.log.log_bytes > 0);
    assert!(status.metrics.appends > 0 && status.metrics.messages_sent > 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_group_keeps_its_leader() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = cluster.handle(leader).status().term;
    tokio::time::sleep(Duration::from_secs(60)).await;
    for node in cluster.nodes.values() {
        assert_eq!(node.handle.status().term, term);
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_disk_under_its_machine_does_not_start() {
    use raft_core::StartError;
    let error = crate::limits::start_with_machine_ahead(SharedDisk::default()).await;
    assert!(matches!(error, StartError::Ahead { .. }), "{error}");
}
