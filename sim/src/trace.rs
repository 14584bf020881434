//! What happened, as one running number and, where wanted, as lines of text.

use std::fmt;

use crate::queue::Microseconds;

/// Lines that are kept; of a longer run only the last ones matter.
pub(crate) const LINES_MAX: usize = 200_000;

/// The trace of a run. The hash is always kept; the text only where somebody wants to read it.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    is_written: bool,
    lines: std::collections::VecDeque<String>,
}

impl Trace {
    /// Keeps lines from now on.
    pub(crate) fn write_lines(&mut self) {
        self.is_written = true;
    }

    /// A hash of everything so far: two runs of one seed have the same.
    #[must_use]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Takes numbers into the hash.
    pub(crate) fn mix<const N: usize>(&mut self, numbers: [u64; N]) {
        for number in numbers {
            let mixed = (self.hash ^ number).wrapping_mul(0x9fb2_1c65_1e98_df25);
            self.hash = mixed ^ (mixed >> 29);
        }
    }

    /// Keeps a line, if lines are kept; `what` is only called then.
    pub(crate) fn note<D: fmt::Display>(&mut self, now: Microseconds, what: impl FnOnce() -> D) {
        if self.is_written {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            let (seconds, rest) = (now / 1_000_000, now % 1_000_000);
            self.lines
                .push_back(format!("{seconds:>4}.{rest:06} {}", what()));
        }
    }

    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
