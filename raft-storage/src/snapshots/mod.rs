//! Where a node keeps its snapshots: a directory beside its log, the same for all logs on a disk.
//! What is in a file is the business of `crate::snapshot_file`.
//!
//! A snapshot has another name until it is complete and durable. Older ones are removed behind
//! that; who has one of them open reads it to its end, because the files of Unix live as long as
//! somebody has them open. All work on files is done on the threads for blocking work.

mod directory;
pub(crate) mod inspect;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use raft_core::{
    LogId, SnapshotDescriptor, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
    StorageError,
};

use crate::files::Disk;
use crate::owner::WalOwner;
use directory::SnapshotDirectory;
use reader::FileSnapshotReader;
use writer::FileSnapshotWriter;

/// The snapshots of one node, in files. Clones share the directory.
#[derive(Clone, Debug)]
pub(crate) struct FileSnapshots {
    directory: Arc<SnapshotDirectory>,
}

impl FileSnapshots {
    /// Opens the directory and clears away what a crash left, but for a transfer that can be
    /// resumed. Blocks its thread.
    ///
    /// # Errors
    /// `Damaged` where the newest snapshot is not complete, `Foreign` where it is not `owner`'s,
    /// `Io` or `Full` where the system refuses, also where another process has the directory open.
    pub(crate) fn open(disk: Disk, dir: &Path, owner: &WalOwner) -> Result<Self, StorageError> {
        let directory = Arc::new(SnapshotDirectory::open(disk, dir, owner)?);
        Ok(Self { directory })
    }
}

/// The name of the directory of snapshots that belongs to a log in `log_dir`.
pub(crate) fn beside(log_dir: &Path) -> std::path::PathBuf {
    log_dir.with_file_name("snapshots")
}

#[async_trait]
impl SnapshotStore for FileSnapshots {
    fn latest(&self) -> Option<SnapshotDescriptor> {
        self.directory.latest()
    }

    async fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let directory = Arc::clone(&self.directory);
        Ok(Box::new(FileSnapshotWriter::create(directory, meta).await?))
    }

    async fn receive(
        &self,
        descriptor: SnapshotDescriptor,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let directory = Arc::clone(&self.directory);
        let writer = FileSnapshotWriter::receive(directory, descriptor).await?;
        Ok(Box::new(writer))
    }

    async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError> {
        let directory = Arc::clone(&self.directory);
        Ok(Box::new(FileSnapshotReader::open(directory, last).await?))
    }
}
