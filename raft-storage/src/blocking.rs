//! Work that blocks its thread, kept off the threads of async tasks.

use raft_core::StorageError;

/// Runs `work` on a thread for blocking work. Where the caller gives up, it runs to its end.
///
/// # Errors
/// What `work` answers, or `Poisoned` where it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|ended| Err(StorageError::Poisoned(format!("file work {ended}"))))
}
