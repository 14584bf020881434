//! A slow disk, a slow state machine or a dead peer never holds up ticks and heartbeats. Time is
//! virtual, so "slow" costs nothing here.

use std::time::Duration;

use raft_core::{Consistency, Limits};
use tokio::time::Instant;

use crate::support::{Cluster, eventually};

const SLOW: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn a_leader_with_a_slow_disk_keeps_its_leadership() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = cluster.handle(leader).status().term;
    cluster.nodes[&leader].disk.lock().unwrap().append_delay = SLOW;
    for _ in 0..3 {
        let started = Instant::now();
        cluster.handle(leader).propose("a".into()).await.unwrap();
        // Applied means on the own disk too.
        assert!(started.elapsed() >= SLOW);
    }
    for node in cluster.nodes.values() {
        assert_eq!(node.handle.status().term, term, "nobody campaigned");
    }
    let longest = cluster.handle(leader).status().metrics.append_longest_us;
    assert!(longest >= 2_000_000);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_with_a_slow_disk_slows_nobody_and_catches_up() {
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
async fn a_peer_whose_sends_fail_is_found_again_when_it_returns() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = cluster.a_follower_of(leader);
    cluster.network.fail_sends_to(dead);
    for _ in 0..200 {
        cluster.handle(leader).propose("a".into()).await.unwrap();
    }
    let status = cluster.handle(leader).status();
    assert!(status.metrics.messages_failed > 0);
    cluster.network.heal();
    let node = &cluster.nodes[&dead];
    eventually("it catches up", || node.commands().len() == 200).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_still_sheds_appends_and_the_backlog_stays_bounded() {
    let limits = Limits {
        inflight_bytes_max: 64 << 10,
        append_bytes_max: 16 << 10,
        ..Limits::default()
    };
    let cluster = Cluster::start_with(3, limits).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    let node = &cluster.nodes[&follower];
    node.disk.lock().unwrap().append_delay = Duration::from_secs(3600);
    let payload = bytes::Bytes::from(vec![7; 10_000]);
    for _ in 0..300 {
        let handle = cluster.handle(leader);
        handle.propose(payload.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let backlog = node.handle.status().metrics.log_backlog_bytes;
        assert!(backlog <= 4 * (64 << 10) + (32 << 10), "{backlog}");
    }
    node.disk.lock().unwrap().append_delay = Duration::ZERO;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    eventually("it catches up", || node.commands().len() == 300).await;
    cluster.stop().await;
}
