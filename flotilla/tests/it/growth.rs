//! A cluster that grows and shrinks while it is written to and read.

use std::process::Stdio;

use crate::program::{Cluster, base_port, wait_until};
use crate::watched::Watched;

#[test]
fn a_cluster_grows_and_shrinks_under_load_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let port = base_port();
    let start = ["--nodes", "1", "--base-port", &port.to_string()];
    let mut cluster = Cluster::start_in(&at, &start);
    let watched = Watched::start(&cluster.dir);
    let mut bench = cluster
        .command([
            "bench",
            "--clients",
            "4",
            "--seconds",
            "600",
            "--op",
            "mixed",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");

    for id in 2..=5 {
        let address = format!("127.0.0.1:{}", port + id);
        let id = id.to_string();
        let added = cluster.run(["member", "add", &id, &address]).expect(0);
        assert!(added.contains("node.toml"), "{added}");
        cluster.run(["member", "promote", &id, "--wait"]).expect(0);
        let voters: Vec<u64> = (1..=id.parse().expect("a number")).collect();
        assert_eq!(cluster.members(), (voters, vec![]));
    }
    // The leader among them, and one that follows.
    let leader = cluster.leader();
    let follower = if leader == 4 { 5 } else { 4 };
    for id in [leader, follower] {
        cluster.run(["member", "remove", &id.to_string()]).expect(0);
        wait_until("the node to end", || {
            !at.join(format!("node-{id}/pid")).exists()
        });
    }
    bench.kill().expect("it runs");
    bench.wait().expect("it has ended");
    let seen = watched.finish();
    let left: Vec<u64> = (1..=5)
        .filter(|id| ![leader, follower].contains(id))
        .collect();
    assert_eq!(cluster.members(), (left.clone(), vec![]));

    // Who was removed is not started again, and everything is where it was.
    assert_eq!(cluster.terminate().code(), Some(0));
    let cluster = Cluster::start_in(&at, &[]);
    assert_eq!(cluster.members(), (left.clone(), vec![]));
    for id in 1..=5 {
        let runs = at.join(format!("node-{id}/pid")).exists();
        assert_eq!(runs, left.contains(&id), "node {id}");
    }
    seen.judge(&cluster.dir);
}
