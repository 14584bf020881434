//! All that a store holds, version by version in the order of the keys, and the way back: what an
//! image is made of. Its bytes are the business of `image`.
//!
//! Only what can be read goes out. How far compaction has got is not part of it, nor are places and
//! shortcuts, which are made anew: stores that hold the same give the same versions, whatever led
//! there.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;
use kv_api::{LimitExceeded, limits};

use super::KvStore;
use super::history::{History, Retention};
use super::version::{Place, Version};

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retained {
    /// The key.
    pub(crate) key: Bytes,
    /// The revision that created the key.
    pub(crate) create_revision: u64,
    /// The revision that wrote this version.
    pub(crate) mod_revision: u64,
    /// Writes since the key was created, 1 for the first.
    pub(crate) version: u64,
    /// The value.
    pub(crate) value: Bytes,
    /// Whether it still holds.
    pub(crate) fate: Fate,
}

/// What became of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is what the key holds now.
    Live,
    /// The next version of the key came at this revision.
    Replaced(u64),
    /// The key was deleted at this revision.
    Deleted(u64),
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreCounts {
    /// The newest revision.
    pub(crate) revision: u64,
    /// The oldest revision that can be read at.
    pub(crate) oldest: u64,
    /// Keys that are there now.
    pub(crate) live: u64,
    /// Superseded versions that can be read.
    pub(crate) superseded: u64,
    /// Bytes of the keys and values of those.
    pub(crate) superseded_bytes: u64,
}

impl KvStore {
    /// How much of everything there is to be read.
    pub(crate) fn counts(&self) -> StoreCounts {
        let (superseded, superseded_bytes) = self.history.readable();
        StoreCounts {
            revision: self.revision,
            oldest: self.oldest(),
            live: self.live.len() as u64,
            superseded: superseded as u64,
            superseded_bytes: superseded_bytes as u64,
        }
    }

    /// How much history it keeps.
    pub(crate) fn retention(&self) -> Retention {
        self.history.retention()
    }
}

/// Goes through a store: the keys in order, the versions of each from the oldest to the newest.
#[derive(Debug)]
pub(crate) struct RetainedVersions {
    store: KvStore,
    /// The key that was looked at last.
    key: Option<Bytes>,
    /// Its superseded versions that are still to come, the next one last.
    superseded: Vec<Place>,
    /// What it holds now, where that is still to come.
    live: Option<Version>,
}

impl RetainedVersions {
    /// Starts at the first key.
    pub(crate) fn new(store: KvStore) -> Self {
        Self {
            store,
            key: None,
            superseded: Vec::new(),
            live: None,
        }
    }

    /// Takes up the next key; none at the end.
    fn next_key(&mut self) -> Option<Bytes> {
        let (live, history) = (&self.store.live, &self.store.history);
        let (live, deleted) = match &self.key {
            None => (
                live.range(Bytes::new()..).next(),
                history.deleted_from(&Bytes::new()).next(),
            ),
            Some(key) => {
                let behind = (Bound::Excluded(key.clone()), Bound::Unbounded);
                (live.range(behind).next(), history.deleted_behind(key))
            }
        };
        // A key is in one of the two maps only.
        let live = live.map(|(key, newest)| (key, newest.previous, Some(newest)));
        let deleted = deleted.map(|(key, last)| (key, *last, None));
        let both = live.into_iter().chain(deleted);
        let (key, last, live) = both.min_by_key(|(key, _, _)| *key)?;
        let (key, live) = (key.clone(), live.cloned());
        self.superseded = history.readable_chain(last);
        self.live = live;
        self.key = Some(key.clone());
        Some(key)
    }
}

impl Iterator for RetainedVersions {
    type Item = Retained;

    fn next(&mut self) -> Option<Retained> {
        while self.superseded.is_empty() && self.live.is_none() {
            self.next_key()?;
        }
        let key = self.key.clone()?;
        let Some(place) = self.superseded.pop() else {
            let newest = self.live.take()?;
            return Some(retained(key, &newest, Fate::Live));
        };
        let superseded = self.store.history.held(place)?;
        let fate = if superseded.deleted {
            Fate::Deleted(superseded.end)
        } else {
            Fate::Replaced(superseded.end)
        };
        Some(retained(key, &superseded.version, fate))
    }
}

