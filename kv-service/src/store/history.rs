//! Superseded versions: what reads at an older revision see, and how long they can.
//!
//! A version holds from its own revision until the one that replaced or deleted it. That end is
//! kept with it, so a deletion needs no tombstone: it is the end of the last version, and is
//! forgotten together with it. The versions stand in one queue in the order of their ends, which
//! drives both the default retention and compaction; a write touches nothing but the two ends of
//! that queue.
//!
//! The versions of one key form a chain through the queue, newest first, with shortcuts: see
//! [`jump_depth`]. So what a key held at a revision is found in a logarithmic number of steps,
//! however often it was written since.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use kv_api::limits::{HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX};

use super::version::{Place, Version};
use crate::digest::Digest;

/// Versions that one command drops at most on behalf of an earlier compaction. A compaction moves
/// the oldest readable revision at once and is paid off by the commands that follow, so that it
/// never holds up the apply task for long.
const COMPACTED_DROPS_PER_COMMAND: usize = 1024;

/// How much history is kept when nobody compacts. What can be read at a revision follows from it,
/// so it must be the same on every replica: it is a constant of the program, not a setting. Tests
/// and simulations take smaller numbers, for all their replicas alike.
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
pub(crate) struct History {
    retention: Retention,
    /// In the order of their ends. The place of the first one is `first`.
    versions: Vector<Superseded>,
    /// Places are counted from 1 and never used again.
    first: u64,
    /// The keys that are not there now, and the last version of each.
    deleted: OrdMap<Bytes, Place>,
    /// Of keys and values in `versions`. A key that has many versions counts with each.
    bytes: usize,
    /// The oldest revision that can be read at.
    oldest: u64,
}

/// A version that holds no more.
#[derive(Clone, Debug)]
pub(crate) struct Superseded {
    pub(crate) key: Bytes,
    pub(crate) version: Version,
    /// The first revision at which it does not hold any more.
    pub(crate) end: u64,
    /// Whether a deletion ended it.
    pub(crate) deleted: bool,
    /// Its distance from the end of its chain.
    depth: u64,
    /// The version of the same key at `jump_depth(depth)`.
    jump: Place,
}

impl Superseded {
    fn bytes(&self) -> usize {
        self.key.len() + self.version.value.len()
    }
}

