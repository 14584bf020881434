//! Opening a log that is there, in the numbered steps of `docs/disk-format.md`. Steps 1 to 6 only
//! read; what they find decides whether step 7 may change anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_core::entry::ENTRY_HEADER_BYTES;
use raft_core::{HardState, LogId, StorageError};

use super::index::{LogIndex, Placed};
use super::options::{RecoveryReport, TailCut};
use super::record::{RecordHeader, RecordKind};
use super::scan::{Record, ScanEnd, Window, remains, scan};
use super::sealed::SealedSegment;
use super::segment::{HEADER_BYTES, SealMark, SegmentHeader, SegmentRef, sequence_of};
use crate::errors::{damaged, foreign};
use crate::files::{Disk, DiskFile};
use crate::hard_state::decode_hard_state;
use crate::memberships::is_membership;
use crate::owner::WalOwner;

/// Torn tails that are kept aside; older ones are removed.
const TORN_COPIES_MAX: usize = 8;
const TORN_PREFIX: &str = "torn-";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: LogIndex,
    pub(super) hard_state: HardState,
    /// The segments before the last one.
    pub(super) sealed: Vec<SealedSegment>,
    pub(super) tail: Tail,
    /// The torn tail that is still there.
    pub(super) torn: Option<TornTail>,
    pub(super) report: RecoveryReport,
    /// Bytes of the segment files.
    pub(super) disk_bytes: u64,
}

/// The last segment, and where writing goes on in it.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: Arc<SegmentRef>,
    pub(super) file_bytes: u64,
    pub(super) offset: u64,
    /// Where it is full already.
    pub(super) seal: Option<SealMark>,
    /// Whether its last record vouches for all before it.
    pub(super) witnessed: bool,
}

/// Bytes behind the last whole record that were provably or probably never synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TornTail {
    pub(super) offset: u64,
    pub(super) end: u64,
}

/// Reads a whole log and judges it. Changes nothing. `None` where the directory has no segment.
pub(super) fn recover(
    disk: &Disk,
    dir: &Path,
    owner: &WalOwner,
) -> Result<Option<Recovered>, StorageError> {
    let (first, paths) = segment_paths(disk, dir)?;
    let Some((last, full)) = paths.split_last() else {
        return Ok(None);
    };
    let mut replay = Replay::from_segment(first);
    let mut sealed = Vec::with_capacity(full.len());
    for path in full {
        let opened = replay.open(disk, path, owner)?;
        let (end, _) = replay.scan(&opened)?;
        match end {
            ScanEnd::Sealed { mark, end } => replay.finish_segment(mark, end),
            ScanEnd::Open { offset, what } => {
                let what = format!("{what}, but a later segment follows");
                return Err(damaged(path, offset, what));
            }
        }
        sealed.push(SealedSegment {
            segment: opened.segment,
            file_bytes: opened.header.file_bytes,
        });
    }
    let (tail, torn) = replay.last_segment(disk, last, owner)?;
    replay.check_beginning(dir, first)?;
    replay.report.segments = paths.len() as u64;
    Ok(Some(Recovered {
        index: replay.index,
        hard_state: replay.hard_state,
        sealed,
        tail,
        torn,
        report: replay.report,
        disk_bytes: replay.disk_bytes,
    }))
}

/// Steps 1 and 2: the segments of a directory, in order, without a gap, and the sequence number of
/// the first.
fn segment_paths(disk: &Disk, dir: &Path) -> Result<(u64, Vec<PathBuf>), StorageError> {
    let mut sequences = Vec::new();
    for path in disk.list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match sequence_of(&name) {
            Some(sequence) => sequences.push((sequence, path)),
            None if name.ends_with(".wal") => {
                return Err(foreign(&path, "has a name that no segment has"));
            }
            None => {}
        }
    }
    sequences.sort_unstable();
    let first = sequences.first().map_or(1, |(sequence, _)| *sequence);
    if first == 0 {
        return Err(foreign(dir, "has a segment 0; they begin with 1"));
    }
    // Whether segments before the first one are missing is known once the start of the log is.
    for pair in sequences.windows(2) {
        let (expected, sequence) = (pair[0].0 + 1, pair[1].0);
        if sequence != expected {
            let what = format!("segment {expected} is missing, segment {sequence} is there");
            return Err(damaged(dir, 0, what));
        }
    }
    let paths = sequences.into_iter().map(|(_, path)| path).collect();
    Ok((first, paths))
}

/// What has been understood of the log so far.
///
/// Where the first segments are gone, the index begins behind the last entry that stood in them,
/// with or without right: until a start is read that reaches it, `start` is before it.
#[derive(Default)]
struct Replay {
    index: LogIndex,
    /// The newest one that was read.
    start: LogId,
    hard_state: HardState,
    sequence: u64,
    /// Of the segment before. None where that is gone.
    seal: Option<SealMark>,
    witnessed: bool,
    report: RecoveryReport,
    disk_bytes: u64,
}

