//! The file log through its public interface, with real sizes.

use std::fs;
use std::time::Instant;

use bytes::Bytes;
use raft_core::{AppendBatch, Entry, EntryKind, Index, LogId, LogStore, Term};
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

/// On a real file system, where whole blocks are written past the page cache: batches of all
/// lengths that end anywhere in a block, read while the next ones are written, and opened again in
/// between.
#[tokio::test]
async fn batches_of_all_lengths_are_read_back_from_a_disk() {
    let dir = disk_dir();
    let options = WalOptions {
        segment_bytes: 8 << 20,
        reserve_bytes: Some(0),
        ..WalOptions::default()
    };
    let lengths = (0..200_u64).map(|n| match n % 50 {
        49 => (1, 5 << 20),
        7 => (2, 300_000),
        23 => (700, 1_000),
        _ => (1 + n % 5, n * 37 % 4_099),
    });
    let mut written = Vec::new();
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
    for ((count, bytes), n) in lengths.zip(0_u8..) {
        let payload = Bytes::from(vec![n; usize::try_from(bytes).unwrap()]);
        let batch = batch(written.len() as u64 + 1, count, &payload);
        written.extend(batch.entries.clone());
        let from = Index(written.len().saturating_sub(12).max(1) as u64);
        let reader = store.reader();
        store.append(batch).await.unwrap();
        let end = Index(written.len() as u64 + 1);
        let read = reader.read(from..end, usize::MAX).await.unwrap();
        assert_eq!(read, written[from.previous().0 as usize..], "batch {n}");
        if n % 40 == 39 {
            drop(store);
            let opened = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
            assert_eq!(opened.1.cut, None);
            store = opened.0;
        }
    }
    let end = Index(written.len() as u64 + 1);
    let read = store.reader().read(Index(1)..end, usize::MAX).await;
    assert_eq!(read.unwrap(), written);
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
