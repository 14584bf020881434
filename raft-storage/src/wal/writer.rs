//! What the writer thread does with a batch: records, one sync, then the entries are published to
//! the readers. Dropping compacted entries is one record; whole segments go behind it.

use std::sync::Arc;
use std::time::Duration;

use raft_core::entry::ENTRY_HEADER_BYTES;
use raft_core::{AppendBatch, Entry, EntryKind, HardState, Index, LogId, StorageError};

use super::active::{ActiveSegment, Beginning, SegmentFactory};
use super::index::{LogIndex, Placed};
use super::record::RecordKind;
use super::sealed::{SealedSegment, SealedSegments};
use super::segment::SegmentRef;
use super::shared::Shared;
use crate::batch_thread::{BatchWriter, Change, Outcome};
use crate::files::DirLock;
use crate::hard_state::encode_hard_state;

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) factory: SegmentFactory,
    pub(super) sealed: SealedSegments,
    pub(super) active: ActiveSegment,
    /// The newest ones that were staged.
    pub(super) hard_state: HardState,
    pub(super) start: LogId,
    pub(super) last: LogId,
    pub(super) witness_after: Option<Duration>,
    /// Held as long as anything can be written.
    pub(super) _lock: DirLock,
}

/// What readers see once a batch is durable.
#[derive(Debug, Default)]
struct Staged {
    hard_state: Option<HardState>,
    truncate_from: Option<Index>,
    entries: Vec<(Arc<SegmentRef>, Vec<Placed>)>,
}

impl BatchWriter for Writer {
    fn write(&mut self, change: &Change) -> Outcome {
        match change {
            Change::Append(batch) => self.append(batch)?,
            Change::Compact(to) => self.compact(*to)?,
            Change::Reset(to) => self.reset(*to)?,
        }
        if self.active.is_half_full() {
            self.factory.prepare();
        }
        Ok(())
    }

    fn idle(&mut self) -> Outcome {
        self.active.witness(self.last)
    }

    fn idle_after(&self) -> Option<Duration> {
        self.witness_after
    }
}

impl Writer {
    fn append(&mut self, batch: &AppendBatch) -> Outcome {
        // What is not there need not be dropped; recovery relies on a truncation naming an entry.
        let truncate_from = batch.truncate_from.filter(|from| *from <= self.last.index);
        let mut records_left = usize::from(batch.hard_state.is_some())
            + usize::from(truncate_from.is_some())
            + batch.entries.len();
        if records_left == 0 {
            return Ok(());
        }
        let mut is_last = || {
            records_left -= 1;
            records_left == 0
        };
        let mut staged = Staged {
            hard_state: batch.hard_state,
            truncate_from,
            entries: Vec::new(),
        };
        if let Some(hard_state) = batch.hard_state {
            let payload = encode_hard_state(hard_state);
            self.stage(RecordKind::HardState, self.last, is_last(), [&payload, &[]])?;
            self.hard_state = hard_state;
        }
        if let Some(from) = truncate_from {
            // Nothing of this batch is published yet, so the outline is that of before.
            let last = self.shared.durable().index.outline().last_before(from);
            let id = LogId::new(last.term, from);
            self.stage(RecordKind::Truncate, id, is_last(), [&[], &[]])?;
            self.last = last;
        }
        for entry in &batch.entries {
            self.stage_entry(entry, is_last(), &mut staged)?;
        }
        self.active.sync()?;
        self.publish(staged);
        Ok(())
    }

    fn compact(&mut self, to: LogId) -> Outcome {
        self.stage(RecordKind::Start, to, true, [&[], &[]])?;
        self.start = to;
        self.active.sync()?;
        self.shared.durable().index.compact(to);
        self.sealed.remove_unneeded()
    }

    /// One record does it, so there is no half of it.
    fn reset(&mut self, to: LogId) -> Outcome {
        self.stage(RecordKind::Reset, to, true, [&[], &[]])?;
        (self.start, self.last) = (to, to);
        self.active.sync()?;
        self.shared.durable().index = LogIndex::starting_behind(to);
        self.sealed.remove_unneeded()
    }

    fn stage_entry(
        &mut self,
        entry: &Entry,
        batch_end: bool,
        staged: &mut Staged,
    ) -> Result<(), StorageError> {
        let header: [u8; ENTRY_HEADER_BYTES] = entry.header();
        let payload = [&header[..], &entry.payload()[..]];
        let offset = self.stage(RecordKind::Entry, entry.id(), batch_end, payload)?;
        self.last = entry.id();
        let placed = Placed {
            id: entry.id(),
            offset,
            encoded_bytes: u32::try_from(entry.encoded_len()).expect("far below 4 GiB"),
            is_membership: entry.kind() == EntryKind::Membership,
        };
        let segment = self.active.segment();
        match staged.entries.last_mut() {
            Some((last, entries)) if Arc::ptr_eq(last, segment) => entries.push(placed),
            _ => staged.entries.push((Arc::clone(segment), vec![placed])),
        }
        Ok(())
    }

    /// Adds a record to the active segment, or to the next one where that is full.
    fn stage(
        &mut self,
        kind: RecordKind,
        id: LogId,
        batch_end: bool,
        payload: [&[u8]; 2],
    ) -> Result<u64, StorageError> {
        let payload_bytes = payload[0].len() + payload[1].len();
        if !self.active.has_room(payload_bytes) {
            self.roll(payload_bytes)?;
        }
        self.active.stage(kind, id, batch_end, payload)
    }

    /// Ends the active segment, which is synced before the next one exists.
    fn roll(&mut self, payload_bytes: usize) -> Result<(), StorageError> {
        let previous = self.active.seal(self.last)?;
        let beginning = Beginning {
            sequence: self.active.segment().sequence + 1,
            previous,
            hard_state: self.hard_state,
            start: self.start,
            last: self.last,
            batch_end: false,
        };
        self.sealed.push(SealedSegment {
            segment: Arc::clone(self.active.segment()),
            file_bytes: self.active.file_bytes(),
        });
        self.active = self.factory.create(beginning, payload_bytes)?;
        Ok(())
    }

    fn publish(&self, staged: Staged) {
        let mut durable = self.shared.durable();
        if let Some(hard_state) = staged.hard_state {
            durable.hard_state = hard_state;
        }
        if let Some(from) = staged.truncate_from {
            durable.index.truncate(from);
        }
        for (segment, entries) in staged.entries {
            for placed in entries {
                durable
                    .index
                    .push(&segment, placed)
                    .expect("the batch was checked when it came in");
            }
        }
    }
}
