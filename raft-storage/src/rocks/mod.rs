//! The log store over RocksDB: one synced write batch per append. Readers look at a snapshot of the
//! database, so they never see half of a batch and never wait for a sync.

mod keys;
mod reader;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use raft_core::{
    AppendBatch, HardState, Index, LoadedLog, LogReader, LogStore, LogUsage, StorageError, Term,
};
use rocksdb::{
    DB, DBCompressionType, DBRecoveryMode, ErrorKind, Options, WriteBatch, WriteOptions,
};

use crate::batch_thread::{BatchThread, BatchWriter, Outcome, Poison};
use crate::errors::{damaged, foreign, io_error};
use crate::files::create_dir_synced;
use crate::hard_state::{decode_hard_state, encode_hard_state};
use crate::outline::Outline;
use crate::owner::WalOwner;
use keys::{LogEnd, OWNER_KEY};
use reader::RocksReader;

/// A log in a RocksDB database of its own. Dropping it waits for the batch that is being written;
/// the database is closed with the last reader.
#[derive(Debug)]
pub struct RocksLogStore {
    shared: Arc<Shared>,
    thread: BatchThread,
}

/// What writer and readers share.
#[derive(Debug)]
struct Shared {
    db: DB,
    path: PathBuf,
    poison: Arc<Poison>,
    durable: Mutex<Durable>,
}

/// What is in the database.
#[derive(Clone, Debug, Default)]
struct Durable {
    hard_state: HardState,
    outline: Outline,
    log_bytes: u64,
}

impl RocksLogStore {
    /// Opens the log in `dir`, and creates it where there is none.
    ///
    /// # Errors
    /// `Damaged` where RocksDB finds damage or its keys contradict each other; `Foreign` where the
    /// log is not `owner`'s or is of another version; `Io` or `Full` where the system refuses, also
    /// where another process has it open.
    pub fn open(dir: &Path, owner: WalOwner) -> Result<Self, StorageError> {
        create_dir_synced(dir)?;
        Self::open_with(dir, owner, true)
    }

    /// Opens a log that must be there: to a node that has made promises, an empty directory is a
    /// lost disk, not a beginning.
    ///
    /// # Errors
    /// As [`RocksLogStore::open`]; `Foreign` where there is no log.
    pub fn open_existing(dir: &Path, owner: WalOwner) -> Result<Self, StorageError> {
        // RocksDB would write its own files into the directory before it noticed.
        if !dir.join("CURRENT").is_file() {
            return Err(foreign(dir, NO_LOG));
        }
        Self::open_with(dir, owner, false)
    }

    fn open_with(dir: &Path, owner: WalOwner, create: bool) -> Result<Self, StorageError> {
        let db = DB::open(&database_options(create), dir)
            .map_err(|error| rocks_error("open", dir, &error))?;
        let mut shared = Shared {
            db,
            path: dir.to_owned(),
            poison: Arc::default(),
            durable: Mutex::default(),
        };
        shared.check_owner(&owner)?;
        shared.durable = Mutex::new(shared.recover()?);
        let shared = Arc::new(shared);
        let writer = RocksWriter(Arc::clone(&shared));
        let thread = BatchThread::start("rocks-writer", Arc::clone(&shared.poison), writer)
            .map_err(|error| io_error("start the writer of", dir, &error))?;
        Ok(Self { shared, thread })
    }
}

const NO_LOG: &str = "holds no log, but must: its disk was lost, or it was never formatted";

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
fn rocks_error(operation: &'static str, path: &Path, error: &rocksdb::Error) -> StorageError {
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
    fn durable(&self) -> MutexGuard<'_, Durable> {
        // Replaced as a whole, so no panic leaves half of a batch behind.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, what: impl Into<String>) -> StorageError {
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

    fn append(&self, batch: &AppendBatch) -> Result<(), StorageError> {
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
    fn usage(&self) -> LogUsage {
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

/// The writing side of the database, which the thread owns.
struct RocksWriter(Arc<Shared>);

impl BatchWriter for RocksWriter {
    fn append(&mut self, batch: &AppendBatch) -> Outcome {
        self.0.append(batch)
    }
}

#[async_trait]
impl LogStore for RocksLogStore {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        self.shared.poison.check()?;
        let durable = self.shared.durable();
        Ok(LoadedLog {
            hard_state: durable.hard_state,
            term_runs: durable.outline.runs().to_vec(),
            last: durable.outline.last(),
        })
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        self.thread.settle().await?;
        self.shared.durable().outline.assert_fits(&batch);
        self.thread.append(batch).await
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(RocksReader {
            shared: Arc::clone(&self.shared),
        })
    }
}
