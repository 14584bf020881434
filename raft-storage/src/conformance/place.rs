//! Where a store under test keeps its log. What is asked of the store is in `cases`.

use raft_core::{LogStore, StorageError};

/// A place where one log is kept, for instance a temporary directory. Called to open the log; the
/// store that it returned before has been dropped by then, its readers too.
pub type Place = Box<dyn FnMut() -> Result<Box<dyn LogStore>, StorageError> + Send>;
