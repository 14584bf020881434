//! File operations with the errors of this crate, and the one place where tests inject failures and
//! record what would be on the disk after a power cut. No format lives here.

mod note;
#[cfg(test)]
pub(crate) mod probe;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::Arc;

use raft_core::StorageError;

use crate::errors::io_error;
use note::Note;

/// The operations that change a directory or a file of the log. Without tests it is empty and
/// passes everything through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) probe: Option<Arc<probe::Probe>>,
}

/// A file that is written at positions. The path is for error messages.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl Disk {
    /// Creates a file, or empties it.
    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, StorageError> {
        self.note(|| Note::Create(path))
            .and_then(|()| {
                File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)
            })
            .map(|file| self.wrap(file, path))
            .map_err(|error| io_error("create", path, &error))
    }

    /// Opens a file that is there.
    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, StorageError> {
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map(|file| self.wrap(file, path))
            .map_err(|error| io_error("open", path, &error))
    }

    fn wrap(&self, file: File, path: &Path) -> DiskFile {
        DiskFile {
            file,
            path: path.to_owned(),
            disk: self.clone(),
        }
    }

    /// Gives a file another name in its directory. Durable only after [`Disk::sync_dir`].
    pub(crate) fn rename(&self, file: &mut DiskFile, to: PathBuf) -> Result<(), StorageError> {
        self.note(|| Note::Rename(&file.path, &to))
            .and_then(|()| fs::rename(&file.path, &to))
            .map_err(|error| io_error("rename", &file.path, &error))?;
        file.path = to;
        Ok(())
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StorageError> {
        self.note(|| Note::Remove(path))
            .and_then(|()| fs::remove_file(path))
            .map_err(|error| io_error("remove", path, &error))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), StorageError> {
        self.note(|| Note::SyncDir)
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(|error| io_error("sync", dir, &error))
    }

    #[cfg(test)]
    fn note<'a>(&self, note: impl FnOnce() -> Note<'a>) -> io::Result<()> {
        match &self.probe {
            Some(probe) => probe.note(&note()),
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        reason = "the probe of the tests is a field of it"
    )]
    fn note<'a>(&self, _note: impl FnOnce() -> Note<'a>) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        self.disk
            .note(|| Note::Write(&self.path, offset, bytes))
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(|error| io_error("write", &self.path, &error))
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(crate) fn set_length(&self, bytes: u64) -> Result<(), StorageError> {
        self.disk
            .note(|| Note::SetLength(&self.path, bytes))
            .and_then(|()| self.file.set_len(bytes))
            .map_err(|error| io_error("cut", &self.path, &error))
    }

    /// Makes what was written durable, and the length where it changed.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.disk
            .note(|| Note::Sync(&self.path))
            .and_then(|()| self.file.sync_data())
            .map_err(|error| io_error("sync", &self.path, &error))
    }
}

/// Makes the page cache and the disk agree on a file before it is read: what was written but not
/// synced when the process died becomes durable, and what the disk refused to keep, though the
/// cache still has it, is not taken for durable.
///
/// # Errors
/// When the file cannot be opened or synced.
pub(crate) fn settle(path: &Path) -> Result<(), StorageError> {
    let file = File::open(path).map_err(|error| io_error("open", path, &error))?;
    file.sync_data()
        .map_err(|error| io_error("sync", path, &error))?;
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed) {
        tracing::debug!(path = %path.display(), %error, "the page cache was not dropped");
    }
    Ok(())
}

/// The directory that a file is in.
pub(crate) fn parent_dir(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a directory and the missing ones above it, each made durable in the one above.
///
/// # Errors
/// When a directory cannot be created or synced.
pub(crate) fn create_dir_synced(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_dir(path);
    create_dir_synced(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(io_error("create", path, &error))
        }
        _ => Disk::default().sync_dir(parent),
    }
}

/// Takes the lock of a log's directory, which ends with the process or when the file is dropped:
/// two writers would destroy a log.
///
/// # Errors
/// When somebody else holds it.
pub(crate) fn lock_dir(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| io_error("open", &path, &error))?;
    file.try_lock()
        .map_err(|error| io_error("lock", &path, &io::Error::from(error)))?;
    Ok(file)
}
