//! What RocksDB answers, in the errors of this crate.

use std::path::Path;

use raft_core::StorageError;
use rocksdb::ErrorKind;

use crate::errors::damaged;

/// RocksDB tells errors as text with a kind in front.
pub(crate) fn rocks_error(
    operation: &'static str,
    path: &Path,
    error: &rocksdb::Error,
) -> StorageError {
    let message = error.to_string();
    let shown = path.display().to_string();
    match error.kind() {
        ErrorKind::Corruption => damaged(path, 0, message),
        ErrorKind::IOError if message.contains("No space left on device") => StorageError::Full {
            operation,
            path: shown,
        },
        _ => StorageError::Io {
            operation,
            path: shown,
            message,
        },
    }
}
