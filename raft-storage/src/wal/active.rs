//! The segment that is being written: records are staged in memory, written in few calls and synced
//! once. Also the birth of a segment. Which records a batch becomes is decided in `writer`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use raft_core::{HardState, LogId, StorageError};

use super::record::{RecordHeader, RecordKind, SEAL_BYTES, record_bytes};
use super::recovery::Tail;
use super::segment::{HEADER_BYTES, SealMark, SegmentHeader, SegmentRef, file_name};
use super::shared::Shared;
use super::spare::SpareMaker;
use crate::errors::io_error;
use crate::files::{Disk, DiskFile};
use crate::hard_state::{HARD_STATE_BYTES, encode_hard_state};
use crate::owner::WalOwner;

/// Staged bytes that are written without waiting for the rest of a batch.
const STAGED_BYTES_MAX: usize = 1 << 20;
/// Payloads from this size on are written from where they are. Smaller ones are copied once, so
/// that many of them go with one call.
const DIRECT_BYTES_MIN: usize = 64 << 10;

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    file: DiskFile,
    segment: Arc<SegmentRef>,
    file_bytes: u64,
    /// Where the next record begins.
    end: u64,
    /// Where the staged bytes belong.
    written: u64,
    /// Up to here all is synced.
    synced: u64,
    /// Whether a durable record says so.
    witnessed: bool,
    staged: Vec<u8>,
}

impl ActiveSegment {
    /// The last segment of a log that was opened.
    pub(super) fn reopen(disk: &Disk, tail: &Tail) -> Result<Self, StorageError> {
        Ok(Self {
            file: disk.open(&tail.segment.path)?,
            segment: Arc::clone(&tail.segment),
            file_bytes: tail.file_bytes,
            end: tail.offset,
            written: tail.offset,
            synced: tail.offset,
            witnessed: tail.witnessed,
            staged: Vec::new(),
        })
    }

    pub(super) fn segment(&self) -> &Arc<SegmentRef> {
        &self.segment
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Whether a record with such a payload fits, and a seal behind it.
    pub(super) fn has_room(&self, payload_bytes: usize) -> bool {
        self.end + record_bytes(payload_bytes) + SEAL_BYTES <= self.file_bytes
    }

    /// Whether it is time to think of the next segment.
    pub(super) fn is_half_full(&self) -> bool {
        self.end > self.file_bytes / 2
    }

    /// Adds a record, whose payload comes in two parts. Where it begins in the file.
    pub(super) fn stage(
        &mut self,
        kind: RecordKind,
        id: LogId,
        batch_end: bool,
        payload: [&[u8]; 2],
    ) -> Result<u64, StorageError> {
        let offset = self.end;
        let (header, _) = self
            .record_header(kind, id, batch_end, payload)
            .encode(self.segment.seed);
        self.end += record_bytes(payload[0].len() + payload[1].len());
        self.staged.extend_from_slice(&header);
        self.staged.extend_from_slice(payload[0]);
        if payload[1].len() < DIRECT_BYTES_MIN {
            self.staged.extend_from_slice(payload[1]);
            let padded = usize::try_from(self.end - self.written).expect("staged in memory");
            self.staged.resize(padded, 0);
            if self.staged.len() >= STAGED_BYTES_MAX {
                self.write()?;
            }
        } else {
            self.write()?;
            self.file.write_at(payload[1], self.written)?;
            self.written = self.end; // The padding is zeros, which are there.
        }
        Ok(offset)
    }

    fn record_header(
        &self,
        kind: RecordKind,
        id: LogId,
        batch_end: bool,
        payload: [&[u8]; 2],
    ) -> RecordHeader {
        let payload_bytes = payload[0].len() + payload[1].len();
        let checksum = crc32c::crc32c(payload[0]);
        RecordHeader {
            kind,
            batch_end,
            payload_bytes: u32::try_from(payload_bytes).expect("an entry is far below 4 GiB"),
            payload_checksum: crc32c::crc32c_append(checksum, payload[1]),
            id,
            synced_to: self.synced,
        }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.file.write_at(&self.staged, self.written)?;
        self.written += self.staged.len() as u64;
        self.staged.clear();
        Ok(())
    }

    /// Makes all that was staged durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        if !self.staged.is_empty() {
            self.write()?;
        }
        self.file.sync()?;
        self.synced = self.end;
        self.witnessed = false;
        // One huge batch should not be remembered as memory for good.
        self.staged.shrink_to(2 * STAGED_BYTES_MAX);
        Ok(())
    }

    /// Writes a record that vouches for all before it, where there is room and none does so yet.
    pub(super) fn witness(&mut self, last: LogId) -> Result<(), StorageError> {
        if self.witnessed || !self.has_room(0) {
            return Ok(());
        }
        self.stage(RecordKind::Witness, last, true, [&[], &[]])?;
        self.sync()?;
        self.witnessed = true;
        Ok(())
    }

    /// Ends the segment and makes it durable.
    pub(super) fn seal(&mut self, last: LogId) -> Result<SealMark, StorageError> {
        let header = self.record_header(RecordKind::Seal, last, false, [&[], &[]]);
        let (_, checksum) = header.encode(self.segment.seed);
        let offset = self.stage(RecordKind::Seal, last, false, [&[], &[]])?;
        self.sync()?;
        Ok(SealMark { offset, checksum })
    }
}

