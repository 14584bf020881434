//! Where each entry stands: 8 bytes of memory per entry, grouped by segment, so that old segments
//! can be dropped whole. Also plans which pieces of which files a read needs.

use std::ops::Range;
use std::sync::Arc;

use raft_core::{Index, LogId, StorageError, Term};

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
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Offset of the record in units of its alignment, so that 32 GiB can be named.
    offset_units: u32,
    encoded_bytes: u32,
}

/// One entry and where its record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) id: LogId,
    pub(super) offset: u64,
    pub(super) encoded_bytes: u32,
    pub(super) is_membership: bool,
}

/// Consecutive entries that one read of one file brings in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) segment: Arc<SegmentRef>,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) entries: Vec<Placed>,
}

impl Place {
    fn offset(self) -> u64 {
        u64::from(self.offset_units) * RECORD_ALIGNMENT
    }
}

impl Chunk {
    fn end(&self) -> Index {
        self.first.plus(self.places.len() as u64)
    }

    fn place(&self, index: Index) -> Option<Place> {
        let position = index.0.checked_sub(self.first.0)?;
        self.places.get(usize::try_from(position).ok()?).copied()
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
        let entries: u64 = self.chunks.iter().map(|c| c.places.len() as u64).sum();
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
            for place in chunk.places.drain(kept.min(chunk.places.len())..) {
                self.log_bytes -= u64::from(place.encoded_bytes);
            }
            if !chunk.places.is_empty() {
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
            self.log_bytes -= encoded_bytes(&chunk.places);
        }
        if let Some(chunk) = self.chunks.first_mut() {
            let dropped = first.0.saturating_sub(chunk.first.0);
            let dropped = usize::try_from(dropped).expect("fewer than the places in memory");
            self.log_bytes -= encoded_bytes(&chunk.places[..dropped]);
            chunk.places.drain(..dropped);
            chunk.places.shrink_to_fit();
            chunk.first = chunk.first.max(first);
        }
    }

    /// Adds an entry of `segment`, or says why it does not follow the last one.
    pub(super) fn push(&mut self, segment: &Arc<SegmentRef>, placed: Placed) -> Result<(), String> {
        let offset_units = u32::try_from(placed.offset / RECORD_ALIGNMENT)
            .map_err(|_| format!("offset {} is too large", placed.offset))?;
        self.outline.push(placed.id)?;
        let place = Place {
            offset_units,
            encoded_bytes: placed.encoded_bytes,
        };
        match self.chunks.last_mut() {
            Some(chunk) if Arc::ptr_eq(&chunk.segment, segment) => chunk.places.push(place),
            _ => self.chunks.push(Chunk {
                segment: Arc::clone(segment),
                first: placed.id.index,
                places: vec![place],
            }),
        }
        self.log_bytes += u64::from(placed.encoded_bytes);
        if placed.is_membership {
            self.memberships.push(placed.id.index);
        }
        Ok(())
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
            while let Some(place) = chunk.place(index).filter(|_| index < range.end) {
                if !fits_read(taken, place.encoded_bytes as usize, bytes_max) {
                    return Ok(stretches);
                }
                taken += place.encoded_bytes as usize;
                let term = self.outline.term_at(index).unwrap_or(Term(0));
                let placed = Placed {
                    id: LogId::new(term, index),
                    offset: place.offset(),
                    encoded_bytes: place.encoded_bytes,
                    is_membership: self.memberships.binary_search(&index).is_ok(),
                };
                extend(&mut stretches, &chunk.segment, placed);
                index = index.next();
            }
        }
        Ok(stretches)
    }
}

fn encoded_bytes(places: &[Place]) -> u64 {
    let lengths = places.iter().map(|place| u64::from(place.encoded_bytes));
    lengths.sum()
}

fn extend(stretches: &mut Vec<Stretch>, segment: &Arc<SegmentRef>, placed: Placed) {
    let length = record_bytes(placed.encoded_bytes as usize);
    if let Some(stretch) = stretches.last_mut()
        && Arc::ptr_eq(&stretch.segment, segment)
        && placed.offset - (stretch.offset + stretch.bytes) <= GAP_BYTES_MAX
        && placed.offset + length - stretch.offset <= STRETCH_BYTES_MAX
    {
        stretch.bytes = placed.offset + length - stretch.offset;
        stretch.entries.push(placed);
        return;
    }
    debug_assert!(length >= RECORD_HEADER_BYTES as u64);
    stretches.push(Stretch {
        segment: Arc::clone(segment),
        offset: placed.offset,
        bytes: length,
        entries: vec![placed],
    });
}

#[cfg(test)]
mod tests {
    use super::super::record::Frame;
    use super::*;

    fn segment(sequence: u64) -> Arc<SegmentRef> {
        Arc::new(SegmentRef {
            sequence,
            path: format!("{sequence}").into(),
            frame: Frame {
                seed: 0,
                has_groups: true,
            },
        })
    }

    fn placed(index: u64, offset: u64) -> Placed {
        Placed {
            id: LogId::new(Term(1), Index(index)),
            offset,
            encoded_bytes: 40,
            is_membership: index.is_multiple_of(2),
        }
    }

    fn indexes(stretches: &[Stretch]) -> Vec<(u64, Vec<u64>)> {
        let ids = |s: &Stretch| s.entries.iter().map(|p| p.id.index.0).collect();
        stretches
            .iter()
            .map(|s| (s.segment.sequence, ids(s)))
            .collect()
    }

    #[test]
    fn a_plan_joins_neighbours_and_splits_at_gaps_and_segments() {
        let (one, two) = (segment(1), segment(2));
        let mut index = LogIndex::default();
        index.push(&one, placed(1, 4096)).unwrap();
        index.push(&one, placed(2, 4096 + 88)).unwrap();
        index.push(&one, placed(3, 1 << 20)).unwrap();
        index.push(&two, placed(4, 4096)).unwrap();
        index.push(&two, placed(5, 8192)).unwrap();
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
            index.push(segment, placed(entry, 4096 * entry)).unwrap();
        }
        index.truncate(Index(2));
        assert_eq!(index.log_bytes(), 40);
        index.push(&two, placed(2, 32 << 10)).unwrap();
        index.push(&three, placed(3, 4096)).unwrap();
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
                index.push(segment, placed(entry, 4096 * entry)).unwrap();
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
            index.push(&segments[2], placed(7, 64 << 10)).unwrap();
            let held = index.plan(first..Index(9), usize::MAX).unwrap();
            let held: Vec<_> = indexes(&held).into_iter().flat_map(|(_, i)| i).collect();
            assert_eq!(held, (to + 1..=7).collect::<Vec<_>>());
        }
    }
}
