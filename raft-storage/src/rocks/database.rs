//! The database of a log, as the writer and the readers share it: what is in it, and what a batch
//! becomes in it. Opening is in `opening`, reading entries in `reader`; threads are not known here.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{AppendBatch, EntryKind, HardState, Index, LogId, LogUsage, StorageError, Term};
use rocksdb::properties::{SIZE_ALL_MEM_TABLES, TOTAL_SST_FILES_SIZE};
use rocksdb::{ColumnFamily, DB, DBRawIterator, WriteBatch};

use super::calls::write_synced;
use super::keys::{self, LogEnd};
use super::opening;
use super::options::{META, WRITE_BUFFER_BYTES, WRITE_BUFFERS_MAX};
use crate::batch_thread::Poison;
use crate::errors::damaged;
use crate::files::Disk;
use crate::hard_state::{decode_hard_state, encode_hard_state};
use crate::outline::Outline;
use crate::owner::WalOwner;
use crate::rocks_errors::rocks_error;

/// What must be free: all buffers may become files before anything is given back. RocksDB keeps
/// nothing in reserve, and after a full disk it takes nothing any more.
const FREE_BYTES_MIN: u64 = WRITE_BUFFER_BYTES as u64 * WRITE_BUFFERS_MAX as u64;

/// What writer and readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) db: DB,
    pub(super) path: PathBuf,
    pub(super) poison: Arc<Poison>,
    durable: Mutex<Durable>,
}

/// What is in the database.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) hard_state: HardState,
    pub(super) outline: Outline,
    /// Which entries are memberships; in order.
    pub(super) memberships: Vec<Index>,
    pub(super) log_bytes: u64,
}

impl Shared {
    /// Opens the database in `dir`, which becomes `owner`'s where it is new, and recovers its log.
    pub(super) fn open(
        dir: &Path,
        owner: &WalOwner,
        create: bool,
        write_buffer_bytes: usize,
    ) -> Result<Self, StorageError> {
        let db = opening::open(dir, owner, create, write_buffer_bytes)?;
        let mut shared = Self {
            db,
            path: dir.to_owned(),
            poison: Arc::default(),
            durable: Mutex::default(),
        };
        shared.durable = Mutex::new(shared.recover()?);
        // Where a crash came between a compaction and the end of its removals.
        shared.remove_compacted()?;
        Ok(shared)
    }

    /// Opens the database as it is, for reading only.
    pub(super) fn open_read_only(dir: &Path, owner: &WalOwner) -> Result<Self, StorageError> {
        let mut shared = Self {
            db: opening::open_read_only(dir, owner)?,
            path: dir.to_owned(),
            poison: Arc::default(),
            durable: Mutex::default(),
        };
        shared.durable = Mutex::new(shared.recover()?);
        Ok(shared)
    }

    /// Where all is kept that is no entry.
    pub(super) fn meta(&self) -> &ColumnFamily {
        opening::family(&self.db, META)
    }

