//! Groups that grow, shrink and hand leadership over, through the handles of their nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    ChangeError, Incarnation, Index, Limits, Member, MemberRole, MembershipChange, MembershipError,
    NodeId, ProposeError, Role, SnapshotPolicy, StopReason, TransferError,
};

use crate::support::{Cluster, SharedDisk, eventually, incarnation_of, soon};

fn add(id: u64) -> MembershipChange {
    MembershipChange::AddLearner {
        id: NodeId(id),
        incarnation: incarnation_of(id),
        address: format!("node-{id}"),
    }
}

fn promote(id: u64) -> MembershipChange {
    MembershipChange::Promote { id: NodeId(id) }
}

fn remove(id: u64) -> MembershipChange {
    MembershipChange::Remove { id: NodeId(id) }
}

/// Changes once the leader is ready for it and the node has caught up.
async fn change(cluster: &Cluster, leader: u64, change: MembershipChange) {
    for _ in 0..1000 {
        let changed = cluster.handle(leader).change_membership(change.clone());
        match soon("the change", changed).await {
            Ok(_) => return,
            Err(ChangeError::NotReady | ChangeError::Lagging { .. }) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{change:?}: {error}"),
        }
    }
    panic!("never: {change:?}");
}

async fn add_voter(cluster: &mut Cluster, leader: u64, id: u64) {
    cluster.start_node(id, SharedDisk::default()).await;
    assert!(!cluster.handle(id).status().is_member());
    change(cluster, leader, add(id)).await;
    let status = cluster.handle(leader).status();
    assert_eq!(status.learners().collect::<Vec<_>>(), [NodeId(id)]);
    change(cluster, leader, promote(id)).await;
}

