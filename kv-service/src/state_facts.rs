//! What is told of a state that is kept in RocksDB.

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateFacts {
    /// Keys that are there.
    pub keys: u64,
    /// The newest revision.
    pub revision: u64,
    /// Sessions of clients.
    pub sessions: u64,
}