fn retained(key: Bytes, version: &Version, fate: Fate) -> Retained {
    Retained {
        key,
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        version: version.version,
        value: version.value.clone(),
        fate,
    }
}

/// Versions that no store gives out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RetainedError {
    /// A key or a value.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The numbers of a version contradict each other or those of the store.
    #[error("the version of revision {mod_revision} contradicts {what}")]
    Contradiction {
        /// Which version.
        mod_revision: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// There is not as much as was announced.
    #[error("{what}: {found} instead of {announced}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// How many came.
        found: u64,
        /// How many were announced.
        announced: u64,
    },
    /// More history than is kept.
    #[error("{what} of {found} are above the limit of {limit}")]
    AboveLimit {
        /// What.
        what: &'static str,
        /// How much.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

/// Puts a store together again. What is given is checked; memory grows with it alone, not with what
/// is announced.
#[derive(Debug)]
pub(crate) struct StoreRestorer {
    retention: Retention,
    announced: StoreCounts,
    live: OrdMap<Bytes, Version>,
    /// By their ends, of which no two are the same.
    superseded: BTreeMap<u64, (Bytes, Version, bool)>,
    superseded_bytes: u64,
    last: Option<Retained>,
}

impl StoreRestorer {
    /// A store of which nothing is there yet.
    ///
    /// # Errors
    /// When the announced numbers contradict each other, or are above what is kept.
    pub(crate) fn new(retention: Retention, announced: StoreCounts) -> Result<Self, RetainedError> {
        if announced.oldest > announced.revision {
            return Err(RetainedError::Count {
                what: "the oldest revision",
                found: announced.oldest,
                announced: announced.revision,
            });
        }
        for (what, found, limit) in [
            (VERSIONS, announced.superseded, retention.revisions_max),
            (BYTES, announced.superseded_bytes, retention.bytes_max),
        ] {
            let limit = limit as u64;
            if found > limit {
                return Err(RetainedError::AboveLimit { what, found, limit });
            }
        }
        Ok(Self {
            retention,
            announced,
            live: OrdMap::new(),
            superseded: BTreeMap::new(),
            superseded_bytes: 0,
            last: None,
        })
    }

    /// Takes the next version, in the order of [`RetainedVersions`].
    ///
    /// # Errors
    /// When no store would give it here.
    pub(crate) fn push(&mut self, mut next: Retained) -> Result<(), RetainedError> {
        limits::check_key(&next.key)?;
        limits::check_value(&next.value)?;
        self.check_numbers(&next)?;
        let last = self.last.take();
        check_order(last.as_ref(), &next)?;
        // The versions of a key share its bytes.
        if let Some(last) = last
            && last.key == next.key
        {
            next.key = last.key;
        }
        let version = Version {
            create_revision: next.create_revision,
            mod_revision: next.mod_revision,
            version: next.version,
            value: next.value.clone(),
            previous: Place::NONE,
        };
        let (end, deleted) = match next.fate {
            Fate::Live => {
                self.live.insert(next.key.clone(), version);
                self.last = Some(next);
                return at_most(KEYS, self.live.len() as u64, self.announced.live);
            }
            Fate::Replaced(end) => (end, false),
            Fate::Deleted(end) => (end, true),
        };
        self.superseded_bytes += (next.key.len() + next.value.len()) as u64;
        let superseded = (next.key.clone(), version, deleted);
        if self.superseded.insert(end, superseded).is_some() {
            return contradiction(&next, "another one that ended at the same revision");
        }
        self.last = Some(next);
        let count = self.superseded.len() as u64;
        at_most(VERSIONS, count, self.announced.superseded)?;
        at_most(
            BYTES,
            self.superseded_bytes,
            self.announced.superseded_bytes,
        )
    }

    /// The store, when all of it is there.
    ///
    /// # Errors
    /// When there is less than was announced.
    pub(crate) fn finish(mut self) -> Result<KvStore, RetainedError> {
        check_order_at_end(self.last.as_ref())?;
        // None of them can be above by now.
        let announced = &self.announced;
        let count = self.superseded.len() as u64;
        at_least(KEYS, self.live.len() as u64, announced.live)?;
        at_least(VERSIONS, count, announced.superseded)?;
        at_least(BYTES, self.superseded_bytes, announced.superseded_bytes)?;
        let superseded = std::mem::take(&mut self.superseded).into_iter();
        let superseded =
            superseded.map(|(end, (key, version, deleted))| (key, version, end, deleted));
        let oldest = self.announced.oldest;
        let (mut history, last) = History::restored(self.retention, oldest, superseded);
        for (key, place) in last {
            if let Some(newest) = self.live.get_mut(&key) {
                newest.previous = place;
                history.restored_live(&key);
            }
        }
        Ok(KvStore {
            revision: self.announced.revision,
            live: self.live,
            history,
        })
    }

    /// What can be said of a version alone.
    fn check_numbers(&self, next: &Retained) -> Result<(), RetainedError> {
        let newest = self.announced.revision;
        let (create, modified) = (next.create_revision, next.mod_revision);
        if create == 0 || create > modified || modified > newest {
            return contradiction(next, "the revisions of its key and of the store");
        }
        // Each write of a key took a revision of its own.
        if next.version == 0 || next.version - 1 > modified - create {
            return contradiction(next, "its count of writes");
        }
        if (next.version == 1) != (create == modified) {
            return contradiction(next, "its count of writes");
        }
        match next.fate {
            Fate::Live => Ok(()),
            Fate::Replaced(end) | Fate::Deleted(end) => {
                if end <= modified || end > newest || end <= self.announced.oldest {
                    return contradiction(next, "the revision that ended it");
                }
                Ok(())
            }
        }
    }
}

const KEYS: &str = "keys";
const VERSIONS: &str = "superseded versions";
const BYTES: &str = "bytes of superseded versions";

fn at_most(what: &'static str, found: u64, announced: u64) -> Result<(), RetainedError> {
    if found <= announced {
        return Ok(());
    }
    Err(RetainedError::Count {
        what,
        found,
        announced,
    })
}

fn at_least(what: &'static str, found: u64, announced: u64) -> Result<(), RetainedError> {
    if found >= announced {
        return Ok(());
    }
    Err(RetainedError::Count {
        what,
        found,
        announced,
    })
}

fn contradiction<T>(version: &Retained, what: &'static str) -> Result<T, RetainedError> {
    let mod_revision = version.mod_revision;
    Err(RetainedError::Contradiction { mod_revision, what })
}

/// What a version says of the next one.
fn check_order(last: Option<&Retained>, next: &Retained) -> Result<(), RetainedError> {
    let Some(last) = last else { return Ok(()) };
    if next.key < last.key {
        return contradiction(next, "the order of keys");
    }
    if next.key > last.key {
        return check_order_at_end(Some(last));
    }
    match last.fate {
        Fate::Live => contradiction(next, "the newest version of its key, which came before"),
        Fate::Replaced(end) => {
            let follows = next.mod_revision == end
                && next.create_revision == last.create_revision
                && next.version == last.version + 1;
            if follows {
                return Ok(());
            }
            contradiction(next, "the version before, which another one replaced")
        }
        Fate::Deleted(end) if next.version == 1 && next.mod_revision > end => Ok(()),
        Fate::Deleted(_) => contradiction(next, "the version before, which was deleted"),
    }
}

/// Behind the last version of a key nothing may be missing.
fn check_order_at_end(last: Option<&Retained>) -> Result<(), RetainedError> {
    match last {
        Some(last) if matches!(last.fate, Fate::Replaced(_)) => {
            contradiction(last, "the end of its key: what replaced it is missing")
        }
        _ => Ok(()),
    }
}
