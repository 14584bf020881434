//! The snapshots of the labs' machines: parts that are there from the beginning, and all of them at
//! once.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{SnapshotReader, StateImage, StateMachineError};

/// Parts that are read in order.
pub(crate) struct Parts(VecDeque<Bytes>);

impl FromIterator<Bytes> for Parts {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}

#[async_trait]
impl StateImage for Parts {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
        Ok(self.0.pop_front())
    }
}

/// Reads a snapshot to its end.
pub(crate) async fn all_parts(
    mut from: Box<dyn SnapshotReader>,
) -> Result<Vec<Bytes>, StateMachineError> {
    let mut parts = Vec::new();
    let failed = |error: raft_core::StorageError| StateMachineError(error.to_string());
    while let Some(part) = from.next_part().await.map_err(failed)? {
        parts.push(part);
    }
    Ok(parts)
}
