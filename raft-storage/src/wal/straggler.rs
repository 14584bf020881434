//! Groups that lag behind: the few entries of an idle group would keep an old segment, and with it
//! all later ones, for ever. They are written again, a bounded number of bytes at a time.
//!
//! All entries of the group are written again, as one run of records in one segment, which counts
//! only when its last record is there: a crash leaves the old places or the new ones. Old segments
//! go when the new records are synced.

use std::sync::Arc;

use raft_core::{Entry, GroupId, StorageError};

use super::index::LogIndex;
use super::reader;
use super::record::{RecordKind, record_bytes};
use super::run;
use super::writer::{Writer, add};
use crate::batch_thread::Outcome;

/// So many full segments there must be: a group that was written to while the last segments were
/// filled does not lag behind.
const SEALED_SEGMENTS_MIN: usize = 2;

impl Writer {
    /// Writes the entries again of groups that need the oldest segment, where they have few.
    pub(super) fn move_stragglers(&mut self) -> Outcome {
        let Some((oldest, _)) = self
            .sealed
            .oldest()
            .filter(|(_, segments)| *segments >= SEALED_SEGMENTS_MIN)
        else {
            return Ok(());
        };
        let mut bytes_left = self.factory.moved_bytes_max();
        let mut moved = Vec::new();
        let groups: Vec<_> = self.groups.keys().copied().collect();
        for group in groups {
            let Some(entries) = self.straggling(group, oldest, bytes_left) else {
                continue;
            };
            let bytes = all_records_bytes(&entries);
            bytes_left = bytes_left.saturating_sub(bytes);
            moved.push((group, self.move_entries(group, &entries, bytes)?));
        }
        if moved.is_empty() {
            return Ok(());
        }
        self.active.sync()?;
        tracing::debug!(
            groups = moved.len(),
            segment = oldest,
            "entries of groups that lag behind were written again"
        );
        for (group, index) in moved {
            self.groups[&group].log.durable().index = index;
        }
        self.sealed.remove_unneeded(self.factory.room())
    }

    /// All entries of a group, where the first one is in this segment and they are few.
    fn straggling(&self, group: GroupId, segment: u64, bytes_max: u64) -> Option<Vec<Entry>> {
        let log = &self.groups[&group].log;
        let range = {
            let durable = log.durable();
            let outline = durable.index.outline();
            let straggles = durable.index.first_segment() == Some(segment)
                && durable.index.records_bytes_max() <= bytes_max;
            straggles.then(|| outline.first_index()..outline.last().index.next())?
        };
        match reader::read(&self.shared, group, log, range, usize::MAX) {
            Ok(entries) => Some(entries),
            Err(error) => {
                // Whoever needs the entry will be told. It stays where it is.
                tracing::error!(%group, %error, "an old entry cannot be read");
                None
            }
        }
    }

    fn move_entries(
        &mut self,
        group: GroupId,
        entries: &[Entry],
        bytes: u64,
    ) -> Result<LogIndex, StorageError> {
        if !self.active.has_room_for(bytes) {
            self.roll(bytes)?;
        }
        let mut placements = Vec::new();
        self.stage_entries(RecordKind::Moved, group, entries, &mut placements)?;
        let known = &self.groups[&group];
        let mut index = LogIndex::starting_behind(known.start);
        add(&mut index, placements);
        debug_assert_eq!(
            index.outline(),
            Arc::clone(&known.log).durable().index.outline()
        );
        Ok(index)
    }
}

fn all_records_bytes(entries: &[Entry]) -> u64 {
    let records = entries
        .iter()
        .map(|entry| record_bytes(run::bytes_alone(entry)));
    records.sum()
}
