//! Whether the disk has room for what RocksDB must still write. It is asked of the file system,
//! because RocksDB keeps nothing in reserve, and after a full disk it takes nothing any more.

use std::path::Path;

use super::options::{WRITE_BUFFER_BYTES, WRITE_BUFFERS_MAX};

/// What must be free: all buffers may become files before anything is given back.
pub(super) const FREE_BYTES_MIN: u64 = WRITE_BUFFER_BYTES as u64 * WRITE_BUFFERS_MAX as u64;

/// Whether less than so much is free on the file system of `dir`; `false` where it does not tell.
#[cfg(target_os = "linux")]
pub(super) fn is_short(dir: &Path, free_bytes_min: u64) -> bool {
    rustix::fs::statvfs(dir)
        .is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < free_bytes_min)
}

/// Not told here.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_short(_dir: &Path, _free_bytes_min: u64) -> bool {
    false
}