struct OpenedSegment {
    file: DiskFile,
    header: SegmentHeader,
    segment: Arc<SegmentRef>,
}

impl Replay {
    /// Before anything is read of a log whose first segment is this one.
    fn from_segment(first: u64) -> Self {
        Self {
            sequence: first - 1,
            seal: (first == 1).then(SealMark::default),
            ..Self::default()
        }
    }

    /// Step 3 and 4: the header page of the next segment.
    fn open(
        &mut self,
        disk: &Disk,
        path: &Path,
        owner: &WalOwner,
    ) -> Result<OpenedSegment, StorageError> {
        let file = disk.open_to_read(path)?;
        let file_bytes = file.length()?;
        if file_bytes < HEADER_BYTES as u64 {
            return Err(damaged(path, file_bytes, "it ends inside its header"));
        }
        let mut page = [0; HEADER_BYTES];
        page.copy_from_slice(Window::new(&file, file_bytes).slice(0, HEADER_BYTES)?);
        let header = SegmentHeader::decode(&page, path, owner, self.sequence + 1)?;
        if header.file_bytes != file_bytes {
            let what = format!("it has {file_bytes} bytes, not {}", header.file_bytes);
            return Err(damaged(path, file_bytes.min(header.file_bytes), what));
        }
        if self.seal.is_some_and(|seal| header.previous != seal) {
            let what = "it does not continue the segment before it";
            return Err(damaged(path, 80, what));
        }
        self.sequence += 1;
        self.disk_bytes += file_bytes;
        let segment = Arc::new(SegmentRef {
            sequence: self.sequence,
            path: path.to_owned(),
            seed: header.seed(),
        });
        Ok(OpenedSegment {
            file,
            header,
            segment,
        })
    }

    /// Step 5: the records of a segment.
    fn scan<'a>(
        &mut self,
        opened: &'a OpenedSegment,
    ) -> Result<(ScanEnd, Window<'a>), StorageError> {
        let mut window = Window::new(&opened.file, opened.header.file_bytes);
        let mut position = 0;
        let end = scan(&mut window, &opened.header, |record| {
            match (position, record.header.kind) {
                (0, RecordKind::HardState) => self.begin_segment(record.header.id),
                (0, _) => return Err("its first record is no hard state".to_owned()),
                (1, kind) if opened.header.begins_with_start => {
                    self.begin_with_start(kind, record.header.id)?;
                }
                _ => {}
            }
            position += 1;
            self.replay(&record, &opened.segment)
        })?;
        Ok((end, window))
    }

    /// What stood in segments that are gone is taken from the first one that is there.
    fn begin_segment(&mut self, last: LogId) {
        if self.seal.is_none() {
            self.index = LogIndex::starting_behind(last);
        }
    }

    /// Segments repeat the start, but the first of those that are there, which tells it.
    fn begin_with_start(&self, kind: RecordKind, start: LogId) -> Result<(), String> {
        if kind != RecordKind::Start {
            return Err("its second record is no start".to_owned());
        }
        if self.seal.is_some() && start != self.start {
            return Err(format!(
                "it begins with the start {start}, not {}",
                self.start
            ));
        }
        Ok(())
    }

    fn replay(&mut self, record: &Record<'_>, segment: &Arc<SegmentRef>) -> Result<(), String> {
        let RecordHeader { kind, id, .. } = record.header;
        let last = self.index.outline().last();
        match kind {
            RecordKind::Entry => {
                let encoded_bytes = record.header.payload_bytes;
                if (encoded_bytes as usize) < ENTRY_HEADER_BYTES {
                    return Err(format!("entry {id} has {encoded_bytes} bytes"));
                }
                let offset = record.offset;
                let placed = Placed {
                    id,
                    offset,
                    encoded_bytes,
                    is_membership: is_membership(record.prefix),
                };
                self.index.push(segment, placed)?;
            }
            RecordKind::Truncate => self.truncate(id)?,
            RecordKind::Start => self.compact(id)?,
            RecordKind::Reset => {
                self.index = LogIndex::starting_behind(id);
                self.start = id;
            }
            RecordKind::HardState | RecordKind::Seal | RecordKind::Witness if id != last => {
                return Err(format!(
                    "a record behind {last} names {id} as the last entry"
                ));
            }
            RecordKind::HardState => {
                self.hard_state = decode_hard_state(record.prefix).ok_or("no hard state")?;
            }
            RecordKind::Seal | RecordKind::Witness => {}
        }
        if !matches!(kind, RecordKind::Seal | RecordKind::Witness) {
            self.report.unfinished_batch = !record.header.batch_end;
        }
        self.witnessed = kind == RecordKind::Witness;
        self.report.records += 1;
        Ok(())
    }

    /// `id` has the index of the first entry to drop and the term of the one before it.
    fn truncate(&mut self, id: LogId) -> Result<(), String> {
        let outline = self.index.outline();
        let (first, last) = (outline.start(), outline.last());
        let left = LogId::new(id.term, id.index.previous());
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

    /// Whether the segments that are missing before the first one held nothing that is needed.
    fn check_beginning(&self, dir: &Path, first: u64) -> Result<(), StorageError> {
        let held = self.index.outline().start();
        if held == self.start {
            return Ok(());
        }
        let what = format!(
            "segment {first} is the first that is there; those before it held entries up to \
             {held}, but only those up to {} were compacted",
            self.start
        );
        Err(damaged(dir, 0, what))
    }

    fn finish_segment(&mut self, seal: SealMark, end: u64) {
        self.seal = Some(seal);
        self.report.bytes += end;
    }

    /// Step 6: the last segment, whose end may be torn.
    fn last_segment(
        &mut self,
        disk: &Disk,
        path: &Path,
        owner: &WalOwner,
    ) -> Result<(Tail, Option<TornTail>), StorageError> {
        disk.settle(path)?;
        let opened = self.open(disk, path, owner)?;
        let (end, mut window) = self.scan(&opened)?;
        let mut tail = Tail {
            segment: Arc::clone(&opened.segment),
            file_bytes: opened.header.file_bytes,
            offset: 0,
            seal: None,
            witnessed: self.witnessed,
        };
        let (offset, what) = match end {
            ScanEnd::Sealed { mark, end } => {
                self.finish_segment(mark, end);
                (tail.offset, tail.seal) = (end, Some(mark));
                return Ok((tail, None));
            }
            ScanEnd::Open { offset, what } => (offset, what),
        };
        self.report.bytes += offset;
        tail.offset = offset;
        let torn = judge(&mut window, &opened.header, offset, &what)?;
        Ok((tail, torn))
    }
}

