//! In which record each entry is: 4 bytes of memory per entry and 16 per record, grouped by
//! segment, so that old segments can be dropped whole. Also plans which pieces of which files a
//! read needs.

use std::ops::Range;
use std::sync::Arc;

use raft_core::{Index, LogId, StorageError, Term};

use super::placed::{PlacedRecord, PlacedRun, Run};
use super::record::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, record_bytes};
use super::segment::SegmentRef;
use crate::outline::{Outline, fits_read};

/// The most bytes that are read at once, unless a single record is larger.
const STRETCH_BYTES_MAX: u64 = 4 << 20;
/// Bytes of other records that are read along rather than skipped with another read.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// The durable entries of the log.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    outline: Outline,
    chunks: Vec<Chunk>,
    /// Which entries are memberships; in order.
    memberships: Vec<Index>,
    log_bytes: u64,
}

/// The entries that stand in one segment: consecutive, and before those of the next chunk.
#[derive(Debug)]
struct Chunk {
    segment: Arc<SegmentRef>,
    first: Index,
    /// Encoded bytes of each entry.
    lengths: Vec<u32>,
    /// The records that they are in. The first entries of the first one, and the last ones of any,
    /// may not be held.
    runs: Vec<Run>,
}

/// A record to be read, and how many of its entries are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedRun {
    pub(super) offset: u64,
    pub(super) payload_bytes: u32,
    pub(super) entries: usize,
}

/// Consecutive entries that one read of one file brings in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) segment: Arc<SegmentRef>,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) records: Vec<PlannedRun>,
    /// Those of all records, in order.
    pub(super) entries: Vec<LogId>,
}

impl Chunk {
    fn end(&self) -> Index {
        self.first.plus(self.lengths.len() as u64)
    }

    fn length(&self, index: Index) -> Option<u32> {
        let position = index.0.checked_sub(self.first.0)?;
        self.lengths.get(usize::try_from(position).ok()?).copied()
    }

    /// The records from the one on that has the entry at `index`, which is held.
    fn runs_from(&self, index: Index) -> &[Run] {
        let begun = self.runs.partition_point(|run| run.first <= index);
        &self.runs[begun.saturating_sub(1)..]
    }
}

impl LogIndex {
    pub(super) fn outline(&self) -> &Outline {
        &self.outline
    }

    /// A log without entries that begins behind `start`.
    pub(super) fn starting_behind(start: LogId) -> Self {
        Self {
            outline: Outline::starting_behind(start),
            ..Self::default()
        }
    }

    /// Which entries are memberships.
    pub(super) fn memberships(&self) -> &[Index] {
        &self.memberships
    }

    /// The sequence number of the first segment that holds an entry.
    pub(super) fn first_segment(&self) -> Option<u64> {
        self.chunks.first().map(|chunk| chunk.segment.sequence)
    }

    /// Encoded bytes of all entries.
    pub(super) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// The most bytes that the records of all entries take.
    pub(super) fn records_bytes_max(&self) -> u64 {
        let entries: u64 = self.chunks.iter().map(|c| c.lengths.len() as u64).sum();
        self.log_bytes + entries * (RECORD_HEADER_BYTES as u64 + RECORD_ALIGNMENT)
    }

    /// Drops `from` and all behind it.
    pub(super) fn truncate(&mut self, from: Index) {
        self.outline.truncate(from);
        let kept = self.memberships.partition_point(|index| *index < from);
        self.memberships.truncate(kept);
        while let Some(chunk) = self.chunks.last_mut() {
            let kept = from.0.saturating_sub(chunk.first.0);
            let kept = usize::try_from(kept).map_or(usize::MAX, |kept| kept);
            let kept = kept.min(chunk.lengths.len());
            self.log_bytes -= sum(&chunk.lengths[kept..]);
            chunk.lengths.truncate(kept);
            if !chunk.lengths.is_empty() {
                let kept = chunk.runs.partition_point(|run| run.first < from);
                chunk.runs.truncate(kept);
                break;
            }
            self.chunks.pop();
        }
    }

