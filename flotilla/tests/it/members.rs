//! What operators do to the members of a cluster, and what they must not.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::program::{Cluster, base_port, run, wait_until};

/// Nobody is there, and nobody starts it: the address is of another machine.
const ELSEWHERE: &str = "db4.example.invalid:7400";

#[test]
fn changes_that_make_no_sense_are_refused_and_change_nothing() {
    let cluster = Cluster::start(&["--nodes", "1"]);
    cluster.run(["put", "k", "v"]).expect(0);
    let refused = |words: &str, told: &str| {
        let run = cluster.run(words.split(' '));
        let line = run.expect_error(5);
        assert!(line.contains(told), "{words}: {line}");
    };
    refused("member remove 1", "at least one voter");
    refused("member remove 9", "node 9 is not a member");
    refused("member promote 9", "node 9 is not a member");
    refused("member promote 1", "node 1 is a voter already");
    refused("member add 1 127.0.0.1:1", "node 1 is already a member");
    refused("member replace 9 127.0.0.1:1", "node 9 is not a member");
    refused("transfer-leader 9", "node 9 is not a voter");
    let line = cluster.run(["member", "add", "2", "nowhere"]);
    assert!(line.expect_error(2).contains("host:port"));
    assert_eq!(cluster.members(), (vec![1], vec![]));
    assert!(!cluster.dir.join("node-2").exists() && !cluster.dir.join("node-9").exists());
    assert_eq!(cluster.run(["get", "k"]).stdout, b"v");
}

#[test]
fn a_learner_that_lags_is_not_promoted() {
    let cluster = Cluster::start(&["--nodes", "1"]);
    cluster.run(["put", "k", "v"]).expect(0);
    let added = cluster.run(["member", "add", "4", ELSEWHERE]).expect(0);
    assert!(added.contains("flotilla serve --config"), "{added}");
    assert_eq!(cluster.members(), (vec![1], vec![4]));
    let promoted = cluster.run(["member", "promote", "4"]);
    let line = promoted.expect_error(5);
    assert!(
        line.contains("node 4") && line.contains("caught up"),
        "{line}"
    );
    let leader = cluster.run(["transfer-leader", "4"]);
    assert!(leader.expect_error(5).contains("not a voter"));
    assert_eq!(cluster.members(), (vec![1], vec![4]));
    // It does not count, so that it is not there hurts nobody.
    cluster.run(["put", "k", "w"]).expect(0);
    let status = cluster.run(["status", "--json"]).json();
    let nodes = status["nodes"].as_array().expect("nodes").clone();
    let learner = nodes.iter().find(|node| node["id"] == 4).expect("listed");
    assert_eq!(
        (&learner["role"], &learner["reachable"]),
        (&"learner".into(), &false.into())
    );
    cluster.run(["member", "remove", "4"]).expect(0);
    assert_eq!(cluster.members(), (vec![1], vec![]));
}

#[test]
fn of_changes_at_the_same_time_each_is_done_or_refused() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    for id in 4..8 {
        let (id, address) = (id.to_string(), format!("db{id}.example.invalid:7400"));
        cluster.run(["member", "add", &id, &address]).expect(0);
    }
    let taken = cluster.run(["member", "add", "8", ELSEWHERE]);
    assert!(
        taken.expect_error(5).contains(ELSEWHERE),
        "{}",
        taken.stderr
    );
    assert!(!cluster.dir.join("node-8").exists());
    assert_eq!(cluster.members(), (vec![1, 2, 3], vec![4, 5, 6, 7]));
    let children = (4..8).map(|id: u64| {
        let mut command = cluster.command(["member", "remove", &id.to_string()]);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().expect("it starts")
    });
    let children: Vec<_> = children.collect();
    let mut left = Vec::new();
    for (child, id) in children.into_iter().zip(4..) {
        let output = child.wait_with_output().expect("it ends");
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(5), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.contains("under way"), "{stderr}");
            left.push(id);
        }
    }
    assert!(left.len() < 4, "one at least was done");
    assert_eq!(cluster.members(), (vec![1, 2, 3], left));
}