/// What makes the segments of one log.
#[derive(Debug)]
pub(super) struct SegmentFactory {
    disk: Disk,
    dir: PathBuf,
    owner: WalOwner,
    segment_bytes: u64,
    spare: SpareMaker,
    shared: Arc<Shared>,
}

/// What a new segment begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) sequence: u64,
    pub(super) previous: SealMark,
    pub(super) hard_state: HardState,
    pub(super) start: LogId,
    pub(super) last: LogId,
    /// Whether no batch goes on in it.
    pub(super) batch_end: bool,
}

impl SegmentFactory {
    pub(super) fn new(
        disk: Disk,
        dir: &Path,
        owner: WalOwner,
        segment_bytes: u64,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            spare: SpareMaker::new(disk.clone(), dir, segment_bytes),
            disk,
            dir: dir.to_owned(),
            owner,
            segment_bytes,
            shared,
        }
    }

    /// Starts to make the file of the next segment, in the background.
    pub(super) fn prepare(&mut self) {
        if self.spare.prepare() {
            let bytes = self.segment_bytes;
            self.shared.spare_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// A new segment, with room for a record of `payload_bytes` behind those that it begins with.
    /// It is whole and synced before it gets a segment's name, and the name is synced before it is
    /// used.
    pub(super) fn create(
        &mut self,
        beginning: Beginning,
        payload_bytes: usize,
    ) -> Result<ActiveSegment, StorageError> {
        let begun = HEADER_BYTES as u64 + record_bytes(HARD_STATE_BYTES) + record_bytes(0);
        let needed = begun + record_bytes(payload_bytes) + SEAL_BYTES;
        let file_bytes = self.segment_bytes.max(needed.next_multiple_of(4096));
        let file = self.spare.take(file_bytes)?;
        let path = self.dir.join(file_name(beginning.sequence));
        let salt = getrandom::u64()
            .map_err(|error| io_error("draw a salt for", &path, &std::io::Error::other(error)))?;
        let header = SegmentHeader {
            begins_with_start: true,
            owner: self.owner,
            sequence: beginning.sequence,
            salt,
            file_bytes,
            synced_to: begun,
            previous: beginning.previous,
        };
        file.write_at(&header.encode(), 0)?;
        let segment = SegmentRef {
            sequence: beginning.sequence,
            path: path.clone(),
            seed: header.seed(),
        };
        let mut active = ActiveSegment {
            file,
            segment: Arc::new(segment),
            file_bytes,
            end: HEADER_BYTES as u64,
            written: HEADER_BYTES as u64,
            synced: 0,
            witnessed: false,
            staged: Vec::new(),
        };
        let hard_state = encode_hard_state(beginning.hard_state);
        active.stage(
            RecordKind::HardState,
            beginning.last,
            beginning.batch_end,
            [&hard_state, &[]],
        )?;
        active.stage(
            RecordKind::Start,
            beginning.start,
            beginning.batch_end,
            [&[], &[]],
        )?;
        active.sync()?;
        active.witnessed = true; // By the header page.
        self.disk.rename(&mut active.file, path)?;
        self.disk.sync_dir(&self.dir)?;
        self.shared.spare_bytes.store(0, Ordering::Relaxed);
        self.shared
            .segment_bytes
            .fetch_add(file_bytes, Ordering::Relaxed);
        Ok(active)
    }
}
