//! Goal: a wrong `node.toml` is told precisely, and what the manual shows is what the program
//! reads. Method: one file that is right, and a table of single changes to it.

use std::collections::BTreeSet;
use std::path::Path;

use kv_service::config::{NodeConfig, StorageKind, TransportKind};
use raft_core::{Incarnation, NodeId, ReadPolicy, SnapshotPolicy, Timing};

const MANUAL: &str = include_str!("../../../docs/configuration.md");

/// The complete file in the manual.
fn manual_example() -> &'static str {
    let (_, rest) = MANUAL.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0
}

fn parse(text: &str) -> Result<NodeConfig, String> {
    NodeConfig::parse(Path::new("/etc/flotilla/node.toml"), text).map_err(|e| e.to_string())
}

#[test]
fn the_example_in_the_manual_is_read() {
    let config = parse(manual_example()).unwrap();
    assert_eq!(config.id, NodeId(1));
    assert_eq!(config.storage, StorageKind::File);
    assert_eq!(config.transport, TransportKind::Quic);
    assert_eq!(config.timing, Timing::LAN);
    assert_eq!(config.members.iter().count(), 3);
    assert_eq!(config.incarnation().0, 4611686018427387905);
}

#[test]
fn relative_paths_start_at_the_file() {
    let config = parse(manual_example()).unwrap();
    assert_eq!(config.data, Path::new("/etc/flotilla/data"));
    assert_eq!(config.certificates.ca, Path::new("/etc/flotilla/ca.pem"));
    let absolute = manual_example().replace("data = \"data\"", "data = \"/srv/one\"");
    assert_eq!(parse(&absolute).unwrap().data, Path::new("/srv/one"));
}

