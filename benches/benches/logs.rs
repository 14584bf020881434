//! The log stores side by side, in one run: appends, appends through a node, recovery and the reads
//! of a follower's catch-up. RocksDB is there with `--features rocksdb`.
//!
//! - `logs/append`: one batch of commands of 256 bytes, durable when it returns. The stores are
//!   measured in turns.
//! - `logs/node`: commands of 256 bytes through a node that is alone, by the number of callers that
//!   wait for each of theirs.
//! - `logs/recovery`: open and load a log as a killed process left it, by its entries of 256 bytes.
//!   Nothing of it is in the page cache.
//! - `logs/read`: all of a log in pieces of 1 MiB; `cold` right after such a recovery, `warm` once
//!   more.

use std::time::{Duration, Instant};

use benches::{AgedLog, Cluster, Samples, Storage, entries, id, payload, place};
use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use raft_core::{AppendBatch, LogStore, NodeId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const COMMAND_BYTES: usize = 256;
const SIZES: [(&str, u64); 3] = [("4KiB", 16), ("64KiB", 256), ("1MiB", 4096)];
/// How much is appended between compactions, which are not measured here.
const COMPACT_EVERY_ENTRIES: u64 = 1 << 20;
const CALLERS: [u64; 2] = [1, 64];
const LOGS: [u64; 3] = [10_000, 100_000, 1_000_000];
const READ_ENTRIES: u64 = 1_000_000;
const READ_PIECE_BYTES: usize = 1 << 20;

/// One store that is appended to.
struct Lane {
    storage: Storage,
    store: Box<dyn LogStore>,
    last: u64,
    compacted: u64,
    times: Samples,
    _directory: TempDir,
}

impl Lane {
    fn new(storage: Storage) -> Self {
        let directory = place::scratch();
        Self {
            storage,
            store: storage.open(directory.path(), NodeId(1)),
            last: 0,
            compacted: 0,
            times: Samples::default(),
            _directory: directory,
        }
    }

    async fn append(&mut self, count: u64, payload: &Bytes) -> Duration {
        let batch = AppendBatch {
            entries: entries(self.last, count, payload),
            ..AppendBatch::default()
        };
        let started = Instant::now();
        self.store.append(batch).await.expect("it appends");
        let took = started.elapsed();
        self.times.push(took);
        self.last += count;
        if self.last - self.compacted >= COMPACT_EVERY_ENTRIES {
            self.compacted = self.last - 1;
            let compacted = self.store.compact(id(self.compacted)).await;
            compacted.expect("it compacts");
        }
        took
    }
}

fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let payload = payload(COMMAND_BYTES);
    let mut report = vec![format!(
        "appends, in {}",
        place::describe(place::scratch().path())
    )];
    for (name, count) in SIZES {
        let mut lanes: Vec<_> = Storage::DURABLE.iter().copied().map(Lane::new).collect();
        let mut group = criterion.benchmark_group(format!("logs/append/{name}"));
        group.throughput(Throughput::Bytes(count * COMMAND_BYTES as u64));
        group.sample_size(20);
        group.warm_up_time(Duration::from_secs(1));
        group.measurement_time(Duration::from_secs(3));
        for reported in 0..lanes.len() {
            let name = lanes[reported].storage.name();
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                let (lanes, payload) = (&mut lanes, &payload);
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        for (position, lane) in lanes.iter_mut().enumerate() {
                            let took = runtime.block_on(lane.append(count, payload));
                            if position == reported {
                                total += took;
                            }
                        }
                    }
                    total
                });
            });
        }
        group.finish();
        report.extend(lanes.iter().map(|lane| {
            let micros = |share| lane.times.quantile(share).as_micros();
            let (storage, count) = (lane.storage.name(), lane.times.count());
            format!(
                "{name:>6} {storage:>8}: median {} us, p99 {} us, {count} appends",
                micros(0.5),
                micros(0.99)
            )
        }));
    }
    println!("{}", report.join("\n"));
}

fn node(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("logs/node");
    group.throughput(Throughput::Elements(1));
    group.sample_size(10);
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3));
    for callers in CALLERS {
        for storage in Storage::DURABLE.iter().copied() {
            let cluster = runtime.block_on(Cluster::start_alone(storage));
            let leader = runtime.block_on(cluster.leader(None));
            let name = BenchmarkId::new(format!("callers/{callers}"), storage.name());
            group.bench_function(name, |bencher| {
                bencher
                    .to_async(&runtime)
                    .iter_custom(|count| cluster.load(leader, count, callers, COMMAND_BYTES));
            });
            runtime.block_on(cluster.stop());
        }
    }
    group.finish();
}

fn recovery(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for entries in LOGS {
        let mut group = criterion.benchmark_group(format!("logs/recovery/{entries}"));
        group.throughput(Throughput::Elements(entries));
        group.sampling_mode(SamplingMode::Flat);
        group.sample_size(10);
        group.warm_up_time(Duration::from_millis(1));
        group.measurement_time(Duration::from_secs(1));
        for storage in Storage::DURABLE.iter().copied() {
            let payload = payload(COMMAND_BYTES);
            let log = runtime.block_on(AgedLog::make(storage, entries, &payload));
            group.bench_function(BenchmarkId::from_parameter(storage.name()), |bencher| {
                bencher.iter_custom(|rounds| {
                    let once = |_| runtime.block_on(log.recover()).0;
                    (0..rounds).map(once).sum()
                });
            });
        }
        group.finish();
    }
}

fn read(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let payload = payload(COMMAND_BYTES);
    for warm in [false, true] {
        let kind = if warm { "warm" } else { "cold" };
        let mut group = criterion.benchmark_group(format!("logs/read/{kind}"));
        group.sampling_mode(SamplingMode::Flat);
        group.sample_size(10);
        group.warm_up_time(Duration::from_millis(1));
        group.measurement_time(Duration::from_secs(1));
        for storage in Storage::DURABLE.iter().copied() {
            let log = runtime.block_on(AgedLog::make(storage, READ_ENTRIES, &payload));
            let once = async || {
                let (_, store, directory) = log.recover().await;
                benches::forget(directory.path()).expect("the page cache is dropped");
                if warm {
                    log.read(&*store, READ_PIECE_BYTES).await;
                }
                log.read(&*store, READ_PIECE_BYTES).await
            };
            let (_, bytes) = runtime.block_on(once());
            group.throughput(Throughput::Bytes(bytes));
            group.bench_function(BenchmarkId::from_parameter(storage.name()), |bencher| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| runtime.block_on(once()).0).sum());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, append, node, recovery, read);
criterion_main!(benches);
