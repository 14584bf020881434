//! Opens the log store that a configuration names, and reports what was found in it.

use std::path::Path;
use std::time::{Duration, Instant};

use raft_core::{LogStore, StorageError};
use raft_storage::{MemoryLogStore, RecoveryReport, WalLogStore, WalOptions, WalOwner};

use crate::config::StorageKind;
use crate::identity::Owner;

/// A log store that is ready to be loaded.
pub(super) struct OpenedLog {
    pub(super) store: Box<dyn LogStore>,
    /// How long opening took.
    pub(super) duration: Duration,
}

/// Opens a log store; may take as long as it takes to read the whole log. Only at a node's first
/// start may there be none.
pub(super) fn open(
    storage: StorageKind,
    path: &Path,
    owner: Owner,
    is_first_start: bool,
) -> Result<OpenedLog, StorageError> {
    let started = Instant::now();
    let owner = WalOwner {
        cluster: owner.cluster,
        node: owner.node,
        incarnation: owner.incarnation,
    };
    let store: Box<dyn LogStore> = match storage {
        StorageKind::Memory => Box::new(MemoryLogStore::new()),
        StorageKind::Rocksdb => open_rocksdb(path, owner, is_first_start)?,
        StorageKind::File => {
            let options = WalOptions {
                create: is_first_start,
                ..WalOptions::default()
            };
            let (store, report) = WalLogStore::open(path, owner, options)?;
            tell(path, &report);
            Box::new(store)
        }
    };
    Ok(OpenedLog {
        store,
        duration: started.elapsed(),
    })
}

#[cfg(feature = "rocksdb")]
fn open_rocksdb(
    path: &Path,
    owner: WalOwner,
    is_first_start: bool,
) -> Result<Box<dyn LogStore>, StorageError> {
    let store = if is_first_start {
        raft_storage::RocksLogStore::open(path, owner)?
    } else {
        raft_storage::RocksLogStore::open_existing(path, owner)?
    };
    Ok(Box::new(store))
}

#[cfg(not(feature = "rocksdb"))]
fn open_rocksdb(
    path: &Path,
    _owner: WalOwner,
    _is_first_start: bool,
) -> Result<Box<dyn LogStore>, StorageError> {
    Err(StorageError::Foreign {
        path: path.display().to_string(),
        what: "is a RocksDB log, and this program was built without RocksDB".to_owned(),
    })
}

/// Tells what was read. A tail that was cut has been told by the log itself.
fn tell(path: &Path, report: &RecoveryReport) {
    let path = path.display();
    tracing::info!(
        %path,
        segments = report.segments,
        records = report.records,
        bytes = report.bytes,
        open_ms = report.duration.as_millis(),
        "opened the log"
    );
}
