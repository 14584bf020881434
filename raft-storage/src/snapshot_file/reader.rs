//! Reads snapshot files. Every byte that is used is checked, and a damaged file names the place.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{SnapshotDescriptor, StorageError};

use super::content::SnapshotHasher;
use super::format::{
    Content, FIXED_HEADER_BYTES, FOOTER_BYTES, FRAME_HEADER_BYTES, FileHeader, FrameHeader,
    SnapshotOrigin, decode_footer,
};
use crate::errors::{damaged, io_error};
use crate::files::{Disk, DiskFile};

/// Where a part begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartPosition {
    /// Its number, from 0.
    pub(crate) part: u64,
    pub(crate) offset: u64,
}

/// The file itself.
#[derive(Debug)]
struct Source {
    file: DiskFile,
    bytes: u64,
}

impl Source {
    fn open(disk: &Disk, path: &Path) -> Result<Self, StorageError> {
        let file = disk.open_to_read(path)?;
        let bytes = file.length()?;
        Ok(Self { file, bytes })
    }

    fn read(&self, bytes: &mut [u8], offset: u64, inside: &str) -> Result<(), StorageError> {
        let read = self.file.read_at(bytes, offset);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.damaged(self.bytes, format!("it ends inside {inside}"))
            }
            _ => io_error("read", self.file.path(), &error),
        })
    }

    fn damaged(&self, offset: u64, what: impl Into<String>) -> StorageError {
        damaged(self.file.path(), offset, what)
    }
}

/// The front of a snapshot file, whole or not.
#[derive(Debug)]
pub(super) struct Front {
    source: Source,
    pub(super) header: FileHeader,
    /// What the checksums of the parts begin with.
    pub(super) seed: u32,
    /// Where the first part begins.
    pub(super) first: PartPosition,
}

impl Front {
    pub(super) fn open(disk: &Disk, path: &Path) -> Result<Self, StorageError> {
        let source = Source::open(disk, path)?;
        let mut fixed = [0; FIXED_HEADER_BYTES];
        source.read(&mut fixed, 0, "its header")?;
        let mut header = vec![0; FileHeader::length(&fixed, path)?];
        source.read(&mut header, 0, "its header")?;
        let offset = header.len() as u64;
        let (header, seed) = FileHeader::decode(&header, path)?;
        Ok(Self {
            source,
            header,
            seed,
            first: PartPosition { part: 0, offset },
        })
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.source.bytes
    }

    fn frame_header(&self, at: PartPosition) -> Result<FrameHeader, StorageError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.source.read(&mut bytes, at.offset, "a part")?;
        let header = FrameHeader::decode(&bytes, at.part);
        header.map_err(|what| self.source.damaged(at.offset, what))
    }

    /// Where the part behind `at` begins, which must end before `end`.
    fn position_behind(
        &self,
        at: PartPosition,
        length: usize,
        end: u64,
    ) -> Result<PartPosition, StorageError> {
        let next = PartPosition {
            part: at.part + 1,
            offset: at.offset + (FRAME_HEADER_BYTES + length) as u64,
        };
        if next.offset > end {
            let what = format!("there is no room for part {} and its length", at.part);
            return Err(self.source.damaged(at.offset, what));
        }
        Ok(next)
    }

    /// The whole part at `at`, which must end before `end`, and where the next one begins.
    pub(super) fn part(
        &self,
        at: PartPosition,
        end: u64,
    ) -> Result<(Bytes, PartPosition), StorageError> {
        let header = self.frame_header(at)?;
        let next = self.position_behind(at, header.length, end)?;
        let mut part = vec![0; header.length];
        let offset = at.offset + FRAME_HEADER_BYTES as u64;
        self.source.read(&mut part, offset, "a part")?;
        let checked = header.check(self.seed, &part);
        checked.map_err(|what| self.source.damaged(at.offset, what))?;
        Ok((part.into(), next))
    }
}

/// A complete snapshot file. Parts are read at positions, so it can be shared.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    front: Front,
    descriptor: SnapshotDescriptor,
    /// Where the parts end and the footer begins.
    end: u64,
}

impl SnapshotFile {
    /// Opens a file and checks its header and footer.
    pub(crate) fn open(disk: &Disk, path: &Path) -> Result<Self, StorageError> {
        let front = Front::open(disk, path)?;
        let end = front.file_bytes().saturating_sub(FOOTER_BYTES as u64);
        let source = &front.source;
        if end < front.first.offset {
            return Err(source.damaged(source.bytes, "it ends before its footer"));
        }
        let mut footer = [0; FOOTER_BYTES];
        source.read(&mut footer, end, "its footer")?;
        let content = decode_footer(front.seed, &footer)
            .ok_or_else(|| source.damaged(end, "its footer does not match its checksum"))?;
        let announced = front.header.announced;
        if announced.is_some_and(|announced| announced != content) {
            return Err(source.damaged(end, "its footer and its header differ"));
        }
        let Content { parts, bytes, hash } = content;
        let descriptor = SnapshotDescriptor {
            meta: front.header.meta.clone(),
            parts,
            bytes,
            hash,
        };
        Ok(Self {
            front,
            descriptor,
            end,
        })
    }

