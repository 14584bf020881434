//! A snapshot that is being read. A call that is cancelled has read nothing.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{LogId, SnapshotDescriptor, SnapshotReader, StorageError};

use super::directory::SnapshotDirectory;
use crate::blocking::blocking;
use crate::snapshot_file::{PartPosition, SnapshotFile};

/// Reads one snapshot.
#[derive(Debug)]
pub(super) struct FileSnapshotReader {
    file: Arc<SnapshotFile>,
    at: PartPosition,
}

impl FileSnapshotReader {
    pub(super) async fn open(
        directory: Arc<SnapshotDirectory>,
        last: LogId,
    ) -> Result<Self, StorageError> {
        let file = blocking(move || directory.open_file(last)).await?;
        let at = file.first();
        let file = Arc::new(file);
        Ok(Self { file, at })
    }
}

#[async_trait]
impl SnapshotReader for FileSnapshotReader {
    fn descriptor(&self) -> &SnapshotDescriptor {
        self.file.descriptor()
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        let (file, from) = (Arc::clone(&self.file), self.at);
        self.at = blocking(move || file.find(part, from)).await?;
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let Some((part, next)) = blocking(move || file.part(at)).await? else {
            return Ok(None);
        };
        self.at = next;
        Ok(Some(part))
    }
}
