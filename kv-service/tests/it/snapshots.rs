//! Goal: the state comes out of a cluster whole, a new cluster can begin with it, and nodes live on
//! snapshots instead of ever longer logs.
//! Method: real servers in one process, joined by QUIC, and the client library.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use kv_api::{Outcome, RequestBody};
use kv_client::{KvClient, MemberChange, SnapshotDownload};
use kv_service::config::{NodeConfig, StorageKind};
use kv_service::init::{self, ClusterPlan, InitError};
use kv_service::state_machine::KvStateMachine;
use raft_core::{
    Incarnation, Index, LogId, Member, MemberRole, Membership, NodeId, SnapshotDescriptor,
    SnapshotMeta, SnapshotReader, StateMachine, StorageError, Term,
};
use raft_storage::snapshot_file::{SnapshotFileWriter, SnapshotOrigin};

use crate::support::{Cluster, eventually, free_address, soon};

/// What was downloaded, as a machine reads it.
struct Downloaded {
    descriptor: SnapshotDescriptor,
    parts: VecDeque<Bytes>,
}

#[async_trait]
impl SnapshotReader for Downloaded {
    fn descriptor(&self) -> &SnapshotDescriptor {
        &self.descriptor
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        self.parts.drain(..part as usize);
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.parts.pop_front())
    }
}

async fn restored(mut download: SnapshotDownload) -> KvStateMachine {
    let head = download.head().clone();
    let mut parts = VecDeque::new();
    while let Some(part) = soon("a part", download.next_part()).await.unwrap() {
        parts.push_back(part);
    }
    let summary = download.summary().unwrap();
    assert_eq!(summary.parts, parts.len() as u64);
    let last = LogId::new(Term(head.term), Index(head.index));
    let descriptor = SnapshotDescriptor {
        meta: SnapshotMeta {
            last,
            ..SnapshotMeta::default()
        },
        ..SnapshotDescriptor::default()
    };
    let mut machine = KvStateMachine::new();
    let snapshot = Box::new(Downloaded { descriptor, parts });
    machine.restore(snapshot).await.unwrap();
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_all_that_was_written_before() {
    let cluster = Cluster::started(3).await;
    let admin = cluster.administrator().await;
    let value = vec![7; 200_000];
    for round in 0..40 {
        admin
            .put(format!("key-{round:02}"), value.clone())
            .await
            .unwrap();
    }
    let download = soon("a snapshot", admin.save_snapshot()).await.unwrap();
    let head = download.head().clone();
    assert_eq!(head.cluster_id, cluster.layout.cluster.to_string());
    assert_eq!(head.members.members.len(), 3);
    // It does not move while others write, however long it takes to fetch.
    admin.put("key-00", "later").await.unwrap();
    admin.put("later", "later").await.unwrap();
    let machine = restored(download).await;
    let store = machine.store();
    assert_eq!((store.len(), store.revision()), (40, 40));
    assert_eq!(machine.sessions().len(), 1);
    let (first, _) = store.get(&"key-00".into(), None).unwrap();
    assert_eq!(first.unwrap().value, value);
    assert!(machine.applied().index >= Index(head.index));
}

/// Whoever does not take its parts holds up nobody, and only so much is made for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_nobody_fetches_holds_up_nobody() {
    let cluster = Cluster::started(1).await;
    let admin = cluster.administrator().await;
    for round in 0..40 {
        admin
            .put(format!("key-{round}"), vec![7; 1 << 20])
            .await
            .unwrap();
    }
    let slow = soon("a snapshot", admin.save_snapshot()).await.unwrap();
    let fast = soon("another", admin.save_snapshot()).await.unwrap();
    admin.put("meanwhile", "yes").await.unwrap();
    assert_eq!(restored(fast).await.store().len(), 40);
    drop(slow);
    admin.put("after", "yes").await.unwrap();
}

/// Writes what a cluster sends to a file.
async fn saved(admin: &KvClient, path: &Path) -> SnapshotMeta {
    let mut download = soon("a snapshot", admin.save_snapshot()).await.unwrap();
    let head = download.head().clone();
    let member = |report: &kv_client::MemberReport| {
        let member = Member {
            incarnation: Incarnation(report.incarnation),
            address: report.address.clone(),
            role: MemberRole::Voter,
        };
        (NodeId(report.id), member)
    };
    let members = head.members.members.iter().map(member).collect();
    let meta = SnapshotMeta {
        last: LogId::new(Term(head.term), Index(head.index)),
        membership: Membership::new(members).unwrap(),
    };
    let origin = SnapshotOrigin {
        cluster: head.cluster_id.parse().unwrap(),
        node: NodeId(0),
    };
    let mut file = SnapshotFileWriter::create(path, origin, meta.clone()).unwrap();
    while let Some(part) = soon("a part", download.next_part()).await.unwrap() {
        file.write_part(&part).unwrap();
    }
    file.finish().unwrap();
    meta
}

