//! Segments that count no more because they, or others beside them, are damaged: kept under another
//! name for whoever wants to look, a bounded number of them.

use std::path::{Path, PathBuf};

use raft_core::StorageError;

use crate::files::Disk;

/// Damaged segments that are kept; older ones are removed.
const DAMAGED_KEPT_MAX: usize = 8;
pub(super) const DAMAGED_PREFIX: &str = "damaged-";

/// Takes segments out of the log. Their new names.
pub(super) fn set_aside(
    disk: &Disk,
    dir: &Path,
    segments: &[PathBuf],
) -> Result<Vec<PathBuf>, StorageError> {
    let mut aside = Vec::with_capacity(segments.len());
    for path in segments {
        let sequence = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = dir.join(format!("{DAMAGED_PREFIX}{sequence}"));
        disk.rename(&mut disk.open(path)?, name.clone())?;
        aside.push(name);
    }
    if !aside.is_empty() {
        remove_surplus(disk, dir)?;
        disk.sync_dir(dir)?;
    }
    Ok(aside)
}

fn remove_surplus(disk: &Disk, dir: &Path) -> Result<(), StorageError> {
    let mut kept = disk.list(dir)?;
    kept.retain(|path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(DAMAGED_PREFIX)
    });
    kept.sort_unstable();
    let surplus = kept.len().saturating_sub(DAMAGED_KEPT_MAX);
    kept[..surplus]
        .iter()
        .try_for_each(|segment| disk.remove(segment))
}
