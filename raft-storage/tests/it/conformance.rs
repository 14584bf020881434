//! Every store passes the one suite.

use std::path::{Path, PathBuf};

use raft_core::{ClusterId, Incarnation, NodeId};
use raft_storage::conformance::{self, Place};
use raft_storage::{MemoryLogStore, WalLogStore, WalOptions, WalOwner};

pub(crate) const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([7; 16]),
    node: NodeId(2),
    incarnation: Incarnation(99),
};

/// A directory for a log, in one for its snapshots as well.
pub(crate) struct ScratchDir {
    path: PathBuf,
    _outer: tempfile::TempDir,
}

impl ScratchDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// In memory where that is possible: the suite asks what is stored, not how fast.
pub(crate) fn scratch_dir() -> ScratchDir {
    let memory = Path::new("/dev/shm");
    scratch_dir_in(if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    })
}

/// On a disk.
pub(crate) fn disk_dir() -> ScratchDir {
    scratch_dir_in(tempfile::tempdir())
}

fn scratch_dir_in(outer: std::io::Result<tempfile::TempDir>) -> ScratchDir {
    let outer = outer.expect("a scratch directory can be made");
    let path = outer.path().join("log");
    std::fs::create_dir(&path).expect("a directory can be made in it");
    ScratchDir {
        path,
        _outer: outer,
    }
}

fn wal_place(segment_bytes: u64) -> Place {
    let dir = scratch_dir();
    Box::new(move || {
        let options = WalOptions {
            segment_bytes,
            ..WalOptions::default()
        };
        let (store, report) = WalLogStore::open(dir.path(), OWNER, options)?;
        assert_eq!(report.cut, None);
        Ok(Box::new(store))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(|| {
        let log = MemoryLogStore::new();
        Box::new(move || Ok(Box::new(log.clone())))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_with_tiny_segments_conforms() {
    conformance::run(|| wal_place(WalOptions::SEGMENT_BYTES_MIN)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_with_middling_segments_conforms() {
    conformance::run(|| wal_place(1 << 20)).await;
}

#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_conforms() {
    conformance::run(|| {
        let dir = scratch_dir();
        Box::new(move || {
            let store = raft_storage::RocksLogStore::open(dir.path(), OWNER)?;
            Ok(Box::new(store))
        })
    })
    .await;
}
