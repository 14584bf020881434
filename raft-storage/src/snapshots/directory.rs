//! The directory: names, which snapshot is the newest one, and what is cleared away. Everything
//! here blocks its thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use raft_core::{Index, LogId, SnapshotDescriptor, SnapshotMeta, StorageError, Term};
use tokio::sync::Semaphore;

use crate::errors::foreign;
use crate::files::{DirLock, Disk};
use crate::owner::WalOwner;
use crate::snapshot_file::{SnapshotFile, SnapshotFileWriter, SnapshotOrigin};

/// What is being received.
pub(super) const PARTIAL_NAME: &str = "incoming";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";
pub(super) const SUFFIX: &str = ".snap";
const DIGITS: usize = 20;

/// How long the lock is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A directory of snapshots that is open.
#[derive(Debug)]
pub(super) struct SnapshotDirectory {
    disk: Disk,
    path: PathBuf,
    origin: SnapshotOrigin,
    state: Mutex<State>,
    /// Held while a snapshot gets its name, which two may want at once.
    naming: Mutex<()>,
    /// Held by whoever writes the partial file.
    pub(super) receiving: Arc<Semaphore>,
    _lock: DirLock,
}

#[derive(Debug, Default)]
struct State {
    latest: Option<SnapshotDescriptor>,
    /// Temporary names that were given.
    created: u64,
    /// The last entry of what the partial file is about.
    partial: Option<LogId>,
    /// Whether somebody has a writer for it.
    is_receiving: bool,
}

impl SnapshotDirectory {
    pub(super) fn open(disk: Disk, path: &Path, owner: &WalOwner) -> Result<Self, StorageError> {
        disk.create_dir_synced(path)?;
        let lock = lock(&disk, path)?;
        let mut directory = Self {
            disk,
            path: path.to_owned(),
            origin: SnapshotOrigin {
                cluster: owner.cluster,
                node: owner.node,
            },
            state: Mutex::default(),
            naming: Mutex::default(),
            receiving: Arc::new(Semaphore::new(1)),
            _lock: lock,
        };
        directory.recover()?;
        Ok(directory)
    }

    /// Finds the newest snapshot and removes the rest.
    fn recover(&mut self) -> Result<(), StorageError> {
        let found = Found::in_directory(&self.disk, &self.path)?;
        let mut latest = None;
        if let Some((last, path)) = found.complete.last() {
            // It may have been seen without its name being durable.
            self.disk.sync_dir(&self.path)?;
            latest = Some(self.check(path, *last)?);
        }
        let (_, older) = found.complete.split_last().unzip();
        let older = older.into_iter().flatten().map(|(_, path)| path);
        for path in older.chain(&found.temporary) {
            self.disk.remove(path)?;
        }
        let partial = self.recover_partial(latest.as_ref())?;
        self.state = Mutex::new(State {
            latest,
            partial,
            ..State::default()
        });
        Ok(())
    }

    /// Keeps a transfer that can be resumed and would bring something new.
    fn recover_partial(
        &self,
        latest: Option<&SnapshotDescriptor>,
    ) -> Result<Option<LogId>, StorageError> {
        let path = self.path.join(PARTIAL_NAME);
        let partial = SnapshotFileWriter::resumable(&self.disk, &path, self.origin)?;
        let is_new = |last: &LogId| latest.is_none_or(|l| l.meta.last.index < last.index);
        let partial = partial.filter(is_new);
        if partial.is_none() && self.disk.exists(&path)? {
            self.disk.remove(&path)?;
        }
        Ok(partial)
    }

