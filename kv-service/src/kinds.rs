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
}

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
