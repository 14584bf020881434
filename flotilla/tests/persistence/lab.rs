//! A cluster of real processes, one per node, whose disks and lives are in the hands of the test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kv_client::{ClientConfig, ClientError, KvClient, Written};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::program::{PATIENCE, base_port, command, run, wait_until};

/// How long nobody may answer where nobody can: by the definition of the suite.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// Where the nodes keep their logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    File,
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

impl Storage {
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => "rocksdb",
        }
    }

    /// How often something is repeated: `full` times, or less where that takes too long for every
    /// day and `PERSISTENCE_ROUNDS=full` is not set.
    pub(crate) fn rounds(self, full: u32, short: u32) -> u32 {
        let is_full = std::env::var("PERSISTENCE_ROUNDS").is_ok_and(|asked| asked == "full");
        if is_full || self == Self::File {
            full
        } else {
            short
        }
    }
}

/// A cluster of processes, all of which end with it.
pub(crate) struct Lab {
    nodes: BTreeMap<u64, Child>,
    client: KvClient,
    pub(crate) runtime: Runtime,
    pub(crate) size: u64,
    dir: TempDir,
}

impl Lab {
    /// Makes and starts nodes 1 to `size`. `settings` goes to the end of every `node.toml`.
    #[track_caller]
    pub(crate) fn new(size: u64, storage: Storage, settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base = base_port();
        let addresses: Vec<String> = (1..=size)
            .map(|id| format!("127.0.0.1:{}", u64::from(base) + id))
            .collect();
        let nodes = addresses.join(",");
        let made = dir.path().join("cluster");
        let init = ["init".as_ref(), made.as_os_str()];
        let options = ["--nodes", &nodes, "--storage", storage.name()].map(AsRef::as_ref);
        run(init.into_iter().chain(options)).expect(0);
        for id in 1..=size {
            let path = made.join(format!("node-{id}/node.toml"));
            let text = fs::read_to_string(&path).expect("made");
            fs::write(&path, format!("{text}\n{settings}")).expect("written");
        }
        let runtime = Runtime::new().expect("a runtime");
        let client = connect(&runtime, &made, PATIENCE);
        let mut lab = Self {
            nodes: BTreeMap::new(),
            client,
            runtime,
            size,
            dir,
        };
        for id in 1..=size {
            lab.start(id);
        }
        lab
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("cluster").join(name)
    }

    fn node_dir(&self, id: u64) -> PathBuf {
        self.at(&format!("node-{id}"))
    }

