//! Reads entries from segment files, beside the writer. Every record is checked again: the disk may
//! have rotted since the log was opened.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Entry, GroupId, Index, LogId, LogReader, LogUsage, StorageError};

use super::index::{PlannedRun, Stretch};
use super::record::{Decoded, Frame, RECORD_HEADER_BYTES, RecordHeader, RunLayout};
use super::run::{self, RunEntry};
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
    let mut placed = Vec::new();
    for record in &stretch.records {
        let (ids, rest) = wanted.split_at(record.entries);
        wanted = rest;
        let inside = usize::try_from(record.offset - stretch.offset).expect("in the buffer");
        let record_bytes = buffer.slice(inside..);
        let place = RecordPlace {
            group,
            planned: record,
            frame: stretch.segment.frame,
        };
        take_record(&record_bytes, &place, ids, &mut placed, entries)
            .map_err(|what| damaged(path, record.offset, what))?;
    }
    Ok(())
}

/// What the record is that should be read.
struct RecordPlace<'a> {
    group: GroupId,
    planned: &'a PlannedRun,
    frame: Frame,
}

/// The entries with these ids, consecutive ones of the record at the front of `bytes`, or why it is
/// not the record that was written there, with these entries undamaged.
fn take_record(
    bytes: &Bytes,
    place: &RecordPlace<'_>,
    ids: &[LogId],
    placed: &mut Vec<RunEntry>,
    entries: &mut Vec<Entry>,
) -> Result<(), String> {
    let wanted = ids.last().copied().unwrap_or(LogId::ZERO);
    let head = bytes.first_chunk().ok_or("the record is cut short")?;
    let Decoded::Record(header) = RecordHeader::decode(head, place.frame) else {
        return Err(format!("entry {wanted} is not here any more"));
    };
    let RecordPlace { group, planned, .. } = place;
    if !header.kind.has_entries()
        || header.group != *group
        || header.payload_bytes != planned.payload_bytes
    {
        return Err(format!(
            "entry {wanted} of group {group} is not here, but {} of group {}",
            header.id, header.group
        ));
    }
    let end = RECORD_HEADER_BYTES + header.payload_bytes as usize;
    if bytes.len() < end {
        return Err("the record is cut short".to_owned());
    }
    let payload = bytes.slice(RECORD_HEADER_BYTES..end);
    let layout = place.frame.layout;
    let is_whole = layout != RunLayout::One || crc32c::crc32c(&payload) == header.payload_checksum;
    if !is_whole || run::read(&header, layout, &payload, placed).is_err() {
        return Err(format!("record {} does not match its checksum", header.id));
    }
    let first = placed
        .iter()
        .position(|entry| Some(&entry.head.id) == ids.first());
    let found = &placed[first.unwrap_or(placed.len())..];
    if found.len() < ids.len() {
        return Err(format!("entry {wanted} is not here, but {}", header.id));
    }
    for (id, RunEntry { head, offset }) in ids.iter().zip(found) {
        if head.id != *id {
            return Err(format!("entry {id} is not here, but {}", head.id));
        }
        let entry = payload.slice(*offset..*offset + head.payload_bytes);
        entries.push(Entry::from_head(head, entry).map_err(|error| error.to_string())?);
    }
    Ok(())
}
