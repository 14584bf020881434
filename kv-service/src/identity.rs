//! The data directory of a node: who it belongs to, the lock that keeps a second process out, how
//! often the node was started, and the key of its stateless resets.
//!
//! ```text
//! data/identity.toml   format, cluster, node, incarnation, storage, state
//! data/lock            held while a process has the directory open
//! data/boot            starts so far, decimal; grows by one before a node says its first word
//! data/reset.key       64 random bytes, readable by the owner only
//! data/wal/ | rocksdb/ the log; what is in there is the business of `raft-storage`
//! data/state/          the state, where it is kept in RocksDB; likewise
//! data/snapshots/      what the beginning of the log was replaced by; likewise
//! ```
//!
//! A directory is formatted once, by `init`, `cluster` or `member`. Opening never formats: a node
//! that lost its disk would else come back as if it had promised nothing.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use raft_core::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::config::{Backends, StateKind, StorageKind};
use crate::files::{self, FileError, PUBLIC, SECRET, at};
pub use crate::identity_error::IdentityError;

/// The version of the directory's layout that this program writes and reads.
const FORMAT: u32 = 1;

/// How long the size of the directory is remembered, so that a watched `status` does not walk it at
/// every request.
const USAGE_KEPT: Duration = Duration::from_secs(1);

const IDENTITY: &str = "identity.toml";
pub(crate) const LOCK: &str = "lock";
const BOOT: &str = "boot";
const RESET_KEY: &str = "reset.key";

/// Whom a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The incarnation of the node that the directory was formatted with.
    pub incarnation: Incarnation,
}

/// `identity.toml`, word for word.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityFile {
    format: u32,
    cluster: String,
    node: u64,
    incarnation: u64,
    storage: StorageKind,
    /// Left out where it is in memory, as in directories of older versions.
    #[serde(default, skip_serializing_if = "is_default")]
    state: StateKind,
}

fn is_default(state: &StateKind) -> bool {
    *state == StateKind::default()
}

/// An open data directory. The lock is held until it is dropped.
pub struct DataDirectory {
    path: PathBuf,
    owner: Owner,
    boot: u64,
    reset_key: [u8; 64],
    usage: Mutex<Option<(Instant, u64)>>,
    lock: File,
}

/// Says nothing of the key.
impl fmt::Debug for DataDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataDirectory")
            .field("path", &self.path)
            .field("owner", &self.owner)
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

/// Formats a data directory for a node that has never run. Its identity is written last, so that a
/// crash on the way leaves nothing that could be opened.
///
/// # Errors
/// When something is there already, or a file operation fails.
pub fn format(
    path: &Path,
    owner: Owner,
    backends: impl Into<Backends>,
) -> Result<(), IdentityError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(IdentityError::NotEmpty(path.to_owned()));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(at("list", path)(error).into()),
    }
    files::create_directory(path)?;
    files::write_atomically(&path.join(LOCK), b"", PUBLIC)?;
    files::write_atomically(&path.join(RESET_KEY), &files::random::<64>()?, SECRET)?;
    files::write_atomically(&path.join(BOOT), b"0\n", PUBLIC)?;
    write_identity(path, owner, backends.into())
}

/// Removes the directory of a node that has nothing to lose: it is missing or empty, was never
/// used, or has lost its log.
///
/// # Errors
/// When it holds data, a process has it open, or a file operation fails.
pub(crate) fn remove_unused(path: &Path, node: NodeId) -> Result<(), IdentityError> {
    match require_formatted(path, node) {
        Err(IdentityError::Missing { .. }) => return Ok(()),
        result => result?,
    }
    let _lock = lock(path)?;
    for name in files::entry_names(path)? {
        let entry = path.join(&name);
        let is_empty = || files::entry_names(&entry).is_ok_and(|names| names.is_empty());
        if ![IDENTITY, LOCK, BOOT, RESET_KEY].contains(&&name[..]) && !is_empty() {
            let path = path.to_owned();
            return Err(IdentityError::HoldsData { path, node });
        }
    }
    files::remove_directory(path)?;
    Ok(())
}

fn write_identity(path: &Path, owner: Owner, backends: Backends) -> Result<(), IdentityError> {
    let identity = IdentityFile {
        format: FORMAT,
        cluster: owner.cluster.to_string(),
        node: owner.node.0,
        incarnation: owner.incarnation.0,
        storage: backends.storage,
        state: backends.state,
    };
    let file = path.join(IDENTITY);
    let text = toml::to_string(&identity).map_err(|error| FileError {
        operation: "encode",
        path: file.clone(),
        message: error.to_string(),
    })?;
    files::write_atomically(&file, text.as_bytes(), PUBLIC)?;
    Ok(())
}

