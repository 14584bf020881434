//! What is known of a log without its entries: the last one, and where each term begins. Every
//! store keeps one, and checks with it what it is told to append.

use raft_core::{AppendBatch, Entry, Index, LogId, Term};

/// Last entry and term runs of one log. The first entry has index 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    last: LogId,
    runs: Vec<(Term, Index)>,
}

impl Outline {
    /// The outline of a log whose term runs were stored, or why no log has these runs.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn from_runs(runs: Vec<(Term, Index)>, last: LogId) -> Result<Self, String> {
        let ascending = runs
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let begins = runs.first().map_or(Index(0), |run| run.1);
        let ends = runs.last().map_or(Term(0), |run| run.0);
        let reaches = runs.last().is_none_or(|run| run.1 <= last.index);
        let begins_rightly = begins == Index(u64::from(last.index.0 > 0));
        if ascending && begins_rightly && reaches && ends == last.term {
            Ok(Self { last, runs })
        } else {
            Err(format!("the term runs {runs:?} do not end in entry {last}"))
        }
    }

    pub(crate) fn last(&self) -> LogId {
        self.last
    }

    pub(crate) fn runs(&self) -> &[(Term, Index)] {
        &self.runs
    }

    /// The first index held; 1 also where the log is empty, because that is where it will begin.
    pub(crate) fn first_index(&self) -> Index {
        Index(1)
    }

    /// The term of the entry at `index`; term 0 at index 0; `None` where there is no entry.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == Index(0) {
            return Some(Term(0));
        }
        if index > self.last.index {
            return None;
        }
        let runs_begun = self.runs.partition_point(|run| run.1 <= index);
        Some(self.runs[runs_begun.checked_sub(1)?].0)
    }

    /// The last entry that a truncation from `from` leaves.
    pub(crate) fn last_before(&self, from: Index) -> LogId {
        let index = from.previous().min(self.last.index);
        let term = self.term_at(index).unwrap_or_default();
        LogId::new(term, index)
    }

    /// Drops `from` and all behind it.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.last = self.last_before(from);
        let kept = self.runs.partition_point(|run| run.1 < from);
        self.runs.truncate(kept);
    }

    /// Adds one entry, or says why it does not follow the last one.
    pub(crate) fn push(&mut self, id: LogId) -> Result<(), String> {
        follows(self.last, id)?;
        if id.term > self.last.term {
            self.runs.push((id.term, id.index));
        }
        self.last = id;
        Ok(())
    }

    /// Checks that a batch fits behind this log.
    ///
    /// # Panics
    /// When it does not: the caller has a bug, and writing the batch would make it permanent.
    pub(crate) fn assert_fits(&self, batch: &AppendBatch) {
        let mut last = self.last;
        if let Some(from) = batch.truncate_from {
            assert!(from > Index(0), "truncation begins at an entry, not at 0");
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
