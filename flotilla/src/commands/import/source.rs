//! What an import reads.

use std::path::PathBuf;

/// What is read.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// One key per file.
    Folder(PathBuf),
    /// One key per line.
    Ndjson(PathBuf),
}
