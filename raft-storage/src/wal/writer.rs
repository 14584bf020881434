//! What the writer thread does with the changes that wait for it, at most one of each group:
//! records of all of them, one sync, then each is published to the readers of its group. Dropping
//! compacted entries is one record; whole segments go behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft_core::{AppendBatch, Entry, GroupId, HardState, Index, LogId, StorageError};

use super::active::{ActiveSegment, Beginning, GroupBeginning, SegmentFactory, Staged};
use super::index::LogIndex;
use super::placed::PlacedRecord;
use super::promises::Promises;
use super::record::{RecordKind, record_bytes};
use super::run;
use super::sealed::{SealedSegment, SealedSegments};
use super::segment::SealMark;
use super::shared::{GroupLog, Shared};
use crate::batch_thread::{BatchWriter, Change, Outcome};
use crate::files::DirLock;

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) factory: SegmentFactory,
    pub(super) sealed: SealedSegments,
    pub(super) active: ActiveSegment,
    /// Those that the log has a record of.
    pub(super) groups: BTreeMap<GroupId, GroupWriter>,
    /// The one that was written last.
    pub(super) last_group: GroupId,
    pub(super) witness_after: Option<Duration>,
    /// Held as long as anything can be written.
    pub(super) _lock: DirLock,
}

/// The newest of a group that was staged.
#[derive(Debug)]
pub(super) struct GroupWriter {
    pub(super) log: Arc<GroupLog>,
    pub(super) promises: Promises,
    pub(super) start: LogId,
    pub(super) last: LogId,
}

/// What readers of a group see once a change is durable.
#[derive(Debug)]
enum Effect {
    Append {
        promises: Promises,
        truncate_from: Option<Index>,
        entries: Placements,
    },
    Compact(LogId),
    Reset(LogId, Promises),
}

/// Where entries were written.
pub(super) type Placements = Vec<PlacedRecord>;

impl BatchWriter for Writer {
    fn write(&mut self, changes: &[(GroupId, Change)]) -> Outcome {
        let segment = self.active.segment().sequence;
        let mut effects = Vec::with_capacity(changes.len());
        for (group, change) in changes {
            let effect = match change {
                Change::Append(batch) => self.append(*group, batch)?,
                Change::Compact(to) => Some(self.compact(*group, *to)?),
                Change::Reset(to) => Some(self.reset(*group, *to)?),
            };
            effects.extend(effect.map(|effect| (*group, effect)));
        }
        if effects.is_empty() {
            return Ok(());
        }
        self.active.sync()?;
        let mut frees = segment != self.active.segment().sequence;
        for (group, effect) in effects {
            frees |= !matches!(effect, Effect::Append { .. });
            publish(&self.groups[&group].log, effect);
        }
        if frees {
            self.sealed.remove_unneeded(self.factory.room())?;
            self.move_stragglers()?;
        }
        if self.active.is_half_full() {
            self.factory.room().want_spare();
        }
        self.factory.room().look();
        Ok(())
    }

    fn idle_after(&self) -> Option<Duration> {
        let is_due = self.active.needs_witness();
        let witness = self.witness_after.filter(|_| is_due);
        [witness, self.factory.look_after()]
            .into_iter()
            .flatten()
            .min()
    }

    fn idle(&mut self) -> Outcome {
        self.factory.room().look();
        self.close()
    }

    fn close(&mut self) -> Outcome {
        if self.witness_after.is_none() {
            return Ok(());
        }
        let last = self.last();
        self.active.witness(self.last_group, last)
    }
}

impl Writer {
    fn append(
        &mut self,
        group: GroupId,
        batch: &AppendBatch,
    ) -> Result<Option<Effect>, StorageError> {
        let known = self.groups.get(&group);
        let last = known.map_or(LogId::ZERO, |known| known.last);
        // What is not there need not be dropped; recovery relies on a truncation naming an entry.
        let truncate_from = batch.truncate_from.filter(|from| *from <= last.index);
        let mut records_left = usize::from(batch.hard_state.is_some())
            + usize::from(truncate_from.is_some())
            + batch.entries.len();
        if records_left == 0 {
            return Ok(None);
        }
        if let Some(hard_state) = batch.hard_state {
            records_left -= 1;
            self.stage_hard_state(group, hard_state, records_left == 0)?;
        } else if known.is_none() {
            self.stage_hard_state(group, HardState::default(), false)?;
        }
        if let Some(from) = truncate_from {
            records_left -= 1;
            // Nothing of this batch is published yet, so the outline is that of before.
            let log = Arc::clone(&self.groups[&group].log);
            let last = log.durable().index.outline().last_before(from);
            let id = LogId::new(last.term, from);
            self.stage(record(RecordKind::Truncate, group, id, records_left == 0))?;
            self.group(group).last = last;
        }
        let mut entries = Vec::new();
        self.stage_entries(RecordKind::Entry, group, &batch.entries, &mut entries)?;
        Ok(Some(Effect::Append {
            promises: self.groups[&group].promises,
            truncate_from,
            entries,
        }))
    }

    fn compact(&mut self, group: GroupId, to: LogId) -> Result<Effect, StorageError> {
        self.stage(record(RecordKind::Start, group, to, true))?;
        self.group(group).start = to;
        Ok(Effect::Compact(to))
    }

