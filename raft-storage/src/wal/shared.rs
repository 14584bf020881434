//! What the writer tells the readers: which entries of which group are durable and where, and what
//! the files take. Who writes, and who reads, is not known here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{GroupId, LogUsage};

use super::index::LogIndex;
use super::promises::Promises;
use crate::batch_thread::Poison;
use crate::files::Disk;

/// What the writer tells the readers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Where readers find the files.
    pub(super) disk: Disk,
    groups: Mutex<BTreeMap<GroupId, Arc<GroupLog>>>,
    pub(super) poison: Arc<Poison>,
    pub(super) segment_bytes: AtomicU64,
    pub(super) spare_bytes: AtomicU64,
    pub(super) is_short_of_room: AtomicBool,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct GroupLog(Mutex<Durable>);

/// What is on the disk for good.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) promises: Promises,
    pub(super) index: LogIndex,
}

impl GroupLog {
    pub(super) fn new(durable: Durable) -> Arc<Self> {
        Arc::new(Self(Mutex::new(durable)))
    }

    pub(super) fn durable(&self) -> MutexGuard<'_, Durable> {
        // A batch is checked before it is published, so no panic leaves half of one behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Before anything is known of the log.
    pub(super) fn over(disk: Disk) -> Self {
        Self {
            disk,
            ..Self::default()
        }
    }

    /// All groups that were opened or found.
    pub(super) fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Arc<GroupLog>>> {
        // Nothing that can panic is done while it is held.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes on the disk are those of all groups.
    pub(super) fn usage(&self, group: &GroupLog) -> LogUsage {
        let segments = self.segment_bytes.load(Ordering::Relaxed);
        LogUsage {
            log_bytes: group.durable().index.log_bytes(),
            disk_bytes: segments + self.spare_bytes.load(Ordering::Relaxed),
            is_short_of_room: self.is_short_of_room.load(Ordering::Relaxed),
        }
    }
}
