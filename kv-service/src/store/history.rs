//! Superseded versions: what reads at an older revision see, and how long they can.
//!
//! A version is valid from its own revision until the one that superseded or deleted it. That end is
//! kept with it, so a deletion needs no tombstone: it is the end of the last version, and is
//! forgotten together with it. A queue in the order of those ends drives both the default retention
//! and compaction.

use std::ops::Bound;

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use kv_api::limits::{HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX};

use super::version::Version;
use crate::digest::Digest;

/// Versions that one command drops at most on behalf of an earlier compaction. A compaction moves
/// the oldest readable revision at once and is paid off by the commands that follow, so that it
/// never holds up the apply task for long.
const COMPACTED_DROPS_PER_COMMAND: usize = 1024;

/// How much history is kept when nobody compacts. What can be read at a revision follows from it, so
/// it must be the same on every replica: it is a constant of the program, not a setting. Tests and
/// simulations take smaller numbers, for all their replicas alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Superseded versions.
    pub revisions_max: usize,
    /// Bytes of their keys and values.
    pub bytes_max: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            revisions_max: HISTORY_REVISIONS_MAX,
            bytes_max: HISTORY_BYTES_MAX,
        }
    }
}

/// The superseded versions of all keys. Cloning it is cheap: both containers are persistent.
#[derive(Clone, Debug)]
pub(super) struct History {
    retention: Retention,
    /// By key and the revision that wrote the version.
    versions: OrdMap<(Bytes, u64), Superseded>,
    /// The same versions in the order in which they ended.
    by_end: Vector<Ended>,
    /// Of keys and values in `versions`. A key that has many versions counts with each.
    bytes: usize,
    /// The oldest revision that can be read at.
    oldest: u64,
}

#[derive(Clone, Debug)]
struct Superseded {
    version: Version,
    /// The first revision at which it does not hold any more.
    end: u64,
}

#[derive(Clone, Debug)]
struct Ended {
    end: u64,
    key: Bytes,
    mod_revision: u64,
}

impl History {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            retention,
            versions: OrdMap::new(),
            by_end: Vector::new(),
            bytes: 0,
            oldest: 0,
        }
    }

    /// The oldest revision that can be read at.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Versions held.
    pub(super) fn len(&self) -> usize {
        self.by_end.len()
    }

    /// Bytes of their keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over a version that a write at revision `end` replaced or deleted, and lets go of the
    /// oldest ones where that is too much. Every version is dropped once, so the cost of dropping is
    /// spread over the writes that made them.
    pub(super) fn supersede(&mut self, key: &Bytes, version: Version, end: u64) {
        let mod_revision = version.mod_revision;
        debug_assert!(mod_revision < end, "a version ends after it began");
        self.bytes += key.len() + version.value.len();
        self.by_end.push_back(Ended {
            end,
            key: key.clone(),
            mod_revision,
        });
        let superseded = Superseded { version, end };
        self.versions
            .insert((key.clone(), mod_revision), superseded);
        while self.len() > self.retention.revisions_max || self.bytes > self.retention.bytes_max {
            self.drop_first();
        }
    }

    /// Makes `oldest` the oldest revision that can be read at. Never goes back.
    pub(super) fn compact(&mut self, oldest: u64) {
        self.oldest = self.oldest.max(oldest);
    }

    /// Drops some of what compaction left behind. What can be read does not depend on how far this
    /// has got.
    pub(super) fn drop_compacted(&mut self) {
        for _ in 0..COMPACTED_DROPS_PER_COMMAND {
            match self.by_end.front() {
                Some(first) if first.end <= self.oldest => self.drop_first(),
                _ => return,
            }
        }
    }

    /// Drops the version that ended first. Whoever reads below its end might need it, so no such
    /// revision can be read at any more.
    fn drop_first(&mut self) {
        let first = self
            .by_end
            .pop_front()
            .expect("only called while versions are held");
        let key_bytes = first.key.len();
        let dropped = self
            .versions
            .remove(&(first.key, first.mod_revision))
            .expect("the map and the queue hold the same versions");
        self.bytes -= key_bytes + dropped.version.value.len();
        self.oldest = self.oldest.max(first.end);
    }

    /// What the key held at a revision, where that was superseded since.
    pub(super) fn at(&self, key: &Bytes, revision: u64) -> Option<&Version> {
        // The last version that began at or before the revision; it may have ended before it too,
        // by a deletion.
        let ((found, _), superseded) = self.versions.get_prev(&(key.clone(), revision))?;
        (found == key && revision < superseded.end).then_some(&superseded.version)
    }

    /// The first key at or behind this one that has superseded versions.
    pub(super) fn key_from(&self, key: &Bytes) -> Option<&Bytes> {
        self.first_key(Bound::Included((key.clone(), 0)))
    }

    /// The first key behind this one that has superseded versions.
    pub(super) fn key_after(&self, key: &Bytes) -> Option<&Bytes> {
        self.first_key(Bound::Excluded((key.clone(), u64::MAX)))
    }

    fn first_key(&self, from: Bound<(Bytes, u64)>) -> Option<&Bytes> {
        let mut behind = self.versions.range((from, Bound::Unbounded));
        behind.next().map(|((key, _), _)| key)
    }

    /// Adds what can still be read, in order.
    pub(super) fn add_to(&self, digest: &mut Digest) {
        digest.number(self.oldest);
        // What compaction has not got round to yet cannot be read and does not count.
        let readable = |superseded: &&Superseded| superseded.end > self.oldest;
        let count = self.versions.values().filter(readable).count();
        digest.number(count as u64);
        for ((key, _), superseded) in &self.versions {
            if readable(&superseded) {
                digest.bytes(key);
                digest.number(superseded.end);
                superseded.version.add_to(digest);
            }
        }
    }

    /// Whether both hold the very same nodes, as after a clone.
    #[cfg(test)]
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        self.versions.ptr_eq(&other.versions)
    }

    /// Checks that queue, map and sum agree.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.versions.len(), self.by_end.len());
        let sizes = self
            .versions
            .iter()
            .map(|((key, _), superseded)| key.len() + superseded.version.value.len());
        assert_eq!(sizes.sum::<usize>(), self.bytes);
        assert!(self.len() <= self.retention.revisions_max);
        assert!(self.bytes <= self.retention.bytes_max);
        let ends: Vec<u64> = self.by_end.iter().map(|ended| ended.end).collect();
        assert!(ends.is_sorted(), "{ends:?}");
        for ended in &self.by_end {
            let place = (ended.key.clone(), ended.mod_revision);
            assert_eq!(self.versions.get(&place).map(|s| s.end), Some(ended.end));
        }
    }
}