    pub(crate) fn descriptor(&self) -> &SnapshotDescriptor {
        &self.descriptor
    }

    pub(crate) fn origin(&self) -> SnapshotOrigin {
        self.front.header.origin
    }

    /// Where the first part begins.
    pub(crate) fn first(&self) -> PartPosition {
        self.front.first
    }

    /// The part at `at` and where the next one begins; none behind the last.
    pub(crate) fn part(
        &self,
        at: PartPosition,
    ) -> Result<Option<(Bytes, PartPosition)>, StorageError> {
        if at.part >= self.descriptor.parts {
            if at.offset != self.end {
                let what = format!("its {} parts do not end at its footer", at.part);
                return Err(self.front.source.damaged(at.offset, what));
            }
            return Ok(None);
        }
        self.front.part(at, self.end).map(Some)
    }

    /// Where a part begins, counted on from `from` where that is before it.
    pub(crate) fn find(&self, part: u64, from: PartPosition) -> Result<PartPosition, StorageError> {
        let parts = self.descriptor.parts;
        if part > parts {
            return Err(StorageError::SnapshotMismatch {
                path: self.front.source.file.path().display().to_string(),
                what: format!("it has {parts} parts, and part {part} was asked for"),
            });
        }
        let mut at = if from.part <= part {
            from
        } else {
            self.front.first
        };
        while at.part < part {
            // Its bytes are checked by whoever reads the part that is found.
            let header = self.front.frame_header(at)?;
            at = self.front.position_behind(at, header.length, self.end)?;
        }
        Ok(at)
    }
}

/// Reads a complete snapshot file. Each part is checked, and the whole content where all of it was
/// read in its order.
#[derive(Debug)]
pub struct SnapshotFileReader {
    file: Arc<SnapshotFile>,
    at: PartPosition,
    /// Of all parts before `at`; none once parts were left out.
    hasher: Option<SnapshotHasher>,
}

impl SnapshotFileReader {
    /// Opens a file and checks its header and footer.
    ///
    /// # Errors
    /// `Damaged` where it is no complete snapshot, `Foreign` where it is of a newer version, `Io`
    /// where the system refuses.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let file = SnapshotFile::open(&Disk::default(), path)?;
        Ok(Self {
            at: file.first(),
            file: Arc::new(file),
            hasher: Some(SnapshotHasher::new()),
        })
    }

    /// Which snapshot it is.
    #[must_use]
    pub fn descriptor(&self) -> &SnapshotDescriptor {
        self.file.descriptor()
    }

    /// Where the file was written.
    #[must_use]
    pub fn origin(&self) -> SnapshotOrigin {
        self.file.origin()
    }

    /// Goes to the part with this number, counted from 0. The content as a whole is not checked
    /// any more.
    ///
    /// # Errors
    /// `SnapshotMismatch` where there are fewer; otherwise as [`SnapshotFileReader::next_part`].
    pub fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        self.at = self.file.find(part, self.at)?;
        self.hasher = None;
        Ok(())
    }

    /// The next part; none after the last.
    ///
    /// # Errors
    /// `Damaged` where the file is not what was written, `Io` where the system refuses.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        if let Some((part, next)) = self.file.part(self.at)? {
            if let Some(hasher) = &mut self.hasher {
                hasher.add(&part);
            }
            self.at = next;
            return Ok(Some(part));
        }
        let expected = self.file.descriptor();
        let found = self
            .hasher
            .as_ref()
            .map(|hasher| hasher.descriptor(expected.meta.clone()));
        if found.is_some_and(|found| found != *expected) {
            let what = "its parts are not those that its footer names";
            return Err(self.file.front.source.damaged(self.file.end, what));
        }
        Ok(None)
    }
}

/// Reads a whole snapshot file and checks every byte of it: which snapshot it is, and where it was
/// written.
///
/// # Errors
/// `Damaged` where anything is not as it was written, `Foreign` where it is of a newer version,
/// `Io` where the system refuses.
pub fn verify(path: &Path) -> Result<(SnapshotDescriptor, SnapshotOrigin), StorageError> {
    let mut reader = SnapshotFileReader::open(path)?;
    while reader.next_part()?.is_some() {}
    Ok((reader.descriptor().clone(), reader.origin()))
}