    /// Drops all entries up to `to`, which is held.
    pub(super) fn compact(&mut self, to: LogId) {
        self.outline.compact(to);
        let first = to.index.next();
        let dropped = self.memberships.partition_point(|index| *index < first);
        self.memberships.drain(..dropped);
        let whole = self.chunks.partition_point(|chunk| chunk.end() <= first);
        for chunk in self.chunks.drain(..whole) {
            self.log_bytes -= sum(&chunk.lengths);
        }
        if let Some(chunk) = self.chunks.first_mut() {
            let dropped = first.0.saturating_sub(chunk.first.0);
            let dropped = usize::try_from(dropped).expect("fewer than the places in memory");
            self.log_bytes -= sum(&chunk.lengths[..dropped]);
            chunk.lengths.drain(..dropped);
            chunk.lengths.shrink_to_fit();
            chunk.first = chunk.first.max(first);
            let gone = chunk.runs.len() - chunk.runs_from(chunk.first).len();
            chunk.runs.drain(..gone);
            chunk.runs.shrink_to_fit();
        }
    }

    /// Adds the entries of a record in `segment` that was found, or says why they do not follow the
    /// last one.
    pub(super) fn push(
        &mut self,
        segment: &Arc<SegmentRef>,
        run: &PlacedRun<'_>,
    ) -> Result<(), String> {
        let Some(first) = run.entries.first() else {
            return Ok(());
        };
        for placed in run.entries {
            self.outline.push(placed.head.id)?;
        }
        self.hold(&PlacedRecord::found(segment, run, first.head.id)?);
        Ok(())
    }

    /// Adds the entries of a record that was written, or says why they do not follow the last one.
    pub(super) fn push_written(&mut self, record: &PlacedRecord) -> Result<(), String> {
        self.outline.push_run(record.first, record.lengths.len())?;
        self.hold(record);
        Ok(())
    }

    fn hold(&mut self, record: &PlacedRecord) {
        let chunk = self.chunk_in(&record.segment, record.first.index);
        chunk.runs.push(record.run);
        chunk.lengths.extend_from_slice(&record.lengths);
        self.memberships.extend_from_slice(&record.memberships);
        self.log_bytes += sum(&record.lengths);
    }

    /// The entries in `segment`, which is that of the last one, or a new one that `first` opens.
    fn chunk_in(&mut self, segment: &Arc<SegmentRef>, first: Index) -> &mut Chunk {
        let is_last = |chunk: &Chunk| Arc::ptr_eq(&chunk.segment, segment);
        if !self.chunks.last().is_some_and(is_last) {
            self.chunks.push(Chunk {
                segment: Arc::clone(segment),
                first,
                lengths: Vec::new(),
                runs: Vec::new(),
            });
        }
        self.chunks.last_mut().expect("one was pushed")
    }

