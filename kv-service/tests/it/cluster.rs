//! Goal: nodes that are composed from their configuration replicate, fail over, restart and report.
//! Method: real servers in one process, with QUIC on the loopback interface and logs in files.

use kv_api::{Outcome, RequestBody};
use kv_service::compose::{self, Overrides, Server, StartError};
use kv_service::config::{StorageKind, TransportKind};
use kv_service::init::ClusterPlan;
use raft_core::{Index, StopReason};

use crate::support::{self, Cluster, eventually, soon, written};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_elect_a_leader_and_replicate() {
    let cluster = Cluster::started(3).await;
    let mut client = cluster.client_of_leader().await;
    let first = written(&client.put("colour", "blue").await);
    let second = written(&client.put("colour", "green").await);
    assert_eq!((first.version, second.version), (1, 2));
    let found = client.get("colour").await.unwrap();
    assert_eq!((found.value.as_ref(), found.version), (&b"green"[..], 2));
    assert_eq!(client.get("taste").await, None);
    for id in 1..=3 {
        let mut local = cluster.client(id).await;
        eventually("every node has applied the write", async || {
            let found = local.get_stale("colour").await?;
            (found.value.as_ref() == b"green").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_loss_of_the_leader() {
    let mut cluster = Cluster::started(3).await;
    let first_leader = cluster.leader().await;
    let mut client = cluster.client(first_leader).await;
    for round in 0..20 {
        written(&client.put(&format!("before-{round}"), "x").await);
    }
    cluster.stop(first_leader).await;
    let mut client = cluster.client_of_leader().await;
    for round in 0..20 {
        assert!(
            client.get(&format!("before-{round}")).await.is_some(),
            "{round}"
        );
        written(&client.put(&format!("after-{round}"), "x").await);
    }
    cluster.start(first_leader).await;
    let mut returned = cluster.client(first_leader).await;
    eventually("the returned node has caught up", async || {
        returned.get_stale("after-19").await.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_all_nodes_were_stopped() {
    let mut cluster = Cluster::started(3).await;
    let mut client = cluster.client_of_leader().await;
    for round in 0..50 {
        written(&client.put(&format!("key-{round}"), vec![round; 1000]).await);
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let mut client = cluster.client_of_leader().await;
    for round in 0..50 {
        let found = client.get(&format!("key-{round}")).await.unwrap();
        assert_eq!(found.value.as_ref(), vec![round; 1000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader_and_answers_reads() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let mut client = cluster.client(follower).await;
    let expected = Some((leader, cluster.config(leader).advertise));
    eventually("the follower knows the leader", async || {
        let Outcome::NotLeader(notice) = client.put("key", "value").await else {
            return None;
        };
        (notice.leader == expected && notice.term > 0).then_some(())
    })
    .await;
    // A read needs no leader on the spot: the follower asks it how far it has to wait.
    let read = RequestBody::Read(support::query("key"));
    let Outcome::Answer(answer) = client.request(read).await else {
        panic!("a follower that knows the leader answers linearizable reads");
    };
    assert_eq!(support::found(&answer), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_who_leads_at_once_and_when_it_changes() {
    let mut cluster = Cluster::started(3).await;
    let first = cluster.leader().await;
    let witness = first % 3 + 1;
    let mut client = cluster.client(witness).await;
    // Any request makes the client read what was sent before; the notice is the first of all.
    client.request(RequestBody::Status).await;
    assert!(client.notice.is_some());
    cluster.stop(first).await;
    let second = cluster.leader().await;
    let expected = Some((second, cluster.config(second).advertise));
    eventually("a notice of the new leader", async || {
        client.request(RequestBody::Status).await;
        (client.notice.as_ref()?.leader == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_how_a_node_is() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let mut client = cluster.client(leader).await;
    written(&client.put("key", vec![7; 10_000]).await);
    // A node publishes where it stands a moment after it has answered.
    let status = eventually("the status tells of the write", async || {
        let Outcome::Status(status) = client.request(RequestBody::Status).await else {
            panic!("no status");
        };
        (status.applied >= 2 && status.log_bytes >= 10_000).then_some(status)
    })
    .await;
    assert_eq!(status.cluster_id, cluster.layout.cluster.to_string());
    assert_eq!((status.id, status.leader), (leader, Some(leader)));
    assert_eq!(status.addr, cluster.config(leader).advertise);
    assert_eq!(status.role, "leader");
    assert_eq!(status.storage, "file");
    assert!(status.term > 0 && status.commit >= status.applied);
    assert!(status.last_index >= status.commit);
    assert!(status.disk_bytes >= 10_000, "{status:?}");
    assert_eq!(status.members.len(), 3);
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_commits_and_stops_when_it_is_dropped() {
    let mut cluster = Cluster::started(1).await;
    written(&cluster.client_of_leader().await.put("key", "value").await);
    let server = cluster.servers[0].take().unwrap();
    let raft = server.raft().clone();
    drop(server);
    assert_eq!(
        soon("the node stops", raft.stopped()).await,
        StopReason::Shutdown
    );
    eventually("the address and the directory are free again", async || {
        Server::start(cluster.config(1), Overrides::default())
            .await
            .ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_one_process_serves_clients_by_quic() {
    let mut cluster = Cluster::planned(3, |plan| ClusterPlan {
        storage: StorageKind::Memory,
        transport: TransportKind::Memory,
        ..plan
    });
    let configs = cluster.layout.nodes.clone();
    let servers = Server::start_memory_cluster(configs, Overrides::default())
        .await
        .unwrap();
    assert!(servers.iter().all(|server| !server.is_durable()));
    cluster.servers = servers.into_iter().map(Some).collect();
    let mut client = cluster.client_of_leader().await;
    written(&client.put("key", "value").await);
    assert_eq!(client.get("key").await.unwrap().value.as_ref(), b"value");
    let Outcome::Status(status) = client.request(RequestBody::Status).await else {
        panic!("no status");
    };
    assert_eq!(status.storage, "memory (not durable)");
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    // It has forgotten everything, so it may not come back as if it had not.
    let error = Server::start_memory_cluster(cluster.layout.nodes.clone(), Overrides::default())
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
}

async fn start_error(config: kv_service::config::NodeConfig, overrides: Overrides) -> StartError {
    let error = Server::start(config, overrides).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_says_why_and_leaves_nothing_behind() {
    let mut cluster = Cluster::made(3);
    let none = Overrides::default();
    let mut foreign = cluster.config(1);
    foreign.certificates = cluster.config(2).certificates;
    let mut unsigned = cluster.config(1);
    let other = Cluster::made(1);
    unsigned.certificates.ca = other.config(1).certificates.ca;
    let mut absent = cluster.config(1);
    absent.certificates.key = cluster.path().join("absent.key");
    let mut empty = cluster.config(1);
    empty.data = cluster.path().join("new-disk");
    let rocksdb = Overrides {
        storage: Some(StorageKind::Rocksdb),
        ..none
    };
    let memory = Overrides {
        transport: Some(TransportKind::Memory),
        ..none
    };
    for (config, overrides, part) in [
        (foreign, none, "is for node-2."),
        (unsigned, none, "not signed"),
        (absent, none, "absent.key"),
        (empty, none, "member replace 1"),
        (cluster.config(1), memory, "has 3 members"),
    ] {
        let error = start_error(config, overrides).await;
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    if !cfg!(feature = "rocksdb") {
        let error = start_error(cluster.config(1), rocksdb).await;
        assert!(error.to_string().contains("--features rocksdb"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    cluster.start(1).await;
    let locked = start_error(cluster.config(1), none).await;
    assert!(locked.to_string().contains("locked"), "{locked}");
    assert_eq!(locked.exit_code(), 2);
    let mut in_use = cluster.config(2);
    in_use.listen = cluster.config(1).listen;
    let in_use = start_error(in_use, none).await;
    assert!(in_use.to_string().contains("already in use"), "{in_use}");
    assert_eq!(in_use.exit_code(), 2);
    cluster.start(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_vanished_does_not_start() {
    let mut cluster = Cluster::started(1).await;
    written(&cluster.client_of_leader().await.put("key", "value").await);
    cluster.stop(1).await;
    std::fs::remove_dir_all(cluster.config(1).data.join("wal")).unwrap();
    let error = start_error(cluster.config(1), Overrides::default()).await;
    assert!(error.to_string().contains("is gone"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_not_started_and_is_exit_code_70() {
    let mut cluster = Cluster::started(1).await;
    let mut client = cluster.client_of_leader().await;
    for round in 0..50 {
        written(&client.put(&format!("key-{round}"), vec![0xaa; 4096]).await);
    }
    cluster.stop(1).await;
    damage(&cluster, 1);
    let error = start_error(cluster.config(1), Overrides::default()).await;
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(error.exit_code(), 70);
}

/// Changes a byte of a value in the log of a node.
fn damage(cluster: &Cluster, id: u64) {
    let mut damaged = 0;
    for entry in std::fs::read_dir(cluster.config(id).data.join("wal")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(mut bytes) = std::fs::read(&path) else {
            continue;
        };
        let full = bytes.windows(64).position(|window| window == [0xaa; 64]);
        if let Some(at) = full {
            bytes[at] = 0xab;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "the values are in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refilled_by_the_others() {
    let mut cluster = Cluster::started(3).await;
    let mut client = cluster.client_of_leader().await;
    for round in 0..20 {
        written(&client.put(&format!("key-{round}"), vec![0xaa; 4096]).await);
    }
    let damaged = cluster.leader().await % 3 + 1;
    cluster.stop(damaged).await;
    damage(&cluster, damaged);
    cluster.start(damaged).await;
    let raft = |cluster: &Cluster| cluster.server(damaged).raft().status();
    eventually("it is whole", async || {
        let status = raft(&cluster);
        let has_all = status.refilling.is_none() && status.applied >= Index(20);
        has_all.then_some(())
    })
    .await;
    let mut local = cluster.client(damaged).await;
    eventually("it has everything", async || {
        local.get_stale("key-19").await.map(drop)
    })
    .await;
    // Another one goes, and it is needed.
    let other = damaged % 3 + 1;
    cluster.stop(other).await;
    let mut client = cluster.client_of_leader().await;
    for round in 0..20 {
        let found = client.get(&format!("key-{round}")).await.unwrap();
        assert_eq!(found.value.as_ref(), [0xaa; 4096]);
    }
    written(&client.put("after", "x").await);
}

#[test]
fn a_node_that_stopped_itself_is_exit_code_70() {
    assert_eq!(compose::stop_exit_code(&StopReason::Shutdown), 0);
    assert_eq!(compose::stop_exit_code(&StopReason::Transport), 70);
}
