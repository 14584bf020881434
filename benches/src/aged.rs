//! A log of many entries as a killed process leaves it, to be opened again and again: the first
//! open after a crash does work that the second one finds done, so each gets a copy of its own.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{AppendBatch, Index, LogStore, NodeId};
use tempfile::TempDir;

use crate::place;
use crate::storage::{Storage, entries};

/// Entries of one append while the log is made.
const BATCH_ENTRIES: u64 = 4096;
/// The node whose log it is.
const NODE: NodeId = NodeId(1);

/// The log.
#[derive(Debug)]
pub struct AgedLog {
    storage: Storage,
    entries: u64,
    directory: TempDir,
}

impl AgedLog {
    /// Makes a log of `count` entries with such payloads.
    ///
    /// # Panics
    /// When the disk refuses: a bench has nothing to measure then.
    pub async fn make(storage: Storage, count: u64, payload: &Bytes) -> Self {
        let directory = place::scratch();
        let mut store = storage.open(directory.path(), NODE);
        let mut last = 0;
        while last < count {
            let share = BATCH_ENTRIES.min(count - last);
            let batch = AppendBatch {
                entries: entries(last, share, payload),
                ..AppendBatch::default()
            };
            store.append(batch).await.expect("it appends");
            last += share;
        }
        Self {
            storage,
            entries: count,
            directory,
        }
    }

    /// Opens and loads a copy that is not in the page cache, and gives the time of it and the log.
    ///
    /// # Panics
    /// When it cannot be opened or has not all entries.
    pub async fn recover(&self) -> (Duration, Box<dyn LogStore>, TempDir) {
        let directory = place::scratch();
        copy(self.directory.path(), directory.path()).expect("it is copied");
        forget(directory.path()).expect("the page cache is dropped");
        let started = Instant::now();
        let mut store = self.storage.open(directory.path(), NODE);
        let loaded = store.load().await.expect("it loads");
        let took = started.elapsed();
        assert_eq!(loaded.last.index, Index(self.entries));
        (took, store, directory)
    }

    /// Reads all entries in pieces of at most so many encoded bytes, as for a follower that lags,
    /// and gives the time of it and the bytes.
    ///
    /// # Panics
    /// When an entry is not there.
    pub async fn read(&self, store: &dyn LogStore, piece_bytes: usize) -> (Duration, u64) {
        let reader = store.reader();
        let (mut bytes, mut next) = (0, Index(1));
        let end = Index(self.entries).next();
        let started = Instant::now();
        while next < end {
            let read = reader.read(next..end, piece_bytes).await.expect("it reads");
            let lengths = read.iter().map(raft_core::Entry::encoded_len);
            bytes += lengths.sum::<usize>() as u64;
            next = read.last().expect("at least one").index().next();
        }
        (started.elapsed(), bytes)
    }
}

/// Copies a directory and all below it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for found in fs::read_dir(from)? {
        let found = found?;
        let target = to.join(found.file_name());
        if found.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&found.path(), &target)?;
        } else {
            fs::copy(found.path(), &target)?;
        }
    }
    Ok(())
}

/// Makes the files of a directory durable and drops them from the page cache.
///
/// # Errors
/// When the system refuses.
pub fn forget(directory: &Path) -> io::Result<()> {
    for found in fs::read_dir(directory)? {
        let path = found?.path();
        if path.is_dir() {
            forget(&path)?;
            continue;
        }
        let file = match fs::File::open(&path) {
            // A store that is open may remove a file that it needs no more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        file.sync_all()?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
