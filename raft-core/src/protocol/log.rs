//! The log as the protocol sees it: the newest entries in memory, and for all of it a table of
//! runs, so that "the term at index i" and "the first index of term t" never need the disk.
//!
//! Invariants:
//! - the entries up to `start` were compacted: a snapshot stands for them, and of them only the id
//!   of the last is known;
//! - terms never fall with growing index, so each run has a higher term than the one before it;
//! - `tail` ends at `last` and is consecutive; entries before it are on the disk;
//! - `durable <= last.index`, and every entry that is not durable is in `tail`.

use std::collections::VecDeque;

use crate::entry::Entry;
use crate::log_store::LoadedLog;
use crate::message::Conflict;
use crate::protocol::input::Persisted;
use crate::protocol::sizes::Sizes;
use crate::types::{Index, LogId, Term};

#[derive(Debug)]
pub(crate) struct Log {
    /// The last entry that was compacted.
    start: LogId,
    /// Term and first index that is left of each run, in order.
    runs: Vec<(Term, Index)>,
    last: LogId,
    durable: Index,
    /// The write that carries the newest truncation. What an earlier write finished says nothing
    /// about entries that were cut and appended again since.
    truncating_write: u64,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    sizes: Sizes,
}

impl Log {
    /// The log that a store loaded: all of it is on the disk, none in memory.
    pub(crate) fn new(loaded: LoadedLog) -> Self {
        Self {
            start: loaded.start,
            runs: loaded.term_runs,
            last: loaded.last,
            durable: loaded.last.index,
            truncating_write: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            sizes: Sizes::new(loaded.start.index, loaded.last.index, loaded.bytes),
        }
    }

    /// The last entry that was compacted, [`LogId::ZERO`] where none was.
    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    /// How large the entries are.
    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    /// The last index that is on the local disk.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// The first index that is in memory; one past the last where none is.
    pub(crate) fn tail_first(&self) -> Index {
        self.tail
            .front()
            .map_or(self.last.index.next(), Entry::index)
    }

    /// The position in `runs` of the run that holds `index`.
    fn run_of(&self, index: Index) -> Option<usize> {
        if index > self.last.index || index <= self.start.index {
            return None;
        }
        self.runs
            .partition_point(|(_, first)| *first <= index)
            .checked_sub(1)
    }

    fn run_last(&self, run: usize) -> Index {
        self.runs
            .get(run + 1)
            .map_or(self.last.index, |(_, first)| first.previous())
    }

