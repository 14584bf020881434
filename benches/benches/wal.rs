//! How much of what the disk can do does the file log reach? Batches of 4 KiB, 64 KiB and 1 MiB
//! go through the `LogStore` of the file log and, in turns with it, as one write and one sync each
//! into a recycled file: that is the ceiling. At the end the ratio of the medians is printed.
//!
//! A batch is full of commands of 256 bytes, of 4 KiB, or is one command. Its size is that of the
//! payloads; what the log adds (8 bytes of an entry, 56 of a record) comes on top, and counts
//! against it. `thread` is the ceiling behind a thread of its own, without any work there:
//! what it costs that the caller is a task which may not block.

use std::time::{Duration, Instant};

use benches::{RawFile, RawThread, Samples, Storage, entries, id, payload, place};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft_core::{AppendBatch, LogStore, NodeId};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SIZES: [(&str, usize); 3] = [("4KiB", 4 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20)];
/// How much is appended between compactions, which are not measured here.
const COMPACT_EVERY_BYTES: usize = 256 << 20;
/// What the file log promises.
const WANTED_PERCENT: f64 = 80.0;

/// Which of the three a bench reports; all are run in turns for each.
#[derive(Clone, Copy)]
enum Which {
    Log,
    Thread,
    Ceiling,
}

/// One size and shape of batches.
struct Contest {
    store: Box<dyn LogStore>,
    raw: RawFile,
    thread: RawThread,
    payload: Bytes,
    count: u64,
    bytes: Bytes,
    last: u64,
    since_compaction: usize,
    log_times: Samples,
    thread_times: Samples,
    raw_times: Samples,
    _directories: [TempDir; 3],
}

impl Contest {
    fn start(batch_bytes: usize, command_bytes: usize) -> Self {
        let directories = [place::scratch(), place::scratch(), place::scratch()];
        let raw = |directory: &TempDir| RawFile::create(directory.path()).expect("a file");
        Self {
            store: Storage::File.open(directories[0].path(), NodeId(1)),
            raw: raw(&directories[1]),
            thread: RawThread::start(raw(&directories[2])).expect("a thread"),
            payload: payload(command_bytes),
            count: u64::try_from(batch_bytes / command_bytes).expect("a small number"),
            bytes: payload(batch_bytes),
            last: 0,
            since_compaction: 0,
            log_times: Samples::default(),
            thread_times: Samples::default(),
            raw_times: Samples::default(),
            _directories: directories,
        }
    }

    async fn run(&mut self, rounds: u64, which: Which) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..rounds {
            let log = self.log_once().await;
            let thread = self.thread_once().await;
            let ceiling = self.raw_once();
            total += match which {
                Which::Log => log,
                Which::Thread => thread,
                Which::Ceiling => ceiling,
            };
        }
        total
    }

    async fn log_once(&mut self) -> Duration {
        let batch = AppendBatch {
            entries: entries(self.last, self.count, &self.payload),
            ..AppendBatch::default()
        };
        let started = Instant::now();
        self.store.append(batch).await.expect("it appends");
        let took = started.elapsed();
        self.log_times.push(took);
        self.last += self.count;
        self.since_compaction += self.bytes.len();
        if self.since_compaction >= COMPACT_EVERY_BYTES {
            let to = id(self.last - 1);
            self.store.compact(to).await.expect("it compacts");
            self.since_compaction = 0;
        }
        took
    }

    async fn thread_once(&mut self) -> Duration {
        let started = Instant::now();
        let written = self.thread.write(self.bytes.clone()).await;
        written.expect("it writes");
        let took = started.elapsed();
        self.thread_times.push(took);
        took
    }

    fn raw_once(&mut self) -> Duration {
        let started = Instant::now();
        self.raw.write(&self.bytes).expect("it writes");
        let took = started.elapsed();
        self.raw_times.push(took);
        took
    }

    fn report(&self, name: &str) -> String {
        let percent = self.log_times.percent_of(&self.raw_times);
        let verdict = if percent >= WANTED_PERCENT {
            "reached"
        } else {
            "NOT reached"
        };
        let micros = |samples: &Samples, share: f64| samples.quantile(share).as_micros();
        format!(
            "{name:<22} {percent:5.1} % of the ceiling ({verdict}: {WANTED_PERCENT} %), \
             {:5.1} % by total time, {:5.1} % of the ceiling behind a thread; \
             median us: log {}, thread {}, ceiling {}; p99 us: {}, {}, {}; {} rounds",
            self.log_times.percent_of_by_total(&self.raw_times),
            self.log_times.percent_of(&self.thread_times),
            micros(&self.log_times, 0.5),
            micros(&self.thread_times, 0.5),
            micros(&self.raw_times, 0.5),
            micros(&self.log_times, 0.99),
            micros(&self.thread_times, 0.99),
            micros(&self.raw_times, 0.99),
            self.log_times.count(),
        )
    }
}

/// What the commands of a batch may be: small, middling, one; by name and bytes.
fn shapes(batch_bytes: usize) -> Vec<(&'static str, usize)> {
    let shapes = [("256B", 256), ("4KiB", 4 << 10), ("one", batch_bytes)];
    let differs = |(name, bytes): &(&str, usize)| *name == "one" || *bytes < batch_bytes;
    shapes.into_iter().filter(differs).collect()
}

fn wal(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut reports = vec![place::describe(place::scratch().path())];
    for (name, batch_bytes) in SIZES {
        for (shape, command_bytes) in shapes(batch_bytes) {
            let mut contest = Contest::start(batch_bytes, command_bytes);
            let mut group = criterion.benchmark_group(format!("wal/{name}/{shape}"));
            group.throughput(Throughput::Bytes(batch_bytes as u64));
            group.sample_size(20);
            group.warm_up_time(Duration::from_secs(1));
            group.measurement_time(Duration::from_secs(3));
            for (series, which) in [
                ("log", Which::Log),
                ("thread", Which::Thread),
                ("ceiling", Which::Ceiling),
            ] {
                group.bench_function(BenchmarkId::from_parameter(series), |bencher| {
                    let contest = &mut contest;
                    bencher.iter_custom(|rounds| runtime.block_on(contest.run(rounds, which)));
                });
            }
            group.finish();
            // Not those that the command line left out.
            if contest.log_times.count() > 0 {
                reports.push(contest.report(&format!("{name} of {shape}")));
            }
            // Its threads end before the next one is measured.
            drop(contest);
        }
    }
    println!("wal against the ceiling, in {}", reports.join("\n"));
}

criterion_group!(benches, wal);
criterion_main!(benches);
