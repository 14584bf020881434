//! The commands on keys, on a real cluster.

use crate::program::Cluster;

#[test]
fn keys_are_set_read_compared_and_removed() {
    let cluster = Cluster::start(&[]);
    // Bytes come back exactly, with no line end added.
    cluster.run(["put", "hello", "world"]).expect(0);
    let run = cluster.run(["get", "hello"]);
    run.expect(0);
    assert_eq!(run.stdout, b"world");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    cluster
        .run_with_input(["put", "bytes", "-"], &bytes)
        .expect(0);
    assert_eq!(cluster.run(["get", "bytes"]).stdout, bytes);
    let object = cluster.run(["get", "bytes", "--json"]).json();
    assert!(object["value_base64"].is_string() && object["value"].is_null());
    // An absent key is an answer, on nothing but the exit code and standard error.
    let run = cluster.run(["get", "nobody"]);
    assert!(run.expect_error(1).contains("nobody"));
    cluster.run(["get", "nobody", "--json"]).expect_error(1);
    // Appending, and older values.
    let written = cluster.run(["append", "hello", "!", "--json"]).json();
    assert_eq!(
        (&written["version"], &written["value_bytes"]),
        (&2.into(), &6.into())
    );
    assert_eq!(cluster.run(["get", "hello"]).stdout, b"world!");
    let before = (written["revision"].as_u64().expect("a number") - 1).to_string();
    let run = cluster.run(["get", "hello", "--revision", &before]);
    assert_eq!(run.stdout, b"world");
    // Any node has it by now, or soon.
    crate::program::wait_until("a stale read", || {
        cluster.run(["get", "hello", "--stale"]).stdout == b"world!"
    });
    // Comparing.
    cluster.run(["cas", "lock", "--absent", "me"]).expect(0);
    let run = cluster.run(["cas", "lock", "--absent", "you"]);
    assert!(run.expect_error(1).contains("version 1"));
    cluster
        .run(["cas", "lock", "--expect", "me", "you"])
        .expect(0);
    cluster
        .run(["cas", "lock", "--version", "1", "they"])
        .expect_error(1);
    cluster
        .run(["cas", "lock", "--version", "2", "they"])
        .expect(0);
    assert_eq!(cluster.run(["get", "lock"]).stdout, b"they");
    let run = cluster.run(["cas", "lock", "--absent", "x", "--json"]);
    assert!(run.expect(1).contains("\"written\":false"));
    // Removing.
    cluster.run(["delete", "lock"]).expect(0);
    cluster.run(["delete", "lock"]).expect_error(1);
    cluster.run(["get", "lock"]).expect_error(1);
    // History goes on command, and a revision that is gone is refused.
    let newest = cluster.run(["put", "hello", "new", "--json"]).json();
    let newest = newest["revision"].as_u64().expect("a number").to_string();
    cluster.run(["compact", &newest]).expect(0);
    cluster
        .run(["get", "hello", "--revision", &before])
        .expect_error(5);
    cluster.run(["compact", "1000000"]).expect_error(5);
    // Over a limit.
    let large = vec![b'x'; (1 << 20) + 1];
    cluster
        .run_with_input(["put", "large", "-"], &large)
        .expect_error(5);
    cluster
        .run_with_input(["put", "large", "-"], &large[1..])
        .expect(0);
    cluster.run(["append", "large", "x"]).expect_error(5);
}

#[test]
fn keys_are_listed_in_order_and_on_one_line_each() {
    let cluster = Cluster::start(&["--transport", "memory", "--storage", "memory"]);
    assert!(
        cluster
            .ready
            .iter()
            .any(|line| line.contains("not durable"))
    );
    for key in ["b/2", "a", "b/10", "c"] {
        cluster.run(["put", key, "line\nbreak\t\\"]).expect(0);
    }
    assert_eq!(
        cluster.run(["scan", "--keys-only"]).expect(0),
        "a\nb/10\nb/2\nc\n"
    );
    assert_eq!(
        cluster.run(["scan", "b/", "--keys-only"]).expect(0),
        "b/10\nb/2\n"
    );
    let some = cluster.run(["scan", "--from", "b", "--to", "c", "--limit", "1"]);
    assert_eq!(some.expect(0), "b/10\tline\\nbreak\\t\\\\\n");
    let lines = cluster.run(["scan", "--json"]).expect(0);
    let keys: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    assert_eq!(keys.len(), 4);
    assert_eq!(keys[0]["value"], "line\nbreak\t\\");
    // A reader that has seen enough is no error.
    let mut child = cluster
        .command(["scan"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_bench_measures_and_the_status_tells() {
    let cluster = Cluster::start(&["--transport", "memory", "--storage", "memory"]);
    for op in ["put", "get", "get-stale", "mixed"] {
        let object = cluster
            .run([
                "bench",
                "--seconds",
                "1",
                "--clients",
                "8",
                "--conns",
                "2",
                "--keys",
                "50",
                "--op",
                op,
                "--json",
            ])
            .json();
        assert_eq!((&object["op"], &object["errors"]), (&op.into(), &0.into()));
        assert!(
            object["ops_per_s"].as_f64().expect("a number") > 1.0,
            "{object}"
        );
        let at = |name: &str| object[name].as_u64().expect("a number");
        assert!(
            at("p50_us") <= at("p99_us") && at("p99_us") <= at("max_us"),
            "{object}"
        );
    }
    let status = cluster.run(["status", "--json"]).json();
    let leader = status["leader"].as_u64().expect("a leader");
    let nodes = status["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        let expected = if node["id"] == leader {
            "leader"
        } else {
            "follower"
        };
        assert_eq!(
            (&node["role"], &node["reachable"]),
            (&expected.into(), &true.into())
        );
    }
    let table = cluster.run(["status"]).expect(0);
    assert_eq!(table.matches("follower").count(), 2, "{table}");
    assert!(table.contains("not durable"), "{table}");
}
