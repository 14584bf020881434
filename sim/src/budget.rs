//! What may fail at once. Only faults that the protocol promises to survive are injected, so every
//! failure is a bug (TigerBeetle calls this the atlas).
//!
//! Crashes, pauses, cuts and lost messages never endanger what is committed, however many there
//! are; they only stop progress, and the liveness phase ends them. A disk that is lost for good is
//! different: it takes promises with it.

/// What was spent, and what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    voters: u64,
    disks_lost: u64,
}

impl Budget {
    /// The budget of a group with so many voters.
    #[must_use]
    pub(crate) fn new(voters: u64) -> Self {
        Self {
            voters,
            disks_lost: 0,
        }
    }

    /// Voters that may be lost for good while the others still are a majority.
    #[must_use]
    pub(crate) fn disks_max(&self) -> u64 {
        self.voters.saturating_sub(1) / 2
    }

    /// Whether one more disk may be lost, while `voters_down` of the others are without power: a
    /// majority of disks has to be left, but they need not run.
    #[must_use]
    pub(crate) fn may_lose_disk(&self) -> bool {
        self.disks_lost < self.disks_max()
    }

    /// A disk is lost.
    pub(crate) fn lose_disk(&mut self) {
        self.disks_lost += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_disks_is_always_left() {
        for voters in 1..=9 {
            let mut budget = Budget::new(voters);
            while budget.may_lose_disk() {
                budget.lose_disk();
            }
            let left = voters - budget.disks_lost;
            assert!(left * 2 > voters, "{left} of {voters} are left");
            assert!((left - 1) * 2 <= voters, "and not one more than needed");
        }
    }
}
