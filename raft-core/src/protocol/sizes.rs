//! How many bytes of log lie between two indexes, without keeping the size of each entry: the
//! running total is marked every so often, and what is between two marks is taken as even.

use std::collections::VecDeque;

use crate::types::Index;

/// Bytes between two marks, about: what an answer may be wrong by.
const MARK_BYTES: u64 = 64 << 10;

/// Entries between two marks at most.
const MARK_ENTRIES: u64 = 1024;

/// Bytes of the log by index.
#[derive(Debug)]
pub(crate) struct Sizes {
    /// An index, and the bytes of all entries up to it since the log's first life; ascending.
    marks: VecDeque<(Index, u64)>,
    last: (Index, u64),
}

impl Sizes {
    /// A log whose entries behind `start` up to `last` have `bytes`.
    pub(crate) fn new(start: Index, last: Index, bytes: u64) -> Self {
        Self {
            marks: VecDeque::from([(start, 0)]),
            last: (last, bytes),
        }
    }

    pub(crate) fn push(&mut self, index: Index, bytes: u64) {
        let (marked, total) = *self.marks.back().expect("there is always a mark");
        let far = self.last.1 - total >= MARK_BYTES || self.last.0.0 - marked.0 >= MARK_ENTRIES;
        if far {
            self.marks.push_back(self.last);
        }
        self.last = (index, self.last.1 + bytes);
    }

    /// Forgets what is behind `last`.
    pub(crate) fn truncate(&mut self, last: Index) {
        let bytes = self.up_to(last);
        while self.marks.len() > 1 && self.marks.back().is_some_and(|(index, _)| *index >= last) {
            self.marks.pop_back();
        }
        self.last = (last, bytes);
    }

    /// Forgets what is before `start`.
    pub(crate) fn compact(&mut self, start: Index) {
        let bytes = self.up_to(start);
        while self.marks.front().is_some_and(|(index, _)| *index <= start) {
            self.marks.pop_front();
        }
        self.marks.push_front((start, bytes));
    }

    /// Bytes of the entries behind `from` up to `to`.
    pub(crate) fn between(&self, from: Index, to: Index) -> u64 {
        self.up_to(to).saturating_sub(self.up_to(from))
    }

    /// The lowest index that has at most `bytes` behind it, up to `to`.
    pub(crate) fn behind(&self, to: Index, bytes: u64) -> Index {
        let (mut low, mut high) = (self.marks[0].0.0.min(to.0), to.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.between(Index(middle), to) <= bytes {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Index(low)
    }

    fn up_to(&self, index: Index) -> u64 {
        let position = self.marks.partition_point(|(marked, _)| *marked <= index);
        let Some(position) = position.checked_sub(1) else {
            return self.marks[0].1;
        };
        let (low, low_bytes) = self.marks[position];
        let (high, high_bytes) = *self.marks.get(position + 1).unwrap_or(&self.last);
        if index >= high {
            return high_bytes;
        }
        let (part, whole) = (index.0 - low.0, high.0 - low.0);
        let share = u128::from(high_bytes - low_bytes) * u128::from(part) / u128::from(whole);
        low_bytes + u64::try_from(share).expect("a share is not more than the whole")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_between_indexes_are_right_to_within_a_mark() {
        let mut sizes = Sizes::new(Index(10), Index(20), 1000);
        assert_eq!(sizes.between(Index(10), Index(15)), 500);
        for index in 21..=5020 {
            sizes.push(Index(index), 100);
        }
        assert_eq!(sizes.between(Index(20), Index(5020)), 500_000);
        assert_eq!(sizes.behind(Index(5020), 100_000), Index(4020));
        sizes.truncate(Index(3020));
        assert_eq!(sizes.between(Index(20), Index(9999)), 300_000);
        sizes.compact(Index(2020));
        assert_eq!(sizes.between(Index(0), Index(3020)), 100_000);
        assert_eq!(sizes.behind(Index(3020), u64::MAX), Index(2020));
        assert_eq!(sizes.behind(Index(3020), 0), Index(3020));
    }
}