    /// The descriptor of a complete snapshot of this node.
    fn check(&self, path: &Path, last: LogId) -> Result<SnapshotDescriptor, StorageError> {
        let file = SnapshotFile::open(&self.disk, path)?;
        let (found, own) = (file.origin(), self.origin);
        if found != own {
            let what = format!(
                "is of node {} of cluster {}, not of node {} of cluster {}",
                found.node, found.cluster, own.node, own.cluster
            );
            return Err(foreign(path, what));
        }
        let descriptor = file.descriptor();
        if descriptor.meta.last != last {
            let what = format!("is a snapshot up to {}", descriptor.meta.last);
            return Err(foreign(path, what));
        }
        tracing::info!(path = %path.display(), "{descriptor}");
        Ok(descriptor.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Its fields are set one by one, and each is right by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn latest(&self) -> Option<SnapshotDescriptor> {
        self.state().latest.clone()
    }

    /// A writer for a snapshot of this node's own state.
    pub(super) fn create(&self, meta: SnapshotMeta) -> Result<SnapshotFileWriter, StorageError> {
        let number = {
            let mut state = self.state();
            state.created += 1;
            state.created
        };
        let temporary = self.path.join(format!("{number}{TEMPORARY_SUFFIX}"));
        let target = self.path.join(file_name(meta.last));
        SnapshotFileWriter::create_in(&self.disk, &temporary, &target, self.origin, meta)
    }

    /// Takes the right to receive, which `end_receiving` gives back.
    pub(super) fn begin_receiving(&self) -> Result<(), StorageError> {
        if std::mem::replace(&mut self.state().is_receiving, true) {
            return Err(StorageError::Io {
                operation: "receive into",
                path: self.path.join(PARTIAL_NAME).display().to_string(),
                message: "another transfer is under way".to_owned(),
            });
        }
        Ok(())
    }

    pub(super) fn end_receiving(&self) {
        self.state().is_receiving = false;
    }

    /// A writer for a snapshot that comes from elsewhere.
    pub(super) fn receive(
        &self,
        announced: &SnapshotDescriptor,
    ) -> Result<SnapshotFileWriter, StorageError> {
        let last = announced.meta.last;
        self.state().partial = Some(last);
        let partial = self.path.join(PARTIAL_NAME);
        let target = self.path.join(file_name(last));
        SnapshotFileWriter::resume_in(&self.disk, &partial, &target, self.origin, announced)
    }

    /// Makes a snapshot the newest one and removes what it replaces.
    pub(super) fn finish(
        &self,
        writer: SnapshotFileWriter,
    ) -> Result<SnapshotDescriptor, StorageError> {
        let naming = self.naming.lock();
        let _naming = naming.unwrap_or_else(PoisonError::into_inner);
        let last = writer.meta().last;
        let before = self.latest().map(|latest| latest.meta.last);
        if before.is_some_and(|before| before.index > last.index) {
            // A newer one came meanwhile, so this is an older one, and those go.
            return writer.discard();
        }
        let finished = writer.finish();
        if finished.is_err() && before != Some(last) {
            // It may have its name already, though that is not durable. Nobody hears of it, so it
            // would only take room; the log was not compacted for its sake.
            let named = self.path.join(file_name(last));
            if self.disk.exists(&named).unwrap_or(true) {
                self.clear_away(&named);
            }
        }
        let descriptor = finished?;
        self.state().latest = Some(descriptor.clone());
        if let Some(before) = before.filter(|before| *before != last) {
            self.clear_away(&self.path.join(file_name(before)));
        }
        self.clear_partial(last);
        tracing::info!(path = %self.path.display(), "{descriptor} is complete");
        Ok(descriptor)
    }

    /// Removes a transfer that was given up and brings nothing new.
    fn clear_partial(&self, last: LogId) {
        let is_of_no_use = {
            let mut state = self.state();
            let is_old = state.partial.is_some_and(|p| p.index <= last.index);
            let is_of_no_use = is_old && !state.is_receiving;
            if is_of_no_use {
                state.partial = None;
            }
            is_of_no_use
        };
        let partial = self.path.join(PARTIAL_NAME);
        if is_of_no_use && self.disk.exists(&partial).unwrap_or(true) {
            self.clear_away(&partial);
        }
    }

    fn clear_away(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            // It takes room, but nothing else is wrong; the next start tries again.
            tracing::warn!(%error, "an old snapshot could not be removed");
        }
    }

    /// Opens the newest snapshot, where it is up to `last`.
    pub(super) fn open_file(&self, last: LogId) -> Result<SnapshotFile, StorageError> {
        let is_there = |latest: SnapshotDescriptor| latest.meta.last == last;
        if !self.latest().is_some_and(is_there) {
            return Err(StorageError::NoSnapshot(last));
        }
        let path = self.path.join(file_name(last));
        let opened = SnapshotFile::open(&self.disk, &path);
        if opened.is_err() && !self.latest().is_some_and(is_there) {
            // A newer one came between the two questions.
            return Err(StorageError::NoSnapshot(last));
        }
        opened
    }
}

/// Locks the directory. A call of the one that had it open before, which was given up, may still
/// be at its work for a moment.
fn lock(disk: &Disk, dir: &Path) -> Result<DirLock, StorageError> {
    let began = Instant::now();
    loop {
        match disk.lock_dir(dir) {
            Err(StorageError::Io { .. }) if began.elapsed() < LOCK_PATIENCE => {
                thread::sleep(LOCK_PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The files of a directory.
#[derive(Debug, Default)]
struct Found {
    /// By their last entries, the newest last.
    complete: Vec<(LogId, PathBuf)>,
    /// What no crash makes complete.
    temporary: Vec<PathBuf>,
}

impl Found {
    fn in_directory(disk: &Disk, dir: &Path) -> Result<Self, StorageError> {
        let mut found = Self::default();
        for path in disk.list(dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(TEMPORARY_SUFFIX) {
                found.temporary.push(path);
            } else if let Some(last) = last_of(&name) {
                found.complete.push((last, path));
            } else if name.ends_with(SUFFIX) {
                return Err(foreign(&path, "has a name that no snapshot has"));
            }
        }
        found
            .complete
            .sort_by_key(|(last, _)| (last.index, last.term));
        Ok(found)
    }
}

/// The file name of a complete snapshot.
fn file_name(last: LogId) -> String {
    let (index, term) = (last.index.0, last.term.0);
    format!("{index:0DIGITS$}-{term:0DIGITS$}{SUFFIX}")
}

/// The last entry that a file name names; `None` where it is not the name of a snapshot.
pub(super) fn last_of(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |digits: &str| {
        let plain = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    Some(LogId::new(Term(number(term)?), Index(number(index)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_indexes_and_only_they_are_names() {
        for (term, index) in [(0, 0), (7, 12), (u64::MAX, u64::MAX)] {
            let last = LogId::new(Term(term), Index(index));
            assert_eq!(last_of(&file_name(last)), Some(last));
        }
        for other in ["incoming", "1.tmp", "12-7.snap", "lock", ".snap"] {
            assert_eq!(last_of(other), None, "{other}");
        }
    }
}
