//! File operations with the errors of this crate, over any [`FileSystem`]. No format lives here.

mod aligned;
#[cfg_attr(
    not(any(test, feature = "sim-disk")),
    expect(
        unreachable_pub,
        reason = "only disks of tests are made of it elsewhere"
    )
)]
mod file_system;
mod machine;
#[cfg(test)]
pub(crate) mod probe;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_core::StorageError;

use crate::errors::io_error;
pub(crate) use aligned::{AlignedBuffer, BLOCK_BYTES};
use machine::Machine;

#[cfg_attr(
    not(any(test, feature = "sim-disk")),
    expect(
        unreachable_pub,
        reason = "only disks of tests are made of it elsewhere"
    )
)]
pub use file_system::{FileHandle, FileSystem, LockGuard};

/// Where the files of a log and its snapshots are: on the machine's own file system unless told.
///
/// There are others only for tests (feature `sim-disk`). Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    system: Arc<dyn FileSystem>,
}

impl Disk {
    /// A disk of tests.
    #[cfg(any(test, feature = "sim-disk"))]
    #[must_use]
    pub fn over(system: Arc<dyn FileSystem>) -> Self {
        Self { system }
    }
}

impl Default for Disk {
    fn default() -> Self {
        let system = Arc::new(Machine);
        Self { system }
    }
}

/// A file that is read and written at positions. The path is for error messages.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: Box<dyn FileHandle>,
    path: PathBuf,
}

/// Held as long as a directory is in use.
#[derive(Debug)]
pub(crate) struct DirLock {
    _held: Box<dyn LockGuard>,
}

impl Disk {
    /// Whether work that may go on in the background is waited for.
    pub(crate) fn works_in_turn(&self) -> bool {
        self.system.works_in_turn()
    }

    /// Creates a file, or empties it.
    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, StorageError> {
        DiskFile::of("create", path, self.system.create(path))
    }

    /// Opens a file that is there.
    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, StorageError> {
        DiskFile::of("open", path, self.system.open(path))
    }

    /// Opens a file that is there for writes that are synced soon: past the page cache where that
    /// is possible, so that nothing is copied, and nothing remembered that the disk did not take.
    pub(crate) fn open_direct(&self, path: &Path) -> Result<DiskFile, StorageError> {
        DiskFile::of("open", path, self.system.open_direct(path))
    }

    /// Opens a file that is there and is not written.
    pub(crate) fn open_to_read(&self, path: &Path) -> Result<DiskFile, StorageError> {
        DiskFile::of("open", path, self.system.open_to_read(path))
    }

    /// Whether there is a file of this name.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool, StorageError> {
        let found = self.system.exists(path);
        found.map_err(|error| io_error("open", path, &error))
    }

    /// Whether there is a directory of this name.
    pub(crate) fn is_dir(&self, path: &Path) -> bool {
        self.system.is_dir(path)
    }

    /// The paths of what is in a directory, in any order.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
        let found = self.system.list(dir);
        found.map_err(|error| io_error("list", dir, &error))
    }

    /// Gives a file another name in its directory. Durable only after [`Disk::sync_dir`].
    pub(crate) fn rename(&self, file: &mut DiskFile, to: PathBuf) -> Result<(), StorageError> {
        let renamed = self.system.rename(&file.path, &to);
        renamed.map_err(|error| io_error("rename", &file.path, &error))?;
        file.path = to;
        Ok(())
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StorageError> {
        let removed = self.system.remove(path);
        removed.map_err(|error| io_error("remove", path, &error))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), StorageError> {
        let synced = self.system.sync_dir(dir);
        synced.map_err(|error| io_error("sync", dir, &error))
    }

    /// Makes the page cache and the disk agree on a file before it is read: what was written but
    /// not synced when the process died becomes durable, and what the disk refused to keep, though
    /// the cache still has it, is not taken for durable.
    ///
    /// # Errors
    /// When the file cannot be opened or synced.
    pub(crate) fn settle(&self, path: &Path) -> Result<(), StorageError> {
        let file = self.open_to_read(path)?;
        file.sync()?;
        if let Err(error) = file.file.drop_cache() {
            tracing::debug!(path = %path.display(), %error, "the page cache was not dropped");
        }
        Ok(())
    }

    /// Whether less than so much is free on the disk that `dir` is on; `false` where it does not
    /// tell.
    pub(crate) fn has_less_than(&self, bytes: u64, dir: &Path) -> bool {
        self.system.free_bytes(dir).is_some_and(|free| free < bytes)
    }

    /// Creates a directory and the missing ones above it, each made durable in the one above.
    ///
    /// # Errors
    /// When a directory cannot be created or synced.
    pub(crate) fn create_dir_synced(&self, path: &Path) -> Result<(), StorageError> {
        if self.is_dir(path) {
            return Ok(());
        }
        let parent = parent_dir(path);
        self.create_dir_synced(parent)?;
        match self.system.create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(io_error("create", path, &error))
            }
            _ => self.sync_dir(parent),
        }
    }

    /// Takes the lock of a log's directory, which ends with the process or when it is dropped: two
    /// writers would destroy a log.
    ///
    /// # Errors
    /// When somebody else holds it.
    pub(crate) fn lock_dir(&self, dir: &Path) -> Result<DirLock, StorageError> {
        let path = dir.join("lock");
        let held = self.system.lock(&path);
        let held = held.map_err(|error| io_error("lock", &path, &error))?;
        Ok(DirLock { _held: held })
    }
}

impl DiskFile {
    /// A file of any kind.
    pub(crate) fn of(
        operation: &'static str,
        path: &Path,
        file: io::Result<Box<dyn FileHandle>>,
    ) -> Result<Self, StorageError> {
        let file = file.map_err(|error| io_error(operation, path, &error))?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> Result<u64, StorageError> {
        let length = self.file.length();
        length.map_err(|error| io_error("open", &self.path, &error))
    }

    /// What offset, length and memory of a write must be multiples of; 1 where it does not matter.
    pub(crate) fn block_bytes(&self) -> usize {
        self.file.block_bytes()
    }

    /// Fills `bytes` from `offset` on. Callers tell an end of the file from other failures.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let written = self.file.write_at(bytes, offset);
        written.map_err(|error| io_error("write", &self.path, &error))
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(crate) fn set_length(&self, bytes: u64) -> Result<(), StorageError> {
        let cut = self.file.set_length(bytes);
        cut.map_err(|error| io_error("cut", &self.path, &error))
    }

    /// Makes what was written durable, and the length where it changed.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let synced = self.file.sync();
        synced.map_err(|error| io_error("sync", &self.path, &error))
    }
}

/// The directory that a file is in.
pub(crate) fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
