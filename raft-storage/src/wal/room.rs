//! Room for the log's next segments, ahead of need: old segments that count no more, or a spare of
//! zeros that the next one will be made of, and a reserve for the case that the disk has no room
//! for a spare. As long as it has not, the log
//! says so, goes on in what is left, and tries again from time to time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use raft_core::StorageError;

use super::shared::Shared;
use super::spare::{RECYCLED_PREFIX, RESERVE_NAME, SPARE_NAME, fill, make_reserve, make_spare};
use crate::errors::io_error;
use crate::files::{Disk, DiskFile};

/// How long a full disk is left alone before a file is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Bytes that must be free on the disk for old segments to be kept: others who have their files
/// there, a state in RocksDB for one, are to be short of room only when the log does not hold it.
pub(super) const FREE_BYTES_MIN: u64 = 512 << 20;
/// How often is looked whether others need the room of old segments, while nothing else happens.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(1);
/// How often is looked whether a file is ready, while nothing else happens.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Keeps room for one log.
#[derive(Debug)]
pub(super) struct Room {
    disk: Disk,
    dir: PathBuf,
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// 0 where there is to be none.
    reserve_bytes: u64,
    making: Option<JoinHandle<Result<Made, StorageError>>>,
    spare: Option<Result<DiskFile, StorageError>>,
    /// Old segments' files to be written again, each as long as a segment.
    recycled: Vec<PathBuf>,
    /// Those that will be, once their new names are durable.
    renamed: Vec<PathBuf>,
    recycled_max: usize,
    wants_spare: bool,
    has_reserve: bool,
    /// Since when, and until when it is left alone, where the disk was full.
    full_until: Option<Instant>,
    stop: Arc<AtomicBool>,
}

/// What a thread made.
#[derive(Debug)]
enum Made {
    Spare(DiskFile),
    Reserve,
}

