//! What `flotilla check` says of directories that are whole, torn, damaged, and of somebody else,
//! and that it leaves them as they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{Cluster, Run, base_port, run, wait_until};

/// Every file below a directory, with its bytes.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let bytes = fs::read(&path).expect("read");
            found.insert(path, bytes);
        }
    }
    found
}

/// Checks a directory, which must be the same afterwards.
fn check(dir: &Path, options: &[&str]) -> Run {
    let before = tree(dir);
    let arguments = ["check".as_ref(), dir.as_os_str()];
    let options = options.iter().map(AsRef::as_ref);
    let checked = run(arguments.into_iter().chain(options));
    assert_eq!(tree(dir), before, "nothing was changed");
    checked
}

/// The report for programs, with this exit code.
fn report(dir: &Path, code: i32) -> Value {
    let checked = check(dir, &["--json"]);
    checked.expect(code);
    serde_json::from_slice(&checked.stdout).expect("one object")
}

/// A stopped cluster with a few keys, whose nodes take snapshots.
fn stopped(nodes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = dir.path().join("cluster");
    let (count, port) = (nodes.to_string(), base_port().to_string());
    let options = ["--nodes", &count, "--base-port", &port];
    assert_eq!(Cluster::start_in(&at, &options).terminate().code(), Some(0));
    for id in 1..=nodes {
        let config = at.join(format!("node-{id}/node.toml"));
        let text = fs::read_to_string(&config).expect("made");
        let settings = "[snapshots]\nentries = 20\nkept_bytes_max = 0\n";
        fs::write(&config, format!("{text}\n{settings}")).expect("written");
    }
    let mut cluster = Cluster::start_in(&at, &[]);
    let lines: String = (0..70)
        .map(|number| format!("{{\"key\":\"k{number}\",\"value\":\"v\"}}\n"))
        .collect();
    let file = dir.path().join("keys.ndjson");
    fs::write(&file, lines).expect("written");
    cluster.run(["import".as_ref(), file.as_os_str()]).expect(0);
    wait_until("a snapshot of every node", || {
        let status = cluster.run(["status", "--json"]).json();
        let taken = |node: &Value| node["snapshot_index"].as_u64() > Some(0);
        status["nodes"]
            .as_array()
            .is_some_and(|it| it.iter().all(taken))
    });
    assert_eq!(cluster.terminate().code(), Some(0));
    (dir, at)
}

/// The only finding of a report.
fn only_finding(report: &Value) -> &Value {
    let findings = report["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{report:#}");
    &findings[0]
}

/// The newest segment of a node, and where its records end.
fn newest_segment(node: &Path) -> (PathBuf, u64) {
    let report = report(node, 0);
    let files = report["files"].as_array().expect("files");
    let is_segment = |file: &&Value| file["kind"]["name"] == "segment";
    let newest = files.iter().rfind(is_segment).expect("a segment");
    let path = node
        .join("data")
        .join(newest["path"].as_str().expect("a path"));
    (path, newest["kind"]["used_bytes"].as_u64().expect("bytes"))
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("opened");
    file.write_all_at(bytes, offset).expect("written");
}

fn flip(path: &Path, offset: u64) {
    let at = usize::try_from(offset).expect("small");
    let byte = fs::read(path).expect("read")[at];
    overwrite(path, offset, &[byte ^ 0x10]);
}

