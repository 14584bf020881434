//! The snapshots on a node's disk, and the transfer that has not reached its end.
//!
//! A snapshot here is an image of the machine beside the descriptor that real parts would have: how
//! it becomes bytes is tested where that is written. Transfers still go part by part.

use raft_core::{Envelope, LogId, SnapshotDescriptor};

use crate::machine::Machine;

/// Complete snapshots that are kept at most, the newest among them: an older one as long as it is
/// being read.
const KEPT_MAX: usize = 4;

/// A complete snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// What it stands for.
    pub descriptor: SnapshotDescriptor,
    /// The machine at its end.
    pub image: Box<dyn Machine>,
}

impl Snapshot {
    /// The same snapshot, for another disk.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            descriptor: self.descriptor.clone(),
            image: self.image.image(),
        }
    }
}

/// Parts of a snapshot that have arrived. They survive a crash, so that a transfer can be resumed.
#[derive(Debug)]
pub struct Partial {
    /// What is arriving.
    pub descriptor: SnapshotDescriptor,
    /// Parts that are there.
    pub parts: u64,
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
