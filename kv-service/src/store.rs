//! The store of many versions: what the keys hold now, what they held before, and at which
//! revision.
//!
//! Knows no log, no sessions and no encoding, and not where the keys are kept: that is `live`. The
//! history, which is bounded, is in memory wherever the keys are.

pub(crate) mod history;
pub(crate) mod live;
mod memory;
pub(crate) mod retained;
mod scan;
pub(crate) mod version;

#[cfg(test)]
pub(crate) mod tests;

use std::ops::Bound;

use bytes::Bytes;
use kv_api::{
    CommandError, CommandReply, Expect, KeyValue, LimitExceeded, QueryError, ScanPage, WriteOp,
    Written, limits,
};

pub use history::Retention;
pub use live::MemoryLive;
pub use memory::KvView;
pub use scan::{SCAN_EXAMINED_MAX, ScanRange};

use crate::digest::Digest;
use history::History;
use live::Live;
use version::Version;

/// A key-value store that remembers. Every write that changes something makes a new revision.
#[derive(Clone, Debug)]
pub struct KvStore<L = MemoryLive> {
    revision: u64,
    live: L,
    history: History,
}

impl<L> KvStore<L> {
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

    /// How much history it keeps.
    pub(crate) fn retention(&self) -> Retention {
        self.history.retention()
    }

    /// What was superseded.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn history(&self) -> &History {
        &self.history
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
}

/// What is asked of a store, or why it refuses to say.
type Answer<T> = Result<T, QueryError>;

#[allow(
    private_bounds,
    reason = "whoever uses a store has one of the kinds that are there"
)]
impl<L: Live> KvStore<L> {
    /// An empty store, where `live` is empty.
    pub(crate) fn over(live: L, retention: Retention) -> Self {
        Self::with_history(0, live, History::new(retention))
    }

    /// A store that is put together of what another one had.
    pub(crate) fn with_history(revision: u64, live: L, history: History) -> Self {
        Self {
            revision,
            live,
            history,
        }
    }

    /// Keys that are there now.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn live_len(&self) -> u64 {
        self.live.len()
    }

    /// Where the keys are kept, to keep what was written.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn live_mut(&mut self) -> &mut L {
        &mut self.live
    }

    /// As [`KvStore::write`].
    pub(crate) fn try_write(&mut self, op: WriteOp) -> Result<CommandReply, L::Error> {
        if let Err(exceeded) = op.check_limits() {
            return Ok(CommandReply::Refused(CommandError::Limit(exceeded)));
        }
        let reply = match op {
            WriteOp::Put { key, value } => {
                let newest = self.live.get(&key)?;
                CommandReply::Written(self.set(key, value, newest))
            }
            WriteOp::Append { key, value } => self.append(key, &value)?,
            WriteOp::Delete { key } => self.delete(key)?,
            WriteOp::Cas { key, expect, value } => self.compare_and_set(key, &expect, value)?,
        };
        self.history.drop_compacted();
        Ok(reply)
    }

    /// As [`KvStore::get`].
    pub(crate) fn try_get(
        &self,
        key: &Bytes,
        revision: Option<u64>,
    ) -> Result<Answer<(Option<KeyValue>, u64)>, L::Error> {
        let revision = match self.readable(revision) {
            Ok(revision) => revision,
            Err(error) => return Ok(Err(error)),
        };
        let newest = self.live.get(key)?;
        let version = match &newest {
            Some(newest) if newest.mod_revision <= revision => Some(newest),
            Some(newest) => self.history.at(newest.previous, revision),
            None => self.history.at(self.history.of_deleted(key), revision),
        };
        let found = version.map(|version| version.to_key_value(key, false));
        Ok(Ok((found, revision)))
    }

    /// As [`KvStore::scan`].
    pub(crate) fn try_scan(
        &self,
        range: &ScanRange,
        revision: Option<u64>,
    ) -> Result<Answer<ScanPage>, L::Error> {
        let revision = match self.readable(revision) {
            Ok(revision) => revision,
            Err(error) => return Ok(Err(error)),
        };
        let newest = self.revision;
        scan::page(&self.live, &self.history, range, revision, newest).map(Ok)
    }

    pub(crate) fn add_to(&self, digest: &mut Digest) -> Result<(), L::Error> {
        digest.number(self.revision);
        digest.number(self.live.len());
        for listed in self.live.list(Bound::Unbounded) {
            let listed = listed?;
            digest.bytes(&listed.key);
            self.live.whole(listed)?.add_to(digest);
        }
        self.history.add_to(digest);
        Ok(())
    }

    fn set(&mut self, key: Bytes, value: Bytes, newest: Option<Version>) -> Written {
        let revision = self.next_revision();
        let value_bytes = value.len() as u64;
        let next = match &newest {
            Some(newest) => {
                let mut next = newest.next(revision, value);
                let superseded = newest.clone();
                next.previous = self.history.replaced(key.clone(), superseded, revision);
                next
            }
            None => Version::first(revision, value, self.history.created(&key)),
        };
        let version = next.version;
        self.live.put(key, next, newest.as_ref());
        Written {
            revision,
            version,
            value_bytes,
        }
    }

    fn append(&mut self, key: Bytes, tail: &[u8]) -> Result<CommandReply, L::Error> {
        let newest = self.live.get(&key)?;
        let head = newest.as_ref().map_or(&[][..], |newest| &newest.value);
        let bytes = head.len() + tail.len();
        if bytes > limits::VALUE_BYTES_MAX {
            return Ok(CommandReply::Refused(CommandError::Limit(LimitExceeded {
                what: "value".to_owned(),
                bytes: bytes as u64,
                min: 0,
                max: limits::VALUE_BYTES_MAX as u64,
            })));
        }
        let mut value = Vec::with_capacity(bytes);
        value.extend_from_slice(head);
        value.extend_from_slice(tail);
        Ok(CommandReply::Written(self.set(key, value.into(), newest)))
    }

    fn delete(&mut self, key: Bytes) -> Result<CommandReply, L::Error> {
        let Some(version) = self.live.get(&key)? else {
            return Ok(CommandReply::Deleted {
                existed: false,
                revision: self.revision,
            });
        };
        let revision = self.next_revision();
        self.live.remove(&key, &version);
        self.history.deleted(key, version, revision);
        Ok(CommandReply::Deleted {
            existed: true,
            revision,
        })
    }

    fn compare_and_set(
        &mut self,
        key: Bytes,
        expect: &Expect,
        value: Bytes,
    ) -> Result<CommandReply, L::Error> {
        let newest = self.live.get(&key)?;
        let version = newest.as_ref().map_or(0, |newest| newest.version);
        let as_expected = match expect {
            Expect::Absent => newest.is_none(),
            Expect::Value(expected) => newest
                .as_ref()
                .is_some_and(|newest| newest.value == expected),
            // An absent key has version 0, so expecting that is expecting absence.
            Expect::Version(expected) => version == *expected,
        };
        if as_expected {
            return Ok(CommandReply::Written(self.set(key, value, newest)));
        }
        Ok(CommandReply::Mismatch {
            version,
            revision: self.revision,
        })
    }
}

impl<L> KvStore<L> {
    /// Checks what the tests of other modules cannot see.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.history.check();
        assert!(self.oldest() <= self.revision);
    }
}
