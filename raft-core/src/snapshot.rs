//! Snapshots: what identifies one, and the contract of the place where they are kept.
//!
//! The content of a snapshot is a sequence of *parts*, each made by the state machine and of a
//! bounded size. Parts are what is written, checked, sent, resumed at and restored, so nobody ever
//! holds more than a few of them.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::StorageError;
use crate::membership::Membership;
use crate::types::LogId;

/// The most bytes that one part may have. A state machine aims at far less; the room is for one
/// record of the largest size.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 4 << 20;

/// What a snapshot stands for: the log up to and including an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that is part of it.
    pub last: LogId,
    /// The membership as of that entry.
    pub membership: Membership,
}

/// A complete snapshot. Two with an equal descriptor have the same content, so a transfer of one
/// may be resumed with the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotDescriptor {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// How many parts it has.
    pub parts: u64,
    /// Bytes of all parts together.
    pub bytes: u64,
    /// A hash of the parts, their lengths and their order.
    pub hash: SnapshotHash,
}

/// A hash over the content of a snapshot, 128 bits. Against accidents, not against forgery. All
/// nodes compute the same one, because a transfer ends with its comparison: XXH3 over the length
/// (u32, little endian) and the bytes of each part (`raft_storage::snapshot_file::SnapshotHasher`).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotHash(pub u128);

impl fmt::Display for SnapshotHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SnapshotHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotHash({self})")
    }
}

impl fmt::Display for SnapshotDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, parts, bytes) = (self.meta.last, self.parts, self.bytes);
        write!(f, "snapshot up to {last} ({bytes} bytes in {parts} parts)")
    }
}

/// Where a node keeps its snapshots: beside its log, in the same directory, under the same owner.
///
/// 1. A snapshot is there from the return of [`SnapshotWriter::finish`] on, whole and durable, or
///    it is not there at all. A crash leaves nothing that a later start does not clear away, but
///    for a transfer that can be resumed.
/// 2. Every part that is read is checked; a damaged one is an error, never a shorter snapshot.
/// 3. The newest complete snapshot is kept, and older ones as long as a reader is open on them. The
///    newest is the one with the highest last index, also when an older one is finished later.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// The newest complete snapshot.
    fn latest(&self) -> Option<SnapshotDescriptor>;

    /// Begins a snapshot of this node's own state. Dropping the writer unfinished removes it.
    ///
    /// # Errors
    /// When the disk refuses.
    async fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Begins to receive a snapshot, or goes on where a transfer of the same snapshot ended: see
    /// [`SnapshotWriter::parts`]. A transfer of another one is forgotten. Dropping the writer keeps
    /// what came so far. One transfer at a time.
    ///
    /// # Errors
    /// When the disk refuses, or another transfer is under way.
    async fn receive(
        &self,
        descriptor: SnapshotDescriptor,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError>;

    /// Opens a complete snapshot whose last entry is `last`.
    ///
    /// # Errors
    /// [`StorageError::NoSnapshot`] when there is none, or not any more.
    async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError>;
}

/// Writes one snapshot.
#[async_trait]
pub trait SnapshotWriter: Send {
    /// Parts that are written.
    fn parts(&self) -> u64;

    /// Appends a part.
    ///
    /// # Errors
    /// When it is above [`SNAPSHOT_PART_BYTES_MAX`], or the disk refuses.
    async fn write(&mut self, part: Bytes) -> Result<(), StorageError>;

    /// Makes the snapshot durable and the newest one; one that is received is first compared with
    /// its descriptor. Older snapshots go.
    ///
    /// # Errors
    /// When the disk refuses, or what was received is not what was announced; then it is removed.
    async fn finish(self: Box<Self>) -> Result<SnapshotDescriptor, StorageError>;
}

/// Reads one snapshot from its first part to its last.
#[async_trait]
pub trait SnapshotReader: Send {
    /// Which one.
    fn descriptor(&self) -> &SnapshotDescriptor;

    /// Goes to the part with this number, counted from 0, whatever was read before.
    ///
    /// # Errors
    /// When there are fewer, or the disk refuses.
    async fn seek(&mut self, part: u64) -> Result<(), StorageError>;

    /// The next part; none after the last.
    ///
    /// # Errors
    /// When it is damaged, or the disk refuses.
    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError>;
}

/// Keeps no snapshots, for tests of what does not need them.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoSnapshots;

#[cfg(test)]
#[async_trait]
impl SnapshotStore for NoSnapshots {
    fn latest(&self) -> Option<SnapshotDescriptor> {
        None
    }

    async fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Err(StorageError::NoSnapshot(meta.last))
    }

    async fn receive(
        &self,
        descriptor: SnapshotDescriptor,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Err(StorageError::NoSnapshot(descriptor.meta.last))
    }

    async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError> {
        Err(StorageError::NoSnapshot(last))
    }
}
