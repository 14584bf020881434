//! Goal: on a real file system that is full, the log says so in time, goes on in its reserve, and
//! recovers by itself.
//!
//! Method: a file system in memory of 1 MiB is mounted, which takes the rights of root. Where that
//! is not possible, the test says so and is skipped.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{AppendBatch, Entry, EntryKind, Index, LogId, LogStore, StorageError, Term};
use raft_storage::{WalLogStore, WalOptions};

use crate::conformance::OWNER;

/// Unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a scratch directory can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "flotilla-test"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            failed => {
                println!("SKIPPED: no small file system can be mounted: {failed:?}");
                None
            }
        }
    }

    /// Leaves no block free.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("ballast");
        let full = fs::write(&path, vec![1; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

async fn append(store: &mut WalLogStore, index: u64) -> Result<(), StorageError> {
    let id = LogId::new(Term(1), Index(index));
    let entry = Entry::new(id, EntryKind::Command, Bytes::from(vec![7; 4_000]));
    let batch = AppendBatch {
        entries: vec![entry],
        ..AppendBatch::default()
    };
    store.append(batch).await
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn open(dir: &Path) -> WalLogStore {
    let options = WalOptions {
        segment_bytes: 64 << 10,
        ..WalOptions::default()
    };
    WalLogStore::open(&dir.join("log"), OWNER, options)
        .unwrap()
        .0
}

#[tokio::test]
async fn a_log_on_a_full_disk_says_so_goes_on_in_its_reserve_and_recovers() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let dir = disk.0.path().to_owned();
    let mut store = open(&dir);
    let reserve = dir.join("log/reserve");
    wait("the reserve is made", || reserve.exists());
    let ballast = disk.fill();
    let mut index = 0;
    let reader = store.reader();
    while reserve.exists() {
        index += 1;
        append(&mut store, index).await.unwrap();
        assert!(index < 100, "the reserve is used");
    }
    // More than half of a segment was written since the disk was full.
    assert!(reader.usage().is_short_of_room);
    fs::remove_file(ballast).unwrap();
    wait("there is room again", || !reader.usage().is_short_of_room);
    assert!(reserve.exists());
    for index in index + 1..index + 40 {
        append(&mut store, index).await.unwrap();
    }
    let last = store.load().await.unwrap().last;
    drop(store);
    let mut store = open(&dir);
    assert_eq!(store.load().await.unwrap().last, last);
    // The rest of the disk, to the end: told, and nothing that was acknowledged is lost.
    let ballast = disk.fill();
    let mut index = last.index.0;
    let failed = loop {
        match append(&mut store, index + 1).await {
            Ok(()) => index += 1,
            Err(failed) => break failed,
        }
    };
    assert!(matches!(failed, StorageError::Full { .. }), "{failed}");
    drop(store);
    fs::remove_file(ballast).unwrap();
    assert_eq!(open(&dir).load().await.unwrap().last.index, Index(index));
}

#[tokio::test]
async fn a_torn_end_is_cut_on_a_disk_that_is_full() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let dir = disk.0.path().join("log");
    let options = WalOptions {
        segment_bytes: 64 << 10,
        reserve_bytes: Some(0),
        ..WalOptions::default()
    };
    let (mut store, _) = WalLogStore::open(&dir, OWNER, options.clone()).unwrap();
    append(&mut store, 1).await.unwrap();
    drop(store);
    let segment = dir.join("00000000000000000001.wal");
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end + 1..end + 9_000].fill(0xab);
    fs::write(&segment, bytes).unwrap();
    let ballast = disk.fill();
    let (mut store, report) = WalLogStore::open(&dir, OWNER, options.clone()).unwrap();
    let cut = report.cut.expect("it is told of");
    assert_eq!(cut.copy, None);
    append(&mut store, 2).await.unwrap();
    drop(store);
    let names = fs::read_dir(&dir).unwrap().map(|file| file.unwrap());
    let torn = names.filter(|file| file.file_name().to_string_lossy().starts_with("torn-"));
    assert_eq!(torn.count(), 0, "half of a copy is no copy");
    fs::remove_file(ballast).unwrap();
    let (mut store, report) = WalLogStore::open(&dir, OWNER, options).unwrap();
    assert_eq!(report.cut, None);
    assert_eq!(store.load().await.unwrap().last.index, Index(2));
}
