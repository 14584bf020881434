//! Why a data directory cannot be used.

use std::path::PathBuf;

use raft_core::NodeId;

use crate::files::FileError;
use crate::kinds::{StateKind, StorageKind};

/// A data directory that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It is missing or empty.
    #[error(
        "data directory {} {state}; it is formatted only by `flotilla init`, `flotilla cluster` \
         and `flotilla member`. Where node {node} has run before, its disk is lost: restore the \
         directory, or bring the node back with `flotilla member replace {node}`; the majority \
         goes on meanwhile", path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
        /// `does not exist` or `is empty`.
        state: &'static str,
        /// The node that wanted it.
        node: NodeId,
    },
    /// There is something in it, but not a node's data.
    #[error(
        "{} has files, but no identity.toml: it is not the data directory of a node", .0.display()
    )]
    NotADataDirectory(PathBuf),
    /// It has data already, and was to be formatted.
    #[error("{} is not empty; a data directory is formatted only once", .0.display())]
    NotEmpty(PathBuf),
    /// It belongs to somebody else.
    #[error(
        "data directory {} belongs to {what} {found}, not to {expected}; give the node its own",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// `cluster`, `node` or `incarnation`.
        what: &'static str,
        /// What the directory says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// Another process has it open.
    #[error("data directory {} is locked: another process runs this node", .0.display())]
    Locked(PathBuf),
    /// It was used with another kind of storage, whose log would be left behind.
    #[error(
        "data directory {} was used with storage {}, not {}: the node would forget what it \
         acknowledged", path.display(), .found.name(), .asked.name()
    )]
    OtherStorage {
        /// The directory.
        path: PathBuf,
        /// What it was used with.
        found: StorageKind,
        /// What was asked for.
        asked: StorageKind,
    },
    /// It was used with another kind of state.
    #[error(
        "data directory {} was used with state {}, not {}: a node is moved to another kind by \
         `flotilla member replace {node}` with an empty data directory",
        path.display(), .found.name(), .asked.name()
    )]
    OtherState {
        /// The directory.
        path: PathBuf,
        /// What it was used with.
        found: StateKind,
        /// What was asked for.
        asked: StateKind,
        /// The node.
        node: NodeId,
    },
    /// The node was started before, and its log is gone.
    #[error(
        "node {node} was started {boot} times before, but its log in {} is gone: it must not vote \
         or acknowledge as if it remembered. Restore the log, or bring the node back with \
         `flotilla member replace {node}`; the majority goes on meanwhile",
        path.display()
    )]
    LogLost {
        /// Where the log should be.
        path: PathBuf,
        /// The node.
        node: NodeId,
        /// How often it was started.
        boot: u64,
    },
    /// It holds a log, and was to be formatted for another incarnation.
    #[error(
        "data directory {} still holds data of node {node}: a member is replaced only where its \
         disk is lost. Start the node, or move the directory away",
        path.display()
    )]
    HoldsData {
        /// The directory.
        path: PathBuf,
        /// The node.
        node: NodeId,
    },
    /// A file in it is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl IdentityError {
    /// What the process ends with: 70 for damage, otherwise 2.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Damaged { .. } => 70,
            _ => 2,
        }
    }
}
