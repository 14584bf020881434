//! Reads entries from segment files, beside the writer. Every record is checked again: the disk may
//! have rotted since the log was opened.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Entry, Index, LogReader, LogUsage, StorageError};

use super::index::{Placed, Stretch};
use super::record::{Decoded, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use super::shared::Shared;
use crate::blocking::blocking;
use crate::errors::{damaged, io_error};
use crate::files::Disk;

/// The reader of a file log.
#[derive(Debug)]
pub(super) struct WalReader {
    pub(super) shared: Arc<Shared>,
}

#[async_trait]
impl LogReader for WalReader {
    async fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || read(&shared, range, bytes_max)).await
    }

    fn usage(&self) -> LogUsage {
        self.shared.usage()
    }
}

fn read(
    shared: &Shared,
    range: Range<Index>,
    bytes_max: usize,
) -> Result<Vec<Entry>, StorageError> {
    shared.poison.check()?;
    let stretches = shared.durable().index.plan(range.clone(), bytes_max)?;
    let count = stretches.iter().map(|stretch| stretch.entries.len()).sum();
    let mut entries = Vec::with_capacity(count);
    for stretch in &stretches {
        if let Err(error) = read_stretch(&shared.disk, stretch, &mut entries) {
            // What was compacted meanwhile may have no file any more.
            let again = shared.durable().index.plan(range, bytes_max);
            return again.and(Err(error));
        }
    }
    Ok(entries)
}

fn read_stretch(
    disk: &Disk,
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
    for placed in &stretch.entries {
        let from = usize::try_from(placed.offset - stretch.offset).expect("inside the buffer");
        let entry = check(&buffer.slice(from..), placed, stretch.segment.seed);
        entries.push(entry.map_err(|what| damaged(path, placed.offset, what))?);
    }
    Ok(())
}

/// The entry at the front of `bytes`, when it is the one that was placed there.
fn check(bytes: &Bytes, placed: &Placed, seed: u32) -> Result<Entry, String> {
    let (head, payload) = bytes
        .split_first_chunk::<RECORD_HEADER_BYTES>()
        .ok_or("the record is cut short")?;
    let Decoded::Record(header) = RecordHeader::decode(head, seed) else {
        return Err(format!("entry {} is not here any more", placed.id));
    };
    if header.kind != RecordKind::Entry
        || header.id != placed.id
        || header.payload_bytes != placed.encoded_bytes
    {
        return Err(format!(
            "entry {} is not here, but {}",
            placed.id, header.id
        ));
    }
    let length = header.payload_bytes as usize;
    let payload = payload.get(..length).ok_or("the record is cut short")?;
    if crc32c::crc32c(payload) != header.payload_checksum {
        return Err(format!("entry {} does not match its checksum", placed.id));
    }
    let mut encoded = bytes.slice(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length);
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
