//! The data directory of a node that does not run, looked at without changing anything.

use std::path::Path;

use raft_core::NodeId;

use crate::config::Backends;
use crate::files::{SharedLock, share_lock};
use crate::identity::{LOCK, Owner, read_boot, read_identity, read_reset_key, require_formatted};
use crate::identity_error::IdentityError;

/// The directory of a node that does not run, looked at without changing anything.
pub(crate) struct StoppedDirectory {
    /// Whose it is, and what it was used with.
    pub(crate) identity: Result<(Owner, Backends), IdentityError>,
    /// Starts so far.
    pub(crate) boot: Result<u64, IdentityError>,
    /// Whether the key of stateless resets is there.
    pub(crate) reset_key: Result<(), IdentityError>,
    /// Keeps the node from being started meanwhile.
    _lock: SharedLock,
}

impl StoppedDirectory {
    /// Looks at the directory of a node.
    ///
    /// # Errors
    /// When it is missing, empty, no data directory, or a process has it open.
    pub(crate) fn open(path: &Path, node: NodeId) -> Result<Self, IdentityError> {
        require_formatted(path, node)?;
        let lock = share_lock(&path.join(LOCK))?;
        if matches!(lock, SharedLock::Taken) {
            return Err(IdentityError::Locked(path.to_owned()));
        }
        Ok(Self {
            identity: read_identity(path).and_then(|identity| identity.owner(path)),
            boot: read_boot(path),
            reset_key: read_reset_key(path).map(|_| ()),
            _lock: lock,
        })
    }
}
