//! Reads entries from segment files, beside the writer. Every record is checked again: the disk may
//! have rotted since the log was opened.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Entry, GroupId, Index, LogId, LogReader, LogUsage, StorageError};

use super::index::{Placed, PlannedRun, Stretch};
use super::record::{Decoded, Frame, RECORD_HEADER_BYTES, RecordHeader};
use super::run::headers_checksum;
use super::shared::{GroupLog, Shared};
use crate::blocking::blocking;
use crate::errors::{damaged, io_error};
use crate::files::Disk;

/// How often a read is tried whose entries were moved to another file meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// The reader of a file log.
#[derive(Debug)]
pub(super) struct WalReader {
    pub(super) shared: Arc<Shared>,
    pub(super) group: GroupId,
    pub(super) log: Arc<GroupLog>,
}

#[async_trait]
impl LogReader for WalReader {
    async fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let (shared, log) = (Arc::clone(&self.shared), Arc::clone(&self.log));
        let group = self.group;
        blocking(move || read(&shared, group, &log, range, bytes_max)).await
    }

    fn usage(&self) -> LogUsage {
        self.shared.usage(&self.log)
    }
}

/// Entries of one group, as [`LogReader::read`] promises them.
pub(super) fn read(
    shared: &Shared,
    group: GroupId,
    log: &GroupLog,
    range: Range<Index>,
    bytes_max: usize,
) -> Result<Vec<Entry>, StorageError> {
    shared.poison.check()?;
    let mut attempts = 0;
    loop {
        let stretches = log.durable().index.plan(range.clone(), bytes_max)?;
        let read = read_stretches(&shared.disk, group, &stretches);
        attempts += 1;
        // What was compacted or moved meanwhile may have no file any more.
        if read.is_err() && attempts < ATTEMPTS_MAX {
            let again = log.durable().index.plan(range.clone(), bytes_max)?;
            if again != stretches {
                continue;
            }
        }
        return read;
    }
}

fn read_stretches(
    disk: &Disk,
    group: GroupId,
    stretches: &[Stretch],
) -> Result<Vec<Entry>, StorageError> {
    let count = stretches.iter().map(|stretch| stretch.entries.len()).sum();
    let mut entries = Vec::with_capacity(count);
    for stretch in stretches {
        read_stretch(disk, group, stretch, &mut entries)?;
    }
    Ok(entries)
}

pub(super) fn read_stretch(
    disk: &Disk,
    group: GroupId,
    stretch: &Stretch,
    entries: &mut Vec<Entry>,
) -> Result<(), StorageError> {
    let path = &stretch.segment.path;
    let file = disk.open_to_read(path)?;
    let length = usize::try_from(stretch.bytes).expect("one record, or less than 4 MiB, fits");
    let mut buffer = vec![0; length];
    file.read_at(&mut buffer, stretch.offset)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(path, stretch.offset, "it ends here"),
            _ => io_error("read", path, &error),
        })?;
    let buffer = Bytes::from(buffer);
    let mut wanted = &stretch.entries[..];
    for record in &stretch.records {
        let (placed, rest) = wanted.split_at(record.entries);
        wanted = rest;
        let inside = |offset| usize::try_from(offset - stretch.offset).expect("in the buffer");
        let bytes = buffer.slice(inside(record.offset)..);
        check_record(&bytes, group, record, placed, stretch.segment.frame)
            .map_err(|what| damaged(path, record.offset, what))?;
        for placed in placed {
            let bytes = buffer.slice(inside(placed.offset)..);
            let entry = check_entry(bytes, placed);
            entries.push(entry.map_err(|what| damaged(path, placed.offset, what))?);
        }
    }
    Ok(())
}

/// Whether the record at the front of `bytes` is the one that was written there, with headers of
/// entries that are those of then.
fn check_record(
    bytes: &[u8],
    group: GroupId,
    record: &PlannedRun,
    placed: &[Placed],
    frame: Frame,
) -> Result<(), String> {
    let wanted = placed.last().map_or(LogId::ZERO, |placed| placed.id);
    let (head, payload) = bytes
        .split_first_chunk::<RECORD_HEADER_BYTES>()
        .ok_or("the record is cut short")?;
    let Decoded::Record(header) = RecordHeader::decode(head, frame) else {
        return Err(format!("entry {wanted} is not here any more"));
    };
    if !header.kind.has_entries()
        || header.group != group
        || header.payload_bytes != record.payload_bytes
        || header.id < wanted
    {
        return Err(format!(
            "entry {wanted} of group {group} is not here, but {} of group {}",
            header.id, header.group
        ));
    }
    let payload = payload
        .get(..header.payload_bytes as usize)
        .ok_or("the record is cut short")?;
    let checksum = if frame.has_runs {
        headers_checksum(payload)
    } else {
        Some(crc32c::crc32c(payload))
    };
    if checksum != Some(header.payload_checksum) {
        return Err(format!("record {} does not match its checksum", header.id));
    }
    Ok(())
}

/// The entry at the front of `bytes`, when it is the one that was placed there.
fn check_entry(bytes: Bytes, placed: &Placed) -> Result<Entry, String> {
    let length = placed.encoded_bytes as usize;
    if bytes.len() < length {
        return Err("the record is cut short".to_owned());
    }
    let mut encoded = bytes.slice(..length);
    let entry = Entry::decode(&mut encoded).map_err(|error| error.to_string())?;
    if entry.id() != placed.id || !encoded.is_empty() {
        return Err(format!(
            "entry {} is not here, but {}",
            placed.id,
            entry.id()
        ));
    }
    Ok(entry)
}
