//! How much travels: each entry once to each follower, and little more after a loss.

use std::collections::BTreeMap;

use super::Cluster;
use super::disk::Disk;
use crate::message::Message;
use crate::protocol::Input;
use crate::types::{Index, NodeId};

const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(3);

/// n1 leads n2 and n3, all in step. Its appends carry one entry each, so that windows are deep.
fn cluster(tail_bytes_max: usize) -> Cluster {
    let disks: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), Disk::default())).collect();
    let mut cluster = Cluster::new(disks, 3);
    cluster.limits.append_entries_max = 1;
    cluster.limits.append_bytes_max = 4_096;
    cluster.limits.tail_bytes_max = tail_bytes_max;
    cluster.restart_all();
    cluster.campaign(LEADER);
    for _ in 0..10 {
        cluster.stabilize();
        cluster.step(LEADER, Input::Tick);
    }
    cluster.stabilize();
    assert_eq!(cluster.leader(), Some(LEADER));
    cluster.entries_sent.clear();
    cluster
}

fn position(cluster: &Cluster, wanted: Index) -> usize {
    let is_wanted = |message: &Message| match message {
        Message::Append(append) => append.entries.first().is_some_and(|e| e.index() == wanted),
        _ => false,
    };
    cluster
        .network
        .iter()
        .position(|e| e.to == FOLLOWER && is_wanted(&e.message))
        .expect("the append is on its way")
}

fn sent(cluster: &Cluster) -> u64 {
    cluster.entries_sent[&FOLLOWER]
}

fn settle(cluster: &mut Cluster) {
    for _ in 0..cluster.timing.heartbeat_ticks * 20 {
        cluster.stabilize();
        cluster.step(LEADER, Input::Tick);
    }
    cluster.stabilize();
    let (held, wanted) = (
        cluster.node(FOLLOWER).disk.last(),
        cluster.node(LEADER).disk.last(),
    );
    assert_eq!(held, wanted, "the follower is in step");
}

#[test]
fn two_hundred_proposals_travel_once() {
    let mut cluster = cluster(1 << 20);
    for value in 0..200 {
        cluster.propose(LEADER, &value.to_string());
    }
    settle(&mut cluster);
    assert_eq!(sent(&cluster), 200);
}

#[test]
fn a_lost_append_costs_at_most_two_windows() {
    let mut cluster = cluster(1 << 20);
    let window = cluster.limits.inflight_messages_max as u64;
    for value in 0..window {
        cluster.propose(LEADER, &value.to_string());
    }
    let lost = position(&cluster, Index(2));
    cluster.network.remove(lost);
    settle(&mut cluster);
    let sent = sent(&cluster);
    assert!(sent <= window * 3, "{sent} for a window of {window}");
}

#[test]
fn an_append_that_was_overtaken_costs_at_most_two_windows() {
    let mut cluster = cluster(1 << 20);
    let window = cluster.limits.inflight_messages_max as u64;
    for value in 0..window {
        cluster.propose(LEADER, &value.to_string());
    }
    let late = position(&cluster, Index(2));
    let late = cluster.network.remove(late);
    let last = position(&cluster, Index(1 + window));
    cluster.network.insert(last + 1, late);
    settle(&mut cluster);
    let sent = sent(&cluster);
    assert!(sent <= window * 3, "{sent} for a window of {window}");
}

#[test]
fn a_window_read_from_the_disk_is_bounded_in_messages_too() {
    let mut cluster = cluster(0);
    for other in [LEADER, NodeId(2)] {
        cluster.cut.extend([(FOLLOWER, other), (other, FOLLOWER)]);
    }
    for value in 0..200 {
        cluster.propose(LEADER, &value.to_string());
        cluster.stabilize();
    }
    cluster.cut.clear();
    cluster.entries_sent.clear();
    let window = cluster.limits.inflight_messages_max;
    let mut loaded = 0;
    for _ in 0..cluster.timing.heartbeat_ticks * 20 {
        cluster.step(LEADER, Input::Tick);
        for _ in 0..1000 {
            while cluster.persist(FOLLOWER) || cluster.persist(LEADER) {}
            if let Some(load) = cluster.node(LEADER).loads.front() {
                // One entry each: no more is read than may leave.
                let read = load.to.0 + 1 - load.from.0;
                assert!(read <= window as u64, "{load:?}");
                let carried = cluster.limits.append_bytes_max * window;
                assert!(load.bytes_max <= carried, "{load:?}");
            }
            if cluster.load(LEADER) {
                loaded += 1;
                let under_way = cluster.network.iter().filter(|e| e.to == FOLLOWER);
                let appends = under_way.filter(|e| e.message.is_bulk()).count();
                assert!(appends <= window, "{appends} appends are under way");
            }
            if cluster.network.is_empty() {
                break;
            }
            cluster.deliver(0);
        }
    }
    settle(&mut cluster);
    assert!(loaded > 0, "old entries came from the disk");
    assert!(sent(&cluster) <= 300, "{} entries", sent(&cluster));
}
