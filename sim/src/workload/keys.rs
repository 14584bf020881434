//! Which keys are used: a few by everybody, many by hardly anybody. A key is given up for a new one
//! after so many operations, or when too many of them have no known end: the judges' search grows
//! with both.

use crate::options::ClientOptions;
use crate::prng::Prng;

/// Operations without a known end that one key has at most before it is given up.
const UNKNOWN_MAX: u64 = 3;

/// Operations of 1,000 that go to the hot keys, where there are others.
const HOT: u64 = 700;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u64,
    operations: u64,
    unknown: u64,
}

/// The keys in use.
#[derive(Debug)]
pub(crate) struct Keys {
    slots: Vec<Slot>,
    hot: u64,
    rotate_after: u64,
}

impl Keys {
    pub(crate) fn new(options: ClientOptions) -> Self {
        let count = options.hot_keys + options.cold_keys;
        let count = usize::try_from(count).expect("a count of keys");
        Self {
            slots: vec![Slot::default(); count],
            hot: options.hot_keys,
            rotate_after: options.rotate_after,
        }
    }

    /// A key to operate on.
    pub(crate) fn draw(&mut self, prng: &mut Prng) -> usize {
        let cold = self.slots.len() as u64 - self.hot;
        let position = if cold == 0 || prng.chance(HOT) {
            prng.below(self.hot)
        } else {
            self.hot + prng.below(cold)
        };
        let position = usize::try_from(position).expect("below a length");
        let slot = &mut self.slots[position];
        slot.operations += 1;
        if slot.operations > self.rotate_after {
            slot.retire();
        }
        position
    }

    pub(crate) fn name(&self, position: usize) -> String {
        format!("k{position}-{}", self.slots[position].generation)
    }

    pub(crate) fn unknown(&mut self, position: usize) {
        let slot = &mut self.slots[position];
        slot.unknown += 1;
        if slot.unknown >= UNKNOWN_MAX {
            slot.retire();
        }
    }
}

impl Slot {
    fn retire(&mut self) {
        *self = Self {
            generation: self.generation + 1,
            ..Self::default()
        };
    }
}
