//! Quorum arithmetic: pure functions without state, checked against brute force for 1 to 9 voters.

use crate::types::{Index, NodeId};

/// How many of `voters` are a majority.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest index that a majority holds, given what each voter holds (paper 5.3 and 5.4). Sorts
/// `held` in place. Zero voters hold nothing.
#[must_use]
pub fn held_by_majority(held: &mut [Index]) -> Index {
    if held.is_empty() {
        return Index(0);
    }
    held.sort_unstable_by(|a, b| b.cmp(a));
    held[majority(held.len()) - 1]
}

/// The highest read round that a majority has confirmed; the same arithmetic over round numbers.
#[must_use]
pub fn confirmed_by_majority(rounds: &mut [u64]) -> u64 {
    if rounds.is_empty() {
        return 0;
    }
    rounds.sort_unstable_by(|a, b| b.cmp(a));
    rounds[majority(rounds.len()) - 1]
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A majority said yes.
    Won,
    /// A majority said no, so it cannot be won any more.
    Lost,
    /// Neither yet.
    Pending,
}

/// Counts the votes of `voters`; `vote` gives each one's answer, none while it is missing.
pub fn tally(voters: &[NodeId], vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
    let (mut yes, mut no) = (0, 0);
    for voter in voters {
        match vote(*voter) {
            Some(true) => yes += 1,
            Some(false) => no += 1,
            None => {}
        }
    }
    let needed = majority(voters.len());
    if yes >= needed {
        Tally::Won
    } else if voters.len() - no < needed {
        Tally::Lost
    } else {
        Tally::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All vectors of length `length` over `0..values`.
    fn vectors(length: usize, values: u64) -> impl Iterator<Item = Vec<u64>> {
        let count = values.pow(u32::try_from(length).expect("small"));
        (0..count).map(move |mut n| {
            (0..length)
                .map(|_| {
                    let digit = n % values;
                    n /= values;
                    digit
                })
                .collect()
        })
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for voters in 1..=9 {
            let needed = majority(voters);
            assert!(
                needed * 2 > voters && (needed - 1) * 2 <= voters,
                "{voters} voters"
            );
        }
    }

    #[test]
    fn held_by_majority_agrees_with_brute_force_for_1_to_9_voters() {
        for voters in 1..=9 {
            for held in vectors(voters, if voters <= 6 { 5 } else { 3 }) {
                let brute = (0..=5u64)
                    .filter(|i| held.iter().filter(|h| *h >= i).count() * 2 > voters)
                    .max()
                    .expect("index 0 is held by all");
                let mut indexes: Vec<_> = held.iter().copied().map(Index).collect();
                assert_eq!(held_by_majority(&mut indexes), Index(brute), "{held:?}");
                let mut rounds = held.clone();
                assert_eq!(confirmed_by_majority(&mut rounds), brute, "{held:?}");
            }
        }
    }

    #[test]
    fn tally_agrees_with_brute_force_for_1_to_9_voters() {
        for count in 1..=9u64 {
            let voters: Vec<_> = (1..=count).map(NodeId).collect();
            for votes in vectors(voters.len(), 3) {
                let vote = |id: NodeId| match votes[id.0 as usize - 1] {
                    0 => None,
                    other => Some(other == 1),
                };
                let yes = votes.iter().filter(|v| **v == 1).count();
                let missing = votes.iter().filter(|v| **v == 0).count();
                let brute = if yes * 2 > voters.len() {
                    Tally::Won
                } else if (yes + missing) * 2 > voters.len() {
                    Tally::Pending
                } else {
                    Tally::Lost
                };
                assert_eq!(tally(&voters, vote), brute, "{votes:?}");
            }
        }
    }
}
