//! What goes wrong with a state in RocksDB, and the thread that its work blocks.

use raft_core::{StateMachineError, StorageError};

use crate::image::ImageError;

/// What goes wrong in here. All of it stops the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DurableError {
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A call that makes no sense.
    #[error("{0}")]
    Call(String),
}

impl From<DurableError> for StateMachineError {
    fn from(error: DurableError) -> Self {
        Self(error.to_string())
    }
}

/// Runs work that blocks on a thread for that.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, StateMachineError> {
    let worked = tokio::task::spawn_blocking(work).await;
    let worked = worked.map_err(|ended| StateMachineError(format!("a state machine {ended}")))?;
    Ok(worked?)
}
