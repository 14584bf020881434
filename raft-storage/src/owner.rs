//! Whose log it is.

use std::path::Path;

use raft_core::{ClusterId, Incarnation, NodeId, StorageError};

use crate::errors::foreign;

/// Whose log it is. A directory that was written by another cluster, node or incarnation is
/// refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOwner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The incarnation that the node's directory was formatted with.
    pub incarnation: Incarnation,
}

impl WalOwner {
    /// Refuses what `self` wrote where it is not `expected`.
    pub(crate) fn check(&self, path: &Path, expected: &Self) -> Result<(), StorageError> {
        let what = if self.cluster != expected.cluster {
            format!("is of cluster {}, not {}", self.cluster, expected.cluster)
        } else if self.node != expected.node {
            format!("is of node {}, not {}", self.node, expected.node)
        } else if self.incarnation != expected.incarnation {
            format!(
                "is of incarnation {} of node {}, not {}: its data directory was replaced",
                self.incarnation, self.node, expected.incarnation
            )
        } else {
            return Ok(());
        };
        Err(foreign(path, what))
    }
}
