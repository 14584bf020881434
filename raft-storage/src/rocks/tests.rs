//! What a log in RocksDB keeps bounded, and what an older version left behind. Buffers are small
//! here, so that little fills them; what holds for every store is in `conformance`.

use std::fs;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use raft_core::{
    AppendBatch, ClusterId, Entry, EntryKind, HardState, Incarnation, Index, LogId, LogStore,
    NodeId, StorageError, Term,
};
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
use rocksdb::{DB, Options, WriteBatch};
use tempfile::TempDir;

use super::keys::{self, LogEnd, OWNER_KEY};
use super::options::{META, database_options};
use super::*;
use crate::hard_state::encode_hard_state;

const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([7; 16]),
    node: NodeId(2),
    incarnation: Incarnation(99),
};
const BUFFER_BYTES: usize = 256 << 10;
const PAYLOAD_BYTES: usize = 1000;
/// About a buffer and a half.
const ROUND_ENTRIES: u64 = 400;

/// In memory where that is possible, as what is asked is what is kept, not how fast.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.unwrap()
}

fn open(dir: &TempDir) -> RocksLogStore {
    RocksLogStore::open_with(&dir.path().join("log"), OWNER, true, BUFFER_BYTES).unwrap()
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn batch(term: u64, indexes: Range<u64>) -> AppendBatch {
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let entry = |index| Entry::new(id(term, index), EntryKind::Command, payload.clone());
    AppendBatch {
        entries: indexes.map(entry).collect(),
        ..AppendBatch::default()
    }
}

/// Appends a round behind `last`, in some batches, and gives the new last index.
async fn append_round(store: &mut RocksLogStore, last: u64) -> u64 {
    let end = last + ROUND_ENTRIES;
    for first in (last + 1..=end).step_by(20) {
        store.append(batch(1, first..first + 20)).await.unwrap();
    }
    end
}

/// Waits until nothing is flushed or moved.
fn settle(db: &DB) {
    let mut options = rocksdb::WaitForCompactOptions::default();
    options.set_timeout(60_000_000);
    db.wait_for_compact(&options).unwrap();
}

/// The files of the entries.
fn entry_files(db: &DB) -> Vec<rocksdb::LiveFile> {
    let files = db.live_files().unwrap().into_iter();
    files
        .filter(|file| file.column_family_name != META)
        .collect()
}

fn bytes_in(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// What RocksDB passes over to read the first entry.
fn skipped_by_a_read(store: &RocksLogStore, first: u64) -> u64 {
    set_perf_stats(PerfStatsLevel::EnableCount);
    let mut context = PerfContext::default();
    context.reset();
    let snapshot = store.shared.db.snapshot();
    let range = Index(first)..Index(first + 1);
    let read = store.shared.read_at(&snapshot, &range, 0).unwrap();
    assert_eq!(read.len(), 1);
    let metrics = [
        PerfMetric::InternalKeySkippedCount,
        PerfMetric::InternalDeleteSkippedCount,
    ];
    metrics.map(|metric| context.metric(metric)).iter().sum()
}

#[tokio::test]
async fn cycles_of_appends_and_compactions_pile_nothing_up() {
    let dir = scratch();
    let mut store = open(&dir);
    let mut last = 0;
    for _ in 0..60 {
        last = append_round(&mut store, last).await;
        store.compact(id(1, last - 50)).await.unwrap();
    }
    settle(&store.shared.db);
    // One more, so that what became a file meanwhile is removed as well.
    store.compact(id(1, last - 49)).await.unwrap();
    let files = entry_files(&store.shared.db);
    assert!(files.len() <= 3, "{files:?}");
    let tombstones: u64 = files.iter().map(|file| file.num_deletions).sum();
    assert_eq!(tombstones, 0, "{files:?}");
    let skipped = skipped_by_a_read(&store, last - 48);
    assert!(skipped <= 8, "{skipped} keys were passed over");
    // 24 MB went through; what is held is a 50th of a MB. Its own log and its buffers are left.
    let path = dir.path().join("log");
    let held = bytes_in(&path);
    assert!(held < 6 << 20, "{held} bytes are left");
    assert!(store.reader().usage().disk_bytes < 4 << 20);
    drop(store);
    let mut store = open(&dir);
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.start, loaded.last), (id(1, last - 49), id(1, last)));
    assert_eq!(loaded.bytes, 49 * (32 + PAYLOAD_BYTES as u64));
}

