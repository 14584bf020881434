//! Small files that must be there whole or not at all: identities, counters, keys. The log has its
//! own rules and lives in `raft-storage`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Permissions of what only the owner may read: private keys.
pub(crate) const SECRET: u32 = 0o600;

/// Permissions of everything else.
pub(crate) const PUBLIC: u32 = 0o644;

/// A file operation that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {}: {message}", path.display())]
pub struct FileError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the system answered.
    pub message: String,
}

/// Gives an error of the system the name of the operation and of the file.
pub(crate) fn at<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> FileError + use<'a> {
    move |error| FileError {
        operation,
        path: path.to_owned(),
        message: error.to_string(),
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(at("read", path))
}

/// Reads a whole file of text.
pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(at("read", path))
}

/// The names in a directory, in order. A name that is not UTF-8 is none of ours.
pub(crate) fn entry_names(dir: &Path) -> Result<Vec<String>, FileError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("list", dir))? {
        let entry = entry.map_err(at("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether a directory is there.
pub(crate) fn is_directory(path: &Path) -> bool {
    path.is_dir()
}

/// A directory that other processes keep out of, until this is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Locks a directory against other processes; none when one of them has it.
pub(crate) fn lock_directory(dir: &Path) -> Result<Option<DirectoryLock>, FileError> {
    let file = File::open(dir).map_err(at("open", dir))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(DirectoryLock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(at("lock", dir)(error)),
    }
}

/// A lock that is taken for looking only, without making its file or writing to it.
#[derive(Debug)]
pub(crate) enum SharedLock {
    /// Nobody writes until this is dropped.
    Held { _file: File },
    /// There is no file to lock.
    Missing,
    /// Somebody else has it.
    Taken,
}

/// Takes a lock as it is.
pub(crate) fn share_lock(path: &Path) -> Result<SharedLock, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SharedLock::Missing),
        Err(error) => return Err(at("open", path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(SharedLock::Held { _file: file }),
        Err(TryLockError::WouldBlock) => Ok(SharedLock::Taken),
        Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
    }
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove_directory(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Gives a file or directory its place, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(at("rename to", to))?;
    sync_directory(to.parent().unwrap_or(Path::new("")))
}

/// Writes a file so that after a power cut either the old content is there or the new one: a
/// temporary file, synced, renamed over the old one, and the directory synced.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(at("create", &temporary))?;
    file.write_all(bytes).map_err(at("write", &temporary))?;
    file.sync_all().map_err(at("sync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(at("rename to", path))?;
    sync_directory(path.parent().unwrap_or(Path::new("")))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), FileError> {
    // The parent of a bare file name is the empty path, which means the current directory.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let directory = File::open(path).map_err(at("open", path))?;
    directory.sync_all().map_err(at("sync", path))
}

/// Creates a directory and those above it, where they are missing, and makes its name durable.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(at("create directory", path))?;
    sync_directory(path.parent().unwrap_or(Path::new("")))
}

/// Random bytes of the operating system, for ids and keys.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], FileError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| FileError {
        operation: "read",
        path: "the system's random number generator".into(),
        message: error.to_string(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write_atomically(&path, b"first", PUBLIC).unwrap();
        write_atomically(&path, b"second", SECRET).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SECRET);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_operation_and_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing").join("file");
        let error = write_atomically(&path, b"", PUBLIC)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot create") && error.contains("missing/file"),
            "{error}"
        );
    }
}
