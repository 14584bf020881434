//! The log store over files: one thread writes, one sync per batch, readers beside it. The format,
//! the recovery steps and what is assumed of the disk are in `docs/disk-format.md`.
//!
//! ```text
//! append() --Job--> writer thread --> active segment --sync--> index --> reader
//!                        |                                       ^
//!                        +-- spare thread (zeros ahead)          +-- recovery, when opened
//! ```

mod active;
mod index;
mod options;
mod reader;
mod record;
mod recovery;
mod scan;
mod sealed;
mod segment;
mod shared;
mod spare;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_trait::async_trait;
use raft_core::{AppendBatch, LoadedLog, LogId, LogReader, LogStore, SnapshotStore, StorageError};

pub use options::{RecoveryReport, TailCut, WalOptions};

use crate::batch_thread::{BatchThread, Change};
use crate::errors::{foreign, io_error};
use crate::files::DirLock;
use crate::memberships::read_memberships;
use crate::owner::WalOwner;
use crate::snapshots::{self, FileSnapshots};
use active::{ActiveSegment, Beginning, SegmentFactory};
use reader::WalReader;
use recovery::Recovered;
use sealed::{SealedSegment, SealedSegments};
use segment::SealMark;
use shared::Shared;
use spare::SPARE_NAME;
use writer::Writer;

/// A log in segment files. Dropping it waits for the batch that is being written.
#[derive(Debug)]
pub struct WalLogStore {
    shared: Arc<Shared>,
    thread: BatchThread,
    snapshots: Arc<FileSnapshots>,
}

impl WalLogStore {
    /// Opens the log in `dir`, and creates it where the options allow. Reads all of it; a torn tail
    /// is cut, kept aside and reported.
    ///
    /// # Errors
    /// `Damaged` where data that had been synced is not readable any more, and `Foreign` where the
    /// log is not `owner`'s, is of a newer version, or is missing though it must exist: nothing has
    /// been changed then. `Io` or `Full` where the system refuses, also where another process has
    /// the log open.
    pub fn open(
        dir: &Path,
        owner: WalOwner,
        options: WalOptions,
    ) -> Result<(Self, RecoveryReport), StorageError> {
        let started = Instant::now();
        if options.create {
            options.disk.create_dir_synced(dir)?;
        } else if !options.disk.is_dir(dir) {
            return Err(foreign(dir, NO_LOG));
        }
        let lock = options.disk.lock_dir(dir)?;
        let recovered = recovery::recover(&options.disk, dir, &owner)?;
        let existed = recovered.is_some();
        if !existed && !options.create {
            return Err(foreign(dir, NO_LOG));
        }
        let shared = Arc::new(Shared::over(options.disk.clone()));
        let mut opening = Opening {
            dir,
            factory: SegmentFactory::new(
                options.disk.clone(),
                dir,
                owner,
                options.segment_bytes(),
                Arc::clone(&shared),
            ),
            options,
            shared,
        };
        opening.remove_spare()?;
        let (active, sealed, mut report) = match recovered {
            Some(recovered) => opening.existing(recovered)?,
            None => opening.fresh()?,
        };
        let beside = snapshots::beside(dir);
        let snapshots = opening.options.snapshots.as_deref().unwrap_or(&beside);
        let snapshots = FileSnapshots::open(opening.options.disk.clone(), snapshots, &owner)?;
        let (shared, thread) = opening.start(active, sealed, lock)?;
        let store = Self {
            shared,
            thread,
            snapshots: Arc::new(snapshots),
        };
        report.duration = started.elapsed();
        tracing::info!(
            dir = %dir.display(),
            segments = report.segments,
            records = report.records,
            bytes = report.bytes,
            duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
            existed,
            "log opened"
        );
        Ok((store, report))
    }
}

const NO_LOG: &str = "holds no log, but must: its disk was lost, or it was never formatted";

/// What there is once a log was opened.
type OpenedLog = (ActiveSegment, SealedSegments, RecoveryReport);

/// A log that is being opened.
struct Opening<'a> {
    dir: &'a Path,
    options: WalOptions,
    factory: SegmentFactory,
    shared: Arc<Shared>,
}