#[test]
fn what_a_stopped_node_has_is_told() {
    let (_dir, at) = stopped(3);
    let node = at.join("node-1");
    let report = report(&node, 0);
    assert_eq!(
        (&report["node"], &report["clean"]),
        (&1.into(), &true.into())
    );
    assert_eq!(
        report["findings"].as_array().map(Vec::len),
        Some(0),
        "{report:#}"
    );
    let files = report["files"].as_array().expect("files");
    let kinds: Vec<&Value> = files.iter().map(|file| &file["kind"]["name"]).collect();
    assert!(kinds.contains(&&"spare".into()), "the reserve: {report:#}");
    assert!(
        !kinds.contains(&&"other".into()),
        "all files are ours: {report:#}"
    );
    assert_eq!(report["voters"], serde_json::json!([1, 2, 3]));
    assert_eq!(report["starts"], 2);
    let snapshot = report["snapshot"]["index"].as_u64().expect("a snapshot");
    let (start, last) = (
        report["start_index"].as_u64(),
        report["last_index"].as_u64(),
    );
    assert!(
        start <= Some(snapshot) && Some(snapshot) <= last && last >= Some(70),
        "{report:#}"
    );
    assert!(report["term"].as_u64() >= Some(1) && report["records"].as_u64() > Some(0));
    let config = fs::read_to_string(node.join("node.toml")).expect("made");
    let cluster = report["cluster_id"].as_str().expect("text");
    assert!(config.contains(cluster), "{cluster}");
    // The same for people, and for the data directory alone.
    let words = check(&node, &[]).expect(0);
    for told in [
        cluster,
        "node 1",
        "starts so far: 2",
        "00000000000000000001.wal",
        "\nclean",
    ] {
        assert!(words.contains(told), "{told} is not in {words}");
    }
    assert_eq!(check(&node.join("data"), &[]).expect(0), words);
}

#[test]
fn a_node_that_runs_is_not_looked_at() {
    let cluster = Cluster::start(&["--nodes", "1"]);
    let node = cluster.dir.join("node-1");
    let run = run(["check".as_ref(), node.as_os_str()]);
    assert!(run.expect_error(2).contains("locked"), "{}", run.stderr);
    cluster.run(["put", "k", "v"]).expect(0);
}

#[test]
fn a_torn_tail_is_told_and_is_no_damage() {
    let (_dir, at) = stopped(1);
    let node = at.join("node-1");
    let (segment, end) = newest_segment(&node);
    overwrite(&segment, end, &[7; 100]);
    let torn = report(&node, 0);
    assert_eq!(torn["clean"], true);
    let finding = only_finding(&torn);
    assert_eq!(finding["meaning"], "torn-tail", "{torn:#}");
    assert_eq!(finding["offset"], end);
    // It is what the node does at its next start, and a copy is left.
    let mut cluster = Cluster::start_in(&at, &[]);
    assert_eq!(cluster.run(["get", "k69"]).stdout, b"v");
    assert_eq!(cluster.terminate().code(), Some(0));
    let after = report(&node, 0);
    let files = after["files"].as_array().expect("files");
    assert!(
        files.iter().any(|file| file["kind"]["name"] == "torn-copy"),
        "{after:#}"
    );
}

#[test]
fn damage_is_told_with_its_place_and_what_it_means() {
    let others = ["refilled-by-leader", "lost-disk"].as_slice();
    for (nodes, meanings) in [(3, others), (1, ["restore-backup"].as_slice())] {
        let (_dir, at) = stopped(nodes);
        let node = at.join("node-1");
        let (segment, end) = newest_segment(&node);
        // In the first record, behind the header page, and in later ones.
        for place in [4096 + 60, 4096 + 200, (4096 + end) / 2] {
            flip(&segment, place);
            let damaged = report(&node, 1);
            assert_eq!(damaged["clean"], false);
            let finding = only_finding(&damaged);
            let meaning = finding["meaning"].as_str().expect("a word");
            assert!(meanings.contains(&meaning), "{damaged:#}");
            let offset = finding["offset"].as_u64().expect("a place");
            assert!((4096..=place).contains(&offset), "{offset} for {place}");
            let path = finding["path"].as_str().expect("a path");
            assert!(segment.ends_with(path), "{path}");
            let words = check(&node, &[]);
            let advice = finding["do"].as_str().expect("words");
            let shown = words.expect(1);
            assert!(
                shown.contains(advice) && shown.contains("not clean"),
                "{shown}"
            );
            assert!(words.stderr.contains(advice), "{}", words.stderr);
            flip(&segment, place);
        }
        report(&node, 0);
    }
}