    /// One record does it, so there is no half of it.
    fn reset(&mut self, group: GroupId, to: LogId) -> Result<Effect, StorageError> {
        if !self.groups.contains_key(&group) {
            self.stage_hard_state(group, HardState::default(), false)?;
        }
        self.stage(record(RecordKind::Reset, group, to, true))?;
        let known = self.group(group);
        known.start = to;
        known.advance(to);
        Ok(Effect::Reset(to, known.promises))
    }

    /// The last entry of the group that was written last.
    fn last(&self) -> LogId {
        let last = self.groups.get(&self.last_group);
        last.map_or(LogId::ZERO, |group| group.last)
    }

    /// A group of which there is a record.
    fn group(&mut self, group: GroupId) -> &mut GroupWriter {
        let known = self.groups.get_mut(&group);
        known.expect("a group begins with a hard state, and is known from there on")
    }

    /// Term and vote of a group; the first record that there is of it.
    fn stage_hard_state(
        &mut self,
        group: GroupId,
        hard_state: HardState,
        batch_end: bool,
    ) -> Result<(), StorageError> {
        let (last, mut promises) = match self.groups.get(&group) {
            Some(known) => (known.last, known.promises),
            None => Default::default(),
        };
        promises.hard_state = hard_state;
        let (payload, length) = promises.encode();
        let staged = record(RecordKind::HardState, group, last, batch_end);
        self.stage_with(staged, &payload[..length])?;
        let shared = &self.shared;
        let known = self.groups.entry(group).or_insert_with(|| GroupWriter {
            log: Arc::clone(shared.groups().entry(group).or_default()),
            promises,
            start: LogId::ZERO,
            last: LogId::ZERO,
        });
        known.promises = promises;
        Ok(())
    }

    /// Adds entries, which end a batch, in as few records as they fit in.
    pub(super) fn stage_entries(
        &mut self,
        kind: RecordKind,
        group: GroupId,
        entries: &[Entry],
        placements: &mut Placements,
    ) -> Outcome {
        let mut left = entries;
        while let Some(next) = left.first() {
            let alone = record_bytes(run::bytes_alone(next));
            if !self.active.has_room_for(alone) {
                self.roll(alone)?;
            }
            let (length, bytes) = self.active.run_length(left);
            let (run, behind) = left.split_at(length);
            left = behind;
            let id = run[length - 1].id();
            self.last_group = group;
            let staged = record(kind, group, id, left.is_empty());
            placements.push(self.active.stage_run(staged, run, bytes)?);
            if kind == RecordKind::Entry {
                self.group(group).advance(id);
            }
        }
        Ok(())
    }

    fn stage(&mut self, staged: Staged) -> Result<u64, StorageError> {
        self.stage_with(staged, &[])
    }

    /// Adds a record to the active segment, or to the next one where that is full.
    fn stage_with(&mut self, staged: Staged, payload: &[u8]) -> Result<u64, StorageError> {
        let bytes = record_bytes(payload.len());
        if !self.active.has_room_for(bytes) {
            self.roll(bytes)?;
        }
        self.last_group = staged.group;
        self.active.stage(staged, payload)
    }

    /// Ends the active segment, which is synced before the next one exists. That one has room for
    /// records of `bytes`.
    pub(super) fn roll(&mut self, bytes: u64) -> Outcome {
        let previous = self.seal()?;
        self.next_segment(previous, bytes, false)
    }

    /// Ends the active segment and makes it durable.
    pub(super) fn seal(&mut self) -> Result<SealMark, StorageError> {
        let last = self.last();
        self.active.seal(self.last_group, last)
    }

    /// Goes on in a new segment behind the active one, which is sealed.
    pub(super) fn next_segment(
        &mut self,
        previous: SealMark,
        bytes: u64,
        batch_end: bool,
    ) -> Outcome {
        let beginning = Beginning {
            sequence: self.active.segment().sequence + 1,
            previous,
            groups: beginnings(&self.groups),
            batch_end,
            states: self.active.states(),
            begins_anew: false,
        };
        self.sealed.push(SealedSegment {
            segment: Arc::clone(self.active.segment()),
            file_bytes: self.active.file_bytes(),
        });
        self.active = self.factory.create(&beginning, bytes)?;
        Ok(())
    }
}

impl GroupWriter {
    fn advance(&mut self, last: LogId) {
        self.last = last;
        self.promises.log_reaches(last);
    }
}

/// What a segment says of the groups when it begins.
fn beginnings(groups: &BTreeMap<GroupId, GroupWriter>) -> Vec<GroupBeginning> {
    groups
        .iter()
        .map(|(group, known)| GroupBeginning {
            group: *group,
            promises: known.promises,
            start: known.start,
            last: known.last,
        })
        .collect()
}

pub(super) fn record(kind: RecordKind, group: GroupId, id: LogId, batch_end: bool) -> Staged {
    Staged {
        kind,
        group,
        id,
        batch_end,
    }
}

fn publish(log: &GroupLog, effect: Effect) {
    let mut durable = log.durable();
    match effect {
        Effect::Append {
            promises,
            truncate_from,
            entries,
        } => {
            durable.promises = promises;
            if let Some(from) = truncate_from {
                durable.index.truncate(from);
            }
            add(&mut durable.index, entries);
        }
        Effect::Compact(to) => durable.index.compact(to),
        Effect::Reset(to, promises) => {
            durable.promises = promises;
            durable.index = LogIndex::starting_behind(to);
        }
    }
}

/// Adds entries that follow those of the index.
pub(super) fn add(index: &mut LogIndex, entries: Placements) {
    for record in entries {
        let pushed = index.push_written(&record);
        pushed.expect("the batch was checked when it came in");
    }
}
