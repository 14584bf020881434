//! A reader of a snapshot that goes through somebody else's code, a transport or a state machine,
//! and must not lose the error of the store on the way.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StorageError;
use crate::snapshot::{SnapshotDescriptor, SnapshotReader};

/// See the file.
pub(crate) struct WatchedReader {
    inner: Box<dyn SnapshotReader>,
    watch: ReaderWatch,
}

/// The other side of a [`WatchedReader`].
#[derive(Clone, Default)]
pub(crate) struct ReaderWatch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    failure: Option<StorageError>,
    bytes: u64,
}

impl ReaderWatch {
    /// What the store failed with.
    pub(crate) fn take(&self) -> Option<StorageError> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.failure.take()
    }

    /// Bytes of the parts that were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    fn see<T>(
        &self,
        result: Result<T, StorageError>,
        bytes: impl Fn(&T) -> u64,
    ) -> Result<T, StorageError> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(value) => watched.bytes += bytes(value),
            Err(error) => watched.failure = Some(error.clone()),
        }
        result
    }
}

impl WatchedReader {
    /// A reader that is watched.
    pub(crate) fn new(inner: Box<dyn SnapshotReader>) -> (Self, ReaderWatch) {
        let watch = ReaderWatch::default();
        let reader = Self {
            inner,
            watch: watch.clone(),
        };
        (reader, watch)
    }
}

#[async_trait]
impl SnapshotReader for WatchedReader {
    fn descriptor(&self) -> &SnapshotDescriptor {
        self.inner.descriptor()
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        let parts = self.descriptor().parts;
        if part > parts {
            // A peer asked for it, so it says nothing about the store.
            return Err(StorageError::SnapshotMismatch {
                path: self.descriptor().to_string(),
                what: format!("part {part} was asked for"),
            });
        }
        let sought = self.inner.seek(part).await;
        self.watch.see(sought, |()| 0)
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        let read = self.inner.next_part().await;
        self.watch.see(read, |part| {
            part.as_ref().map_or(0, |part| part.len() as u64)
        })
    }
}
