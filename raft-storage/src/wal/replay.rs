//! The log of one group as its records tell it, one after the other. Each must follow from those
//! before it. Which files they come from is not known here.

use std::sync::Arc;

use raft_core::LogId;

use super::index::LogIndex;
use super::placed::PlacedRun;
use super::promises::Promises;
use super::record::{RecordHeader, RecordKind};
use super::scan::Record;
use super::segment::SegmentRef;

/// The highest index that is believed: so far below the end of 64 bits that none behind it
/// overflows.
const INDEX_MAX: u64 = u64::MAX >> 1;

/// What has been understood of one group so far.
///
/// Where the first segments are gone, the index begins behind the last entry that stood in them,
/// with or without right: until a start is read that reaches it, `start` is before it.
#[derive(Debug, Default)]
pub(super) struct GroupReplay {
    pub(super) index: LogIndex,
    /// The newest one that was read.
    pub(super) start: LogId,
    pub(super) promises: Promises,
}

impl GroupReplay {
    /// A group that stood in segments that are gone, up to this entry.
    pub(super) fn of_gone(last: LogId) -> Self {
        Self {
            index: LogIndex::starting_behind(last),
            ..Self::default()
        }
    }

    pub(super) fn last(&self) -> LogId {
        self.index.outline().last()
    }

    /// One more record of this group, but for moved entries.
    pub(super) fn replay(
        &mut self,
        record: &Record<'_>,
        segment: &Arc<SegmentRef>,
    ) -> Result<(), String> {
        let RecordHeader { kind, id, .. } = record.header;
        match kind {
            RecordKind::Entry => self.index.push(segment, &placed(record)?)?,
            RecordKind::Truncate => self.truncate(id)?,
            RecordKind::Start => self.compact(id)?,
            RecordKind::Reset => {
                self.index = LogIndex::starting_behind(id);
                self.start = id;
            }
            RecordKind::HardState | RecordKind::Seal | RecordKind::Witness => {
                let last = self.last();
                if id != last {
                    return Err(format!(
                        "a record behind {last} names {id} as the last entry"
                    ));
                }
                if kind == RecordKind::HardState {
                    self.promises = Promises::decode(record.prefix).ok_or("no hard state")?;
                }
            }
            RecordKind::Moved => return Err(format!("entry {id} was moved from nowhere")),
        }
        self.promises.log_reaches(self.last());
        Ok(())
    }

    /// `id` has the index of the first entry to drop and the term of the one before it.
    fn truncate(&mut self, id: LogId) -> Result<(), String> {
        let outline = self.index.outline();
        let (first, last) = (outline.start(), outline.last());
        let left = left_by_truncation(id);
        let is_inside = id.index > self.start.index && id.index <= last.index;
        if !is_inside || (left.index == self.start.index && left != self.start) {
            return Err(format!(
                "truncation from {} behind {left} of a log from {} to {last}",
                id.index, self.start
            ));
        }
        if left.index < first.index && left.term <= first.term {
            // What is left of the entries stood in segments that are gone.
            self.index = LogIndex::starting_behind(left);
        } else if outline.holds(left) {
            self.index.truncate(id.index);
        } else {
            return Err(format!("truncation behind {left}, which the log lacks"));
        }
        Ok(())
    }

    fn compact(&mut self, to: LogId) -> Result<(), String> {
        let outline = self.index.outline();
        let first = outline.start();
        let goes_on = to.index >= self.start.index && to.term >= self.start.term;
        let is_gone = to.index < first.index && to.term <= first.term;
        if !goes_on || !(is_gone || outline.holds(to)) {
            let (start, last) = (self.start, outline.last());
            return Err(format!("start {to} of a log from {start} to {last}"));
        }
        if !is_gone {
            self.index.compact(to);
        }
        self.start = to;
        Ok(())
    }

    /// The entries that are held stand elsewhere now; those that stood in segments that are gone
    /// are there again.
    fn move_to(&mut self, moved: LogIndex) -> Result<(), String> {
        let (new, old) = (moved.outline(), self.index.outline());
        let same_terms = new.runs().iter().chain(old.runs()).all(|(_, first)| {
            old.term_at(*first)
                .is_none_or(|t| new.term_at(*first) == Some(t))
        });
        if new.start() != self.start || new.last() != old.last() || !same_terms {
            return Err(format!(
                "entries behind {} up to {} were moved, of a log from {} to {}",
                new.start(),
                new.last(),
                self.start,
                old.last()
            ));
        }
        self.index = moved;
        Ok(())
    }
}

/// The entries of a group that are being written again, one after the other, in one segment. They
/// count when the last one is there.
#[derive(Debug)]
pub(super) struct Moving {
    index: LogIndex,
}

impl Moving {
    /// One more record, which is `record`, a moved entry of `group`. What is to come.
    pub(super) fn replay(
        moving: Option<Self>,
        group: &mut GroupReplay,
        record: &Record<'_>,
        segment: &Arc<SegmentRef>,
    ) -> Result<Option<Self>, String> {
        let placed = placed(record)?;
        let first = placed.entries[0].head.id;
        // What was left unfinished is begun anew.
        let mut moving = match moving {
            Some(moving) if first.index != group.start.index.next() => moving,
            _ => Self {
                index: LogIndex::starting_behind(group.start),
            },
        };
        moving.index.push(segment, &placed)?;
        if !record.header.batch_end {
            return Ok(Some(moving));
        }
        group.move_to(moving.index)?;
        Ok(None)
    }
}

/// The entries of a record, at least one.
fn placed<'a>(record: &'a Record<'_>) -> Result<PlacedRun<'a>, String> {
    Ok(PlacedRun {
        offset: record.offset,
        payload_bytes: record.header.payload_bytes,
        entries: record.run()?,
    })
}

/// The last entry that a truncation leaves, from the id of its record.
pub(super) fn left_by_truncation(id: LogId) -> LogId {
    LogId::new(id.term, id.index.previous())
}

/// Whether the index of a record can be believed.
pub(super) fn check_index(id: LogId) -> Result<(), String> {
    if id.index.0 > INDEX_MAX {
        return Err(format!("index {} is above {INDEX_MAX}", id.index));
    }
    Ok(())
}