#[test]
fn what_the_manual_calls_defaults_are_the_defaults() {
    let spelled_out = parse(manual_example()).unwrap();
    let short = manual_example()
        .lines()
        .filter(|line| {
            let defaulted = [
                "data",
                "ca",
                "certificate",
                "key",
                "storage",
                "state",
                "transport",
                "reads",
                "join",
            ];
            !defaulted
                .iter()
                .any(|key| line.starts_with(&format!("{key} =")))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let (head, rest) = short.split_once("[timing]").unwrap();
    let (_, members) = rest.split_once("[[members]]").unwrap();
    let short = parse(&format!("{head}[[members]]{members}")).unwrap();
    assert_eq!(format!("{short:?}"), format!("{spelled_out:?}"));
}

/// Every key of every table is refused when it is misspelt, so a key that the manual shows is a key
/// that the program knows, and the other way round: see the next test.
#[test]
fn unknown_keys_are_refused_in_every_table() {
    for line in manual_example().lines().filter(|line| line.contains(" = ")) {
        let misspelt = manual_example().replacen(line, &format!("x{line}"), 1);
        let error = parse(&misspelt).unwrap_err();
        let key = format!("x{}", line.split(' ').next().unwrap());
        assert!(
            error.contains("unknown field") && error.contains(&key),
            "{error}"
        );
        assert!(error.starts_with("/etc/flotilla/node.toml:"), "{error}");
    }
}

/// The parser lists all keys that it knows when it meets one that it does not.
#[test]
fn every_key_that_is_known_is_in_the_manual() {
    for table in [
        "",
        "[timing]\n",
        "[limits]\n",
        "[log]\n",
        "[snapshots]\n",
        "[[members]]\n",
    ] {
        let error = parse(&format!("{table}nothing = 1\n")).unwrap_err();
        let (_, known) = error.split_once("expected ").unwrap();
        let known = known.trim_start_matches("one of ");
        let (known, _) = known.split_once(", in ").unwrap();
        let keys: BTreeSet<_> = known.split(", ").map(|key| key.trim_matches('`')).collect();
        for key in keys {
            let shown = manual_example().lines().any(|line| {
                [
                    format!("{key} = "),
                    format!("[{key}]"),
                    format!("[[{key}]]"),
                ]
                .iter()
                .any(|form| line.starts_with(form))
            });
            assert!(shown, "{key} of table {table:?} is not in the example");
            let explained =
                MANUAL.contains(&format!("`{key}`")) || MANUAL.contains(&format!("`[{key}]`"));
            assert!(
                explained || MANUAL.contains(&format!("`[[{key}]]`")),
                "{key}"
            );
        }
    }
}

/// What to replace in the example, by what, and two parts of the error.
const WRONG_VALUES: &[(&str, &str, &str, &str)] = &[
    (
        "cluster = \"0011",
        "cluster = \"zz11",
        "cluster is zz11",
        "32 hexadecimal digits",
    ),
    (
        "\nid = 1\nlisten",
        "\nid = 7\nlisten",
        "id is 7",
        "[[members]]",
    ),
    ("\nid = 1\nlisten", "\nid = -1\nlisten", "`-1`", "u64"),
    ("\nid = 1\nlisten", "\nid = \"a\"\nlisten", "\"a\"", "u64"),
    ("\nid = 1\nlisten", "\nlisten", "missing field", "id"),
    (
        "0.0.0.0:7400",
        "localhost:7400",
        "listen is localhost:7400",
        "an IP address and a port",
    ),
    (
        "advertise = \"db1.example.org:7400\"",
        "advertise = \"db1\"",
        "advertise is \"db1\"",
        "port",
    ),
    (
        "advertise = \"db1.example.org:7400\"",
        "advertise = \"db9.example.org:7400\"",
        "advertise is db9.example.org:7400",
        "db1.example.org:7400",
    ),
    (
        "storage = \"file\"",
        "storage = \"tape\"",
        "`tape`",
        "`rocksdb`",
    ),
    (
        "state = \"memory\"",
        "state = \"tape\"",
        "`tape`",
        "`memory`",
    ),
    (
        "storage = \"file\"\nstate = \"memory\"",
        "storage = \"memory\"\nstate = \"rocksdb\"",
        "state is rocksdb",
        "a log that forgets",
    ),
    (
        "state_cache_bytes_max = 134217728",
        "state_cache_bytes_max = 8388607",
        "limits.state_cache_bytes_max is 8388607",
        "from 8388608 to 68719476736 bytes",
    ),
    (
        "state_cache_bytes_max = 134217728",
        "state_cache_bytes_max = 68719476737",
        "limits.state_cache_bytes_max is 68719476737",
        "from 8388608 to 68719476736 bytes",
    ),
    (
        "transport = \"quic\"",
        "transport = \"tcp\"",
        "`tcp`",
        "`quic`",
    ),
    ("reads = \"round\"", "reads = \"fast\"", "`fast`", "`lease`"),
    ("join = false", "join = true", "join is true", "[[members]]"),
    (
        "join = false",
        "incarnation = 7",
        "incarnation is 7",
        "join must be true",
    ),
    ("preset = \"lan\"", "preset = \"moon\"", "`moon`", "`wan`"),
    (
        "tick_ms = 10",
        "tick_ms = 0",
        "timing.tick_ms is 0",
        "at least 1",
    ),
    (
        "election_ticks_min = 20",
        "election_ticks_min = 9",
        "timing.election_ticks_min is 9",
        "twice",
    ),
    (
        "election_ticks_max = 40",
        "election_ticks_max = 20",
        "timing.election_ticks_max is 20",
        "above",
    ),
    (
        "append_bytes_max = 1048576",
        "append_bytes_max = 1",
        "limits.append_bytes_max is 1",
        "at least 4096",
    ),
    (
        "append_bytes_max = 1048576",
        "append_bytes_max = 67108865",
        "limits.append_bytes_max is 67108865",
        "to 67108864",
    ),
    (
        "uncommitted_bytes_max = 67108864",
        "uncommitted_bytes_max = 4096",
        "limits.uncommitted_bytes_max is 4096",
        "proposal_bytes_max",
    ),
    (
        "connections_max = 1024",
        "connections_max = 0",
        "limits.connections_max is 0",
        "1",
    ),
    (
        "connection_bytes_max = 67108864",
        "connection_bytes_max = 1000",
        "limits.connection_bytes_max is 1000",
        "2106368",
    ),
    (
        "segment_bytes = 67108864",
        "segment_bytes = 4096",
        "log.segment_bytes is 4096",
        "from 8192 to 4294967296",
    ),
    ("\nid = 2\n", "\nid = 1\n", "members.id is 1", "listed once"),
    ("\nid = 2\n", "\nid = 0\n", "members.id is 0", "at least 1"),
    (
        "db2.example.org:7400",
        "db2.example.org:0",
        "db2.example.org:0",
        "a port from 1",
    ),
];

#[test]
fn a_value_that_cannot_work_is_told_with_key_value_and_rule() {
    for (from, to, what, rule) in WRONG_VALUES {
        let text = manual_example().replacen(from, to, 1);
        assert_ne!(text, manual_example(), "{from} is not in the example");
        let error = parse(&text).unwrap_err();
        assert!(error.starts_with("/etc/flotilla/node.toml"), "{error}");
        assert!(
            error.contains(what) && error.contains(rule),
            "{to}: {error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_preset_is_the_start_and_single_keys_replace_its_values() {
    let (head, _) = manual_example().split_once("[timing]").unwrap();
    let (_, members) = manual_example().split_once("[[members]]").unwrap();
    let with = |timing: &str| parse(&format!("{head}\n{timing}\n[[members]]{members}")).unwrap();
    assert_eq!(with("[timing]\npreset = \"wan\"").timing, Timing::WAN);
    let changed = with("[timing]\npreset = \"wan\"\nelection_ticks_max = 300").timing;
    let expected = Timing {
        election_ticks_max: 300,
        ..Timing::WAN
    };
    assert_eq!(changed, expected);
}

#[test]
fn leases_and_quiescence_are_off_until_they_are_asked_for() {
    let config = parse(manual_example()).unwrap();
    assert_eq!(config.reads, ReadPolicy::Round);
    assert_eq!(config.quiesce_after_ticks, None);
    let text = manual_example()
        .replace("reads = \"round\"", "reads = \"lease\"")
        .replace("quiesce_after_ticks = 0", "quiesce_after_ticks = 500")
        .replace("clock_drift_percent = 10", "clock_drift_percent = 20");
    let raft = parse(&text).unwrap().raft(1);
    let lease = ReadPolicy::Lease {
        clock_drift_percent: 20,
    };
    assert_eq!(raft.reads, lease);
    assert_eq!(raft.quiesce_after_ticks, Some(500));
    let text = text.replace("clock_drift_percent = 20", "clock_drift_percent = 51");
    let error = parse(&text).unwrap_err();
    assert!(
        error.contains("timing.clock_drift_percent is 51") && error.contains("1 to 50"),
        "{error}"
    );
}

#[test]
fn snapshots_are_taken_as_the_file_says() {
    let config = parse(manual_example()).unwrap();
    assert_eq!(config.snapshots, SnapshotPolicy::default());
    let text = manual_example()
        .replace("log_bytes = 268435456", "log_bytes = 0")
        .replace("entries = 4000000", "entries = 500")
        .replace("interval_seconds = 0", "interval_seconds = 60")
        .replace("kept_bytes_max = 67108864", "kept_bytes_max = 4096")
        .replace(
            "send_bytes_per_second = 134217728",
            "send_bytes_per_second = 1000",
        );
    let config = parse(&text).unwrap();
    let expected = SnapshotPolicy {
        log_bytes: 0,
        entries: 500,
        // At 10 ms each.
        ticks: 6_000,
        tail_bytes_max: 4096,
    };
    assert_eq!(config.raft(1).snapshots, expected);
    assert_eq!(config.snapshot_bytes_per_second, 1000);
}

/// The same file for a node that joins.
fn joining(incarnation: &str) -> Result<NodeConfig, String> {
    let (head, _) = manual_example().split_once("[[members]]").unwrap();
    parse(&head.replace("join = false", &format!("join = true\n{incarnation}")))
}

#[test]
fn a_node_that_joins_knows_its_incarnation_and_nobody_else() {
    let config = joining("incarnation = 77").unwrap();
    assert!(config.members.is_empty());
    assert_eq!(config.incarnation(), Incarnation(77));
    let raft = config.raft(1);
    assert!(raft.members.is_empty() && raft.incarnation == Incarnation(77));
    for (given, found) in [("", "missing"), ("incarnation = 0", "is 0")] {
        let error = joining(given).unwrap_err();
        assert!(
            error.contains("incarnation is") && error.contains(found),
            "{error}"
        );
    }
    let (head, _) = manual_example().split_once("[[members]]").unwrap();
    let error = parse(head).unwrap_err();
    assert!(error.contains("members is a list of 0"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = NodeConfig::load(Path::new("/nowhere/node.toml"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/node.toml"), "{error}");
}