impl DataDirectory {
    /// Opens and locks the directory of a node. Nothing in it is changed.
    ///
    /// # Errors
    /// When it is missing, empty, locked, damaged, somebody else's, not writable, or was used with
    /// another kind of storage or state.
    pub fn open(
        path: &Path,
        owner: Owner,
        backends: impl Into<Backends>,
    ) -> Result<Self, IdentityError> {
        let backends = backends.into();
        let storage = backends.storage;
        require_formatted(path, owner.node)?;
        let lock = lock(path)?;
        let identity = read_identity(path)?;
        let boot = read_boot(path)?;
        compare_owners(path, &identity.owner(path)?.0, &owner)?;
        // Before its first start a node has nothing to forget.
        if identity.storage != storage && boot > 0 {
            return Err(IdentityError::OtherStorage {
                path: path.to_owned(),
                found: identity.storage,
                asked: storage,
            });
        }
        if identity.state != backends.state && boot > 0 {
            return Err(IdentityError::OtherState {
                path: path.to_owned(),
                found: identity.state,
                asked: backends.state,
                node: owner.node,
            });
        }
        if (identity.storage, identity.state) != (storage, backends.state) {
            write_identity(path, owner, backends)?;
        }
        let directory = Self {
            path: path.to_owned(),
            owner,
            boot,
            reset_key: read_reset_key(path)?,
            usage: Mutex::new(None),
            lock,
        };
        directory.require_log(storage)?;
        Ok(directory)
    }

    /// Locks a directory of a node that keeps its log in memory, so that it can be formatted anew;
    /// `None` where there is no directory.
    ///
    /// # Errors
    /// When a process has it open, or it was used with a storage that keeps its log.
    pub(crate) fn lock_forgetful(path: &Path) -> Result<Option<File>, IdentityError> {
        if !path.join(IDENTITY).exists() {
            return Ok(None);
        }
        let lock = lock(path)?;
        let found = read_identity(path)?.storage;
        if found.is_durable() {
            return Err(IdentityError::OtherStorage {
                path: path.to_owned(),
                found,
                asked: StorageKind::Memory,
            });
        }
        Ok(Some(lock))
    }

    /// Where the log of this kind of storage is kept.
    #[must_use]
    pub fn log_path(&self, storage: StorageKind) -> PathBuf {
        log_path(&self.path, storage)
    }

    /// Where a state that is not in memory is kept.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        state_path(&self.path)
    }

    /// Where an image may be unpacked that is of another kind than the state.
    #[must_use]
    pub fn scratch_path(&self) -> PathBuf {
        self.path.join("unpacked")
    }

    /// A node that was started before must find its log: what is in memory is gone, and an empty
    /// directory is a lost disk.
    fn require_log(&self, storage: StorageKind) -> Result<(), IdentityError> {
        let path = self.log_path(storage);
        let kept = storage.is_durable()
            && std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if self.boot == 0 || kept {
            return Ok(());
        }
        let path = if storage.is_durable() {
            path
        } else {
            "memory".into()
        };
        Err(IdentityError::LogLost {
            path,
            node: self.owner.node,
            boot: self.boot,
        })
    }

    /// Counts this start, durably. Called after the log was opened and before the node says its
    /// first word, so that a counted start has a log to show.
    ///
    /// # Errors
    /// When the counter cannot be written.
    pub fn count_start(&mut self) -> Result<u64, IdentityError> {
        let boot = self.boot.saturating_add(1);
        let text = format!("{boot}\n");
        files::write_atomically(&self.path.join(BOOT), text.as_bytes(), PUBLIC)?;
        self.boot = boot;
        Ok(boot)
    }

    /// Starts so far, this one included once it is counted.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Whom it belongs to.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The key of the node's stateless resets; kept, so that peers of a killed process learn at
    /// once that their connection is dead.
    #[must_use]
    pub fn reset_key(&self) -> [u8; 64] {
        self.reset_key
    }

    /// Lets other processes open it; nothing may be written to it after that. Dropping does the
    /// same.
    ///
    /// # Errors
    /// When the system refuses, which it has no reason to.
    pub fn unlock(&self) -> Result<(), IdentityError> {
        self.lock.unlock().map_err(at("unlock", &self.path))?;
        Ok(())
    }

    /// Bytes that the directory takes on the disk, as of the last second.
    #[must_use]
    pub fn usage_bytes(&self) -> u64 {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, bytes)) = *usage
            && at.elapsed() < USAGE_KEPT
        {
            return bytes;
        }
        let bytes = directory_bytes(&self.path);
        *usage = Some((Instant::now(), bytes));
        bytes
    }
}

