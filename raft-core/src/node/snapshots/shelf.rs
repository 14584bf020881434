//! The store of snapshots, and the two rules that hold between those who use it.
//!
//! 1. Of two snapshots that are finished at the same time the newer one stays: an own image that
//!    was overtaken by one that was received is given up.
//! 2. From the first byte of a snapshot that is received until the state machine has it, no other
//!    is received: it would take the place of the one that is about to be restored.
//!
//! It also knows how far the log was replaced by a snapshot: entries up to there that are still to
//! be applied may be gone, and need not be applied any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::error::StorageError;
use crate::snapshot::{
    SnapshotDescriptor, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
};
use crate::types::{Index, LogId};

/// Held by whoever brings a snapshot from the network into the state machine.
pub(crate) type InstallRoom = OwnedSemaphorePermit;

/// See the file.
pub(crate) struct Shelf {
    store: Arc<dyn SnapshotStore>,
    finishing: Mutex<()>,
    installing: Arc<Semaphore>,
    /// The last entry that a snapshot from the network stands for, or is about to.
    replaced_to: AtomicU64,
}

impl Shelf {
    /// A shelf that nobody uses yet.
    pub(crate) fn new(store: Arc<dyn SnapshotStore>) -> Self {
        Self {
            store,
            finishing: Mutex::new(()),
            installing: Arc::new(Semaphore::new(1)),
            replaced_to: AtomicU64::new(0),
        }
    }

    /// The log is about to be replaced by a snapshot up to here, which is then restored.
    pub(crate) fn replaces_log(&self, last: Index) {
        self.replaced_to.fetch_max(last.0, Ordering::Relaxed);
    }

    /// Whether an entry is part of a snapshot that replaces the log.
    pub(crate) fn is_replaced(&self, index: Index) -> bool {
        index.0 <= self.replaced_to.load(Ordering::Relaxed)
    }

    /// Bytes of the newest snapshot; 0 where there is none.
    pub(crate) fn latest_bytes(&self) -> u64 {
        self.store.latest().map_or(0, |latest| latest.bytes)
    }

    /// The room for one snapshot on its way into the state machine; none while it is taken.
    pub(crate) fn try_install(&self) -> Option<InstallRoom> {
        Arc::clone(&self.installing).try_acquire_owned().ok()
    }

    /// See [`SnapshotStore::create`].
    pub(crate) async fn create(
        &self,
        meta: SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.store.create(meta).await
    }

    /// See [`SnapshotStore::receive`].
    pub(crate) async fn receive(
        &self,
        descriptor: SnapshotDescriptor,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        self.store.receive(descriptor).await
    }

    /// See [`SnapshotStore::open`].
    pub(crate) async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError> {
        self.store.open(last).await
    }

    /// Finishes an image of the own state; none where a newer snapshot is there by now.
    pub(crate) async fn finish_own(
        &self,
        writer: Box<dyn SnapshotWriter>,
        meta: &SnapshotMeta,
    ) -> Result<Option<SnapshotDescriptor>, StorageError> {
        let _alone = self.finishing.lock().await;
        let newest = self.store.latest();
        if newest.is_some_and(|newest| newest.meta.last.index >= meta.last.index) {
            return Ok(None);
        }
        let finished = writer.finish().await?;
        check(&finished, finished.meta == *meta)?;
        Ok(Some(finished))
    }

    /// Finishes one that was received.
    pub(crate) async fn finish_received(
        &self,
        writer: Box<dyn SnapshotWriter>,
        announced: &SnapshotDescriptor,
    ) -> Result<(), StorageError> {
        let _alone = self.finishing.lock().await;
        let finished = writer.finish().await?;
        check(&finished, finished == *announced)
    }
}

/// A store belongs to the user, so what it gives is checked.
fn check(finished: &SnapshotDescriptor, is_right: bool) -> Result<(), StorageError> {
    if is_right {
        return Ok(());
    }
    Err(StorageError::Damaged {
        path: "snapshot store".to_owned(),
        offset: finished.meta.last.index.0,
        what: format!("finished another {finished} than was written"),
    })
}
