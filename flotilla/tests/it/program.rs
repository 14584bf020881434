//! Runs the program, once or as a cluster in the background.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For whatever is waited for: much longer than it takes, also on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Ports that one test may use.
const PORTS_PER_TEST: u16 = 16;

/// Below the ports that the system hands out by itself, so that no client sits on one.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// What a run of the program came to.
pub(crate) struct Run {
    /// Its exit code.
    pub(crate) code: i32,
    /// Everything on standard output.
    pub(crate) stdout: Vec<u8>,
    /// Everything on standard error.
    pub(crate) stderr: String,
}

impl Run {
    /// Asserts on the exit code; returns standard output as text.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) -> String {
        let stdout = String::from_utf8_lossy(&self.stdout).into_owned();
        assert_eq!(self.code, code, "stdout: {stdout}\nstderr: {}", self.stderr);
        stdout
    }

    /// Asserts that it failed with one line on standard error and nothing else; returns the line.
    #[track_caller]
    pub(crate) fn expect_error(&self, code: i32) -> &str {
        self.expect(code);
        assert_eq!(self.stdout, b"", "nothing on standard output");
        let line = self.stderr.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "one line: {line}");
        assert!(line.starts_with("flotilla: "), "{line}");
        line
    }

    /// Standard output as one JSON object.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.expect(0)).expect("one object")
    }
}

/// The program with these arguments.
pub(crate) fn command<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla"));
    command.args(arguments);
    command.env_remove("FLOTILLA_CONFIG");
    command.env_remove("FLOTILLA_ADMIN_CONFIG");
    command.env_remove("FLOTILLA_LOG");
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Run {
    finish(&mut command(arguments))
}

fn finish(command: &mut Command) -> Run {
    let output = command.output().expect("the program starts");
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A base port whose next few ports are free, and that no other test gets.
pub(crate) fn base_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let slots = (PORTS.end - PORTS.start) / PORTS_PER_TEST;
    // Different processes begin at different places.
    let first = std::process::id() % u32::from(slots);
    for _ in 0..slots {
        let slot = (first + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(slots);
        let slot = u16::try_from(slot).expect("fewer slots than ports");
        let base = PORTS.start + slot * PORTS_PER_TEST;
        let is_free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if (base + 1..base + PORTS_PER_TEST).all(is_free) {
            return base;
        }
    }
    panic!("no free ports");
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process with this id is there.
pub(crate) fn is_alive(pid: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; only its parent has not looked yet.
    !state.is_empty() && !state.contains(") Z ")
}

/// A cluster in the background. Dropped, its supervisor is killed, and the nodes end with it.
pub(crate) struct Cluster {
    supervisor: Child,
    lines: mpsc::Receiver<String>,
    /// What it had printed when it was ready.
    pub(crate) ready: Vec<String>,
    /// Its directory.
    pub(crate) dir: PathBuf,
    _owned: Option<TempDir>,
}

impl Cluster {
    /// Starts one in a directory of its own and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        let owned = tempfile::tempdir().expect("a temporary directory");
        let port = base_port().to_string();
        let mut all = vec!["--base-port", &port];
        all.extend_from_slice(options);
        let mut cluster = Self::start_in(&owned.path().join("cluster"), &all);
        cluster._owned = Some(owned);
        cluster
    }

    /// Starts one in a directory and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_in(dir: &Path, options: &[&str]) -> Self {
        let mut supervisor = command(["cluster", "--dir"])
            .arg(dir)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(supervisor.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut cluster = Self {
            supervisor,
            lines,
            ready: Vec::new(),
            dir: dir.to_owned(),
            _owned: None,
        };
        let ready = cluster.read_until("ready");
        cluster.ready = ready;
        cluster
    }

    /// The lines up to the first with this in it.
    #[track_caller]
    pub(crate) fn read_until(&self, wanted: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(error) => panic!("waiting for {wanted:?}: {error}, after {lines:#?}"),
            }
            if lines.iter().any(|line| line.contains(wanted)) {
                return lines;
            }
        }
    }

    /// A client command on this cluster.
    pub(crate) fn command<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = command(arguments);
        command.env("FLOTILLA_CONFIG", self.dir.join("client.toml"));
        command.env("FLOTILLA_ADMIN_CONFIG", self.dir.join("admin.toml"));
        command
    }

    /// Runs a client command on this cluster.
    pub(crate) fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Run {
        finish(&mut self.command(arguments))
    }

    /// Runs a client command with something on its standard input.
    pub(crate) fn run_with_input<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
        input: &[u8],
    ) -> Run {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut pipe = child.stdin.take().expect("piped");
        // A program that refuses its input closes the pipe.
        let _ = pipe.write_all(input);
        drop(pipe);
        let output = child.wait_with_output().expect("it ends");
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Who belongs to the cluster: ids of voters and of learners.
    #[track_caller]
    pub(crate) fn members(&self) -> (Vec<u64>, Vec<u64>) {
        let list = self.run(["member", "list", "--json"]).json();
        let members = list["members"].as_array().expect("members").clone();
        let ids = |role: &str| {
            let with_role = members.iter().filter(|member| member["role"] == role);
            with_role
                .filter_map(|member| member["id"].as_u64())
                .collect()
        };
        (ids("voter"), ids("learner"))
    }

    /// Who leads, as `status` tells it.
    #[track_caller]
    pub(crate) fn leader(&self) -> u64 {
        let mut leader = None;
        wait_until("a leader", || {
            leader = self.run(["status", "--json"]).json()["leader"].as_u64();
            leader.is_some()
        });
        leader.expect("waited for")
    }

    /// Has the client commands give up after a while, where a test waits for that.
    pub(crate) fn shorten_patience(&self, millis: u32) {
        for name in ["client.toml", "admin.toml"] {
            let path = self.dir.join(name);
            let text = std::fs::read_to_string(&path).expect("made");
            let text = format!("request_timeout_ms = {millis}\n{text}");
            std::fs::write(&path, text).expect("written");
        }
    }

    /// The process id of a node.
    #[track_caller]
    pub(crate) fn node_pid(&self, id: u64) -> i32 {
        let path = self.dir.join(format!("node-{id}/pid"));
        let mut text = String::new();
        std::fs::File::open(path)
            .expect("a pid file")
            .read_to_string(&mut text)
            .expect("it can be read");
        text.trim().parse().expect("a number")
    }

    /// Sends a signal to a node.
    #[track_caller]
    pub(crate) fn signal_node(&self, id: u64, signal: Signal) {
        signal_process(self.node_pid(id), signal);
    }

    /// Kills the supervisor without a warning.
    pub(crate) fn kill_supervisor(&mut self) {
        self.supervisor.kill().expect("it runs");
        self.supervisor.wait().expect("it has ended");
    }

    /// Ends the cluster as a user would.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.supervisor.id()).expect("a process id");
        signal_process(pid, Signal::TERM);
        self.supervisor.wait().expect("it has ended")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended; its nodes must have, before their directory is removed.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
        let pids = (1..=9).filter_map(|id| {
            let path = self.dir.join(format!("node-{id}/pid"));
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        });
        let deadline = Instant::now() + PATIENCE;
        for pid in pids.collect::<Vec<i32>>() {
            while is_alive(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[track_caller]
fn signal_process(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id");
    kill_process(pid, signal).expect("it is there");
}
