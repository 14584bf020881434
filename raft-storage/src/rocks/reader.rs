//! Reads entries from one snapshot of the database, beside the writer. The snapshot also holds
//! where the log ends and where terms begin, so what it says is checked against itself.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Entry, Index, LogReader, LogUsage, StorageError, Term};
use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode};

use super::database::Shared;
use super::keys::{self, LogEnd};
use crate::blocking::blocking;
use crate::outline::fits_read;
use crate::rocks_errors::rocks_error;

/// The most bytes that RocksDB reads ahead of a read.
const READAHEAD_BYTES_MAX: usize = 1 << 20;

/// The reader of a log in RocksDB.
#[derive(Debug)]
pub(super) struct RocksReader {
    pub(super) shared: Arc<Shared>,
}

#[async_trait]
impl LogReader for RocksReader {
    async fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.read(range, bytes_max)).await
    }

    fn usage(&self) -> LogUsage {
        self.shared.usage()
    }
}

pub(super) type Snapshot<'a> = SnapshotWithThreadMode<'a, DB>;

impl Shared {
    pub(super) fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        self.poison.check()?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.read_at(&self.db.snapshot(), &range, bytes_max)
    }

    pub(super) fn read_at(
        &self,
        snapshot: &Snapshot<'_>,
        range: &Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let held = self.range_at(snapshot, range)?;
        self.read_entries(snapshot, held, bytes_max)
            .or_else(|error| {
                // What was compacted after the snapshot was taken may have no file any more.
                self.range_at(&self.db.snapshot(), range)?;
                Err(error)
            })
    }

    /// The part of a range that is held, which is not empty.
    fn range_at(
        &self,
        snapshot: &Snapshot<'_>,
        range: &Range<Index>,
    ) -> Result<Range<Index>, StorageError> {
        let last = self.last_index(snapshot)?;
        let first = self.first_index(snapshot)?;
        if range.start < first || range.start > last {
            return Err(StorageError::OutOfRange {
                from: range.start,
                first,
                last,
            });
        }
        Ok(range.start..range.end.min(last.next()))
    }

    fn read_entries(
        &self,
        snapshot: &Snapshot<'_>,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut options = ReadOptions::default();
        // Nobody reads the same entries soon again, and small reads need little.
        options.set_readahead_size(READAHEAD_BYTES_MAX.min(bytes_max));
        options.fill_cache(false);
        options.set_iterate_upper_bound(keys::entry_key(range.end));
        let mut iterator = snapshot.raw_iterator_opt(options);
        iterator.seek(keys::entry_key(range.start));
        let (mut entries, mut taken) = (Vec::new(), 0);
        let mut index = range.start;
        let mut term = self.term_at(snapshot, index)?;
        while index < range.end {
            let found = iterator.item();
            let Some(value) = found.filter(|(key, _)| *key == keys::entry_key(index)) else {
                let status = iterator.status();
                status.map_err(|error| rocks_error("read", &self.path, &error))?;
                return Err(self.damaged(format!("entry {index} is missing")));
            };
            let value = value.1;
            if !fits_read(taken, value.len(), bytes_max) {
                break;
            }
            taken += value.len();
            let entry = Entry::decode(&mut Bytes::copy_from_slice(value));
            let entry = entry.map_err(|error| self.damaged(error.to_string()))?;
            if entry.term() > term {
                term = self.term_at(snapshot, index)?;
            }
            if entry.index() != index || entry.term() != term {
                let what = format!("entry {index}@{term} is not here, but {}", entry.id());
                return Err(self.damaged(what));
            }
            entries.push(entry);
            index = index.next();
            iterator.next();
        }
        Ok(entries)
    }

    fn first_index(&self, snapshot: &Snapshot<'_>) -> Result<Index, StorageError> {
        let value = snapshot.get_cf(self.meta(), keys::start_key());
        let value = value.map_err(|error| rocks_error("read", &self.path, &error))?;
        let Some(value) = value else {
            return Ok(Index(1));
        };
        let start = keys::decode_start(&value);
        let start = start.ok_or_else(|| self.damaged("where it begins cannot be read"))?;
        Ok(start.index.next())
    }

    fn last_index(&self, snapshot: &Snapshot<'_>) -> Result<Index, StorageError> {
        let value = snapshot.get_cf(self.meta(), keys::last_key());
        let value = value.map_err(|error| rocks_error("read", &self.path, &error))?;
        let Some(value) = value else {
            return Ok(Index(0));
        };
        let end = LogEnd::decode(&value);
        let end = end.ok_or_else(|| self.damaged("its last entry's id cannot be read"))?;
        Ok(end.last.index)
    }

    /// The term of the run that `index` is in.
    fn term_at(&self, snapshot: &Snapshot<'_>, index: Index) -> Result<Term, StorageError> {
        let mut iterator = snapshot.raw_iterator_cf(self.meta());
        iterator.seek_for_prev(keys::run_key(index));
        let run = iterator.item().filter(|(key, _)| key[0] == b't');
        let term = run.and_then(|(_, value)| keys::decode_term(value));
        let status = iterator.status();
        status.map_err(|error| rocks_error("read", &self.path, &error))?;
        term.ok_or_else(|| self.damaged(format!("no term run holds entry {index}")))
    }
}
