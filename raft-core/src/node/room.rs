//! Whether the disk of the state has room left, where it is on one. What follows from it for the
//! group is decided in `protocol::room`, together with what the log says of its own disk.

use std::sync::Arc;

use crate::state_machine::{RoomLeft, RoomWatch};

/// See the file. Clones ask the same disk.
#[derive(Clone, Default)]
pub(crate) struct StateRoom(Option<Arc<dyn RoomWatch>>);

impl StateRoom {
    /// What a state machine says of itself.
    pub(crate) fn new(watch: Option<Arc<dyn RoomWatch>>) -> Self {
        Self(watch)
    }

    /// Whether no commands are to be taken.
    pub(crate) fn is_short(&self) -> bool {
        self.left() != RoomLeft::Enough
    }

    /// Whether a snapshot would take what the state needs for itself.
    pub(crate) fn forbids_snapshots(&self) -> bool {
        self.left() == RoomLeft::Reserve
    }

    /// Whether so many bytes can be written beside the state.
    pub(crate) fn takes(&self, bytes: u64) -> bool {
        let watch = self.0.as_ref();
        watch.is_none_or(|watch| watch.has_room_for(bytes))
    }

    fn left(&self) -> RoomLeft {
        let watch = self.0.as_ref();
        watch.map_or(RoomLeft::Enough, |watch| watch.room_left())
    }
}
