//! A reader of a snapshot that goes through somebody else's code, a transport or a state machine,
//! and must not lose the error of the store on the way; nor hold up the end of the node.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StorageError;
use crate::node::lifecycle::StopSignal;
use crate::snapshot::{SnapshotDescriptor, SnapshotReader};

/// See the file.
pub(crate) struct WatchedReader {
    inner: Box<dyn SnapshotReader>,
    watch: ReaderWatch,
    /// Where set, nothing more is read once the node stops.
    stop: Option<StopSignal>,
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
            stop: None,
        };
        (reader, watch)
    }

    /// The same, that reads no further when the node stops.
    pub(crate) fn until(self, stop: StopSignal) -> Self {
        Self {
            stop: Some(stop),
            ..self
        }
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
        if self.stop.as_ref().is_some_and(StopSignal::is_set) {
            return Err(StorageError::Poisoned("the node stops".to_owned()));
        }
        let read = self.inner.next_part().await;
        self.watch.see(read, |part| {
            part.as_ref().map_or(0, |part| part.len() as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogId;

    /// One part, and then a failure.
    struct Failing(SnapshotDescriptor);

    #[async_trait]
    impl SnapshotReader for Failing {
        fn descriptor(&self) -> &SnapshotDescriptor {
            &self.0
        }

        async fn seek(&mut self, _: u64) -> Result<(), StorageError> {
            Ok(())
        }

        async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
            self.0.parts -= 1;
            match self.0.parts {
                1 => Ok(Some(Bytes::from_static(b"part"))),
                _ => Err(StorageError::NoSnapshot(LogId::ZERO)),
            }
        }
    }

    #[tokio::test]
    async fn a_failure_of_the_store_is_kept_and_that_of_a_peer_is_not() {
        let descriptor = SnapshotDescriptor {
            parts: 2,
            ..SnapshotDescriptor::default()
        };
        let (mut reader, watch) = WatchedReader::new(Box::new(Failing(descriptor)));
        assert!(reader.seek(3).await.is_err(), "beyond its end");
        assert_eq!(watch.take(), None);
        reader.seek(2).await.unwrap();
        reader.next_part().await.unwrap();
        assert_eq!(watch.bytes(), 4);
        reader.next_part().await.unwrap_err();
        assert_eq!(watch.take(), Some(StorageError::NoSnapshot(LogId::ZERO)));
    }
}
