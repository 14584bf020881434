//! Snapshots of whole nodes: taken, restored after a restart, sent to those who lag, and in
//! nobody's way meanwhile.

use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    ClusterId, Consistency, Envelope, GroupId, Incarnation, Index, LogId, Member, MemberRole,
    Membership, Message, NodeId, RoomLeft, SnapshotDescriptor, SnapshotHash, SnapshotMeta,
    SnapshotPolicy, StopReason, Term,
};
use tokio::time::Instant;

use crate::support::storage::Snapshots;
use crate::support::{Cluster, Offer, SharedDisk, eventually, incarnation_of, soon};

/// A snapshot every so many entries, and no tail behind it.
fn every(entries: u64) -> SnapshotPolicy {
    SnapshotPolicy {
        entries,
        tail_bytes_max: 0,
        ..SnapshotPolicy::default()
    }
}

async fn cluster_with(size: u64, entries: u64) -> Cluster {
    Cluster::configured(size, move |config| config.snapshots = every(entries)).await
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_taken_at_the_threshold_and_the_log_is_compacted() {
    let cluster = cluster_with(3, 50).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..48).await;
    assert!(cluster.handle(leader).status().snapshot.is_none());
    cluster.propose(leader, 48..120).await;
    for (id, node) in &cluster.nodes {
        eventually("two snapshots", || {
            let status = node.handle.status();
            status.metrics.snapshots_taken == 2 && status.log_start.index >= Index(100)
        })
        .await;
        let status = node.handle.status();
        let snapshot = status.snapshot.unwrap();
        assert!(
            snapshot.meta.last.index >= status.log_start.index,
            "node {id}"
        );
        assert_eq!(snapshot.meta.membership.voters().count(), 3);
        assert_eq!(
            snapshot.parts,
            snapshot.meta.last.index.0 - 1,
            "all but the no-op"
        );
        assert!(status.metrics.compactions >= 1 && status.metrics.snapshot_bytes_taken > 0);
        assert!(node.disk.lock().unwrap().entries.len() < 60);
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_restores_the_newest_snapshot_and_replays_what_is_behind_it() {
    let mut cluster = cluster_with(1, 50).await;
    cluster.leader().await;
    cluster.propose(1, 0..75).await;
    let handle = cluster.handle(1).clone();
    eventually("compacted", || handle.status().log_start.index > Index(0)).await;
    let before = cluster.nodes[&1].commands();
    let disk = cluster.stop_node(1).await;
    cluster.start_node(1, disk).await;
    cluster.leader().await;
    cluster.propose(1, 75..76).await;
    let node = &cluster.nodes[&1];
    assert_eq!(node.commands()[..75], before);
    let status = node.handle.status();
    assert_eq!(node.deeds.lock().unwrap().restores, 1);
    assert_eq!(status.metrics.snapshots_installed, 1);
    assert!(
        status.metrics.commands_applied < 30,
        "only what is behind it"
    );
    let read = node.handle.read("".into(), Consistency::Linearizable).await;
    assert_eq!(read.unwrap(), "command 75");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_far_behind_gets_the_snapshot_and_goes_on() {
    let mut cluster = cluster_with(3, 50).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    cluster.propose(leader, 0..10).await;
    let disk = cluster.stop_node(follower).await;
    cluster.propose(leader, 10..200).await;
    // A follower that was heard of a moment ago keeps its tail.
    let handle = cluster.handle(leader).clone();
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.propose(leader, 200..260).await;
    eventually("compacted", || handle.status().log_start.index > Index(200)).await;
    cluster.start_node(follower, disk).await;
    cluster.converges_to(260).await;
    let node = &cluster.nodes[&follower];
    assert_eq!(node.deeds.lock().unwrap().restores, 1);
    let status = node.handle.status();
    assert_eq!(status.metrics.snapshots_received, 1);
    assert_eq!(status.metrics.log_resets, 1);
    assert!(status.snapshot.is_some() && status.metrics.snapshot_bytes_received > 0);
    assert_eq!(handle.status().metrics.snapshots_sent, 1);
    cluster.propose(leader, 260..300).await;
    cluster.converges_to(300).await;
    let read = node.handle.read("".into(), Consistency::Linearizable).await;
    assert_eq!(read.unwrap(), "command 299");

    let disk = cluster.stop_node(follower).await;
    cluster.start_node(follower, disk).await;
    cluster.converges_to(300).await;
    cluster.stop().await;
}

/// Three nodes of which one has missed what the leader has compacted; and the leader.
async fn with_one_far_behind(entries: u64) -> (Cluster, u64, u64) {
    let cluster = cluster_with(3, entries).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    cluster.network.isolate(follower);
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.propose(leader, 0..entries + 10).await;
    let handle = cluster.handle(leader).clone();
    eventually("compacted", || handle.status().log_start.index > Index(1)).await;
    (cluster, leader, follower)
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_breaks_goes_on_where_it_broke() {
    let (cluster, leader, follower) = with_one_far_behind(100).await;
    cluster.network.snapshots(|s| s.breaks_after = Some(30));
    cluster.network.heal();
    cluster.converges_to(110).await;
    let accepted = cluster.network.snapshots(|s| s.accepted.clone());
    let first: Vec<u64> = accepted.iter().map(|(_, first)| *first).collect();
    assert!(accepted.iter().all(|(to, _)| to.0 == follower));
    assert_eq!(first, [0, 30, 60, 90]);
    let parts = cluster.network.snapshots(|s| s.parts);
    assert!(parts < 110, "no part twice: {parts}");
    let sender = cluster.handle(leader).status().metrics;
    // One more may have failed before the cut was healed.
    assert!(sender.snapshots_sent == 1 && sender.snapshots_failed >= 3);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_away_in_the_middle_of_a_transfer_is_not_waited_for() {
    let (cluster, leader, follower) = with_one_far_behind(50).await;
    let delay = Duration::from_millis(100);
    cluster.network.snapshots(|s| s.part_delay = delay);
    cluster.network.heal();
    let parts = || cluster.network.snapshots(|s| s.parts);
    eventually("half of it is there", || parts() > 25).await;
    cluster.network.isolate(leader);
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let next = cluster.leader_among(&others).await;
    assert_ne!(next, follower);
    cluster.propose(next, 60..70).await;
    let node = &cluster.nodes[&follower];
    eventually("it has all", || node.commands().len() == 70).await;
    cluster.network.heal();
    cluster.converges_to(70).await;
    let role = cluster.handle(leader).status().role;
    assert_ne!(role, raft_core::Role::Leader);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_while_a_slow_machine_writes_a_large_image() {
    let cluster = cluster_with(3, 50).await;
    let leader = cluster.leader().await;
    let term = cluster.handle(leader).status().term;
    let deeds = &cluster.nodes[&leader].deeds;
    deeds.lock().unwrap().image_delay = Duration::from_secs(2);
    cluster.propose(leader, 0..50).await;
    eventually("it is being taken", || deeds.lock().unwrap().images == 1).await;
    let sent = || cluster.handle(leader).status().metrics.messages_sent;
    let before = sent();
    let started = Instant::now();
    while cluster.handle(leader).status().metrics.snapshots_taken == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = started.elapsed();
    assert!(took > Duration::from_secs(90), "{took:?}");
    let beats = 2 * took.as_millis() as u64 / 50;
    assert!(sent() - before >= beats * 9 / 10, "heartbeats were missed");
    cluster.propose(leader, 50..60).await;
    for node in cluster.nodes.values() {
        let status = node.handle.status();
        assert_eq!((status.term, status.metrics.elections <= 1), (term, true));
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_restore_holds_up_nobody_and_causes_no_election() {
    let (cluster, leader, follower) = with_one_far_behind(50).await;
    let node = &cluster.nodes[&follower];
    node.deeds.lock().unwrap().restore_delay = Duration::from_secs(2);
    cluster.network.heal();
    let metrics = || node.handle.status().metrics;
    eventually("it is on the disk", || metrics().log_resets == 1).await;
    let term = cluster.handle(leader).status().term;
    let started = Instant::now();
    cluster.propose(leader, 60..70).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    // What it cannot apply yet it holds and acknowledges all the same.
    let last = cluster.handle(leader).status().last.index;
    eventually("acknowledged", || node.handle.status().durable == last).await;
    assert_eq!(metrics().snapshots_installed, 0, "still being restored");
    let started = Instant::now();
    while metrics().snapshots_installed == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(started.elapsed() > Duration::from_secs(60));
    cluster.converges_to(70).await;
    for node in cluster.nodes.values() {
        assert_eq!(node.handle.status().term, term);
    }
    cluster.stop().await;
}

/// What a disk may do while a snapshot is written: how to make it do so, how often it is waited for
/// here, and what its error says.
type Fault = (fn(&mut Snapshots, bool), u64, &'static str);

const FAULTS: [Fault; 2] = [
    (|disk, on| disk.is_full = on, 1, "no space left"),
    (|disk, on| disk.fail_writes = on, 2, "write"),
];

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_costs_a_snapshot_and_is_tried_again() {
    for (set, times, what) in FAULTS {
        let cluster = cluster_with(1, 50).await;
        cluster.leader().await;
        let node = &cluster.nodes[&1];
        set(&mut node.disk.lock().unwrap().snapshots, true);
        cluster.propose(1, 0..60).await;
        let metrics = || node.handle.status().metrics;
        eventually("it failed", || metrics().snapshots_failed == times).await;
        assert_eq!(metrics().snapshots_taken, 0, "{what}");
        assert_eq!(node.handle.status().log_start.index, Index(0), "{what}");
        set(&mut node.disk.lock().unwrap().snapshots, false);
        cluster.propose(1, 60..61).await;
        eventually("it is taken", || metrics().snapshots_taken == 1).await;
        eventually("compacted", || {
            node.handle.status().log_start.index > Index(0)
        })
        .await;
        cluster.stop().await;
    }
}

/// The file would find room, or would have; the state that it becomes would not.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_the_state_has_no_room_for_is_taken_later() {
    for (before, after) in [(1, 1), (u64::MAX, 1)] {
        let (cluster, leader, follower) = with_one_far_behind(50).await;
        let snapshot = cluster.nodes[&leader].handle.status().snapshot;
        let node = &cluster.nodes[&follower];
        let free = |bytes| node.deeds.lock().unwrap().free_bytes = Some(bytes);
        free(before);
        cluster
            .network
            .snapshots(|s| s.part_delay = Duration::from_millis(100));
        cluster.network.heal();
        let metrics = || node.handle.status().metrics;
        let begins = before > 1;
        eventually("it begins", || {
            !begins || metrics().snapshot_bytes_received > 0
        })
        .await;
        free(after);
        let refusals = || cluster.network.snapshots(|s| s.refused.clone());
        eventually("it is refused", || !refusals().is_empty()).await;
        assert!(
            refusals()[0].contains("no room for a state"),
            "{:?}",
            refusals()
        );
        assert_eq!(metrics().snapshots_received, 0);
        assert_eq!(metrics().snapshot_bytes_received > 0, begins);
        // What is on the disk already needs no room again.
        let bytes = snapshot.expect("it was taken").bytes;
        free(if begins { bytes } else { 2 * bytes });
        cluster.converges_to(60).await;
        cluster.stop().await;
    }
}

/// Where a snapshot is due, or under way, and the rest of the disk is the state's.
#[tokio::test(start_paused = true)]
async fn a_snapshot_leaves_the_state_what_it_needs() {
    for begins in [false, true] {
        let cluster = cluster_with(1, 50).await;
        cluster.leader().await;
        let node = &cluster.nodes[&1];
        let left = |left| node.deeds.lock().unwrap().room_left = Some(left);
        node.deeds.lock().unwrap().image_delay = Duration::from_secs(1);
        cluster.propose(1, 0..48).await;
        if !begins {
            left(RoomLeft::Reserve);
        }
        cluster.propose(1, 48..49).await;
        let images = || node.deeds.lock().unwrap().images;
        eventually("an image", || !begins || images() == 1).await;
        left(RoomLeft::Reserve);
        let metrics = || node.handle.status().metrics;
        eventually("it is given up", || metrics().snapshots_failed == 1).await;
        assert_eq!((metrics().snapshots_taken, images()), (0, begins.into()));
        left(RoomLeft::Enough);
        node.deeds.lock().unwrap().image_delay = Duration::ZERO;
        eventually("it has room", || !node.handle.status().log.is_short_of_room).await;
        cluster.propose(1, 49..51).await;
        eventually("it is taken", || metrics().snapshots_taken == 1).await;
        cluster.stop().await;
    }
}

/// It would stand beside the last one, and be as large.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_will_not_fit_is_not_begun() {
    let cluster = cluster_with(1, 50).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    cluster.propose(1, 0..50).await;
    let metrics = || node.handle.status().metrics;
    eventually("it is taken", || metrics().snapshots_taken == 1).await;
    let last = node.handle.status().snapshot.expect("it was taken");
    let free = |bytes| node.deeds.lock().unwrap().free_bytes = Some(bytes);
    free(last.bytes - 1);
    cluster.propose(1, 50..100).await;
    eventually("it is left", || metrics().snapshots_failed > 0).await;
    assert_eq!(node.deeds.lock().unwrap().images, 1, "none is even begun");
    free(last.bytes);
    cluster.propose(1, 100..102).await;
    eventually("it is taken", || metrics().snapshots_taken == 2).await;
    cluster.stop().await;
}

/// What is left suffices for a snapshot, after which the log takes less.
#[tokio::test(start_paused = true)]
async fn a_state_that_is_short_of_room_has_its_snapshot_taken() {
    let cluster = cluster_with(1, 50).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    cluster.propose(1, 0..48).await;
    node.deeds.lock().unwrap().room_left = Some(RoomLeft::Short);
    cluster.propose(1, 48..49).await;
    let metrics = || node.handle.status().metrics;
    eventually("it is taken", || metrics().snapshots_taken == 1).await;
    assert!(node.handle.status().log.is_short_of_room);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_a_transfer_takes_it_later() {
    for (set, _, what) in FAULTS {
        let (cluster, _, follower) = with_one_far_behind(50).await;
        let node = &cluster.nodes[&follower];
        set(&mut node.disk.lock().unwrap().snapshots, true);
        cluster.network.heal();
        let refusals = || cluster.network.snapshots(|s| s.refused.clone());
        eventually("it is refused", || !refusals().is_empty()).await;
        assert!(refusals()[0].contains(what), "{:?}", refusals());
        assert!(node.handle.status().metrics.snapshots_failed > 0, "{what}");
        set(&mut node.disk.lock().unwrap().snapshots, false);
        cluster.converges_to(60).await;
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_panics_ends_the_node() {
    let cluster = cluster_with(1, 50).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    node.deeds.lock().unwrap().panic_images = true;
    cluster.propose(1, 0..49).await;
    let reason = soon("the node ends", node.handle.stopped()).await;
    let expected = StopReason::Panicked {
        task: "snapshot-take",
        message: "the image panics".to_owned(),
    };
    assert_eq!(reason, expected);
    assert!(node.is_gone());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_read_its_snapshot_ends_the_sender_and_nobody_else() {
    let (cluster, leader, follower) = with_one_far_behind(50).await;
    cluster.nodes[&leader]
        .disk
        .lock()
        .unwrap()
        .snapshots
        .fail_reads = true;
    cluster.network.heal();
    let node = &cluster.nodes[&leader];
    let reason = soon("the node ends", node.handle.stopped()).await;
    assert!(matches!(reason, StopReason::Storage(_)), "{reason}");
    assert!(node.is_gone());
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.leader_among(&others).await;
    let node = &cluster.nodes[&follower];
    eventually("the next leader has one too", || {
        node.commands().len() == 60
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_a_transfer_ends_both_sides() {
    let (cluster, leader, follower) = with_one_far_behind(50).await;
    cluster
        .network
        .snapshots(|s| s.part_delay = Duration::from_secs(10));
    cluster.network.heal();
    let parts = || cluster.network.snapshots(|s| s.parts);
    eventually("it is under way", || parts() > 0).await;
    let partial = |id: u64| {
        cluster.nodes[&id]
            .disk
            .lock()
            .unwrap()
            .snapshots
            .partial
            .clone()
    };
    for id in [follower, leader] {
        let node = &cluster.nodes[&id];
        soon("shutdown", node.handle.shutdown()).await;
        assert!(node.is_gone());
    }
    assert!(
        !partial(follower).unwrap().parts.is_empty(),
        "kept for later"
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_neither_for_a_long_image_nor_for_a_long_restore() {
    let cluster = cluster_with(1, 50).await;
    cluster.leader().await;
    let node = &cluster.nodes[&1];
    node.deeds.lock().unwrap().image_delay = Duration::from_secs(100);
    cluster.propose(1, 0..60).await;
    eventually("it is being taken", || {
        node.deeds.lock().unwrap().images == 1
    })
    .await;
    let started = Instant::now();
    cluster.stop().await;

    let (cluster, _, follower) = with_one_far_behind(50).await;
    let node = &cluster.nodes[&follower];
    node.deeds.lock().unwrap().restore_delay = Duration::from_secs(5);
    cluster.network.heal();
    eventually("it is on the disk", || {
        node.handle.status().metrics.log_resets == 1
    })
    .await;
    let before = started.elapsed();
    soon("shutdown", node.handle.shutdown()).await;
    assert!(started.elapsed() - before < Duration::from_secs(10));
    assert!(node.is_gone());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_applied_may_go_when_a_snapshot_replaces_the_log() {
    let mut cluster = Cluster::configured(3, |config| {
        config.snapshots = every(100);
        config.limits.tail_bytes_max = 0;
    })
    .await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    cluster.propose(leader, 0..80).await;
    cluster.converges_to(80).await;
    let disk = cluster.stop_node(follower).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.propose(leader, 80..150).await;
    let handle = cluster.handle(leader).clone();
    eventually("compacted", || handle.status().log_start.index > Index(80)).await;
    // It begins to replay what is on its disk, slowly, and gets the snapshot meanwhile.
    disk.lock().unwrap().read_delay = Duration::from_secs(5);
    cluster.start_node(follower, disk).await;
    cluster.converges_to(150).await;
    let node = &cluster.nodes[&follower];
    assert_eq!(node.deeds.lock().unwrap().restores, 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_while_a_snapshot_is_still_being_installed() {
    let (cluster, leader, follower) = with_one_far_behind(50).await;
    let node = &cluster.nodes[&follower];
    node.deeds.lock().unwrap().restore_delay = Duration::from_millis(200);
    node.disk.lock().unwrap().reset_delay = Duration::from_secs(1);
    cluster.network.heal();
    let metrics = || node.handle.status().metrics;
    eventually("it is on the disk", || metrics().snapshots_received == 1).await;
    let newer = || {
        let term = cluster.handle(leader).status().term.0;
        Envelope {
            to: NodeId(follower),
            to_incarnation: incarnation_of(follower),
            ..offer_of(leader, term + 1, 5000, 1)
        }
    };
    // While the log is begun anew, and while the state machine is restored.
    let why = refusal_of(&cluster, newer()).await;
    assert!(why.contains("busy") && metrics().log_resets == 0, "{why}");
    eventually("the log follows", || metrics().log_resets == 1).await;
    let why = refusal_of(&cluster, newer()).await;
    assert!(
        why.contains("busy") && metrics().snapshots_installed == 0,
        "{why}"
    );
    cluster.converges_to(60).await;
    let (_offer, first) = accepted(&cluster, newer()).await;
    assert_eq!(first, 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_own_image_that_was_overtaken_by_a_received_snapshot_is_given_up() {
    let cluster = cluster_with(3, 50).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    let node = &cluster.nodes[&follower];
    node.deeds.lock().unwrap().image_delay = Duration::from_secs(10);
    cluster.propose(leader, 0..60).await;
    eventually("it is being taken", || {
        node.deeds.lock().unwrap().images == 1
    })
    .await;
    cluster.network.isolate(follower);
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.propose(leader, 60..160).await;
    let handle = cluster.handle(leader);
    eventually("compacted", || handle.status().log_start.index > Index(100)).await;
    cluster.network.heal();
    cluster.converges_to(160).await;
    let metrics = || node.handle.status().metrics;
    assert_eq!(
        (metrics().snapshots_installed, metrics().snapshots_taken),
        (1, 0)
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    eventually("it is given up", || metrics().snapshots_failed == 1).await;
    assert_eq!(metrics().snapshots_taken, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_cuts_restarts_and_snapshots_at_the_same_time_lose_nothing() {
    let mut cluster = cluster_with(3, 40).await;
    cluster.leader().await;
    let handles: Vec<_> = (1..=3).map(|id| cluster.handle(id).clone()).collect();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..6 {
        let (handles, stopped) = (handles.clone(), stopped.clone());
        clients.spawn(async move {
            let mut done = Vec::new();
            for number in 0.. {
                let command = Bytes::from(format!("{client} {number}"));
                for handle in &handles {
                    if handle.propose(command.clone()).await.is_ok() {
                        done.push(command.clone());
                        break;
                    }
                }
                if *stopped.borrow() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            done
        });
    }
    for round in 0..6 {
        // The first one is never started anew: its handle is the clients'.
        let id = 2 + round % 2;
        if round < 3 {
            cluster.network.isolate(id);
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.network.heal();
        } else {
            let disk = cluster.stop_node(id).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.start_node(id, disk).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop.send_replace(true);
    let mut done = Vec::new();
    while let Some(client) = soon("the clients end", clients.join_next()).await {
        done.extend(client.unwrap());
    }
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..1).await;
    let commands = cluster.nodes[&leader].commands();
    cluster.converges_to(commands.len()).await;
    let held: std::collections::BTreeSet<_> = commands.into_iter().collect();
    assert!(done.len() > 100 && done.iter().all(|command| held.contains(command)));
    let metrics = cluster.nodes.values().map(|n| n.handle.status().metrics);
    let metrics: Vec<_> = metrics.collect();
    let sum =
        |count: fn(&raft_core::MetricsSnapshot) -> u64| metrics.iter().map(count).sum::<u64>();
    assert!(sum(|m| m.snapshots_taken) > 3 && sum(|m| m.snapshots_installed) > 0);
    drop(handles);
    cluster.stop().await;
}

/// What a leader of term 9 offers to node 1, in so many parts of one byte.
fn offer_of(from: u64, term: u64, last: u64, parts: u64) -> Envelope {
    let member = |id: u64| Member {
        incarnation: incarnation_of(id),
        address: String::new(),
        role: MemberRole::Voter,
    };
    let members = (1..=3).map(|id| (NodeId(id), member(id))).collect();
    let meta = SnapshotMeta {
        last: LogId::new(Term(term), Index(last)),
        membership: Membership::new(members).unwrap(),
    };
    Envelope {
        cluster: ClusterId([7; 16]),
        group: GroupId(1),
        from: NodeId(from),
        from_incarnation: incarnation_of(from),
        to: NodeId(1),
        to_incarnation: incarnation_of(1),
        term: Term(term),
        message: Message::Snapshot(SnapshotDescriptor {
            meta,
            parts,
            bytes: parts,
            hash: SnapshotHash(7),
        }),
    }
}

async fn one_alone() -> Cluster {
    let mut cluster = Cluster::without_nodes(3, raft_core::Limits::default());
    cluster.start_node(1, SharedDisk::default()).await;
    cluster
}

async fn refusal_of(cluster: &Cluster, envelope: Envelope) -> String {
    let mut offer = cluster.network.offer(envelope).unwrap();
    assert_eq!(soon("an answer", offer.first_part()).await, None);
    soon("why", offer.outcome()).await.unwrap_err()
}

async fn accepted(cluster: &Cluster, envelope: Envelope) -> (Offer, u64) {
    let mut offer = cluster.network.offer(envelope).unwrap();
    let first = soon("an answer", offer.first_part()).await;
    (offer, first.expect("accepted"))
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_us_or_too_old_is_refused_before_a_byte_of_it() {
    let cluster = one_alone().await;
    let good = || offer_of(2, 9, 100, 5);
    let bad = [
        Envelope {
            cluster: ClusterId([8; 16]),
            ..good()
        },
        Envelope {
            group: GroupId(2),
            ..good()
        },
        Envelope {
            to_incarnation: Incarnation(5),
            ..good()
        },
        Envelope {
            term: Term(0),
            ..good()
        },
    ];
    let needles = ["another cluster", "another group", "incarnation", "term 0"];
    for (envelope, needle) in bad.into_iter().zip(needles) {
        let handle = cluster.handle(1);
        eventually("it has campaigned", || handle.status().term >= Term(0)).await;
        let envelope = match needle {
            "term 0" => {
                // A leader of a newer term was heard of.
                let beat = raft_core::message::Heartbeat {
                    commit: Index(0),
                    round: 0,
                    is_last: false,
                };
                cluster.network.inject(Envelope {
                    message: Message::Heartbeat(beat),
                    ..good()
                });
                eventually("it is heard", || handle.status().term == Term(9)).await;
                envelope
            }
            _ => envelope,
        };
        let why = refusal_of(&cluster, envelope).await;
        assert!(why.contains(needle), "{why}");
    }
    let handle = cluster.handle(1);
    let why = refusal_of(&cluster, offer_of(2, 9, 0, 5)).await;
    assert!(why.contains("is committed"), "{why}");
    // One that claims to be on our disk already.
    let before = handle.status().metrics.refused_malformed;
    assert!(cluster.network.inject(good()));
    let count = || handle.status().metrics.refused_malformed;
    eventually("it is refused", || count() == before + 1).await;
    assert_eq!(handle.status().log_start, LogId::ZERO);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_transfer_at_a_time_but_a_newer_leader_takes_the_place_of_an_older() {
    let cluster = one_alone().await;
    let (older, first) = accepted(&cluster, offer_of(2, 9, 100, 5)).await;
    assert_eq!(first, 0);
    assert!(older.send(Bytes::from_static(b"x")).await);
    let why = refusal_of(&cluster, offer_of(3, 8, 90, 5)).await;
    assert!(why.contains("busy"), "{why}");
    let (newer, first) = accepted(&cluster, offer_of(3, 10, 200, 5)).await;
    assert_eq!(first, 0);
    assert_eq!(older.outcome().await, Err("dropped".to_owned()));

    // The same leader begins anew: what it sent before is kept.
    for _ in 0..2 {
        assert!(newer.send(Bytes::from_static(b"x")).await);
    }
    let metrics = || cluster.handle(1).status().metrics;
    eventually("they are written", || {
        metrics().snapshot_bytes_received == 3
    })
    .await;
    let (again, first) = accepted(&cluster, offer_of(3, 10, 200, 5)).await;
    assert_eq!(first, 2);
    for _ in 0..4 {
        let _ = again.send(Bytes::from_static(b"x")).await;
    }
    let why = soon("why", again.outcome()).await.unwrap_err();
    assert!(why.contains("more than was announced"), "{why}");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn content_that_is_not_what_was_announced_is_refused_and_not_installed() {
    let cluster = one_alone().await;
    let (offer, _) = accepted(&cluster, offer_of(2, 9, 100, 2)).await;
    for _ in 0..2 {
        assert!(offer.send(Bytes::from_static(b"x")).await);
    }
    offer.end().await;
    let why = soon("why", offer.outcome()).await.unwrap_err();
    assert!(why.contains("not the announced snapshot"), "{why}");
    let status = cluster.handle(1).status();
    assert_eq!((status.log_start, status.snapshot), (LogId::ZERO, None));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_falls_silent_is_given_up_and_makes_room() {
    let cluster = one_alone().await;
    let (silent, _) = accepted(&cluster, offer_of(2, 9, 100, 5)).await;
    let given_up = tokio::time::timeout(Duration::from_secs(100), silent.outcome()).await;
    assert_eq!(given_up.unwrap(), Err("dropped".to_owned()));
    let (_next, first) = accepted(&cluster, offer_of(3, 9, 100, 5)).await;
    assert_eq!(first, 0);
    cluster.stop().await;
}
