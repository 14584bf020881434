//! One writer for the logs of many groups: their appends share one sync. Each group has a store of
//! its own, which sees nothing of the others.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use raft_core::{GroupId, SnapshotStore, StorageError};

use super::opening::{Opened, Opening};
use super::options::{RecoveryReport, WalOptions};
use super::recovery;
use super::salvage::salvage;
use super::shared::{GroupLog, Shared};
use super::slots::{Slots, TakenSlot};
use super::store::WalLogStore;
use crate::batch_thread::{BatchQueue, BatchThread};
use crate::errors::{foreign, io_error};
use crate::files::{DirLock, Disk};
use crate::owner::WalOwner;
use crate::snapshots::{self, FileSnapshots};

/// The logs of all groups of a process, in one directory of segment files.
///
/// Dropping it, and the stores of all its groups, waits for what is being written.
#[derive(Clone, Debug)]
pub struct WalEngine(Arc<Engine>);

#[derive(Debug)]
pub(super) struct Engine {
    dir: PathBuf,
    owner: WalOwner,
    disk: Disk,
    /// Of group 0. The other groups have directories of their own in it.
    snapshots: PathBuf,
    shared: Arc<Shared>,
    thread: Arc<BatchThread>,
    /// Whether damage may have taken groups that nothing names any more.
    groups_may_be_lost: bool,
    slots: Slots,
}

impl WalEngine {
    /// Opens the logs in `dir`, and creates the directory where the options allow. Reads all of
    /// them; a torn tail is cut, kept aside and reported.
    ///
    /// # Errors
    /// As [`WalLogStore::open`].
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
        let opened = open_log(dir, owner, &options, lock)?;
        let Opened {
            shared,
            writer,
            mut report,
        } = opened;
        let groups_may_be_lost = writer.factory.may_groups_be_lost();
        let thread = BatchThread::start("wal-writer", Arc::clone(&shared.poison), writer)
            .map_err(|error| io_error("start the writer of", dir, &error))?;
        report.duration = started.elapsed();
        tracing::info!(
            dir = %dir.display(),
            groups = shared.groups().len(),
            segments = report.segments,
            records = report.records,
            bytes = report.bytes,
            duration_ms = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
            "log opened"
        );
        let engine = Engine {
            dir: dir.to_owned(),
            owner,
            snapshots: snapshots_dir(dir, &options),
            disk: options.disk,
            shared,
            thread,
            groups_may_be_lost,
            slots: Slots::default(),
        };
        Ok((Self(Arc::new(engine)), report))
    }

    /// The groups that there is a log of, and those that were asked for, in ascending order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.0.shared.groups().keys().copied().collect()
    }

    /// The store of one group, which is a new and empty one where there is no log of it. Its
    /// snapshots are in the directory of the options for group 0, and in `group-<id>` in it for
    /// another, the id in 20 decimal digits. Blocks its thread while that directory is read.
    ///
    /// # Errors
    /// `Io` where the group is open already, or is one too many: [`WalOptions::GROUPS_MAX`].
    /// Otherwise what opening its snapshots meets.
    pub fn group(&self, group: GroupId) -> Result<WalLogStore, StorageError> {
        let engine = &self.0;
        let mut slot = engine.take(group)?;
        let log = engine.log(group)?;
        let snapshots = snapshots_of(&engine.snapshots, group);
        let snapshots = FileSnapshots::open(engine.disk.clone(), &snapshots, &engine.owner)?;
        Ok(WalLogStore {
            queue: BatchQueue::new(Arc::clone(&engine.thread), group, slot.pending.take()),
            shared: Arc::clone(&engine.shared),
            group,
            log,
            snapshots: Arc::new(snapshots),
            slot,
        })
    }
}

impl WalLogStore {
    /// Opens the log of group 0 in `dir`, for a process that serves no other one, and creates it
    /// where the options allow. Reads all of it; a torn tail is cut, kept aside and reported.
    /// Where synced data is damaged, the log is repaired: see [`WalOptions::repair`].
    ///
    /// # Errors
    /// `Damaged` where data that had been synced is not readable any more and is not to be
    /// repaired; `LostPromises` where it cannot be, because the newest term and vote are not
    /// certain; `Foreign` where the log is not `owner`'s, is of a newer version, or is missing
    /// though it must exist. Nothing has been changed then. `Io` or `Full` where the system
    /// refuses, also where another process has the log open.
    pub fn open(
        dir: &Path,
        owner: WalOwner,
        options: WalOptions,
    ) -> Result<(Self, RecoveryReport), StorageError> {
        let (engine, report) = WalEngine::open(dir, owner, options)?;
        Ok((engine.group(GroupId(0))?, report))
    }
}

const NO_LOG: &str = "holds no log, but must: its disk was lost, or it was never formatted";

/// Recovers what is there, and repairs it where that is allowed and possible.
fn open_log(
    dir: &Path,
    owner: WalOwner,
    options: &WalOptions,
    lock: DirLock,
) -> Result<Opened, StorageError> {
    let opening = Opening::new(dir, owner, options);
    match recovery::recover(&options.disk, dir, &owner) {
        Ok(None) if !options.create => Err(foreign(dir, NO_LOG)),
        Ok(recovered) => opening.open(recovered, lock),
        Err(damage @ StorageError::Damaged { .. }) if options.repair => {
            let snapshots = snapshots_dir(dir, options);
            let snapshot_of = |group| {
                let dir = snapshots_of(&snapshots, group);
                let store = FileSnapshots::open(options.disk.clone(), &dir, &owner)?;
                let last = store.latest().map(|snapshot| snapshot.meta.last);
                Ok(last.unwrap_or_default())
            };
            let salvaged = salvage(&options.disk, dir, &owner, &damage, snapshot_of)?;
            opening.repair(salvaged, damage, lock)
        }
        Err(error) => Err(error),
    }
}

fn snapshots_dir(dir: &Path, options: &WalOptions) -> PathBuf {
    let told = options.snapshots.clone();
    told.unwrap_or_else(|| snapshots::beside(dir))
}

/// The directory of one group's snapshots, from that of group 0.
fn snapshots_of(snapshots: &Path, group: GroupId) -> PathBuf {
    match group {
        GroupId(0) => snapshots.to_owned(),
        GroupId(other) => snapshots.join(format!("group-{other:020}")),
    }
}

impl Engine {
    fn take(&self, group: GroupId) -> Result<TakenSlot, StorageError> {
        let slot = self.slots.take(group);
        slot.ok_or_else(|| self.refused(format!("group {group} is open already")))
    }

    fn log(&self, group: GroupId) -> Result<Arc<GroupLog>, StorageError> {
        let mut groups = self.shared.groups();
        if let Some(log) = groups.get(&group) {
            return Ok(Arc::clone(log));
        }
        if self.groups_may_be_lost {
            return Err(StorageError::LostPromises {
                path: self.dir.display().to_string(),
                offset: 0,
                what: format!("group {group} may have been among what was damaged"),
            });
        }
        let limit = WalOptions::GROUPS_MAX;
        if groups.len() >= limit {
            let what = format!("group {group} is one more than the limit of {limit} (groups_max)");
            return Err(self.refused(what));
        }
        Ok(Arc::clone(groups.entry(group).or_default()))
    }

    fn refused(&self, what: String) -> StorageError {
        io_error("open", &self.dir, &std::io::Error::other(what))
    }
}
