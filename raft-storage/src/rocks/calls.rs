//! The one way to write.

use std::path::Path;

use raft_core::StorageError;
use rocksdb::{DB, WriteBatch, WriteOptions};

use crate::rocks_errors::rocks_error;

/// Makes a batch durable.
pub(super) fn write_synced(db: &DB, path: &Path, batch: WriteBatch) -> Result<(), StorageError> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    let written = db.write_opt(batch, &options);
    written.map_err(|error| rocks_error("write", path, &error))
}
