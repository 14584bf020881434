//! How far a file that is still being received has come.

use std::path::Path;

use raft_core::{LogId, StorageError};

use super::format::SnapshotOrigin;
use super::reader::Front;
use crate::files::Disk;

/// A file with a whole header and some whole parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartialFile {
    /// Who is receiving it.
    pub(crate) origin: SnapshotOrigin,
    /// What it will be a snapshot of.
    pub(crate) last: LogId,
    /// Whole parts.
    pub(crate) parts: u64,
    /// Where they end.
    pub(crate) end: u64,
    /// What is behind them that is no whole part; none where nothing is.
    pub(crate) damage: Option<String>,
}

impl PartialFile {
    /// Reads all of it; changes nothing.
    ///
    /// # Errors
    /// As for [`Front::open`], and `Io` where the system refuses.
    pub(crate) fn read(disk: &Disk, path: &Path) -> Result<Self, StorageError> {
        let front = Front::open(disk, path)?;
        let mut at = front.first;
        let mut damage = None;
        while at.offset < front.file_bytes() && damage.is_none() {
            match front.part(at, front.file_bytes()) {
                Ok((_, next)) => at = next,
                Err(StorageError::Damaged { what, .. }) => damage = Some(what),
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            origin: front.header.origin,
            last: front.header.meta.last,
            parts: at.part,
            end: at.offset,
            damage,
        })
    }
}
