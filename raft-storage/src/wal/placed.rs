//! Where a record with entries stands, and how long each of them is: what the index keeps of it.

use std::sync::Arc;

use raft_core::{Entry, EntryKind, Index, LogId};

use super::record::RECORD_ALIGNMENT;
use super::run::RunEntry;
use super::segment::SegmentRef;

/// A record with consecutive entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The first entry in it.
    pub(super) first: Index,
    /// In units of the alignment of records, so that 32 GiB can be named.
    offset_units: u32,
    pub(super) payload_bytes: u32,
}

/// A record that was found in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacedRun<'a> {
    /// Where the record begins.
    pub(super) offset: u64,
    pub(super) payload_bytes: u32,
    pub(super) entries: &'a [RunEntry],
}

/// A record as the index keeps it; all entries are of one term where it was written now.
#[derive(Debug)]
pub(super) struct PlacedRecord {
    pub(super) segment: Arc<SegmentRef>,
    pub(super) first: LogId,
    pub(super) run: Run,
    /// Encoded bytes of each entry.
    pub(super) lengths: Vec<u32>,
    /// Which of them are memberships.
    pub(super) memberships: Vec<Index>,
}

impl Run {
    /// Where the record begins.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.offset_units) * RECORD_ALIGNMENT
    }
}

impl PlacedRecord {
    /// A record at `offset` in `segment` that has these entries.
    pub(super) fn written(
        segment: &Arc<SegmentRef>,
        offset: u64,
        payload_bytes: u32,
        entries: &[Entry],
    ) -> Result<Self, String> {
        let first = entries.first().map_or(LogId::ZERO, Entry::id);
        let mut record = Self::begin(segment, offset, payload_bytes, first)?;
        let lengths = entries.iter().map(|entry| length(entry.encoded_len()));
        record.lengths.extend(lengths);
        let is_membership = |entry: &&Entry| entry.kind() == EntryKind::Membership;
        let memberships = entries.iter().filter(is_membership).map(Entry::index);
        record.memberships.extend(memberships);
        Ok(record)
    }

    /// A record that was found, whose first entry is `first`.
    pub(super) fn found(
        segment: &Arc<SegmentRef>,
        run: &PlacedRun<'_>,
        first: LogId,
    ) -> Result<Self, String> {
        let mut record = Self::begin(segment, run.offset, run.payload_bytes, first)?;
        let heads = || run.entries.iter().map(|entry| entry.head);
        let lengths = heads().map(|head| length(head.encoded_len()));
        record.lengths.extend(lengths);
        let memberships = heads().filter(|head| head.kind == EntryKind::Membership);
        record
            .memberships
            .extend(memberships.map(|head| head.id.index));
        Ok(record)
    }

    /// Without entries; `first` is the first one that it will have.
    fn begin(
        segment: &Arc<SegmentRef>,
        offset: u64,
        payload_bytes: u32,
        first: LogId,
    ) -> Result<Self, String> {
        let units = u32::try_from(offset / RECORD_ALIGNMENT);
        Ok(Self {
            segment: Arc::clone(segment),
            first,
            run: Run {
                first: first.index,
                offset_units: units.map_err(|_| format!("offset {offset} is too large"))?,
                payload_bytes,
            },
            lengths: Vec::new(),
            memberships: Vec::new(),
        })
    }
}

fn length(encoded_bytes: usize) -> u32 {
    u32::try_from(encoded_bytes).expect("an entry is far below 4 GiB")
}
