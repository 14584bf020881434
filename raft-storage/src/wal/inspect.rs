//! Looks at a log in files without changing anything: each segment by itself, beyond damage too;
//! what recovery makes of all of them; and every entry as a reader would see it.

use std::path::{Path, PathBuf};

use raft_core::{Entry, GroupId, LogId, StorageError};

use super::aside::DAMAGED_PREFIX;
use super::cut::TORN_PREFIX;
use super::reader::read_stretch;
use super::record::{Frame, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use super::recovery::{self, Recovered, SegmentFiles, segment_files};
use super::replay::GroupReplay;
use super::run::RunEntry;
use super::salvage::salvage;
use super::scan::Window;
use super::segment::{HEADER_BYTES, SegmentHeader, sequence_of};
use super::spare::{NEW_RESERVE_NAME, RECYCLED_PREFIX, RESERVE_NAME, SPARE_NAME};
use crate::errors::damaged;
use crate::files::Disk;
use crate::inspection::{
    FileKind, FileReport, Finding, FindingKind, LogReport, SegmentReport, list, name_of,
};
use crate::owner::WalOwner;

/// Bytes of entries that are looked at at once, unless a single one is larger.
const READ_BYTES: usize = 4 << 20;
/// The group whose facts are told. Others are read and checked as well.
const GROUP: GroupId = GroupId(0);
/// Damaged places that are told of one segment; the rest is counted with the last of them.
const HOLES_MAX: usize = 16;

/// Reads all of the log in `dir` and says what is there: what recovery refuses, what it would cut
/// or remove, and damage behind the place where it stops. `snapshot` is the last entry of the
/// newest snapshot. Changes nothing. Blocks its thread.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn inspect_wal(
    dir: &Path,
    owner: &WalOwner,
    snapshot: LogId,
) -> Result<LogReport, StorageError> {
    let mut report = LogReport::default();
    let disk = Disk::default();
    let files = list(&disk, dir)?;
    let segments = files.iter().filter_map(|path| sequence_of(&name_of(path)));
    let newest = segments.max();
    for path in files {
        let kind = kind_of(&disk, &path, newest, owner, &mut report.findings);
        report.files.push(FileReport::new(&disk, path, kind)?);
    }
    if let Ok(SegmentFiles { void, .. }) = segment_files(&disk, dir, owner) {
        void.iter().for_each(|path| report.make_leftover(path));
    }
    match recovery::recover(&disk, dir, owner) {
        Ok(Some(recovered)) => describe(&disk, &recovered, &mut report),
        Ok(None) => {}
        Err(damage) => {
            let is_damage = matches!(damage, StorageError::Damaged { .. });
            if is_damage && salvageable(&disk, dir, owner, &damage, snapshot, &mut report) {
                report.add(Finding::from_error(damage, dir, FindingKind::Refillable));
            } else {
                report.add(Finding::from_error(damage, dir, FindingKind::Log));
            }
        }
    }
    Ok(report)
}

/// Whether term and vote are certain all the same, so that a leader can make up for the damage.
fn salvageable(
    disk: &Disk,
    dir: &Path,
    owner: &WalOwner,
    damage: &StorageError,
    snapshot: LogId,
    report: &mut LogReport,
) -> bool {
    let Ok(salvaged) = salvage(disk, dir, owner, damage, |_| Ok(snapshot)) else {
        return false;
    };
    for finding in &mut report.findings {
        if finding.kind == FindingKind::Log {
            finding.kind = FindingKind::Refillable;
        }
    }
    if let Some(known) = salvaged.groups.get(&GROUP) {
        report.hard_state = Some(known.promises.hard_state);
        report.refill_to = known.promises.refill_to;
        (report.start, report.last) = (known.start, known.start);
    }
    true
}

