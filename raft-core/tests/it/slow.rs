//! A slow disk, a slow state machine or a dead peer never holds up ticks and heartbeats. Time is
//! virtual, so "slow" costs nothing here.

use std::time::Duration;

use bytes::Bytes;
use raft_core::message::Append;
use raft_core::{
    ClusterId, Consistency, Entry, EntryKind, Envelope, GroupId, Incarnation, Index, Limits, LogId,
    Message, NodeId, ProposeError, Term,
};
use tokio::time::Instant;

use crate::support::{Cluster, SharedDisk, eventually};

const SLOW: Duration = Duration::from_secs(2);

/// What a leader still bears of its own disk.
const SLOW_SYNC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn n4_a_leader_with_a_slow_disk_keeps_its_leadership() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = cluster.handle(leader).status().term;
    cluster.nodes[&leader].disk.lock().unwrap().append_delay = SLOW_SYNC;
    for _ in 0..3 {
        let started = Instant::now();
        cluster.handle(leader).propose("a".into()).await.unwrap();
        // Applied means on the own disk too.
        assert!(started.elapsed() >= SLOW_SYNC);
    }
    for node in cluster.nodes.values() {
        assert_eq!(node.handle.status().term, term, "nobody campaigned");
    }
    let longest = cluster.handle(leader).status().metrics.append_longest_us;
    assert!(longest >= 1_000_000);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_stands_still_gives_up_and_answers_its_waiters() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].disk.lock().unwrap().append_delay = Duration::from_secs(30);
    let proposed = cluster.handle(leader).propose("a".into()).await;
    assert_eq!(proposed, Err(ProposeError::Unknown));
    assert_eq!(cluster.handle(leader).status().metrics.stalled, 1);
    cluster.nodes[&leader].disk.lock().unwrap().append_delay = Duration::ZERO;
    tokio::time::sleep(Duration::from_secs(40)).await;
    let next = cluster.leader().await;
    cluster.handle(next).propose("b".into()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn n4_a_follower_with_a_slow_disk_slows_nobody_and_catches_up() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    let term = cluster.handle(leader).status().term;
    cluster.nodes[&follower].disk.lock().unwrap().append_delay = SLOW;
    let started = Instant::now();
    for _ in 0..100 {
        cluster.handle(leader).propose("a".into()).await.unwrap();
    }
    assert!(started.elapsed() < SLOW, "took {:?}", started.elapsed());
    let node = &cluster.nodes[&follower];
    eventually("the slow one catches up", || node.commands().len() == 100).await;
    assert_eq!(node.handle.status().term, term, "nobody campaigned");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_state_machine_holds_up_its_answers_and_nothing_else() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = cluster.handle(leader).status().term;
    cluster.nodes[&leader].deeds.lock().unwrap().apply_delay = SLOW;
    let handle = cluster.handle(leader);
    let (first, second) = tokio::join!(handle.propose("a".into()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        handle.propose("b".into()).await
    });
    first.unwrap();
    let second = second.unwrap();
    assert_eq!(second.reply, "2");
    for (id, node) in &cluster.nodes {
        assert_eq!(node.handle.status().term, term, "node {id} campaigned");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_a_slow_state_machine_and_sees_the_write() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let handle = cluster.handle(leader);
    handle.propose("old".into()).await.unwrap();
    cluster.nodes[&leader].deeds.lock().unwrap().apply_delay = SLOW;
    let propose = tokio::spawn({
        let handle = handle.clone();
        async move { handle.propose("new".into()).await }
    });
    eventually("committed, not applied", || handle.status().commit.0 == 3).await;
    assert!(!propose.is_finished());
    let read = handle.read("".into(), Consistency::Linearizable).await;
    assert_eq!(read.unwrap(), "new");
    propose.await.unwrap().unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_connection_hangs_slows_nobody() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = cluster.a_follower_of(leader);
    let term = cluster.handle(leader).status().term;
    cluster.network.hang_sends_to(dead);
    cluster.network.isolate(dead);
    let started = Instant::now();
    for _ in 0..200 {
        cluster.handle(leader).propose("a".into()).await.unwrap();
    }
    assert!(started.elapsed() < SLOW, "took {:?}", started.elapsed());
    // Minutes of heartbeats for the dead one; its outbox stays bounded.
    tokio::time::sleep(Duration::from_secs(120)).await;
    let status = cluster.handle(leader).status();
    assert_eq!(status.term, term, "the leader still leads");
    assert!(status.metrics.messages_dropped > 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_sends_fail_is_not_fed_until_it_returns() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = cluster.a_follower_of(leader);
    let node = &cluster.nodes[&dead];
    for outage in 1..=2 {
        cluster.network.fail_sends_to(dead);
        for _ in 0..100 {
            cluster.handle(leader).propose("a".into()).await.unwrap();
        }
        // The leader is told of the first loss, so it does not send a whole window in vain.
        let in_vain = cluster.network.take_failed_appends();
        assert!((1..10).contains(&in_vain), "outage {outage}: {in_vain}");
        cluster.network.heal();
        let all = outage * 100;
        eventually("it catches up", || node.commands().len() == all).await;
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_still_holds_up_neither_the_others_nor_itself_for_good() {
    let limits = Limits {
        inflight_bytes_max: 64 << 10,
        append_bytes_max: 16 << 10,
        ..Limits::default()
    };
    let cluster = Cluster::start_with(3, limits).await;
    let leader = cluster.leader().await;
    let node = &cluster.nodes[&cluster.a_follower_of(leader)];
    node.disk.lock().unwrap().append_delay = Duration::from_secs(600);
    let payload = Bytes::from(vec![7; 10_000]);
    for _ in 0..300 {
        let handle = cluster.handle(leader);
        handle.propose(payload.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.disk.lock().unwrap().append_delay = Duration::ZERO;
    tokio::time::sleep(Duration::from_secs(600)).await;
    eventually("it catches up", || node.commands().len() == 300).await;
    cluster.stop().await;
}

/// The test plays a leader of term 5 that keeps to no window.
fn append_of(index: u64, payload: &Bytes) -> Envelope {
    let term = Term(5);
    let id = |index: u64| match index {
        0 => LogId::ZERO,
        _ => LogId::new(term, Index(index)),
    };
    let entry = Entry::new(id(index), EntryKind::Command, payload.clone());
    Envelope {
        cluster: ClusterId([7; 16]),
        group: GroupId(1),
        from: NodeId(2),
        from_incarnation: Incarnation(102),
        to: NodeId(1),
        to_incarnation: Incarnation(101),
        term,
        message: Message::Append(Append {
            base: id(index - 1),
            commit: Index(0),
            entries: vec![entry],
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_floods_a_standing_disk_is_shed_and_the_backlog_stays_bounded() {
    let limits = Limits {
        inflight_bytes_max: 64 << 10,
        ..Limits::default()
    };
    let mut cluster = Cluster::without_nodes(3, limits);
    cluster.start_node(1, SharedDisk::default()).await;
    let node = &cluster.nodes[&1];
    node.disk.lock().unwrap().append_delay = Duration::from_secs(30);
    let payload = Bytes::from(vec![7; 10_000]);
    let metrics = || node.handle.status().metrics;
    for index in 1..=200 {
        assert!(cluster.network.inject(append_of(index, &payload)));
        eventually("it is received", || metrics().messages_received == index).await;
        let backlog = metrics().log_backlog_bytes;
        assert!(backlog <= 4 * (64 << 10) + (16 << 10), "{backlog}");
    }
    eventually("appends are shed", || metrics().appends_shed > 100).await;
    cluster.stop().await;
}
