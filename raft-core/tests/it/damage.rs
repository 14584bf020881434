//! Disks in trouble while the rest of the cluster is well: a log that lost synced entries is
//! refilled, and one that is short of room takes no commands until it has some.

use bytes::Bytes;
use raft_core::{Consistency, Index, NodeId, ProposeError, RoomLeft};

use crate::support::{Cluster, SharedDeeds, eventually, incarnation_of, soon};

async fn propose(cluster: &Cluster, id: u64, from: u64, to: u64) {
    for value in from..=to {
        let handle = &cluster.nodes[&id].handle;
        let command = Bytes::from(format!("value {value}"));
        soon("a proposal", handle.propose(command)).await.unwrap();
    }
}

fn values(to: u64) -> Vec<Bytes> {
    (1..=to)
        .map(|value| format!("value {value}").into())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_log_is_refilled_and_a_machine_that_was_ahead_applies_nothing_twice() {
    for is_durable in [false, true] {
        for lost in [1, 4, 9] {
            let mut cluster = Cluster::start(3).await;
            let leader = cluster.leader().await;
            let damaged = leader % 3 + 1;
            // Both lives of the machine share what is on its disk.
            let deeds = SharedDeeds::default();
            deeds.lock().unwrap().is_durable = is_durable;
            let disk = cluster.stop_node(damaged).await;
            let incarnation = incarnation_of(damaged);
            cluster
                .start_with_state(damaged, incarnation, disk, deeds.clone())
                .await;
            propose(&cluster, leader, 1, 10).await;
            eventually("it has everything", || {
                deeds.lock().unwrap().commands.len() == 10
            })
            .await;
            let disk = cluster.stop_node(damaged).await;
            let end = disk.lock().unwrap().entries.len() as u64;
            disk.lock().unwrap().damage(Index(end + 1 - lost));
            if !is_durable {
                deeds.lock().unwrap().commands.clear();
            }
            cluster
                .start_with_state(damaged, incarnation, disk.clone(), deeds.clone())
                .await;
            let handle = cluster.nodes[&damaged].handle.clone();
            eventually("it is whole", || handle.status().refilling.is_none()).await;
            assert_eq!(disk.lock().unwrap().refill_to, None);
            propose(&cluster, leader, 11, 12).await;
            let count = || deeds.lock().unwrap().commands.len();
            eventually("it follows again", || count() >= 12).await;
            assert_eq!(
                cluster.nodes[&damaged].commands(),
                values(12),
                "lost {lost}"
            );
            let read = handle.read(Bytes::new(), Consistency::Linearizable);
            assert_eq!(soon("a read", read).await.unwrap(), "value 12");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_room_refuses_commands_until_it_has_some() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    propose(&cluster, leader, 1, 3).await;
    let node = &cluster.nodes[&leader];
    node.disk.lock().unwrap().is_short_of_room = true;
    // The store says so with the append that meets it, which is still taken.
    propose(&cluster, leader, 4, 4).await;
    eventually("it says so", || node.handle.status().log.is_short_of_room).await;
    let refused = soon("a refusal", node.handle.propose("too much".into())).await;
    assert_eq!(refused.unwrap_err(), ProposeError::NoRoom(NodeId(leader)));
    assert_eq!(node.handle.status().metrics.no_room_refusals, 1);
    let read = node.handle.read(Bytes::new(), Consistency::Linearizable);
    assert_eq!(soon("a read", read).await.unwrap(), "value 4");
    let term = node.handle.status().term;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(node.handle.status().term, term, "it leads on");
    node.disk.lock().unwrap().is_short_of_room = false;
    // Nothing is written meanwhile that could bring the news.
    eventually("it has room", || !node.handle.status().log.is_short_of_room).await;
    propose(&cluster, leader, 5, 6).await;
    let commands = || {
        cluster
            .nodes
            .values()
            .all(|node| node.commands() == values(6))
    };
    eventually("everybody has everything", commands).await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_without_room_catches_up_once_it_has_some() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    propose(&cluster, leader, 1, 3).await;
    let follower = &cluster.nodes[&(leader % 3 + 1)];
    follower.disk.lock().unwrap().is_short_of_room = true;
    propose(&cluster, leader, 4, 4).await;
    eventually("it says so", || {
        follower.handle.status().log.is_short_of_room
    })
    .await;
    let last = follower.handle.status().last;
    propose(&cluster, leader, 5, 40).await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let status = follower.handle.status();
    assert_eq!(status.last, last, "it takes no command");
    assert_eq!(status.leader, Some(NodeId(leader)), "and hears its leader");
    follower.disk.lock().unwrap().is_short_of_room = false;
    eventually("it has everything", || follower.commands() == values(40)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_without_room_knows_it() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    propose(&cluster, 1, 1, 1).await;
    let disk = cluster.stop_node(1).await;
    disk.lock().unwrap().is_short_of_room = true;
    cluster.start_node(1, disk).await;
    let handle = cluster.nodes[&1].handle.clone();
    assert!(handle.status().log.is_short_of_room);
    cluster.leader().await;
    let refused = soon("a refusal", handle.propose("too much".into())).await;
    assert_eq!(refused.unwrap_err(), ProposeError::NoRoom(NodeId(1)));
}

#[tokio::test(start_paused = true)]
async fn a_state_without_room_stops_commands_as_a_log_does() {
    for left in [RoomLeft::Short, RoomLeft::Reserve] {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let node = &cluster.nodes[&leader];
        node.deeds.lock().unwrap().room_left = Some(left);
        propose(&cluster, leader, 1, 1).await;
        eventually("it says so", || node.handle.status().log.is_short_of_room).await;
        let refused = soon("a refusal", node.handle.propose("too much".into())).await;
        assert_eq!(refused.unwrap_err(), ProposeError::NoRoom(NodeId(leader)));
        node.deeds.lock().unwrap().room_left = Some(RoomLeft::Enough);
        eventually("it has room", || !node.handle.status().log.is_short_of_room).await;
        propose(&cluster, leader, 2, 3).await;
        cluster.stop().await;
    }
}
