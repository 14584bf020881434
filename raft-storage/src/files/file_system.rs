//! What the log and the snapshots ask of a disk, as a trait: the system's files, or a disk of tests
//! that loses, lies and fills up. Paths, names and errors are those of the system.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

/// The operations on names.
///
/// A name that was created, changed or removed is durable only after [`FileSystem::sync_dir`] of
/// the directory that it is in, and what is in a file only after [`FileHandle::sync`].
pub trait FileSystem: Debug + Send + Sync + 'static {
    /// Creates a file for reading and writing, or empties the one that is there.
    ///
    /// # Errors
    /// What the system answers.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Opens a file that is there for reading and writing.
    ///
    /// # Errors
    /// What the system answers; `NotFound` where there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Opens a file that is there for writing past the cache of the system, where that is possible:
    /// [`FileHandle::block_bytes`] then says how. Else as [`FileSystem::open`]. Not for reading.
    ///
    /// # Errors
    /// What the system answers; `NotFound` where there is none.
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        self.open(path)
    }

    /// Opens a file that is there for reading.
    ///
    /// # Errors
    /// What the system answers; `NotFound` where there is none.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn FileHandle>>;

    /// Whether there is a file or a directory of this name.
    ///
    /// # Errors
    /// What the system answers.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Whether there is a directory of this name.
    fn is_dir(&self, path: &Path) -> bool;

    /// The paths of what is in a directory, in any order.
    ///
    /// # Errors
    /// What the system answers.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory in one that is there.
    ///
    /// # Errors
    /// What the system answers; `AlreadyExists` where the name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, which is taken from whoever had it.
    ///
    /// # Errors
    /// What the system answers.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file. Whoever has the file open reads on.
    ///
    /// # Errors
    /// What the system answers.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system answers.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that may still be written on the disk that a directory is on; `None` where that is not
    /// told.
    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        let _ = dir;
        None
    }

    /// Takes the lock that this file stands for, and creates the file where it is missing. The lock
    /// ends when the answer is dropped, and with the process.
    ///
    /// # Errors
    /// What the system answers; `WouldBlock` where somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;

    /// Whether work that may go on in the background is waited for, so that the same calls give the
    /// same operations in the same order. Disks of tests want that.
    fn works_in_turn(&self) -> bool {
        false
    }
}

/// The operations on what is in a file. A handle stays with its file when the name changes.
pub trait FileHandle: Debug + Send + Sync + 'static {
    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system answers.
    fn length(&self) -> io::Result<u64>;

    /// What offset, length and memory of a write must be multiples of.
    fn block_bytes(&self) -> usize {
        1
    }

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// What the system answers; `UnexpectedEof` where the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system answers. Any part of `bytes` may have been written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    /// What the system answers.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Makes what was written durable, and the length where it changed.
    ///
    /// # Errors
    /// What the system answers. What was not durable before may be lost for good then, even where
    /// a later call succeeds.
    fn sync(&self) -> io::Result<()>;

    /// Lets later reads ask the disk, not the memory of the system, where that is possible.
    ///
    /// # Errors
    /// What the system answers.
    fn drop_cache(&self) -> io::Result<()>;
}

/// A lock that is held as long as this lives.
pub trait LockGuard: Debug + Send + Sync + 'static {}
