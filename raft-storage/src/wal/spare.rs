//! Files full of zeros, written in the background ahead of need. A sync of a write into blocks that
//! were written before has no metadata to journal: it takes half the time. When such a file is
//! needed is not known here.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use raft_core::StorageError;

use super::segment::HEADER_BYTES;
use crate::errors::io_error;
use crate::files::{BLOCK_BYTES, Disk, DiskFile};

/// The name of a spare file, which is not the name of a segment.
pub(super) const SPARE_NAME: &str = "spare";
/// What the names of segments begin with that count no more and are kept to be written again.
pub(super) const RECYCLED_PREFIX: &str = "recycled-";
/// The name of the reserve, and of one that is not whole yet.
pub(super) const RESERVE_NAME: &str = "reserve";
pub(super) const NEW_RESERVE_NAME: &str = "reserve.new";

/// Zeros that begin at a block, as writes past the page cache want them.
#[repr(align(4096))]
struct Zeros([u8; 256 << 10]);

static ZEROS: Zeros = Zeros([0; 256 << 10]);
const _: () = assert!(align_of::<Zeros>() == BLOCK_BYTES);

/// Bytes between syncs, so that a spare never holds up the log's own sync with much dirty memory.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// A new file of so many zeros, which are on the disk. Where that fails no file is left.
pub(super) fn make_spare(
    disk: &Disk,
    path: &Path,
    bytes: u64,
    stop: &AtomicBool,
) -> Result<DiskFile, StorageError> {
    let made = disk.create(path).and_then(|_| {
        let file = disk.open_direct(path)?;
        fill(&file, 0, bytes, stop)?;
        Ok(file)
    });
    if matches!(made, Err(StorageError::Full { .. })) && disk.exists(path)? {
        // What it has already is room that somebody needs.
        disk.remove(path)?;
    }
    made
}

/// A file of so many zeros, whole and durable under its name or not there under it. One that is
/// there already is used.
pub(super) fn make_reserve(
    disk: &Disk,
    dir: &Path,
    bytes: u64,
    stop: &AtomicBool,
) -> Result<(), StorageError> {
    let path = dir.join(RESERVE_NAME);
    if disk.exists(&path)? {
        let file = disk.open(&path)?;
        if file.length()? == bytes {
            // A crash may have come when it was about to become a segment.
            return if begins_with_zeros(&file)? {
                Ok(())
            } else {
                fill(&file, 0, bytes, stop)
            };
        }
        disk.remove(&path)?;
    }
    let mut file = make_spare(disk, &dir.join(NEW_RESERVE_NAME), bytes, stop)?;
    disk.rename(&mut file, path)?;
    disk.sync_dir(dir)
}

fn begins_with_zeros(file: &DiskFile) -> Result<bool, StorageError> {
    let mut page = [0; HEADER_BYTES];
    file.read_at(&mut page, 0)
        .map_err(|error| io_error("read", file.path(), &error))?;
    Ok(page == [0; HEADER_BYTES])
}

/// Writes zeros and makes them durable. Ends early, with an error, when told to stop.
pub(super) fn fill(
    file: &DiskFile,
    from: u64,
    to: u64,
    stop: &AtomicBool,
) -> Result<(), StorageError> {
    let mut at = from;
    while at < to {
        if stop.load(Ordering::Relaxed) {
            let stopped = std::io::Error::from(std::io::ErrorKind::Interrupted);
            return Err(io_error("write", file.path(), &stopped));
        }
        let piece = (to - at).min(ZEROS.0.len() as u64);
        let zeros = &ZEROS.0[..usize::try_from(piece).unwrap_or(ZEROS.0.len())];
        file.write_at(zeros, at)?;
        at += piece;
        if at.is_multiple_of(SYNC_EVERY_BYTES) {
            file.sync()?;
        }
    }
    file.sync()
}
