//! A recorded run, done again operation by operation, so that a power cut can be tried after each.

use super::cuts::{Cuts, NameOrder, cuts};
use super::image::Image;
use super::operation::Operation;
use super::random::Random;
use super::tree::Tree;

/// A disk on which a recording is done again.
#[derive(Clone, Debug)]
pub struct Replay {
    tree: Tree,
    mark: u64,
}

impl Replay {
    /// Before the first operation. `base` is what the recorded disk began with.
    #[must_use]
    pub fn new(base: &Image) -> Self {
        Self {
            tree: Tree::of(base),
            mark: 0,
        }
    }

    /// One more operation happens.
    ///
    /// # Panics
    /// When it is not one that was recorded on this disk at this point.
    pub fn advance(&mut self, operation: &Operation) {
        if let Operation::Mark(mark) = operation {
            self.mark = *mark;
        }
        let applied = self.tree.apply(operation);
        applied.expect("what was recorded can be done again");
    }

    /// The newest mark, 0 before the first.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// The disks that a power cut may leave now: all where there are at most `bound`, else about
    /// that many, drawn by `random`; and a few more with a torn sector.
    #[must_use]
    pub fn cuts(&self, order: NameOrder, bound: usize, random: &mut Random) -> Cuts {
        cuts(&self.tree, order, bound, random)
    }
}
