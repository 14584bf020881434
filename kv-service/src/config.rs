//! The settings of one node: what `node.toml` says, checked, with paths made absolute to the file.
//!
//! The shape of the file itself lives in `config_file`; every key is described in
//! `docs/configuration.md`. Nothing is started and no other file is read here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use raft_core::{ClusterId, GroupId, Incarnation, Limits, Membership, NodeId, Timing};
use serde::{Deserialize, Serialize};

use crate::config_file::ConfigFile;

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

/// Where a node's certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePaths {
    /// The certificate of the cluster's own authority.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
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

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The file they came from; errors name it.
    pub path: PathBuf,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub id: NodeId,
    /// The UDP address to listen on, for peers and clients.
    pub listen: SocketAddr,
    /// `host:port` under which others reach it.
    pub advertise: String,
    /// The data directory.
    pub data: PathBuf,
    /// Its certificates.
    pub certificates: CertificatePaths,
    /// Where the log is kept.
    pub storage: StorageKind,
    /// Where the state is kept.
    pub state: StateKind,
    /// What carries messages between nodes.
    pub transport: TransportKind,
    /// The members that the cluster was made with.
    pub members: Membership,
    /// How time is measured.
    pub timing: Timing,
    /// Limits of the replication.
    pub limits: Limits,
    /// Limits of the clients.
    pub clients: ClientLimits,
}

impl NodeConfig {
    /// Reads and checks a `node.toml`.
    ///
    /// # Errors
    /// When the file cannot be read, is not valid TOML, has an unknown key, or a value is outside
    /// what is allowed. Each error names the file, and the key and value where there is one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Self::parse(path, &text)
    }

    /// The same for text that is already in memory; relative paths in it start at `path`'s directory.
    ///
    /// # Errors
    /// As [`NodeConfig::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: ConfigFile =
            toml::from_str(text).map_err(|error| ConfigError::syntax(path, text, &error))?;
        file.check(path)
    }

    /// The incarnation that the list of members gives this node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        // A configuration that was loaded has this node in its list.
        self.members
            .get(self.id)
            .map_or(Incarnation(0), |member| member.incarnation)
    }

    /// The part that the replication needs.
    #[must_use]
    pub fn raft(&self, seed: u64) -> raft_core::Config {
        raft_core::Config {
            cluster: self.cluster,
            group: GroupId(0),
            id: self.id,
            incarnation: self.incarnation(),
            members: self.members.clone(),
            seed,
            timing: self.timing,
            limits: self.limits,
        }
    }
}

/// Settings that cannot be used. All are errors of whoever wrote the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        message: String,
    },
    /// The text is not valid, a key is unknown or missing, or a value has the wrong type.
    #[error("{}:{line}: {message}, in `{excerpt}`", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// The text of that line.
        excerpt: String,
    },
    /// A value is outside what is allowed.
    #[error("{}: {key} is {value}, but must be {rule}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        rule: String,
    },
}

impl ConfigError {
    pub(crate) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Self::Syntax {
            path: path.to_owned(),
            line,
            message: error.message().replace('\n', ", "),
            excerpt: text.lines().nth(line - 1).unwrap_or("").trim().to_owned(),
        }
    }
}
