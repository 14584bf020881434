//! Reading one segment from its start to its end, in large pieces. What the records mean is not
//! known here.

use std::path::Path;

use raft_core::{LogId, StorageError};

use super::promises::PROMISES_BYTES_MAX;
use super::record::{
    Decoded, Frame, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordKind, RunLayout,
};
use super::run::{self, FRONT_BYTES, NoRun, RUN_BYTES_MAX, RunEntry};
use super::segment::{HEADER_BYTES, SealMark, SegmentHeader};
use crate::errors::{damaged, foreign, io_error};
use crate::files::DiskFile;

/// Bytes that are read from a file at once.
const WINDOW_BYTES: usize = 1 << 20;

/// The most bytes of a payload that a visitor sees: a hard state.
const PAYLOAD_PREFIX_BYTES: usize = PROMISES_BYTES_MAX;

/// A piece of a file in memory, which moves forward.
pub(super) struct Window<'a> {
    file: &'a DiskFile,
    file_bytes: u64,
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a DiskFile, file_bytes: u64) -> Self {
        Self {
            file,
            file_bytes,
            buffer: Vec::new(),
            start: 0,
        }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.file.path()
    }

    /// Bytes of the file, from `offset`. At most `WINDOW_BYTES`, and not beyond its end: the caller
    /// has checked both.
    pub(super) fn slice(&mut self, offset: u64, length: usize) -> Result<&[u8], StorageError> {
        let held = self.start..self.start + self.buffer.len() as u64;
        if offset < held.start || offset + length as u64 > held.end {
            let left = self.file_bytes.saturating_sub(offset);
            let fill = usize::try_from(left).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
            self.buffer.resize(fill.max(length), 0);
            self.start = offset;
            if let Err(error) = self.file.read_at(&mut self.buffer, offset) {
                self.buffer.clear();
                return Err(io_error("read", self.path(), &error));
            }
        }
        let from = usize::try_from(offset - self.start).expect("a window is smaller than memory");
        Ok(&self.buffer[from..from + length])
    }

    /// The checksum of a part of the file, of any length, which goes on from another one.
    fn checksum(&mut self, from: u32, offset: u64, length: u64) -> Result<u32, StorageError> {
        let mut sum = from;
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let piece = usize::try_from(end - at).map_or(WINDOW_BYTES, |n| n.min(WINDOW_BYTES));
            // The rest of what is held first, so that nothing is read twice.
            let held = (self.start + self.buffer.len() as u64).saturating_sub(at);
            let piece = match usize::try_from(held) {
                Ok(held) if held > 0 && at >= self.start => piece.min(held),
                _ => piece,
            };
            sum = crc32c::crc32c_append(sum, self.slice(at, piece)?);
            at += piece as u64;
        }
        Ok(sum)
    }

    /// Whether the payload of the record at `offset`, which ends in the file, matches its
    /// checksums. `entries` gets the entries that it has.
    pub(super) fn is_whole(
        &mut self,
        offset: u64,
        header: &RecordHeader,
        frame: Frame,
        entries: &mut Vec<RunEntry>,
    ) -> Result<bool, StorageError> {
        entries.clear();
        let payload = offset + RECORD_HEADER_BYTES as u64;
        let has_entries = header.kind.has_entries();
        if !has_entries || frame.layout == RunLayout::One {
            let length = u64::from(header.payload_bytes);
            if self.checksum(0, payload, length)? != header.payload_checksum {
                return Ok(false);
            }
        }
        if !has_entries {
            return Ok(true);
        }
        let bytes = header.payload_bytes as usize;
        let front = match bytes > RUN_BYTES_MAX {
            true => FRONT_BYTES,
            false => bytes,
        };
        let front = self.slice(payload, front)?;
        match run::read(header, frame.layout, front, entries) {
            Ok(()) => {}
            Err(NoRun::Damaged) => return Ok(false),
            Err(NoRun::Newer) => {
                let what = format!("has an entry of a newer version in record {}", header.id);
                return Err(foreign(self.path(), what));
            }
        }
        for RunEntry { head, offset } in &*entries {
            let before = head.checksum_before_payload();
            let at = payload + *offset as u64;
            if self.checksum(before, at, head.payload_bytes as u64)? != head.checksum {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The front of the payload of the record at `offset`; nothing of entries, whose payload may be
    /// behind the window by now.
    pub(super) fn prefix(
        &mut self,
        offset: u64,
        header: &RecordHeader,
    ) -> Result<&[u8], StorageError> {
        if header.kind.has_entries() {
            return Ok(&[]);
        }
        let length = (header.payload_bytes as usize).min(PAYLOAD_PREFIX_BYTES);
        self.slice(offset + RECORD_HEADER_BYTES as u64, length)
    }

    pub(super) fn record_header(
        &mut self,
        offset: u64,
        frame: Frame,
    ) -> Result<Option<RecordHeader>, StorageError> {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes.copy_from_slice(self.slice(offset, RECORD_HEADER_BYTES)?);
        match RecordHeader::decode(&bytes, frame) {
            Decoded::Record(header) => Ok(Some(header)),
            Decoded::Nothing => Ok(None),
            Decoded::Newer => {
                let what = format!("has a record of a newer version at offset {offset}");
                Err(foreign(self.path(), what))
            }
        }
    }

    /// The header of this segment at a place where none need be. The file may hold anything there,
    /// in which any 4 bytes may be a checksum by chance; so only one counts that can have been
    /// written at this place.
    pub(super) fn stray_header(
        &mut self,
        offset: u64,
        frame: Frame,
    ) -> Result<Option<RecordHeader>, StorageError> {
        let file_bytes = self.file_bytes;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes.copy_from_slice(self.slice(offset, RECORD_HEADER_BYTES)?);
        Ok(RecordHeader::decode_stray(
            &bytes, frame, offset, file_bytes,
        ))
    }
}

/// One whole record.
pub(super) struct Record<'a> {
    pub(super) offset: u64,
    pub(super) header: RecordHeader,
    /// What [`Window::prefix`] gives.
    pub(super) prefix: &'a [u8],
    /// Those in the payload.
    pub(super) entries: &'a [RunEntry],
}

impl Record<'_> {
    /// The entries of a record that has some, at least one.
    pub(super) fn run(&self) -> Result<&[RunEntry], String> {
        let id = self.header.id;
        match self.entries.last() {
            Some(last) if last.head.id == id => Ok(self.entries),
            last => {
                let last = last.map_or(LogId::ZERO, |last| last.head.id);
                Err(format!("record {id} ends with entry {last}"))
            }
        }
    }
}