#[tokio::test]
async fn the_files_of_a_log_that_only_grows_are_moved_and_not_rewritten() {
    let dir = scratch();
    let mut store = open(&dir);
    let mut last = 0;
    for _ in 0..20 {
        last = append_round(&mut store, last).await;
    }
    settle(&store.shared.db);
    let files = entry_files(&store.shared.db);
    assert!(files.len() >= 10, "{files:?}");
    assert!(files.iter().all(|file| file.level == 1), "{files:?}");
    let told = fs::read_to_string(dir.path().join("log").join("LOG")).unwrap();
    assert!(told.contains(r#""event": "trivial_move""#));
    let rewritten = r#""event": "compaction_started", "cf_name": "default""#;
    assert!(!told.contains(rewritten), "{told}");
}

#[tokio::test]
async fn a_read_that_a_compaction_overtakes_is_out_of_range_and_not_damage() {
    let dir = scratch();
    let mut store = open(&dir);
    let mut last = 0;
    for _ in 0..4 {
        last = append_round(&mut store, last).await;
    }
    settle(&store.shared.db);
    let shared = Arc::clone(&store.shared);
    let snapshot = shared.db.snapshot();
    let range = Index(1)..Index(9);
    let read = shared.read_at(&snapshot, &range, 9_000_000).unwrap();
    assert_eq!(read.len(), 8);
    store.compact(id(1, last)).await.unwrap();
    // The snapshot is older than the compaction, and the files are gone.
    let refused = shared.read_at(&snapshot, &range, 9_000_000);
    assert!(
        matches!(refused, Err(StorageError::OutOfRange { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_reset_leaves_nothing_behind_its_id() {
    for to in [100, ROUND_ENTRIES + 100] {
        let dir = scratch();
        let mut store = open(&dir);
        append_round(&mut store, 0).await;
        store.reset(id(3, to)).await.unwrap();
        drop(store);
        let mut store = open(&dir);
        let loaded = store.load().await.unwrap();
        assert_eq!((loaded.start, loaded.last), (id(3, to), id(3, to)));
        store.append(batch(4, to + 1..to + 3)).await.unwrap();
        let read = store
            .reader()
            .read(Index(to + 1)..Index(to + 99), 9_000_000)
            .await;
        let ids: Vec<_> = read.unwrap().iter().map(Entry::id).collect();
        assert_eq!(ids, [id(4, to + 1), id(4, to + 2)]);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_says_when_the_disk_has_little_room_left() {
    let dir = scratch();
    let store = open(&dir);
    assert!(store.shared.usage_with(u64::MAX).is_short_of_room);
    assert!(!store.shared.usage_with(1).is_short_of_room);
}

/// A database as version 2 wrote it: one family, three entries behind a start.
fn write_version_2(path: &Path, owner: &WalOwner) {
    fs::create_dir_all(path).unwrap();
    let db = DB::open(&database_options(true), path).unwrap();
    let mut writes = WriteBatch::default();
    let mut value = keys::encode_owner(owner);
    value[0] = 2;
    writes.put(OWNER_KEY, value);
    let state = HardState {
        term: Term(5),
        vote: Some(NodeId(1)),
    };
    writes.put(keys::hard_state_key(), encode_hard_state(state));
    writes.put(keys::start_key(), keys::encode_start(id(1, 10)));
    writes.put(keys::run_key(Index(11)), keys::encode_term(Term(2)));
    for entry in batch(2, 11..14).entries {
        let encoded = [&entry.header()[..], entry.payload()].concat();
        writes.put(keys::entry_key(entry.index()), encoded);
    }
    let end = LogEnd {
        last: id(2, 13),
        log_bytes: 3 * (32 + PAYLOAD_BYTES as u64),
    };
    writes.put(keys::last_key(), end.encode());
    db.write(writes).unwrap();
}

#[tokio::test]
async fn a_log_of_version_2_becomes_one_of_this_version() {
    let dir = scratch();
    let path = dir.path().join("log");
    write_version_2(&path, &OWNER);
    for round in 0..2 {
        let mut store = RocksLogStore::open_existing(&path, OWNER).unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!(loaded.hard_state.vote, Some(NodeId(1)));
        assert_eq!((loaded.start, loaded.last), (id(1, 10), id(2, 13 + round)));
        store
            .append(batch(2, 14 + round..15 + round))
            .await
            .unwrap();
        let keys = store.shared.db.iterator(rocksdb::IteratorMode::Start);
        assert!(
            keys.map(Result::unwrap)
                .all(|(key, _)| keys::is_entry_key(&key))
        );
    }
    let other = WalOwner {
        node: NodeId(9),
        ..OWNER
    };
    let refused = RocksLogStore::open_existing(&path, other).map(drop);
    assert!(
        matches!(refused, Err(StorageError::Foreign { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn another_database_is_refused_and_gets_no_family() {
    for owned in [false, true] {
        let dir = scratch();
        let path = dir.path().join("log");
        if owned {
            let other = WalOwner {
                node: NodeId(9),
                ..OWNER
            };
            write_version_2(&path, &other);
        } else {
            fs::create_dir_all(&path).unwrap();
            let db = DB::open(&database_options(true), &path).unwrap();
            db.put(b"user", b"data").unwrap();
        }
        let refused = RocksLogStore::open(&path, OWNER).map(drop);
        assert!(
            matches!(refused, Err(StorageError::Foreign { .. })),
            "{refused:?}"
        );
        let names = DB::list_cf(&Options::default(), &path).unwrap();
        assert_eq!(names, ["default"]);
    }
}

/// One append is one synced batch: whatever is cut off RocksDB's own log, the hard state, the
/// truncation and the entries of a batch are there together, or not at all.
#[tokio::test]
async fn hard_state_truncation_and_entries_of_a_batch_live_and_die_together() {
    let dir = scratch();
    let path = dir.path().join("log");
    let mut store = open(&dir);
    store.append(batch(1, 1..6)).await.unwrap();
    let before = largest_log(&path).1;
    let second = AppendBatch {
        hard_state: Some(HardState {
            term: Term(2),
            vote: Some(NodeId(2)),
        }),
        truncate_from: Some(Index(3)),
        ..batch(2, 3..5)
    };
    store.append(second).await.unwrap();
    let (log, after) = largest_log(&path);
    drop(store);
    for length in [
        before,
        before + 1,
        before + (after - before) / 2,
        after - 1,
        after,
    ] {
        let copy = scratch();
        let target = copy.path().join("log");
        fs::create_dir(&target).unwrap();
        for file in fs::read_dir(&path).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
        let cut = fs::File::options()
            .write(true)
            .open(target.join(&log))
            .unwrap();
        cut.set_len(length).unwrap();
        let mut store = open(&copy);
        let loaded = store.load().await.unwrap();
        let found = (loaded.hard_state.term, loaded.last, loaded.bytes);
        let expected = match length == after {
            true => (Term(2), id(2, 4), 4 * (32 + PAYLOAD_BYTES as u64)),
            false => (Term(0), id(1, 5), 5 * (32 + PAYLOAD_BYTES as u64)),
        };
        assert_eq!(found, expected, "{length} of {after}");
    }
}

/// The name of the largest file of RocksDB's own log, and its length.
fn largest_log(path: &Path) -> (std::ffi::OsString, u64) {
    let files = fs::read_dir(path).unwrap().map(Result::unwrap);
    let logs = files.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
    let sized = logs.map(|file| (file.file_name(), file.metadata().unwrap().len()));
    sized.max_by_key(|(_, bytes)| *bytes).unwrap()
}