#[test]
fn damage_that_the_leader_can_make_up_for_is_told_and_then_made_up_for() {
    let (_dir, at) = stopped(3);
    let node = at.join("node-1");
    // What the snapshot has need not be made up for.
    wait_until("entries that the snapshot does not have", || {
        let sound = report(&node, 0);
        let is_behind = sound["last_index"].as_u64() > sound["snapshot"]["index"].as_u64();
        if !is_behind {
            let mut cluster = Cluster::start_in(&at, &[]);
            cluster.run(["put", "one", "more"]).expect(0);
            assert_eq!(cluster.terminate().code(), Some(0));
        }
        is_behind
    });
    let (segment, end) = newest_segment(&node);
    flip(&segment, (4096 + end) / 2);
    let damaged = report(&node, 1);
    assert_eq!(
        only_finding(&damaged)["meaning"],
        "refilled-by-leader",
        "{damaged:#}"
    );
    assert!(damaged["refill_to"].as_u64() > Some(0) && damaged["term"].as_u64() > Some(0));
    // The verdict of the node is the same.
    let mut cluster = Cluster::start_in(&at, &[]);
    wait_until("node 1 to be whole", || {
        let status = cluster.run(["status", "--json"]).json();
        let applied = |node: usize| status["nodes"][node]["applied"].as_u64();
        applied(0) > Some(70) && applied(0) == applied(1) && applied(0) == applied(2)
    });
    assert_eq!(cluster.terminate().code(), Some(0));
    let whole = report(&node, 0);
    assert!(whole["refill_to"].is_null(), "{whole:#}");
    let files = whole["files"].as_array().expect("files");
    let is_aside = |file: &Value| file["kind"]["name"] == "damaged-copy";
    assert!(files.iter().any(is_aside), "{whole:#}");
}

#[test]
fn a_node_that_began_alone_is_refilled_once_it_has_peers() {
    let (dir, at) = stopped(1);
    let mut cluster = Cluster::start_in(&at, &[]);
    for id in ["2", "3"] {
        let address = format!("127.0.0.1:{}", base_port());
        cluster.run(["member", "add", id, &address]).expect(0);
        cluster.run(["member", "promote", id, "--wait"]).expect(0);
    }
    let first = |cluster: &Cluster| cluster.run(["status", "--json"]).json()["nodes"][0].clone();
    let grown = first(&cluster)["last_index"].as_u64();
    let file = dir.path().join("keys.ndjson");
    cluster.run(["import".as_ref(), file.as_os_str()]).expect(0);
    wait_until("a snapshot with all members, and entries behind it", || {
        cluster.run(["put", "one", "more"]).expect(0);
        let node = first(&cluster);
        let snapshot = node["snapshot_index"].as_u64();
        snapshot >= grown && node["last_index"].as_u64() > snapshot
    });
    assert_eq!(cluster.terminate().code(), Some(0));
    let node = at.join("node-1");
    let config = fs::read_to_string(node.join("node.toml")).expect("made");
    assert_eq!(config.matches("[[members]]").count(), 1, "{config}");

    let (segment, end) = newest_segment(&node);
    flip(&segment, (4096 + end) / 2);
    let damaged = report(&node, 1);
    let meaning = &only_finding(&damaged)["meaning"];
    assert_eq!(meaning, "refilled-by-leader", "{damaged:#}");
    let mut cluster = Cluster::start_in(&at, &[]);
    wait_until("node 1 to be whole", || {
        let status = cluster.run(["status", "--json"]).json();
        let applied = |node: usize| status["nodes"][node]["applied"].as_u64();
        applied(0) > grown && applied(0) == applied(1) && applied(0) == applied(2)
    });
    assert_eq!(cluster.terminate().code(), Some(0));
    assert!(report(&node, 0)["refill_to"].is_null());
}

#[test]
fn every_damaged_place_is_told() {
    let (_dir, at) = stopped(3);
    let node = at.join("node-1");
    let (segment, end) = newest_segment(&node);
    for place in [4096 + 60, (4096 + end) / 2, end - 100] {
        flip(&segment, place);
    }
    let damaged = report(&node, 1);
    let findings = damaged["findings"].as_array().expect("findings");
    assert!(findings.len() >= 2, "{damaged:#}");
}

