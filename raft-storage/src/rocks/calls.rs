//! What RocksDB answers, in the errors of this crate, and the one way to write.

use std::path::Path;

use raft_core::StorageError;
use rocksdb::{DB, ErrorKind, WriteBatch, WriteOptions};

use crate::errors::damaged;

/// RocksDB tells errors as text with a kind in front.
pub(super) fn rocks_error(
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

/// Makes a batch durable.
pub(super) fn write_synced(db: &DB, path: &Path, batch: WriteBatch) -> Result<(), StorageError> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    let written = db.write_opt(batch, &options);
    written.map_err(|error| rocks_error("write", path, &error))
}
