//! What is known of a log without its entries: the last one, and where each term begins. Every
//! store keeps one, and checks with it what it is told to append.

use raft_core::{AppendBatch, Entry, Index, LogId, Term};

/// Start, last entry and term runs of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// The entry before the first one: the last that was compacted.
    start: LogId,
    /// `start` where there is no entry.
    last: LogId,
    /// The first one begins with the first entry, whatever the term of `start`.
    runs: Vec<(Term, Index)>,
}

impl Outline {
    /// The outline of a log without entries that begins behind `start`.
    pub(crate) fn starting_behind(start: LogId) -> Self {
        Self {
            start,
            last: start,
            runs: Vec::new(),
        }
    }

    /// The outline of a log whose term runs were stored, or why no log has these runs.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn from_runs(
        runs: Vec<(Term, Index)>,
        start: LogId,
        last: LogId,
    ) -> Result<Self, String> {
        let ascending = runs
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let fits = match (runs.first(), runs.last()) {
            (Some(first), Some(newest)) => {
                first.1 == start.index.next()
                    && first.0 >= start.term
                    && newest.1 <= last.index
                    && newest.0 == last.term
            }
            _ => start == last,
        };
        if ascending && fits {
            Ok(Self { start, last, runs })
        } else {
            Err(format!(
                "the term runs {runs:?} do not lead from {start} to entry {last}"
            ))
        }
    }

    /// The entry before the first one.
    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    pub(crate) fn runs(&self) -> &[(Term, Index)] {
        &self.runs
    }

    /// The first index held; where the log is empty, the one that it will begin with.
    pub(crate) fn first_index(&self) -> Index {
        self.start.index.next()
    }

    /// The term of the entry at `index`, or of the start; `None` where there is no entry.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index > self.last.index {
            return None;
        }
        let runs_begun = self.runs.partition_point(|run| run.1 <= index);
        Some(self.runs[runs_begun.checked_sub(1)?].0)
    }

    /// Whether this entry is held, or is the start.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The last entry that a truncation from `from` leaves.
    pub(crate) fn last_before(&self, from: Index) -> LogId {
        let index = from.previous().clamp(self.start.index, self.last.index);
        let term = self.term_at(index).unwrap_or_default();
        LogId::new(term, index)
    }

    /// Drops `from` and all behind it.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.last = self.last_before(from);
        let kept = self.runs.partition_point(|run| run.1 < from);
        self.runs.truncate(kept);
    }

    /// Drops all entries up to `to`, which is held.
    pub(crate) fn compact(&mut self, to: LogId) {
        let begun = self.runs.partition_point(|run| run.1 <= to.index);
        // The run that `to` is in may go on behind it.
        let first = to.index.next();
        let ends = self.runs.get(begun).map_or(self.last.index.next(), |r| r.1);
        let whole = if ends > first {
            begun.saturating_sub(1)
        } else {
            begun
        };
        self.runs.drain(..whole);
        if let Some(run) = self.runs.first_mut() {
            run.1 = run.1.max(first);
        }
        self.start = to;
        if self.last.index <= to.index {
            self.last = to;
        }
    }

    /// Adds one entry, or says why it does not follow the last one.
    pub(crate) fn push(&mut self, id: LogId) -> Result<(), String> {
        follows(self.last, id)?;
        if self.runs.last().map(|run| run.0) != Some(id.term) {
            self.runs.push((id.term, id.index));
        }
        self.last = id;
        Ok(())
    }

    /// Adds so many consecutive entries of one term, at least one, or says why the first one does
    /// not follow the last one.
    pub(crate) fn push_run(&mut self, first: LogId, entries: usize) -> Result<(), String> {
        self.push(first)?;
        self.last.index = first.index.plus(entries as u64 - 1);
        Ok(())
    }

    /// Checks that a log may be compacted to `to`. Whether that changes anything.
    ///
    /// # Panics
    /// When the log neither holds `to` nor begins behind it: the caller has a bug.
    pub(crate) fn assert_compactable(&self, to: LogId) -> bool {
        let (start, last) = (self.start, self.last);
        assert!(
            self.holds(to),
            "compaction to {to} of a log that goes from {start} to {last}"
        );
        to != start
    }

    /// Checks that a batch fits behind this log.
    ///
    /// # Panics
    /// When it does not: the caller has a bug, and writing the batch would make it permanent.
    pub(crate) fn assert_fits(&self, batch: &AppendBatch) {
        let mut last = self.last;
        if let Some(from) = batch.truncate_from {
            let start = self.start;
            assert!(
                from > start.index,
                "truncation from {from} of a log that begins behind {start}"
            );
            last = self.last_before(from);
        }
        for id in batch.entries.iter().map(Entry::id) {
            if let Err(what) = follows(last, id) {
                panic!("batch to append is contradictory: {what}");
            }
            last = id;
        }
    }

    /// Applies a batch that fits.
    pub(crate) fn apply(&mut self, batch: &AppendBatch) {
        if let Some(from) = batch.truncate_from {
            self.truncate(from);
        }
        for entry in &batch.entries {
            self.push(entry.id())
                .expect("assert_fits has checked the batch");
        }
    }
}

