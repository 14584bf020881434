//! Why a node did not start, and what a process ends with.

use std::path::PathBuf;

use quic_link::{BindError, CredentialsError, Identity};
use raft_core::{StopReason, StorageError, node};

use crate::files::FileError;
use crate::identity_error::IdentityError;

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Storage that this program was built without.
    #[error(
        "storage rocksdb is not in this program: build it with `--features rocksdb`, or choose \
         storage file"
    )]
    WithoutRocksdb,
    /// A state that this program was built without.
    #[error(
        "state rocksdb is not in this program: build it with `--features rocksdb`, or choose \
         state memory"
    )]
    StateWithoutRocksdb,
    /// A log that forgets under a state that does not.
    #[error(
        "storage memory forgets, and state rocksdb does not: choose state memory, or storage file"
    )]
    ForgetfulLog,
    /// Peers by memory, but alone in the process.
    #[error(
        "transport memory reaches only nodes of the same process, and the cluster of {} has \
         {members} members: use `flotilla cluster --transport memory`, or transport quic",
        path.display()
    )]
    Alone {
        /// The configuration.
        path: PathBuf,
        /// The members of its cluster.
        members: usize,
    },
    /// The data directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificates do not fit each other, or are not valid now.
    #[error("certificates of {}: {source}", path.display())]
    Credentials {
        /// The node's certificate.
        path: PathBuf,
        /// What is wrong.
        source: CredentialsError,
    },
    /// A certificate of somebody else.
    #[error("certificate {} is for {found}, but this node is {expected}", path.display())]
    WrongCertificate {
        /// The certificate.
        path: PathBuf,
        /// Whom it names.
        found: Identity,
        /// Who the configuration says we are.
        expected: Identity,
    },
    /// The log store.
    #[error("log store: {0}")]
    Storage(#[from] StorageError),
    /// The state.
    #[error("state: {0}")]
    State(StorageError),
    /// The address to listen on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The replication.
    #[error(transparent)]
    Node(#[from] node::StartError),
    /// A task of the start panicked: a bug of ours.
    #[error("starting failed: {0}")]
    Panicked(String),
}

impl StartError {
    /// What the process ends with: 2 where its owner can set it right, 70 where the data is damaged
    /// or the program is at fault.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Identity(error) => error.exit_code(),
            Self::Storage(error)
            | Self::State(error)
            | Self::Node(node::StartError::Storage(error)) => storage_exit_code(error),
            Self::Node(node::StartError::Config(_)) => 2,
            Self::Node(_) | Self::Panicked(_) => 70,
            _ => 2,
        }
    }
}

fn storage_exit_code(error: &StorageError) -> i32 {
    match error {
        StorageError::Foreign { .. } => 2,
        _ => 70,
    }
}

/// What a process ends with whose node stopped for this reason: 0 when it was asked to, otherwise
/// 70.
#[must_use]
pub fn stop_exit_code(reason: &StopReason) -> i32 {
    match reason {
        StopReason::Shutdown => 0,
        _ => 70,
    }
}
