//! Reads the database of a state: keys, ranges, and whose it is and how far it has got.
//!
//! ```text
//! key             value
//! 0x00 'a'        the last command that is part of the state: term u64, index u64
//! 0x00 'o'        "flotstat", format version u32, cluster (16 bytes), node u64, incarnation u64
//! 0x01 key        what the state machine put there
//! ```

use std::ops::Bound;
use std::path::{Path, PathBuf};

use raft_core::{ClusterId, Incarnation, Index, LogId, NodeId, StorageError, Term};
use rocksdb::{DB, DBRawIterator, ReadOptions};

use super::options::{StateOptions, database_options};
use crate::errors::{damaged, foreign};
use crate::owner::WalOwner;
use crate::rocks_errors::rocks_error;

/// The version of the keys and values that are not the machine's. Another one is refused.
const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"flotstat";

pub(super) const APPLIED_KEY: &[u8] = &[0, b'a'];
pub(super) const OWNER_KEY: &[u8] = &[0, b'o'];

/// Before every key of the machine.
const USER: u8 = 1;

pub(super) fn user_key(key: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::with_capacity(key.len() + 1);
    prefixed.push(USER);
    prefixed.extend_from_slice(key);
    prefixed
}

pub(super) fn encode_applied(applied: LogId) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&applied.term.0.to_le_bytes());
    value[8..].copy_from_slice(&applied.index.0.to_le_bytes());
    value
}

fn decode_applied(value: &[u8]) -> Option<LogId> {
    let (term, index) = value.split_first_chunk::<8>()?;
    let index = u64::from_le_bytes(index.try_into().ok()?);
    Some(LogId::new(Term(u64::from_le_bytes(*term)), Index(index)))
}

pub(super) fn encode_owner(owner: &WalOwner) -> Vec<u8> {
    let mut value = MAGIC.to_vec();
    value.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    value.extend_from_slice(&owner.cluster.0);
    value.extend_from_slice(&owner.node.0.to_le_bytes());
    value.extend_from_slice(&owner.incarnation.0.to_le_bytes());
    value
}

/// The version, and whose it is where this version is known.
fn decode_owner(value: &[u8]) -> Option<(u32, Option<WalOwner>)> {
    let rest = value.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let version = u32::from_le_bytes(*version);
    if version != FORMAT_VERSION {
        return Some((version, None));
    }
    let (cluster, rest) = rest.split_first_chunk::<16>()?;
    let (node, incarnation) = rest.split_first_chunk::<8>()?;
    let owner = WalOwner {
        cluster: ClusterId(*cluster),
        node: NodeId(u64::from_le_bytes(*node)),
        incarnation: Incarnation(u64::from_le_bytes(incarnation.try_into().ok()?)),
    };
    Some((version, Some(owner)))
}

/// An open database.
pub struct StateView {
    db: DB,
    path: PathBuf,
}

impl std::fmt::Debug for StateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateView")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl StateView {
    pub(super) fn open(
        path: &Path,
        options: &StateOptions,
        create: bool,
    ) -> Result<Self, StorageError> {
        let db = DB::open(&database_options(options, create), path);
        Ok(Self {
            db: db.map_err(|error| rocks_error("open", path, &error))?,
            path: path.to_owned(),
        })
    }

    /// Opens it without the right to change anything.
    pub(super) fn open_unchanged(
        path: &Path,
        options: &StateOptions,
    ) -> Result<Self, StorageError> {
        let db = DB::open_for_read_only(&database_options(options, false), path, false);
        Ok(Self {
            db: db.map_err(|error| rocks_error("open", path, &error))?,
            path: path.to_owned(),
        })
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, operation: &'static str, error: &rocksdb::Error) -> StorageError {
        rocks_error(operation, &self.path, error)
    }

    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.db.flush().map_err(|error| self.error("flush", &error))
    }

    /// Whose it is, and the last command that is part of it.
    pub(super) fn header(&self) -> Result<(WalOwner, LogId), StorageError> {
        let read = |key| {
            let value = self
                .db
                .get(key)
                .map_err(|error| self.error("read", &error))?;
            value.ok_or_else(|| damaged(&self.path, 0, "it is a database, but not a whole state"))
        };
        let owner = match decode_owner(&read(OWNER_KEY)?) {
            Some((_, Some(owner))) => owner,
            Some((version, None)) => {
                let what =
                    format!("has version {version}, this program reads version {FORMAT_VERSION}");
                return Err(foreign(&self.path, what));
            }
            None => return Err(damaged(&self.path, 0, "its owner cannot be read")),
        };
        let applied = decode_applied(&read(APPLIED_KEY)?);
        let applied =
            applied.ok_or_else(|| damaged(&self.path, 0, "how far it has got cannot be read"))?;
        Ok((owner, applied))
    }

    /// What a key holds.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let value = self.db.get(user_key(key));
        value.map_err(|error| self.error("read", &error))
    }

    /// Goes through the keys from a bound on that begin with `prefix`, in order, as they are now.
    /// Every block that is read is checked. What is read is not cached where `is_bulk`.
    #[must_use]
    pub fn range(&self, prefix: &[u8], from: Bound<&[u8]>, is_bulk: bool) -> StateRange<'_> {
        let prefix = user_key(prefix);
        let mut options = ReadOptions::default();
        if let Some(end) = end_of(&prefix) {
            options.set_iterate_upper_bound(end);
        }
        options.fill_cache(!is_bulk);
        let mut iterator = self.db.raw_iterator_opt(options);
        match from {
            Bound::Unbounded => iterator.seek(&prefix),
            Bound::Included(key) => iterator.seek(user_key(key).max(prefix)),
            Bound::Excluded(key) => {
                // The next key there can be.
                let mut behind = user_key(key);
                behind.push(0);
                iterator.seek(behind.max(prefix));
            }
        }
        StateRange {
            view: self,
            iterator,
        }
    }
}

/// The first key behind all that begin with this.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Keys and values in order; see [`StateView::range`]. After an error it ends.
pub struct StateRange<'a> {
    view: &'a StateView,
    iterator: DBRawIterator<'a>,
}

impl Iterator for StateRange<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some((key, value)) = self.iterator.item() else {
            // Either the end, or something that cannot be read.
            let status = self.iterator.status().err()?;
            return Some(Err(self.view.error("read", &status)));
        };
        let found = (key.get(1..).unwrap_or_default().to_vec(), value.to_vec());
        self.iterator.next();
        Some(Ok(found))
    }
}
