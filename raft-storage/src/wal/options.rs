//! What the file log is told when it is opened, and what it reports when it is.

use std::path::PathBuf;
use std::time::Duration;

use raft_core::entry::{ENTRY_HEADER_BYTES, ENTRY_PAYLOAD_BYTES_MAX};
use raft_core::{GroupId, LogId, StorageError};

use crate::batch_thread::QUEUED_CHANGES_MAX;
use crate::files::Disk;

/// The most bytes that an encoded entry has.
pub(super) const ENTRY_BYTES_MAX: usize = ENTRY_HEADER_BYTES + ENTRY_PAYLOAD_BYTES_MAX;

/// Settings of a file log.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Bytes of a segment file, 64 MiB unless told. Values outside
    /// [`WalOptions::SEGMENT_BYTES_MIN`] and [`WalOptions::SEGMENT_BYTES_MAX`] are taken to the
    /// nearer of the two. A segment becomes larger where a single entry needs it.
    pub segment_bytes: u64,
    /// Bytes of the reserve: a file that becomes the next segment when the disk has no room for
    /// another one. `None`, unless told: as many as a segment has. 0: no reserve. Other values are
    /// taken to the nearest that a segment may have.
    pub reserve_bytes: Option<u64>,
    /// Segments that count no more and are kept to be written again, at most; 4 unless told, which
    /// is as much as a node's log has between two snapshots. A segment for which there is none is
    /// filled with zeros first. 0: all are removed.
    pub recycled_segments_max: usize,
    /// Whether a directory without a log gets a new, empty one. True unless told. A node that has
    /// made promises before opens with `false`: an empty directory is then a lost disk, not a
    /// beginning.
    pub create: bool,
    /// How long after the last batch, and again when the store is dropped, a record is written that
    /// vouches for it: 50 ms unless told. Before that, damage to the very last batch cannot be told
    /// from a torn write and is cut. `None`: never, so that the next batch has to vouch.
    pub witness_after: Option<Duration>,
    /// Whether a log whose synced data is damaged is opened without its entries, to be filled again
    /// from the leader, where the newest term and vote are certain all the same: see
    /// [`raft_core::LoadedLog::refill_to`], which whoever runs the log must heed. False unless
    /// told: damage is refused.
    pub repair: bool,
    /// Where the snapshots are kept: in `snapshots` beside the log's directory unless told. Each
    /// log needs a directory of its own for them.
    pub snapshots: Option<PathBuf>,
    /// The disk that log and snapshots are on: the machine's own unless told.
    pub disk: Disk,
}

impl WalOptions {
    /// The smallest segment: the header page and a page of records.
    pub const SEGMENT_BYTES_MIN: u64 = 8 << 10;
    /// The largest segment.
    pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;
    /// The most groups that one engine serves (`groups_max`).
    pub const GROUPS_MAX: usize = QUEUED_CHANGES_MAX;

    pub(super) fn segment_bytes(&self) -> u64 {
        file_bytes(self.segment_bytes)
    }

    /// 0 where there is to be none.
    pub(super) fn reserve_bytes(&self) -> u64 {
        match self.reserve_bytes {
            Some(0) => 0,
            bytes => file_bytes(bytes.unwrap_or(self.segment_bytes)),
        }
    }
}

fn file_bytes(told: u64) -> u64 {
    let bytes = told.clamp(WalOptions::SEGMENT_BYTES_MIN, WalOptions::SEGMENT_BYTES_MAX);
    bytes.next_multiple_of(4096)
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            reserve_bytes: None,
            recycled_segments_max: 4,
            create: true,
            witness_after: Some(Duration::from_millis(50)),
            repair: false,
            snapshots: None,
            disk: Disk::default(),
        }
    }
}

/// What was found when a file log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segment files.
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes of whole records, with the segments' headers.
    pub bytes: u64,
    /// What was cut from the end, where the last write had been torn.
    pub cut: Option<TailCut>,
    /// What was lost, and how the log goes on, where synced data was damaged.
    pub repaired: Option<LogRepair>,
    /// Whether the log ends inside a batch. Its end was never acknowledged, so nothing is wrong;
    /// the part that is there counts.
    pub unfinished_batch: bool,
    /// How long opening took.
    pub duration: Duration,
}

/// Synced data was damaged, the newest term and vote of each group were not: the log was begun anew
/// without entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRepair {
    /// What was found first.
    pub damage: StorageError,
    /// The files that were taken out of the log, under their new names, `damaged-<number>`. The
    /// newest 8 in the directory are kept; older ones are gone already.
    pub set_aside: Vec<PathBuf>,
    /// The groups that may have acknowledged entries, and up to which one at most.
    pub refill: Vec<(GroupId, LogId)>,
    /// Whether there may have been groups that nothing names any more. No new group is taken then.
    pub groups_may_be_lost: bool,
}

/// The torn end of a log. It was never acknowledged, or else the disk lost what it had promised to
/// keep and nothing behind it tells so; that is why it is kept aside and reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// The segment file.
    pub path: PathBuf,
    /// Where the log was cut, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes from there to the last one that was not zero.
    pub bytes: u64,
    /// Where the first [`TailCut::COPY_BYTES_MAX`] of them were copied; `None` where the disk had
    /// no room for that.
    pub copy: Option<PathBuf>,
}

impl TailCut {
    /// The most bytes of a torn tail that are copied aside.
    pub const COPY_BYTES_MAX: u64 = 1 << 20;
}
