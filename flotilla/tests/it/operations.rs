//! The cases of `docs/operations.md`, *What is on the disk*, step by step. A torn tail is in
//! `check`, a full disk in `disks`, a failed sync in `scripts/storage-faults.sh`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::Signal;

use crate::program::{Cluster, Run, base_port, run, wait_until};

/// A cluster that starts nobody again, with one key.
fn cluster() -> Cluster {
    let cluster = Cluster::start(&["--no-restart"]);
    cluster.run(["put", "k", "v"]).expect(0);
    cluster
}

fn kill(cluster: &Cluster, id: u64) {
    cluster.signal_node(id, Signal::KILL);
    cluster.read_until(&format!("node {id} was ended by signal 9"));
}

fn serve(node: &Path) -> Run {
    let config = node.join("node.toml");
    run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
}

/// Moves the data away, and lets the node come back as a new member that counts.
fn replace(cluster: &Cluster, id: u64) {
    let data = cluster.dir.join(format!("node-{id}/data"));
    fs::rename(&data, cluster.dir.join(format!("kept-{id}"))).expect("moved");
    let id = id.to_string();
    cluster.run(["member", "replace", &id]).expect(0);
    cluster.run(["member", "promote", &id, "--wait"]).expect(0);
    assert_eq!(cluster.members(), (vec![1, 2, 3], vec![]));
}

/// Without another node, the two that are left are a majority.
fn assert_counts(cluster: &Cluster, id: u64) {
    kill(cluster, id % 3 + 1);
    cluster.run(["put", "k", "w"]).expect(0);
    assert_eq!(cluster.run(["get", "k"]).stdout, b"w");
}

#[test]
fn a_disk_that_is_damaged_beyond_repair_is_replaced() {
    let cluster = cluster();
    kill(&cluster, 2);
    let node = cluster.dir.join("node-2");
    let segment = node.join("data/wal/00000000000000000001.wal");
    // All that the segment begins with: who it belongs to, term and vote.
    let file = File::options().write(true).open(&segment).expect("opened");
    file.write_all_at(&[0x55; 8192], 0).expect("written");
    let checked = run(["check".as_ref(), node.as_os_str()]);
    let told = checked.expect(1);
    assert!(
        told.contains("lost disk") && told.contains("member replace 2"),
        "{told}"
    );
    let refused = serve(&node);
    refused.expect(70);
    assert!(
        refused.stderr.contains("00000000000000000001.wal"),
        "{}",
        refused.stderr
    );
    replace(&cluster, 2);
    assert_counts(&cluster, 2);
}

#[test]
fn the_wrong_directory_is_told_and_the_right_one_put_back() {
    let cluster = cluster();
    kill(&cluster, 2);
    kill(&cluster, 3);
    let data = |id: u64| cluster.dir.join(format!("node-{id}/data"));
    let aside = cluster.dir.join("aside");
    fs::rename(data(2), &aside).expect("moved");
    fs::rename(data(3), data(2)).expect("moved");
    let node = cluster.dir.join("node-2");
    for refused in [serve(&node), run(["check".as_ref(), node.as_os_str()])] {
        refused.expect(2);
        assert!(
            refused.stderr.contains("belongs to node 3"),
            "{}",
            refused.stderr
        );
    }
    fs::rename(data(2), data(3)).expect("moved");
    fs::rename(&aside, data(2)).expect("moved");
    for id in [2, 3] {
        run([
            "check".as_ref(),
            cluster.dir.join(format!("node-{id}")).as_os_str(),
        ])
        .expect(0);
    }
}

#[test]
fn an_old_copy_that_was_put_back_is_replaced() {
    let cluster = cluster();
    kill(&cluster, 2);
    // What is there now, is later an old copy.
    cluster.run(["put", "later", "yes"]).expect(0);
    let node = cluster.dir.join("node-2");
    let checked = run(["check".as_ref(), node.as_os_str()]).expect(0);
    assert!(checked.contains("clean"), "it cannot be seen: {checked}");
    replace(&cluster, 2);
    assert_counts(&cluster, 2);
    assert_eq!(cluster.run(["get", "later"]).stdout, b"yes");
}

#[test]
fn when_a_majority_is_lost_a_backup_is_restored() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = cluster();
    let backup = dir.path().join("backup.flotilla");
    let backup = backup.to_str().expect("text");
    cluster.run(["snapshot", "save", backup]).expect(0);
    cluster.run(["put", "after", "the backup"]).expect(0);
    wait_until("node 3 to have it", || {
        let status = cluster.run(["status", "--json"]).json();
        let applied = |node: usize| status["nodes"][node]["applied"].as_u64();
        applied(0) == applied(2) && applied(1) == applied(2)
    });
    for id in [1, 2] {
        kill(&cluster, id);
        fs::remove_dir_all(cluster.dir.join(format!("node-{id}/data"))).expect("removed");
    }
    // Nothing can be decided any more; what the last one had can be read.
    cluster.shorten_patience(1500);
    cluster.run(["get", "k"]).expect_error(3);
    cluster.run(["member", "replace", "1"]).expect_error(3);
    assert_eq!(
        cluster.run(["get", "after", "--stale"]).stdout,
        b"the backup"
    );
    assert_eq!(cluster.terminate().code(), Some(0));

    run(["snapshot", "verify", backup]).expect(0);
    let at = dir.path().join("restored");
    let (port, to) = (base_port().to_string(), at.to_str().expect("text"));
    let restore = [
        "snapshot",
        "restore",
        backup,
        "--dir",
        to,
        "--base-port",
        &port,
    ];
    run(restore).expect(0);
    let restored = Cluster::start_in(&at, &[]);
    assert_eq!(restored.run(["get", "k"]).stdout, b"v");
    restored.run(["get", "after"]).expect(1);
}