fn kind_of(
    disk: &Disk,
    path: &Path,
    newest: Option<u64>,
    owner: &WalOwner,
    findings: &mut Vec<Finding>,
) -> FileKind {
    let name = name_of(path);
    let Some(sequence) = sequence_of(&name) else {
        return match &*name {
            SPARE_NAME | RESERVE_NAME => FileKind::Spare,
            NEW_RESERVE_NAME => FileKind::Temporary,
            "lock" => FileKind::Lock,
            _ if name.starts_with(RECYCLED_PREFIX) => FileKind::Spare,
            _ if name.starts_with(TORN_PREFIX) => FileKind::TornCopy,
            _ if name.starts_with(DAMAGED_PREFIX) => FileKind::DamagedCopy,
            _ => FileKind::Other,
        };
    };
    let mut segment = SegmentReport {
        sequence,
        ..SegmentReport::default()
    };
    match walk(disk, path, owner, &mut segment) {
        Ok(holes) => {
            // The newest one may end anywhere; whether it does so rightly, recovery says.
            let is_newest = newest == Some(sequence);
            let holes = holes
                .into_iter()
                .filter(|hole| !is_newest || hole.is_vouched);
            findings.extend(holes.map(|hole| hole.finding(path)));
        }
        Err(error) => findings.push(Finding::from_error(error, path, FindingKind::Log)),
    }
    FileKind::Segment(segment)
}

/// A stretch of a segment in which no whole record begins.
struct Hole {
    offset: u64,
    what: String,
    /// Where records go on.
    next: Option<u64>,
    /// Whether a record behind it says that it had been synced.
    is_vouched: bool,
}

impl Hole {
    fn finding(self, path: &Path) -> Finding {
        let goes_on = match self.next {
            Some(next) => format!("; whole records go on at {next}"),
            None => "; no whole record follows in this file".to_owned(),
        };
        Finding {
            path: path.to_owned(),
            offset: self.offset,
            what: self.what + &goes_on,
            kind: FindingKind::Log,
        }
    }
}

/// Reads a segment to its end, over damage, and counts what is whole.
fn walk(
    disk: &Disk,
    path: &Path,
    owner: &WalOwner,
    segment: &mut SegmentReport,
) -> Result<Vec<Hole>, StorageError> {
    let file = disk.open_to_read(path)?;
    let file_bytes = file.length()?;
    if file_bytes < HEADER_BYTES as u64 {
        return Err(damaged(path, file_bytes, "it ends inside its header"));
    }
    let mut window = Window::new(&file, file_bytes);
    let mut page = [0; HEADER_BYTES];
    page.copy_from_slice(window.slice(0, HEADER_BYTES)?);
    let header = SegmentHeader::decode(&page, path, owner, segment.sequence)?;
    segment.version = header.version;
    let mut walk = Walk {
        window,
        frame: header.frame(),
        file_bytes,
        segment,
        holes: Vec::new(),
        entries: Vec::new(),
    };
    walk.run()?;
    Ok(walk.holes)
}

