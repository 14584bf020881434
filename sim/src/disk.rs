//! The disk of a node: what is durable, what is being written, and what a power cut leaves of it.
//!
//! It keeps to the contract of `LogStore`: what was finished is never lost, and a crash leaves a
//! prefix of what was under way, in its order: hard state, truncation, entries.

use std::collections::VecDeque;

use raft_core::protocol::Write;
use raft_core::{AppendBatch, Entry, HardState, Index, LoadedLog, LogId, Term};

use crate::prng::Prng;

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    hard_state: HardState,
    entries: Vec<Entry>,
    /// Given to the disk, in order, and not finished.
    under_way: Vec<Write>,
    /// Waiting for the disk.
    queued: VecDeque<Write>,
}

/// What a crash did to the writes that were not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wreck {
    /// Writes that are on the disk as a whole, though nobody was told.
    pub kept: usize,
    /// A write of which a part is on the disk.
    pub torn: bool,
    /// Writes of which nothing is there.
    pub lost: usize,
    /// A term or a vote that is not there.
    pub lost_hard_state: bool,
}

impl Disk {
    /// The durable term and vote.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The last durable entry.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::ZERO, Entry::id)
    }

    /// The durable entry at `index`.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<&Entry> {
        let position = index.0.checked_sub(1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// Whether this very entry is durable. The position before the first always is.
    #[must_use]
    pub fn has(&self, id: LogId) -> bool {
        id == LogId::ZERO || self.at(id.index).is_some_and(|entry| entry.id() == id)
    }

    /// Durable entries, both ends included, as far as they are there.
    #[must_use]
    pub fn read(&self, from: Index, to: Index) -> &[Entry] {
        let first = usize::try_from(from.previous().0).expect("logs fit into memory");
        let last = usize::try_from(to.0).expect("logs fit into memory");
        let last = last.min(self.entries.len());
        self.entries.get(first..last).unwrap_or_default()
    }

    /// Encoded bytes of the durable entries.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        let bytes: usize = self.entries.iter().map(Entry::encoded_len).sum();
        bytes as u64
    }

    /// What a node that starts is told.
    #[must_use]
    pub fn load(&self) -> LoadedLog {
        let mut term_runs: Vec<(Term, Index)> = Vec::new();
        for entry in &self.entries {
            let is_new = term_runs.last().is_none_or(|(term, _)| *term < entry.term());
            if is_new {
                term_runs.push((entry.term(), entry.index()));
            }
        }
        LoadedLog {
            hard_state: self.hard_state,
            term_runs,
            last: self.last(),
        }
    }

    /// Takes a write into the queue.
    pub fn push(&mut self, write: Write) {
        self.queued.push_back(write);
    }

    /// Whether a sync is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Writes that are not finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.under_way.len() + self.queued.len()
    }

    /// Begins the next sync with up to `group_max` writes. Returns whether there is anything to
    /// sync; none when the disk is busy or has nothing to do.
    pub fn begin(&mut self, group_max: usize) -> Option<bool> {
        if self.is_busy() || self.queued.is_empty() {
            return None;
        }
        let count = group_max.clamp(1, self.queued.len());
        self.under_way.extend(self.queued.drain(..count));
        Some(self.under_way.iter().any(|write| !write.batch.is_empty()))
    }

    /// The sync under way ends. The writes come back in order, each to be made durable by
    /// [`Disk::finish`] before its promises leave.
    pub fn end(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.under_way)
    }

    /// Makes a write durable. Returns the entries that it removed.
    ///
    /// # Panics
    /// When the entries leave a hole: a bug of whoever wrote them.
    pub fn finish(&mut self, batch: &AppendBatch) -> Vec<Entry> {
        self.apply(batch, usize::MAX)
    }

    /// The power goes. Of what was under way a prefix stays, the last write of it perhaps in part.
    pub fn crash(&mut self, torn: bool, prng: &mut Prng) -> Wreck {
        let mut wreck = Wreck::default();
        let mut writes = std::mem::take(&mut self.under_way);
        let parts_total: usize = writes.iter().map(|write| parts(&write.batch)).sum();
        let mut parts_left = if torn {
            usize::try_from(prng.between(0, parts_total as u64)).expect("a count of parts")
        } else {
            0
        };
        writes.extend(self.queued.drain(..).map(|mut write| {
            // The disk has not seen it.
            write.promises.clear();
            write
        }));
        let mut stops = false;
        for write in writes {
            let needed = parts(&write.batch);
            if needed == 0 {
                continue;
            }
            let kept = if stops { 0 } else { parts_left.min(needed) };
            parts_left -= kept;
            stops |= kept < needed;
            self.apply(&write.batch, kept);
            match kept {
                0 => {
                    wreck.lost += 1;
                    wreck.lost_hard_state |= write.batch.hard_state.is_some();
                }
                kept if kept < needed => wreck.torn = true,
                _ => wreck.kept += 1,
            }
        }
        wreck
    }

    /// Nothing is left.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }

    /// Applies the first parts of a batch, in its order.
    fn apply(&mut self, batch: &AppendBatch, mut parts: usize) -> Vec<Entry> {
        let mut removed = Vec::new();
        let mut next = || {
            let is_left = parts > 0;
            parts = parts.saturating_sub(1);
            is_left
        };
        if let Some(hard_state) = batch.hard_state
            && next()
        {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from
            && next()
        {
            let length = usize::try_from(from.previous().0).expect("logs fit into memory");
            removed = self.entries.split_off(length.min(self.entries.len()));
        }
        for entry in &batch.entries {
            if !next() {
                break;
            }
            assert_eq!(
                entry.index(),
                self.last().index.next(),
                "the entries of a write follow those on the disk"
            );
            self.entries.push(entry.clone());
        }
        removed
    }
}

