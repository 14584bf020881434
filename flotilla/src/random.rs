//! Numbers that are spread well, not unguessable: which key is next in a workload.

/// xorshift64*. The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of one of many workers.
    pub(crate) fn of_worker(number: u64) -> Self {
        // The multiplier spreads small numbers; zero is the one state that would stay as it is.
        Self((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below a bound, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_do_not_walk_in_step() {
        let mut first = Random::of_worker(0);
        let mut second = Random::of_worker(1);
        let same = (0..1000).filter(|_| first.below(100) == second.below(100));
        assert!(same.count() < 50);
    }
}
