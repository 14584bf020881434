//! How RocksDB is set up for a raft log, which is appended to, read near its end and dropped from
//! its beginning. Each choice is explained in `docs/decisions/0013-rocksdb-for-a-log.md`.
//!
//! ```text
//! default   'e' keys only: entries, in ascending files that move down without being rewritten
//! meta      all other keys: few, small, written again and again
//! ```

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options,
};

/// The column family of the entries.
pub(super) const ENTRIES: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// The column family of all else.
pub(super) const META: &str = "meta";

/// Bytes in memory before they become a file. A replay on opening reads at most twice as much of
/// RocksDB's own log, and a file is what compaction gives back at a time.
pub(super) const WRITE_BUFFER_BYTES: usize = 64 << 20;
/// Buffers of one family: the one that is written and those that are becoming files.
pub(super) const WRITE_BUFFERS_MAX: i32 = 3;
/// Flushes, and the moves of what was flushed.
const BACKGROUND_JOBS_MAX: i32 = 2;
/// Files that RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 256;
/// Entries are read in order, so blocks are large and few.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks kept in memory; reads of a catch-up leave none behind.
const CACHE_BYTES: usize = 8 << 20;
/// What RocksDB tells about itself in its `LOG` files.
const OWN_LOG_FILES_MAX: usize = 4;
const OWN_LOG_BYTES_MAX: usize = 1 << 20;
/// Bytes of a manifest that are rewritten when they are mostly history.
const MANIFEST_BYTES: usize = 1 << 20;

/// Options of the database as a whole.
pub(super) fn database_options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    // The default recovers to the newest consistent point and so hides damage in the middle of
    // RocksDB's own log; this mode forgives a record that the file is too short for, and nothing
    // else. One that is torn otherwise is found before, see `tail`. The mode forbids
    // that the files of that log are recycled, which costs RocksDB half of its speed at small
    // batches and is the price of being told.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A missing or shortened file of RocksDB's own log is an error, not a shorter history.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    // A family that is hardly written would otherwise keep the files of RocksDB's own log.
    options.set_atomic_flush(true);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(OWN_LOG_FILES_MAX);
    options.set_max_log_file_size(OWN_LOG_BYTES_MAX);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options
}

/// The families of a database.
pub(super) fn families(write_buffer_bytes: usize) -> [ColumnFamilyDescriptor; 2] {
    [ENTRIES, META]
        .map(|name| ColumnFamilyDescriptor::new(name, family_options(write_buffer_bytes)))
}

/// Options of either family.
pub(super) fn family_options(write_buffer_bytes: usize) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    // A flushed file goes to the last level at once. Entries ascend, so their files do not overlap
    // and are moved there by name; and only files that are not in the first level can be dropped
    // whole when the log is compacted.
    options.set_num_levels(2);
    options.set_level_zero_file_num_compaction_trigger(1);
    options.set_target_file_size_base(write_buffer_bytes as u64);
    // Commands are the user's bytes; whoever wants them smaller compresses them before they are
    // replicated. The libraries are not compiled in either.
    options.set_compression_type(DBCompressionType::None);
    let mut tables = BlockBasedOptions::default();
    tables.set_block_size(BLOCK_BYTES);
    tables.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    options.set_block_based_table_factory(&tables);
    options
}
