//! Where a store keeps what its keys hold now: a map in memory, or one that is larger than memory.
//! What a write or a read means is not known here.

use std::convert::Infallible;
use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use super::version::{Place, Version};

/// A map of keys to their newest versions, in the order of the keys.
pub(crate) trait Live {
    /// Why a key cannot be read.
    type Error;

    /// Keys that are there.
    fn len(&self) -> u64;

    /// What a key holds.
    fn get(&self, key: &Bytes) -> Result<Option<Version>, Self::Error>;

    /// A key holds this from now on. `replaced` is what it held until now, as `get` told it.
    fn put(&mut self, key: Bytes, version: Version, replaced: Option<&Version>);

    /// A key is not there any more. `removed` is what it held until now, as `get` told it.
    fn remove(&mut self, key: &Bytes, removed: &Version);

    /// Where the newest superseded version of a key that is there is: for a store that is put
    /// together.
    fn link(&mut self, key: &Bytes, place: Place);

    /// The keys from a bound on, in order. Called only where nothing was put or removed that is not
    /// kept yet: between commands.
    fn list(&self, from: Bound<&Bytes>) -> impl Iterator<Item = Result<Listed, Self::Error>>;

    /// The version of a key that was listed, with its value.
    fn whole(&self, listed: Listed) -> Result<Version, Self::Error>;
}

/// A key in a list, which need not have its value with it: most of what a read at an old revision
/// looks at is of no interest to it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The key.
    pub(crate) key: Bytes,
    /// What it holds; the value is empty where it is kept apart.
    pub(crate) version: Version,
    /// Bytes of the value, where it is kept apart and has to be asked for.
    pub(crate) apart: Option<u32>,
}

impl Listed {
    /// Bytes of the value, wherever it is.
    pub(super) fn value_bytes(&self) -> usize {
        let here = self.version.value.len();
        self.apart.map_or(here, |bytes| bytes as usize)
    }
}

/// Everything in a persistent map: a clone costs nothing, and shares all that it has in common with
/// the original.
#[derive(Clone, Debug, Default)]
pub struct MemoryLive(pub(super) OrdMap<Bytes, Version>);

impl Live for MemoryLive {
    type Error = Infallible;

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn get(&self, key: &Bytes) -> Result<Option<Version>, Infallible> {
        Ok(self.0.get(key).cloned())
    }

    fn put(&mut self, key: Bytes, version: Version, _replaced: Option<&Version>) {
        self.0.insert(key, version);
    }

    fn remove(&mut self, key: &Bytes, _removed: &Version) {
        self.0.remove(key);
    }

    fn link(&mut self, key: &Bytes, place: Place) {
        if let Some(newest) = self.0.get_mut(key) {
            newest.previous = place;
        }
    }

    fn list(&self, from: Bound<&Bytes>) -> impl Iterator<Item = Result<Listed, Infallible>> {
        let listed = self.0.range((from.cloned(), Bound::Unbounded));
        listed.map(|(key, version)| {
            Ok(Listed {
                key: key.clone(),
                version: version.clone(),
                apart: None,
            })
        })
    }

    fn whole(&self, listed: Listed) -> Result<Version, Infallible> {
        Ok(listed.version)
    }
}
