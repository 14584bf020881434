//! The shapes of partitions: which directed links are cut.

use raft_core::NodeId;

use crate::prng::Prng;

/// A shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One direction of one link.
    OneWay,
    /// Both directions of one link.
    Apart,
    /// All that one node says, or all that it hears.
    Deaf,
    /// One node from all others.
    Isolate,
    /// Two halves that do not see each other.
    Halves,
    /// Two halves, and one node that sees both.
    Bridge,
    /// Each node sees its two neighbours only.
    Ring,
}

impl Shape {
    /// All of them.
    pub(crate) const ALL: &'static [Self] = &[
        Self::OneWay,
        Self::Apart,
        Self::Deaf,
        Self::Isolate,
        Self::Halves,
        Self::Bridge,
        Self::Ring,
    ];

    /// The directed links that this shape cuts. `center` is the node that is cut off, or left as a
    /// bridge; the rest is drawn.
    #[must_use]
    pub(crate) fn cuts(
        self,
        ids: &[NodeId],
        center: NodeId,
        prng: &mut Prng,
    ) -> Vec<(NodeId, NodeId)> {
        let mut others: Vec<_> = ids.iter().copied().filter(|id| *id != center).collect();
        shuffle(&mut others, prng);
        match self {
            Self::OneWay => match others.first() {
                None => Vec::new(),
                Some(other) if prng.chance(500) => vec![(center, *other)],
                Some(other) => vec![(*other, center)],
            },
            Self::Apart => between(&[center], &others[..others.len().min(1)]),
            Self::Deaf => {
                let speaks = prng.chance(500);
                let direction = |other: &NodeId| {
                    if speaks {
                        (*other, center)
                    } else {
                        (center, *other)
                    }
                };
                others.iter().map(direction).collect()
            }
            Self::Isolate => between(&[center], &others),
            Self::Halves => {
                let all: Vec<_> = std::iter::once(center).chain(others).collect();
                let (left, right) = all.split_at(all.len() / 2);
                between(left, right)
            }
            Self::Bridge => {
                let (left, right) = others.split_at(others.len() / 2);
                between(left, right)
            }
            Self::Ring => {
                let all: Vec<_> = std::iter::once(center).chain(others).collect();
                ring(&all)
            }
        }
    }
}

/// Both directions of every link between two groups.
#[must_use]
pub(crate) fn between(left: &[NodeId], right: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let pairs = left
        .iter()
        .flat_map(|a| right.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

fn ring(all: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let count = all.len();
    let mut cuts = Vec::new();
    for (i, from) in all.iter().enumerate() {
        for (j, to) in all.iter().enumerate() {
            let distance = (i + count - j) % count;
            if distance != 0 && distance != 1 && distance != count - 1 {
                cuts.push((*from, *to));
            }
        }
    }
    cuts
}

fn shuffle(ids: &mut [NodeId], prng: &mut Prng) {
    for last in (1..ids.len()).rev() {
        let other = prng.below(last as u64 + 1);
        ids.swap(last, usize::try_from(other).expect("below a length"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sees(shape: Shape, nodes: u64) -> Vec<usize> {
        let ids: Vec<_> = (1..=nodes).map(NodeId).collect();
        let cuts = shape.cuts(&ids, NodeId(1), &mut Prng::new(1, "test"));
        assert!(cuts.iter().all(|(from, to)| from != to));
        let seen = |id: &NodeId| {
            let other = |other: &&NodeId| *other != id && !cuts.contains(&(*id, **other));
            ids.iter().filter(other).count()
        };
        ids.iter().map(seen).collect()
    }

    #[test]
    fn every_shape_cuts_what_it_says() {
        assert_eq!(sees(Shape::Isolate, 5), [0, 3, 3, 3, 3]);
        assert_eq!(sees(Shape::Ring, 5), [2; 5]);
        assert_eq!(sees(Shape::Ring, 3), [2; 3]);
        assert_eq!(sees(Shape::Bridge, 5), [4, 2, 2, 2, 2]);
        let halves = sees(Shape::Halves, 5);
        assert_eq!(halves.iter().sum::<usize>(), 2 + 6);
        assert_eq!(sees(Shape::OneWay, 3).iter().sum::<usize>(), 5);
        assert_eq!(sees(Shape::Apart, 3)[0], 1);
        assert_eq!(sees(Shape::Apart, 3).iter().sum::<usize>(), 4);
        assert_eq!(sees(Shape::Deaf, 4).iter().sum::<usize>(), 9);
        for shape in Shape::ALL {
            assert_eq!(sees(*shape, 1), [0], "{shape:?} of one node");
        }
    }
}