/// Whether what stands behind the whole records is a torn write, or synced data that is damaged.
fn judge(
    window: &mut Window<'_>,
    header: &SegmentHeader,
    offset: u64,
    what: &str,
) -> Result<Option<TornTail>, StorageError> {
    let path = window.path();
    if offset < header.synced_to {
        let what = format!(
            "{what}, but the segment was synced up to {}",
            header.synced_to
        );
        return Err(damaged(path, offset, what));
    }
    let remains = remains(window, header, offset)?;
    if let Some(witness) = remains.witness {
        let what = format!(
            "{what}, but the record at {} says that all before {} had been synced",
            witness.offset, witness.synced_to
        );
        return Err(damaged(path, offset, what));
    }
    let end = remains.end;
    Ok((end > offset).then_some(TornTail { offset, end }))
}

/// Step 7: copies a torn tail aside and overwrites it with zeros, so that nothing of it can be
/// taken for a record that is written later.
pub(super) fn cut(
    disk: &Disk,
    dir: &Path,
    segment: &SegmentRef,
    torn: TornTail,
) -> Result<TailCut, StorageError> {
    let file = disk.open(&segment.path)?;
    let bytes = torn.end - torn.offset;
    let copy = dir.join(format!(
        "{TORN_PREFIX}{:020}-{:012}",
        segment.sequence, torn.offset
    ));
    remove_old_copies(disk, dir)?;
    let copied = bytes.min(TailCut::COPY_BYTES_MAX);
    let length = usize::try_from(copied).expect("COPY_BYTES_MAX fits in memory");
    let mut window = Window::new(&file, torn.offset + copied);
    let aside = disk.create(&copy)?;
    aside.write_at(window.slice(torn.offset, length)?, 0)?;
    aside.sync()?;
    disk.sync_dir(dir)?;
    let mut at = torn.offset;
    while at < torn.end {
        let piece = (torn.end - at).min(ZEROS.len() as u64);
        file.write_at(&ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())], at)?;
        at += piece;
    }
    file.sync()?;
    Ok(TailCut {
        path: segment.path.clone(),
        offset: torn.offset,
        bytes,
        copy,
    })
}

fn remove_old_copies(disk: &Disk, dir: &Path) -> Result<(), StorageError> {
    let mut copies = disk.list(dir)?;
    copies.retain(|path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(TORN_PREFIX)
    });
    copies.sort_unstable();
    let surplus = (copies.len() + 1).saturating_sub(TORN_COPIES_MAX);
    copies[..surplus]
        .iter()
        .try_for_each(|copy| disk.remove(copy))
}