impl Opening<'_> {
    fn remove_spare(&self) -> Result<(), StorageError> {
        let spare = self.dir.join(SPARE_NAME);
        if self.options.disk.exists(&spare)? {
            self.options.disk.remove(&spare)?;
        }
        Ok(())
    }

    fn fresh(&mut self) -> Result<OpenedLog, StorageError> {
        // Whoever made the directory may not have made its name durable.
        if let Some(parent) = self.dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.options.disk.sync_dir(parent)?;
        }
        let active = self.next_segment(0, SealMark::default())?;
        Ok((active, self.sealed([]), RecoveryReport::default()))
    }

    fn existing(&mut self, recovered: Recovered) -> Result<OpenedLog, StorageError> {
        let disk = self.options.disk.clone();
        // The newest segment's name may have been seen without being durable.
        disk.sync_dir(self.dir)?;
        let tail = &recovered.tail;
        let mut report = recovered.report;
        if let Some(torn) = recovered.torn {
            let cut = recovery::cut(&disk, self.dir, &tail.segment, torn)?;
            tracing::warn!(
                file = %cut.path.display(), offset = cut.offset, bytes = cut.bytes,
                copy = %cut.copy.display(), "the torn end of the log was cut"
            );
            report.cut = Some(cut);
        }
        let bytes = recovered.disk_bytes;
        self.shared.segment_bytes.store(bytes, Ordering::Relaxed);
        {
            let mut durable = self.shared.durable();
            durable.hard_state = recovered.hard_state;
            durable.index = recovered.index;
        }
        let mut sealed = self.sealed(recovered.sealed);
        let active = match tail.seal {
            Some(seal) => {
                let active = self.next_segment(tail.segment.sequence, seal)?;
                sealed.push(SealedSegment {
                    segment: Arc::clone(&tail.segment),
                    file_bytes: tail.file_bytes,
                });
                active
            }
            None => ActiveSegment::reopen(&disk, tail)?,
        };
        // Where a crash came between a compaction and the end of its removals.
        sealed.remove_unneeded()?;
        Ok((active, sealed, report))
    }

    fn sealed(&self, files: impl IntoIterator<Item = SealedSegment>) -> SealedSegments {
        let (disk, shared) = (self.options.disk.clone(), Arc::clone(&self.shared));
        SealedSegments::new(disk, self.dir, shared, files)
    }

    fn next_segment(
        &mut self,
        after: u64,
        previous: SealMark,
    ) -> Result<ActiveSegment, StorageError> {
        let durable = self.shared.durable();
        let outline = durable.index.outline();
        let beginning = Beginning {
            sequence: after + 1,
            previous,
            hard_state: durable.hard_state,
            start: outline.start(),
            last: outline.last(),
            batch_end: true,
        };
        drop(durable);
        self.factory.create(beginning, 0)
    }

    fn start(
        self,
        active: ActiveSegment,
        sealed: SealedSegments,
        lock: DirLock,
    ) -> Result<(Arc<Shared>, BatchThread), StorageError> {
        let durable = self.shared.durable();
        let outline = durable.index.outline();
        let writer = Writer {
            shared: Arc::clone(&self.shared),
            factory: self.factory,
            sealed,
            active,
            hard_state: durable.hard_state,
            start: outline.start(),
            last: outline.last(),
            witness_after: self.options.witness_after,
            _lock: lock,
        };
        drop(durable);
        let poison = Arc::clone(&self.shared.poison);
        let thread = BatchThread::start("wal-writer", poison, writer)
            .map_err(|error| io_error("start the writer of", self.dir, &error))?;
        Ok((self.shared, thread))
    }
}

#[async_trait]
impl LogStore for WalLogStore {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        self.thread.settle().await?;
        let (mut loaded, memberships) = {
            let durable = self.shared.durable();
            let outline = durable.index.outline();
            let loaded = LoadedLog {
                hard_state: durable.hard_state,
                start: outline.start(),
                term_runs: outline.runs().to_vec(),
                last: outline.last(),
                memberships: Vec::new(),
                bytes: durable.index.log_bytes(),
                refill_to: None,
            };
            (loaded, durable.index.memberships().to_vec())
        };
        loaded.memberships = read_memberships(&*self.reader(), &memberships).await?;
        Ok(loaded)
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        self.thread.settle().await?;
        self.shared.durable().index.outline().assert_fits(&batch);
        self.thread.write(Change::Append(batch)).await
    }

    async fn compact(&mut self, to: LogId) -> Result<(), StorageError> {
        self.thread.settle().await?;
        let changes = {
            let durable = self.shared.durable();
            durable.index.outline().assert_compactable(to)
        };
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
        Arc::new(WalReader {
            shared: Arc::clone(&self.shared),
        })
    }
}