fn ids(cluster: &Cluster, of: u64) -> Vec<u64> {
    let members = cluster.handle(of).status().members;
    members.iter().map(|(id, _)| id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_group_grows_from_one_to_three_and_shrinks_to_one() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    cluster.propose(1, 0..20).await;
    add_voter(&mut cluster, 1, 2).await;
    add_voter(&mut cluster, 1, 3).await;
    cluster.propose(1, 20..40).await;
    cluster.converges_to(40).await;
    for id in 1..=3 {
        eventually("all know all", || ids(&cluster, id) == [1, 2, 3]).await;
        assert_eq!(cluster.network.members_of(id), [1, 2, 3]);
        let handle = cluster.handle(id);
        assert!(handle.status().is_member());
        eventually("it is committed", || !handle.status().is_changing()).await;
    }
    let metrics = cluster.handle(1).status().metrics;
    assert_eq!(metrics.changes, 4);

    // The old leader is the first to go.
    change(&cluster, 1, remove(1)).await;
    let rest = [2, 3];
    let leader = cluster.leader_among(&rest).await;
    let other = 5 - leader;
    eventually("it knows that it is out", || {
        !cluster.handle(1).status().is_member()
    })
    .await;
    cluster.stop_node(1).await;
    change(&cluster, leader, remove(other)).await;
    cluster.stop_node(other).await;
    cluster.propose(leader, 40..50).await;
    assert_eq!(ids(&cluster, leader), [leader]);
    // It is gone, so it is told in vain for a while.
    eventually("nobody else is talked to", || {
        cluster.network.members_of(leader) == [leader]
    })
    .await;
    cluster.converges_to(50).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_removed_hears_of_it_while_it_runs() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..5).await;
    let removed = leader % 3 + 1;
    change(&cluster, leader, remove(removed)).await;
    let handle = cluster.handle(removed);
    eventually("it knows that it is out", || {
        let status = handle.status();
        !status.is_member() && !status.is_changing()
    })
    .await;
    eventually("it is let go", || {
        !cluster.network.members_of(leader).contains(&removed)
    })
    .await;
    cluster.stop_node(removed).await;
    cluster.propose(leader, 5..10).await;
    cluster.converges_to(10).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_member_is_brought_in_by_a_snapshot_and_knows_the_members_from_it() {
    let mut cluster = Cluster::configured(1, |config| {
        config.snapshots = SnapshotPolicy {
            entries: 50,
            tail_bytes_max: 0,
            ..SnapshotPolicy::default()
        };
    })
    .await;
    cluster.leader().await;
    cluster.propose(1, 0..120).await;
    let handle = cluster.handle(1).clone();
    eventually("compacted", || {
        handle.status().log_start.index >= Index(100)
    })
    .await;
    add_voter(&mut cluster, 1, 2).await;
    cluster.converges_to(120).await;
    let status = cluster.handle(2).status();
    assert_eq!(status.metrics.snapshots_installed, 1);
    let disk = cluster.stop_node(2).await;
    cluster.start_node(2, disk).await;
    cluster.leader().await;
    assert!(
        cluster.handle(2).status().is_member(),
        "after a restart too"
    );
    cluster.propose(1, 120..130).await;
    cluster.converges_to(130).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_disk_is_replaced_by_its_next_incarnation() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let lost = cluster.a_follower_of(leader);
    cluster.propose(leader, 0..20).await;
    cluster.stop_node(lost).await;
    let incarnation = Incarnation(900);
    let disk = SharedDisk::default();
    cluster.start_as(lost, incarnation, disk).await;
    let address = format!("node-{lost}");
    let id = NodeId(lost);
    let replace = MembershipChange::Replace {
        id,
        incarnation,
        address,
    };
    change(&cluster, leader, replace).await;
    change(&cluster, leader, promote(lost)).await;
    cluster.propose(leader, 20..30).await;
    cluster.converges_to(30).await;
    let handle = cluster.handle(lost);
    eventually("it is a member", || handle.status().is_member()).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_refused_with_the_reason_and_change_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    cluster.propose(leader, 0..1).await;
    let refused = cluster.handle(follower).change_membership(remove(leader));
    let known = Some(NodeId(leader));
    let expected = ChangeError::NotLeader { leader: known };
    assert_eq!(refused.await, Err(expected));
    let handle = cluster.handle(leader);
    let unknown = handle.change_membership(remove(9)).await;
    let expected = MembershipError::NotAMember(NodeId(9));
    assert_eq!(unknown, Err(ChangeError::Invalid(expected)));
    let silent = handle.change_membership(MembershipChange::Set(BTreeMap::from([(
        NodeId(9),
        Member {
            incarnation: Incarnation(9),
            address: String::new(),
            role: MemberRole::Voter,
        },
    )])));
    let refused = silent.await.unwrap_err();
    assert!(
        matches!(
            refused,
            ChangeError::Lagging { .. } | ChangeError::NoQuorum { .. }
        ),
        "{refused}"
    );
    assert_eq!(ids(&cluster, leader), [1, 2, 3]);
    assert_eq!(handle.status().metrics.changes_refused, 2);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_answers_who_waits_for_a_change() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..1).await;
    cluster.network.isolate(leader);
    let handle = cluster.handle(leader);
    let changes = [add(4), add(5)].map(|change| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.change_membership(change).await })
    });
    let mut answers = Vec::new();
    for change in changes {
        answers.push(soon("an answer", change).await.unwrap().unwrap_err());
    }
    assert!(answers.contains(&ChangeError::Unknown), "{answers:?}");
    assert!(
        answers
            .iter()
            .any(|e| matches!(e, ChangeError::InProgress { .. })),
        "{answers:?}"
    );
    cluster.network.heal();
    cluster.leader().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_to_whom_it_is_handed() {
    let cluster = Cluster::start(3).await;
    let mut leader = cluster.leader().await;
    for round in 0..5 {
        cluster.propose(leader, round..round + 1).await;
        let next = leader % 3 + 1;
        let transferred = cluster.handle(leader).transfer_leadership(NodeId(next));
        assert_eq!(soon("the transfer", transferred).await, Ok(()));
        assert_eq!(cluster.leader().await, next);
        assert_eq!(cluster.handle(leader).status().metrics.transfers, 1);
        leader = next;
        if round == 2 {
            break;
        }
    }
    cluster.propose(leader, 10..11).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_transfer_to_one_that_cannot_lead_is_refused_and_the_leader_leads_on() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.a_follower_of(leader);
    let handle = cluster.handle(leader);
    let refused = handle.transfer_leadership(NodeId(9)).await;
    assert_eq!(refused, Err(TransferError::NotAVoter(NodeId(9))));
    let known = Some(NodeId(leader));
    let refused = cluster.handle(follower).transfer_leadership(NodeId(leader));
    let expected = TransferError::NotLeader { leader: known };
    assert_eq!(refused.await, Err(expected));
    // It can be heard, and its disk does nothing.
    let disk = &cluster.nodes[&follower].disk;
    disk.lock().unwrap().append_delay = Duration::from_secs(20);
    cluster.propose(leader, 0..1).await;
    let late = handle.transfer_leadership(NodeId(follower));
    let (late, refused) = tokio::join!(late, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        handle.propose("x".into()).await
    });
    assert_eq!(refused, Err(ProposeError::Transferring(NodeId(follower))));
    let error = late.unwrap_err();
    assert!(matches!(error, TransferError::TimedOut { .. }), "{error}");
    let status = handle.status();
    assert_eq!(status.role, Role::Leader);
    assert_eq!(status.metrics.transfers_refused, 2);
    cluster.propose(leader, 1..2).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn operations_above_their_limits_are_busy_by_name_and_room_comes_back() {
    let cluster = Cluster::start_with(3, Limits::default()).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..1).await;
    cluster.network.isolate(leader);
    let handle = cluster.handle(leader);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.change_membership(add(4)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let refused = handle.change_membership(add(4)).await;
    let (limit_name, limit) = ("changes_pending_max", 16);
    assert_eq!(refused, Err(ChangeError::Busy { limit_name, limit }));
    assert_eq!(handle.status().metrics.busy_refusals, 1);
    for task in tasks {
        soon("an answer", task).await.unwrap().unwrap_err();
    }
    let later = handle.change_membership(add(4)).await;
    assert!(
        matches!(later, Err(ChangeError::NotLeader { .. })),
        "{later:?}"
    );
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_operation_learns_that_the_node_stopped() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.propose(leader, 0..1).await;
    cluster.network.isolate(leader);
    let handle = cluster.handle(leader).clone();
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.change_membership(add(4)).await }
    });
    eventually("it is begun", || handle.status().is_changing()).await;
    handle.shutdown().await;
    let stopped = StopReason::Shutdown;
    let answer = waiting.await.unwrap();
    assert_eq!(answer, Err(ChangeError::Stopped(stopped.clone())));
    let transfer = handle.transfer_leadership(NodeId(1)).await;
    assert_eq!(transfer, Err(TransferError::Stopped(stopped)));
    let proposed = handle.propose(Bytes::new()).await;
    assert!(matches!(proposed, Err(ProposeError::Stopped(_))));
    cluster.stop().await;
}
