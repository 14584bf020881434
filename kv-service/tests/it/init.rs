//! Goal: a cluster on the disk is whole, private where it must be, and never overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kv_service::config::{StorageKind, TransportKind};
use kv_service::identity::{DataDirectory, Owner};
use kv_service::init::{self, ClusterLayout, ClusterPlan, InitError};

fn plan(dir: &Path) -> ClusterPlan {
    ClusterPlan::local(&dir.join("cluster"), 3, 7400).unwrap()
}

fn open_all(layout: &ClusterLayout) -> Vec<DataDirectory> {
    let open = |node: &kv_service::config::NodeConfig| {
        let owner = Owner {
            cluster: node.cluster,
            node: node.id,
            incarnation: node.incarnation(),
        };
        DataDirectory::open(&node.data, owner, node.storage).unwrap()
    };
    layout.nodes.iter().map(open).collect()
}

#[test]
fn a_new_cluster_has_everything_that_nodes_and_clients_need() {
    let directory = tempfile::tempdir().unwrap();
    let layout = init::make_cluster(&plan(directory.path())).unwrap();
    assert_eq!(layout.nodes.len(), 3);
    let dir = directory.path().join("cluster");
    for (path, mode) in [
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("client.pem", 0o644),
        ("client.key", 0o600),
        ("client.toml", 0o644),
        ("node-1/node.toml", 0o644),
        ("node-2/node.pem", 0o644),
        ("node-3/node.key", 0o600),
        ("node-3/ca.pem", 0o644),
        ("node-3/data/identity.toml", 0o644),
    ] {
        let found = std::fs::metadata(dir.join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    assert!(!dir.join(".making").exists());
    for (node, port) in layout.nodes.iter().zip(7401..) {
        assert_eq!(node.listen.port(), port);
        assert_eq!(node.advertise, format!("127.0.0.1:{port}"));
        assert_eq!(node.cluster, layout.cluster);
        assert_eq!(node.members, layout.nodes[0].members);
    }
    let client = std::fs::read_to_string(&layout.client_config).unwrap();
    assert!(
        client.contains(&format!("cluster = \"{}\"", layout.cluster)),
        "{client}"
    );
    assert!(
        client.contains("[[endpoints]]\nid = 3\naddress = \"127.0.0.1:7403\""),
        "{client}"
    );
    open_all(&layout);
}

#[test]
fn two_clusters_share_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let make = |name| {
        let plan = ClusterPlan::local(&directory.path().join(name), 1, 7400).unwrap();
        init::make_cluster(&plan).unwrap()
    };
    let (one, two) = (make("one"), make("two"));
    assert_ne!(one.cluster, two.cluster);
    assert_ne!(one.nodes[0].incarnation(), two.nodes[0].incarnation());
}

#[test]
fn a_cluster_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(directory.path());
    init::make_cluster(&plan).unwrap();
    let before = std::fs::read(plan.dir.join("ca.key")).unwrap();
    let error = init::make_cluster(&plan).unwrap_err();
    assert!(matches!(error, InitError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("never overwritten"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert_eq!(std::fs::read(plan.dir.join("ca.key")).unwrap(), before);
}

#[test]
fn a_part_of_a_cluster_is_neither_used_nor_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(directory.path());
    init::make_cluster(&plan).unwrap();
    std::fs::remove_file(plan.dir.join("client.toml")).unwrap();
    for error in [init::make_cluster(&plan), init::load_or_make(&plan)].map(Result::unwrap_err) {
        assert_eq!(error.exit_code(), 2);
    }
    let error = init::load(&plan.dir).unwrap_err().to_string();
    assert!(error.contains("client.toml does not"), "{error}");
}

#[test]
fn what_a_crash_left_unfinished_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(directory.path());
    std::fs::create_dir_all(plan.dir.join(".making/node-1/data")).unwrap();
    std::fs::write(plan.dir.join(".making/ca.pem"), b"half").unwrap();
    let layout = init::make_cluster(&plan).unwrap();
    assert_eq!(layout.nodes.len(), 3);
    assert!(!plan.dir.join(".making").exists());
}

#[test]
fn a_cluster_that_is_there_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(directory.path());
    assert!(init::load(&plan.dir).unwrap().is_none());
    let made = init::load_or_make(&plan).unwrap();
    let found = init::load_or_make(&plan).unwrap();
    assert_eq!(made.cluster, found.cluster);
    assert_eq!(made.nodes[2].members, found.nodes[2].members);
}

#[test]
fn a_cluster_that_is_not_the_one_asked_for_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let made = plan(directory.path());
    init::load_or_make(&made).unwrap();
    let fewer = ClusterPlan::local(&made.dir, 1, 7400).unwrap();
    let elsewhere = ClusterPlan::local(&made.dir, 3, 8400).unwrap();
    let other = ClusterPlan {
        storage: StorageKind::Rocksdb,
        ..made
    };
    for (plan, part) in [
        (fewer, "nodes: 3, not 1"),
        (elsewhere, "1 at 127.0.0.1:7401, not 1 at 127.0.0.1:8401"),
        (other, "storage file, not rocksdb"),
    ] {
        let error = init::load_or_make(&plan).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

#[test]
fn a_cluster_in_memory_starts_over_with_new_incarnations() {
    let directory = tempfile::tempdir().unwrap();
    let plan = ClusterPlan {
        storage: StorageKind::Memory,
        transport: TransportKind::Memory,
        ..plan(directory.path())
    };
    let first = init::load_or_make(&plan).unwrap();
    let mut running = open_all(&first);
    running[0].count_start().unwrap();
    let error = init::load_or_make(&plan).unwrap_err().to_string();
    assert!(error.contains("locked"), "{error}");
    drop(running);
    let second = init::load_or_make(&plan).unwrap();
    assert_eq!(first.cluster, second.cluster);
    for (old, new) in first.nodes.iter().zip(&second.nodes) {
        assert_ne!(old.incarnation(), new.incarnation());
    }
    assert!(open_all(&second).iter().all(|data| data.boot() == 0));
}

#[test]
fn a_plan_that_cannot_work_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("cluster");
    let hosts = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|host| (*host).to_owned()).collect();
        ClusterPlan::hosts(&dir, &list)
    };
    for (result, part) in [
        (ClusterPlan::local(&dir, 0, 7400), "number of nodes is 0"),
        (ClusterPlan::local(&dir, 10, 7400), "1 to 9"),
        (ClusterPlan::local(&dir, 3, 65533), "base port is 65533"),
        (hosts(&["db1:7400", "db1:7400"]), "given once"),
        (hosts(&["db1"]), "\"db1\""),
        (hosts(&["db1:0"]), "\"db1:0\""),
        (hosts(&[":7400"]), "\":7400\""),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(!dir.exists());
}

#[test]
fn hosts_listen_on_all_addresses_and_advertise_their_name() {
    let directory = tempfile::tempdir().unwrap();
    let list = ["db1.example.org:7400", "[2001:db8::1]:7401"].map(str::to_owned);
    let plan = ClusterPlan::hosts(&directory.path().join("cluster"), &list).unwrap();
    let layout = init::make_cluster(&plan).unwrap();
    assert_eq!(layout.nodes[0].listen.to_string(), "0.0.0.0:7400");
    assert_eq!(layout.nodes[0].advertise, "db1.example.org:7400");
    assert_eq!(layout.nodes[1].listen.to_string(), "[::]:7401");
}