    /// All nodes.
    pub(crate) fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.size
    }

    /// Starts a node; does not wait for anything.
    #[track_caller]
    pub(crate) fn start(&mut self, id: u64) {
        let node = self.node_dir(id);
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.join("log"));
        let child = command(["serve", "--config"])
            .arg(node.join("node.toml"))
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the program starts");
        assert!(
            self.nodes.insert(id, child).is_none(),
            "node {id} runs already"
        );
    }

    /// Ends a node by SIGKILL.
    #[track_caller]
    pub(crate) fn kill(&mut self, id: u64) {
        let mut node = self.nodes.remove(&id).expect("it runs");
        let ended = node.try_wait().expect("it can be asked");
        let log = fs::read_to_string(self.node_dir(id).join("log")).unwrap_or_default();
        assert!(
            ended.is_none(),
            "node {id} ended by itself: {ended:?}\n{log}"
        );
        node.kill().expect("it runs");
        node.wait().expect("it has ended");
    }

    /// The same, and all that it had on its disk is gone.
    #[track_caller]
    pub(crate) fn kill_and_erase(&mut self, id: u64) {
        self.kill(id);
        fs::remove_dir_all(self.node_dir(id).join("data")).expect("it had data");
    }

    /// A node whose disk was lost does not start as if nothing had happened.
    #[track_caller]
    pub(crate) fn assert_refuses_to_start(&self, id: u64) {
        let config = self.node_dir(id).join("node.toml");
        let refused = run(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
        refused.expect(2);
        let advice = format!("flotilla member replace {id}");
        assert!(refused.stderr.contains(&advice), "{}", refused.stderr);
    }

    /// Runs a command of the administrator until it succeeds: it may meet an election.
    #[track_caller]
    fn operate(&self, words: &[&str]) {
        let admin = self.at("admin.toml");
        let mut said = String::new();
        wait_until(&words.join(" "), || {
            let mut command = command(words);
            let output = command.env("FLOTILLA_ADMIN_CONFIG", &admin).output();
            let output = output.expect("the program starts");
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            // 3 and 4: no leader for now; what was done can be repeated.
            let code = output.status.code();
            assert!(
                matches!(code, Some(0 | 3 | 4)),
                "{words:?}: {code:?} {said}"
            );
            code == Some(0)
        });
    }

    /// Lets a new incarnation of a node whose disk was lost join, as a learner, and starts it.
    #[track_caller]
    pub(crate) fn replace(&mut self, id: u64) {
        self.operate(&["member", "replace", &id.to_string()]);
        self.start(id);
    }

    /// Makes it a voter when it has caught up.
    #[track_caller]
    pub(crate) fn promote(&self, id: u64) {
        self.operate(&["member", "promote", &id.to_string(), "--wait"]);
    }

    /// A client of its own, whose calls take at most so long.
    pub(crate) fn client(&self, patience: Duration) -> KvClient {
        connect(&self.runtime, &self.at(""), patience)
    }

    #[track_caller]
    pub(crate) fn put(&self, key: &str, value: &str) {
        let put = self.client.put(key.to_owned(), value.to_owned());
        self.runtime.block_on(put).expect("a majority is there");
    }

    #[track_caller]
    pub(crate) fn append(&self, key: &str, value: &str) {
        let append = self.client.append(key.to_owned(), value.to_owned());
        self.runtime.block_on(append).expect("a majority is there");
    }

    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> String {
        let found = self.runtime.block_on(self.client.get(key.to_owned()));
        let found = found.expect("a majority is there");
        found.map_or_else(String::new, |pair| text(&pair.value))
    }

    /// Sets a key and drops all older values: they take no more room than if none were ever kept.
    #[track_caller]
    pub(crate) fn put_without_history(&self, key: &str, value: &str) {
        let put = self.client.put(key.to_owned(), value.to_owned());
        self.write_and_forget(put);
    }

    /// The same with [`Lab::append`].
    #[track_caller]
    pub(crate) fn append_without_history(&self, key: &str, value: &str) {
        let append = self.client.append(key.to_owned(), value.to_owned());
        self.write_and_forget(append);
    }

    #[track_caller]
    fn write_and_forget(&self, write: impl Future<Output = Result<Written, ClientError>>) {
        let written = async { self.client.compact(write.await?.revision).await };
        self.runtime.block_on(written).expect("a majority is there");
    }

    /// Nobody answers a get, because nobody may: waits as long as the suite says.
    #[track_caller]
    pub(crate) fn assert_silent(&self, key: &str) {
        let client = self.client(SILENCE);
        let began = Instant::now();
        let answer = self.runtime.block_on(client.get(key.to_owned()));
        assert!(
            matches!(answer, Err(ClientError::Unavailable { .. })),
            "{answer:?}"
        );
        assert!(
            began.elapsed() >= SILENCE,
            "it waited {:?}",
            began.elapsed()
        );
    }

    /// Bytes of all files in all data directories.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.ids()
            .map(|id| bytes_in(&self.node_dir(id).join("data")))
            .sum()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            // It may have ended; then there is nothing to do.
            let _ = node.kill();
            let _ = node.wait();
        }
        if std::thread::panicking() {
            for id in self.ids() {
                let log = fs::read_to_string(self.node_dir(id).join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let shown = lines[lines.len().saturating_sub(15)..].join("\n");
                eprintln!("the last words of node {id}:\n{shown}");
            }
        }
    }
}

fn connect(runtime: &Runtime, dir: &Path, patience: Duration) -> KvClient {
    let mut config = ClientConfig::load(&dir.join("client.toml")).expect("made");
    config.timeouts.request = patience;
    runtime
        .block_on(KvClient::connect(config))
        .expect("it can be used")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Files come and go meanwhile; one that is gone has no bytes.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Every one of these is in `value` once, and they are in this order.
#[track_caller]
pub(crate) fn assert_in_order(value: &str, appended: &[String]) {
    let mut from = 0;
    for piece in appended {
        let found: Vec<usize> = value.match_indices(piece).map(|(at, _)| at).collect();
        assert_eq!(
            found.len(),
            1,
            "{piece:?} is there {} times: {value}",
            found.len()
        );
        assert!(found[0] >= from, "{piece:?} is out of order: {value}");
        from = found[0] + piece.len();
    }
}
