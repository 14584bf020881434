//! How much disk does an acknowledged byte take? Keys are overwritten through a node that is alone,
//! with the state machine, the snapshots and the compaction that a node has by default, at full
//! speed, until as much is acknowledged as in an hour at 1,000 operations a second. The process
//! counts what is on the disk while it runs and at its end, and what it wrote.
//!
//! ```sh
//! cargo run -p benches --release --example space [OPERATIONS] [STORAGE]
//! ```
//!
//! Acknowledged bytes are keys and values. A store at a time: what a process wrote is told as a
//! whole.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use benches::{Cluster, Storage, payload, place};
use bytes::Bytes;
use kv_api::codec;
use kv_api::command::{Command, WriteOp};
use kv_service::state_machine::KvStateMachine;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// One hour at 1,000 a second.
const OPERATIONS: u64 = 3_600_000;
const KEYS: u64 = 10_000;
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 256;
const CALLERS: u64 = 256;
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let operations = arguments.next().map_or(OPERATIONS, |argument| {
        argument.parse().expect("a number of operations")
    });
    let wanted = arguments.next();
    let runtime = Runtime::new().expect("a runtime");
    println!(
        "{operations} overwrites of {KEYS} keys, {KEY_BYTES} + {VALUE_BYTES} bytes, in {}",
        place::describe(place::scratch().path())
    );
    for storage in Storage::DURABLE.iter().copied() {
        if wanted.as_ref().is_none_or(|name| name == storage.name()) {
            println!("{}", runtime.block_on(run(storage, operations)));
        }
    }
}

async fn run(storage: Storage, operations: u64) -> String {
    let machine = Box::new(KvStateMachine::new());
    let cluster = Cluster::start_alone_with(storage, machine).await;
    let leader = cluster.leader(None).await;
    let (stop, stopped) = sync_channel::<()>(0);
    let directory = cluster.directory().to_owned();
    let watcher = thread::spawn(move || {
        let mut at_most = 0;
        while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            at_most = disk_bytes(&directory).max(at_most);
        }
        at_most
    });
    let written_before = written_bytes();
    let started = Instant::now();
    let mut callers = JoinSet::new();
    let value = payload(VALUE_BYTES);
    for caller in 0..CALLERS {
        let (node, value) = (cluster.node(leader).clone(), value.clone());
        callers.spawn(async move {
            for operation in (caller..operations).step_by(CALLERS as usize) {
                let command = overwrite(operation % KEYS, &value);
                node.propose(command).await.expect("the leader commits");
            }
        });
    }
    while let Some(finished) = callers.join_next().await {
        finished.expect("no caller panics");
    }
    let took = started.elapsed();
    let at_end = disk_bytes(cluster.directory());
    drop(stop);
    let at_most = watcher
        .join()
        .expect("the watcher does not panic")
        .max(at_end);
    let written = written_bytes().saturating_sub(written_before);
    let compactions = cluster.node(leader).status().metrics.compactions;
    cluster.stop().await;
    let acknowledged = operations * (KEY_BYTES + VALUE_BYTES) as u64;
    report(storage, acknowledged, at_most, at_end, written, took)
        + &format!("; {compactions} compactions")
}

fn overwrite(key: u64, value: &Bytes) -> Bytes {
    let key = format!("{key:0KEY_BYTES$}");
    let op = WriteOp::Put {
        key: key.into(),
        value: value.clone(),
    };
    codec::encode(&Command::Write { stamp: None, op }).into()
}

fn report(
    storage: Storage,
    acknowledged: u64,
    at_most: u64,
    at_end: u64,
    written: u64,
    took: Duration,
) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for a ratio of two digits")]
    let ratio = |bytes: u64| bytes as f64 / acknowledged as f64;
    let mebibytes = |bytes: u64| bytes >> 20;
    format!(
        "{:>8}: acknowledged {} MiB in {:.0} s; on the disk at most {} MiB ({:.2}), at the end \
         {} MiB ({:.2}); written {} MiB ({:.2} per acknowledged byte)",
        storage.name(),
        mebibytes(acknowledged),
        took.as_secs_f64(),
        mebibytes(at_most),
        ratio(at_most),
        mebibytes(at_end),
        ratio(at_end),
        mebibytes(written),
        ratio(written),
    )
}

/// What the files below a directory take on the disk. Files come and go meanwhile.
fn disk_bytes(directory: &Path) -> u64 {
    let Ok(found) = fs::read_dir(directory) else {
        return 0;
    };
    let bytes = found.flatten().map(|found| match found.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&found.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// What this process caused to be written to disks so far; 0 where the system does not tell.
fn written_bytes() -> u64 {
    let told = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok())
        .unwrap_or_default()
}
