//! A list of things that went another way than asked: counted in full, told up to a bound.

/// How many are told one by one.
const TOLD_MAX: u64 = 20;

/// A count, of which the first few are told.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    count: u64,
}

impl Notes {
    /// Counts one; returns whether it is to be told.
    pub(crate) fn add(&mut self) -> bool {
        self.count += 1;
        self.count <= TOLD_MAX
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Tells how many were counted without being told.
    pub(crate) fn report_rest(&self, what: &str) {
        if let Some(rest) = self.count.checked_sub(TOLD_MAX).filter(|rest| *rest > 0) {
            eprintln!("flotilla: {what}: and {rest} more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_few_are_told() {
        let mut notes = Notes::default();
        let told = (0..1000).filter(|_| notes.add()).count();
        assert_eq!((told as u64, notes.count()), (TOLD_MAX, 1000));
    }
}
