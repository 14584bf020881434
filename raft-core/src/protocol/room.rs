//! A disk that is short of room, which is met before a write fails. What keeps a group alive is
//! small, and still written: votes, no-ops, memberships, compaction. Commands are not: a leader
//! refuses them, a follower leaves them out and says so. All of it ends by itself once there is
//! room again.

use crate::entry::{Entry, EntryKind};
use crate::protocol::{Raft, RoleState};
use crate::types::{Index, NodeId};

impl Raft {
    /// The disk has become short of room, or is so no more.
    pub(crate) fn handle_room(&mut self, is_short: bool) {
        self.is_short_of_room = is_short;
    }

    /// How many of these entries, from the first on, are taken: while the disk is short of room
    /// none behind the first command that is new.
    pub(crate) fn room_for(&self, entries: &[Entry]) -> usize {
        let is_taken = |entry: &&Entry| {
            !self.is_short_of_room || is_small(entry) || self.log.contains(entry.id())
        };
        entries.iter().take_while(is_taken).count()
    }

    /// Of the entries that come next for a follower without room, those that it takes all the same.
    pub(crate) fn small_entries(&self, next: Index) -> Vec<Entry> {
        let (limits, last) = (self.config.limits, self.log.last().index);
        let (bytes_max, count_max) = (limits.append_bytes_max, limits.append_entries_max);
        let (mut entries, _) = self.log.in_memory(next, last, bytes_max, count_max);
        let small = entries.iter().take_while(|entry| is_small(entry)).count();
        entries.truncate(small);
        entries
    }

    /// Who has no room for a command that this leader would append: itself, or a voter without
    /// which no majority would take it.
    pub(crate) fn who_has_no_room(&self) -> Option<NodeId> {
        let RoleState::Leader(role) = &self.role else {
            return None;
        };
        if self.is_short_of_room {
            return Some(self.config.id);
        }
        let is_short = |id: NodeId| {
            role.progress
                .iter()
                .any(|p| p.id == id && p.is_short_of_room())
        };
        if self.electorate.is_quorum(|id| !is_short(id)) {
            return None;
        }
        self.peers().into_iter().find(|id| is_short(*id))
    }
}

fn is_small(entry: &Entry) -> bool {
    entry.kind() != EntryKind::Command
}