impl History {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            versions: Vector::new(),
            first: 1,
            deleted: OrdMap::new(),
            bytes: 0,
            oldest: 0,
        }
    }

    /// How much it keeps.
    pub(crate) fn retention(&self) -> Retention {
        self.retention
    }

    /// The oldest revision that can be read at.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Versions held.
    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Bytes of their keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over a version that the write at revision `end` replaced. Answers its place.
    pub(crate) fn replaced(&mut self, key: Bytes, version: Version, end: u64) -> Place {
        let place = self.push(key, version, end, false);
        self.keep_within_retention();
        place
    }

    /// Takes over the last version of a key that was deleted at revision `end`.
    pub(crate) fn deleted(&mut self, key: Bytes, version: Version, end: u64) {
        let place = self.push(key.clone(), version, end, true);
        self.deleted.insert(key, place);
        self.keep_within_retention();
    }

    /// A key is created. Answers the last version from before, where it is still held.
    pub(crate) fn created(&mut self, key: &Bytes) -> Place {
        self.deleted.remove(key).unwrap_or(Place::NONE)
    }

    fn push(&mut self, key: Bytes, version: Version, end: u64, deleted: bool) -> Place {
        debug_assert!(version.mod_revision < end, "a version ends after it began");
        // Where the version before has been dropped, the chain ends here.
        let (depth, jump) = match self.held(version.previous) {
            None => (0, Place::NONE),
            Some(previous) if jump_depth(previous.depth + 1) == previous.depth => {
                (previous.depth + 1, version.previous)
            }
            // Two equal jumps become one, as far as they lead to what is held.
            Some(previous) => {
                let jump = self.held(previous.jump).map_or(Place::NONE, |it| it.jump);
                (previous.depth + 1, jump)
            }
        };
        let place = Place(self.first + self.versions.len() as u64);
        let superseded = Superseded {
            key,
            version,
            end,
            deleted,
            depth,
            jump,
        };
        self.bytes += superseded.bytes();
        self.versions.push_back(superseded);
        place
    }

    /// Lets go of the oldest versions where there is too much. Every version is dropped once, so
    /// the cost is spread over the writes that made them.
    fn keep_within_retention(&mut self) {
        while self.len() > self.retention.revisions_max || self.bytes > self.retention.bytes_max {
            self.drop_first();
        }
    }

    /// Makes `oldest` the oldest revision that can be read at. Never goes back.
    pub(crate) fn compact(&mut self, oldest: u64) {
        self.oldest = self.oldest.max(oldest);
    }

    /// Drops some of what compaction left behind. What can be read does not depend on how far this
    /// has got.
    pub(crate) fn drop_compacted(&mut self) {
        for _ in 0..COMPACTED_DROPS_PER_COMMAND {
            match self.versions.front() {
                Some(first) if first.end <= self.oldest => self.drop_first(),
                _ => return,
            }
        }
    }

    /// Drops the version that ended first. Whoever reads below its end might need it, so no such
    /// revision can be read at any more.
    fn drop_first(&mut self) {
        let dropped = self
            .versions
            .pop_front()
            .expect("only called while versions are held");
        let place = Place(self.first);
        self.first += 1;
        self.bytes -= dropped.bytes();
        self.oldest = self.oldest.max(dropped.end);
        // The key may have been created again, and even deleted again, since.
        if dropped.deleted && self.deleted.get(&dropped.key) == Some(&place) {
            self.deleted.remove(&dropped.key);
        }
    }

    /// A history of these versions, whose chains are made anew. They come in the order of their
    /// ends, each as key, version, end and whether a deletion ended it. Answers also where the last
    /// version of each key is.
    pub(crate) fn restored(
        retention: Retention,
        oldest: u64,
        versions: impl Iterator<Item = (Bytes, Version, u64, bool)>,
    ) -> (Self, BTreeMap<Bytes, Place>) {
        let mut history = Self::new(retention);
        history.oldest = oldest;
        let mut last = BTreeMap::new();
        for (key, mut version, end, deleted) in versions {
            version.previous = last.get(&key).copied().unwrap_or(Place::NONE);
            let place = history.push(key.clone(), version, end, deleted);
            if deleted {
                history.deleted.insert(key.clone(), place);
            } else {
                history.deleted.remove(&key);
            }
            last.insert(key, place);
        }
        (history, last)
    }

    /// A key that was restored with this history is there now.
    pub(crate) fn restored_live(&mut self, key: &Bytes) {
        self.deleted.remove(key);
    }

    /// How many of the versions held can still be read, and the bytes of their keys and values.
    /// Takes time proportional to what compaction has not got round to yet.
    pub(crate) fn readable(&self) -> (usize, usize) {
        let left = self.versions.iter();
        let left = left.take_while(|it| it.end <= self.oldest);
        let (count, bytes) =
            left.fold((0, 0), |(count, bytes), it| (count + 1, bytes + it.bytes()));
        (self.versions.len() - count, self.bytes - bytes)
    }

    /// The versions of a key that can still be read, newest first, from this one on.
    pub(crate) fn readable_chain(&self, mut place: Place) -> Vec<Place> {
        let mut chain = Vec::new();
        while let Some(it) = self.held(place).filter(|it| it.end > self.oldest) {
            chain.push(place);
            place = it.version.previous;
        }
        chain
    }

    /// The version at a place, where it is still held.
    pub(crate) fn held(&self, place: Place) -> Option<&Superseded> {
        let index = place.0.checked_sub(self.first)?;
        self.versions.get(usize::try_from(index).ok()?)
    }

    /// What a key held at a readable revision, given the newest of its superseded versions that
    /// comes into question.
    pub(crate) fn at(&self, mut place: Place, revision: u64) -> Option<&Version> {
        // A version that was dropped had ended by the oldest readable revision, so what is not held
        // did not hold at this revision.
        loop {
            let superseded = self.held(place)?;
            if superseded.version.mod_revision <= revision {
                return (revision < superseded.end).then_some(&superseded.version);
            }
            place = match self.held(superseded.jump) {
                Some(far) if far.version.mod_revision > revision => superseded.jump,
                _ => superseded.version.previous,
            };
        }
    }

    /// The last version of a key that is not there now.
    pub(crate) fn of_deleted(&self, key: &Bytes) -> Place {
        self.deleted.get(key).copied().unwrap_or(Place::NONE)
    }

    /// The keys from this one on, in order, that are not there now but were, each with its last
    /// version.
    pub(crate) fn deleted_from(&self, key: &Bytes) -> impl Iterator<Item = (&Bytes, &Place)> {
        self.deleted.range(key.clone()..)
    }

    /// The first key behind this one that is not there now but was, with its last version.
    pub(crate) fn deleted_behind(&self, key: &Bytes) -> Option<(&Bytes, &Place)> {
        let behind = (Bound::Excluded(key.clone()), Bound::Unbounded);
        self.deleted.range(behind).next()
    }

    /// The versions held, in the order of their ends.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Superseded> {
        self.versions.iter()
    }

    /// The keys that are not there now but were, each with its last version.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn deleted_keys(&self) -> &OrdMap<Bytes, Place> {
        &self.deleted
    }

    /// What `before`, an older clone of this history, held and this one does not.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn dropped_since<'a>(
        &self,
        before: &'a Self,
    ) -> impl Iterator<Item = &'a Superseded> + use<'a> {
        let dropped = self.first.saturating_sub(before.first);
        before.versions.iter().take(saturated(dropped))
    }

    /// What this history holds and `before`, an older clone of it, does not.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn added_since(&self, before: &Self) -> impl Iterator<Item = &Superseded> {
        let known = before.first + before.versions.len() as u64;
        let known = known.saturating_sub(self.first);
        let known = saturated(known).min(self.versions.len());
        self.versions.iter().skip(known)
    }

    /// Adds what can still be read, in order.
    pub(crate) fn add_to(&self, digest: &mut Digest) {
        digest.number(self.oldest);
        // What compaction has not got round to yet cannot be read and does not count.
        let readable = |superseded: &&Superseded| superseded.end > self.oldest;
        let count = self.versions.iter().filter(readable).count();
        digest.number(count as u64);
        for superseded in self.versions.iter().filter(readable) {
            digest.bytes(&superseded.key);
            digest.number(superseded.end);
            superseded.version.add_to(digest);
        }
    }
}

