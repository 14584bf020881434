//! The contract of a durable log. Implementations live in `raft-storage`, or with the user.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::entry::{Entry, EntryKind};
use crate::error::StorageError;
use crate::snapshot::SnapshotStore;
use crate::types::{HardState, Index, LogId, Term};

/// Where a node's term, vote and log are kept. Owned by one task, which calls one method at a time.
///
/// A store that breaks one of these rules loses acknowledged writes or lets a node vote twice; the
/// suite in `raft_storage::conformance` checks them.
///
/// 1. **Durable when it returns.** After `append` came back with `Ok`, a power cut loses nothing of
/// it. There is no faster mode: speed comes from the batches that pile up while a sync runs. 2.
/// **All or a prefix.** A crash during `append` leaves the old state, or the old state and a part
/// of the batch in its order: hard state, truncation, entries. 3. **A failed write is final.**
/// After an error from `append` every later call fails too. 4. **Damage is told, not hidden.** What
/// was synced and is not readable any more is an error, never a shorter log.
#[async_trait]
pub trait LogStore: Send {
    /// What the store holds. Called once, before anything else.
    ///
    /// # Errors
    /// When the data cannot be read, is damaged, or is not this node's.
    async fn load(&mut self) -> Result<LoadedLog, StorageError>;

    /// Makes one batch durable. May block its task while a sync runs; the node goes on.
    ///
    /// # Errors
    /// When the batch may not be on the disk; the store is then poisoned.
    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError>;

    /// Drops all entries up to and including `to`, which a durable snapshot stands for. What is
    /// kept behind it does not change. A crash leaves the old beginning or the new one. The store
    /// may keep the entries' room for a while, but gives them to nobody any more.
    ///
    /// # Errors
    /// When the disk refuses; the store is then poisoned. `to` is in the log, or is its start.
    async fn compact(&mut self, to: LogId) -> Result<(), StorageError>;

    /// Drops all entries. The log is empty and begins behind `to`, which a durable snapshot stands
    /// for. Term and vote are kept. Durable when it returns; a crash leaves all or nothing of it.
    ///
    /// # Errors
    /// When the disk refuses; the store is then poisoned.
    async fn reset(&mut self, to: LogId) -> Result<(), StorageError>;

    /// Where the snapshots are kept that compacted entries live on in.
    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    /// A reader that works beside `append`: a follower's catch-up never queues behind a sync, nor
    /// the other way round.
    fn reader(&self) -> Arc<dyn LogReader>;
}

/// Reads entries that are durable. Shared by all who need old entries.
#[async_trait]
pub trait LogReader: Send + Sync {
    /// The entries of `range` from its start, as many as fit in `bytes_max` encoded bytes but at
    /// least one. Each is checked against its checksum, its index and what came before.
    ///
    /// # Errors
    /// [`StorageError::OutOfRange`] when the start of the range is not held; otherwise as `load`.
    async fn read(&self, range: Range<Index>, bytes_max: usize)
    -> Result<Vec<Entry>, StorageError>;

    /// How much the log takes.
    fn usage(&self) -> LogUsage;
}

/// What a store found when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedLog {
    /// The newest term and vote.
    pub hard_state: HardState,
    /// The entry before the first one: the last that was compacted. [`LogId::ZERO`] where nothing
    /// was.
    pub start: LogId,
    /// For each term that has entries in the log: the term and the index of its first entry, in
    /// order. With it "the term at index i" never needs the disk.
    pub term_runs: Vec<(Term, Index)>,
    /// The last entry; `start` where there is none.
    pub last: LogId,
    /// All entries of the kind [`crate::EntryKind::Membership`] that are held, in order.
    pub memberships: Vec<Entry>,
    /// Encoded bytes of all entries that are held.
    pub bytes: u64,
    /// The store lost entries that this node may have acknowledged: synced data was damaged. The
    /// newest term and vote are intact all the same, or `load` fails. This is the last entry that
    /// may have been acknowledged, rather too far than not far enough; the log that was loaded may
    /// end anywhere before it, and what it holds is true. Until the log's last id has once been
    /// this one or a higher one (by term, then index), the node does not vote, lead or acknowledge.
    /// The store remembers it across restarts until then. `None`: nothing is missing.
    pub refill_to: Option<LogId>,
}

impl LoadedLog {
    /// What a store found that holds these entries, the first of them right behind `start`.
    #[must_use]
    pub fn of_entries<'a>(
        hard_state: HardState,
        start: LogId,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Self {
        let mut loaded = Self {
            hard_state,
            start,
            last: start,
            ..Self::default()
        };
        for entry in entries {
            let newest = loaded.term_runs.last().map(|(term, _)| *term);
            if newest != Some(entry.term()) {
                loaded.term_runs.push((entry.term(), entry.index()));
            }
            if entry.kind() == EntryKind::Membership {
                loaded.memberships.push(entry.clone());
            }
            loaded.last = entry.id();
            loaded.bytes += entry.encoded_len() as u64;
        }
        loaded
    }
}

/// What one `append` makes durable, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendBatch {
    /// The new term and vote, where they changed.
    pub hard_state: Option<HardState>,
    /// Drop this entry and all behind it.
    pub truncate_from: Option<Index>,
    /// Entries to put behind the last one that is left; consecutive.
    pub entries: Vec<Entry>,
}

impl AppendBatch {
    /// Whether there is nothing to make durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none() && self.truncate_from.is_none() && self.entries.is_empty()
    }
}

/// How much a log takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// Encoded bytes of the entries that are held.
    pub log_bytes: u64,
    /// Bytes on the disk, spare files included; 0 for a store in memory.
    pub disk_bytes: u64,
    /// Whether the disk has no room for more than what must still be written: votes, memberships,
    /// compaction, what was accepted already. A node then takes no new proposals. Ends by itself
    /// when there is room again. False where a store cannot tell.
    pub is_short_of_room: bool,
}
