//! What a damaged log still proves of its groups: their newest term and vote, and up to which entry
//! they may have acknowledged. It only reads. The proof is in `docs/disk-format.md`, *Damage*.
//!
//! Nothing is believed but headers and payloads that match their checksums. Between them lie gaps.
//! What stood in a gap is unknown, but headers count the hard states of the log, so the next one
//! tells whether there were any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use raft_core::{GroupId, HardState, Index, LogId, StorageError};

use super::options::WalOptions;
use super::promises::{PROMISES_BYTES, Promises};
use super::record::{RecordHeader, RecordKind, record_bytes};
use super::recovery::{SegmentFiles, read_header, segment_files};
use super::replay::{check_index, left_by_truncation};
use super::run::HEAD_BYTES;
use super::segment::{SealMark, SegmentHeader};
use super::walk::{Found, walk};
use crate::files::Disk;
use crate::owner::WalOwner;

/// Bytes that hold so many hard states that their count in a header comes round.
const COUNTED_GAP_BYTES_MAX: u64 = 72 << 16;

/// What is left of a log.
#[derive(Debug)]
pub(super) struct Salvaged {
    pub(super) groups: BTreeMap<GroupId, SalvagedGroup>,
    /// Whether there may have been other groups.
    pub(super) groups_may_be_lost: bool,
    /// All segments that are there.
    pub(super) segments: Vec<PathBuf>,
    /// The number that no segment has had.
    pub(super) next_sequence: u64,
}

/// What is known of a group for certain, but for its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SalvagedGroup {
    /// With the last entry that may have been acknowledged.
    pub(super) promises: Promises,
    /// The newest one that can be read. Where a newer one was lost, a snapshot tells.
    pub(super) start: LogId,
}

/// Reads what is left. `snapshot_of` gives the last entry of a group's newest snapshot.
///
/// # Errors
/// `LostPromises` where the newest term and vote of a group are not certain, with `damage`, which
/// is what was found first; `Foreign` and `Io` as always.
pub(super) fn salvage(
    disk: &Disk,
    dir: &Path,
    owner: &WalOwner,
    damage: &StorageError,
    snapshot_of: impl Fn(GroupId) -> Result<LogId, StorageError>,
) -> Result<Salvaged, StorageError> {
    let SegmentFiles { files, void } = segment_files(disk, dir, owner)?;
    let mut salvage = Salvage::default();
    let last = files.last().map_or(0, |(sequence, _)| *sequence);
    for (sequence, path) in &files {
        let segment = SegmentToRead {
            path,
            sequence: *sequence,
            is_last: *sequence == last,
        };
        salvage.segment(disk, owner, &segment, damage)?;
    }
    let (groups, groups_may_be_lost) = salvage.finish(damage, snapshot_of)?;
    let files = files.into_iter().map(|(_, path)| path);
    Ok(Salvaged {
        groups,
        groups_may_be_lost,
        segments: void.into_iter().chain(files).collect(),
        next_sequence: last + 1,
    })
}

struct SegmentToRead<'a> {
    path: &'a Path,
    sequence: u64,
    is_last: bool,
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Salvage {
    groups: BTreeMap<GroupId, Group>,
    /// Whether a gap may have held the only records of a group.
    groups_may_be_lost: bool,
    /// Hard states, as the last header counted them. None where that is unknown.
    states: Option<u16>,
    /// Bytes that could not be read since the last header.
    gap_bytes: u64,
    /// The number of the segment before, and its seal where that was read.
    previous: Option<(u64, Option<SealMark>)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// None where newer ones may have been lost.
    promises: Option<Promises>,
    start: LogId,
    /// The highest entry that anything names.
    named: LogId,
    /// The highest index that anything names.
    index: Index,
    /// Bytes that could not be read since its last entry was named.
    gap_bytes: u64,
}