#[test]
fn a_second_change_is_refused_while_the_first_is_under_way() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (at, port) = (dir.path().join("cluster"), base_port());
    let address = |id: u16| format!("127.0.0.1:{}", port + id);
    let nodes = [1, 2, 3].map(address).join(",");
    let made = ["init".as_ref(), at.as_os_str(), "--nodes".as_ref()];
    run(made.into_iter().chain([nodes.as_ref()])).expect(0);
    // A leader that hears nobody goes on for three seconds: time enough to be asked twice.
    for id in 1..=3 {
        let path = at.join(format!("node-{id}/node.toml"));
        let text = std::fs::read_to_string(&path).expect("made");
        let timing = "[timing]\nelection_ticks_min = 300\nelection_ticks_max = 400\n\n[[members]]";
        std::fs::write(&path, text.replacen("[[members]]", timing, 1)).expect("written");
    }
    let cluster = Cluster::start_in(&at, &[]);
    for id in [4, 5] {
        let added = ["member", "add", &id.to_string(), &address(id)];
        cluster.run(added).expect(0);
    }
    wait_until("learners that have caught up", || {
        let status = cluster.run(["status", "--json"]).json();
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        let last = |node: &serde_json::Value| node["last_index"].as_u64();
        nodes.len() == 5 && nodes.iter().all(|node| last(node) == last(&nodes[0]))
    });
    let leader = cluster.leader();
    let followers = (1..=3).filter(|id| *id != leader);
    let followers: Vec<u64> = followers.collect();
    cluster.shorten_patience(10_000);
    for id in &followers {
        cluster.signal_node(*id, Signal::STOP);
    }
    // Without them the first one cannot be completed, and the second one comes too early.
    let changes = ["4", "5"].map(|id| {
        let mut command = cluster.command(["member", "promote", id]);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().expect("it starts")
    });
    let mut outputs = changes.map(|child| child.wait_with_output().expect("it ends"));
    for id in &followers {
        cluster.signal_node(*id, Signal::CONT);
    }
    outputs.sort_by_key(|run| run.status.code() != Some(5));
    let told = outputs.map(|run| String::from_utf8_lossy(&run.stderr).into_owned());
    assert_eq!(told[0].lines().count(), 1, "{told:?}");
    let wanted = "another change of membership is under way";
    assert!(told[0].contains(wanted), "{told:?}");
    // Nothing is harmed, whatever becomes of the first.
    wait_until("a cluster that goes on", || {
        cluster.run(["put", "k", "v"]).code == 0
    });
    let (voters, learners) = cluster.members();
    assert_eq!(voters.len() + learners.len(), 5);
    assert!([1, 2, 3].iter().all(|id| voters.contains(id)));
}

#[test]
fn leadership_goes_to_who_is_there_and_to_nobody_else() {
    let cluster = Cluster::start(&["--no-restart"]);
    let before = cluster.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != before).collect();
    let (to, dead) = (others[0], others[1]);
    let told = cluster.run(["transfer-leader", &to.to_string()]).expect(0);
    assert_eq!(told, format!("node {to} leads\n"));
    assert_eq!(cluster.leader(), to);
    cluster.signal_node(dead, Signal::KILL);
    cluster.read_until("it is not started again");
    let run = cluster.run(["transfer-leader", &dead.to_string()]);
    assert!(run.code == 3 || run.code == 5, "{}", run.stderr);
    let line = run.expect_error(run.code);
    assert!(line.contains(&format!("node {dead}")), "{line}");
    cluster.run(["put", "k", "v"]).expect(0);
    assert_eq!(cluster.leader(), to);
}

