//! What the log in RocksDB refuses.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft_core::{
    AppendBatch, ClusterId, Entry, EntryKind, Incarnation, Index, LogId, LogStore, NodeId,
    StorageError, Term,
};
use raft_storage::{RocksLogStore, WalOwner};

use crate::conformance::{OWNER, scratch_dir};

async fn write_log(dir: &Path) {
    let mut store = RocksLogStore::open(dir, OWNER).unwrap();
    for index in 1..=20 {
        let id = LogId::new(Term(1), Index(index));
        let payload = Bytes::from(vec![7; 3_000]);
        let entries = vec![Entry::new(id, EntryKind::Command, payload)];
        let batch = AppendBatch {
            entries,
            ..AppendBatch::default()
        };
        store.append(batch).await.unwrap();
    }
}

/// The largest file with this ending.
fn largest(dir: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.to_string_lossy().ends_with(ending));
    files
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

fn flip_the_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn another_owner_is_refused() {
    let dir = scratch_dir();
    write_log(dir.path()).await;
    let others = [
        WalOwner {
            cluster: ClusterId([1; 16]),
            ..OWNER
        },
        WalOwner {
            node: NodeId(1),
            ..OWNER
        },
        WalOwner {
            incarnation: Incarnation(1),
            ..OWNER
        },
    ];
    for owner in others {
        let refused = RocksLogStore::open(dir.path(), owner).map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Foreign { .. })),
            "{refused:?}"
        );
    }
    RocksLogStore::open_existing(dir.path(), OWNER).unwrap();
}

#[tokio::test]
async fn a_log_that_must_exist_is_not_made() {
    let dir = scratch_dir();
    let refused = RocksLogStore::open_existing(dir.path(), OWNER).map(|_| ());
    assert!(
        matches!(refused, Err(StorageError::Foreign { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_log_is_open_once() {
    let dir = scratch_dir();
    let first = RocksLogStore::open(dir.path(), OWNER).unwrap();
    assert!(RocksLogStore::open(dir.path(), OWNER).is_err());
    drop(first);
    RocksLogStore::open(dir.path(), OWNER).unwrap();
}

#[tokio::test]
async fn damage_in_the_middle_of_its_own_log_is_refused() {
    let dir = scratch_dir();
    write_log(dir.path()).await;
    flip_the_middle(&largest(dir.path(), ".log"));
    let refused = RocksLogStore::open(dir.path(), OWNER).map(|_| ());
    assert!(
        matches!(refused, Err(StorageError::Damaged { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn damage_in_a_table_is_refused_when_it_is_read() {
    let dir = scratch_dir();
    write_log(dir.path()).await;
    // Opening once more moves what was in the log into a table.
    drop(RocksLogStore::open(dir.path(), OWNER).unwrap());
    flip_the_middle(&largest(dir.path(), ".sst"));
    let refused = match RocksLogStore::open(dir.path(), OWNER) {
        Ok(store) => store.reader().read(Index(1)..Index(21), usize::MAX).await,
        Err(error) => Err(error),
    };
    assert!(
        matches!(refused, Err(StorageError::Damaged { .. })),
        "{refused:?}"
    );
}
