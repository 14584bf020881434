//! The database of a log, as the writer and the readers share it: how it is opened and checked, and
//! what a batch becomes in it. Reading entries is in `reader`, the threads are not known here.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{AppendBatch, EntryKind, HardState, Index, LogId, LogUsage, StorageError, Term};
use rocksdb::{
    DB, DBCompressionType, DBRawIterator, DBRecoveryMode, ErrorKind, Options, WriteBatch,
    WriteOptions,
};

use super::keys::{self, LogEnd, OWNER_KEY};
use crate::batch_thread::Poison;
use crate::errors::{damaged, foreign};
use crate::hard_state::{decode_hard_state, encode_hard_state};
use crate::outline::Outline;
use crate::owner::WalOwner;

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

/// Options of a database that holds nothing but a log.
fn database_options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    // The default recovers to the newest consistent point and so hides damage in the middle of
    // RocksDB's own log; this mode forgives an unfinished last record and nothing else.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A missing or shortened file of RocksDB's own log is an error, not a shorter history.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    // Commands are the user's bytes; whoever wants them smaller compresses them before they are
    // replicated. The libraries are not compiled in either.
    options.set_compression_type(DBCompressionType::None);
    // A raft log is written once, read near its end and dropped at both ends. Large buffers keep
    // most of it out of compactions; two background threads suffice for the rest.
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(3);
    options.set_max_background_jobs(2);
    // Files would otherwise stay open without a limit.
    options.set_max_open_files(256);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(1 << 20);
    options
}

/// RocksDB tells errors as text with a kind in front.
pub(super) fn rocks_error(
    operation: &'static str,
    path: &Path,
    error: &rocksdb::Error,
) -> StorageError {
    let message = error.to_string();
    let shown = path.display().to_string();
    match error.kind() {
        ErrorKind::Corruption => damaged(path, 0, message),
        ErrorKind::IOError if message.contains("No space left on device") => StorageError::Full {
            operation,
            path: shown,
        },
        _ => StorageError::Io {
            operation,
            path: shown,
            message,
        },
    }
}

impl Shared {
    /// Opens the database in `dir`, which becomes `owner`'s where it is new, and recovers its log.
    pub(super) fn open(dir: &Path, owner: &WalOwner, create: bool) -> Result<Self, StorageError> {
        let db = DB::open(&database_options(create), dir)
            .map_err(|error| rocks_error("open", dir, &error))?;
        let mut shared = Self {
            db,
            path: dir.to_owned(),
            poison: Arc::default(),
            durable: Mutex::default(),
        };
        shared.check_owner(owner)?;
        shared.durable = Mutex::new(shared.recover()?);
        Ok(shared)
    }

    pub(super) fn durable(&self) -> MutexGuard<'_, Durable> {
        // Replaced as a whole, so no panic leaves half of a batch behind.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> StorageError {
        damaged(&self.path, 0, what)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let value = self.db.get(key);
        value.map_err(|error| rocks_error("read", &self.path, &error))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        let written = self.db.write_opt(batch, &options);
        written.map_err(|error| rocks_error("write", &self.path, &error))
    }

    /// Refuses another's database; a new one becomes `owner`'s.
    fn check_owner(&self, owner: &WalOwner) -> Result<(), StorageError> {
        let Some(value) = self.value(OWNER_KEY)? else {
            if self
                .db
                .iterator(rocksdb::IteratorMode::Start)
                .next()
                .is_some()
            {
                return Err(foreign(&self.path, "is a database, but not a raft log"));
            }
            let mut batch = WriteBatch::default();
            batch.put(OWNER_KEY, keys::encode_owner(owner));
            return self.write(batch);
        };
        match keys::decode_owner(&value) {
            Some((version, Some(found))) => {
                found.check(&self.path, owner)?;
                self.upgrade(version, owner)
            }
            Some((version, None)) => {
                let read = keys::FORMAT_VERSION;
                let what = format!("has version {version}, this program reads up to {read}");
                Err(foreign(&self.path, what))
            }
            None => Err(self.damaged("its owner cannot be read")),
        }
    }

    /// Names the version that is written from now on, so that an older program refuses what it
    /// would misread.
    fn upgrade(&self, version: u32, owner: &WalOwner) -> Result<(), StorageError> {
        if version == keys::FORMAT_VERSION {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.put(OWNER_KEY, keys::encode_owner(owner));
        self.write(batch)
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
        let mut iterator = self.db.raw_iterator();
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
        let mut iterator = self.db.raw_iterator();
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
        let mut durable = self.durable().clone();
        let mut writes = WriteBatch::default();
        if let Some(hard_state) = batch.hard_state {
            writes.put(keys::hard_state_key(), encode_hard_state(hard_state));
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
                writes.put(
                    keys::run_key(entry.index()),
                    keys::encode_term(entry.term()),
                );
            }
            if entry.kind() == EntryKind::Membership {
                writes.put(keys::membership_key(entry.index()), b"");
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
        writes.put(keys::last_key(), end.encode());
        self.write(writes)?;
        *self.durable() = durable;
        Ok(())
    }

    /// Drops all entries up to `to`, which is held, as one range.
    pub(super) fn compact(&self, to: LogId) -> Result<(), StorageError> {
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
        writes.put(keys::start_key(), keys::encode_start(to));
        writes.delete_range(keys::entry_key(first), keys::entry_key(next));
        for (_, begun) in durable.outline.runs().iter().filter(|run| run.1 < next) {
            writes.delete(keys::run_key(*begun));
        }
        for index in durable.memberships.iter().filter(|index| **index < next) {
            writes.delete(keys::membership_key(*index));
        }
        durable.memberships.retain(|index| *index >= next);
        durable.outline.compact(to);
        // The run that `to` is in may go on behind it.
        if let Some((term, begun)) = durable.outline.runs().first() {
            writes.put(keys::run_key(*begun), keys::encode_term(*term));
        }
        self.publish(writes, durable)
    }

    /// Drops all entries; the log goes on behind `to`.
    pub(super) fn reset(&self, to: LogId) -> Result<(), StorageError> {
        let before = self.durable().clone();
        let mut writes = WriteBatch::default();
        writes.put(keys::start_key(), keys::encode_start(to));
        let (first, last) = (before.outline.first_index(), before.outline.last().index);
        if first <= last {
            writes.delete_range(keys::entry_key(first), keys::entry_key(last.next()));
        }
        for (_, begun) in before.outline.runs() {
            writes.delete(keys::run_key(*begun));
        }
        for index in &before.memberships {
            writes.delete(keys::membership_key(*index));
        }
        let durable = Durable {
            hard_state: before.hard_state,
            outline: Outline::starting_behind(to),
            ..Durable::default()
        };
        self.publish(writes, durable)
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
        let runs = durable.outline.runs().iter();
        for (_, first) in runs.filter(|(_, first)| *first >= from) {
            writes.delete(keys::run_key(*first));
        }
        for index in durable.memberships.iter().filter(|index| **index >= from) {
            writes.delete(keys::membership_key(*index));
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
        let property = |name: &str| self.db.property_int_value(name).ok().flatten();
        let disk_bytes = [
            "rocksdb.total-sst-files-size",
            "rocksdb.size-all-mem-tables",
        ];
        LogUsage {
            log_bytes: self.durable().log_bytes,
            disk_bytes: disk_bytes.into_iter().filter_map(property).sum(),
            is_short_of_room: false,
        }
    }
}
