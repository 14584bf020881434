//! Wrong command lines, configurations and directories: exit code 2, one line, nothing started.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::program::{base_port, command, run};

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let cases: [&[&str]; 12] = [
        &["member"],
        &["member", "add", "4"],
        &["snapshot", "restore", "file"],
        &["transfer-leader", "0"],
        &[],
        &["frobnicate"],
        &["put", "key"],
        &["put", "key", "value", "--frob"],
        &["cas", "key", "new"],
        &["get", "key", "--stale", "--revision", "1"],
        &["cluster", "--nodes", "0"],
        &["init", "dir"],
    ];
    for arguments in cases {
        let line = run(arguments).expect_error(2).to_owned();
        assert!(line.contains("--help"), "{arguments:?}: {line}");
    }
}

#[test]
fn help_and_version_are_for_standard_output() {
    let help = run(["--help"]).expect(0);
    assert!(help.contains("cluster") && help.contains("Exit codes"));
    for command in [
        "cluster",
        "serve",
        "init",
        "demo",
        "put",
        "append",
        "get",
        "delete",
        "cas",
        "scan",
        "compact",
        "import",
        "export",
        "status",
        "bench",
        "version",
        "member",
        "transfer-leader",
        "snapshot",
        "completions",
    ] {
        let help = run([command, "--help"]).expect(0);
        assert!(help.contains("Example"), "{command}: {help}");
    }
    for words in [
        "member list",
        "member add",
        "member promote",
        "member remove",
        "member replace",
        "snapshot save",
        "snapshot restore",
        "snapshot verify",
    ] {
        let help = run(words.split(' ').chain(["--help"])).expect(0);
        assert!(help.contains("Example"), "{words}: {help}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(run(["version"]).expect(0), format!("flotilla {version}\n"));
    assert_eq!(run(["version", "--json"]).json()["version"], version);
}

#[test]
fn shells_complete_what_there_is() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(["completions", shell]).expect(0);
        for word in ["transfer-leader", "snapshot", "value-bytes", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        // It is a script, so there is no other form of it.
        assert_eq!(run(["completions", shell, "--json"]).expect(0), script);
    }
    let line = run(["completions", "cmd"]).expect_error(2).to_owned();
    assert!(line.contains("cmd") && line.contains("zsh"), "{line}");
    // What a shell makes of it: the candidates for an unfinished word.
    let script = r#"
        source <("$0" completions bash)
        COMP_WORDS=(flotilla snapshot ve) COMP_CWORD=2
        _flotilla flotilla ve snapshot
        echo "${COMPREPLY[@]}"
    "#;
    let program = env!("CARGO_BIN_EXE_flotilla");
    let bash = Command::new("bash").args(["-c", script, program]).output();
    let bash = bash.expect("bash is there");
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "verify\n");
}

#[test]
fn a_client_without_a_usable_configuration_says_which_one_it_looked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("client.toml");
    for arguments in [
        vec!["get", "k"],
        vec!["put", "k", "v"],
        vec!["scan"],
        vec!["status"],
        vec!["bench", "--seconds", "1"],
    ] {
        let run = run(arguments
            .iter()
            .map(AsRef::as_ref)
            .chain(["-c".as_ref(), path.as_os_str()]));
        let line = run.expect_error(2);
        assert!(line.contains("client.toml"), "{line}");
    }
    std::fs::write(&path, "cluster = 7\n").expect("written");
    let run = run([
        "get".as_ref(),
        "k".as_ref(),
        "-c".as_ref(),
        path.as_os_str(),
    ]);
    let line = run.expect_error(2);
    assert!(line.contains("client.toml"), "{line}");
}

#[test]
fn an_operator_without_a_configuration_is_told_which_one_was_looked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("admin.toml");
    for words in [
        "member list",
        "member remove 1",
        "transfer-leader 1",
        "snapshot save f",
    ] {
        let mut command = command(words.split(' '));
        let output = command
            .arg("-c")
            .arg(&path)
            .current_dir(dir.path())
            .output();
        let output = output.expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("admin.toml"), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
}

#[test]
fn unknown_keys_of_a_client_configuration_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = dir.path().join("made");
    init(&made, base_port());
    let config = made.join("client.toml");
    let text = std::fs::read_to_string(&config).expect("made");
    for wrong in [format!("frob = 1\n{text}"), format!("{text}frob = 1\n")] {
        std::fs::write(&config, wrong).expect("written");
        let run = run([
            "get".as_ref(),
            "k".as_ref(),
            "-c".as_ref(),
            config.as_os_str(),
        ]);
        assert!(run.expect_error(2).contains("frob"), "{}", run.stderr);
    }
}

