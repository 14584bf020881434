//! Whether the disk has room for what RocksDB must still write. It is asked of the file system,
//! because RocksDB keeps nothing in reserve, and after a full disk it takes nothing any more.

use std::path::Path;

/// Whether less than so much is free on the file system of `dir`; `false` where it does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn is_short(dir: &Path, free_bytes_min: u64) -> bool {
    rustix::fs::statvfs(dir)
        .is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < free_bytes_min)
}

/// Not told here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_short(_dir: &Path, _free_bytes_min: u64) -> bool {
    false
}