/// Where the whole records of a segment end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScanEnd {
    /// With its seal, which ends at `end`.
    Sealed { mark: SealMark, end: u64 },
    /// At `offset`, where no whole record begins; `what` says what is there instead.
    Open { offset: u64, what: String },
}

/// Visits the whole records of a segment in order, up to the first place that has none.
pub(super) fn scan(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    mut visit: impl FnMut(Record<'_>) -> Result<(), String>,
) -> Result<ScanEnd, StorageError> {
    let frame = segment.frame();
    let mut entries = Vec::new();
    let mut offset = HEADER_BYTES as u64;
    loop {
        let open = |what: String| Ok(ScanEnd::Open { offset, what });
        if offset + RECORD_HEADER_BYTES as u64 > segment.file_bytes {
            return open("the file ends without a seal".to_owned());
        }
        let Some(header) = window.record_header(offset, frame)? else {
            return open("no record begins here".to_owned());
        };
        let end = offset + header.record_bytes();
        if end > segment.file_bytes || !header.kind.allows(header.payload_bytes as usize) {
            return open(format!("record {} has an impossible length", header.id));
        }
        if !window.is_whole(offset, &header, frame, &mut entries)? {
            return open(format!("record {} does not match its checksum", header.id));
        }
        let record = Record {
            offset,
            header,
            prefix: window.prefix(offset, &header)?,
            entries: &entries,
        };
        visit(record).map_err(|what| damaged(window.path(), offset, what))?;
        if header.kind == RecordKind::Seal {
            let (_, checksum) = header.encode(frame.seed);
            let mark = SealMark { offset, checksum };
            return Ok(ScanEnd::Sealed { mark, end });
        }
        offset = end;
    }
}

/// What stands behind the last whole record of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remains {
    /// Where there is a write that was not finished: the end of the last 8 bytes that are not all
    /// zeros.
    pub(super) torn_to: Option<u64>,
    /// A record that says that something at or behind the place in question had been synced.
    pub(super) witness: Option<Witness>,
}

/// A record that vouches for what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) offset: u64,
    pub(super) synced_to: u64,
}

/// Looks for anything at and behind `from`, where the whole records end.
pub(super) fn remains(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    from: u64,
) -> Result<Remains, StorageError> {
    let end = last_nonzero(window, from)?;
    let mut remains = Remains::default();
    if end <= from {
        return Ok(remains);
    }
    // Each write ends with 8 zeros, unless with the file.
    let length = RECORD_ALIGNMENT.min(segment.file_bytes.saturating_sub(from));
    let length = usize::try_from(length).expect("at most 8");
    let ends_here = window.slice(from, length)?.iter().all(|byte| *byte == 0);
    let mut is_torn = !(ends_here && segment.may_be_recycled());
    let frame = segment.frame();
    let last = segment
        .file_bytes
        .saturating_sub(RECORD_HEADER_BYTES as u64);
    let mut offset = from;
    while offset < end && offset <= last {
        // Only the header is asked: it is whole, so we wrote it, and it knows what was synced then.
        if let Some(header) = window.stray_header(offset, frame)? {
            is_torn = true;
            if header.synced_to > from {
                remains.witness = Some(Witness {
                    offset,
                    synced_to: header.synced_to,
                });
                break;
            }
        }
        offset += RECORD_ALIGNMENT;
    }
    remains.torn_to = is_torn.then_some(end);
    Ok(remains)
}

fn last_nonzero(window: &mut Window<'_>, from: u64) -> Result<u64, StorageError> {
    let mut end = 0;
    let mut at = from;
    while at < window.file_bytes {
        let left = usize::try_from(window.file_bytes - at).unwrap_or(WINDOW_BYTES);
        let bytes = window.slice(at, left.min(WINDOW_BYTES))?;
        if let Some(position) = bytes.iter().rposition(|byte| *byte != 0) {
            end = (at + position as u64 + 1).next_multiple_of(RECORD_ALIGNMENT);
        }
        at += bytes.len() as u64;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;

    #[test]
    fn checksums_over_many_windows_are_those_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..3 * WINDOW_BYTES + 17)
            .map(|i| (i % 251) as u8)
            .collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Disk::default().open(&path).unwrap();
        let mut window = Window::new(&file, bytes.len() as u64);
        window.slice(5, 10).unwrap();
        for (from, to) in [
            (0, bytes.len()),
            (9, 9),
            (100, 2 * WINDOW_BYTES + 1),
            (3, 50),
        ] {
            let sum = window.checksum(0, from as u64, (to - from) as u64).unwrap();
            assert_eq!(sum, crc32c::crc32c(&bytes[from..to]));
        }
        assert_eq!(
            last_nonzero(&mut window, 0).unwrap(),
            (bytes.len() as u64).next_multiple_of(8)
        );
    }
}