fn follows(last: LogId, id: LogId) -> Result<(), String> {
    if id.index != last.index.next() || id.term < last.term || id.term == Term(0) {
        return Err(format!("entry {id} does not follow {last}"));
    }
    Ok(())
}

/// Whether one more entry of `next` bytes belongs to a read that has `taken` bytes so far: as many
/// as fit, but at least one.
pub(crate) fn fits_read(taken: usize, next: usize, bytes_max: usize) -> bool {
    taken == 0 || taken.saturating_add(next) <= bytes_max
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(ids: &[(u64, u64)]) -> Outline {
        let mut outline = Outline::default();
        for &(term, index) in ids {
            outline.push(LogId::new(Term(term), Index(index))).unwrap();
        }
        outline
    }

    #[test]
    fn terms_are_found_at_and_between_the_starts_of_runs() {
        let outline = outline(&[(1, 1), (1, 2), (3, 3), (3, 4), (7, 5)]);
        let terms: Vec<_> = (0..7).map(|i| outline.term_at(Index(i))).collect();
        let expected = [0, 1, 1, 3, 3, 7].map(|term| Some(Term(term)));
        assert_eq!(terms[..6], expected);
        assert_eq!(terms[6], None);
    }

    #[test]
    fn truncation_removes_runs_that_begin_at_or_behind_the_cut() {
        let mut outline = outline(&[(1, 1), (1, 2), (3, 3), (3, 4)]);
        outline.truncate(Index(9));
        assert_eq!(outline.last(), LogId::new(Term(3), Index(4)));
        outline.truncate(Index(4));
        assert_eq!(outline.runs(), [(Term(1), Index(1)), (Term(3), Index(3))]);
        outline.truncate(Index(3));
        assert_eq!(outline.runs(), [(Term(1), Index(1))]);
        assert_eq!(outline.last(), LogId::new(Term(1), Index(2)));
        outline.truncate(Index(1));
        assert_eq!(outline, Outline::default());
    }

    #[test]
    fn a_gap_a_repetition_and_a_term_that_goes_back_are_refused() {
        for (term, index) in [(2, 2), (2, 4), (1, 3), (0, 3)] {
            let mut outline = outline(&[(2, 1), (2, 2)]);
            let id = LogId::new(Term(term), Index(index));
            assert!(outline.push(id).is_err(), "{id}");
        }
    }

    #[test]
    fn compaction_keeps_what_is_behind_it_and_the_run_that_goes_on() {
        let whole = [(1, 1), (1, 2), (3, 3), (3, 4), (7, 5)];
        let runs: [&[(u64, u64)]; 6] = [
            &[(1, 1), (3, 3), (7, 5)],
            &[(1, 2), (3, 3), (7, 5)],
            &[(3, 3), (7, 5)],
            &[(3, 4), (7, 5)],
            &[(7, 5)],
            &[],
        ];
        for (to, expected) in (0..).zip(runs) {
            let mut outline = outline(&whole);
            let term = outline.term_at(Index(to)).unwrap();
            let to = LogId::new(term, Index(to));
            assert!(outline.holds(to));
            outline.compact(to);
            let expected: Vec<_> = expected.iter().map(|r| (Term(r.0), Index(r.1))).collect();
            assert_eq!(outline.runs(), expected, "{to}");
            assert_eq!(
                (outline.start(), outline.first_index()),
                (to, to.index.next())
            );
            assert_eq!(outline.last(), LogId::new(Term(7), Index(5)));
            assert_eq!(outline.term_at(to.index), Some(term));
            assert_eq!(
                outline.term_at(to.index.previous()).is_some(),
                to.index.0 == 0
            );
            outline.truncate(to.index.next());
            assert_eq!(outline, Outline::starting_behind(to));
            // The next run begins with the next entry, also in the term of the start.
            let next = LogId::new(term.max(Term(1)), to.index.next());
            outline.push(next).unwrap();
            assert_eq!(outline.runs(), [(next.term, next.index)]);
        }
    }

    #[test]
    #[should_panic(expected = "compaction to 2@1")]
    fn compaction_to_an_entry_that_is_not_held_is_a_bug_of_the_caller() {
        outline(&[(2, 1), (2, 2)]).assert_compactable(LogId::new(Term(1), Index(2)));
    }

    #[test]
    #[should_panic(expected = "truncation from 2")]
    fn truncation_of_compacted_entries_is_a_bug_of_the_caller() {
        let mut outline = outline(&[(2, 1), (2, 2)]);
        outline.compact(LogId::new(Term(2), Index(2)));
        outline.assert_fits(&AppendBatch {
            truncate_from: Some(Index(2)),
            ..AppendBatch::default()
        });
    }

    #[test]
    #[should_panic(expected = "contradictory")]
    fn a_contradictory_batch_is_a_bug_of_the_caller() {
        let id = LogId::new(Term(2), Index(4));
        let entry = Entry::new(id, raft_core::EntryKind::Noop, bytes::Bytes::new());
        let batch = AppendBatch {
            entries: vec![entry],
            ..AppendBatch::default()
        };
        outline(&[(2, 1), (2, 2)]).assert_fits(&batch);
    }
}
