//! The snapshots on a node's disk, and the transfer that has not reached its end.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::snapshot::{SnapshotHash, SnapshotReader};
use raft_core::{Envelope, LogId, SnapshotDescriptor, SnapshotMeta, StorageError};

use crate::machine::{Machine, run_now};

/// Complete snapshots that are kept at most, the newest among them: an older one as long as it is
/// being read.
const KEPT_MAX: usize = 4;

/// Steps that a transfer has at most for a small snapshot, so that transfers break in the middle.
const STEPS_MAX: u128 = 12;

/// A complete snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// What it stands for.
    pub descriptor: SnapshotDescriptor,
    /// What the machine makes of itself.
    parts: Arc<Vec<Bytes>>,
}

impl Snapshot {
    /// The snapshot of a machine as it is.
    ///
    /// # Errors
    /// When the machine cannot write itself down.
    pub fn of(machine: &dyn Machine, meta: SnapshotMeta) -> Result<Self, String> {
        let mut image = machine.image();
        let mut reader = run_now(image.snapshot()).map_err(|error| error.to_string())?;
        let mut parts = Vec::new();
        while let Some(part) = run_now(reader.next_part()).map_err(|error| error.to_string())? {
            parts.push(part);
        }
        let descriptor = SnapshotDescriptor {
            meta,
            parts: parts.len() as u64,
            bytes: parts.iter().map(|part| part.len() as u64).sum(),
            hash: SnapshotHash(hash(&parts)),
        };
        let parts = Arc::new(parts);
        Ok(Self { descriptor, parts })
    }

    /// The same snapshot, for another disk.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            descriptor: self.descriptor.clone(),
            parts: Arc::clone(&self.parts),
        }
    }

    /// The machine that this snapshot makes of an empty one.
    ///
    /// # Errors
    /// When the machine does not understand its own parts.
    pub fn restore(&self, mut empty: Box<dyn Machine>) -> Result<Box<dyn Machine>, String> {
        let reader = Box::new(PartReader {
            descriptor: self.descriptor.clone(),
            parts: Arc::clone(&self.parts),
            next: 0,
        });
        let restored = run_now(empty.restore(reader));
        restored.map_err(|error| error.to_string())?;
        Ok(empty)
    }

    /// Steps of a transfer.
    #[must_use]
    pub fn steps(&self) -> u64 {
        let few = u64::try_from(self.descriptor.hash.0 % STEPS_MAX);
        self.descriptor.parts.max(1 + few.expect("below STEPS_MAX"))
    }
}

/// FNV-1a over the parts and their lengths, 128 bits.
fn hash(parts: &[Bytes]) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_013b);
        }
    };
    for part in parts {
        mix(&(part.len() as u64).to_le_bytes());
        mix(part);
    }
    hash
}

#[derive(Debug)]
struct PartReader {
    descriptor: SnapshotDescriptor,
    parts: Arc<Vec<Bytes>>,
    next: usize,
}

#[async_trait]
impl SnapshotReader for PartReader {
    fn descriptor(&self) -> &SnapshotDescriptor {
        &self.descriptor
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        self.next = usize::try_from(part).unwrap_or(usize::MAX);
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        let part = self.parts.get(self.next).cloned();
        self.next = self.next.saturating_add(1);
        Ok(part)
    }
}

/// Parts of a snapshot that have arrived. They survive a crash, so that a transfer can be resumed.
#[derive(Debug)]
pub struct Partial {
    /// What is arriving.
    pub descriptor: SnapshotDescriptor,
    /// Steps that it has come.
    pub steps: u64,
}

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// What the receiver's protocol will be told.
    pub(crate) envelope: Envelope,
    /// What is sent.
    pub(crate) snapshot: Snapshot,
    /// The life of the sender that began it.
    pub(crate) from_life: u64,
    /// The life of the receiver that accepted it.
    pub(crate) to_life: Option<u64>,
    /// Tells transfers apart.
    pub(crate) number: u64,
}

/// See the file.
#[derive(Debug, Default)]
pub struct Shelf {
    /// By their ends, the newest last.
    complete: Vec<Snapshot>,
    /// See [`Partial`].
    pub partial: Option<Partial>,
}

impl Shelf {
    /// The newest complete snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<&Snapshot> {
        self.complete.last()
    }

    /// A complete snapshot by its end.
    #[must_use]
    pub fn open(&self, last: LogId) -> Option<&Snapshot> {
        let mut all = self.complete.iter();
        all.find(|snapshot| snapshot.descriptor.meta.last == last)
    }

    /// Takes in a complete snapshot. One that ends where another does replaces it.
    pub fn put(&mut self, snapshot: Snapshot) {
        let index = |snapshot: &Snapshot| snapshot.descriptor.meta.last.index;
        self.complete
            .retain(|known| index(known) != index(&snapshot));
        self.complete.push(snapshot);
        self.complete.sort_by_key(index);
        if self.complete.len() > KEPT_MAX {
            self.complete.remove(0);
        }
    }

    /// After a start nobody reads the older ones any more.
    pub fn keep_newest(&mut self) {
        let newest = self.complete.pop();
        self.complete.clear();
        self.complete.extend(newest);
    }
}
