//! The segment that is being written: records are staged in memory, written in few calls and synced
//! once. Also the birth of a segment. Which records a batch becomes is decided in `writer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft_core::{Entry, GroupId, LogId, StorageError};

use super::placed::PlacedRecord;
use super::promises::Promises;
use super::record::{
    RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEAL_BYTES, record_bytes,
};
use super::recovery::Tail;
use super::room::Room;
use super::run::{self, RUN_BYTES_MAX};
use super::segment::{HEADER_BYTES, SealMark, SegmentHeader, SegmentRef, VERSION, file_name};
use super::shared::Shared;
use super::staging::Staging;
use crate::errors::io_error;
use crate::files::{BLOCK_BYTES, Disk, DiskFile};
use crate::owner::WalOwner;

/// Bytes of entries that are written again at a time, at most, so that an old segment can go.
const MOVED_BYTES_MAX: u64 = 1 << 20;

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    file: DiskFile,
    segment: Arc<SegmentRef>,
    file_bytes: u64,
    /// Ends where the next record begins.
    staging: Staging,
    /// Up to here all is synced.
    synced: u64,
    /// Whether a durable record says so.
    witnessed: bool,
    /// Hard states in the log so far, modulo 2^16.
    states: u16,
}

impl ActiveSegment {
    /// The last segment of a log that was opened.
    pub(super) fn reopen(disk: &Disk, tail: &Tail) -> Result<Self, StorageError> {
        let path = &tail.segment.path;
        // One whose length is not that of whole blocks is of an older version.
        let has_blocks = tail.header.file_bytes.is_multiple_of(BLOCK_BYTES as u64);
        let file = match has_blocks {
            true => disk.open_direct(path)?,
            false => disk.open(path)?,
        };
        let file_bytes = tail.header.file_bytes;
        let found = disk.open_to_read(path)?;
        let staging = Staging::behind(tail.offset, file_bytes, &file, &found)?;
        Ok(Self {
            file,
            segment: Arc::clone(&tail.segment),
            file_bytes,
            staging,
            synced: tail.offset,
            witnessed: tail.witnessed,
            states: tail.states,
        })
    }

    pub(super) fn segment(&self) -> &Arc<SegmentRef> {
        &self.segment
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Hard states in the log so far, modulo 2^16.
    pub(super) fn states(&self) -> u16 {
        self.states
    }

    /// Whether a record with such a payload fits, and a seal behind it.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        self.has_room_for(record_bytes(payload_bytes))
    }

