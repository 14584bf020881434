//! Folders go in and come out as they were.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::program::{Cluster, wait_until};

/// The files below a folder: paths and contents.
fn files(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).follow_links(false) {
        let entry = entry.expect("it can be listed");
        if entry.file_type().is_file() {
            let relative = entry.path().strip_prefix(root).expect("below");
            let content = std::fs::read(entry.path()).expect("it can be read");
            found.insert(relative.as_os_str().as_bytes().to_vec(), content);
        }
    }
    found
}

fn write(root: &Path, name: &[u8], content: &[u8]) {
    let path = root.join(OsStr::from_bytes(name));
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, content).expect("written");
}

/// Names that trip up careless programs, sizes at the edges, and many small files.
fn plant(root: &Path) {
    let names: [&[u8]; 9] = [
        b"plain",
        b"-rf",
        b" leading and trailing ",
        b"line\nbreak\ttab",
        b"not utf-8 \xff\xfe",
        b"...",
        b"deep/er/and/deep/er/still/file",
        b"a",
        b"a-b/c",
    ];
    for name in names {
        write(root, name, name);
    }
    write(root, &[b'n'; 255], b"a long name");
    write(root, "gr\u{fc}n/\u{1f6a2}".as_bytes(), b"letters");
    write(root, b"empty", b"");
    write(root, b"largest", &vec![0xa5; 1 << 20]);
    for number in 0..600_u32 {
        let name = format!("many/{}/{number}", number % 7);
        write(root, name.as_bytes(), &number.to_be_bytes());
    }
    std::fs::create_dir_all(root.join("no files/in here")).expect("made");
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let cluster = Cluster::start(&[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    plant(&source);
    let expected = files(&source);
    let bytes: usize = expected.values().map(Vec::len).sum();
    let import = ["import".as_ref(), source.as_os_str(), "--prefix".as_ref()];
    let import = import
        .into_iter()
        .chain(["up/".as_ref(), "--json".as_ref()]);
    let object = cluster.run(import.clone()).json();
    assert_eq!(
        (&object["keys"], &object["bytes"]),
        (&expected.len().into(), &bytes.into())
    );
    assert_eq!(
        (&object["skipped"], &object["left_out"]),
        (&0.into(), &0.into())
    );
    // Safe to run again.
    cluster.run(import).expect(0);
    assert_eq!(cluster.run(["get", "up/plain"]).stdout, b"plain");
    let export = [
        "export".as_ref(),
        target.as_os_str(),
        "--prefix".as_ref(),
        "up/".as_ref(),
    ];
    let words = cluster.run(export).expect(0);
    assert!(words.starts_with(&format!("exported {} keys, {bytes} bytes", expected.len())));
    assert_eq!(files(&target), expected);
}

#[test]
fn an_import_goes_on_through_a_fail_over() {
    let cluster = Cluster::start(&[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    for number in 0..6000_u32 {
        let name = format!("{}/{number}", number % 100);
        write(&source, name.as_bytes(), &number.to_be_bytes().repeat(500));
    }
    let mut import = cluster
        .command(["import".as_ref(), source.as_os_str()])
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    wait_until("the first key", || cluster.run(["get", "0/0"]).code == 0);
    let status = cluster.run(["status", "--json"]).json();
    cluster.signal_node(status["leader"].as_u64().expect("a leader"), Signal::KILL);
    assert_eq!(import.wait().expect("it ends").code(), Some(0));
    cluster
        .run(["export".as_ref(), target.as_os_str()])
        .expect(0);
    assert_eq!(files(&target), files(&source));
}

#[test]
fn a_put_without_an_answer_is_put_again() {
    let cluster = Cluster::start(&[]);
    let config = cluster.dir.join("client.toml");
    let text = std::fs::read_to_string(&config).expect("made");
    std::fs::write(&config, format!("request_timeout_ms = 500\n{text}")).expect("written");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for number in 0..6000_u32 {
        write(dir.path(), number.to_string().as_bytes(), &[0; 2000]);
    }
    let mut import = cluster
        .command(["import".as_ref(), dir.path().as_os_str()])
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    wait_until("the first key", || cluster.run(["get", "0"]).code == 0);
    let signal_all = |signal| (1..=3).for_each(|id| cluster.signal_node(id, signal));
    signal_all(Signal::STOP);
    // Longer than any put of the import waits for its answer.
    for _ in 0..3 {
        cluster.run(["get", "0"]).expect_error(3);
    }
    signal_all(Signal::CONT);
    assert_eq!(import.wait().expect("it ends").code(), Some(0));
    let keys = cluster.run(["scan", "--keys-only"]).expect(0);
    assert_eq!(keys.lines().count(), 6000);
}

#[test]
fn what_cannot_become_a_key_is_listed_and_left_out() {
    let cluster = Cluster::start(&["--transport", "memory", "--storage", "memory"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("source");
    write(&source, b"good", b"1");
    std::os::unix::fs::symlink("good", source.join("link")).expect("linked");
    std::os::unix::fs::symlink("..", source.join("up")).expect("linked");
    drop(std::os::unix::net::UnixListener::bind(source.join("socket")).expect("bound"));
    let import = |json: &str| cluster.run(["import".as_ref(), source.as_os_str(), json.as_ref()]);
    // Links and the like are no files, so leaving them out is no failure.
    let run = import("--json");
    assert_eq!(
        (&run.json()["keys"], &run.json()["left_out"]),
        (&1.into(), &3.into())
    );
    assert!(run.stderr.contains("link"), "{}", run.stderr);
    for number in 0..25 {
        write(
            &source,
            format!("large{number:02}").as_bytes(),
            &vec![0; (1 << 20) + 1],
        );
    }
    let run = import("--json");
    run.expect(5);
    let object: serde_json::Value = serde_json::from_slice(&run.stdout).expect("an object");
    assert_eq!(
        (&object["keys"], &object["skipped"]),
        (&1.into(), &25.into())
    );
    let skipped = run
        .stderr
        .lines()
        .filter(|line| line.contains("skipped large"));
    assert_eq!(skipped.count(), 20, "{}", run.stderr);
    assert!(run.stderr.contains("and 5 more"), "{}", run.stderr);
    assert_eq!(cluster.run(["scan", "--keys-only"]).expect(0), "good\n");
}

#[test]
fn lines_of_json_are_read_and_what_scan_prints_is_among_them() {
    let cluster = Cluster::start(&["--transport", "memory", "--storage", "memory"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("keys.ndjson");
    let mut lines = String::new();
    for number in 0..2000 {
        // The last of many values for one key is the one that stays.
        lines.push_str(&format!("{{\"key\":\"many\",\"value\":\"{number}\"}}\n"));
        lines.push_str(&format!("{{\"key\":\"k{number:04}\",\"value\":\"v\"}}\n"));
    }
    lines.push_str("{\"key\":\"bytes\",\"value_base64\":\"/wA=\"}\n\n");
    std::fs::write(&path, &lines).expect("written");
    let import =
        |path: &Path| cluster.run(["import".as_ref(), path.as_os_str(), "--json".as_ref()]);
    assert_eq!(import(&path).json()["keys"], 4001);
    assert_eq!(cluster.run(["get", "many"]).stdout, b"1999");
    assert_eq!(cluster.run(["get", "bytes"]).stdout, b"\xff\x00");
    let printed = cluster.run(["scan", "--json"]).stdout;
    let copy = dir.path().join("copy.ndjson");
    std::fs::write(&copy, &printed).expect("written");
    assert_eq!(import(&copy).json()["keys"], 2002);
    std::fs::write(
        &path,
        "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\"}\nnonsense\n",
    )
    .expect("written");
    let run = import(&path);
    run.expect(5);
    assert!(
        run.stderr.contains("line 2") && run.stderr.contains("line 3"),
        "{}",
        run.stderr
    );
    assert_eq!(cluster.run(["get", "a"]).stdout, b"1");
    let neither = dir.path().join("keys.txt");
    std::fs::write(&neither, "").expect("written");
    import(&neither).expect_error(2);
    import(&dir.path().join("nothing")).expect_error(2);
}

#[test]
fn keys_that_are_no_files_are_listed_and_never_written_elsewhere() {
    let cluster = Cluster::start(&["--transport", "memory", "--storage", "memory"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let target = dir.path().join("inner/target");
    for key in [
        "../escaped",
        "/abs",
        "x//y",
        "x/./y",
        "dir/",
        "file",
        "file/below",
        "good/one",
    ] {
        cluster.run(["put", key, "v"]).expect(0);
    }
    let run = cluster.run(["export".as_ref(), target.as_os_str(), "--json".as_ref()]);
    run.expect(5);
    let object: serde_json::Value = serde_json::from_slice(&run.stdout).expect("an object");
    assert_eq!(
        (&object["keys"], &object["skipped"]),
        (&2.into(), &6.into())
    );
    let names: Vec<Vec<u8>> = files(&dir.path().join("inner")).into_keys().collect();
    assert_eq!(
        names,
        [b"target/file".to_vec(), b"target/good/one".to_vec()]
    );
}
