//! Clusters whose nodes keep their state in RocksDB: killed, stopped, backed up, and beside nodes
//! that keep it in memory; and what is refused.

use crate::program::command;
#[cfg(not(feature = "rocksdb"))]
use crate::program::run;

#[cfg(not(feature = "rocksdb"))]
#[test]
fn a_state_that_is_not_built_in_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let output = command(["cluster", "--state", "rocksdb", "--dir"])
        .arg(&at)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("--features rocksdb"), "{told}");
    assert!(!at.join("client.toml").exists());
    run(["demo", "--state", "rocksdb"]).expect_error(2);
}

#[test]
fn a_log_that_forgets_is_not_put_under_a_state_that_does_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let output = command(["init", "--storage", "memory", "--state", "rocksdb"])
        .args(["--nodes", "127.0.0.1:7400"])
        .arg(&at)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("the state is rocksdb"), "{told}");
    assert!(!at.join("client.toml").exists());
}

#[cfg(feature = "rocksdb")]
mod built_in {
    use std::path::{Path, PathBuf};

    use rustix::process::Signal;

    use crate::program::{Cluster, base_port, run, wait_until};

    fn text(path: &Path) -> &str {
        path.to_str().expect("text")
    }

    fn applied(cluster: &Cluster) -> Vec<(u64, bool, u64)> {
        let status = cluster.run(["status", "--json"]).json();
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        let number = |node: &serde_json::Value, key: &str| node[key].as_u64().unwrap_or(0);
        let node = |node: &serde_json::Value| {
            let reachable = node["reachable"].as_bool().unwrap_or(false);
            (number(node, "id"), reachable, number(node, "applied"))
        };
        nodes.iter().map(node).collect()
    }

    fn wait_until_level(cluster: &Cluster) {
        wait_until("all nodes have applied the same", || {
            let nodes = applied(cluster);
            let newest = nodes.iter().map(|(_, _, applied)| *applied).max();
            nodes
                .iter()
                .all(|(_, up, applied)| *up && Some(*applied) == newest)
        });
    }

    #[test]
    fn killed_and_stopped_nodes_go_on_from_what_the_disk_has_kept() {
        let mut cluster = Cluster::start(&["--state", "rocksdb"]);
        for number in 0..30 {
            let (key, value) = (format!("k{number:02}"), format!("{number}"));
            cluster.run(["put", &key, &value]).expect(0);
        }
        for id in 1..=3 {
            cluster.signal_node(id, Signal::KILL);
            cluster.read_until(&format!("node {id} was ended by signal 9"));
            // It comes back before the next one goes.
            wait_until_level(&cluster);
            cluster.run(["append", "k00", "+"]).expect(0);
        }
        wait_until_level(&cluster);
        assert_eq!(cluster.run(["get", "k00"]).stdout, b"0+++");
        assert_eq!(cluster.terminate().code(), Some(0));
        for id in 1..=3 {
            let state = cluster.dir.join(format!("node-{id}/data/state"));
            assert!(state.join("current").exists(), "node {id}");
            let identity = cluster.dir.join(format!("node-{id}/data/identity.toml"));
            let identity = std::fs::read_to_string(identity).expect("there");
            assert!(identity.contains("state = \"rocksdb\""), "{identity}");
        }
        let again = Cluster::start_in(&cluster.dir.clone(), &[]);
        let keys = again.run(["scan", "--keys-only"]).expect(0);
        assert_eq!(keys.lines().count(), 30);
        assert_eq!(again.run(["get", "k00"]).stdout, b"0+++");
        assert_eq!(again.run(["get", "k29", "--revision", "30"]).stdout, b"29");
        drop(again);
        // What it was made with it stays.
        let dir = text(&cluster.dir);
        let other = run(["cluster", "--state", "memory", "--dir", dir]);
        assert!(other.expect_error(2).contains("state rocksdb, not memory"));
        let node = cluster.dir.join("node-1/node.toml");
        let other = run(["serve", "--state", "memory", "--config", text(&node)]);
        assert!(other.expect_error(2).contains("member replace 1"));
    }

    /// What `check` says of a node, with this exit code; it changes nothing.
    fn report(node: &Path, code: i32) -> serde_json::Value {
        let checked = run(["check", text(node), "--json"]);
        checked.expect(code);
        serde_json::from_slice(&checked.stdout).expect("one object")
    }

    fn largest_table(node: &Path) -> PathBuf {
        let files = std::fs::read_dir(node.join("data/state/gen-1")).expect("listed");
        let tables = files.map(|file| file.expect("listed").path());
        let tables = tables.filter(|path| path.extension().is_some_and(|end| end == "sst"));
        let bytes = |path: &PathBuf| std::fs::metadata(path).expect("there").len();
        tables.max_by_key(bytes).expect("it was flushed")
    }

