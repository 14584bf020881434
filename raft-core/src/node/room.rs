//! Whether this node's disks have room left: that of the log, and that of the state where it is on
//! one. What follows from it is decided in `protocol::room`.

use std::sync::Arc;

use crate::log_store::{LogReader, LogUsage};
use crate::state_machine::{RoomLeft, RoomWatch};

/// See the file. Clones ask the same disks.
#[derive(Clone)]
pub(crate) struct Room {
    log: Arc<dyn LogReader>,
    state: Option<Arc<dyn RoomWatch>>,
}

impl Room {
    /// The room of a log, and of a state that needs a disk.
    pub(crate) fn new(log: Arc<dyn LogReader>, state: Option<Arc<dyn RoomWatch>>) -> Self {
        Self { log, state }
    }

    /// What the log takes, and whether there is no room for commands.
    pub(crate) fn look(&self) -> (LogUsage, bool) {
        let usage = self.log.usage();
        let is_short = usage.is_short_of_room || self.state_left() != RoomLeft::Enough;
        (usage, is_short)
    }

    /// Whether a snapshot would take what the state needs for itself.
    pub(crate) fn forbids_snapshots(&self) -> bool {
        self.state_left() == RoomLeft::Reserve
    }

    /// Whether the state could become that of a snapshot of so many bytes, with so many copies of
    /// it to be written on the way.
    pub(crate) fn takes_snapshot(&self, bytes: u64, copies: u64) -> bool {
        let bytes = bytes.saturating_mul(copies);
        let state = self.state.as_ref();
        state.is_none_or(|state| state.has_room_for(bytes))
    }

    fn state_left(&self) -> RoomLeft {
        let state = self.state.as_ref();
        state.map_or(RoomLeft::Enough, |state| state.room_left())
    }
}
