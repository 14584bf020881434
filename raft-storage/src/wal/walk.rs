//! One segment of a damaged log from its beginning to its end: whole headers, and the gaps between
//! them. What the records mean is not known here.

use raft_core::StorageError;

use super::record::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use super::scan::Window;
use super::segment::{HEADER_BYTES, SegmentHeader};
use crate::files::DiskFile;

/// One piece of a segment.
pub(super) enum Found<'a> {
    /// A header that matches its checksum; the front of the payload where that does as well.
    Record {
        offset: u64,
        header: RecordHeader,
        payload: Option<&'a [u8]>,
    },
    /// Bytes that were synced, and that are no record any more.
    Gap { offset: u64, bytes: u64 },
    /// Bytes that nothing vouches for: a torn write, which nobody was promised anything of.
    Torn,
}

/// Visits the pieces of a segment in order, up to its seal or its end.
pub(super) fn walk(
    file: &DiskFile,
    segment: &SegmentHeader,
    is_last: bool,
    mut visit: impl FnMut(Found<'_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let length = file.length()?;
    let bytes = length.min(segment.file_bytes);
    // All of a segment was synced before there was another one.
    let vouched = if is_last {
        vouched_to(file, segment, bytes)?
    } else {
        u64::MAX
    };
    let unread = |offset: u64, to: u64| match offset < vouched {
        true => Found::Gap {
            offset,
            bytes: to - offset,
        },
        false => Found::Torn,
    };
    let mut window = Window::new(file, bytes);
    let mut entries = Vec::new();
    let mut at = HEADER_BYTES as u64;
    while let Some((offset, header)) = next_header(&mut window, segment, at, bytes)? {
        if offset > at {
            visit(unread(at, offset))?;
        }
        let is_whole = window.is_whole(offset, &header, segment.frame(), &mut entries)?;
        let prefix = window.prefix(offset, &header)?;
        visit(Found::Record {
            offset,
            header,
            payload: is_whole.then_some(prefix),
        })?;
        at = offset + header.record_bytes();
        if header.kind == RecordKind::Seal {
            return Ok(());
        }
    }
    if length < segment.file_bytes {
        // What was cut off may have vouched for itself.
        visit(Found::Gap {
            offset: at,
            bytes: segment.file_bytes.saturating_sub(at),
        })
    } else if at < bytes {
        visit(unread(at, bytes))
    } else {
        Ok(())
    }
}

/// Up to where the headers say that all was synced.
fn vouched_to(file: &DiskFile, segment: &SegmentHeader, bytes: u64) -> Result<u64, StorageError> {
    let mut window = Window::new(file, bytes);
    let mut vouched = segment.synced_to;
    let mut at = HEADER_BYTES as u64;
    while let Some((offset, header)) = next_header(&mut window, segment, at, bytes)? {
        vouched = vouched.max(header.synced_to);
        at = offset + header.record_bytes();
    }
    Ok(vouched)
}

/// The first header at or behind `from` whose record fits in the file.
fn next_header(
    window: &mut Window<'_>,
    segment: &SegmentHeader,
    from: u64,
    bytes: u64,
) -> Result<Option<(u64, RecordHeader)>, StorageError> {
    let mut at = from;
    while at + RECORD_HEADER_BYTES as u64 <= bytes {
        if let Some(header) = window.stray_header(at, segment.frame())? {
            return Ok(Some((at, header)));
        }
        at += RECORD_ALIGNMENT;
    }
    Ok(None)
}
