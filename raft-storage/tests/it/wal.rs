//! The file log through its public interface, with real sizes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use raft_core::{AppendBatch, Entry, EntryKind, Index, LogId, LogReader, LogStore, Term};
use raft_storage::{WalLogStore, WalOptions};

use crate::conformance::{OWNER, disk_dir, scratch_dir};

fn batch(first: u64, count: u64, payload: &Bytes) -> AppendBatch {
    let ids = (first..first + count).map(|index| LogId::new(Term(1), Index(index)));
    AppendBatch {
        entries: ids
            .map(|id| Entry::new(id, EntryKind::Command, payload.clone()))
            .collect(),
        ..AppendBatch::default()
    }
}

#[tokio::test]
async fn directories_are_made_and_segments_have_their_size_at_once() {
    let dir = scratch_dir();
    let path = dir.path().join("node-1/data/wal");
    let options = WalOptions {
        reserve_bytes: Some(0),
        ..WalOptions::default()
    };
    let (store, report) = WalLogStore::open(&path, OWNER, options).unwrap();
    assert_eq!((report.segments, report.records), (0, 0));
    let segment = fs::metadata(path.join("00000000000000000001.wal")).unwrap();
    assert_eq!(segment.len(), 64 << 20);
    assert_eq!(store.reader().usage().disk_bytes, 64 << 20);
}

#[tokio::test]
async fn an_entry_larger_than_a_segment_gets_a_segment_of_its_own() {
    let dir = scratch_dir();
    let options = WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        ..WalOptions::default()
    };
    let payload = Bytes::from(vec![7; 100_000]);
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
    store.append(batch(1, 1, &payload)).await.unwrap();
    let segment = fs::metadata(dir.path().join("00000000000000000002.wal")).unwrap();
    assert_eq!(segment.len() % 4096, 0);
    assert!(segment.len() > 100_000);
    drop(store);
    let (store, report) = WalLogStore::open(dir.path(), OWNER, options).unwrap();
    // The first one holds no entry, so it is gone.
    assert_eq!(report.segments, 1);
    let read = store.reader().read(Index(1)..Index(2), 0).await.unwrap();
    assert_eq!(read[0].payload(), &payload);
}

/// Reads the newest of `written` again and again, until there is nobody else who has it.
async fn read_on(reader: Arc<dyn LogReader>, written: Arc<Mutex<Vec<Entry>>>) -> u64 {
    let mut reads = 0;
    while Arc::strong_count(&written) > 1 {
        let newest = {
            let written = written.lock().unwrap();
            written[written.len().saturating_sub(12)..].to_vec()
        };
        if let [first, .., last] = &newest[..] {
            let range = first.index()..last.index().next();
            let read = reader.read(range, usize::MAX).await.unwrap();
            assert_eq!(read, newest);
            reads += 1;
        }
        tokio::task::yield_now().await;
    }
    reads
}

/// On a real file system, where whole blocks are written past the page cache: batches of all
/// lengths that end anywhere in a block, read while the next ones are written, and opened again in
/// between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_all_lengths_are_read_back_from_a_disk() {
    let dir = disk_dir();
    let options = WalOptions {
        segment_bytes: 8 << 20,
        reserve_bytes: Some(0),
        ..WalOptions::default()
    };
    let lengths = |n: u64| match n % 50 {
        49 => (1, 5 << 20),
        7 => (2, 300_000),
        23 => (700, 1_000),
        _ => (1 + n % 5, n * 37 % 4_099),
    };
    let written = Arc::new(Mutex::new(Vec::new()));
    for opening in 0..5_u64 {
        let opened = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
        let (mut store, report) = opened;
        assert_eq!(report.cut, None);
        let shared = Arc::new(Mutex::new(written.lock().unwrap().clone()));
        let reading = tokio::spawn(read_on(store.reader(), Arc::clone(&shared)));
        for n in 40 * opening..40 * opening + 40 {
            let (count, bytes) = lengths(n);
            let fill = u8::try_from(n).unwrap();
            let payload = Bytes::from(vec![fill; usize::try_from(bytes).unwrap()]);
            let first = shared.lock().unwrap().len() as u64 + 1;
            let batch = batch(first, count, &payload);
            let entries = batch.entries.clone();
            store.append(batch).await.unwrap();
            shared.lock().unwrap().extend(entries);
        }
        written.lock().unwrap().clone_from(&shared.lock().unwrap());
        drop(shared);
        assert!(reading.await.unwrap() > 0);
    }
    let written = written.lock().unwrap().clone();
    let (store, _) = WalLogStore::open(dir.path(), OWNER, options).unwrap();
    let end = Index(written.len() as u64 + 1);
    let read = store.reader().read(Index(1)..end, usize::MAX).await;
    assert_eq!(read.unwrap(), written);
}