impl IdentityFile {
    pub(crate) fn owner(&self, path: &Path) -> Result<(Owner, Backends), IdentityError> {
        let cluster = self.cluster.parse().map_err(|_| IdentityError::Damaged {
            path: path.join(IDENTITY),
            what: format!("the cluster is {:?}", self.cluster),
        })?;
        let owner = Owner {
            cluster,
            node: NodeId(self.node),
            incarnation: Incarnation(self.incarnation),
        };
        let backends = Backends {
            storage: self.storage,
            state: self.state,
        };
        Ok((owner, backends))
    }
}

/// Where a node with this data directory keeps its log.
pub(crate) fn log_path(data: &Path, storage: StorageKind) -> PathBuf {
    let name = match storage {
        StorageKind::Rocksdb => "rocksdb",
        StorageKind::File | StorageKind::Memory => "wal",
    };
    data.join(name)
}

/// Where a node with this data directory keeps a state that is not in memory.
pub(crate) fn state_path(data: &Path) -> PathBuf {
    data.join("state")
}

pub(crate) fn require_formatted(path: &Path, node: NodeId) -> Result<(), IdentityError> {
    let missing = |state| IdentityError::Missing {
        path: path.to_owned(),
        state,
        node,
    };
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(missing("does not exist"));
        }
        Err(error) => return Err(at("list", path)(error).into()),
    };
    if entries.next().is_none() {
        return Err(missing("is empty"));
    }
    match std::fs::metadata(path.join(IDENTITY)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(IdentityError::NotADataDirectory(path.to_owned()))
        }
        Err(error) => Err(at("read", &path.join(IDENTITY))(error).into()),
    }
}

fn lock(path: &Path) -> Result<File, IdentityError> {
    let file = path.join(LOCK);
    // Opened for writing, so that a directory that cannot be written is refused here.
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(at("open", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(IdentityError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(at("lock", &file)(error).into()),
    }
}

pub(crate) fn read_identity(path: &Path) -> Result<IdentityFile, IdentityError> {
    let file = path.join(IDENTITY);
    let text = std::fs::read_to_string(&file).map_err(at("read", &file))?;
    let damaged = |what: String| IdentityError::Damaged {
        path: file.clone(),
        what,
    };
    let identity: IdentityFile =
        toml::from_str(&text).map_err(|error| damaged(error.message().replace('\n', ", ")))?;
    if identity.format == FORMAT {
        Ok(identity)
    } else {
        let found = format!("format {}", identity.format);
        compare(
            path,
            "a program of another version,",
            &found,
            &format!("format {FORMAT}"),
        )?;
        Ok(identity)
    }
}

pub(crate) fn read_boot(path: &Path) -> Result<u64, IdentityError> {
    let file = path.join(BOOT);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => "nothing".to_owned(),
        Err(error) => return Err(at("read", &file)(error).into()),
    };
    text.trim_end().parse().map_err(|_| IdentityError::Damaged {
        path: file,
        what: format!("the count of starts is {:?}", text.trim_end()),
    })
}

pub(crate) fn read_reset_key(path: &Path) -> Result<[u8; 64], IdentityError> {
    let file = path.join(RESET_KEY);
    let bytes = std::fs::read(&file).map_err(at("read", &file))?;
    bytes
        .as_slice()
        .try_into()
        .map_err(|_| IdentityError::Damaged {
            path: file,
            what: format!("it has {} bytes instead of 64", bytes.len()),
        })
}

/// Refuses a directory that belongs to somebody else.
pub(crate) fn compare_owners(
    path: &Path,
    found: &Owner,
    expected: &Owner,
) -> Result<(), IdentityError> {
    compare(path, "cluster", &found.cluster, &expected.cluster)?;
    compare(path, "node", &found.node.0, &expected.node.0)?;
    let (found, expected) = (found.incarnation.0, expected.incarnation.0);
    compare(path, "incarnation", &found, &expected)
}

fn compare<T: ToString + PartialEq>(
    path: &Path,
    what: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), IdentityError> {
    if found == expected {
        return Ok(());
    }
    Err(IdentityError::Foreign {
        path: path.to_owned(),
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

/// What is not readable counts as nothing: files come and go while the log is written.
fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
