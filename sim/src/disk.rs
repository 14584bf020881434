//! The disk of a node: what is durable, what is being written, and what a power cut leaves of it.
//!
//! It keeps to the contract of `LogStore`: what was finished is never lost, and a crash leaves a
//! prefix of what was under way, in its order: hard state, truncation, entries.

use std::collections::VecDeque;

use raft_core::protocol::{LogStart, Write};
use raft_core::{Entry, HardState, Index, LoadedLog, LogId, Term};

use crate::prng::Prng;

/// What survives a crash.
#[derive(Debug, Default)]
pub struct Disk {
    hard_state: HardState,
    /// The entry before the first one: a snapshot stands for it and for all before it.
    start: LogId,
    entries: Vec<Entry>,
    /// Synced entries were lost: what the log has to reach before the node counts again.
    refill_to: Option<LogId>,
    /// Those entries. By voting for nobody the node sees to it that nobody is elected without
    /// those of them that are committed.
    vouched: Vec<LogId>,
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

    /// The last durable entry; the start of the log where there is none.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    /// The entry before the first one that is held.
    #[must_use]
    pub fn start(&self) -> LogId {
        self.start
    }

    /// The durable entry at `index`.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<&Entry> {
        let position = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// The term of the durable entry at `index`, the start of the log included.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.at(index).map(Entry::term)
    }

    /// Whether this very entry is durable, as itself or as part of a snapshot. What a snapshot
    /// stands for is committed, so there is no other entry that it could be.
    #[must_use]
    pub fn has(&self, id: LogId) -> bool {
        id.index < self.start.index || self.term_at(id.index) == Some(id.term)
    }

    /// Durable entries, both ends included, as far as they are there.
    #[must_use]
    pub fn read(&self, from: Index, to: Index) -> &[Entry] {
        let Some(first) = from.0.checked_sub(self.start.index.0 + 1) else {
            return &[];
        };
        let end = to.0.saturating_sub(self.start.index.0);
        let first = usize::try_from(first).expect("logs fit into memory");
        let end = usize::try_from(end).expect("logs fit into memory");
        self.entries
            .get(first..end.min(self.entries.len()))
            .unwrap_or_default()
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
        LoadedLog {
            refill_to: self.refill_to,
            ..LoadedLog::of_entries(self.hard_state, self.start, &self.entries)
        }
    }

    /// The last `count` entries are damaged, though they were synced. Term and vote are intact. The
    /// disk cannot tell how many they were to within `doubt`.
    pub fn damage(&mut self, count: usize, doubt: u64) {
        let kept = self.entries.len().saturating_sub(count);
        let last = self.last();
        let bound = LogId::new(last.term, last.index.plus(doubt));
        self.refill_to = self.refill_to.max(Some(bound));
        let lost = self.entries.drain(kept..);
        self.vouched.extend(lost.map(|entry| entry.id()));
    }

    /// How many entries are behind the beginning of the log.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether lost entries are not all there again.
    #[must_use]
    pub fn is_refilling(&self) -> bool {
        self.refill_to.is_some()
    }

    /// Whether this entry was lost, and its node votes for nobody until it has it again.
    #[must_use]
    pub fn vouches_for(&self, id: LogId) -> bool {
        self.vouched.contains(&id)
    }

    /// Whether an entry at this index was lost, as in [`Disk::vouches_for`].
    #[must_use]
    pub fn vouches_at(&self, index: Index) -> bool {
        self.vouched.iter().any(|lost| lost.index == index)
    }

    fn look_whether_whole(&mut self) {
        if self.refill_to.is_some_and(|to| self.last() >= to) {
            self.refill_to = None;
            self.vouched.clear();
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
        // A new beginning of the log begins a group.
        let next = self.queued.iter().skip(1);
        let together = 1 + next.take_while(|write| write.log_start.is_none()).count();
        let count = group_max.clamp(1, together);
        self.under_way.extend(self.queued.drain(..count));
        Some(self.under_way.iter().any(|write| parts(write) > 0))
    }

    /// The sync under way ends. The writes come back in order, each to be made durable by
    /// [`Disk::finish`] before its promises leave.
    pub fn end(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.under_way)
    }

    /// Makes a write durable. Returns whether entries were removed from the end of the log.
    ///
    /// # Panics
    /// When the entries leave a hole: a bug of whoever wrote them.
    pub fn finish(&mut self, write: &Write) -> bool {
        self.apply(write, usize::MAX)
    }

    /// The power goes. Of what was under way a prefix stays, the last write of it perhaps in part.
    pub fn crash(&mut self, torn: bool, prng: &mut Prng) -> Wreck {
        let mut wreck = Wreck::default();
        let mut writes = std::mem::take(&mut self.under_way);
        let parts_total: usize = writes.iter().map(parts).sum();
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
            let needed = parts(&write);
            if needed == 0 {
                continue;
            }
            let kept = if stops { 0 } else { parts_left.min(needed) };
            parts_left -= kept;
            stops |= kept < needed;
            self.apply(&write, kept);
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

    /// Does the first parts of a write, in its order.
    fn apply(&mut self, write: &Write, mut parts: usize) -> bool {
        let mut removed = false;
        let mut next = || {
            let is_left = parts > 0;
            parts = parts.saturating_sub(1);
            is_left
        };
        if let Some(start) = write.log_start
            && next()
        {
            removed |= self.begin_behind(start);
        }
        let batch = &write.batch;
        if let Some(hard_state) = batch.hard_state
            && next()
        {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from
            && next()
        {
            let kept = from.0.saturating_sub(self.start.index.0 + 1);
            let length = usize::try_from(kept).expect("logs fit into memory");
            removed |= length < self.entries.len();
            self.entries.truncate(length);
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
        self.look_whether_whole();
        removed
    }

    /// The log gets another beginning. Returns whether entries behind it were removed.
    pub fn begin_behind(&mut self, start: LogStart) -> bool {
        match start {
            LogStart::Compact(to) => {
                let dropped = to.index.0.saturating_sub(self.start.index.0);
                let dropped = usize::try_from(dropped).expect("logs fit into memory");
                self.entries.drain(..dropped.min(self.entries.len()));
                self.start = self.start.max(to);
                false
            }
            LogStart::Reset(to) => {
                let removed = self.last().index > to.index;
                self.entries.clear();
                self.start = to;
                self.look_whether_whole();
                removed
            }
        }
    }
}

/// What a crash can tear a write into.
fn parts(write: &Write) -> usize {
    let batch = &write.batch;
    usize::from(write.log_start.is_some())
        + usize::from(batch.hard_state.is_some())
        + usize::from(batch.truncate_from.is_some())
        + batch.entries.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{AppendBatch, EntryKind, NodeId};

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
            log_start: None,
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
            disk.finish(&write);
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
    fn damage_is_remembered_until_the_log_is_as_new_as_what_was_lost() {
        let mut disk = filled();
        disk.damage(2, 0);
        let lost = LogId::new(Term(1), Index(3));
        assert_eq!(disk.last(), LogId::new(Term(1), Index(1)));
        assert_eq!(disk.load().refill_to, Some(lost));
        assert!(disk.vouches_for(lost) && disk.vouches_at(Index(2)) && !disk.vouches_at(Index(1)));
        disk.finish(&write(2, None, None, &[(1, 2)]));
        disk.damage(1, 0);
        assert_eq!(disk.load().refill_to, Some(lost), "damaged again");
        disk.finish(&write(3, None, None, &[(2, 2)]));
        assert!(!disk.is_refilling(), "an entry of a later term");
        assert!(!disk.vouches_for(lost));
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
