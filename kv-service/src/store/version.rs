//! One version of one key: plain data.

use bytes::Bytes;
use kv_api::KeyValue;

use crate::digest::Digest;

/// Where in the history the version before is kept. The history knows whether it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u64);

impl Place {
    /// There is none before.
    pub(crate) const NONE: Self = Self(0);
}

/// What a key held from `mod_revision` on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// The revision that created the key.
    pub(crate) create_revision: u64,
    /// The revision that wrote this version.
    pub(crate) mod_revision: u64,
    /// Writes since the key was created, 1 for the first.
    pub(crate) version: u64,
    /// The value.
    pub(crate) value: Bytes,
    /// What the key held before, also before it was deleted and created again.
    pub(crate) previous: Place,
}

impl Version {
    /// What a new key gets.
    pub(crate) fn first(revision: u64, value: Bytes, previous: Place) -> Self {
        Self {
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value,
            previous,
        }
    }

    /// What the same key gets at its next write. Where this one will be kept is not known yet.
    pub(crate) fn next(&self, revision: u64, value: Bytes) -> Self {
        Self {
            create_revision: self.create_revision,
            mod_revision: revision,
            version: self.version + 1,
            value,
            previous: Place::NONE,
        }
    }

    /// In the words of a reply. Both buffers are shared, not copied.
    pub(crate) fn to_key_value(&self, key: &Bytes, keys_only: bool) -> KeyValue {
        let value = if keys_only {
            Bytes::new()
        } else {
            self.value.clone()
        };
        KeyValue {
            key: key.clone(),
            value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }

    /// Adds what a reader can see.
    pub(crate) fn add_to(&self, digest: &mut Digest) {
        digest.number(self.create_revision);
        digest.number(self.mod_revision);
        digest.number(self.version);
        digest.bytes(&self.value);
    }
}
