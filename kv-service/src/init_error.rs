//! Why a cluster, or a node of one, cannot be made or used on the disk.

use std::path::PathBuf;

use quic_link::CredentialsError;

use crate::certificates::CertificateError;
use crate::config::ConfigError;
use crate::files::FileError;
use crate::identity_error::IdentityError;
use crate::plan::PlanError;

/// A cluster cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is a cluster already.
    #[error(
        "{} exists already: {} has a cluster, which is never overwritten. \
         Choose another directory, or remove this one to give its data up",
        path.display(), dir.display()
    )]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        path: PathBuf,
    },
    /// There is something, but not a whole cluster.
    #[error(
        "{} exists, but {} does not: the cluster in {} is not whole. \
         Bring the missing file back, or choose another directory",
        path.display(), missing.display(), dir.display()
    )]
    NotWhole {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        path: PathBuf,
        /// What is missing.
        missing: PathBuf,
    },
    /// Another process is making a cluster at the same place.
    #[error("another process is making a cluster in {}", .0.display())]
    Locked(PathBuf),
    /// There is no cluster where one is needed.
    #[error(
        "there is no cluster in {}: it has neither admin.toml nor client.toml. Name the directory \
         that `flotilla init` or `flotilla cluster` made",
        .0.display()
    )]
    NoCluster(PathBuf),
    /// The authority's key is somewhere else.
    #[error(
        "{} is missing: certificates are signed with it. Do this where `flotilla init` or \
         `flotilla cluster` made the cluster, or bring the file back",
        .0.display()
    )]
    NoAuthority(PathBuf),
    /// The authority's key and certificate do not belong together, or to another cluster.
    #[error("{} cannot sign for the cluster: {source}", path.display())]
    WrongAuthority {
        /// The key.
        path: PathBuf,
        /// What is wrong with what it signed.
        source: CredentialsError,
    },
    /// A file cannot be what a cluster begins with.
    #[error("a cluster cannot begin with {}: {what}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The cluster that is there is not the one that was asked for.
    #[error("the cluster in {} was made with {what} {found}, not {asked}", dir.display())]
    Different {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        what: &'static str,
        /// What is there.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// A node's configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node's data directory is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl InitError {
    /// What the process ends with: 70 for damaged data, otherwise 2.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Identity(error) => error.exit_code(),
            _ => 2,
        }
    }
}