    pub(super) fn durable(&self) -> MutexGuard<'_, Durable> {
        // Replaced as a whole, so no panic leaves half of a batch behind.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> StorageError {
        damaged(&self.path, 0, what)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let value = self.db.get_cf(self.meta(), key);
        value.map_err(|error| rocks_error("read", &self.path, &error))
    }

    /// What the database holds, checked as far as that is possible without reading every entry.
    fn recover(&self) -> Result<Durable, StorageError> {
        let hard_state = match self.value(&keys::hard_state_key())? {
            Some(value) => decode_hard_state(&value)
                .ok_or_else(|| self.damaged("its hard state cannot be read"))?,
            None => HardState::default(),
        };
        let end = match self.value(&keys::last_key())? {
            Some(value) => LogEnd::decode(&value)
                .ok_or_else(|| self.damaged("its last entry's id cannot be read"))?,
            None => LogEnd::default(),
        };
        let start = match self.value(&keys::start_key())? {
            Some(value) => keys::decode_start(&value)
                .ok_or_else(|| self.damaged("where it begins cannot be read"))?,
            None => LogId::ZERO,
        };
        let runs = self.runs()?;
        let outline = Outline::from_runs(runs, start, end.last);
        let outline = outline.map_err(|what| self.damaged(what))?;
        self.check_ends(&outline)?;
        Ok(Durable {
            hard_state,
            memberships: self.memberships(&outline)?,
            outline,
            log_bytes: end.log_bytes,
        })
    }

    /// Whether the first and the last entry are those of the outline.
    fn check_ends(&self, outline: &Outline) -> Result<(), StorageError> {
        let (start, last) = (outline.start().index, outline.last().index);
        let held = self.last_entry_index()?;
        // Where there is none, what is left of compacted ones does not count.
        let is_right = held == last || (start == last && held < last);
        if !is_right {
            let what = format!("its last entry is {held}, but should be {last}");
            return Err(self.damaged(what));
        }
        let first = outline.first_index();
        let mut iterator = self.db.raw_iterator();
        iterator.seek(keys::entry_key(first));
        let found = iterator.key().and_then(keys::index_of);
        self.check_status(&iterator)?;
        if start < last && found != Some(first) {
            return Err(self.damaged(format!("its first entry should be {first}")));
        }
        Ok(())
    }

    fn check_status(&self, iterator: &DBRawIterator<'_>) -> Result<(), StorageError> {
        let status = iterator.status();
        status.map_err(|error| rocks_error("read", &self.path, &error))
    }

    fn runs(&self) -> Result<Vec<(Term, Index)>, StorageError> {
        let mut runs = Vec::new();
        let mut iterator = self.db.raw_iterator_cf(self.meta());
        iterator.seek(keys::run_key(Index(0)));
        while let Some((key, value)) = iterator.item() {
            if key > keys::run_key(Index(u64::MAX)).as_slice() {
                break;
            }
            let run = keys::decode_term(value).zip(keys::index_of(key));
            runs.push(run.ok_or_else(|| self.damaged("a term run cannot be read"))?);
            iterator.next();
        }
        self.check_status(&iterator)?;
        Ok(runs)
    }

    /// Which entries are memberships.
    fn memberships(&self, outline: &Outline) -> Result<Vec<Index>, StorageError> {
        let mut memberships = Vec::new();
        let mut iterator = self.db.raw_iterator_cf(self.meta());
        iterator.seek(keys::membership_key(Index(0)));
        while let Some(key) = iterator.key() {
            if key > keys::membership_key(Index(u64::MAX)).as_slice() {
                break;
            }
            let index = keys::index_of(key);
            let held = index
                .filter(|index| *index >= outline.first_index() && *index <= outline.last().index);
            memberships.push(held.ok_or_else(|| {
                self.damaged(format!("a membership at {index:?} is not in the log"))
            })?);
            iterator.next();
        }
        self.check_status(&iterator)?;
        Ok(memberships)
    }

    fn last_entry_index(&self) -> Result<Index, StorageError> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek_for_prev(keys::entry_key(Index(u64::MAX)));
        let found = iterator.key().and_then(keys::index_of);
        self.check_status(&iterator)?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn append(&self, batch: &AppendBatch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        let meta = self.meta();
        let mut durable = self.durable().clone();
        let mut writes = WriteBatch::default();
        if let Some(hard_state) = batch.hard_state {
            writes.put_cf(meta, keys::hard_state_key(), encode_hard_state(hard_state));
            durable.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            self.truncate(from, &mut durable, &mut writes)?;
        }
        let mut encoded = Vec::new();
        for entry in &batch.entries {
            encoded.clear();
            encoded.extend_from_slice(&entry.header());
            encoded.extend_from_slice(entry.payload());
            writes.put(keys::entry_key(entry.index()), &encoded);
            let newest = durable.outline.runs().last().map(|run| run.0);
            if newest != Some(entry.term()) {
                let term = keys::encode_term(entry.term());
                writes.put_cf(meta, keys::run_key(entry.index()), term);
            }
            if entry.kind() == EntryKind::Membership {
                writes.put_cf(meta, keys::membership_key(entry.index()), b"");
                durable.memberships.push(entry.index());
            }
            let pushed = durable.outline.push(entry.id());
            pushed.expect("the batch was checked when it came in");
            durable.log_bytes += entry.encoded_len() as u64;
        }
        self.publish(writes, durable)
    }

    /// Makes a change durable, with where the log ends behind it, and shows it.
    fn publish(&self, mut writes: WriteBatch, durable: Durable) -> Result<(), StorageError> {
        let end = LogEnd {
            last: durable.outline.last(),
            log_bytes: durable.log_bytes,
        };
        writes.put_cf(self.meta(), keys::last_key(), end.encode());
        write_synced(&self.db, &self.path, writes)?;
        *self.durable() = durable;
        Ok(())
    }

    /// Drops all entries up to `to`, which is held: nobody reads before the start, so the entries
    /// need no tombstones, and files that hold none but such go whole.
    pub(super) fn compact(&self, to: LogId) -> Result<(), StorageError> {
        let meta = self.meta();
        let mut durable = self.durable().clone();
        let (first, last) = (durable.outline.first_index(), durable.outline.last().index);
        let next = to.index.next();
        // Either part tells the bytes of the other: the one with fewer entries is counted.
        let (dropped, kept) = (next.0 - first.0, last.next().0 - next.0);
        if kept < dropped {
            durable.log_bytes = self.entry_bytes(next..last.next())?;
        } else {
            durable.log_bytes -= self.entry_bytes(first..next)?;
        }
        let mut writes = WriteBatch::default();
        writes.put_cf(meta, keys::start_key(), keys::encode_start(to));
        for (_, begun) in durable.outline.runs().iter().filter(|run| run.1 < next) {
            writes.delete_cf(meta, keys::run_key(*begun));
        }
        for index in durable.memberships.iter().filter(|index| **index < next) {
            writes.delete_cf(meta, keys::membership_key(*index));
        }
        durable.memberships.retain(|index| *index >= next);
        durable.outline.compact(to);
        // The run that `to` is in may go on behind it.
        if let Some((term, begun)) = durable.outline.runs().first() {
            writes.put_cf(meta, keys::run_key(*begun), keys::encode_term(*term));
        }
        self.publish(writes, durable)?;
        self.remove_compacted()
    }

    /// Drops all entries; the log goes on behind `to`. Only those behind `to` could be taken for
    /// entries of the new log, so only they are deleted as a range.
    pub(super) fn reset(&self, to: LogId) -> Result<(), StorageError> {
        let meta = self.meta();
        let before = self.durable().clone();
        let mut writes = WriteBatch::default();
        writes.put_cf(meta, keys::start_key(), keys::encode_start(to));
        let (next, end) = (to.index.next(), before.outline.last().index.next());
        if next < end {
            writes.delete_range(keys::entry_key(next), keys::entry_key(end));
        }
        for (_, begun) in before.outline.runs() {
            writes.delete_cf(meta, keys::run_key(*begun));
        }
        for index in &before.memberships {
            writes.delete_cf(meta, keys::membership_key(*index));
        }
        let durable = Durable {
            hard_state: before.hard_state,
            outline: Outline::starting_behind(to),
            ..Durable::default()
        };
        self.publish(writes, durable)?;
        self.remove_compacted()
    }

    /// Removes the files that hold nothing but entries before the start. What is left of such
    /// entries is in memory, or in a file with others, and goes with a later compaction. A reader
    /// that began before keeps the files that it reads.
    fn remove_compacted(&self) -> Result<(), StorageError> {
        let start = self.durable().outline.start().index;
        let (from, to) = (keys::entry_key(Index(0)), keys::entry_key(start));
        let removed = self.db.delete_file_in_range(from, to);
        removed.map_err(|error| rocks_error("remove files of", &self.path, &error))
    }

    /// Drops entries, term runs and memberships, the entries as one range: a wrong tail may be
    /// long.
    fn truncate(
        &self,
        from: Index,
        durable: &mut Durable,
        writes: &mut WriteBatch,
    ) -> Result<(), StorageError> {
        let last = durable.outline.last().index;
        if from > last {
            return Ok(());
        }
        durable.log_bytes -= self.entry_bytes(from..last.next())?;
        writes.delete_range(keys::entry_key(from), keys::entry_key(last.next()));
        let (meta, runs) = (self.meta(), durable.outline.runs().iter());
        for (_, first) in runs.filter(|(_, first)| *first >= from) {
            writes.delete_cf(meta, keys::run_key(*first));
        }
        for index in durable.memberships.iter().filter(|index| **index >= from) {
            writes.delete_cf(meta, keys::membership_key(*index));
        }
        durable.memberships.retain(|index| *index < from);
        durable.outline.truncate(from);
        Ok(())
    }

    /// Encoded bytes of these entries.
    fn entry_bytes(&self, range: Range<Index>) -> Result<u64, StorageError> {
        let mut bytes = 0;
        let mut iterator = self.db.raw_iterator();
        iterator.seek(keys::entry_key(range.start));
        while let Some((key, value)) = iterator.item() {
            if key >= keys::entry_key(range.end).as_slice() {
                break;
            }
            bytes += value.len() as u64;
            iterator.next();
        }
        self.check_status(&iterator)?;
        Ok(bytes)
    }

    /// Files of the database as RocksDB counts them; the part of its own log that is not in them
    /// yet is about as large as what it holds in memory.
    pub(super) fn usage(&self) -> LogUsage {
        self.usage_with(FREE_BYTES_MIN)
    }

    /// The same, where so much must be free.
    pub(super) fn usage_with(&self, free_bytes_min: u64) -> LogUsage {
        let property = |name| {
            let of_entries = self.db.property_int_value(name);
            let of_meta = self.db.property_int_value_cf(self.meta(), name);
            [of_entries, of_meta].map(|bytes| bytes.ok().flatten().unwrap_or_default())
        };
        let disk_bytes = [TOTAL_SST_FILES_SIZE, SIZE_ALL_MEM_TABLES];
        LogUsage {
            log_bytes: self.durable().log_bytes,
            disk_bytes: disk_bytes.into_iter().flat_map(property).sum(),
            is_short_of_room: Disk::default().has_less_than(free_bytes_min, &self.path),
        }
    }
}
