//! The log stores that the benches compare, and the entries that they give them.

use std::path::Path;

use bytes::Bytes;
use raft_core::{ClusterId, Entry, EntryKind, Incarnation, Index, LogId, LogStore, NodeId, Term};
use raft_storage::{MemoryLogStore, WalLogStore, WalOptions, WalOwner};

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);

/// The term of all entries that a bench makes itself.
const TERM: Term = Term(1);

/// Where the logs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In memory: what the protocol and the scheduler cost.
    Memory,
    /// In files, synced before every acknowledgement.
    File,
    /// In RocksDB, synced as well.
    #[cfg(feature = "rocksdb")]
    Rocks,
}

impl Storage {
    /// Those that are on a disk.
    pub const DURABLE: &[Self] = &[
        Self::File,
        #[cfg(feature = "rocksdb")]
        Self::Rocks,
    ];

    /// A short name for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File => "file",
            #[cfg(feature = "rocksdb")]
            Self::Rocks => "rocksdb",
        }
    }

    /// Opens the log of a node below `directory`, with the settings that a node has by default.
    ///
    /// # Panics
    /// When it cannot be opened: a bench has nothing to measure then.
    #[must_use]
    pub fn open(self, directory: &Path, node: NodeId) -> Box<dyn LogStore> {
        let owner = WalOwner {
            cluster: CLUSTER,
            node,
            incarnation: Incarnation(node.0),
        };
        let path = directory.join(node.to_string()).join("wal");
        match self {
            Self::Memory => Box::new(MemoryLogStore::new()),
            Self::File => {
                let opened = WalLogStore::open(&path, owner, WalOptions::default());
                Box::new(opened.expect("the log opens").0)
            }
            #[cfg(feature = "rocksdb")]
            Self::Rocks => {
                let opened = raft_storage::RocksLogStore::open(&path, owner);
                Box::new(opened.expect("the log opens"))
            }
        }
    }
}

/// The id of the entry at `index`, as [`entries`] makes it.
#[must_use]
pub fn id(index: u64) -> LogId {
    LogId::new(TERM, Index(index))
}

/// `count` entries behind `last` with the same payload.
#[must_use]
pub fn entries(last: u64, count: u64, payload: &Bytes) -> Vec<Entry> {
    (last + 1..=last + count)
        .map(|index| Entry::new(id(index), EntryKind::Command, payload.clone()))
        .collect()
}

/// Bytes that look like a user's and are no zeros.
#[must_use]
pub fn payload(bytes: usize) -> Bytes {
    (0..bytes)
        .map(|position| b'a' + u8::try_from(position % 26).expect("below 26"))
        .collect()
}