    /// Whether records of so many bytes fit, and a seal behind them.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.staging.end() + bytes + SEAL_BYTES <= self.file_bytes
    }

    /// Whether it is time to think of the next segment.
    pub(super) fn is_half_full(&self) -> bool {
        self.staging.end() > self.file_bytes / 2
    }

    /// How many of these entries the next record can have, those of one term that fit in a run and
    /// in the segment, and the bytes of its payload.
    pub(super) fn run_length(&self, entries: &[Entry]) -> (usize, usize) {
        let behind = self.staging.end() + RECORD_HEADER_BYTES as u64 + SEAL_BYTES;
        let room = self.file_bytes.saturating_sub(behind);
        let room = usize::try_from(room - room % RECORD_ALIGNMENT).unwrap_or(usize::MAX);
        run::run_length(entries, room)
    }

    /// Adds a record that has no entries. Where it begins in the file.
    pub(super) fn stage(&mut self, record: Staged, payload: &[u8]) -> Result<u64, StorageError> {
        let offset = self.staging.end();
        if record.kind == RecordKind::HardState && self.segment.frame.has_groups {
            self.states = self.states.wrapping_add(1);
        }
        let header = self.record_header(record, payload.len(), crc32c::crc32c(payload));
        let (header, _) = header.encode(self.segment.frame.seed);
        self.staging.push(&header, &self.file)?;
        self.staging.push(payload, &self.file)?;
        self.end_record(offset, payload.len())?;
        Ok(offset)
    }

    /// Adds a record with these entries, as many as [`ActiveSegment::run_length`] says, and with so
    /// many bytes of payload.
    pub(super) fn stage_run(
        &mut self,
        record: Staged,
        entries: &[Entry],
        payload_bytes: usize,
    ) -> Result<PlacedRecord, StorageError> {
        let offset = self.staging.end();
        let bytes = u32::try_from(payload_bytes).expect("far below 4 GiB");
        let placed = PlacedRecord::written(&self.segment, offset, bytes, entries);
        match entries {
            [entry] if payload_bytes > RUN_BYTES_MAX => self.stage_large(record, entry)?,
            _ => self.stage_together(record, entries, payload_bytes)?,
        }
        Ok(placed.expect("a segment has at most 4 GiB, or one entry"))
    }

    fn stage_large(&mut self, record: Staged, entry: &Entry) -> Result<(), StorageError> {
        let offset = self.staging.end();
        let front = run::front_alone(entry);
        let payload_bytes = run::bytes_alone(entry);
        let header = self.record_header(record, payload_bytes, crc32c::crc32c(&front));
        let (header, _) = header.encode(self.segment.frame.seed);
        for piece in [&header[..], &front, entry.payload()] {
            self.staging.push(piece, &self.file)?;
        }
        self.end_record(offset, payload_bytes)
    }

    /// The header of the record comes first, and is known last.
    fn stage_together(
        &mut self,
        record: Staged,
        entries: &[Entry],
        payload_bytes: usize,
    ) -> Result<(), StorageError> {
        let offset = self.staging.end();
        let bytes = usize::try_from(record_bytes(payload_bytes)).expect("a run fits in memory");
        let space = self.staging.reserve(bytes, &self.file)?;
        let checksum = run::write(&mut space[RECORD_HEADER_BYTES..], entries);
        let header = self.record_header(record, payload_bytes, checksum);
        let (header, _) = header.encode(self.segment.frame.seed);
        self.staging.patch(offset, &header);
        Ok(())
    }

    /// A record that began at `offset` has all of its payload.
    fn end_record(&mut self, offset: u64, payload_bytes: usize) -> Result<(), StorageError> {
        self.staging
            .pad(offset + record_bytes(payload_bytes), &self.file)
    }

    fn record_header(&self, record: Staged, payload_bytes: usize, checksum: u32) -> RecordHeader {
        RecordHeader {
            kind: record.kind,
            group: record.group,
            states: self.states,
            batch_end: record.batch_end,
            payload_bytes: u32::try_from(payload_bytes).expect("an entry is far below 4 GiB"),
            payload_checksum: checksum,
            id: record.id,
            synced_to: self.synced,
        }
    }

    /// Makes all that was staged durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.staging.write(&self.file)?;
        self.file.sync()?;
        self.synced = self.staging.end();
        self.witnessed = false;
        Ok(())
    }

    /// Whether nothing vouches yet for what was written last, and there is room for a record that
    /// does.
    pub(super) fn needs_witness(&self) -> bool {
        !self.witnessed && self.has_room(0)
    }

    /// Writes a record that vouches for all before it, where that is needed. `last` is the last
    /// entry of the group that was written last.
    pub(super) fn witness(&mut self, group: GroupId, last: LogId) -> Result<(), StorageError> {
        if !self.needs_witness() {
            return Ok(());
        }
        let witness = Staged {
            kind: RecordKind::Witness,
            group,
            id: last,
            batch_end: true,
        };
        self.stage(witness, &[])?;
        self.sync()?;
        self.witnessed = true;
        Ok(())
    }

    /// Ends the segment and makes it durable. `last` is the last entry of the group that was
    /// written last.
    pub(super) fn seal(&mut self, group: GroupId, last: LogId) -> Result<SealMark, StorageError> {
        let seal = Staged {
            kind: RecordKind::Seal,
            group,
            id: last,
            batch_end: false,
        };
        let header = self.record_header(seal, 0, 0);
        let (_, checksum) = header.encode(self.segment.frame.seed);
        let offset = self.stage(seal, &[])?;
        self.sync()?;
        Ok(SealMark { offset, checksum })
    }
}

/// A record to be written, but for its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    pub(super) kind: RecordKind,
    pub(super) group: GroupId,
    pub(super) id: LogId,
    pub(super) batch_end: bool,
}

/// What makes the segments of one log.
#[derive(Debug)]
pub(super) struct SegmentFactory {
    disk: Disk,
    dir: PathBuf,
    owner: WalOwner,
    segment_bytes: u64,
    room: Room,
    shared: Arc<Shared>,
    /// Whether damage may have taken groups that nothing names any more: once so, always so.
    groups_may_be_lost: bool,
}

