//! The errors of raft-core's storage boundary, made from what the stores meet.

use std::io;
use std::path::Path;

use raft_core::StorageError;

/// Tells a full disk from other failures, and says what was tried on which file.
pub(crate) fn io_error(operation: &'static str, path: &Path, error: &io::Error) -> StorageError {
    let path = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StorageError::Full { operation, path }
        }
        _ => StorageError::Io {
            operation,
            path,
            message: error.to_string(),
        },
    }
}

/// Data that had been synced is not what was written.
pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> StorageError {
    StorageError::Damaged {
        path: path.display().to_string(),
        offset,
        what: what.into(),
    }
}

/// It is somebody else's, or of a newer version.
pub(crate) fn foreign(path: &Path, what: impl Into<String>) -> StorageError {
    StorageError::Foreign {
        path: path.display().to_string(),
        what: what.into(),
    }
}
