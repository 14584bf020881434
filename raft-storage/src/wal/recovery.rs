//! Opening a log that is there, in the numbered steps of `docs/disk-format.md`. It only reads; what
//! is found decides whether anything may be changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_core::{GroupId, LogId, StorageError};

use super::options::{RecoveryReport, WalOptions};
use super::record::RecordKind;
use super::replay::{GroupReplay, Moving, check_index};
use super::scan::{Record, ScanEnd, Window, remains, scan};
use super::sealed::SealedSegment;
use super::segment::{HEADER_BYTES, SealMark, SegmentHeader, SegmentRef, sequence_of};
use crate::errors::{damaged, foreign};
use crate::files::{Disk, DiskFile};
use crate::owner::WalOwner;

/// The highest number of a segment, so far below the end of 64 bits that it is never reached.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) groups: BTreeMap<GroupId, GroupReplay>,
    /// The segments before the last one.
    pub(super) sealed: Vec<SealedSegment>,
    pub(super) tail: Tail,
    /// The torn tail that is still there.
    pub(super) torn: Option<TornTail>,
    pub(super) report: RecoveryReport,
    /// Bytes of the segment files.
    pub(super) disk_bytes: u64,
    /// Segments that count no more: a later one began anew, and a crash left them where they were.
    pub(super) void: Vec<PathBuf>,
}

/// The last segment, and where writing goes on in it.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: Arc<SegmentRef>,
    pub(super) header: SegmentHeader,
    pub(super) offset: u64,
    /// Where it is full already.
    pub(super) seal: Option<SealMark>,
    /// Whether its last record vouches for all before it.
    pub(super) witnessed: bool,
    /// As the last record counts them.
    pub(super) states: u16,
    /// The group of the last record.
    pub(super) group: GroupId,
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
    let SegmentFiles { void, files } = segment_files(disk, dir, owner)?;
    check_gaps(dir, &files)?;
    let (Some((first, _)), Some(((_, last), full))) = (files.first(), files.split_last()) else {
        return Ok(None);
    };
    let mut replay = Replay::from_segment(*first);
    let mut sealed = Vec::with_capacity(full.len());
    for (_, path) in full {
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
    replay.check_beginning(dir, *first)?;
    replay.report.segments = files.len() as u64;
    Ok(Some(Recovered {
        groups: replay.groups,
        sealed,
        tail,
        torn,
        report: replay.report,
        disk_bytes: replay.disk_bytes,
        void,
    }))
}

/// The segments of a directory, in order, each with its sequence number.
#[derive(Debug)]
pub(super) struct SegmentFiles {
    pub(super) files: Vec<(u64, PathBuf)>,
    /// Those before the one that begins anew.
    pub(super) void: Vec<PathBuf>,
}

/// Steps 1 and 2: which segments there are, and which of them count.
pub(super) fn segment_files(
    disk: &Disk,
    dir: &Path,
    owner: &WalOwner,
) -> Result<SegmentFiles, StorageError> {
    let mut files = Vec::new();
    for path in disk.list(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match sequence_of(&name) {
            Some(sequence @ 1..=SEQUENCE_MAX) => files.push((sequence, path)),
            Some(_) => {
                let what = format!("has a number that no segment has: 1 to {SEQUENCE_MAX}");
                return Err(foreign(&path, what));
            }
            None if name.ends_with(".wal") => {
                return Err(foreign(&path, "has a name that no segment has"));
            }
            None => {}
        }
    }
    files.sort_unstable();
    let begins_anew = |(sequence, path): &(u64, PathBuf)| {
        // A header that cannot be read is told of when its segment is.
        let header = read_header(disk, path, owner, *sequence);
        header.is_ok_and(|(_, header)| header.begins_anew)
    };
    let first = files.iter().rposition(begins_anew).unwrap_or(0);
    let void = files.drain(..first).map(|(_, path)| path).collect();
    Ok(SegmentFiles { files, void })
}

/// Whether segments before the first one are missing is known once the start of the log is.
fn check_gaps(dir: &Path, files: &[(u64, PathBuf)]) -> Result<(), StorageError> {
    for pair in files.windows(2) {
        let (expected, sequence) = (pair[0].0 + 1, pair[1].0);
        if sequence != expected {
            let what = format!("segment {expected} is missing, segment {sequence} is there");
            return Err(damaged(dir, 0, what));
        }
    }
    Ok(())
}

/// The header page of a segment, and its file.
pub(super) fn read_header(
    disk: &Disk,
    path: &Path,
    owner: &WalOwner,
    sequence: u64,
) -> Result<(DiskFile, SegmentHeader), StorageError> {
    let file = disk.open_to_read(path)?;
    let file_bytes = file.length()?;
    if file_bytes < HEADER_BYTES as u64 {
        return Err(damaged(path, file_bytes, "it ends inside its header"));
    }
    let mut page = [0; HEADER_BYTES];
    page.copy_from_slice(Window::new(&file, file_bytes).slice(0, HEADER_BYTES)?);
    let header = SegmentHeader::decode(&page, path, owner, sequence)?;
    Ok((file, header))
}

/// What has been understood of the log so far.
#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupId, GroupReplay>,
    sequence: u64,
    /// Of the segment before. None where that is gone.
    seal: Option<SealMark>,
    witnessed: bool,
    /// Hard states, as the last record counted them. None before the first one that counts.
    states: Option<u16>,
    /// The group of the last record.
    group: GroupId,
    /// Entries of `group` that are being moved.
    moving: Option<Moving>,
    /// What the segment has begun with so far.
    begun: Begun,
    report: RecoveryReport,
    disk_bytes: u64,
}

