//! Goal: whoever has the authority's key can make administrators and nodes that join; nobody's data
//! is ever formatted away.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kv_service::config::{NodeConfig, StorageKind, TransportKind};
use kv_service::identity::{DataDirectory, Owner};
use kv_service::init::{self, ClusterLayout, ClusterPlan, InitError};
use quic_link::{Identity, Role};
use raft_core::{Incarnation, NodeId};

use crate::support::credentials;

fn plan(directory: &tempfile::TempDir) -> ClusterPlan {
    ClusterPlan::local(&directory.path().join("cluster"), 3, 7400).unwrap()
}

fn made() -> (tempfile::TempDir, ClusterLayout) {
    let directory = tempfile::tempdir().unwrap();
    let layout = init::make_cluster(&plan(&directory)).unwrap();
    (directory, layout)
}

fn open(node: &NodeConfig) -> DataDirectory {
    let owner = Owner {
        cluster: node.cluster,
        node: node.id,
        incarnation: node.incarnation(),
    };
    DataDirectory::open(&node.data, owner, node.storage).unwrap()
}

/// What a node leaves that has run.
fn run_once(node: &NodeConfig) {
    let mut data = open(node);
    let log = data.log_path(StorageKind::File);
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(log.join("segment"), b"entries").unwrap();
    data.count_start().unwrap();
}

fn role(dir: &Path, name: &str) -> Identity {
    *credentials(dir, name).identity()
}

fn administrator(layout: &ClusterLayout) -> Identity {
    Identity {
        cluster: layout.cluster.0,
        role: Role::Admin,
    }
}

/// Changes a file of a node's configuration.
fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_new_cluster_has_an_administrator() {
    let (_directory, layout) = made();
    assert_eq!(role(&layout.dir, "admin"), administrator(&layout));
    let text = std::fs::read_to_string(&layout.admin_config).unwrap();
    let client = std::fs::read_to_string(&layout.client_config).unwrap();
    let (_, settings) = text.split_once("\n\n").unwrap();
    let (_, expected) = client.split_once("\n\n").unwrap();
    assert_eq!(settings, expected.replace("\"client.", "\"admin."));
    let mode = std::fs::metadata(layout.dir.join("admin.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_older_cluster_gets_an_administrator_where_the_authority_is() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&directory);
    let remove = |name: &str| std::fs::remove_file(plan.dir.join(name)).unwrap();
    init::make_cluster(&plan).unwrap();
    for name in ["admin.pem", "admin.key", "admin.toml"] {
        remove(name);
    }
    let layout = init::load_or_make(&plan).unwrap();
    assert_eq!(role(&layout.dir, "admin"), administrator(&layout));
    let before = std::fs::read(layout.dir.join("admin.pem")).unwrap();
    init::load_or_make(&plan).unwrap();
    let after = std::fs::read(layout.dir.join("admin.pem")).unwrap();
    assert_eq!(before, after, "not made again");
    remove("admin.toml");
    remove("ca.key");
    let layout = init::load_or_make(&plan).unwrap();
    assert!(!layout.admin_config.exists());
}

#[test]
fn a_node_that_joins_has_all_that_it_needs_and_knows_nobody() {
    let (_directory, layout) = made();
    let first = layout.dir.join("node-1/node.toml");
    edit(
        &first,
        "[[members]]",
        "[timing]\npreset = \"wan\"\n\n[[members]]",
    );
    let address = "127.0.0.1:7404";
    let node = init::add_member_directory(&layout.dir, 4, address, StorageKind::File).unwrap();
    let dir = layout.dir.join("node-4");
    assert_eq!(node.path, dir.join("node.toml"));
    assert_eq!((node.id, node.cluster), (NodeId(4), layout.cluster));
    assert_eq!(
        (&node.advertise[..], node.listen.to_string()),
        (address, address.to_owned())
    );
    assert!(node.members.is_empty() && node.incarnation() > Incarnation(0));
    assert_eq!(node.timing, raft_core::Timing::WAN, "like the others");
    assert_eq!(role(&dir, "node").role, Role::Node(4));
    assert_eq!(open(&node).boot(), 0);
    let names = std::fs::read_dir(&layout.dir).unwrap();
    let names: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().contains("making"))
    );

    // It belongs to the directory from now on, whatever else it holds.
    let found = init::load(&layout.dir).unwrap().unwrap();
    assert_eq!(found.nodes.len(), 4);
    let error = init::add_member_directory(&layout.dir, 4, address, StorageKind::File);
    assert!(matches!(error, Err(InitError::Exists { .. })), "{error:?}");
}

