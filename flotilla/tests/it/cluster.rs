//! How a cluster on this machine lives and ends.

use std::net::UdpSocket;

use rustix::process::Signal;

use crate::program::{Cluster, base_port, command, is_alive, run, wait_until};

#[test]
fn a_cluster_says_it_is_ready_and_keeps_its_data() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let port = base_port().to_string();
    let mut cluster = Cluster::start_in(&at, &["--base-port", &port]);
    let ready = cluster.ready.last().expect("lines").clone();
    let first: u16 = port.parse::<u16>().expect("a port") + 1;
    assert!(ready.starts_with("ready: leader node "), "{ready}");
    assert!(
        ready.contains(&format!("endpoints 127.0.0.1:{first},")),
        "{ready}"
    );
    assert!(!ready.contains("not durable"), "{ready}");
    cluster.read_until("flotilla put");
    cluster.read_until("3 of 3 nodes");
    cluster.run(["put", "kept", "yes"]).expect(0);
    let pids: Vec<i32> = (1..=3).map(|id| cluster.node_pid(id)).collect();
    assert_eq!(cluster.terminate().code(), Some(0));
    cluster.read_until("stopped");
    assert!(!pids.into_iter().any(is_alive));
    assert!(!at.join("node-1/pid").exists());
    // Nothing needs to be said again, and nothing else may be said.
    let in_dir = |options: &[&str]| {
        let mut command = command(["cluster", "--dir"]);
        let output = command.arg(&at).args(options).output();
        let output = output.expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    };
    assert!(in_dir(&["--nodes", "5"]).contains('5'));
    in_dir(&["--base-port", "9000"]);
    in_dir(&["--storage", "memory"]);
    let cluster = Cluster::start_in(&at, &[]);
    assert_eq!(cluster.run(["get", "kept"]).stdout, b"yes");
    // One supervisor and one process per node, at a time.
    assert!(in_dir(&[]).contains("another"));
    let config = at.join("node-1/node.toml");
    let locked = run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
    locked.expect(2);
}

#[test]
fn a_node_that_was_killed_is_started_again() {
    let cluster = Cluster::start(&[]);
    let before = cluster.node_pid(2);
    cluster.signal_node(2, Signal::KILL);
    cluster.read_until("node 2 was ended by signal 9; it is started again");
    wait_until("another process", || {
        let path = cluster.dir.join("node-2/pid");
        let pid = std::fs::read_to_string(path).ok();
        pid.and_then(|pid| pid.trim().parse().ok())
            .is_some_and(|pid: i32| pid != before)
    });
    wait_until("all reachable", || {
        let status = cluster.run(["status", "--json"]).json();
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        nodes.iter().all(|node| node["reachable"] == true)
    });
    // Asked to end, it has a reason, and stays ended.
    cluster.signal_node(2, Signal::TERM);
    cluster.read_until("node 2 ended with exit code 0; it is not started again");
}

#[test]
fn without_a_quorum_nothing_is_written_and_the_status_is_told() {
    let cluster = Cluster::start(&["--no-restart"]);
    cluster.run(["put", "k", "v"]).expect(0);
    cluster.signal_node(1, Signal::KILL);
    cluster.read_until("node 1 was ended by signal 9; it is not started again");
    // Two of three go on.
    cluster.run(["put", "k", "w"]).expect(0);
    cluster.signal_node(2, Signal::KILL);
    cluster.read_until("node 2 was ended by signal 9; it is not started again");
    cluster.shorten_patience(1500);
    cluster.run(["get", "k"]).expect_error(3);
    let code = cluster.run(["put", "k", "x"]).code;
    assert!(code == 3 || code == 4, "{code}");
    assert_eq!(cluster.run(["get", "k", "--stale"]).stdout, b"w");
    let status = cluster.run(["status", "--json"]).json();
    let reachable = |index: usize| status["nodes"][index]["reachable"].as_bool();
    let all = [reachable(0), reachable(1), reachable(2)];
    assert_eq!(all, [Some(false), Some(false), Some(true)]);
}

#[test]
fn nodes_end_with_their_supervisor_also_when_it_is_killed() {
    let mut cluster = Cluster::start(&[]);
    let pids: Vec<i32> = (1..=3).map(|id| cluster.node_pid(id)).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    cluster.kill_supervisor();
    wait_until("the nodes to end", || {
        !pids.iter().any(|pid| is_alive(*pid))
    });
    // Nothing is left that keeps the next run from starting.
    drop(Cluster::start_in(&cluster.dir.clone(), &[]));
}

#[test]
fn a_port_that_is_taken_is_told_and_nothing_is_left_running() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let base = base_port();
    let taken = UdpSocket::bind(("127.0.0.1", base + 2)).expect("it was free");
    let output = command(["cluster", "--dir"])
        .arg(&at)
        .args(["--base-port", &base.to_string()])
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(&(base + 2).to_string()), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!stdout.contains("ready"), "{stdout}");
    for id in 1..=3 {
        assert!(!at.join(format!("node-{id}/pid")).exists());
    }
    drop(taken);
    drop(Cluster::start_in(&at, &[]));
}

#[test]
fn a_node_without_a_disk_is_never_started_again() {
    let mut cluster = Cluster::start(&["--storage", "memory"]);
    let ready = cluster.ready.last().expect("lines");
    assert!(ready.ends_with(", not durable"), "{ready}");
    cluster.run(["put", "k", "v"]).expect(0);
    cluster.signal_node(3, Signal::KILL);
    cluster.read_until("node 3 was ended by signal 9; it is not started again");
    cluster.run(["put", "k", "w"]).expect(0);
    // The next run knows nothing of this one.
    assert_eq!(cluster.terminate().code(), Some(0));
    let again = Cluster::start_in(&cluster.dir.clone(), &[]);
    again.run(["get", "k"]).expect_error(1);
}

#[cfg(not(feature = "rocksdb"))]
#[test]
fn storage_that_is_not_built_in_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let output = command(["cluster", "--storage", "rocksdb", "--dir"])
        .arg(&at)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(!at.join("client.toml").exists());
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("thesis.txt"), "").expect("written");
    let run = run(["cluster".as_ref(), "--dir".as_ref(), dir.path().as_os_str()]);
    let line = run.expect_error(2);
    assert!(
        line.contains("thesis.txt") && line.contains("not empty"),
        "{line}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
}