/// A cluster of one node with something in it, saved to a file in its directory.
async fn saved_example() -> (Cluster, PathBuf, SnapshotMeta) {
    let cluster = Cluster::started(1).await;
    let admin = cluster.administrator().await;
    for round in 0..30 {
        let key = format!("key-{}", round % 10);
        admin.put(key, vec![round; 50_000]).await.unwrap();
    }
    let path = cluster.path().join("saved");
    let meta = saved(&admin, &path).await;
    (cluster, path, meta)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_begins_with_a_snapshot() {
    let (old, path, meta) = saved_example().await;
    let mut new = Cluster::made_by(3, |plan| init::restore_cluster(&plan, &path).unwrap());
    assert_ne!(new.layout.cluster, old.layout.cluster);
    new.start_all().await;
    let client = new.library(&new.layout.client_config).await;
    let found = client.get("key-9").await.unwrap().unwrap();
    assert_eq!((found.value, found.version), (vec![29; 50_000].into(), 3));
    let older = client.get_at("key-9", 20).await.unwrap().unwrap();
    assert_eq!(older.value, vec![19; 50_000], "with its history");
    let written = client.put("key-9", "new").await.unwrap();
    assert_eq!((written.revision, written.version), (31, 4));
    for id in 1..=3 {
        let mut local = new.client(id).await;
        eventually("every node has it", async || {
            let found = local.get_stale("key-9").await?;
            (found.value == "new").then_some(())
        })
        .await;
        let Outcome::Status(status) = local.request(RequestBody::Status).await else {
            panic!("no status");
        };
        assert!(
            status.last_index > meta.last.index.0,
            "the place in the log is kept"
        );
        assert_eq!(status.snapshot_index, meta.last.index.0);
        assert_eq!(status.members.len(), 3, "its own");
    }
    // And it can be started again.
    client.close().await;
    new.stop_all().await;
    new.start_all().await;
    let client = new.library(&new.layout.client_config).await;
    assert_eq!(client.get("key-9").await.unwrap().unwrap().value, "new");
    assert!(client.get("key-3").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_whole_makes_no_cluster() {
    let (old, path, _) = saved_example().await;
    let bytes = std::fs::read(&path).unwrap();
    let damaged = old.path().join("damaged");
    let restore = |plan: &ClusterPlan| {
        let error = init::restore_cluster(plan, &damaged).unwrap_err();
        assert!(init::load(&plan.dir).unwrap().is_none(), "nothing is made");
        assert_eq!(error.exit_code(), 2);
        error
    };
    let plan = ClusterPlan::local(&old.path().join("new"), 1, 7400).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for content in [&flipped[..], &bytes[..bytes.len() - 1], &bytes[..10], b""] {
        std::fs::write(&damaged, content).unwrap();
        let error = restore(&plan).to_string();
        assert!(error.contains("cannot begin with"), "{error}");
    }
    // Whole, but not of a key-value store.
    std::fs::remove_file(&damaged).unwrap();
    let origin = SnapshotOrigin {
        cluster: old.layout.cluster,
        node: NodeId(1),
    };
    let meta = SnapshotMeta {
        last: LogId::new(Term(1), Index(7)),
        ..SnapshotMeta::default()
    };
    let mut file = SnapshotFileWriter::create(&damaged, origin, meta).unwrap();
    file.write_part(b"something else").unwrap();
    file.finish().unwrap();
    let error = restore(&plan).to_string();
    assert!(error.contains("part 0: format 115"), "{error}");

    let forgetful = ClusterPlan {
        storage: StorageKind::Memory,
        ..plan.clone()
    };
    let error = restore(&forgetful).to_string();
    assert!(error.contains("the storage is memory"), "{error}");
    init::restore_cluster(&plan, &path).unwrap();
    let again = init::restore_cluster(&plan, &path).unwrap_err();
    assert!(matches!(again, InitError::Exists { .. }), "{again}");
}

/// Makes nodes take snapshots often, and keep little beside them.
fn take_often(config: &mut NodeConfig) {
    config.snapshots.entries = 40;
    config.snapshots.tail_bytes_max = 0;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_live_on_snapshots() {
    let mut cluster = Cluster::made(3);
    cluster.layout.nodes.iter_mut().for_each(take_often);
    cluster.start_all().await;
    let admin = cluster.administrator().await;
    for round in 0..200 {
        admin
            .put(format!("key-{}", round % 50), vec![round; 500])
            .await
            .unwrap();
    }
    for server in cluster.servers.iter().flatten() {
        eventually("every node has compacted its log", async || {
            let status = server.raft().status();
            (status.log_start.index >= Index(100)).then_some(())
        })
        .await;
    }
    // Who comes new is sent the snapshot: the entries are gone.
    let dir = cluster.layout.dir.clone();
    let node = init::add_member_directory(&dir, 4, &free_address(), StorageKind::File).unwrap();
    cluster.start_joined(node.clone()).await;
    let add = MemberChange::Add {
        id: 4,
        incarnation: node.incarnation().0,
        address: node.advertise,
    };
    soon("adding", admin.change_members(add)).await.unwrap();
    let mut local = cluster.client(4).await;
    eventually("the new node has everything", async || {
        let found = local.get_stale("key-49").await?;
        (found.value[0] == 199).then_some(())
    })
    .await;
    // And all of them start from what they have.
    cluster.stop_all().await;
    cluster.start_all().await;
    let admin = cluster.administrator().await;
    for round in 150..200_u8 {
        let found = admin
            .get(format!("key-{}", round % 50))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((found.value[0], found.version), (round, 4));
    }
    assert_eq!(admin.members().await.unwrap().members.len(), 4);
}