    #[test]
    fn a_damaged_state_is_told_and_made_again_from_snapshot_and_log() {
        let mut cluster = Cluster::start(&["--nodes", "1", "--state", "rocksdb"]);
        for number in 0..20 {
            cluster.run(["put", &format!("k{number}"), "v"]).expect(0);
        }
        let told = cluster.run(["status", "--json"]).json();
        assert_eq!(told["nodes"][0]["state"], "rocksdb");
        assert_eq!(told["nodes"][0]["storage"], "file");
        assert!(cluster.run(["status"]).expect(0).contains("STATE"));
        assert_eq!(cluster.terminate().code(), Some(0));
        let node = cluster.dir.join("node-1");
        let whole = report(&node, 0);
        let state = &whole["state"];
        assert_eq!(
            (&state["kind"], &state["keys"]),
            (&"rocksdb".into(), &20.into())
        );
        assert_eq!(state["revision"], 20);
        assert!(state["applied_index"].as_u64() >= Some(20), "{state:#}");
        assert!(state["applied_index"].as_u64() <= whole["last_index"].as_u64());
        assert!(state["records"].as_u64() > Some(20), "{state:#}");

        // Every byte of the blocks counts: of the first keys, and of the last ones.
        let table = largest_table(&node);
        let good = std::fs::read(&table).expect("read");
        for place in [10, good.len() / 4] {
            let mut bad = good.clone();
            bad[place] ^= 0x10;
            std::fs::write(&table, &bad).expect("written");
            let damaged = report(&node, 1);
            assert_eq!(
                damaged["findings"][0]["meaning"], "remake-state",
                "{damaged:#}"
            );
            assert_eq!(
                std::fs::read(&table).expect("read"),
                bad,
                "nothing was changed"
            );
        }
        std::fs::rename(node.join("data/state"), node.join("damaged")).expect("moved");
        let again = report(&node, 0);
        assert!(again["state"]["applied_index"].is_null(), "{again:#}");
        let mut cluster = Cluster::start_in(&cluster.dir.clone(), &[]);
        assert_eq!(cluster.run(["get", "k19"]).stdout, b"v");
        assert_eq!(cluster.terminate().code(), Some(0));
        assert_eq!(report(&node, 0)["state"]["keys"], 20);
    }

    /// A state is never ahead of its log, but for one that says what it lost.
    #[test]
    fn a_state_beyond_its_log_is_told() {
        let mut cluster = Cluster::start(&["--nodes", "1", "--state", "rocksdb"]);
        cluster.run(["put", "k", "1"]).expect(0);
        assert_eq!(cluster.terminate().code(), Some(0));
        let node = cluster.dir.join("node-1");
        let older = node.join("older");
        std::fs::rename(node.join("data/wal"), &older).expect("moved");
        let copied = std::process::Command::new("cp")
            .args(["-a", text(&older), text(&node.join("data/wal"))])
            .status();
        assert!(copied.expect("cp starts").success());
        let mut cluster = Cluster::start_in(&cluster.dir.clone(), &[]);
        cluster.run(["put", "k", "2"]).expect(0);
        assert_eq!(cluster.terminate().code(), Some(0));
        std::fs::remove_dir_all(node.join("data/wal")).expect("removed");
        std::fs::rename(&older, node.join("data/wal")).expect("moved");
        let ahead = report(&node, 1);
        let what = ahead["findings"][0]["what"].as_str().expect("words");
        assert!(what.contains("log and snapshot end with"), "{ahead:#}");
    }

    /// Backups go from each kind to each kind.
    #[test]
    fn a_backup_of_one_kind_begins_a_cluster_of_the_other() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut at = dir.path().join("made");
        let mut kind = "memory";
        let first = Cluster::start_in(&at, &["--nodes", "1", "--state", kind]);
        for number in 0..20 {
            first.run(["put", &format!("k{number}"), "value"]).expect(0);
        }
        first.run(["put", "k0", "newer"]).expect(0);
        let mut cluster = first;
        for (round, next) in ["rocksdb", "rocksdb", "memory"].into_iter().enumerate() {
            let file = dir.path().join(format!("backup-{round}"));
            cluster.run(["snapshot", "save", text(&file)]).expect(0);
            run(["snapshot", "verify", text(&file)]).expect(0);
            drop(cluster);
            at = dir.path().join(format!("restored-{round}"));
            let port = base_port().to_string();
            let restored = run([
                "snapshot",
                "restore",
                text(&file),
                "--dir",
                text(&at),
                "--nodes",
                "1",
                "--base-port",
                &port,
                "--state",
                next,
            ]);
            restored.expect(0);
            cluster = Cluster::start_in(&at, &[]);
            let keys = cluster.run(["scan", "--keys-only"]).expect(0);
            assert_eq!(keys.lines().count(), 20, "{kind} to {next}");
            assert_eq!(cluster.run(["get", "k0"]).stdout, b"newer");
            assert_eq!(
                cluster.run(["get", "k0", "--revision", "20"]).stdout,
                b"value"
            );
            kind = next;
        }
        // A damaged one is refused, and nothing is made.
        let file = dir.path().join("backup-1");
        let mut bytes = std::fs::read(&file).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let damaged = dir.path().join("damaged");
        std::fs::write(&damaged, bytes).expect("written");
        let at = dir.path().join("nothing");
        let refused = run(["snapshot", "restore", text(&damaged), "--dir", text(&at)]);
        refused.expect_error(2);
        assert!(!at.join("client.toml").exists());
    }
}