/// The groups that a segment begins with, in ascending order: hard state and start of each.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    groups: usize,
    last: Option<GroupId>,
    /// Whether the start of the last one is to come.
    start_is_due: bool,
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
        let (file, header) = read_header(disk, path, owner, self.sequence + 1)?;
        let file_bytes = file.length()?;
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
            frame: header.frame(),
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
        self.begun = Begun::default();
        let known = self.groups.len();
        let is_first = self.seal.is_none();
        let end = scan(&mut window, &opened.header, |record| {
            if record.offset < opened.header.synced_to {
                self.begin_segment(&record, &opened.header)?;
            }
            self.replay(&record, opened)
        })?;
        let (ScanEnd::Sealed { end: offset, .. } | ScanEnd::Open { offset, .. }) = end;
        let begun = self.begun.groups;
        if begun < known && !is_first && offset >= opened.header.synced_to {
            let what = format!("it begins with {begun} groups, but there are {known}");
            return Err(damaged(window.path(), HEADER_BYTES as u64, what));
        }
        Ok((end, window))
    }

    /// Segments repeat hard state and start of each group. What stood in segments that are gone is
    /// taken from the first one that is there.
    fn begin_segment(&mut self, record: &Record<'_>, header: &SegmentHeader) -> Result<(), String> {
        let (group, id) = (record.header.group, record.header.id);
        match record.header.kind {
            RecordKind::HardState if self.begun.start_is_due => {
                Err(format!("no start follows the hard state of group {group}"))
            }
            RecordKind::HardState if self.begun.last.is_none_or(|last| last < group) => {
                self.begun.last = Some(group);
                self.begun.groups += 1;
                self.begun.start_is_due = header.begins_with_start();
                if self.seal.is_none() {
                    self.insert(group, GroupReplay::of_gone(id))?;
                } else if header.sequence == 1 {
                    self.insert(group, GroupReplay::default())?;
                } else if !self.groups.contains_key(&group) {
                    return Err(format!("it begins with group {group}, which is unknown"));
                }
                Ok(())
            }
            RecordKind::Start if self.begun.start_is_due && self.begun.last == Some(group) => {
                self.begun.start_is_due = false;
                let known = self.groups.get(&group).map(|known| known.start);
                if self.seal.is_some() && known != Some(id) {
                    return Err(format!("it begins with the start {id}, not {known:?}"));
                }
                Ok(())
            }
            kind => Err(format!(
                "it begins with a record of the kind {kind:?} of group {group}"
            )),
        }
    }

    fn insert(&mut self, group: GroupId, replay: GroupReplay) -> Result<(), String> {
        let limit = WalOptions::GROUPS_MAX;
        if self.groups.len() >= limit {
            return Err(format!(
                "group {group} is one more than the limit of {limit} (groups_max)"
            ));
        }
        self.groups.insert(group, replay);
        Ok(())
    }

    fn replay(&mut self, record: &Record<'_>, opened: &OpenedSegment) -> Result<(), String> {
        let header = &record.header;
        let kind = header.kind;
        check_index(header.id)?;
        if opened.header.has_groups() {
            self.count(header.states, kind == RecordKind::HardState)?;
        }
        let moving = self.moving.take().filter(|_| header.group == self.group);
        self.group = header.group;
        if !self.groups.contains_key(&header.group) {
            match kind {
                RecordKind::HardState => self.insert(header.group, GroupReplay::default())?,
                // A segment may be full before it has a record of any group.
                RecordKind::Seal | RecordKind::Witness if header.id == LogId::ZERO => {}
                _ => return Err(format!("group {} does not begin like one", header.group)),
            }
        }
        if let Some(group) = self.groups.get_mut(&header.group) {
            if kind == RecordKind::Moved {
                self.moving = Moving::replay(moving, group, record, &opened.segment)?;
            } else {
                group.replay(record, &opened.segment)?;
            }
        }
        if !matches!(kind, RecordKind::Seal | RecordKind::Witness) {
            self.report.unfinished_batch = !header.batch_end;
        }
        self.witnessed = kind == RecordKind::Witness;
        self.report.records += 1;
        Ok(())
    }

    fn count(&mut self, states: u16, is_state: bool) -> Result<(), String> {
        let known = self.states.unwrap_or(states.wrapping_sub(is_state.into()));
        let expected = known.wrapping_add(is_state.into());
        if states != expected {
            return Err(format!("it counts {states} hard states, not {expected}"));
        }
        self.states = Some(states);
        Ok(())
    }

    /// Whether the segments that are missing before the first one held nothing that is needed.
    fn check_beginning(&self, dir: &Path, first: u64) -> Result<(), StorageError> {
        for (group, replay) in &self.groups {
            let (held, start) = (replay.index.outline().start(), replay.start);
            if held != start {
                let what = format!(
                    "segment {first} is the first that is there; those before it held entries of \
                     group {group} up to {held}, but only those up to {start} were compacted"
                );
                return Err(damaged(dir, 0, what));
            }
        }
        Ok(())
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
        let (offset, seal, torn) = match end {
            ScanEnd::Sealed { mark, end } => (end, Some(mark), None),
            ScanEnd::Open { offset, what } => {
                let torn = judge(&mut window, &opened.header, offset, &what)?;
                (offset, None, torn)
            }
        };
        self.report.bytes += offset;
        let tail = Tail {
            segment: Arc::clone(&opened.segment),
            header: opened.header,
            offset,
            seal,
            witnessed: self.witnessed,
            states: self.states.unwrap_or(0),
            group: self.group,
        };
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
    Ok(remains.torn_to.map(|end| TornTail { offset, end }))
}
