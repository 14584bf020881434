//! The store whose keys are all in memory, as its users see it: nothing in it can fail.

use std::ops::Deref;

use bytes::Bytes;
use kv_api::{CommandReply, KeyValue, QueryError, ScanPage, WriteOp};

use super::{KvStore, MemoryLive, Retention, ScanRange};
use crate::digest::Digest;

/// The store as it was when [`KvStore::view`] was called. Read-only; costs nothing to make, and
/// only what is written meanwhile to keep.
#[derive(Clone, Debug)]
pub struct KvView(KvStore);

impl Deref for KvView {
    type Target = KvStore;

    fn deref(&self) -> &KvStore {
        &self.0
    }
}

impl Default for KvStore {
    fn default() -> Self {
        Self::new()
    }
}

impl KvStore {
    /// An empty store at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::with_retention(Retention::default())
    }

    /// An empty store that keeps another amount of history. All replicas must be given the same.
    #[must_use]
    pub fn with_retention(retention: Retention) -> Self {
        Self::over(MemoryLive::default(), retention)
    }

    /// Keys that are there now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.0.len()
    }

    /// Whether no key is there now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.0.is_empty()
    }

    /// The store as it is now, unmoved by later writes.
    #[must_use]
    pub fn view(&self) -> KvView {
        KvView(self.clone())
    }

    /// Changes one key.
    ///
    /// The buffers of the operation are kept as they are. They must not be slices of something
    /// larger, such as a network frame, or a small value would keep all of that in memory:
    /// [`kv_api::decode`] copies every key and value into a buffer of its own.
    pub fn write(&mut self, op: WriteOp) -> CommandReply {
        let Ok(reply) = self.try_write(op);
        reply
    }

    /// One key at a revision (the newest where none is given), and the revision that was read at.
    ///
    /// # Errors
    /// When the revision was compacted away or does not exist yet.
    pub fn get(
        &self,
        key: &Bytes,
        revision: Option<u64>,
    ) -> Result<(Option<KeyValue>, u64), QueryError> {
        let Ok(answer) = self.try_get(key, revision);
        answer
    }

    /// A page of keys at a revision (the newest where none is given).
    ///
    /// # Errors
    /// When the revision was compacted away or does not exist yet.
    pub fn scan(&self, range: &ScanRange, revision: Option<u64>) -> Result<ScanPage, QueryError> {
        let Ok(answer) = self.try_scan(range, revision);
        answer
    }

    /// A hash of all that can be read. Takes time proportional to the store.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        let Ok(()) = self.add_to(&mut digest);
        digest.finish()
    }
}
