//! The randomness of election deadlines: a seed in, a fixed sequence out (SplitMix64, Steele et
//! al., OOPSLA 2014). Not for secrets.

use crate::types::NodeId;

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    #[cfg(test)]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of this node's own. Both numbers are mixed before they are joined: seeds that
    /// count up, as ids do, would else give two nodes the same deadlines, and votes that split for
    /// ever.
    pub(crate) fn of_node(seed: u64, id: NodeId) -> Self {
        Self(Self(seed).next() ^ Self(!id.0).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included. The bias of the remainder is below 2^-32 for
    /// ranges of 32 bits.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        assert!(low <= high, "the range is not empty");
        let width = u64::from(high - low) + 1;
        low + u32::try_from(self.next() % width).expect("below the width of a 32-bit range")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_whose_seeds_count_up_draw_different_numbers() {
        let mut first = std::collections::BTreeSet::new();
        for id in 1..=9 {
            for seed in 0..100 {
                for shift in [0, 32] {
                    let seed = if shift == 0 {
                        seed
                    } else {
                        (seed + 1) << shift
                    };
                    first.insert(Random::of_node(seed, NodeId(id)).next());
                }
            }
        }
        assert_eq!(first.len(), 9 * 200);
    }

    #[test]
    fn both_ends_come_up_and_nothing_beyond() {
        let mut random = Random::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| random.between(20, 24)).collect();
        assert_eq!(drawn.iter().min(), Some(&20));
        assert_eq!(drawn.iter().max(), Some(&24));
    }
}
