//! The reference log store: a vector. It keeps nothing when the process ends; it exists for tests,
//! for one-process use, and to say in the fewest lines what the durable stores must do.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use raft_core::{
    AppendBatch, Entry, HardState, Index, LoadedLog, LogId, LogReader, LogStore, LogUsage,
    SnapshotStore, StorageError,
};

use crate::memory_snapshots::MemorySnapshots;
use crate::outline::{Outline, fits_read};

/// A log in memory. Clones share the log and its snapshots, so that a test can "restart" a node
/// with a clone.
#[derive(Clone, Debug, Default)]
pub struct MemoryLogStore {
    log: Arc<Mutex<MemoryLog>>,
    snapshots: Arc<MemorySnapshots>,
}

#[derive(Debug, Default)]
struct MemoryLog {
    hard_state: HardState,
    /// The first one is right behind the outline's start.
    entries: Vec<Entry>,
    outline: Outline,
    bytes: u64,
}

impl MemoryLogStore {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn log(&self) -> MutexGuard<'_, MemoryLog> {
        // A batch is checked before anything is changed, so a panic leaves a whole log behind.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryLog {
    fn append(&mut self, batch: AppendBatch) {
        self.outline.assert_fits(&batch);
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            let kept = self.position(from.min(self.outline.last().index.next()));
            self.bytes -= encoded_bytes(&self.entries[kept..]);
            self.entries.truncate(kept);
        }
        self.outline.apply(&batch);
        self.bytes += encoded_bytes(&batch.entries);
        self.entries.extend(batch.entries);
    }

    fn compact(&mut self, to: LogId) {
        if self.outline.assert_compactable(to) {
            let dropped = self.position(to.index.next());
            self.bytes -= encoded_bytes(&self.entries[..dropped]);
            self.entries.drain(..dropped);
            self.outline.compact(to);
        }
    }

    fn reset(&mut self, to: LogId) {
        self.entries.clear();
        self.bytes = 0;
        self.outline = Outline::starting_behind(to);
    }

    /// Where the entry at `index`, which is behind the start, stands in the vector.
    fn position(&self, index: Index) -> usize {
        let position = index.0 - self.outline.first_index().0;
        usize::try_from(position).expect("a vector holds fewer entries than usize counts")
    }

    fn read(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let last = self.outline.last().index;
        let first = self.outline.first_index();
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.start < first || range.start > last {
            return Err(StorageError::OutOfRange {
                from: range.start,
                first,
                last,
            });
        }
        let end = range.end.min(last.next());
        let mut taken = 0;
        let entries = self.entries[self.position(range.start)..self.position(end)]
            .iter()
            .take_while(|entry| {
                let fits = fits_read(taken, entry.encoded_len(), bytes_max);
                taken += entry.encoded_len();
                fits
            });
        Ok(entries.cloned().collect())
    }
}

fn encoded_bytes(entries: &[Entry]) -> u64 {
    let lengths = entries.iter().map(|entry| entry.encoded_len() as u64);
    lengths.sum()
}

#[async_trait]
impl LogStore for MemoryLogStore {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        let log = self.log();
        let start = log.outline.start();
        Ok(LoadedLog::of_entries(log.hard_state, start, &log.entries))
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        self.log().append(batch);
        Ok(())
    }

    async fn compact(&mut self, to: LogId) -> Result<(), StorageError> {
        self.log().compact(to);
        Ok(())
    }

    async fn reset(&mut self, to: LogId) -> Result<(), StorageError> {
        self.log().reset(to);
        Ok(())
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.snapshots) as Arc<dyn SnapshotStore>
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl LogReader for MemoryLogStore {
    async fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        self.log().read(range, bytes_max)
    }

    fn usage(&self) -> LogUsage {
        LogUsage {
            log_bytes: self.log().bytes,
            disk_bytes: 0,
            is_short_of_room: false,
        }
    }
}
