//! Which of the databases in the directory of a state counts, and what is litter.
//!
//! A database is made durable under a name that nothing points to; then the file `current` is
//! replaced by one that names it. That rename is the switch: before it the old one counts, behind
//! it the new one, and whatever does not count is removed at the next start.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft_core::StorageError;

use crate::errors::{damaged, io_error};
use crate::files::{DirLock, Disk};

pub(super) const CURRENT: &str = "current";
const CURRENT_NEW: &str = "current.new";
const GENERATION: &str = "gen-";
pub(super) const IMAGE: &str = "image-";

/// The directory of a state. The lock is held until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The database that counts, or will once it is made current.
    generation: u64,
    images: Arc<AtomicU64>,
    _lock: DirLock,
}

impl Directory {
    /// Where all of it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens and locks it, removes litter, and tells where the database is that counts.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<PathBuf>), StorageError> {
        // RocksDB reaches the disk by itself, so nothing here is over another file system either.
        let disk = Disk::default();
        disk.create_dir_synced(path)?;
        let lock = disk.lock_dir(path)?;
        let current = read_current(path)?;
        let directory = Self {
            path: path.to_owned(),
            generation: current.unwrap_or(1),
            images: Arc::default(),
            _lock: lock,
        };
        if current.is_none() {
            directory.require_beginning()?;
        }
        directory.remove_litter(current)?;
        let database = directory.generation_path();
        if current.is_some() && !database.is_dir() {
            return Err(damaged(
                &database,
                0,
                "the directory of the state is missing",
            ));
        }
        Ok((directory, current.map(|_| database)))
    }

    /// Where nothing counts yet there can only be what the first start left behind.
    fn require_beginning(&self) -> Result<(), StorageError> {
        let later = |name: &str| generation_of(name).is_some_and(|number| number > 1);
        if let Some(name) = names(&self.path)?.iter().find(|name| later(name)) {
            let what = format!("nothing says whether {name} counts: the file is missing");
            return Err(damaged(&self.path.join(CURRENT), 0, what));
        }
        Ok(())
    }

    /// The database that counts, or will once it is made current.
    pub(super) fn generation_path(&self) -> PathBuf {
        self.path.join(format!("{GENERATION}{}", self.generation))
    }

    /// A place for another database.
    pub(super) fn next_generation(&mut self) -> Result<PathBuf, StorageError> {
        let taken = names(&self.path)?;
        let newest = taken.iter().filter_map(|name| generation_of(name)).max();
        self.generation = newest.unwrap_or(0).max(self.generation).saturating_add(1);
        let path = self.generation_path();
        Disk::default().create_dir_synced(&path)?;
        Ok(path)
    }

    /// Makes the newest database the one that counts. It must be durable.
    pub(super) fn make_current(&self) -> Result<(), StorageError> {
        sync(&self.path)?;
        let (new, current) = (self.path.join(CURRENT_NEW), self.path.join(CURRENT));
        let mut file = File::create(&new).map_err(|error| io_error("create", &new, &error))?;
        let text = format!("{GENERATION}{}\n", self.generation);
        let written = file.write_all(text.as_bytes());
        written.map_err(|error| io_error("write", &new, &error))?;
        file.sync_all()
            .map_err(|error| io_error("sync", &new, &error))?;
        fs::rename(&new, &current).map_err(|error| io_error("rename", &new, &error))?;
        sync(&self.path)
    }

    /// Removes the databases that do not count. What cannot be removed now is litter at the next
    /// start.
    pub(super) fn clear(&self) {
        let all = names(&self.path).unwrap_or_default();
        for name in all {
            if generation_of(&name).is_some_and(|number| number != self.generation) {
                remove(&self.path.join(name));
            }
        }
    }

    /// A place for an image that was never used since this directory was opened.
    pub(super) fn image_path(&self) -> PathBuf {
        let number = self.images.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{IMAGE}{number}"))
    }

    fn remove_litter(&self, current: Option<u64>) -> Result<(), StorageError> {
        for name in names(&self.path)? {
            let path = self.path.join(&name);
            let is_litter = name.starts_with(IMAGE)
                || name == CURRENT_NEW
                || generation_of(&name).is_some_and(|number| Some(number) != current);
            if !is_litter {
                continue;
            }
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(|error| io_error("remove", &path, &error))?;
        }
        sync(&self.path)
    }
}

/// Removes a directory and says so where that does not work; it is cleared away at the next start.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "left for the next start to remove");
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync(dir: &Path) -> Result<(), StorageError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| io_error("sync", dir, &error))
}

/// The number of the database that counts; none where none ever did.
pub(super) fn read_current(path: &Path) -> Result<Option<u64>, StorageError> {
    let file = path.join(CURRENT);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", &file, &error)),
    };
    let name = std::str::from_utf8(&bytes).ok();
    let number = name.and_then(|name| name.strip_suffix('\n'));
    let number = number.and_then(generation_of);
    let number = number.ok_or_else(|| damaged(&file, 0, "it names no state"))?;
    Ok(Some(number))
}

pub(super) fn generation_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(GENERATION)?;
    let number: u64 = digits.parse().ok()?;
    (number > 0 && digits == number.to_string()).then_some(number)
}

fn names(path: &Path) -> Result<Vec<String>, StorageError> {
    let entries = fs::read_dir(path).map_err(|error| io_error("list", path, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_error("list", path, &error))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}
