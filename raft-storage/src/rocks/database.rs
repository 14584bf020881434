//! The database of a log, as the writer and the readers share it: how it is opened and checked, and
//! what a batch becomes in it. Reading entries is in `reader`, the threads are not known here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::{AppendBatch, HardState, Index, LogUsage, StorageError, Term};
use rocksdb::{
    DB, DBCompressionType, DBRecoveryMode, ErrorKind, Options, WriteBatch, WriteOptions,
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
    log_bytes: u64,
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
            Some((_, Some(found))) => found.check(&self.path, owner),
            Some((version, None)) => {
                let read = keys::FORMAT_VERSION;
                let what = format!("has version {version}, this program reads version {read}");
                Err(foreign(&self.path, what))
            }
            None => Err(self.damaged("its owner cannot be read")),
        }
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
        let runs = self.runs()?;
        let outline = Outline::from_runs(runs, end.last).map_err(|what| self.damaged(what))?;
        let (held, last) = (self.last_entry_index()?, end.last.index);
        if held != last {
            let what = format!("its last entry is {held}, but should be {last}");
            return Err(self.damaged(what));
        }
        Ok(Durable {
            hard_state,
            outline,
            log_bytes: end.log_bytes,
        })
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
        let status = iterator.status();
        status.map_err(|error| rocks_error("read", &self.path, &error))?;
        Ok(runs)
    }

    fn last_entry_index(&self) -> Result<Index, StorageError> {
        let mut iterator = self.db.raw_iterator();
        iterator.seek_for_prev(keys::entry_key(Index(u64::MAX)));
        let found = iterator.key().and_then(keys::index_of);
        let status = iterator.status();
        status.map_err(|error| rocks_error("read", &self.path, &error))?;
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
            if entry.term() > durable.outline.last().term {
                writes.put(
                    keys::run_key(entry.index()),
                    keys::encode_term(entry.term()),
                );
            }
            let pushed = durable.outline.push(entry.id());
            pushed.expect("the batch was checked when it came in");
            durable.log_bytes += entry.encoded_len() as u64;
        }
        let end = LogEnd {
            last: durable.outline.last(),
            log_bytes: durable.log_bytes,
        };
        writes.put(keys::last_key(), end.encode());
        self.write(writes)?;
        *self.durable() = durable;
        Ok(())
    }

    /// Drops entries and term runs, the entries as one range: a wrong tail may be long.
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
        durable.log_bytes -= self.entry_bytes(from)?;
        writes.delete_range(keys::entry_key(from), keys::entry_key(last.next()));
        let runs = durable.outline.runs().iter();
        for (_, first) in runs.filter(|(_, first)| *first >= from) {
            writes.delete(keys::run_key(*first));
        }
        durable.outline.truncate(from);
        Ok(())
    }

    /// Encoded bytes of the entries from `from` on.
    fn entry_bytes(&self, from: Index) -> Result<u64, StorageError> {
        let mut bytes = 0;
        let mut iterator = self.db.raw_iterator();
        iterator.seek(keys::entry_key(from));
        while let Some((key, value)) = iterator.item() {
            if key > keys::entry_key(Index(u64::MAX)).as_slice() {
                break;
            }
            bytes += value.len() as u64;
            iterator.next();
        }
        let status = iterator.status();
        status.map_err(|error| rocks_error("read", &self.path, &error))?;
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
        }
    }
}