#[test]
fn a_damaged_snapshot_is_told_and_what_a_crash_left_is_no_damage() {
    let (_dir, at) = stopped(3);
    let snapshots = at.join("node-2/data/snapshots");
    fs::write(snapshots.join("7.tmp"), "half").expect("written");
    fs::write(snapshots.join("incoming"), "half").expect("written");
    let left = report(&at.join("node-2"), 0);
    let findings = left["findings"].as_array().expect("findings");
    let meanings: Vec<&Value> = findings.iter().map(|it| &it["meaning"]).collect();
    assert_eq!(meanings, ["leftover", "leftover"], "{left:#}");

    let names = fs::read_dir(&snapshots).expect("listed").flatten();
    let snapshot = names.map(|entry| entry.path());
    let snapshot = snapshot.filter(|path| path.extension().is_some_and(|end| end == "snap"));
    let snapshot = snapshot.max().expect("a snapshot");
    flip(&snapshot, 300);
    let damaged = report(&at.join("node-2"), 1);
    let findings = damaged["findings"].as_array().expect("findings");
    let harmful: Vec<&Value> = findings
        .iter()
        .filter(|it| it["harmless"] == false)
        .collect();
    assert_eq!(harmful.len(), 1, "{damaged:#}");
    let path = harmful[0]["path"].as_str().expect("a path");
    assert!(snapshot.ends_with(path), "{path}");
}

#[test]
fn what_is_missing_is_told() {
    let (_dir, at) = stopped(3);
    let data = at.join("node-1/data");
    let wal = data.join("wal");
    fs::rename(&wal, at.join("kept")).expect("moved");
    let lost = report(&at.join("node-1"), 1);
    assert_eq!(only_finding(&lost)["meaning"], "lost-disk", "{lost:#}");
    fs::rename(at.join("kept"), &wal).expect("moved");
    report(&at.join("node-1"), 0);
    // Without its snapshot the log has nothing to begin with.
    fs::rename(data.join("snapshots"), at.join("kept")).expect("moved");
    let lost = report(&at.join("node-1"), 1);
    assert_eq!(only_finding(&lost)["meaning"], "lost-disk", "{lost:#}");
    fs::rename(at.join("kept"), data.join("snapshots")).expect("moved");
    fs::write(data.join("reset.key"), "short").expect("written");
    let damaged = report(&at.join("node-1"), 1);
    assert_eq!(
        only_finding(&damaged)["meaning"],
        "reset-key",
        "{damaged:#}"
    );
    fs::write(data.join("boot"), "three").expect("written");
    fs::write(data.join("identity.toml"), "format = 1").expect("written");
    let damaged = report(&at.join("node-1"), 1);
    assert_eq!(
        damaged["findings"].as_array().map(Vec::len),
        Some(3),
        "{damaged:#}"
    );
}

#[test]
fn a_directory_that_is_no_node_or_another_one_is_refused() {
    let (dir, at) = stopped(3);
    let told = |path: &Path| {
        let run = run(["check".as_ref(), path.as_os_str()]);
        run.expect_error(2).to_owned()
    };
    assert!(told(dir.path()).contains("node.toml"));
    assert!(told(&dir.path().join("none")).contains("node.toml"));
    // The data of another node under this one's name.
    let (one, two) = (at.join("node-1/data"), at.join("node-2/data"));
    fs::rename(&one, at.join("kept")).expect("moved");
    assert!(told(&at.join("node-1")).contains("does not exist"));
    fs::rename(&two, &one).expect("moved");
    let line = told(&at.join("node-1"));
    assert!(line.contains("belongs to node 2"), "{line}");
    // A segment of another node in between.
    fs::rename(&one, &two).expect("moved");
    fs::rename(at.join("kept"), &one).expect("moved");
    let name = "wal/00000000000000000001.wal";
    fs::copy(two.join(name), one.join(name)).expect("copied");
    let foreign = report(&at.join("node-1"), 1);
    assert_eq!(only_finding(&foreign)["meaning"], "foreign", "{foreign:#}");
}
