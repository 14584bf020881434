//! The one source of chance: SplitMix64 (Steele et al., OOPSLA 2014), seeded per purpose, so that a
//! new question in one place does not change the answers in all others. Not for secrets.

/// A sequence of numbers that follows from a seed.
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// The sequence of this seed for this purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut mixed = Self(seed);
        let mut state = mixed.next();
        for byte in purpose.bytes() {
            state = Self(state ^ u64::from(byte)).next();
        }
        Self(state)
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`; 0 for 0. The bias of the remainder does not matter here.
    pub fn below(&mut self, count: u64) -> u64 {
        if count == 0 { 0 } else { self.next() % count }
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// When the range is empty: a bug of the caller.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "the range {low} to {high} is not empty");
        low + self.below((high - low).saturating_add(1))
    }

    /// A number from `low` to `high`, both included, small ones much more often: its size is drawn
    /// first.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let width = high.saturating_sub(low);
        let bits = u64::from(64 - width.leading_zeros());
        let kept = self.between(0, bits);
        let mask = if kept >= 64 {
            u64::MAX
        } else {
            (1 << kept) - 1
        };
        low + (self.next() & mask).min(width)
    }

    /// True this many times out of 1,000.
    pub fn chance(&mut self, of_1000: u64) -> bool {
        of_1000 > 0 && self.below(1000) < of_1000
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none: a bug of the caller.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "there is something to pick from");
        let position = self.below(choices.len() as u64);
        &choices[usize::try_from(position).expect("below a length")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_seeds_have_sequences_of_their_own() {
        let mut firsts = std::collections::BTreeSet::new();
        for seed in 0..100 {
            for purpose in ["network", "disk", "clients"] {
                firsts.insert(Prng::new(seed, purpose).next());
            }
        }
        assert_eq!(firsts.len(), 300);
        let (mut one, mut other) = (Prng::new(7, "disk"), Prng::new(7, "disk"));
        assert!((0..100).all(|_| one.next() == other.next()));
    }

    #[test]
    fn both_ends_come_up_and_nothing_beyond() {
        let mut prng = Prng::new(1, "test");
        let drawn: Vec<_> = (0..1000).map(|_| prng.between(3, 6)).collect();
        assert_eq!(
            (drawn.iter().min(), drawn.iter().max()),
            (Some(&3), Some(&6))
        );
        let skewed: Vec<_> = (0..10_000).map(|_| prng.skewed(10, 1_000)).collect();
        assert!(skewed.iter().all(|n| (10..=1_000).contains(n)));
        assert!(skewed.iter().filter(|n| **n < 100).count() > 5_000);
        assert!(skewed.iter().any(|n| *n > 800));
    }
}
