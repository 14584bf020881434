//! The torn end of a log: copied aside and overwritten with zeros, step 8 of opening in
//! `docs/disk-format.md`.

use std::path::{Path, PathBuf};

use raft_core::StorageError;

use super::options::TailCut;
use super::recovery::TornTail;
use super::scan::Window;
use super::segment::SegmentRef;
use crate::files::{Disk, DiskFile};

/// Torn tails that are kept aside; older ones are removed.
const TORN_COPIES_MAX: usize = 8;
pub(super) const TORN_PREFIX: &str = "torn-";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Copies a torn tail aside and overwrites it with zeros, so that nothing of it can be
/// taken for a record that is written later.
pub(super) fn cut(
    disk: &Disk,
    dir: &Path,
    segment: &SegmentRef,
    torn: TornTail,
) -> Result<TailCut, StorageError> {
    let file = disk.open(&segment.path)?;
    let bytes = torn.end - torn.offset;
    remove_old_copies(disk, dir)?;
    let copy = match keep_copy(disk, dir, &file, segment, torn) {
        // It was never acknowledged. The log has the blocks that it needs to go on.
        Err(full @ StorageError::Full { .. }) => {
            tracing::warn!(error = %full, "the torn end of the log is not kept aside");
            None
        }
        kept => Some(kept?),
    };
    let mut at = torn.offset;
    while at < torn.end {
        let piece = (torn.end - at).min(ZEROS.len() as u64);
        file.write_at(&ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())], at)?;
        at += piece;
    }
    file.sync()?;
    Ok(TailCut {
        path: segment.path.clone(),
        offset: torn.offset,
        bytes,
        copy,
    })
}

/// The first part of the torn tail, durable in a file of its own.
fn keep_copy(
    disk: &Disk,
    dir: &Path,
    file: &DiskFile,
    segment: &SegmentRef,
    torn: TornTail,
) -> Result<PathBuf, StorageError> {
    let copy = dir.join(format!(
        "{TORN_PREFIX}{:020}-{:012}",
        segment.sequence, torn.offset
    ));
    let bytes = (torn.end - torn.offset).min(TailCut::COPY_BYTES_MAX);
    let length = usize::try_from(bytes).expect("COPY_BYTES_MAX fits in memory");
    let mut window = Window::new(file, torn.offset + bytes);
    let kept = disk.create(&copy).and_then(|aside| {
        aside.write_at(window.slice(torn.offset, length)?, 0)?;
        aside.sync()
    });
    if kept.is_err() && disk.exists(&copy)? {
        disk.remove(&copy)?;
    }
    kept?;
    disk.sync_dir(dir)?;
    Ok(copy)
}

fn remove_old_copies(disk: &Disk, dir: &Path) -> Result<(), StorageError> {
    let mut copies = disk.list(dir)?;
    copies.retain(|path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(TORN_PREFIX)
    });
    copies.sort_unstable();
    let surplus = (copies.len() + 1).saturating_sub(TORN_COPIES_MAX);
    copies[..surplus]
        .iter()
        .try_for_each(|copy| disk.remove(copy))
}