/// Entries that just fit, or just do not, in a record and in a segment.
#[tokio::test]
async fn entries_at_the_limits_of_records_and_segments_are_read_back() {
    const RECORD: usize = 64 << 10;
    let small = WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        reserve_bytes: Some(0),
        ..WalOptions::default()
    };
    let large = WalOptions {
        segment_bytes: 1 << 20,
        ..small.clone()
    };
    // Payloads of one batch. A record has 8 bytes for their count and 8 for each head.
    let around = |limit: usize| limit - 10..limit + 10;
    let front = |count: usize| 8 + 8 * count;
    let mut cases: Vec<(&WalOptions, Vec<usize>)> = Vec::new();
    for (count, rest) in [(1, vec![]), (3, vec![104, 5]), (2, vec![1])] {
        for bytes in around(RECORD - front(count) - rest.iter().sum::<usize>()) {
            cases.push((&large, [&[bytes][..], &rest].concat()));
        }
    }
    // The first segment has 4,096 bytes for records, of which 72 are the first vote, 48 the header
    // of the record and 48 the seal.
    let room = 4_096 - 72 - 48 - 48;
    for (count, rest) in [(1, vec![]), (3, vec![1_000, 7])] {
        for bytes in around(room - front(count) - rest.iter().sum::<usize>()) {
            cases.push((&small, [&[bytes][..], &rest].concat()));
        }
    }
    // Bytes of a segment, entries, and what the log has then: both sides of each limit are there,
    // but for one entry alone, which has one record however large it is.
    let mut made = BTreeSet::new();
    for (options, lengths) in cases {
        let dir = scratch_dir();
        let entries: Vec<_> = lengths
            .iter()
            .zip(1..)
            .map(|(length, index)| {
                let id = LogId::new(Term(1), Index(index));
                Entry::new(id, EntryKind::Command, Bytes::from(vec![9; *length]))
            })
            .collect();
        let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
        let batch = AppendBatch {
            entries: entries.clone(),
            ..AppendBatch::default()
        };
        store.append(batch).await.unwrap();
        let end = Index(entries.len() as u64 + 1);
        let read = store.reader().read(Index(1)..end, usize::MAX).await;
        assert_eq!(read.unwrap(), entries, "{lengths:?}");
        drop(store);
        let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
        assert_eq!(report.cut, None, "{lengths:?}");

        let (records, segments) = (report.records, report.segments);
        made.insert((options.segment_bytes, lengths.len(), records, segments));
        let read = store.reader().read(Index(1)..end, usize::MAX).await;
        assert_eq!(read.unwrap(), entries, "{lengths:?}");
        // And on behind it.
        let next = AppendBatch {
            entries: vec![Entry::new(
                LogId::new(Term(1), end),
                EntryKind::Noop,
                Bytes::new(),
            )],
            ..AppendBatch::default()
        };
        store.append(next).await.unwrap();
        drop(store);
        let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
        assert_eq!(store.load().await.unwrap().last.index, end, "{lengths:?}");
    }
    let expected = [
        (large.segment_bytes, 1, 3, 1),
        (large.segment_bytes, 2, 3, 1),
        (large.segment_bytes, 2, 4, 1),
        (large.segment_bytes, 3, 3, 1),
        (large.segment_bytes, 3, 4, 1),
        (small.segment_bytes, 1, 2, 1),
        // In a longer segment of its own; the first one is gone.
        (small.segment_bytes, 1, 4, 1),
        (small.segment_bytes, 3, 2, 1),
        (small.segment_bytes, 3, 7, 2),
    ];
    assert_eq!(made, BTreeSet::from(expected));
}

/// Prints how long it takes to write 1 GiB of 4 KiB entries, to open the log and to read it.
#[tokio::test]
#[ignore = "writes 1 GiB"]
async fn a_gibibyte_opens_within_seconds() {
    let dir = disk_dir();
    let payload = Bytes::from(vec![5; 4096 - 32]);
    let started = Instant::now();
    let options = WalOptions::default();
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
    for round in 0..1024 {
        store
            .append(batch(round * 256 + 1, 256, &payload))
            .await
            .unwrap();
    }
    println!("written in {:?}", started.elapsed());
    drop(store);
    let (store, report) = WalLogStore::open(dir.path(), OWNER, options).unwrap();
    println!("{report:?}");
    assert!(report.duration.as_secs() < 5);
    let (started, reader) = (Instant::now(), store.reader());
    let mut next = Index(1);
    while next <= Index(1024 * 256) {
        let read = reader.read(next..Index(u64::MAX), 1 << 20).await.unwrap();
        next = next.plus(read.len() as u64);
    }
    println!("read in {:?}", started.elapsed());
}

/// Prints how long small synced appends take.
#[tokio::test]
#[ignore = "a measurement"]
async fn append_latency() {
    let dir = disk_dir();
    let options = WalOptions::default();
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options).unwrap();
    for bytes in [128, 4096 - 32, (64 << 10) - 32, (1 << 20) - 32] {
        let payload = Bytes::from(vec![5; bytes]);
        let mut took = Vec::new();
        for _ in 0..300 {
            let last = store.load().await.unwrap().last.index;
            let batch = batch(last.0 + 1, 1, &payload);
            let started = Instant::now();
            store.append(batch).await.unwrap();
            took.push(started.elapsed());
        }
        took.sort_unstable();
        println!("{bytes} bytes: median {:?}, p99 {:?}", took[150], took[297]);
    }
}
