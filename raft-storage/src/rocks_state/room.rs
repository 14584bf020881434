//! Whether the disk has room for what the database of a state must still write.

use std::path::{Path, PathBuf};

use raft_core::{RoomLeft, RoomWatch};

use super::options::{WRITE_BUFFER_BYTES, WRITE_BUFFERS};
use crate::rocks_room::is_short;

/// Bytes that must be free for what was accepted: all write buffers may become files before
/// anything is given back, and one more is written where files become one.
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
        if is_short(&self.dir, self.reserve_bytes) {
            RoomLeft::Reserve
        } else if is_short(&self.dir, self.free_bytes_min) {
            RoomLeft::Short
        } else {
            RoomLeft::Enough
        }
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        !is_short(&self.dir, self.reserve_bytes.saturating_add(bytes))
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