impl Salvage {
    fn segment(
        &mut self,
        disk: &Disk,
        owner: &WalOwner,
        segment: &SegmentToRead<'_>,
        damage: &StorageError,
    ) -> Result<(), StorageError> {
        let (file, header) = match read_header(disk, segment.path, owner, segment.sequence) {
            Ok(read) => read,
            Err(StorageError::Damaged { .. }) => {
                self.unknown(u64::MAX);
                self.previous = Some((segment.sequence, None));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match self.previous {
            Some((before, _)) if before + 1 != segment.sequence => self.unknown(u64::MAX),
            Some((_, Some(seal))) if header.previous != seal => {
                let what = "segments that do not fit together";
                return Err(lost(damage, what));
            }
            _ => {}
        }
        let mut beginning = Beginning::default();
        let mut seal = None;
        walk(&file, &header, segment.is_last, |found| {
            match found {
                Found::Gap { offset, bytes } => {
                    beginning.is_damaged |= offset < header.synced_to;
                    self.unknown(bytes);
                }
                Found::Torn => self.states = None,
                Found::Record {
                    offset,
                    header: record,
                    payload,
                } => {
                    if offset < header.synced_to {
                        beginning.see(&record, payload);
                    } else {
                        self.begun(&mut beginning, &header);
                    }
                    self.record(&record, payload, &header)
                        .map_err(|what| lost(damage, &what))?;
                    if record.kind == RecordKind::Seal {
                        let (_, checksum) = record.encode(header.frame().seed);
                        seal = Some(SealMark { offset, checksum });
                    }
                }
            }
            Ok(())
        })?;
        self.begun(&mut beginning, &header);
        self.previous = Some((segment.sequence, seal));
        Ok(())
    }

    /// Bytes that were synced cannot be read.
    fn unknown(&mut self, bytes: u64) {
        self.gap_bytes = self.gap_bytes.saturating_add(bytes);
        for group in self.groups.values_mut() {
            group.gap_bytes = group.gap_bytes.saturating_add(bytes);
        }
    }

    /// A segment names all groups that there are when it begins: what is not among them never was.
    fn begun(&mut self, beginning: &mut Beginning, header: &SegmentHeader) {
        if std::mem::replace(&mut beginning.is_over, true) {
            return;
        }
        if !beginning.is_damaged {
            self.groups_may_be_lost = false;
            for (group, found) in &mut self.groups {
                if !beginning.groups.contains(group) {
                    found.promises = None;
                }
            }
        }
        self.groups_may_be_lost |= header.groups_may_be_lost;
    }

    fn record(
        &mut self,
        record: &RecordHeader,
        payload: Option<&[u8]>,
        segment: &SegmentHeader,
    ) -> Result<(), String> {
        check_index(record.id)?;
        if left_by_gap(self.gap_bytes, self.states, record, segment) {
            self.promises_may_be_lost();
        }
        self.gap_bytes = 0;
        self.states = segment.has_groups().then_some(record.states);
        let limit = WalOptions::GROUPS_MAX;
        if !self.groups.contains_key(&record.group) {
            if matches!(record.kind, RecordKind::Seal | RecordKind::Witness) {
                return Ok(());
            }
            if self.groups.len() >= limit {
                return Err(format!("more than {limit} groups (groups_max)"));
            }
        }
        let group = self.groups.entry(record.group).or_default();
        group.see(record, payload);
        Ok(())
    }

    fn promises_may_be_lost(&mut self) {
        self.groups_may_be_lost = true;
        for group in self.groups.values_mut() {
            group.promises = None;
        }
    }

    fn finish(
        mut self,
        damage: &StorageError,
        snapshot_of: impl Fn(GroupId) -> Result<LogId, StorageError>,
    ) -> Result<(BTreeMap<GroupId, SalvagedGroup>, bool), StorageError> {
        if self.gap_bytes >= record_bytes(PROMISES_BYTES[0]) {
            self.promises_may_be_lost();
        }
        if self.groups.is_empty() && self.groups_may_be_lost {
            return Err(lost(damage, "nothing can be read"));
        }
        let mut groups = BTreeMap::new();
        for (id, group) in self.groups {
            let Some(mut promises) = group.promises else {
                return Err(lost(damage, &format!("in the log of group {id}")));
            };
            let snapshot = match group.gap_bytes {
                0 => LogId::ZERO,
                _ => snapshot_of(id)?,
            };
            let acknowledged = group.acknowledged(promises.hard_state, snapshot);
            promises.refill_to = Some(acknowledged).max(promises.refill_to);
            promises.log_reaches(group.start);
            let start = group.start;
            groups.insert(id, SalvagedGroup { promises, start });
        }
        Ok((groups, self.groups_may_be_lost))
    }
}

impl Group {
    fn see(&mut self, record: &RecordHeader, payload: Option<&[u8]>) {
        let mut last = Some(record.id);
        match record.kind {
            RecordKind::HardState => self.promises = payload.and_then(Promises::decode),
            RecordKind::Truncate => last = Some(left_by_truncation(record.id)),
            RecordKind::Reset => self.start = record.id,
            RecordKind::Start => {
                self.start = record.id;
                last = None;
            }
            RecordKind::Moved => last = None,
            RecordKind::Entry | RecordKind::Seal | RecordKind::Witness => {}
        }
        self.named = self.named.max(last.unwrap_or(record.id));
        self.index = self.index.max(record.id.index);
        if last.is_some() {
            self.gap_bytes = 0;
        }
    }

    /// The last entry that the group may have acknowledged: the highest that anything names, or one
    /// of those that there is room for in what cannot be read. Its term is no higher than the
    /// newest one of the group, and it stands behind what is named, or behind a snapshot.
    fn acknowledged(&self, newest: HardState, snapshot: LogId) -> LogId {
        let room = self.gap_bytes / HEAD_BYTES as u64;
        if self.gap_bytes < record_bytes(0) {
            return self.named;
        }
        let term = newest.term.max(self.named.term).max(snapshot.term);
        let index = self.index.max(snapshot.index).0.saturating_add(room);
        self.named.max(LogId::new(term, Index(index)))
    }
}

/// What a segment says of the groups when it begins.
#[derive(Debug, Default)]
struct Beginning {
    groups: BTreeSet<GroupId>,
    is_damaged: bool,
    is_over: bool,
}

impl Beginning {
    fn see(&mut self, record: &RecordHeader, payload: Option<&[u8]>) {
        self.is_damaged |= payload.is_none();
        self.groups.insert(record.group);
    }
}

/// Whether there may have been a hard state between the last header and this one.
fn left_by_gap(
    gap_bytes: u64,
    states: Option<u16>,
    record: &RecordHeader,
    segment: &SegmentHeader,
) -> bool {
    if gap_bytes < record_bytes(PROMISES_BYTES[0]) {
        return false;
    }
    let is_state = u16::from(record.kind == RecordKind::HardState);
    let known = segment.has_groups() && gap_bytes < COUNTED_GAP_BYTES_MAX;
    let unchanged = states.is_some_and(|n| n.wrapping_add(is_state) == record.states);
    !(known && unchanged)
}

fn lost(damage: &StorageError, what: &str) -> StorageError {
    match damage {
        StorageError::Damaged {
            path,
            offset,
            what: first,
        } => StorageError::LostPromises {
            path: path.clone(),
            offset: *offset,
            what: format!("{first} ({what})"),
        },
        other => other.clone(),
    }
}
