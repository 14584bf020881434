//! The segments that are full, and when their files go, or are kept to be written again: once all
//! entries that the log holds stand in later ones. What else they say, a vote or the start of the
//! log, each later segment repeats.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use raft_core::StorageError;

use super::room::Room;
use super::segment::SegmentRef;
use super::shared::{GroupLog, Shared};
use crate::files::Disk;

/// The segments before the active one.
#[derive(Debug)]
pub(super) struct SealedSegments {
    disk: Disk,
    dir: PathBuf,
    shared: Arc<Shared>,
    files: VecDeque<SealedSegment>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct SealedSegment {
    pub(super) segment: Arc<SegmentRef>,
    pub(super) file_bytes: u64,
}

impl SealedSegments {
    /// `files` are in their order.
    pub(super) fn new(
        disk: Disk,
        dir: &Path,
        shared: Arc<Shared>,
        files: impl IntoIterator<Item = SealedSegment>,
    ) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            shared,
            files: files.into_iter().collect(),
        }
    }

    /// One more is full.
    pub(super) fn push(&mut self, file: SealedSegment) {
        self.files.push_back(file);
    }

    /// The oldest one, and how many there are.
    pub(super) fn oldest(&self) -> Option<(u64, usize)> {
        let oldest = self.files.front()?;
        Some((oldest.segment.sequence, self.files.len()))
    }

    /// Removes what no group needs, or leaves it to `room`. What makes it so must be durable. The
    /// oldest go first, so that a crash in between leaves a log without a gap.
    pub(super) fn remove_unneeded(&mut self, room: &mut Room) -> Result<(), StorageError> {
        let groups = self.shared.groups();
        let first = |group: &Arc<GroupLog>| group.durable().index.first_segment();
        let needed = groups.values().filter_map(first).min();
        drop(groups);
        let is_needed = |file: &SealedSegment| needed.is_some_and(|n| file.segment.sequence >= n);
        let mut removed = 0_u64;
        while let Some(file) = self.files.front()
            && !is_needed(file)
        {
            let path = &file.segment.path;
            match room.name_to_recycle(file.segment.sequence, file.file_bytes) {
                Some(name) => self.disk.rename(&mut self.disk.open_to_read(path)?, name)?,
                None => self.disk.remove(path)?,
            }
            let bytes = &self.shared.segment_bytes;
            bytes.fetch_sub(file.file_bytes, Ordering::Relaxed);
            self.files.pop_front();
            removed += 1;
        }
        if removed > 0 {
            tracing::debug!(removed, "log segments removed");
            self.disk.sync_dir(&self.dir)?;
            room.recycle_renamed();
        }
        Ok(())
    }
}