impl Room {
    pub(super) fn new(
        disk: Disk,
        dir: &Path,
        shared: Arc<Shared>,
        segment_bytes: u64,
        reserve_bytes: u64,
        recycled_max: usize,
    ) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            shared,
            segment_bytes,
            reserve_bytes,
            making: None,
            spare: None,
            recycled: Vec::new(),
            renamed: Vec::new(),
            recycled_max,
            wants_spare: false,
            has_reserve: false,
            full_until: None,
            stop: Arc::default(),
        }
    }

    /// The next segment will soon be needed.
    pub(super) fn want_spare(&mut self) {
        self.wants_spare = true;
    }

    /// The new name that the file of a segment that counts no more is to get; `None` where it is
    /// to be removed.
    pub(super) fn name_to_recycle(&mut self, sequence: u64, file_bytes: u64) -> Option<PathBuf> {
        let kept = self.recycled.len() + self.renamed.len();
        let is_full = self.full_until.is_some() || self.is_room_wanted();
        if is_full || kept >= self.recycled_max || file_bytes != self.segment_bytes {
            return None;
        }
        let name = format!("{RECYCLED_PREFIX}{sequence:020}");
        self.renamed.push(self.dir.join(name));
        self.renamed.last().cloned()
    }

    /// The new names are durable. Only now may the files be written: before, a crash could give
    /// them their old names again.
    pub(super) fn recycle_renamed(&mut self) {
        self.recycled.append(&mut self.renamed);
        self.tell();
    }

    /// Sees what has become ready, and starts what is missing. Never waits, but on a disk of tests.
    pub(super) fn look(&mut self) {
        if !self.recycled.is_empty() && self.is_room_wanted() {
            self.give_back();
        }
        loop {
            if self.making.as_ref().is_some_and(JoinHandle::is_finished) {
                self.collect();
            }
            let is_left_alone = self.full_until.is_some_and(|until| Instant::now() < until);
            if is_left_alone || self.making.is_some() {
                break;
            }
            if self.reserve_bytes > 0 && !self.has_reserve {
                self.start(true);
            } else if self.wants_spare && self.spare.is_none() && self.recycled.is_empty() {
                self.start(false);
            } else {
                if self.full_until.take().is_some() {
                    let dir = self.dir.display();
                    tracing::info!(%dir, "the disk has room for the log again");
                }
                break;
            }
            if self.making.is_none() {
                break; // No thread: it is made when it is needed.
            }
        }
        self.tell();
    }

    /// When to look again though nothing happens.
    pub(super) fn look_after(&self) -> Option<Duration> {
        match (&self.making, self.full_until) {
            (Some(_), _) => Some(LOOK_AFTER),
            (None, Some(_)) => Some(RETRY_AFTER),
            (None, None) => (!self.recycled.is_empty()).then_some(GIVE_BACK_AFTER),
        }
    }

    /// A file whose blocks all are on the disk, with zeros or anything else in them, and its
    /// length: `wanted`, and not less than a segment has, or where the reserve has to do, at least
    /// `needed`. Waits where it is still being made.
    pub(super) fn take(
        &mut self,
        needed: u64,
        wanted: u64,
    ) -> Result<(DiskFile, u64), StorageError> {
        self.wants_spare = false;
        let wanted = wanted.max(self.segment_bytes);
        let fits = wanted == self.segment_bytes;
        let recycled = if fits { self.take_recycled() } else { None };
        let taken = match recycled {
            Some(file) => Ok(file),
            None => self.take_spare(wanted),
        };
        let taken = match taken {
            Err(full @ StorageError::Full { .. }) => {
                self.is_full();
                self.take_reserve(needed, full)
            }
            taken => taken.map(|file| (file, wanted)),
        };
        self.tell();
        taken
    }

    /// The last old segment that is kept.
    fn take_recycled(&mut self) -> Option<DiskFile> {
        while let Some(path) = self.recycled.pop() {
            match self.disk.open_direct(&path) {
                Ok(file) => {
                    // Why a spare could not be made is told only where one is needed.
                    self.spare.take_if(|spare| spare.is_err());
                    return Some(file);
                }
                Err(error) => tracing::warn!(%error, "an old log segment is of no use"),
            }
        }
        None
    }

    fn take_spare(&mut self, wanted: u64) -> Result<DiskFile, StorageError> {
        self.collect();
        let taken = match self.spare.take() {
            Some(Ok(spare)) => self.extend(spare, wanted),
            Some(Err(error)) => Err(error),
            None => self.make_spare(wanted),
        };
        match taken {
            Err(StorageError::Full { .. }) if !self.recycled.is_empty() => {
                self.give_back();
                self.make_spare(wanted)
            }
            taken => taken,
        }
    }

    fn make_spare(&self, bytes: u64) -> Result<DiskFile, StorageError> {
        make_spare(&self.disk, &self.dir.join(SPARE_NAME), bytes, &self.stop)
    }

    fn extend(&self, spare: DiskFile, to: u64) -> Result<DiskFile, StorageError> {
        if to > self.segment_bytes {
            fill(&spare, self.segment_bytes, to, &self.stop)?;
        }
        Ok(spare)
    }

    fn take_reserve(
        &mut self,
        bytes: u64,
        full: StorageError,
    ) -> Result<(DiskFile, u64), StorageError> {
        let path = self.dir.join(RESERVE_NAME);
        if bytes > self.reserve_bytes || !self.disk.exists(&path)? {
            return Err(full);
        }
        // One that was found may have to be made sure of, which takes no room.
        if !std::mem::take(&mut self.has_reserve)
            && make_reserve(&self.disk, &self.dir, self.reserve_bytes, &self.stop).is_err()
        {
            return Err(full);
        }
        tracing::warn!(
            dir = %self.dir.display(),
            "the disk is full; the log goes on in its reserve"
        );
        let file = self.disk.open_direct(&path)?;
        Ok((file, self.reserve_bytes))
    }

    fn collect(&mut self) {
        let Some(making) = self.making.take() else {
            return;
        };
        match making.join() {
            Ok(Ok(Made::Reserve)) => self.has_reserve = true,
            Ok(Ok(Made::Spare(file))) => self.spare = Some(Ok(file)),
            // It holds no data yet, so it may be tried again.
            Ok(Err(StorageError::Full { .. })) => self.is_full(),
            // Told when it is needed.
            Ok(Err(error)) => self.spare = Some(Err(error)),
            Err(_panic) => {
                let panicked = std::io::Error::other("the thread that makes room panicked");
                self.spare = Some(Err(io_error("create", &self.dir, &panicked)));
            }
        }
        self.tell();
    }

    fn is_full(&mut self) {
        if self.full_until.is_none() {
            tracing::warn!(
                dir = %self.dir.display(), segment_bytes = self.segment_bytes,
                "the disk has no room for the log's next segment"
            );
        }
        self.full_until = Some(Instant::now() + RETRY_AFTER);
        // Somebody needs the room now, and be it the reserve.
        self.give_back();
    }

    /// Whether others may soon need what the log keeps beyond its need.
    fn is_room_wanted(&self) -> bool {
        self.disk.has_less_than(FREE_BYTES_MIN, &self.dir)
    }

    /// Removes the old segments that are kept.
    fn give_back(&mut self) {
        for path in self.recycled.drain(..) {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, "an old log segment keeps its room");
            }
        }
    }

    fn start(&mut self, reserve: bool) {
        let (disk, dir, stop) = (self.disk.clone(), self.dir.clone(), Arc::clone(&self.stop));
        let (segment_bytes, reserve_bytes) = (self.segment_bytes, self.reserve_bytes);
        let maker = thread::Builder::new().name("wal-spare".to_owned());
        let spawned = maker.spawn(move || {
            if reserve {
                make_reserve(&disk, &dir, reserve_bytes, &stop)?;
                return Ok(Made::Reserve);
            }
            make_spare(&disk, &dir.join(SPARE_NAME), segment_bytes, &stop).map(Made::Spare)
        });
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
    }

    /// What readers see of it.
    fn tell(&self) {
        let is_coming = self.making.is_some() && self.wants_spare;
        let has_spare = is_coming || matches!(self.spare, Some(Ok(_)));
        let spare = if has_spare { self.segment_bytes } else { 0 };
        let reserve = if self.has_reserve {
            self.reserve_bytes
        } else {
            0
        };
        let recycled = self.recycled.len() as u64 * self.segment_bytes;
        let bytes = spare + reserve + recycled;
        self.shared.spare_bytes.store(bytes, Ordering::Relaxed);
        let is_short = self.full_until.is_some();
        let flag = &self.shared.is_short_of_room;
        flag.store(is_short, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(making) = self.making.take() {
            // What it made is not needed, nor is why it failed.
            drop(making.join());
        }
    }
}