/// What a new segment begins with.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    pub(super) sequence: u64,
    pub(super) previous: SealMark,
    /// In ascending order.
    pub(super) groups: Vec<GroupBeginning>,
    /// Whether no batch goes on in it.
    pub(super) batch_end: bool,
    /// Hard states in the log before it, modulo 2^16.
    pub(super) states: u16,
    /// Whether what stands in earlier segments counts no more.
    pub(super) begins_anew: bool,
}

/// What a segment says of a group when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupBeginning {
    pub(super) group: GroupId,
    pub(super) promises: Promises,
    pub(super) start: LogId,
    pub(super) last: LogId,
}

impl SegmentFactory {
    pub(super) fn new(
        disk: Disk,
        dir: &Path,
        owner: WalOwner,
        segment_bytes: u64,
        room: Room,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            room,
            disk,
            dir: dir.to_owned(),
            owner,
            segment_bytes,
            shared,
            groups_may_be_lost: false,
        }
    }

    /// From now on all segments say that damage may have taken groups.
    pub(super) fn groups_may_be_lost(&mut self) {
        self.groups_may_be_lost = true;
    }

    /// Whether they say so.
    pub(super) fn may_groups_be_lost(&self) -> bool {
        self.groups_may_be_lost
    }

    /// The most bytes of entries of groups that lag behind that are written again at a time: a
    /// small part of a segment.
    pub(super) fn moved_bytes_max(&self) -> u64 {
        MOVED_BYTES_MAX.min(self.segment_bytes / 4)
    }

    /// What makes room for the next segments.
    pub(super) fn room(&mut self) -> &mut Room {
        &mut self.room
    }

    /// When to look again whether there is room, though nothing happens.
    pub(super) fn look_after(&self) -> Option<Duration> {
        self.room.look_after()
    }

    /// A new segment, with room for records of `bytes` behind those that it begins with.
    /// It is whole and synced before it gets a segment's name, and the name is synced before it is
    /// used.
    pub(super) fn create(
        &mut self,
        beginning: &Beginning,
        bytes: u64,
    ) -> Result<ActiveSegment, StorageError> {
        let groups = beginning.groups.iter();
        let groups: u64 = groups
            .map(|group| record_bytes(group.promises.encode().1) + record_bytes(0))
            .sum();
        let begun = HEADER_BYTES as u64 + groups;
        // Where there are many groups, most of a segment is still for what comes behind them.
        let needed = (begun + bytes + SEAL_BYTES).next_multiple_of(4096);
        let wanted = (begun + 3 * groups).next_multiple_of(4096).max(needed);
        let (file, file_bytes) = self.room.take(needed, wanted)?;
        let path = self.dir.join(file_name(beginning.sequence));
        let salt = getrandom::u64()
            .map_err(|error| io_error("draw a salt for", &path, &std::io::Error::other(error)))?;
        let header = SegmentHeader {
            version: VERSION,
            owner: self.owner,
            sequence: beginning.sequence,
            salt,
            file_bytes,
            synced_to: begun,
            previous: beginning.previous,
            groups_may_be_lost: self.groups_may_be_lost,
            begins_anew: beginning.begins_anew,
        };
        let segment = SegmentRef {
            sequence: beginning.sequence,
            path: path.clone(),
            frame: header.frame(),
        };
        let mut active = ActiveSegment {
            staging: Staging::at_start_of(&file, file_bytes),
            file,
            segment: Arc::new(segment),
            file_bytes,
            synced: 0,
            witnessed: false,
            states: beginning.states,
        };
        active.staging.push(&header.encode(), &active.file)?;
        for known in &beginning.groups {
            let (promises, length) = known.promises.encode();
            let record = |kind, id| Staged {
                kind,
                group: known.group,
                id,
                batch_end: beginning.batch_end,
            };
            let state = record(RecordKind::HardState, known.last);
            active.stage(state, &promises[..length])?;
            active.stage(record(RecordKind::Start, known.start), &[])?;
        }
        active.sync()?;
        active.witnessed = true; // By the header page.
        self.disk.rename(&mut active.file, path)?;
        self.disk.sync_dir(&self.dir)?;
        self.shared
            .segment_bytes
            .fetch_add(file_bytes, Ordering::Relaxed);
        Ok(active)
    }
}