/// What a crash can tear a batch into.
fn parts(batch: &AppendBatch) -> usize {
    usize::from(batch.hard_state.is_some())
        + usize::from(batch.truncate_from.is_some())
        + batch.entries.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{EntryKind, NodeId};

    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        let id = LogId::new(Term(term), Index(index));
        Entry::new(id, EntryKind::Command, Bytes::new())
    }

    fn write(number: u64, term: Option<u64>, cut: Option<u64>, entries: &[(u64, u64)]) -> Write {
        let hard_state = term.map(|term| HardState {
            term: Term(term),
            vote: Some(NodeId(1)),
        });
        let entries: Vec<_> = entries.iter().map(|(t, i)| entry(*t, *i)).collect();
        Write {
            number,
            last: entries.last().map_or(LogId::ZERO, Entry::id),
            batch: AppendBatch {
                hard_state,
                truncate_from: cut.map(Index),
                entries,
            },
            promises: Vec::new(),
        }
    }

    fn filled() -> Disk {
        let mut disk = Disk::default();
        disk.push(write(1, Some(1), None, &[(1, 1), (1, 2), (1, 3)]));
        disk.begin(64);
        for write in disk.end() {
            disk.finish(&write.batch);
        }
        disk
    }

    #[test]
    fn what_is_finished_survives_and_what_was_only_queued_does_not() {
        for seed in 0..50 {
            let mut disk = filled();
            disk.push(write(2, Some(2), None, &[]));
            disk.push(write(3, None, None, &[(2, 4)]));
            assert_eq!(disk.begin(1), Some(true));
            let wreck = disk.crash(true, &mut Prng::new(seed, "test"));
            assert_eq!(disk.last(), LogId::new(Term(1), Index(3)));
            assert!(wreck.lost >= 1, "the queued write is lost");
            assert_eq!(disk.unfinished(), 0);
        }
    }

    #[test]
    fn a_torn_write_leaves_each_of_its_prefixes_and_nothing_else() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut disk = filled();
            disk.push(write(2, Some(5), Some(2), &[(5, 2), (5, 3)]));
            disk.begin(1);
            disk.crash(true, &mut Prng::new(seed, "test"));
            let terms: Vec<_> = disk.entries.iter().map(|entry| entry.term().0).collect();
            seen.insert((disk.hard_state().term.0, terms));
        }
        let expected = [
            (1, vec![1, 1, 1]),
            (5, vec![1, 1, 1]),
            (5, vec![1]),
            (5, vec![1, 5]),
            (5, vec![1, 5, 5]),
        ];
        assert_eq!(seen, expected.into_iter().collect());
    }

    #[test]
    fn a_write_is_never_kept_behind_one_that_is_torn() {
        for seed in 0..200 {
            let mut disk = filled();
            disk.push(write(2, None, None, &[(1, 4), (1, 5)]));
            disk.push(write(3, Some(2), Some(5), &[(2, 5)]));
            disk.begin(64);
            disk.crash(true, &mut Prng::new(seed, "test"));
            let last = disk.last();
            assert!(disk.hard_state().term == Term(1) || last.index >= Index(4));
        }
    }

    #[test]
    fn without_tearing_nothing_of_a_write_stays() {
        let mut disk = filled();
        disk.push(write(2, Some(2), Some(2), &[(2, 2)]));
        disk.begin(64);
        let wreck = disk.crash(false, &mut Prng::new(1, "test"));
        assert_eq!((wreck.lost, wreck.lost_hard_state), (1, true));
        assert_eq!(disk.last(), LogId::new(Term(1), Index(3)));
    }

    #[test]
    fn an_empty_write_keeps_its_place_and_needs_no_sync() {
        let mut disk = filled();
        disk.push(write(2, None, None, &[]));
        assert_eq!(disk.begin(64), Some(false));
        disk.push(write(3, None, None, &[(1, 4)]));
        assert_eq!(disk.begin(64), None, "one sync at a time");
        let numbers: Vec<_> = disk.end().iter().map(|write| write.number).collect();
        assert_eq!(numbers, [2]);
    }
}