    /// The pieces to read for `range`: as many entries as fit in `bytes_max`, at least one.
    pub(super) fn plan(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Stretch>, StorageError> {
        let first = self.outline.first_index();
        let last = self.outline.last().index;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.start < first || range.start > last {
            return Err(StorageError::OutOfRange {
                from: range.start,
                first,
                last,
            });
        }
        let mut stretches = Vec::new();
        let mut taken = 0;
        let begun = self
            .chunks
            .partition_point(|chunk| chunk.end() <= range.start);
        for chunk in &self.chunks[begun..] {
            let mut index = chunk.first.max(range.start);
            let mut runs = chunk.runs_from(index).iter().peekable();
            while let Some(length) = chunk.length(index).filter(|_| index < range.end) {
                if !fits_read(taken, length as usize, bytes_max) {
                    return Ok(stretches);
                }
                taken += length as usize;
                let term = self.outline.term_at(index).unwrap_or(Term(0));
                if let Some(run) = runs.next_if(|run| run.first <= index) {
                    extend(&mut stretches, &chunk.segment, *run);
                }
                take(&mut stretches, LogId::new(term, index));
                index = index.next();
            }
        }
        Ok(stretches)
    }
}

fn sum(lengths: &[u32]) -> u64 {
    lengths.iter().map(|length| u64::from(*length)).sum()
}

/// One more record is read, together with the one before it where they are near each other.
fn extend(stretches: &mut Vec<Stretch>, segment: &Arc<SegmentRef>, run: Run) {
    let run = PlannedRun {
        offset: run.offset(),
        payload_bytes: run.payload_bytes,
        entries: 0,
    };
    let length = record_bytes(run.payload_bytes as usize);
    if let Some(stretch) = stretches.last_mut()
        && Arc::ptr_eq(&stretch.segment, segment)
        && run.offset - (stretch.offset + stretch.bytes) <= GAP_BYTES_MAX
        && run.offset + length - stretch.offset <= STRETCH_BYTES_MAX
    {
        stretch.bytes = run.offset + length - stretch.offset;
        stretch.records.push(run);
        return;
    }
    stretches.push(Stretch {
        segment: Arc::clone(segment),
        offset: run.offset,
        bytes: length,
        records: vec![run],
        entries: Vec::new(),
    });
}

/// One more entry of the last record is wanted.
fn take(stretches: &mut [Stretch], entry: LogId) {
    let Some(stretch) = stretches.last_mut() else {
        return;
    };
    if let Some(run) = stretch.records.last_mut() {
        run.entries += 1;
        stretch.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{EntryHead, EntryKind};

    use super::super::record::{Frame, RunLayout};
    use super::super::run::RunEntry;
    use super::*;

    fn segment(sequence: u64) -> Arc<SegmentRef> {
        Arc::new(SegmentRef {
            sequence,
            path: format!("{sequence}").into(),
            frame: Frame {
                seed: 0,
                has_groups: true,
                layout: RunLayout::Heads,
            },
        })
    }

    /// Of 40 bytes, encoded.
    fn entry(index: u64) -> RunEntry {
        let kind = match index.is_multiple_of(2) {
            true => EntryKind::Membership,
            false => EntryKind::Command,
        };
        let id = LogId::new(Term(1), Index(index));
        RunEntry {
            head: EntryHead::from_fields(id, kind, 8, 0).unwrap(),
            offset: 0,
        }
    }

    /// A record with one entry.
    fn push(index: &mut LogIndex, segment: &Arc<SegmentRef>, entry: u64, offset: u64) {
        push_all(index, segment, entry..entry + 1, offset);
    }

    /// One record of 40 bytes per entry.
    fn push_all(index: &mut LogIndex, segment: &Arc<SegmentRef>, entries: Range<u64>, offset: u64) {
        let entries: Vec<_> = entries.map(entry).collect();
        let run = PlacedRun {
            offset,
            payload_bytes: 40 * u32::try_from(entries.len()).unwrap(),
            entries: &entries,
        };
        index.push(segment, &run).unwrap();
    }

    fn records(stretches: &[Stretch]) -> Vec<(u64, u32, usize)> {
        let records = stretches.iter().flat_map(|stretch| &stretch.records);
        records
            .map(|r| (r.offset, r.payload_bytes, r.entries))
            .collect()
    }

    fn indexes(stretches: &[Stretch]) -> Vec<(u64, Vec<u64>)> {
        let ids = |s: &Stretch| s.entries.iter().map(|id| id.index.0).collect();
        stretches
            .iter()
            .map(|s| (s.segment.sequence, ids(s)))
            .collect()
    }

    #[test]
    fn a_plan_joins_neighbours_and_splits_at_gaps_and_segments() {
        let (one, two) = (segment(1), segment(2));
        let mut index = LogIndex::default();
        push(&mut index, &one, 1, 4096);
        push(&mut index, &one, 2, 4096 + 88);
        push(&mut index, &one, 3, 1 << 20);
        push(&mut index, &two, 4, 4096);
        push(&mut index, &two, 5, 8192);
        let all = index.plan(Index(1)..Index(99), usize::MAX).unwrap();
        assert_eq!(
            indexes(&all),
            [(1, vec![1, 2]), (1, vec![3]), (2, vec![4, 5])]
        );
        assert_eq!(all[0].bytes, 176);
        let some = index.plan(Index(2)..Index(5), 80).unwrap();
        assert_eq!(indexes(&some), [(1, vec![2]), (1, vec![3])]);
        let one_at_least = index.plan(Index(5)..Index(6), 0).unwrap();
        assert_eq!(indexes(&one_at_least), [(2, vec![5])]);
    }

    #[test]
    fn truncation_reaches_into_earlier_segments() {
        let (one, two, three) = (segment(1), segment(2), segment(3));
        let mut index = LogIndex::default();
        for (segment, entry) in [(&one, 1), (&one, 2), (&two, 3), (&two, 4)] {
            push(&mut index, segment, entry, 4096 * entry);
        }
        index.truncate(Index(2));
        assert_eq!(index.log_bytes(), 40);
        push(&mut index, &two, 2, 32 << 10);
        push(&mut index, &three, 3, 4096);
        let all = index.plan(Index(1)..Index(4), usize::MAX).unwrap();
        assert_eq!(indexes(&all), [(1, vec![1]), (2, vec![2]), (3, vec![3])]);
        index.truncate(Index(1));
        assert_eq!((index.log_bytes(), index.chunks.len()), (0, 0));
        assert!(index.plan(Index(1)..Index(2), 1).is_err());
        assert!(index.memberships().is_empty());
    }

    #[test]
    fn compaction_drops_entries_and_forgets_segments_that_hold_no_more() {
        let segments = [segment(1), segment(2), segment(3)];
        for to in 1..=6 {
            let mut index = LogIndex::default();
            for entry in 1..=6 {
                let segment = &segments[usize::try_from((entry - 1) / 2).unwrap()];
                push(&mut index, segment, entry, 4096 * entry);
            }
            index.compact(LogId::new(Term(1), Index(to)));
            assert_eq!(index.log_bytes(), 40 * (6 - to));
            let first_segment = (to < 6).then_some(to / 2 + 1);
            assert_eq!(index.first_segment(), first_segment, "{to}");
            let memberships: Vec<_> = (to + 1..=6).filter(|i| i % 2 == 0).map(Index).collect();
            assert_eq!(index.memberships(), memberships);
            let refused = index.plan(Index(to)..Index(9), 1);
            let first = Index(to + 1);
            assert!(
                matches!(refused, Err(StorageError::OutOfRange { first: f, .. }) if f == first)
            );
            push(&mut index, &segments[2], 7, 64 << 10);
            let held = index.plan(first..Index(9), usize::MAX).unwrap();
            let held: Vec<_> = indexes(&held).into_iter().flat_map(|(_, i)| i).collect();
            assert_eq!(held, (to + 1..=7).collect::<Vec<_>>());
        }
    }

    /// Three records of three entries each, in two segments.
    fn runs() -> LogIndex {
        let (one, two) = (segment(1), segment(2));
        let mut index = LogIndex::default();
        for (segment, first) in [(&one, 1), (&one, 4), (&two, 7)] {
            push_all(&mut index, segment, first..first + 3, 4096 * first);
        }
        index
    }

    #[test]
    fn a_plan_names_the_records_that_entries_are_in() {
        let mut index = runs();
        let plan = |index: &LogIndex, from, to| {
            let stretches = index.plan(Index(from)..Index(to), usize::MAX).unwrap();
            records(&stretches)
        };
        let at = |n: u64| 4096 * n;
        assert_eq!(
            plan(&index, 1, 10),
            [(at(1), 120, 3), (at(4), 120, 3), (at(7), 120, 3)]
        );
        assert_eq!(plan(&index, 3, 5), [(at(1), 120, 1), (at(4), 120, 1)]);
        assert_eq!(plan(&index, 5, 6), [(at(4), 120, 1)]);
        // What is left of a record is still read with all of it.
        index.compact(LogId::new(Term(1), Index(2)));
        index.truncate(Index(6));
        assert_eq!(plan(&index, 3, 9), [(at(1), 120, 1), (at(4), 120, 2)]);
        let three = segment(3);
        push(&mut index, &three, 6, 4096);
        assert_eq!(plan(&index, 5, 7), [(at(4), 120, 1), (at(1), 40, 1)]);
        index.compact(LogId::new(Term(1), Index(3)));
        assert_eq!(plan(&index, 4, 9).len(), 2);
        assert_eq!(index.chunks[0].runs.len(), 1);
        index.truncate(Index(4));
        assert!(index.chunks.is_empty());
    }
}