#[test]
fn a_node_whose_disk_was_lost_is_replaced() {
    let cluster = Cluster::start(&["--no-restart"]);
    cluster.run(["put", "k", "v"]).expect(0);
    cluster.signal_node(2, Signal::KILL);
    cluster.read_until("node 2 was ended by signal 9; it is not started again");
    // Its data is there: it is not the one to be replaced.
    cluster.run(["member", "replace", "2"]).expect_error(2);
    let node = cluster.dir.join("node-2");
    std::fs::remove_dir_all(node.join("data")).expect("removed");
    std::fs::create_dir(node.join("data")).expect("made");
    // It cannot come back as if nothing had happened, and is told how it can.
    let config = node.join("node.toml");
    let serve = |config: &Path| run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let again = serve(&config);
    again.expect(2);
    assert!(
        again.stderr.contains("flotilla member replace 2"),
        "{}",
        again.stderr
    );
    assert_eq!(cluster.members(), (vec![1, 2, 3], vec![]));

    cluster.run(["member", "replace", "2"]).expect(0);
    assert_eq!(cluster.members(), (vec![1, 3], vec![2]));
    cluster.read_until("node 2 started");
    cluster.run(["member", "promote", "2", "--wait"]).expect(0);
    assert_eq!(cluster.members(), (vec![1, 2, 3], vec![]));
    // It is a member like any other: without one of the others, it makes the majority.
    cluster.signal_node(3, Signal::KILL);
    cluster.run(["put", "k", "w"]).expect(0);
    assert_eq!(cluster.run(["get", "k"]).stdout, b"w");
}

/// The address that a local cluster gives to a node.
fn port_of(base: &str, id: u16) -> String {
    let base: u16 = base.parse().expect("a port");
    format!("127.0.0.1:{}", base + id)
}

#[test]
fn who_was_removed_stops_and_is_not_started_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let port = base_port().to_string();
    let mut cluster = Cluster::start_in(&at, &["--base-port", &port]);
    cluster.run(["member", "remove", "3"]).expect(0);
    wait_until("node 3 to end", || !at.join("node-3/pid").exists());
    let config = at.join("node-3/node.toml");
    let serve = run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
    serve.expect(2);
    assert!(
        serve.stderr.contains("node 3 was removed"),
        "{}",
        serve.stderr
    );
    // Nor does it join again as what it was, at whatever address.
    for address in [port_of(&port, 3), port_of(&port, 9)] {
        let again = cluster.run(["member", "add", "3", &address]);
        let line = again.expect_error(2);
        assert!(
            line.contains("node-3") && line.contains("another id"),
            "{line}"
        );
    }
    assert_eq!(cluster.terminate().code(), Some(0));
    let cluster = Cluster::start_in(&at, &[]);
    assert_eq!(cluster.members(), (vec![1, 2], vec![]));
    assert!(!at.join("node-3/pid").exists());
    let status = cluster.run(["status", "--json"]).json();
    assert_eq!(
        status["nodes"].as_array().map(Vec::len),
        Some(2),
        "{status}"
    );
}

#[test]
fn clients_may_not_operate_the_cluster() {
    let cluster = Cluster::start(&["--nodes", "1"]);
    let client = cluster.dir.join("client.toml");
    for words in [
        "member list",
        "member remove 1",
        "transfer-leader 1",
        "snapshot save file",
    ] {
        let file = cluster.dir.join("file");
        let mut command = cluster.command(words.split(' '));
        let output = command
            .arg("-c")
            .arg(&client)
            .current_dir(&cluster.dir)
            .output();
        let output = output.expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{words}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!file.exists());
    }
}

#[test]
fn without_the_authority_no_node_is_made() {
    let cluster = Cluster::start(&["--nodes", "1"]);
    std::fs::remove_file(cluster.dir.join("ca.key")).expect("removed");
    let run = cluster.run(["member", "add", "2", "127.0.0.1:9"]);
    assert!(run.expect_error(2).contains("ca.key"), "{}", run.stderr);
    assert_eq!(cluster.members(), (vec![1], vec![]));
}
