//! Who leads, as far as this client can tell from what the nodes say. No IO and no time.
//!
//! Every node's newest word is kept. The claim of the highest term that names a leader is believed,
//! with one exception: nobody is believed about a node that itself says, in that term or a later
//! one, that it does not lead. A node that knows of no leader is no evidence against what others
//! say, so a partitioned candidate with a high term cannot hide the leader.

use std::collections::BTreeMap;

/// The leader of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leader {
    /// Its term.
    pub(crate) term: u64,
    /// The node.
    pub(crate) id: u64,
}

/// The newest word of one node.
#[derive(Clone, Copy, Debug)]
struct Word {
    term: u64,
    leader: Option<u64>,
}

/// What all connected nodes say, and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Leadership {
    words: BTreeMap<u64, Word>,
    current: Option<Leader>,
}

impl Leadership {
    /// The leader that is believed in.
    pub(crate) fn current(&self) -> Option<Leader> {
        self.current
    }

    /// Takes the word of node `from`. Says whether the current leader changed.
    pub(crate) fn hear(&mut self, from: u64, term: u64, leader: Option<u64>) -> bool {
        if let Some(before) = self.words.get(&from) {
            // Answers of one node may overtake each other, but its term never goes back.
            if term < before.term {
                return false;
            }
            // A follower that lost sight of the leader of this term is no evidence that it is gone.
            // A leader that gave up in its own term is.
            let knew_another = before.leader.is_some_and(|known| known != from);
            if term == before.term && leader.is_none() && knew_another {
                return false;
            }
        }
        self.words.insert(from, Word { term, leader });
        self.conclude()
    }

    /// Drops the word of a node whose connection was lost. Says whether the current leader changed.
    pub(crate) fn forget(&mut self, from: u64) -> bool {
        self.words.remove(&from);
        self.conclude()
    }

    fn conclude(&mut self) -> bool {
        let claims = self.words.values().filter_map(|word| {
            let id = word.leader?;
            let term = word.term;
            Some(Leader { term, id })
        });
        let believed = claims.filter(|claim| !self.is_denied(*claim)).max();
        let changed = believed != self.current;
        self.current = believed;
        changed
    }

    fn is_denied(&self, claim: Leader) -> bool {
        self.words
            .get(&claim.id)
            .is_some_and(|own| own.term >= claim.term && own.leader != Some(claim.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(term: u64, id: u64) -> Option<Leader> {
        Some(Leader { term, id })
    }

    #[test]
    fn the_highest_term_that_names_a_leader_is_believed() {
        let mut leadership = Leadership::default();
        assert!(leadership.hear(1, 5, Some(2)));
        assert_eq!(leadership.current(), leader(5, 2));
        assert!(
            !leadership.hear(3, 9, None),
            "a lone candidate hides nobody"
        );
        assert_eq!(leadership.current(), leader(5, 2));
        assert!(leadership.hear(3, 10, Some(3)));
        assert_eq!(leadership.current(), leader(10, 3));
        assert!(
            !leadership.hear(1, 6, Some(1)),
            "a lower term changes nothing"
        );
    }

    #[test]
    fn a_node_that_denies_leading_is_believed_over_others() {
        let mut leadership = Leadership::default();
        leadership.hear(1, 5, Some(2));
        leadership.hear(3, 5, Some(2));
        assert!(leadership.hear(2, 5, None));
        assert_eq!(leadership.current(), None);
        assert!(
            leadership.hear(3, 6, Some(2)),
            "elected again, in a later term"
        );
        assert_eq!(leadership.current(), leader(6, 2));
    }

    #[test]
    fn an_older_word_of_the_same_node_is_ignored() {
        let mut leadership = Leadership::default();
        leadership.hear(1, 6, Some(1));
        assert!(!leadership.hear(1, 5, Some(2)));
        assert_eq!(leadership.current(), leader(6, 1));
        leadership.hear(2, 6, Some(1));
        assert!(
            !leadership.hear(2, 6, None),
            "a follower's doubt in the same term"
        );
        assert_eq!(leadership.current(), leader(6, 1));
    }

    #[test]
    fn a_lost_connection_takes_its_word_along() {
        let mut leadership = Leadership::default();
        leadership.hear(1, 6, Some(1));
        leadership.hear(2, 5, Some(3));
        assert!(leadership.forget(1));
        assert_eq!(leadership.current(), leader(5, 3));
        assert!(leadership.forget(2));
        assert_eq!(leadership.current(), None);
    }
}
