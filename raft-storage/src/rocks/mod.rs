//! The log store over RocksDB: one synced write batch per change. Readers look at a snapshot of the
//! database, so they never see half of a batch and never wait for a sync.

mod calls;
mod database;
pub(crate) mod inspect;
mod keys;
mod opening;
mod options;
mod reader;
mod tail;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use raft_core::{
    AppendBatch, GroupId, LoadedLog, LogId, LogReader, LogStore, SnapshotStore, StorageError,
};

use crate::batch_thread::{BatchQueue, BatchThread, BatchWriter, Change, Outcome};
use crate::errors::{foreign, io_error};
use crate::files::Disk;
use crate::memberships::read_memberships;
use crate::owner::WalOwner;
use crate::snapshots::{self, FileSnapshots};
use database::Shared;
use options::WRITE_BUFFER_BYTES;
use reader::RocksReader;

/// A log in a RocksDB database of its own; its snapshots are files in `snapshots` beside the
/// database's directory, which each log needs for itself. Dropping it waits for the change that is
/// being written; the database is closed with the last reader.
#[derive(Debug)]
pub struct RocksLogStore {
    shared: Arc<Shared>,
    thread: BatchQueue,
    snapshots: Arc<FileSnapshots>,
}

impl RocksLogStore {
    /// Opens the log in `dir`, and creates it where there is none.
    ///
    /// # Errors
    /// `Damaged` where RocksDB finds damage or its keys contradict each other; `Foreign` where the
    /// log is not `owner`'s or is of another version; `Io` or `Full` where the system refuses, also
    /// where another process has it open.
    pub fn open(dir: &Path, owner: WalOwner) -> Result<Self, StorageError> {
        Disk::default().create_dir_synced(dir)?;
        Self::open_with(dir, owner, true, WRITE_BUFFER_BYTES)
    }

    /// Opens a log that must be there: to a node that has made promises, an empty directory is a
    /// lost disk, not a beginning.
    ///
    /// # Errors
    /// As [`RocksLogStore::open`]; `Foreign` where there is no log.
    pub fn open_existing(dir: &Path, owner: WalOwner) -> Result<Self, StorageError> {
        // RocksDB would write its own files into the directory before it noticed.
        if !dir.join("CURRENT").is_file() {
            return Err(foreign(dir, NO_LOG));
        }
        Self::open_with(dir, owner, false, WRITE_BUFFER_BYTES)
    }

    fn open_with(
        dir: &Path,
        owner: WalOwner,
        create: bool,
        write_buffer_bytes: usize,
    ) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared::open(dir, &owner, create, write_buffer_bytes)?);
        let beside = snapshots::beside(dir);
        let snapshots = FileSnapshots::open(Disk::default(), &beside, &owner)?;
        let writer = RocksWriter(Arc::clone(&shared));
        let thread = BatchThread::start("rocks-writer", Arc::clone(&shared.poison), writer)
            .map_err(|error| io_error("start the writer of", dir, &error))?;
        Ok(Self {
            shared,
            thread: BatchQueue::new(thread, GroupId(0), None),
            snapshots: Arc::new(snapshots),
        })
    }
}

const NO_LOG: &str = "holds no log, but must: its disk was lost, or it was never formatted";

/// The writing side of the database, which the thread owns.
struct RocksWriter(Arc<Shared>);

impl BatchWriter for RocksWriter {
    fn write(&mut self, changes: &[(GroupId, Change)]) -> Outcome {
        changes.iter().try_for_each(|(_, change)| match change {
            Change::Append(batch) => self.0.append(batch),
            Change::Compact(to) => self.0.compact(*to),
            Change::Reset(to) => self.0.reset(*to),
        })
    }
}

#[async_trait]
impl LogStore for RocksLogStore {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        self.thread.settle().await?;
        let durable = self.shared.durable().clone();
        let memberships = read_memberships(&*self.reader(), &durable.memberships).await?;
        Ok(LoadedLog {
            hard_state: durable.hard_state,
            start: durable.outline.start(),
            term_runs: durable.outline.runs().to_vec(),
            last: durable.outline.last(),
            memberships,
            bytes: durable.log_bytes,
            refill_to: None,
        })
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        self.thread.settle().await?;
        self.shared.durable().outline.assert_fits(&batch);
        self.thread.write(Change::Append(batch)).await
    }

    async fn compact(&mut self, to: LogId) -> Result<(), StorageError> {
        self.thread.settle().await?;
        let changes = self.shared.durable().outline.assert_compactable(to);
        if changes {
            self.thread.write(Change::Compact(to)).await?;
        }
        Ok(())
    }

    async fn reset(&mut self, to: LogId) -> Result<(), StorageError> {
        self.thread.write(Change::Reset(to)).await
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.snapshots) as Arc<dyn SnapshotStore>
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(RocksReader {
            shared: Arc::clone(&self.shared),
        })
    }
}