struct Walk<'a> {
    window: Window<'a>,
    frame: Frame,
    file_bytes: u64,
    segment: &'a mut SegmentReport,
    holes: Vec<Hole>,
    /// Of the last record that was whole.
    entries: Vec<RunEntry>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), StorageError> {
        let mut offset = HEADER_BYTES as u64;
        while !self.segment.is_sealed {
            match self.record_at(offset)? {
                Ok(header) => {
                    self.count(&header);
                    offset += header.record_bytes();
                    self.segment.used_bytes = offset;
                }
                Err(what) => match self.next_record(offset)? {
                    Some((next, is_vouched)) => {
                        self.add_hole(offset, what, Some(next), is_vouched);
                        offset = next;
                    }
                    None => {
                        self.add_hole(offset, what, None, false);
                        break;
                    }
                },
            }
        }
        Ok(())
    }

    fn add_hole(&mut self, offset: u64, what: String, next: Option<u64>, is_vouched: bool) {
        if self.holes.len() < HOLES_MAX {
            self.holes.push(Hole {
                offset,
                what,
                next,
                is_vouched,
            });
        } else if let Some(last) = self.holes.last_mut() {
            last.next = next;
            last.what = "there are more damaged places than are told one by one".to_owned();
            last.is_vouched |= is_vouched;
        }
    }

    /// The header of the whole record at `offset`, or why none is there.
    fn record_at(&mut self, offset: u64) -> Result<Result<RecordHeader, String>, StorageError> {
        if offset + RECORD_HEADER_BYTES as u64 > self.file_bytes {
            return Ok(Err("the file ends without a seal".to_owned()));
        }
        let Some(header) = self.window.record_header(offset, self.frame)? else {
            return Ok(Err("no record begins here".to_owned()));
        };
        let end = offset + header.record_bytes();
        if end > self.file_bytes || !header.kind.allows(header.payload_bytes as usize) {
            let what = format!("record {} has an impossible length", header.id);
            return Ok(Err(what));
        }
        let (frame, entries) = (self.frame, &mut self.entries);
        if !self.window.is_whole(offset, &header, frame, entries)? {
            let what = format!("record {} does not match its checksum", header.id);
            return Ok(Err(what));
        }
        Ok(Ok(header))
    }

    /// Where the next whole record behind `offset` begins, and whether a header on the way there
    /// vouches for `offset`.
    fn next_record(&mut self, offset: u64) -> Result<Option<(u64, bool)>, StorageError> {
        let mut is_vouched = false;
        let mut at = offset;
        while at + RECORD_HEADER_BYTES as u64 <= self.file_bytes {
            if let Some(header) = self.window.stray_header(at, self.frame)? {
                is_vouched |= header.synced_to > offset;
                if at > offset && self.record_at(at)?.is_ok() {
                    return Ok(Some((at, is_vouched)));
                }
            }
            at += RECORD_ALIGNMENT;
        }
        Ok(None)
    }

    fn count(&mut self, header: &RecordHeader) {
        self.segment.records += 1;
        match header.kind {
            RecordKind::Seal => self.segment.is_sealed = true,
            RecordKind::Entry | RecordKind::Moved => {
                let first = self
                    .entries
                    .first()
                    .map_or(header.id, |entry| entry.head.id);
                let first = self.segment.entries.map_or(first, |(first, _)| first);
                self.segment.entries = Some((first, header.id));
            }
            _ => {}
        }
    }
}

/// What recovery found, and whether the entries can be read.
fn describe(disk: &Disk, recovered: &Recovered, report: &mut LogReport) {
    report.records = recovered.report.records;
    if let Some(torn) = &recovered.torn {
        let bytes = torn.end - torn.offset;
        report.add(Finding {
            path: recovered.tail.segment.path.clone(),
            offset: torn.offset,
            what: format!("a write of {bytes} bytes was never finished"),
            kind: FindingKind::TornTail,
        });
    }
    for (group, log) in &recovered.groups {
        let membership = match newest_membership(disk, *group, log) {
            Ok(membership) => membership,
            Err(error) => {
                report.add(Finding::from_error(
                    error,
                    &PathBuf::new(),
                    FindingKind::Log,
                ));
                None
            }
        };
        if *group == GROUP {
            report.hard_state = Some(log.promises.hard_state);
            report.refill_to = log.promises.refill_to;
            report.start = log.index.outline().start();
            report.last = log.last();
            report.entry_bytes = log.index.log_bytes();
            report.membership = membership;
        }
    }
}

/// Reads every entry of a group as readers do, with all its checksums; gives the newest membership.
fn newest_membership(
    disk: &Disk,
    group: GroupId,
    log: &GroupReplay,
) -> Result<Option<Entry>, StorageError> {
    let newest = log.index.memberships().last().copied();
    let end = log.last().index.next();
    let mut next = log.index.outline().first_index();
    let mut membership = None;
    while next < end {
        let mut entries = Vec::new();
        for stretch in log.index.plan(next..end, READ_BYTES)? {
            read_stretch(disk, group, &stretch, &mut entries)?;
        }
        let Some(last) = entries.last().map(Entry::index) else {
            return Err(damaged(
                &PathBuf::new(),
                0,
                format!("entry {next} is nowhere"),
            ));
        };
        next = last.next();
        let is_newest = |entry: &Entry| Some(entry.index()) == newest;
        membership = entries.into_iter().find(is_newest).or(membership);
    }
    Ok(membership)
}
