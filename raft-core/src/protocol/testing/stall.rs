//! A leader whose disk stands still gives way; one whose disk is only slow does not.

use super::Cluster;
use super::support::{led, propose, settle, state};
use crate::protocol::{Input, Role};
use crate::types::NodeId;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// One tick of everybody, but nothing that A writes reaches its disk.
fn tick(cluster: &mut Cluster) {
    for id in [A, B, C] {
        cluster.step(id, Input::Tick);
    }
    while !cluster.network.is_empty() {
        cluster.deliver(0);
        for id in [B, C] {
            while cluster.persist(id) || cluster.load(id) {}
        }
    }
}

fn patience(cluster: &Cluster) -> u32 {
    cluster.timing.election_ticks_max * 4
}

#[test]
fn a_leader_whose_disk_stands_still_gives_way() {
    let mut cluster = led(3);
    cluster.propose(A, "never on its disk");
    let patience = patience(&cluster);
    for _ in 0..patience {
        tick(&mut cluster);
    }
    assert_eq!(
        cluster.leader(),
        Some(A),
        "the others acknowledge, so it went on"
    );
    assert!(
        state(&cluster, A).commit >= state(&cluster, A).last.index,
        "and commits"
    );
    for _ in 0..4 * cluster.timing.election_ticks_max {
        tick(&mut cluster);
    }
    assert_eq!(cluster.raft(A).state().counters.stalled, 1);
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, A);
    // It goes on once its disk does.
    while cluster.persist(A) {}
    propose(&mut cluster, leader, 1);
    settle(&mut cluster, leader);
    assert_eq!(state(&cluster, A).last, state(&cluster, leader).last);
}

#[test]
fn a_leader_whose_disk_is_slow_goes_on() {
    let mut cluster = led(3);
    let patience = patience(&cluster);
    for round in 0..patience * 10 {
        if round % 3 == 0 {
            cluster.propose(A, &round.to_string());
        }
        // A write takes nearly as long as may be, and there is always one more.
        if round % (patience - 10) == 0 {
            cluster.persist(A);
        }
        tick(&mut cluster);
    }
    assert_eq!(cluster.raft(A).state().counters.stalled, 0);
    assert_eq!(cluster.raft(A).role(), Role::Leader);
    assert!(cluster.node(A).writes.len() > 100);
}

#[test]
fn a_leader_without_anything_to_write_does_not_stall() {
    let mut cluster = led(3);
    let patience = patience(&cluster);
    for _ in 0..patience * 3 {
        tick(&mut cluster);
    }
    // The first write after a long rest has all its time.
    cluster.propose(A, "x");
    for _ in 0..patience {
        tick(&mut cluster);
    }
    assert_eq!(cluster.raft(A).state().counters.stalled, 0);
    assert_eq!(cluster.leader(), Some(A));
}
