//! Backups: saved while the cluster is written to, checked, restored, and refused where they are
//! damaged.

use std::path::{Path, PathBuf};

use crate::program::{Cluster, base_port, run};

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A cluster with something in it, and a snapshot of it.
fn saved(dir: &Path) -> (Cluster, PathBuf) {
    let cluster = Cluster::start(&["--nodes", "1"]);
    for number in 0..20 {
        let key = format!("k{number}");
        cluster.run(["put", &key, "value"]).expect(0);
    }
    let file = dir.join("backup.flotilla");
    cluster.run(["snapshot", "save", text(&file)]).expect(0);
    (cluster, file)
}

#[test]
fn a_saved_snapshot_becomes_a_new_cluster() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cluster, file) = saved(dir.path());
    cluster.run(["put", "k0", "later"]).expect(0);
    let verified = run(["snapshot", "verify", text(&file), "--json"]).json();
    assert_eq!(
        verified["cluster_id"],
        cluster.run(["status", "--json"]).json()["cluster_id"]
    );
    assert!(verified["bytes"].as_u64() > Some(20), "{verified}");
    // What is there is not written over by accident.
    let before = std::fs::read(&file).expect("there");
    let again = cluster.run(["snapshot", "save", text(&file)]);
    assert!(again.expect_error(2).contains("--force"));
    assert_eq!(std::fs::read(&file).expect("there"), before);
    let other = dir.path().join("other");
    std::fs::write(&other, "old").expect("written");
    cluster
        .run(["snapshot", "save", text(&other), "--force"])
        .expect(0);
    run(["snapshot", "verify", text(&other)]).expect(0);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2);

    let at = dir.path().join("restored");
    let port = base_port().to_string();
    let options = ["--nodes", "3", "--base-port", &port];
    let restore = ["snapshot", "restore", text(&file), "--dir", text(&at)];
    let told = run(restore.iter().chain(&options)).expect(0);
    assert!(told.contains("flotilla cluster --dir"), "{told}");
    let twice = run(restore.iter().chain(&options));
    twice.expect_error(2);
    let restored = Cluster::start_in(&at, &[]);
    assert_eq!(restored.members(), (vec![1, 2, 3], vec![]));
    let keys = restored.run(["scan", "--keys-only"]).expect(0);
    assert_eq!(keys.lines().count(), 20);
    assert_eq!(restored.run(["get", "k0"]).stdout, b"value");
    restored.run(["put", "k0", "newer"]).expect(0);
    // Another cluster: neither is taken for the other.
    let id = |cluster: &Cluster| cluster.run(["status", "--json"]).json()["cluster_id"].clone();
    assert_ne!(id(&restored), id(&cluster));
    assert_eq!(cluster.run(["get", "k0"]).stdout, b"later");
}

#[test]
fn damaged_and_foreign_files_are_told_and_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_cluster, file) = saved(dir.path());
    let whole = std::fs::read(&file).expect("there");
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut longer = whole.clone();
    longer.extend_from_slice(b"more");
    let files: [(&str, &[u8]); 5] = [
        ("flipped", &flipped),
        ("short", &whole[..whole.len() - 1]),
        ("longer", &longer),
        ("empty", b""),
        (
            "foreign",
            b"PK\x03\x04 something else altogether, and long enough to have a head",
        ),
    ];
    let at = dir.path().join("restored");
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let verified = run(["snapshot", "verify", text(&path)]);
        assert!(
            verified.expect_error(1).contains(name),
            "{}",
            verified.stderr
        );
        let restored = run(["snapshot", "restore", text(&path), "--dir", text(&at)]);
        assert!(
            restored.expect_error(2).contains(name),
            "{}",
            restored.stderr
        );
        assert!(!at.exists(), "{name}");
    }
    let missing = run(["snapshot", "verify", text(&dir.path().join("none"))]);
    assert!(
        missing.expect_error(2).contains("none"),
        "{}",
        missing.stderr
    );
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(&["--nodes", "1"]);
    let nowhere = dir.path().join("no/such/folder/file");
    let run = cluster.run(["snapshot", "save", text(&nowhere)]);
    assert!(
        run.expect_error(2).contains("no/such/folder"),
        "{}",
        run.stderr
    );
    let folder = cluster.run(["snapshot", "save", text(dir.path()), "--force"]);
    folder.expect_error(2);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
}
