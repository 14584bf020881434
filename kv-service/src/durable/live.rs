//! What keys hold now, in the database. What the commands of a batch change is in memory until the
//! batch is written, and is what the later commands of the same batch see.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::StorageError;
use raft_storage::rocks_state::{StateBatch, StateView};

use super::records::{self, LIVE, VALUE};
use crate::store::history::History;
use crate::store::live::{Listed, Live};
use crate::store::version::{Place, Version};

/// See the file.
#[derive(Debug)]
pub(super) struct DiskLive {
    view: Arc<StateView>,
    len: u64,
    /// What was changed and is not written yet, and the bytes of its keys and values.
    pending: BTreeMap<Bytes, Pending>,
    pending_bytes: usize,
    /// Where in the history the version before the newest one is, of keys that are there and have
    /// one. As bounded as the history.
    previous: HashMap<Bytes, Place>,
}

/// A key that was changed.
#[derive(Debug)]
struct Pending {
    /// What it holds now.
    now: Option<Version>,
    /// Whether the database has its value in a record of its own.
    was_apart: bool,
}

impl DiskLive {
    /// Of a database with `len` keys.
    pub(super) fn new(view: Arc<StateView>, len: u64) -> Self {
        Self {
            view,
            len,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            previous: HashMap::new(),
        }
    }

    /// Bytes of the keys and values that are not written yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Takes what was changed. It must be written before anything is listed.
    pub(super) fn take_changes(&mut self, batch: &mut StateBatch) {
        self.pending_bytes = 0;
        for (key, pending) in std::mem::take(&mut self.pending) {
            let (live, value) = (records::of_key(LIVE, &key), records::of_key(VALUE, &key));
            let now_apart = pending.now.as_ref().is_some_and(records::is_apart);
            match &pending.now {
                Some(version) => batch.put(&live, &records::encode_live(version)),
                None => batch.delete(&live),
            }
            match &pending.now {
                Some(version) if now_apart => batch.put(&value, &version.value),
                _ if pending.was_apart => batch.delete(&value),
                _ => {}
            }
        }
    }

    /// Forgets where versions are that the history has dropped: `gone` were in it before, and any
    /// of the keys that were changed may have come and gone since.
    pub(super) fn forget<'a>(&mut self, history: &History, gone: impl Iterator<Item = &'a Bytes>) {
        let previous = &mut self.previous;
        let mut forget = |key: &Bytes| {
            let place = previous.get(key);
            if place.is_some_and(|place| history.held(*place).is_none()) {
                previous.remove(key);
            }
        };
        self.pending.keys().for_each(&mut forget);
        gone.for_each(forget);
    }

    /// Keys whose version before is known.
    #[cfg(test)]
    pub(super) fn previous_len(&self) -> usize {
        self.previous.len()
    }

    fn place(&self, key: &[u8]) -> Place {
        self.previous.get(key).copied().unwrap_or(Place::NONE)
    }

    fn damaged(&self, what: impl Into<String>) -> StorageError {
        StorageError::Damaged {
            path: self.view.path().display().to_string(),
            offset: 0,
            what: what.into(),
        }
    }

    /// A version as the database has it.
    fn decode(&self, key: Bytes, value: &[u8]) -> Result<Listed, StorageError> {
        let (mut version, apart) = records::decode_live(value)
            .ok_or_else(|| self.damaged(format!("key {key:?} cannot be read")))?;
        version.previous = self.place(&key);
        Ok(Listed {
            key,
            version,
            apart,
        })
    }
}

impl Live for DiskLive {
    type Error = StorageError;

    fn len(&self) -> u64 {
        self.len
    }

    fn get(&self, key: &Bytes) -> Result<Option<Version>, StorageError> {
        if let Some(pending) = self.pending.get(key) {
            return Ok(pending.now.clone());
        }
        match self.view.get(&records::of_key(LIVE, key))? {
            None => Ok(None),
            Some(value) => {
                let listed = self.decode(key.clone(), &value)?;
                self.whole(listed).map(Some)
            }
        }
    }

    fn put(&mut self, key: Bytes, version: Version, replaced: Option<&Version>) {
        self.len += u64::from(replaced.is_none());
        if version.previous == Place::NONE {
            self.previous.remove(&key);
        } else {
            self.previous.insert(key.clone(), version.previous);
        }
        self.note(key, Some(version), replaced);
    }

    fn remove(&mut self, key: &Bytes, removed: &Version) {
        self.len -= 1;
        self.previous.remove(key);
        self.note(key.clone(), None, Some(removed));
    }

    fn link(&mut self, key: &Bytes, place: Place) {
        self.previous.insert(key.clone(), place);
    }

    fn list(&self, from: Bound<&Bytes>) -> impl Iterator<Item = Result<Listed, StorageError>> {
        assert!(self.pending.is_empty(), "what was changed is written first");
        let from = from.map(|key| records::of_key(LIVE, key));
        let from = from.as_ref().map(Vec::as_slice);
        let range = self.view.range(&[LIVE], from, false);
        range.map(|found| {
            let (name, value) = found?;
            let key = Bytes::copy_from_slice(name.get(1..).unwrap_or_default());
            self.decode(key, &value)
        })
    }

    fn whole(&self, listed: Listed) -> Result<Version, StorageError> {
        let mut version = listed.version;
        if let Some(length) = listed.apart {
            let value = self.view.get(&records::of_key(VALUE, &listed.key))?;
            let value = value.filter(|value| value.len() == length as usize);
            let value = value.ok_or_else(|| {
                self.damaged(format!("the value of key {:?} is missing", listed.key))
            })?;
            version.value = value.into();
        }
        Ok(version)
    }
}

impl DiskLive {
    fn note(&mut self, key: Bytes, now: Option<Version>, before: Option<&Version>) {
        let bytes = |version: &Option<Version>| version.as_ref().map_or(0, |it| it.value.len());
        self.pending_bytes += bytes(&now);
        match self.pending.entry(key) {
            Entry::Occupied(mut pending) => {
                // What was changed twice is in the database as it was before the first time.
                let pending = pending.get_mut();
                self.pending_bytes -= bytes(&pending.now);
                pending.now = now;
            }
            Entry::Vacant(place) => {
                self.pending_bytes += place.key().len();
                let was_apart = before.is_some_and(records::is_apart);
                place.insert(Pending { now, was_apart });
            }
        }
    }
}
