//! Snapshots in memory, for the log in memory. In the fewest lines what the files must do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{
    LogId, SnapshotDescriptor, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
    StorageError,
};

use crate::snapshot_file::{SnapshotHasher, check_announced, check_part_size};

const PLACE: &str = "memory";

/// The snapshots of one log in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemorySnapshots {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    latest: Option<Arc<Complete>>,
    partial: Option<Partial>,
    is_receiving: bool,
}

#[derive(Debug)]
struct Complete {
    descriptor: SnapshotDescriptor,
    parts: Vec<Bytes>,
}

#[derive(Clone, Debug)]
struct Partial {
    announced: SnapshotDescriptor,
    parts: Vec<Bytes>,
    hasher: SnapshotHasher,
}

impl MemorySnapshots {
    fn state(&self) -> MutexGuard<'_, State> {
        // Its fields are set one by one, and each is right by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, complete: Complete) {
        let mut state = self.state();
        let index = complete.descriptor.meta.last.index;
        let partial = state.partial.as_ref();
        if partial.is_some_and(|p| p.announced.meta.last.index <= index) && !state.is_receiving {
            state.partial = None;
        }
        let latest = state.latest.as_ref();
        if latest.is_none_or(|latest| latest.descriptor.meta.last.index <= index) {
            state.latest = Some(Arc::new(complete));
        }
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    fn latest(&self) -> Option<SnapshotDescriptor> {
        let state = self.state();
        state
            .latest
            .as_ref()
            .map(|latest| latest.descriptor.clone())
    }

    async fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(MemoryWriter {
            snapshots: self.clone(),
            meta,
            announced: None,
            parts: Vec::new(),
            hasher: SnapshotHasher::new(),
            is_of_use: false,
        }))
    }

    async fn receive(
        &self,
        descriptor: SnapshotDescriptor,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_receiving, true) {
            return Err(StorageError::Io {
                operation: "receive into",
                path: PLACE.to_owned(),
                message: "another transfer is under way".to_owned(),
            });
        }
        let partial = state.partial.take();
        let partial = partial.filter(|partial| partial.announced == descriptor);
        let (parts, hasher) = partial.map(|p| (p.parts, p.hasher)).unwrap_or_default();
        Ok(Box::new(MemoryWriter {
            snapshots: self.clone(),
            meta: descriptor.meta.clone(),
            announced: Some(descriptor),
            parts,
            hasher,
            is_of_use: true,
        }))
    }

    async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError> {
        let latest = self.state().latest.clone();
        let snapshot = latest.filter(|latest| latest.descriptor.meta.last == last);
        let snapshot = snapshot.ok_or(StorageError::NoSnapshot(last))?;
        Ok(Box::new(MemoryReader { snapshot, next: 0 }))
    }
}

/// Writes one snapshot.
#[derive(Debug)]
struct MemoryWriter {
    snapshots: MemorySnapshots,
    meta: SnapshotMeta,
    /// Where it is received.
    announced: Option<SnapshotDescriptor>,
    parts: Vec<Bytes>,
    hasher: SnapshotHasher,
    /// Whether a later transfer may go on with what is there.
    is_of_use: bool,
}

impl MemoryWriter {
    fn check_room(&self, part: &[u8]) -> Result<(), StorageError> {
        let Some(announced) = &self.announced else {
            return Ok(());
        };
        let bytes = self.hasher.bytes() + part.len() as u64;
        if self.hasher.parts() < announced.parts && bytes <= announced.bytes {
            return Ok(());
        }
        Err(StorageError::SnapshotMismatch {
            path: PLACE.to_owned(),
            what: format!(
                "it has more than {} parts or {} bytes",
                announced.parts, announced.bytes
            ),
        })
    }
}

#[async_trait]
impl SnapshotWriter for MemoryWriter {
    fn parts(&self) -> u64 {
        self.hasher.parts()
    }

    async fn write(&mut self, part: Bytes) -> Result<(), StorageError> {
        let checked = check_part_size(PLACE, &part).and_then(|()| self.check_room(&part));
        if checked.is_err() {
            self.is_of_use = false;
        }
        checked?;
        self.hasher.add(&part);
        self.parts.push(part);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<SnapshotDescriptor, StorageError> {
        self.is_of_use = false;
        let descriptor = self.hasher.descriptor(self.meta.clone());
        if let Some(announced) = &self.announced {
            check_announced(PLACE, announced, &descriptor)?;
        }
        let parts = std::mem::take(&mut self.parts);
        self.snapshots.publish(Complete {
            descriptor: descriptor.clone(),
            parts,
        });
        Ok(descriptor)
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        let Some(announced) = self.announced.take() else {
            return;
        };
        let mut state = self.snapshots.state();
        state.is_receiving = false;
        if self.is_of_use {
            state.partial = Some(Partial {
                announced,
                parts: std::mem::take(&mut self.parts),
                hasher: std::mem::take(&mut self.hasher),
            });
        }
    }
}

/// Reads one snapshot.
#[derive(Debug)]
struct MemoryReader {
    snapshot: Arc<Complete>,
    next: usize,
}

#[async_trait]
impl SnapshotReader for MemoryReader {
    fn descriptor(&self) -> &SnapshotDescriptor {
        &self.snapshot.descriptor
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        let parts = self.snapshot.descriptor.parts;
        let next = usize::try_from(part).ok().filter(|_| part <= parts);
        self.next = next.ok_or_else(|| StorageError::SnapshotMismatch {
            path: PLACE.to_owned(),
            what: format!("it has {parts} parts, and part {part} was asked for"),
        })?;
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        let part = self.snapshot.parts.get(self.next).cloned();
        self.next += usize::from(part.is_some());
        Ok(part)
    }
}
