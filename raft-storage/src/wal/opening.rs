//! From what recovery found to a writer that goes on there. Only now is anything changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use raft_core::{GroupId, StorageError};

use super::active::{ActiveSegment, Beginning, SegmentFactory};
use super::options::{RecoveryReport, WalOptions};
use super::recovery::Recovered;
use super::replay::GroupReplay;
use super::room::Room;
use super::sealed::{SealedSegment, SealedSegments};
use super::segment::VERSION;
use super::shared::{Durable, GroupLog, Shared};
use super::spare::{NEW_RESERVE_NAME, RECYCLED_PREFIX, RESERVE_NAME, SPARE_NAME};
use super::writer::{GroupWriter, Writer};
use super::{aside, cut};
use crate::files::{DirLock, Disk};
use crate::owner::WalOwner;

/// Logs that are being opened.
pub(super) struct Opening<'a> {
    pub(super) disk: Disk,
    pub(super) dir: &'a Path,
    options: &'a WalOptions,
    pub(super) factory: SegmentFactory,
    shared: Arc<Shared>,
}

/// What there is once they were.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) report: RecoveryReport,
}

impl<'a> Opening<'a> {
    pub(super) fn new(dir: &'a Path, owner: WalOwner, options: &'a WalOptions) -> Self {
        let disk = options.disk.clone();
        let shared = Arc::new(Shared::over(disk.clone()));
        let segment_bytes = options.segment_bytes();
        let room = Room::new(
            disk.clone(),
            dir,
            Arc::clone(&shared),
            segment_bytes,
            options.reserve_bytes(),
            options.recycled_segments_max,
        );
        let factory = SegmentFactory::new(
            disk.clone(),
            dir,
            owner,
            segment_bytes,
            room,
            Arc::clone(&shared),
        );
        Self {
            disk,
            dir,
            options,
            factory,
            shared,
        }
    }

    pub(super) fn open(
        self,
        recovered: Option<Recovered>,
        lock: DirLock,
    ) -> Result<Opened, StorageError> {
        self.remove_spare()?;
        match recovered {
            Some(recovered) => self.existing(recovered, lock),
            None => self.fresh(lock),
        }
    }

    pub(super) fn remove_spare(&self) -> Result<(), StorageError> {
        let reserve = (self.options.reserve_bytes() == 0).then_some(RESERVE_NAME);
        let names = [SPARE_NAME, NEW_RESERVE_NAME].into_iter().chain(reserve);
        let unused: Vec<_> = names.collect();
        for path in self.disk.list(self.dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if unused.contains(&&*name) || name.starts_with(RECYCLED_PREFIX) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    fn fresh(mut self, lock: DirLock) -> Result<Opened, StorageError> {
        // Whoever made the directory may not have made its name durable.
        if let Some(parent) = self.dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.disk.sync_dir(parent)?;
        }
        let beginning = Beginning {
            sequence: 1,
            batch_end: true,
            ..Beginning::default()
        };
        let active = self.factory.create(&beginning, 0)?;
        let writer = self.writer(active, Vec::new(), lock);
        Ok(Opened::new(writer, RecoveryReport::default()))
    }

    fn existing(mut self, recovered: Recovered, lock: DirLock) -> Result<Opened, StorageError> {
        // The newest segment's name may have been seen without being durable.
        self.disk.sync_dir(self.dir)?;
        let tail = recovered.tail;
        let mut report = recovered.report;
        if let Some(torn) = recovered.torn {
            let cut = cut::cut(&self.disk, self.dir, &tail.segment, torn)?;
            tracing::warn!(
                file = %cut.path.display(), offset = cut.offset, bytes = cut.bytes,
                copy = ?cut.copy, "the torn end of the log was cut"
            );
            report.cut = Some(cut);
        }
        aside::set_aside(&self.disk, self.dir, &recovered.void)?;
        if tail.header.groups_may_be_lost {
            self.factory.groups_may_be_lost();
        }
        let bytes = recovered.disk_bytes;
        self.shared.segment_bytes.store(bytes, Ordering::Relaxed);
        let active = ActiveSegment::reopen(&self.disk, &tail)?;
        let mut writer = self.writer(active, recovered.sealed, lock);
        writer.last_group = tail.group;
        for (group, replay) in recovered.groups {
            writer.add_group(group, replay);
        }
        // Where the newest segment is full, or of an older version, the next one is made.
        let seal = match tail.seal {
            None if tail.header.version < VERSION => Some(writer.seal()?),
            seal => seal,
        };
        if let Some(seal) = seal {
            writer.next_segment(seal, 0, true)?;
        }
        // Where a crash came between a compaction and the end of its removals.
        writer.sealed.remove_unneeded(writer.factory.room())?;
        Ok(Opened::new(writer, report))
    }

    pub(super) fn writer(
        self,
        active: ActiveSegment,
        sealed: Vec<SealedSegment>,
        lock: DirLock,
    ) -> Writer {
        let shared = Arc::clone(&self.shared);
        Writer {
            sealed: SealedSegments::new(self.disk, self.dir, shared, sealed),
            shared: self.shared,
            factory: self.factory,
            active,
            groups: BTreeMap::new(),
            last_group: GroupId::default(),
            witness_after: self.options.witness_after,
            _lock: lock,
        }
    }
}

impl Opened {
    pub(super) fn new(mut writer: Writer, report: RecoveryReport) -> Self {
        writer.factory.room().look();
        Self {
            shared: Arc::clone(&writer.shared),
            writer,
            report,
        }
    }
}

impl Writer {
    /// A group that was found in the log.
    pub(super) fn add_group(&mut self, group: GroupId, found: GroupReplay) {
        let last = found.last();
        let log = GroupLog::new(Durable {
            promises: found.promises,
            index: found.index,
        });
        self.shared.groups().insert(group, Arc::clone(&log));
        let known = GroupWriter {
            log,
            promises: found.promises,
            start: found.start,
            last,
        };
        self.groups.insert(group, known);
    }
}
