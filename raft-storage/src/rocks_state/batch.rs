//! What is written together.

use rocksdb::WriteBatch;

use super::view::user_key;

/// Changes of some keys. It is written with the place in the log that it comes from, or not at all:
/// see [`super::StateStore::write`].
#[derive(Default)]
pub struct StateBatch {
    writes: WriteBatch,
}

impl std::fmt::Debug for StateBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateBatch")
            .field("changes", &self.writes.len())
            .field("bytes", &self.bytes())
            .finish()
    }
}

impl StateBatch {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.writes.put(user_key(key), value);
    }

    /// Removes a key, whether or not it is there.
    pub fn delete(&mut self, key: &[u8]) {
        self.writes.delete(user_key(key));
    }

    /// Bytes that it takes in memory, and will take in the database until that is tidied up.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.writes.size_in_bytes()
    }

    pub(super) fn into_writes(self) -> WriteBatch {
        self.writes
    }
}
