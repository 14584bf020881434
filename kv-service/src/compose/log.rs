//! Opens the log store that a configuration names, and reports what was found in it.

use std::path::Path;
use std::time::{Duration, Instant};

use raft_core::{LogStore, SnapshotMeta, SnapshotStore, StorageError};
use raft_storage::snapshot_file::SnapshotFileReader;
use raft_storage::{MemoryLogStore, RecoveryReport, WalLogStore, WalOptions, WalOwner};

use crate::config::StorageKind;
use crate::identity::Owner;

/// A log store that is ready to be loaded.
pub(super) struct OpenedLog {
    pub(super) store: Box<dyn LogStore>,
    /// How long opening took.
    pub(super) duration: Duration,
}

/// What is known of a node whose log is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    /// It was never started, so there may be no log.
    pub(super) is_first_start: bool,
    /// Others may have what a damaged log lost, so it is opened without that.
    pub(super) has_others: bool,
    /// Bytes of a segment of the file log.
    pub(super) segment_bytes: u64,
}

/// Gives a node that has never run a snapshot to begin with: its log store, empty, and beside it
/// the snapshot. When the node starts, it finds that the log goes on behind the snapshot. Blocks
/// its thread.
pub(crate) fn begin_with(
    storage: StorageKind,
    path: &Path,
    owner: Owner,
    meta: SnapshotMeta,
    content: SnapshotFileReader,
) -> Result<(), StorageError> {
    let work = async {
        let opening = Opening {
            is_first_start: true,
            has_others: false,
            segment_bytes: WalOptions::default().segment_bytes,
        };
        let log = open(storage, path, owner, opening)?;
        copy(log.store.snapshots().as_ref(), meta, content).await
    };
    // A runtime of its own, on a thread of its own: whoever calls this may be in one already.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.map_err(|error| StorageError::Io {
                operation: "start a runtime for",
                path: path.display().to_string(),
                message: error.to_string(),
            })?;
            runtime.block_on(work)
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

async fn copy(
    snapshots: &dyn SnapshotStore,
    meta: SnapshotMeta,
    mut content: SnapshotFileReader,
) -> Result<(), StorageError> {
    let mut writer = snapshots.create(meta).await?;
    while let Some(part) = content.next_part()? {
        writer.write(part).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Opens a log store; may take as long as it takes to read the whole log. Only at a node's first
/// start may there be none. A log whose synced entries are damaged is opened all the same where
/// somebody may have them: the node then knows what it lacks, and is refilled.
pub(super) fn open(
    storage: StorageKind,
    path: &Path,
    owner: Owner,
    opening: Opening,
) -> Result<OpenedLog, StorageError> {
    let started = Instant::now();
    let owner = as_storage_owner(owner);
    let store: Box<dyn LogStore> = match storage {
        StorageKind::Memory => Box::new(MemoryLogStore::new()),
        StorageKind::Rocksdb => open_rocksdb(path, owner, opening.is_first_start)?,
        StorageKind::File => {
            let options = WalOptions {
                create: opening.is_first_start,
                repair: opening.has_others,
                segment_bytes: opening.segment_bytes,
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

/// Whom what is stored belongs to.
pub(super) fn as_storage_owner(owner: Owner) -> WalOwner {
    WalOwner {
        cluster: owner.cluster,
        node: owner.node,
        incarnation: owner.incarnation,
    }
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
