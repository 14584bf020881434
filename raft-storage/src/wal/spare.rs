//! The next segment's file, written full of zeros in the background ahead of need. A sync of a
//! write into blocks that were written before has no metadata to journal: it takes half the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use raft_core::StorageError;

use crate::errors::io_error;
use crate::files::{Disk, DiskFile};

/// The name of a spare file, which is not the name of a segment.
pub(super) const SPARE_NAME: &str = "spare";

static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
/// Bytes between syncs, so that a spare never holds up the log's own sync with much dirty memory.
const SYNC_EVERY_BYTES: u64 = 4 << 20;

/// Makes one spare file at a time.
#[derive(Debug)]
pub(super) struct SpareMaker {
    disk: Disk,
    path: PathBuf,
    bytes: u64,
    making: Option<JoinHandle<Result<DiskFile, StorageError>>>,
    stop: Arc<AtomicBool>,
}

impl SpareMaker {
    pub(super) fn new(disk: Disk, dir: &Path, bytes: u64) -> Self {
        Self {
            disk,
            path: dir.join(SPARE_NAME),
            bytes,
            making: None,
            stop: Arc::default(),
        }
    }

    /// Starts to make a spare, unless there is one. Whether one was started.
    pub(super) fn prepare(&mut self) -> bool {
        if self.making.is_some() {
            return false;
        }
        let (disk, path, bytes) = (self.disk.clone(), self.path.clone(), self.bytes);
        let stop = Arc::clone(&self.stop);
        let maker = thread::Builder::new().name("wal-spare".to_owned());
        let spawned = maker.spawn(move || make(&disk, &path, bytes, &stop));
        match spawned {
            Ok(handle) => {
                while self.disk.works_in_turn() && !handle.is_finished() {
                    thread::yield_now();
                }
                self.making = Some(handle);
            }
            // It is then made when it is needed.
            Err(error) => tracing::warn!(%error, "no thread for a spare log segment"),
        }
        self.making.is_some()
    }

    /// A file of at least `bytes` zeros, which are on the disk. Waits where it is still being made.
    pub(super) fn take(&mut self, bytes: u64) -> Result<DiskFile, StorageError> {
        let made = self.making.take().map(JoinHandle::join);
        let file = match made {
            Some(Ok(Ok(file))) => file,
            // The disk was full then; it holds no data yet, so it may be tried again.
            Some(Ok(Err(StorageError::Full { .. }))) | None => self.make_now(self.bytes)?,
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(_panic)) => {
                let panicked = std::io::Error::other("its thread panicked");
                return Err(io_error("create", &self.path, &panicked));
            }
        };
        if bytes > self.bytes {
            fill(&file, self.bytes, bytes, &self.stop)?;
        }
        Ok(file)
    }

    fn make_now(&self, bytes: u64) -> Result<DiskFile, StorageError> {
        make(&self.disk, &self.path, bytes, &self.stop)
    }
}

impl Drop for SpareMaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(making) = self.making.take() {
            // What it made is not needed, nor is why it failed.
            drop(making.join());
        }
    }
}

fn make(disk: &Disk, path: &Path, bytes: u64, stop: &AtomicBool) -> Result<DiskFile, StorageError> {
    let file = disk.create(path)?;
    let filled = fill(&file, 0, bytes, stop);
    if let Err(error) = &filled {
        tracing::warn!(%error, "a spare log segment could not be made");
    }
    filled.map(|()| file)
}

/// Writes zeros and makes them durable. Ends early, with an error, when told to stop.
fn fill(file: &DiskFile, from: u64, to: u64, stop: &AtomicBool) -> Result<(), StorageError> {
    let mut at = from;
    while at < to {
        if stop.load(Ordering::Relaxed) {
            let stopped = std::io::Error::from(std::io::ErrorKind::Interrupted);
            return Err(io_error("write", file.path(), &stopped));
        }
        let piece = (to - at).min(ZEROS.len() as u64);
        file.write_at(&ZEROS[..usize::try_from(piece).unwrap_or(ZEROS.len())], at)?;
        at += piece;
        if at.is_multiple_of(SYNC_EVERY_BYTES) {
            file.sync()?;
        }
    }
    file.sync()
}