#[cfg(feature = "rocksdb")]
fn saturated(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// How deep in its chain the version lies that one at `depth` has a shortcut to.
///
/// A depth is written as a sum of numbers of the form 2^k - 1, the largest possible first; the
/// shortcut leads past the last of them. So from any version every older one is reached in a
/// logarithmic number of steps, while a new version finds its own shortcut in two (Myers, "An
/// applicative random-access stack", 1983).
fn jump_depth(depth: u64) -> u64 {
    let mut rest = depth;
    let mut last = 0;
    while rest > 0 {
        last = (1 << (rest + 1).ilog2()) - 1;
        rest -= last;
    }
    depth - last
}

#[cfg(test)]
impl History {
    /// Whether both hold the very same nodes, as after a clone.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        self.versions.ptr_eq(&other.versions) && self.deleted.ptr_eq(&other.deleted)
    }

    /// Checks that everything in here agrees.
    pub(crate) fn check(&self) {
        let bytes: usize = self.versions.iter().map(Superseded::bytes).sum();
        assert_eq!(bytes, self.bytes);
        assert!(self.len() <= self.retention.revisions_max);
        assert!(self.bytes <= self.retention.bytes_max);
        assert!(self.versions.iter().is_sorted_by_key(|it| it.end));
        for (key, place) in &self.deleted {
            let last = self.held(*place).expect("dropped together");
            assert!(last.deleted && last.key == *key);
        }
        for it in &self.versions {
            if let Some(jump) = self.held(it.jump) {
                assert_eq!(jump.key, it.key);
                assert_eq!(jump.depth, jump_depth(it.depth));
            }
            if let Some(previous) = self.held(it.version.previous) {
                assert_eq!((&previous.key, previous.depth + 1), (&it.key, it.depth));
                assert!(previous.end <= it.version.mod_revision);
            }
        }
    }

    /// Versions that are looked at to find what held at a revision.
    pub(crate) fn steps_to(&self, mut place: Place, revision: u64) -> usize {
        let mut steps = 0;
        while let Some(it) = self.held(place) {
            steps += 1;
            if it.version.mod_revision <= revision {
                break;
            }
            place = match self.held(it.jump) {
                Some(far) if far.version.mod_revision > revision => it.jump,
                _ => it.version.previous,
            };
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcuts_lead_past_the_last_term() {
        let expected = [0, 0, 1, 0, 3, 4, 3, 0, 7, 8, 7, 10, 11, 10, 7, 0, 15];
        let found: Vec<u64> = (0..17).map(jump_depth).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hot_key_is_searched_in_few_steps_also_when_its_beginning_is_gone() {
        let mut history = History::new(Retention {
            revisions_max: 50_000,
            bytes_max: usize::MAX,
        });
        let mut newest = Version::first(1, Bytes::new(), Place::NONE);
        for revision in 2..=80_000 {
            let next = newest.next(revision, Bytes::new());
            let superseded = std::mem::replace(&mut newest, next);
            newest.previous = history.replaced("hot".into(), superseded, revision);
        }
        assert_eq!(history.oldest(), 30_000);
        for revision in (30_000..80_000).step_by(97) {
            let found = history.at(newest.previous, revision).expect("readable");
            assert_eq!(found.mod_revision, revision);
            let steps = history.steps_to(newest.previous, revision);
            assert!(steps <= 50, "{steps} steps to {revision}");
        }
        history.check();
    }
}
