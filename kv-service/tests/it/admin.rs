//! Goal: administrators change a running cluster and copy its state; nobody else does.
//! Method: real servers in one process, joined by QUIC, and the client library.

use kv_api::{Outcome, RequestBody};
use kv_client::{ClientError, KvClient, MemberChange, MemberKind, MembersReport};
use kv_service::config::{NodeConfig, StorageKind};
use kv_service::init;
use raft_core::NodeId;

use crate::support::{Cluster, eventually, free_address, soon};

fn roles(report: &MembersReport) -> Vec<(u64, MemberKind)> {
    let members = report.members.iter();
    members.map(|member| (member.id, member.role)).collect()
}

/// Promotes a learner as soon as it has caught up.
async fn promote(admin: &KvClient, id: u64) -> MembersReport {
    eventually("the learner has caught up", async || {
        match admin.change_members(MemberChange::Promote { id }).await {
            Ok(report) => Some(report),
            Err(ClientError::Refused(why)) => {
                assert!(
                    why.contains("entries up to") || why.contains("silent"),
                    "{why}"
                );
                None
            }
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

fn add(node: &NodeConfig) -> MemberChange {
    MemberChange::Add {
        id: node.id.0,
        incarnation: node.incarnation().0,
        address: node.advertise.clone(),
    }
}

const VOTER: MemberKind = MemberKind::Voter;
const LEARNER: MemberKind = MemberKind::Learner;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_and_writes_and_changes_nothing_else() {
    let cluster = Cluster::started(1).await;
    let client = cluster.library(&cluster.layout.client_config).await;
    client.put("key", "value").await.unwrap();
    let errors = [
        client.members().await.map(drop).unwrap_err(),
        client.transfer_leader(1).await.unwrap_err(),
        client.save_snapshot().await.map(drop).unwrap_err(),
        client
            .change_members(MemberChange::Remove { id: 1 })
            .await
            .map(drop)
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.exit_code(), 5, "{error}");
        assert!(error.to_string().contains("admin.toml"), "{error}");
    }
    let admin = cluster.administrator().await;
    assert_eq!(roles(&admin.members().await.unwrap()), [(1, VOTER)]);
    assert!(
        admin.get("key").await.unwrap().is_some(),
        "and reads as well"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_lead_names_the_leader_to_administrators() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let mut admin = cluster.client_as("admin", leader % 3 + 1).await;
    for body in [RequestBody::Members, RequestBody::SaveSnapshot] {
        eventually("the follower knows the leader", async || {
            let Outcome::NotLeader(notice) = admin.request(body.clone()).await else {
                panic!("not the leader");
            };
            (notice.leader.map(|(id, _)| id) == Some(leader)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_learns_votes_and_goes() {
    let mut cluster = Cluster::started(3).await;
    let admin = cluster.administrator().await;
    for round in 0..20 {
        admin.put(format!("key-{round}"), "value").await.unwrap();
    }
    let dir = cluster.layout.dir.clone();
    let node = init::add_member_directory(&dir, 4, &free_address(), StorageKind::File).unwrap();
    // It is started before anybody knows it, and waits.
    cluster.start_joined(node.clone()).await;
    let report = soon("adding", admin.change_members(add(&node)))
        .await
        .unwrap();
    assert_eq!(
        roles(&report),
        [(1, VOTER), (2, VOTER), (3, VOTER), (4, LEARNER)]
    );
    assert!(!report.is_changing);
    assert_eq!(report.member(4).unwrap().incarnation, node.incarnation().0);
    let again = admin.change_members(add(&node)).await.unwrap_err();
    assert_eq!(again.exit_code(), 5);
    assert!(again.to_string().contains("already a member"), "{again}");

    let mut local = cluster.client(4).await;
    eventually("the learner has the log", async || {
        local.get_stale("key-19").await
    })
    .await;
    let Outcome::Status(status) = local.request(RequestBody::Status).await else {
        panic!("no status");
    };
    assert_eq!((&status.role[..], status.members.len()), ("learner", 4));
    let report = promote(&admin, 4).await;
    assert_eq!(report.member(4).unwrap().role, VOTER);

    soon("transferring", admin.transfer_leader(4))
        .await
        .unwrap();
    assert_eq!(cluster.leader().await, 4);
    soon("nothing to do", admin.transfer_leader(4))
        .await
        .unwrap();
    for id in [1, 2, 3] {
        let removed = admin.change_members(MemberChange::Remove { id }).await;
        let report = removed.unwrap_or_else(|error| panic!("removing {id}: {error}"));
        assert!(report.member(id).is_none() && !report.is_changing);
    }
    let none = admin.change_members(MemberChange::Remove { id: 4 }).await;
    assert_eq!(none.unwrap_err().exit_code(), 5);
    admin.put("alone", "yes").await.unwrap();
    assert_eq!(roles(&admin.members().await.unwrap()), [(4, VOTER)]);

    // What it was made with does not count any more: the log says who belongs to the group.
    cluster.stop(4).await;
    cluster.start(4).await;
    assert_eq!(cluster.leader().await, 4);
    assert!(admin.get("alone").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_disk_comes_back() {
    let mut cluster = Cluster::started(3).await;
    let admin = cluster.administrator().await;
    admin.put("before", "yes").await.unwrap();
    let lost = cluster.leader().await % 3 + 1;
    let old = cluster.config(lost);
    cluster.stop(lost).await;
    let dir = cluster.layout.dir.clone();
    let held = init::replace_member_directory(&dir, lost, &old.advertise).unwrap_err();
    assert!(held.to_string().contains("still holds data"), "{held}");
    std::fs::remove_dir_all(&old.data).unwrap();
    let node = init::replace_member_directory(&dir, lost, &old.advertise).unwrap();
    let replace = MemberChange::Replace {
        id: lost,
        incarnation: node.incarnation().0,
        address: node.advertise.clone(),
    };
    let report = soon("replacing", admin.change_members(replace))
        .await
        .unwrap();
    let member = report.member(lost).unwrap();
    assert_eq!(
        (member.role, member.incarnation),
        (LEARNER, node.incarnation().0)
    );
    cluster.layout.nodes[lost as usize - 1] = node;
    cluster.start(lost).await;
    promote(&admin, lost).await;
    let mut local = cluster.client(lost).await;
    eventually("it has everything again", async || {
        local.get_stale("before").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_be_removed() {
    let cluster = Cluster::started(3).await;
    let admin = cluster.administrator().await;
    admin.put("before", "yes").await.unwrap();
    let id = cluster.leader().await;
    let removed = soon(
        "removing",
        admin.change_members(MemberChange::Remove { id }),
    )
    .await;
    let report = removed.unwrap();
    assert_eq!((report.members.len(), report.is_changing), (2, false));
    // Others go on, and it does not disturb them.
    admin.put("after", "yes").await.unwrap();
    let members = admin.members().await.unwrap();
    assert!(members.member(id).is_none());
    let report = soon(
        "once more",
        admin.change_members(MemberChange::Remove { id }),
    )
    .await;
    let error = report.unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert!(error.to_string().contains("is not a member"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_voters_only() {
    let cluster = Cluster::started(3).await;
    let admin = cluster.administrator().await;
    let leader = cluster.leader().await;
    let to = leader % 3 + 1;
    soon("transferring", admin.transfer_leader(to))
        .await
        .unwrap();
    assert_eq!(cluster.leader().await, to);
    admin.put("key", "value").await.unwrap();
    let error = admin.transfer_leader(9).await.unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert!(
        error.to_string().contains("node 9 is not a voter"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_to_join_says_so_and_serves_nobody() {
    let mut cluster = Cluster::made(1);
    let dir = cluster.layout.dir.clone();
    let node = init::add_member_directory(&dir, 2, &free_address(), StorageKind::File).unwrap();
    cluster.start_joined(node).await;
    let mut local = cluster.client(2).await;
    let Outcome::Status(status) = local.request(RequestBody::Status).await else {
        panic!("no status");
    };
    assert_eq!((&status.role[..], status.term), ("learner", 0));
    assert!(status.members.is_empty() && status.leader.is_none());
    let outcome = local.put("key", "value").await;
    assert!(matches!(&outcome, Outcome::NotLeader(notice) if notice.leader.is_none()));
    assert_eq!(
        cluster.servers[1].as_ref().unwrap().raft().status().id,
        NodeId(2)
    );
}