#[test]
fn a_node_elsewhere_listens_on_all_addresses() {
    let (_directory, layout) = made();
    let listens = |id, address: &str| {
        let node = init::add_member_directory(&layout.dir, id, address, StorageKind::Memory);
        node.unwrap().listen.to_string()
    };
    assert_eq!(listens(4, "db4.example.org:7400"), "0.0.0.0:7400");
    assert_eq!(listens(5, "[2001:db8::5]:7401"), "[::]:7401");
    assert_eq!(listens(6, "[::1]:7402"), "[::1]:7402");
    assert_eq!(listens(7, "localhost:7403"), "127.0.0.1:7403");
}

#[test]
fn what_is_needed_to_join_and_is_not_there_is_named() {
    let (directory, layout) = made();
    let add = |dir: &Path, id, address: &str| {
        let added = init::add_member_directory(dir, id, address, StorageKind::File);
        let error = added.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(!dir.join("node-4").exists());
        error.to_string()
    };
    let error = add(directory.path(), 4, "db4:7400");
    assert!(error.contains("no cluster in"), "{error}");
    let error = add(&layout.dir, 0, "db4:7400");
    assert!(error.contains("id is 0"), "{error}");
    let error = add(&layout.dir, 4, "db4");
    assert!(error.contains("\"db4\""), "{error}");
    let error = add(&layout.dir, 4, &format!("{}:7400", "d".repeat(255)));
    assert!(error.contains("at most 255 bytes"), "{error}");

    let stranger = tempfile::tempdir().unwrap();
    init::make_cluster(&plan(&stranger)).unwrap();
    let key = layout.dir.join("ca.key");
    std::fs::copy(stranger.path().join("cluster/ca.key"), &key).unwrap();
    let error = add(&layout.dir, 4, "db4:7400");
    assert!(
        error.contains("ca.key cannot sign for the cluster"),
        "{error}"
    );
    std::fs::remove_file(&key).unwrap();
    let error = add(&layout.dir, 4, "db4:7400");
    assert!(error.contains("ca.key is missing"), "{error}");
}

#[test]
fn a_lost_disk_is_replaced_under_a_new_incarnation() {
    let (_directory, layout) = made();
    let old = &layout.nodes[1];
    run_once(old);
    std::fs::remove_dir_all(&old.data).unwrap();
    std::fs::create_dir(&old.data).unwrap();
    edit(
        &old.path,
        "[[members]]",
        "[timing]\nheartbeat_ticks = 4\n\n[[members]]",
    );
    let certificate = std::fs::read(&old.certificates.certificate).unwrap();
    let node = init::replace_member_directory(&layout.dir, 2, &old.advertise).unwrap();
    assert_ne!(node.incarnation(), old.incarnation());
    assert!(node.members.is_empty());
    assert_eq!((&node.advertise, node.listen), (&old.advertise, old.listen));
    assert_eq!(
        node.timing.heartbeat_ticks, 4,
        "what was set by hand is kept"
    );
    let kept = std::fs::read(&node.certificates.certificate).unwrap();
    assert_eq!(kept, certificate, "the certificate survives");
    assert_eq!(open(&node).boot(), 0);

    // Until it has run, it may be replaced again: an attempt may have been interrupted.
    let again = init::replace_member_directory(&layout.dir, 2, "127.0.0.1:7999").unwrap();
    assert_ne!(again.incarnation(), node.incarnation());
    assert_eq!(again.listen.to_string(), "127.0.0.1:7999");
    open(&again);
}

