//! How the database of a state is set up. Every number is here, with its reason.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options};

/// The smallest cache: below it, the index of a few gigabytes of data would not fit.
pub const STATE_CACHE_BYTES_MIN: usize = 8 << 20;

/// The largest cache: more would be a limit in name only.
pub const STATE_CACHE_BYTES_MAX: usize = 64 << 30;

/// Bytes that are collected in memory before they become a file. Two such buffers at most: one that
/// is filled and one that is being written. After a crash this much at most is applied again.
pub(super) const WRITE_BUFFER_BYTES: usize = 32 << 20;
pub(super) const WRITE_BUFFERS: i32 = 2;

/// Bytes of one block, the unit of reading and caching. Larger than the default of 4 KiB, because
/// each block costs an entry of the index, which is in the cache too.
const BLOCK_BYTES: usize = 16 << 10;

/// Bits per key of the filters that tell absent keys without reading: one in a hundred is read in
/// vain.
const FILTER_BITS: f64 = 10.0;

/// Files that are kept open. Their indexes and filters are in the cache, so this costs descriptors
/// and little else.
const OPEN_FILES: i32 = 512;

/// A file with this many deletions among so many neighbours is tidied up early, so that whoever
/// goes through the keys does not step over what is long gone.
const DELETION_WINDOW: usize = 1024;
const DELETION_TRIGGER: usize = 512;
const DELETION_RATIO: f64 = 0.5;

/// What is set per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// Bytes of data, indexes and filters that are cached. Together with two write buffers of 32
    /// MiB this is what the database takes of memory.
    pub cache_bytes: usize,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 128 << 20,
        }
    }
}

/// The options of RocksDB. Its own log is not among them: writes pass it by.
pub(super) fn database_options(options: &StateOptions, create: bool) -> Options {
    let mut blocks = BlockBasedOptions::default();
    let cache_bytes = options.cache_bytes;
    let cache_bytes = cache_bytes.clamp(STATE_CACHE_BYTES_MIN, STATE_CACHE_BYTES_MAX);
    blocks.set_block_cache(&Cache::new_lru_cache(cache_bytes));
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(FILTER_BITS, false);
    // Else they are in memory for every open file, and grow with the data.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut database = Options::default();
    database.create_if_missing(create);
    database.set_block_based_table_factory(&blocks);
    database.set_paranoid_checks(true);
    // Values are the user's bytes; whoever wants them smaller compresses them before they are
    // replicated. The libraries are not compiled in either.
    database.set_compression_type(DBCompressionType::None);
    database.set_write_buffer_size(WRITE_BUFFER_BYTES);
    database.set_max_write_buffer_number(WRITE_BUFFERS);
    database.set_max_background_jobs(2);
    // Keeps the size on the disk within about a ninth of the data.
    database.set_level_compaction_dynamic_level_bytes(true);
    database.set_max_open_files(OPEN_FILES);
    // A large flush would else leave all its writing to the sync at its end.
    database.set_bytes_per_sync(1 << 20);
    database.add_compact_on_deletion_collector_factory(
        DELETION_WINDOW,
        DELETION_TRIGGER,
        DELETION_RATIO,
    );
    database.set_keep_log_file_num(4);
    database.set_max_log_file_size(1 << 20);
    database
}
