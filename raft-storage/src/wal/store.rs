//! The store of one group, as its node sees it. What becomes of a change is the business of the
//! writer.

use std::sync::Arc;

use async_trait::async_trait;
use raft_core::{
    AppendBatch, GroupId, LoadedLog, LogId, LogReader, LogStore, SnapshotStore, StorageError,
};

use super::reader::WalReader;
use super::shared::{GroupLog, Shared};
use super::slots::TakenSlot;
use crate::batch_thread::{BatchQueue, Change};
use crate::memberships::read_memberships;
use crate::snapshots::FileSnapshots;

/// The log of one group in segment files, which may hold the logs of others as well. The last one
/// that is dropped of a [`WalEngine`](super::WalEngine) and its stores waits for what is being
/// written.
#[derive(Debug)]
pub struct WalLogStore {
    pub(super) queue: BatchQueue,
    pub(super) shared: Arc<Shared>,
    pub(super) group: GroupId,
    pub(super) log: Arc<GroupLog>,
    pub(super) snapshots: Arc<FileSnapshots>,
    /// The last field: the next store of the group may come when all else is gone.
    pub(super) slot: TakenSlot,
}

impl Drop for WalLogStore {
    fn drop(&mut self) {
        self.slot.pending = self.queue.take_pending();
    }
}

#[async_trait]
impl LogStore for WalLogStore {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        self.queue.settle().await?;
        let (mut loaded, memberships) = {
            let durable = self.log.durable();
            let outline = durable.index.outline();
            let loaded = LoadedLog {
                hard_state: durable.promises.hard_state,
                start: outline.start(),
                term_runs: outline.runs().to_vec(),
                last: outline.last(),
                memberships: Vec::new(),
                bytes: durable.index.log_bytes(),
                refill_to: durable.promises.refill_to,
            };
            (loaded, durable.index.memberships().to_vec())
        };
        loaded.memberships = read_memberships(&*self.reader(), &memberships).await?;
        Ok(loaded)
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        self.queue.settle().await?;
        self.log.durable().index.outline().assert_fits(&batch);
        self.queue.write(Change::Append(batch)).await
    }

    async fn compact(&mut self, to: LogId) -> Result<(), StorageError> {
        self.queue.settle().await?;
        let changes = {
            let durable = self.log.durable();
            durable.index.outline().assert_compactable(to)
        };
        if changes {
            self.queue.write(Change::Compact(to)).await?;
        }
        Ok(())
    }

    async fn reset(&mut self, to: LogId) -> Result<(), StorageError> {
        self.queue.write(Change::Reset(to)).await
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.snapshots) as Arc<dyn SnapshotStore>
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(WalReader {
            shared: Arc::clone(&self.shared),
            group: self.group,
            log: Arc::clone(&self.log),
        })
    }
}