    /// The term of the entry at `index`: 0 before the first entry, none past the last or where it
    /// was compacted.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.run_of(index).map(|run| self.runs[run].0)
    }

    /// Whether this very entry is in the log. Then all before it are the same too (Log Matching).
    pub(crate) fn contains(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The id of the entry at `index`.
    ///
    /// # Panics
    /// When the log ends before it, or begins behind it.
    pub(crate) fn id_at(&self, index: Index) -> LogId {
        LogId::new(
            self.term_at(index).expect("the index is within the log"),
            index,
        )
    }

    /// The newest entry at or before `index` whose term is at most `term`; [`LogId::ZERO`] if none
    /// that is known: it may have been compacted.
    pub(crate) fn newest_within(&self, index: Index, term: Term) -> LogId {
        let by_term = self.runs.partition_point(|(t, _)| *t <= term);
        let by_index = self.runs.partition_point(|(_, first)| *first <= index);
        match by_term.min(by_index).checked_sub(1) {
            None if self.start.index <= index && self.start.term <= term => self.start,
            None => LogId::ZERO,
            Some(run) => LogId::new(self.runs[run].0, self.run_last(run).min(index)),
        }
    }

    /// The hint for a leader whose `base` is not in this log.
    pub(crate) fn conflict(&self, base: LogId) -> Conflict {
        let newest = self.newest_within(base.index, base.term);
        match self.run_of(newest.index) {
            Some(run) => {
                let (term, first) = self.runs[run];
                // The run may have begun before what was compacted.
                let is_cut = term == self.start.term && first == self.start.index.next();
                Conflict {
                    term,
                    first: if is_cut { self.start.index } else { first },
                    last: newest.index,
                }
            }
            None if newest != LogId::ZERO => Conflict {
                term: newest.term,
                first: newest.index,
                last: newest.index,
            },
            None => Conflict::default(),
        }
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(
            entry.index(),
            self.last.index.next(),
            "entries are consecutive"
        );
        assert!(
            entry.term() >= self.last.term,
            "terms never fall along the log"
        );
        let newest = self.runs.last().map(|(term, _)| *term);
        if newest != Some(entry.term()) {
            self.runs.push((entry.term(), entry.index()));
        }
        self.sizes.push(entry.index(), entry.encoded_len() as u64);
        self.last = entry.id();
        self.tail_bytes += entry.encoded_len();
        self.tail.push_back(entry);
    }

    /// Drops `from` and everything behind it; `write` is the number of the write that will do so on
    /// the disk.
    pub(crate) fn truncate(&mut self, from: Index, write: u64) {
        assert!(
            from > self.start.index && from <= self.last.index,
            "there is something to drop"
        );
        while self.tail.back().is_some_and(|entry| entry.index() >= from) {
            let entry = self.tail.pop_back().expect("just seen");
            self.tail_bytes -= entry.encoded_len();
        }
        self.runs.retain(|(_, first)| *first < from);
        let index = from.previous();
        let term = self.runs.last().map_or(self.start.term, |(term, _)| *term);
        self.last = LogId::new(term, index);
        self.durable = self.durable.min(index);
        self.truncating_write = write;
        self.sizes.truncate(index);
    }

    /// Forgets the entries up to and including the one at `to`.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(
            to >= self.start.index && to <= self.durable,
            "what is compacted is on the disk"
        );
        self.start = self.id_at(to);
        let gone = self.runs.partition_point(|(_, first)| *first <= to);
        let (term, _) = *self
            .runs
            .get(gone.wrapping_sub(1))
            .unwrap_or(&(Term(0), to));
        let is_cut = gone > 0 && self.run_last(gone - 1) > to;
        self.runs.drain(..gone);
        if is_cut {
            self.runs.insert(0, (term, to.next()));
        }
        while self.tail.front().is_some_and(|entry| entry.index() <= to) {
            let entry = self.tail.pop_front().expect("just seen");
            self.tail_bytes -= entry.encoded_len();
        }
        self.sizes.compact(to);
    }

    /// Becomes the empty log behind `start`, which a snapshot stands for; `write` is the number of
    /// the write that makes it so on the disk.
    pub(crate) fn reset(&mut self, start: LogId, write: u64) {
        *self = Self {
            start,
            runs: Vec::new(),
            last: start,
            durable: Index(0),
            truncating_write: write,
            tail: VecDeque::new(),
            tail_bytes: 0,
            sizes: Sizes::new(start.index, start.index, 0),
        };
    }

    /// Takes note of a finished write. Ignored where the log has moved on: an entry may have been
    /// appended, truncated and appended again while the write was under way.
    pub(crate) fn persisted(&mut self, done: Persisted) {
        if done.number >= self.truncating_write && self.contains(done.last) {
            self.durable = self.durable.max(done.last.index);
        }
    }

    /// Entries in memory from `from` to `to`, at most `bytes_max` and `count_max` of them but at
    /// least one. Empty when `from` is not in memory.
    pub(crate) fn in_memory(
        &self,
        from: Index,
        to: Index,
        bytes_max: usize,
        count_max: usize,
    ) -> (Vec<Entry>, usize) {
        let first = self.tail_first();
        if from < first || from > to {
            return (Vec::new(), 0);
        }
        let skip = usize::try_from(from.0 - first.0).expect("the tail is in memory");
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in self.tail.iter().skip(skip) {
            let fits = bytes + entry.encoded_len() <= bytes_max && entries.len() < count_max;
            if entry.index() > to || !(fits || entries.is_empty()) {
                break;
            }
            bytes += entry.encoded_len();
            entries.push(entry.clone());
        }
        (entries, bytes)
    }

    /// Encoded bytes of the entries from `from` to `to` that are in memory.
    pub(crate) fn bytes_in_memory(&self, from: Index, to: Index) -> usize {
        let first = self.tail_first();
        let skip = usize::try_from(from.0.saturating_sub(first.0)).expect("the tail is in memory");
        let wanted = self
            .tail
            .iter()
            .skip(skip)
            .take_while(|entry| entry.index() <= to);
        wanted.map(Entry::encoded_len).sum()
    }

    /// Forgets the oldest entries in memory while they take more than `bytes_max`, but none that is
    /// not durable and none above `keep_above`.
    pub(crate) fn trim(&mut self, bytes_max: usize, keep_above: Index) {
        let droppable = self.durable.min(keep_above);
        while self.tail_bytes > bytes_max
            && self
                .tail
                .front()
                .is_some_and(|entry| entry.index() <= droppable)
        {
            let entry = self.tail.pop_front().expect("just seen");
            self.tail_bytes -= entry.encoded_len();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::EntryKind;

    fn entry(term: u64, index: u64) -> Entry {
        let id = LogId::new(Term(term), Index(index));
        Entry::new(id, EntryKind::Command, Bytes::from(vec![0; 10]))
    }

    fn log_of(terms: &[u64]) -> Log {
        let mut log = Log::new(LoadedLog::default());
        for (position, term) in terms.iter().enumerate() {
            log.append(entry(*term, position as u64 + 1));
        }
        log
    }

    fn done(number: u64, term: u64, index: u64) -> Persisted {
        Persisted {
            number,
            last: LogId::new(Term(term), Index(index)),
        }
    }

    #[test]
    fn a_finished_write_counts_only_while_its_last_entry_is_still_there() {
        let mut log = log_of(&[1, 1, 1]);
        log.truncate(Index(2), 2);
        log.append(entry(2, 2));
        log.append(entry(2, 3));
        log.persisted(done(1, 1, 3));
        assert_eq!(log.durable(), Index(0), "the entry at 3 is another one now");
        log.persisted(done(2, 2, 3));
        assert_eq!(log.durable(), Index(3));
    }

    #[test]
    fn the_same_entry_appended_again_is_not_durable_by_its_first_write() {
        let mut log = log_of(&[1, 1]);
        log.truncate(Index(2), 2);
        log.append(entry(2, 2));
        log.truncate(Index(2), 3);
        log.append(entry(1, 2));
        log.persisted(done(1, 1, 2));
        assert_eq!(
            log.durable(),
            Index(0),
            "write 2 will put another entry at 2 first"
        );
        log.persisted(done(3, 1, 2));
        assert_eq!(log.durable(), Index(2));
    }

    #[test]
    fn a_finished_write_of_an_entry_that_is_not_there_counts_for_nothing() {
        // Writes leave in order, so this cannot happen while the numbers are right.
        let mut log = log_of(&[1, 1, 1]);
        log.persisted(done(1, 2, 3));
        log.persisted(done(1, 1, 4));
        assert_eq!(log.durable(), Index(0));
    }

    #[test]
    fn trimming_keeps_what_is_not_durable() {
        let mut log = log_of(&[1, 1, 1]);
        log.persisted(done(1, 1, 2));
        log.trim(0, Index(3));
        assert_eq!(log.tail_first(), Index(3));
        assert_eq!(
            log.term_at(Index(1)),
            Some(Term(1)),
            "terms are known without the entries"
        );
        assert!(log.in_memory(Index(2), Index(3), 100, 9).0.is_empty());
    }

    proptest! {
        /// A compacted log answers as the whole one does, as far as it still can.
        #[test]
        fn a_compacted_log_agrees_with_the_whole_one(
            mut terms in prop::collection::vec(1u64..6, 1..30),
            to in 1u64..30,
            probe in (0u64..45, 1u64..10),
        ) {
            terms.sort_unstable();
            let to = Index(to.min(terms.len() as u64));
            let whole = log_of(&terms);
            let mut log = log_of(&terms);
            log.persisted(done(1, *terms.last().unwrap(), terms.len() as u64));
            log.compact(to);
            prop_assert_eq!(log.start(), whole.id_at(to));
            prop_assert_eq!(log.last(), whole.last());
            for index in 0..40 {
                let known = whole.term_at(Index(index)).filter(|_| index >= to.0);
                prop_assert_eq!(log.term_at(Index(index)), known);
            }
            let newest = whole.newest_within(Index(probe.0), Term(probe.1));
            let known = if newest.index >= to { newest } else { LogId::ZERO };
            prop_assert_eq!(log.newest_within(Index(probe.0), Term(probe.1)), known);
            let last = log.last();
            log.append(entry(9, last.index.0 + 1));
            prop_assert_eq!(log.last(), LogId::new(Term(9), last.index.next()));
            log.truncate(last.index.next(), 2);
            prop_assert_eq!(log.last(), last);
        }

        /// The run table answers as the plain list of terms does.
        #[test]
        fn runs_agree_with_a_list(
            mut terms in prop::collection::vec(1u64..6, 0..30),
            cut in 0usize..30,
            more in prop::collection::vec(6u64..9, 0..10),
            probe in (0u64..45, 0u64..10),
        ) {
            terms.sort_unstable();
            let mut more = more;
            more.sort_unstable();
            let mut log = log_of(&terms);
            if cut < terms.len() {
                log.truncate(Index(cut as u64 + 1), 2);
                terms.truncate(cut);
            }
            for term in more {
                terms.push(term);
                log.append(entry(term, terms.len() as u64));
            }
            let last = terms.last().map_or(LogId::ZERO, |term| {
                LogId::new(Term(*term), Index(terms.len() as u64))
            });
            prop_assert_eq!(log.last(), last);
            for index in 1..=terms.len() {
                prop_assert_eq!(log.term_at(Index(index as u64)), Some(Term(terms[index - 1])));
            }
            prop_assert_eq!(log.term_at(Index(terms.len() as u64 + 1)), None);
            let (index, term) = probe;
            let newest = (1..=terms.len())
                .rfind(|i| *i as u64 <= index && terms[i - 1] <= term)
                .map_or(LogId::ZERO, |i| LogId::new(Term(terms[i - 1]), Index(i as u64)));
            prop_assert_eq!(log.newest_within(Index(index), Term(term)), newest);
            let hint = log.conflict(LogId::new(Term(term), Index(index)));
            prop_assert_eq!(LogId::new(hint.term, hint.last), newest);
            let first = terms.iter().position(|t| *t == hint.term.0).map_or(0, |p| p as u64 + 1);
            prop_assert_eq!(hint.first, Index(first));
        }
    }
}
