//! What the writer tells the readers: which entries are durable and where, and what the files take.
//! Who writes, and who reads, is not known here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{HardState, LogUsage};

use super::index::LogIndex;
use crate::batch_thread::Poison;
use crate::files::Disk;

/// What the writer tells the readers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Where readers find the files.
    pub(super) disk: Disk,
    durable: Mutex<Durable>,
    pub(super) poison: Arc<Poison>,
    pub(super) segment_bytes: AtomicU64,
    pub(super) spare_bytes: AtomicU64,
}

/// What is on the disk for good.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) hard_state: HardState,
    pub(super) index: LogIndex,
}

impl Shared {
    /// Before anything is known of the log.
    pub(super) fn over(disk: Disk) -> Self {
        Self {
            disk,
            ..Self::default()
        }
    }

    pub(super) fn durable(&self) -> MutexGuard<'_, Durable> {
        // A batch is checked before it is published, so no panic leaves half of one behind.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn usage(&self) -> LogUsage {
        let segments = self.segment_bytes.load(Ordering::Relaxed);
        LogUsage {
            log_bytes: self.durable().index.log_bytes(),
            disk_bytes: segments + self.spare_bytes.load(Ordering::Relaxed),
            is_short_of_room: false,
        }
    }
}
