//! The kinds of backends that a configuration chooses from, and the limits of clients: what the
//! file of a configuration and the configuration itself both speak of.

use serde::{Deserialize, Serialize};

/// Where a node keeps its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Segment files with checksums. Durable.
    #[default]
    File,
    /// RocksDB, in programs built with the feature `rocksdb`. Durable.
    Rocksdb,
    /// Memory: gone when the process ends. For tests and clusters inside one process.
    Memory,
}

impl StorageKind {
    /// The word for it in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Rocksdb => "rocksdb",
            Self::Memory => "memory",
        }
    }

    /// Whether what was acknowledged is still there after the process ended.
    #[must_use]
    pub fn is_durable(self) -> bool {
        self != Self::Memory
    }
}

/// Where the state machine keeps its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateKind {
    /// In memory, rebuilt from the log at every start.
    #[default]
    Memory,
    /// RocksDB, in programs built with the feature `rocksdb`: for more data than fits into memory.
    Rocksdb,
}

impl StateKind {
    /// The word for it in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Rocksdb => "rocksdb",
        }
    }
}

/// What a node keeps, and where. A data directory is used with the same from its first start on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// Where the log is kept.
    pub storage: StorageKind,
    /// Where the state is kept.
    pub state: StateKind,
}

impl Backends {
    /// Whether the two can be used together: a log that forgets under a state that does not would
    /// give places in the log a second time.
    #[must_use]
    pub fn fit(self) -> bool {
        self.storage.is_durable() || self.state == StateKind::Memory
    }
}

/// With the state in memory.
impl From<StorageKind> for Backends {
    fn from(storage: StorageKind) -> Self {
        Self {
            storage,
            state: StateKind::Memory,
        }
    }
}

/// The least that may be set for the cache of a state in RocksDB.
pub const STATE_CACHE_BYTES_MIN: usize = 8 << 20;

/// The most that may be set: more would be a limit in name only.
pub const STATE_CACHE_BYTES_MAX: usize = 64 << 30;

/// What is cached of a state in RocksDB where nothing else is said.
pub const STATE_CACHE_BYTES_DEFAULT: usize = 128 << 20;

/// What carries messages between the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// QUIC with certificates on both sides.
    #[default]
    Quic,
    /// Channels inside one process. Clients still come by QUIC.
    Memory,
}

impl TransportKind {
    /// The word for it in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Memory => "memory",
        }
    }
}

/// How a leader makes sure that it still leads before it answers a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadKind {
    /// It asks a majority. Needs no clock.
    #[default]
    Round,
    /// It holds a lease, and trusts that clocks run at about the same speed.
    Lease,
}

/// What clients may use of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Client connections at a time. Above it a new one is closed with a reason.
    pub connections_max: usize,
    /// Bytes of requests and reserved answers that one connection may have outstanding. Above it no
    /// further request is read from that connection.
    pub connection_bytes_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connection_bytes_max: 64 << 20,
        }
    }
}
