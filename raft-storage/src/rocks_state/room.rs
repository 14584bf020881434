//! Whether the disk has room for what the database of a state must still write.

use std::path::{Path, PathBuf};

use raft_core::{RoomLeft, RoomWatch};

use super::options::{WRITE_BUFFER_BYTES, WRITE_BUFFERS};
use crate::files::Disk;

/// Bytes that must be free for what was accepted: all write buffers may become files before
/// anything is given back. One more is for the small files. What RocksDB needs to make several
/// files into one is not in it: where that fails it goes on, and tries again.
pub const STATE_RESERVE_BYTES: u64 = WRITE_BUFFER_BYTES as u64 * (WRITE_BUFFERS as u64 + 1);

/// Bytes that must be free for more commands to be taken: between this and the reserve a snapshot
/// may still be written, which lets the log shrink.
pub const STATE_FREE_BYTES_MIN: u64 = 2 * STATE_RESERVE_BYTES;

/// Asks the file system of a state.
#[derive(Debug)]
pub struct StateRoom {
    dir: PathBuf,
    free_bytes_min: u64,
    reserve_bytes: u64,
}

impl StateRoom {
    /// Of the state in `dir`.
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            free_bytes_min: STATE_FREE_BYTES_MIN,
            reserve_bytes: STATE_RESERVE_BYTES,
        }
    }
}

impl RoomWatch for StateRoom {
    fn room_left(&self) -> RoomLeft {
        let disk = Disk::default();
        if !disk.has_less_than(self.free_bytes_min, &self.dir) {
            RoomLeft::Enough
        } else if disk.has_less_than(self.reserve_bytes, &self.dir) {
            RoomLeft::Reserve
        } else {
            RoomLeft::Short
        }
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        let needed = self.reserve_bytes.saturating_add(bytes);
        !Disk::default().has_less_than(needed, &self.dir)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_file_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let room = |free_bytes_min, reserve_bytes| StateRoom {
            dir: dir.path().to_owned(),
            free_bytes_min,
            reserve_bytes,
        };
        let left = |free_bytes_min, reserve_bytes| room(free_bytes_min, reserve_bytes).room_left();
        assert_eq!(left(u64::MAX, u64::MAX), RoomLeft::Reserve);
        assert_eq!(left(u64::MAX, 1), RoomLeft::Short);
        assert_eq!(left(1, 1), RoomLeft::Enough);
        assert!(room(1, 1).has_room_for(1));
        assert!(!room(1, 1).has_room_for(u64::MAX));
    }
}