#[test]
fn a_directory_that_is_gone_is_made_again() {
    let (_directory, layout) = made();
    let old = layout.nodes[2].clone();
    std::fs::remove_dir_all(layout.dir.join("node-3")).unwrap();
    let node = init::replace_member_directory(&layout.dir, 3, &old.advertise).unwrap();
    assert_ne!(node.incarnation(), old.incarnation());
    assert_eq!(role(&layout.dir.join("node-3"), "node").role, Role::Node(3));
    open(&node);
    // The key alone is gone.
    std::fs::remove_file(&node.certificates.key).unwrap();
    let node = init::replace_member_directory(&layout.dir, 3, &old.advertise).unwrap();
    assert_eq!(role(&layout.dir.join("node-3"), "node").role, Role::Node(3));
    open(&node);
}

#[test]
fn data_is_never_formatted_away() {
    let (_directory, layout) = made();
    let node = &layout.nodes[0];
    run_once(node);
    let before = std::fs::read_to_string(&node.path).unwrap();
    let replace = || {
        let replaced = init::replace_member_directory(&layout.dir, 1, &node.advertise);
        let error = replaced.unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    };
    let error = replace();
    assert!(error.contains("still holds data of node 1"), "{error}");
    assert_eq!(std::fs::read_to_string(&node.path).unwrap(), before);
    open(node);
    // Also not where only the identity is gone, or a process has it open.
    std::fs::rename(node.data.join("identity.toml"), layout.dir.join("aside")).unwrap();
    let error = replace();
    assert!(error.contains("has files, but no identity.toml"), "{error}");
    std::fs::rename(layout.dir.join("aside"), node.data.join("identity.toml")).unwrap();
    std::fs::remove_dir_all(node.data.join("wal")).unwrap();
    let lock = std::fs::File::open(node.data.join("lock")).unwrap();
    lock.lock().unwrap();
    let error = replace();
    assert!(error.contains("is locked"), "{error}");
    drop(lock);
    // A node whose log is gone has nothing to lose.
    init::replace_member_directory(&layout.dir, 1, &node.advertise).unwrap();
}

#[test]
fn the_directory_of_another_node_is_not_taken() {
    let (_directory, layout) = made();
    edit(
        &layout.dir.join("node-3/node.toml"),
        "\nid = 3\nlisten",
        "\nid = 2\nlisten",
    );
    let error = init::replace_member_directory(&layout.dir, 3, "127.0.0.1:7403");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("in its place node 2 of"), "{error}");
}

#[test]
fn a_cluster_that_has_grown_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&directory);
    init::make_cluster(&plan).unwrap();
    init::add_member_directory(&plan.dir, 4, "127.0.0.1:7404", StorageKind::Memory).unwrap();
    let found = init::load(&plan.dir).unwrap().unwrap();
    let mut grown = plan.clone();
    grown.nodes = found
        .nodes
        .iter()
        .map(|node| init::NodePlan::reached_at(node.id.0, &node.advertise).unwrap())
        .collect();
    let layout = init::load_or_make(&grown).unwrap();
    assert_eq!(
        layout.nodes[3].joined_as,
        Some(layout.nodes[3].incarnation())
    );
}

/// A cluster in memory has forgotten who joined: all nodes that are there make a new one.
#[test]
fn in_memory_all_nodes_begin_together() {
    let directory = tempfile::tempdir().unwrap();
    let mut plan = plan(&directory);
    plan.storage = StorageKind::Memory;
    plan.transport = TransportKind::Memory;
    init::make_cluster(&plan).unwrap();
    init::add_member_directory(&plan.dir, 4, "127.0.0.1:7404", StorageKind::Memory).unwrap();
    plan.nodes
        .push(init::NodePlan::reached_at(4, "127.0.0.1:7404").unwrap());
    let layout = init::load_or_make(&plan).unwrap();
    assert_eq!(layout.nodes.len(), 4);
    for node in &layout.nodes {
        assert_eq!(node.members.members().len(), 4);
        assert_eq!(node.joined_as, None);
        open(node);
    }
}
