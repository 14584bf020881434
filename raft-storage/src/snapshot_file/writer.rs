//! Writes snapshot files: under another name until they are complete and durable.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use raft_core::{LogId, SnapshotDescriptor, SnapshotMeta, StorageError};

use super::content::{SnapshotHasher, check_announced, check_part_size};
use super::format::{Content, FileHeader, FrameHeader, SnapshotOrigin, encode_footer};
use super::reader::Front;
use crate::files::{Disk, DiskFile, parent_dir};

/// Bytes between syncs, so that a snapshot never holds up the sync of a log on the same disk with
/// much dirty memory.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// Writes one snapshot file. Until it is finished it has another name; dropped before, it is
/// removed.
#[derive(Debug)]
pub struct SnapshotFileWriter {
    disk: Disk,
    file: DiskFile,
    /// The name that it gets.
    target: PathBuf,
    header: FileHeader,
    seed: u32,
    hasher: SnapshotHasher,
    /// Where the next part begins.
    end: u64,
    synced: u64,
    /// Whether what is there may be of use when it is dropped unfinished.
    is_resumable: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Failed,
    Finished,
}

impl SnapshotFileWriter {
    /// Begins a snapshot that will be at `path`. Until then it is at `path` with `.tmp` behind it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create(
        path: &Path,
        origin: SnapshotOrigin,
        meta: SnapshotMeta,
    ) -> Result<Self, StorageError> {
        let mut temporary = OsString::from(path);
        temporary.push(".tmp");
        let header = FileHeader {
            origin,
            meta,
            announced: None,
        };
        Self::begin(&Disk::default(), Path::new(&temporary), path, header)
    }

    /// Begins a snapshot at `temporary` that will be at `target`.
    pub(crate) fn create_in(
        disk: &Disk,
        temporary: &Path,
        target: &Path,
        origin: SnapshotOrigin,
        meta: SnapshotMeta,
    ) -> Result<Self, StorageError> {
        let header = FileHeader {
            origin,
            meta,
            announced: None,
        };
        Self::begin(disk, temporary, target, header)
    }

    /// Goes on with what is at `partial` where that is a part of the same snapshot; otherwise
    /// begins anew. Dropped unfinished, it stays there.
    pub(crate) fn resume_in(
        disk: &Disk,
        partial: &Path,
        target: &Path,
        origin: SnapshotOrigin,
        announced: &SnapshotDescriptor,
    ) -> Result<Self, StorageError> {
        let header = FileHeader {
            origin,
            meta: announced.meta.clone(),
            announced: Some(Content::of(announced)),
        };
        let resumed = Self::resume(disk, partial, target, &header)?;
        let mut writer = match resumed {
            Some(writer) => writer,
            None => Self::begin(disk, partial, target, header)?,
        };
        writer.is_resumable = true;
        Ok(writer)
    }

    fn begin(
        disk: &Disk,
        temporary: &Path,
        target: &Path,
        header: FileHeader,
    ) -> Result<Self, StorageError> {
        let (bytes, seed) = header.encode();
        let mut writer = Self {
            disk: disk.clone(),
            file: disk.create(temporary)?,
            target: target.to_owned(),
            header,
            seed,
            hasher: SnapshotHasher::new(),
            end: bytes.len() as u64,
            synced: 0,
            is_resumable: false,
            state: State::Open,
        };
        writer.attempt(|this| this.file.write_at(&bytes, 0))?;
        Ok(writer)
    }

    /// `None` where nothing at `partial` is of use.
    fn resume(
        disk: &Disk,
        partial: &Path,
        target: &Path,
        header: &FileHeader,
    ) -> Result<Option<Self>, StorageError> {
        if !disk.exists(partial)? {
            return Ok(None);
        }
        disk.settle(partial)?;
        let front = match Front::open(disk, partial) {
            Ok(front) if front.header == *header => front,
            Ok(_) | Err(StorageError::Damaged { .. } | StorageError::Foreign { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut hasher = SnapshotHasher::new();
        let mut at = front.first;
        loop {
            match front.part(at, front.file_bytes()) {
                Ok((part, next)) => {
                    hasher.add(&part);
                    at = next;
                }
                // The end, whole or torn: whatever is behind it was not counted on.
                Err(StorageError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        let file = disk.open(partial)?;
        if at.offset < front.file_bytes() {
            file.set_length(at.offset)?;
            file.sync()?;
        }
        Ok(Some(Self {
            disk: disk.clone(),
            file,
            target: target.to_owned(),
            header: front.header,
            seed: front.seed,
            hasher,
            end: at.offset,
            synced: at.offset,
            is_resumable: true,
            state: State::Open,
        }))
    }

    /// Parts that are written.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.hasher.parts()
    }

    /// Bytes of all parts that are written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// What the snapshot stands for.
    #[must_use]
    pub fn meta(&self) -> &SnapshotMeta {
        &self.header.meta
    }

    /// Appends a part.
    ///
    /// # Errors
    /// When it is above [`raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX`], or the disk refuses, now
    /// or before.
    pub fn write_part(&mut self, part: &[u8]) -> Result<(), StorageError> {
        self.attempt(|this| this.append(part))
    }

    fn append(&mut self, part: &[u8]) -> Result<(), StorageError> {
        check_part_size(&self.place(), part)?;
        self.check_room(part)?;
        let frame = FrameHeader::encode(self.seed, self.parts(), part);
        self.file.write_at(&frame, self.end)?;
        self.file.write_at(part, self.end + frame.len() as u64)?;
        self.end += (frame.len() + part.len()) as u64;
        self.hasher.add(part);
        if self.end - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }

    /// Refuses more than was announced before it takes room on the disk.
    fn check_room(&self, part: &[u8]) -> Result<(), StorageError> {
        let Some(announced) = self.header.announced else {
            return Ok(());
        };
        let is_more =
            self.parts() >= announced.parts || self.bytes() + part.len() as u64 > announced.bytes;
        if !is_more {
            return Ok(());
        }
        Err(StorageError::SnapshotMismatch {
            path: self.place(),
            what: format!(
                "it has more than {} parts or {} bytes",
                announced.parts, announced.bytes
            ),
        })
    }

    /// Makes the snapshot durable and gives it its name.
    ///
    /// # Errors
    /// When the disk refuses, now or before. What was announced and is something else is removed.
    pub fn finish(mut self) -> Result<SnapshotDescriptor, StorageError> {
        self.attempt(Self::complete)
    }

    /// Ends it as if it were finished, and removes it.
    ///
    /// # Errors
    /// When something failed before, or it is not what was announced.
    pub(crate) fn discard(mut self) -> Result<SnapshotDescriptor, StorageError> {
        let descriptor = self.attempt(|this| this.checked_descriptor())?;
        self.is_resumable = false;
        Ok(descriptor)
    }

    /// The last entry of what was begun at `partial` with `resume_in`; none where nothing was, or
    /// nothing of use.
    pub(crate) fn resumable(
        disk: &Disk,
        partial: &Path,
        origin: SnapshotOrigin,
    ) -> Result<Option<LogId>, StorageError> {
        if !disk.exists(partial)? {
            return Ok(None);
        }
        match Front::open(disk, partial) {
            Ok(front) if front.header.origin == origin && front.header.announced.is_some() => {
                Ok(Some(front.header.meta.last))
            }
            Ok(_) | Err(StorageError::Damaged { .. } | StorageError::Foreign { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn checked_descriptor(&self) -> Result<SnapshotDescriptor, StorageError> {
        let descriptor = self.hasher.descriptor(self.header.meta.clone());
        if let Some(Content { parts, bytes, hash }) = self.header.announced {
            let announced = SnapshotDescriptor {
                meta: self.header.meta.clone(),
                parts,
                bytes,
                hash,
            };
            check_announced(&self.place(), &announced, &descriptor)?;
        }
        Ok(descriptor)
    }

    fn complete(&mut self) -> Result<SnapshotDescriptor, StorageError> {
        let descriptor = self.checked_descriptor()?;
        let footer = encode_footer(self.seed, Content::of(&descriptor));
        self.file.write_at(&footer, self.end)?;
        self.file.sync()?;
        self.disk.rename(&mut self.file, self.target.clone())?;
        self.state = State::Finished;
        self.disk.sync_dir(parent_dir(&self.target))?;
        Ok(descriptor)
    }

    fn place(&self) -> String {
        self.file.path().display().to_string()
    }

    /// After a failure nobody knows what is on the disk, so nothing is tried again.
    fn attempt<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if self.state != State::Open {
            let what = format!("writing {} failed before", self.place());
            return Err(StorageError::Poisoned(what));
        }
        let done = operation(self);
        if done.is_err() && self.state == State::Open {
            self.state = State::Failed;
        }
        done
    }
}

impl Drop for SnapshotFileWriter {
    fn drop(&mut self) {
        let is_of_use = self.is_resumable && self.state == State::Open;
        if self.state == State::Finished || is_of_use {
            return;
        }
        if let Err(error) = self.disk.remove(self.file.path()) {
            // The next start of the node clears it away.
            tracing::warn!(%error, "an unfinished snapshot could not be removed");
        }
    }
}
