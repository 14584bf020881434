//! The store of many versions: what the keys hold now, what they held before, and at which
//! revision.
//!
//! Knows no log, no sessions and no encoding. Everything is held in persistent maps, so a clone
//! costs nothing and shares all that it has in common with the original.

mod history;
pub(crate) mod retained;
mod scan;
mod version;

#[cfg(test)]
pub(crate) mod tests;

use std::ops::Deref;

use bytes::Bytes;
use imbl::OrdMap;
use kv_api::{
    CommandError, CommandReply, Expect, KeyValue, LimitExceeded, QueryError, ScanPage, WriteOp,
    Written, limits,
};

pub use history::Retention;
pub use scan::{SCAN_EXAMINED_MAX, ScanRange};

use crate::digest::Digest;
use history::History;
use version::Version;

/// A key-value store that remembers. Every write that changes something makes a new revision.
#[derive(Clone, Debug)]
pub struct KvStore {
    revision: u64,
    live: OrdMap<Bytes, Version>,
    history: History,
}

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
        Self {
            revision: 0,
            live: OrdMap::new(),
            history: History::new(retention),
        }
    }

    /// The newest revision: the number of writes that changed something.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that can be read at.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.history.oldest()
    }

    /// Keys that are there now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no key is there now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Superseded versions that are held.
    #[must_use]
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// Bytes of the keys and values of the superseded versions.
    #[must_use]
    pub fn history_bytes(&self) -> usize {
        self.history.bytes()
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
        if let Err(exceeded) = op.check_limits() {
            return CommandReply::Refused(CommandError::Limit(exceeded));
        }
        let reply = match op {
            WriteOp::Put { key, value } => CommandReply::Written(self.set(key, value)),
            WriteOp::Append { key, value } => self.append(key, &value),
            WriteOp::Delete { key } => self.delete(&key),
            WriteOp::Cas { key, expect, value } => self.compare_and_set(key, &expect, value),
        };
        self.history.drop_compacted();
        reply
    }

    /// Forgets what was superseded at or before a revision, which becomes the oldest that can be
    /// read at. Below the oldest there is nothing to do.
    pub fn compact(&mut self, revision: u64) -> CommandReply {
        if revision > self.revision {
            return CommandReply::Refused(CommandError::FutureRevision {
                revision,
                newest: self.revision,
            });
        }
        self.history.compact(revision);
        self.history.drop_compacted();
        CommandReply::Compacted {
            oldest: self.oldest(),
        }
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
        let revision = self.readable(revision)?;
        let version = match self.live.get(key) {
            Some(newest) if newest.mod_revision <= revision => Some(newest),
            Some(newest) => self.history.at(newest.previous, revision),
            None => self.history.at(self.history.of_deleted(key), revision),
        };
        let found = version.map(|version| version.to_key_value(key, false));
        Ok((found, revision))
    }

    /// A page of keys at a revision (the newest where none is given).
    ///
    /// # Errors
    /// When the revision was compacted away or does not exist yet.
    pub fn scan(&self, range: &ScanRange, revision: Option<u64>) -> Result<ScanPage, QueryError> {
        let revision = self.readable(revision)?;
        let newest = self.revision;
        Ok(scan::page(
            &self.live,
            &self.history,
            range,
            revision,
            newest,
        ))
    }

    /// A hash of all that can be read. Takes time proportional to the store.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        self.add_to(&mut digest);
        digest.finish()
    }

    pub(crate) fn add_to(&self, digest: &mut Digest) {
        digest.number(self.revision);
        digest.number(self.live.len() as u64);
        for (key, version) in &self.live {
            digest.bytes(key);
            version.add_to(digest);
        }
        self.history.add_to(digest);
    }

    fn readable(&self, revision: Option<u64>) -> Result<u64, QueryError> {
        let revision = revision.unwrap_or(self.revision);
        let oldest = self.oldest();
        if revision > self.revision {
            let newest = self.revision;
            Err(QueryError::FutureRevision { revision, newest })
        } else if revision < oldest {
            Err(QueryError::Compacted { revision, oldest })
        } else {
            Ok(revision)
        }
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn set(&mut self, key: Bytes, value: Bytes) -> Written {
        let revision = self.next_revision();
        let value_bytes = value.len() as u64;
        let version = if let Some(newest) = self.live.get_mut(&key) {
            let next = newest.next(revision, value);
            let version = next.version;
            let superseded = std::mem::replace(newest, next);
            newest.previous = self.history.replaced(key, superseded, revision);
            version
        } else {
            let previous = self.history.created(&key);
            let first = Version::first(revision, value, previous);
            self.live.insert(key, first);
            1
        };
        Written {
            revision,
            version,
            value_bytes,
        }
    }

    fn append(&mut self, key: Bytes, tail: &[u8]) -> CommandReply {
        let head = self.live.get(&key).map_or(&[][..], |newest| &newest.value);
        let bytes = head.len() + tail.len();
        if bytes > limits::VALUE_BYTES_MAX {
            return CommandReply::Refused(CommandError::Limit(LimitExceeded {
                what: "value".to_owned(),
                bytes: bytes as u64,
                min: 0,
                max: limits::VALUE_BYTES_MAX as u64,
            }));
        }
        let mut value = Vec::with_capacity(bytes);
        value.extend_from_slice(head);
        value.extend_from_slice(tail);
        CommandReply::Written(self.set(key, value.into()))
    }

    fn delete(&mut self, key: &Bytes) -> CommandReply {
        let Some((key, version)) = self.live.remove_with_key(key) else {
            return CommandReply::Deleted {
                existed: false,
                revision: self.revision,
            };
        };
        let revision = self.next_revision();
        self.history.deleted(key, version, revision);
        CommandReply::Deleted {
            existed: true,
            revision,
        }
    }

    fn compare_and_set(&mut self, key: Bytes, expect: &Expect, value: Bytes) -> CommandReply {
        let newest = self.live.get(&key);
        let version = newest.map_or(0, |newest| newest.version);
        let as_expected = match expect {
            Expect::Absent => newest.is_none(),
            Expect::Value(expected) => newest.is_some_and(|newest| newest.value == expected),
            // An absent key has version 0, so expecting that is expecting absence.
            Expect::Version(expected) => version == *expected,
        };
        if as_expected {
            return CommandReply::Written(self.set(key, value));
        }
        CommandReply::Mismatch {
            version,
            revision: self.revision,
        }
    }

    /// Checks what the tests of other modules cannot see.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.history.check();
        assert!(self.oldest() <= self.revision);
    }
}
