//! A snapshot that is being written: each call does its work on a thread for blocking work. A call
//! that is cancelled ends the writer, because nobody would learn how it ended.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{SnapshotDescriptor, SnapshotMeta, SnapshotWriter, StorageError};
use tokio::sync::OwnedSemaphorePermit;

use super::directory::SnapshotDirectory;
use crate::blocking::blocking;
use crate::snapshot_file::SnapshotFileWriter;

/// Writes one snapshot.
#[derive(Debug)]
pub(super) struct FileSnapshotWriter {
    directory: Arc<SnapshotDirectory>,
    /// With a blocking thread while a call runs.
    file: Option<OpenFile>,
    parts: u64,
    is_received: bool,
}

/// What a blocking thread borrows.
#[derive(Debug)]
struct OpenFile {
    writer: SnapshotFileWriter,
    // Behind the writer: when these are given back, its file is closed or removed.
    directory: Arc<SnapshotDirectory>,
    _receiving: Option<OwnedSemaphorePermit>,
}

impl FileSnapshotWriter {
    pub(super) async fn create(
        directory: Arc<SnapshotDirectory>,
        meta: SnapshotMeta,
    ) -> Result<Self, StorageError> {
        let made_in = Arc::clone(&directory);
        let file = blocking(move || {
            Ok(OpenFile {
                writer: made_in.create(meta)?,
                directory: made_in,
                _receiving: None,
            })
        });
        Ok(Self {
            directory,
            file: Some(file.await?),
            parts: 0,
            is_received: false,
        })
    }

    pub(super) async fn receive(
        directory: Arc<SnapshotDirectory>,
        announced: SnapshotDescriptor,
    ) -> Result<Self, StorageError> {
        directory.begin_receiving()?;
        // From here on the right to receive is given back when this is dropped.
        let mut writer = Self {
            directory: Arc::clone(&directory),
            file: None,
            parts: 0,
            is_received: true,
        };
        // A call that was cancelled may still be at work.
        let receiving = Arc::clone(&directory.receiving).acquire_owned().await;
        let receiving = receiving.map_err(|closed| ended(&closed.to_string()))?;
        let opened = blocking(move || {
            Ok(OpenFile {
                writer: directory.receive(&announced)?,
                directory,
                _receiving: Some(receiving),
            })
        });
        let opened = opened.await?;
        writer.parts = opened.writer.parts();
        writer.file = Some(opened);
        Ok(writer)
    }

    fn take(&mut self) -> Result<OpenFile, StorageError> {
        let file = self.file.take();
        file.ok_or_else(|| ended("a call to its writer failed or was given up"))
    }
}

fn ended(why: &str) -> StorageError {
    StorageError::Poisoned(format!("a snapshot is not written any more: {why}"))
}

#[async_trait]
impl SnapshotWriter for FileSnapshotWriter {
    fn parts(&self) -> u64 {
        self.parts
    }

    async fn write(&mut self, part: Bytes) -> Result<(), StorageError> {
        let mut file = self.take()?;
        let file = blocking(move || {
            file.writer.write_part(&part)?;
            Ok(file)
        });
        let file = file.await?;
        self.parts = file.writer.parts();
        self.file = Some(file);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<SnapshotDescriptor, StorageError> {
        let OpenFile {
            writer,
            directory,
            _receiving: receiving,
        } = self.take()?;
        blocking(move || {
            let finished = directory.finish(writer);
            drop(receiving);
            finished
        })
        .await
    }
}

impl Drop for FileSnapshotWriter {
    fn drop(&mut self) {
        if self.is_received {
            // What came so far stays, so there is nothing to wait for.
            self.file = None;
            self.directory.end_receiving();
        } else if let Some(file) = self.file.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // To remove a large file takes a while.
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
}
