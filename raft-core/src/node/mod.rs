//! The node: tasks that execute the protocol's effects.

/// Starts a node.
#[derive(Debug)]
pub struct Node;

/// A cloneable handle of a running node.
#[derive(Clone, Debug)]
pub struct RaftHandle;
