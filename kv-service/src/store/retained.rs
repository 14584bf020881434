//! All that a store holds, version by version in the order of the keys, and the way back: what an
//! image is made of. Its bytes are the business of `image`.
//!
//! Only what can be read goes out. How far compaction has got is not part of it, nor are places and
//! shortcuts, which are made anew: stores that hold the same give the same versions, whatever led
//! there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use kv_api::{LimitExceeded, limits};

use super::KvStore;
use super::history::{History, Retention};
use super::live::{Listed, Live, MemoryLive};
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

#[allow(
    private_bounds,
    reason = "whoever uses a store has one of the kinds that are there"
)]
impl<L: Live> KvStore<L> {
    /// How much of everything there is to be read.
    pub(crate) fn counts(&self) -> StoreCounts {
        let (superseded, superseded_bytes) = self.history.readable();
        StoreCounts {
            revision: self.revision,
            oldest: self.oldest(),
            live: self.live.len(),
            superseded: superseded as u64,
            superseded_bytes: superseded_bytes as u64,
        }
    }
}

/// Keys that are listed at once, so that one key after the other need not be searched for.
const LISTED_AHEAD: usize = 64;

/// Goes through a store: the keys in order, the versions of each from the oldest to the newest.
#[derive(Debug)]
pub(crate) struct RetainedVersions<L> {
    store: KvStore<L>,
    /// Live keys that come next, and whether there are more behind them.
    ahead: VecDeque<Listed>,
    has_more: bool,
    /// The live key that was listed last.
    listed: Option<Bytes>,
    /// The deleted key that was looked at last.
    deleted: Option<Bytes>,
    /// The key whose versions are being given.
    key: Bytes,
    /// Its superseded versions that are still to come, the next one last.
    superseded: Vec<Place>,
    /// What it holds now, where that is still to come.
    live: Option<Listed>,
}

impl<L: Live> RetainedVersions<L> {
    /// Starts at the first key. Nothing is written to the store any more.
    pub(crate) fn new(store: KvStore<L>) -> Self {
        Self {
            store,
            ahead: VecDeque::new(),
            has_more: true,
            listed: None,
            deleted: None,
            key: Bytes::new(),
            superseded: Vec::new(),
            live: None,
        }
    }

    /// What it goes through.
    pub(crate) fn store(&self) -> &KvStore<L> {
        &self.store
    }

    /// The next version; none at the end.
    pub(crate) fn try_next(&mut self) -> Result<Option<Retained>, L::Error> {
        while self.superseded.is_empty() && self.live.is_none() {
            if !self.next_key()? {
                return Ok(None);
            }
        }
        let key = self.key.clone();
        let superseded = self.superseded.pop();
        let Some(superseded) = superseded.and_then(|place| self.store.history.held(place)) else {
            let Some(live) = self.live.take() else {
                return Ok(None);
            };
            let newest = self.store.live.whole(live)?;
            return Ok(Some(retained(key, &newest, Fate::Live)));
        };
        let fate = if superseded.deleted {
            Fate::Deleted(superseded.end)
        } else {
            Fate::Replaced(superseded.end)
        };
        Ok(Some(retained(key, &superseded.version, fate)))
    }

    /// Takes up the next key; false at the end.
    fn next_key(&mut self) -> Result<bool, L::Error> {
        self.look_ahead()?;
        let history = &self.store.history;
        let deleted = match &self.deleted {
            None => history.deleted_from(&Bytes::new()).next(),
            Some(key) => history.deleted_behind(key),
        };
        // A key is in one of the two only.
        let next_live = self.ahead.front().map(|live| &live.key);
        let last = match (next_live, deleted) {
            (None, None) => return Ok(false),
            (live, Some((key, last))) if live.is_none_or(|live| key < live) => {
                self.key = key.clone();
                self.deleted = Some(key.clone());
                *last
            }
            _ => {
                let live = self.ahead.pop_front().expect("just seen");
                self.key = live.key.clone();
                let last = live.version.previous;
                self.live = Some(live);
                last
            }
        };
        self.superseded = self.store.history.readable_chain(last);
        Ok(true)
    }

    fn look_ahead(&mut self) -> Result<(), L::Error> {
        if !self.ahead.is_empty() || !self.has_more {
            return Ok(());
        }
        let behind = self
            .listed
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        for listed in self.store.live.list(behind).take(LISTED_AHEAD) {
            self.ahead.push_back(listed?);
        }
        self.has_more = self.ahead.len() == LISTED_AHEAD;
        self.listed = self.ahead.back().map(|live| live.key.clone());
        Ok(())
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
pub(crate) struct StoreRestorer<L = MemoryLive> {
    retention: Retention,
    announced: StoreCounts,
    live: L,
    /// The keys that are there now and have superseded versions.
    linked: BTreeSet<Bytes>,
    /// By their ends, of which no two are the same.
    superseded: BTreeMap<u64, (Bytes, Version, bool)>,
    superseded_bytes: u64,
    last: Option<Retained>,
}

impl<L: Live> StoreRestorer<L> {
    /// A store of which nothing is there yet, and `live` is empty.
    ///
    /// # Errors
    /// When the announced numbers contradict each other, or are above what is kept.
    pub(crate) fn new(
        retention: Retention,
        announced: StoreCounts,
        live: L,
    ) -> Result<Self, RetainedError> {
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
            live,
            linked: BTreeSet::new(),
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
        let has_history = last.as_ref().is_some_and(|last| last.key == next.key);
        if let Some(last) = last.filter(|_| has_history) {
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
                if has_history {
                    self.linked.insert(next.key.clone());
                }
                self.live.put(next.key.clone(), version, None);
                self.last = Some(next);
                return at_most(KEYS, self.live.len(), self.announced.live);
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
    pub(crate) fn finish(mut self) -> Result<KvStore<L>, RetainedError> {
        check_order_at_end(self.last.as_ref())?;
        // None of them can be above by now.
        let announced = &self.announced;
        let count = self.superseded.len() as u64;
        at_least(KEYS, self.live.len(), announced.live)?;
        at_least(VERSIONS, count, announced.superseded)?;
        at_least(BYTES, self.superseded_bytes, announced.superseded_bytes)?;
        let superseded = std::mem::take(&mut self.superseded).into_iter();
        let superseded =
            superseded.map(|(end, (key, version, deleted))| (key, version, end, deleted));
        let oldest = self.announced.oldest;
        let (mut history, last) = History::restored(self.retention, oldest, superseded);
        for (key, place) in last {
            if self.linked.contains(&key) {
                self.live.link(&key, place);
                history.restored_live(&key);
            }
        }
        let revision = self.announced.revision;
        Ok(KvStore::with_history(revision, self.live, history))
    }

    /// Where the keys are kept, to keep those that have come.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn live_mut(&mut self) -> &mut L {
        &mut self.live
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