#[test]
fn what_is_over_a_limit_is_refused_before_anything_is_sent() {
    let long = "k".repeat(5000);
    let line = run(["get", &long]).expect_error(5).to_owned();
    assert!(line.contains("5000") && line.contains("4096"), "{line}");
    run(["put", "", "value"]).expect_error(5);
    // Refused before room is made for it.
    let bench = ["bench", "--value-bytes", "99999999999", "--seconds", "1"];
    let line = run(bench).expect_error(5).to_owned();
    assert!(
        line.contains("99999999999") && line.contains("1048576"),
        "{line}"
    );
}

fn init(dir: &Path, port: u16) {
    let nodes = format!("127.0.0.1:{},127.0.0.1:{}", port + 1, port + 2);
    let run = run([
        "init".as_ref(),
        dir.as_os_str(),
        "--nodes".as_ref(),
        nodes.as_ref(),
    ]);
    run.expect(0);
}

#[test]
fn init_makes_a_cluster_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = dir.path().join("made");
    let arguments = ["init".as_ref(), made.as_os_str()];
    let nodes = ["--nodes", "a.example:7400,b.example:7401", "--json"].map(AsRef::as_ref);
    let object = run(arguments.into_iter().chain(nodes)).json();
    assert_eq!(object["nodes"], 2);
    for name in [
        "client.toml",
        "ca.pem",
        "node-1/node.toml",
        "node-2/node.key",
    ] {
        assert!(made.join(name).is_file(), "{name}");
    }
    let again = run(arguments.into_iter().chain(nodes));
    assert!(again.expect_error(2).contains("never overwritten"));
    let other = dir.path().join("other");
    let wrong = ["--nodes", "a.example"].map(AsRef::as_ref);
    let wrong = run(["init".as_ref(), other.as_os_str()]
        .into_iter()
        .chain(wrong));
    assert!(wrong.expect_error(2).contains("host:port"));
    assert!(!other.exists());
}

#[test]
fn a_cluster_that_is_down_is_unavailable() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = dir.path().join("made");
    init(&made, base_port());
    let config = made.join("client.toml");
    let text = std::fs::read_to_string(&config).expect("made");
    std::fs::write(&config, format!("request_timeout_ms = 700\n{text}")).expect("written");
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        let output = command.env("FLOTILLA_CONFIG", &config).output();
        let output = output.expect("the program starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), stdout, stderr)
    };
    for arguments in [&["put", "k", "v"][..], &["get", "k"], &["scan"]] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, &*stdout), (Some(3), ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    // An import waits for a cluster that goes away under it, not for one that never was.
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("made");
    std::fs::write(tree.join("file"), "content").expect("written");
    let begin = Instant::now();
    let (code, stdout, stderr) = run(&["import", tree.to_str().expect("text")]);
    assert_eq!((code, &*stdout), (Some(3), ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{stderr}");
    let (code, stdout, stderr) = run(&["status"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert_eq!(stdout.matches("unreachable").count(), 2, "{stdout}");
}

#[test]
fn serve_refuses_what_it_cannot_serve() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = dir.path().join("made");
    let port = base_port();
    init(&made, port);
    let config = made.join("node-1/node.toml");
    let serve = |path: &Path| run(["serve".as_ref(), "--config".as_ref(), path.as_os_str()]);
    let missing = dir.path().join("none.toml");
    assert!(serve(&missing).expect(2).is_empty());
    let taken = UdpSocket::bind(("0.0.0.0", port + 1)).expect("it was free");
    let run = serve(&config);
    run.expect(2);
    let line = run.stderr.lines().last().expect("a line");
    assert!(line.contains(&(port + 1).to_string()), "{}", run.stderr);
    drop(taken);
    // A node whose disk was lost must not come back as if nothing had happened.
    std::fs::remove_dir_all(made.join("node-1/data")).expect("removed");
    std::fs::create_dir(made.join("node-1/data")).expect("made");
    let run = serve(&config);
    run.expect(2);
    let text = std::fs::read_to_string(&config).expect("made");
    std::fs::write(&config, format!("frob = 1\n{text}")).expect("written");
    let run = serve(&config);
    run.expect(2);
    assert!(run.stderr.contains("frob"), "{}", run.stderr);
}
