//! Quorum arithmetic: pure functions without state, checked against brute force for 1 to 9 voters.

use crate::membership::Membership;
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

/// Counts the votes of `voters`; `vote` gives each one's answer, none while it is missing. Without
/// voters nobody ever wins.
pub fn tally<T: Copy>(voters: &[T], vote: impl Fn(T) -> Option<bool>) -> Tally {
    let (mut yes, mut no) = (0, 0);
    for voter in voters {
        match vote(*voter) {
            Some(true) => yes += 1,
            Some(false) => no += 1,
            None => {}
        }
    }
    let needed = majority(voters.len());
    if voters.is_empty() {
        Tally::Pending
    } else if yes >= needed {
        Tally::Won
    } else if voters.len() - no < needed {
        Tally::Lost
    } else {
        Tally::Pending
    }
}

/// Whose word decides: the voters, and while a change is under way those of both halves, of which
/// each has to agree by itself (paper section 6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Electorate {
    voters: Vec<NodeId>,
    /// The half that is being left; none for a voter that can never answer again.
    outgoing: Vec<Option<NodeId>>,
}

impl Electorate {
    /// The voters of a membership.
    #[must_use]
    pub fn of(membership: &Membership) -> Self {
        Self {
            voters: membership.voters().collect(),
            outgoing: membership.outgoing_voters().collect(),
        }
    }

    /// The highest index that is held by a majority of each half.
    pub fn held(&self, held: impl Fn(NodeId) -> Index) -> Index {
        self.highest(|id| held(id).0).into()
    }

    /// The highest read round that a majority of each half has confirmed.
    pub fn confirmed(&self, round: impl Fn(NodeId) -> u64) -> u64 {
        self.highest(round)
    }

    fn highest(&self, value: impl Fn(NodeId) -> u64) -> u64 {
        let mut values: Vec<_> = self.voters.iter().map(|id| value(*id)).collect();
        let highest = confirmed_by_majority(&mut values);
        if self.outgoing.is_empty() {
            return highest;
        }
        let outgoing = self.outgoing.iter();
        let mut values: Vec<_> = outgoing.map(|id| id.map_or(0, &value)).collect();
        highest.min(confirmed_by_majority(&mut values))
    }

    /// Whether those for whom `answers` is true are a majority of each half.
    pub fn is_quorum(&self, answers: impl Fn(NodeId) -> bool) -> bool {
        self.highest(|id| u64::from(answers(id))) == 1
    }

    /// Counts votes: won where both halves are won, lost where one of them is lost.
    pub fn tally(&self, vote: impl Fn(NodeId) -> Option<bool>) -> Tally {
        let half = |voters: &[Option<NodeId>]| tally(voters, |id| id.and_then(&vote));
        let voters: Vec<_> = self.voters.iter().copied().map(Some).collect();
        let halves = if self.outgoing.is_empty() {
            [half(&voters), Tally::Won]
        } else {
            [half(&voters), half(&self.outgoing)]
        };
        if halves.contains(&Tally::Lost) {
            Tally::Lost
        } else if halves.contains(&Tally::Pending) {
            Tally::Pending
        } else {
            Tally::Won
        }
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

    /// Every joint membership of up to four voters a side, and every vector of what they hold.
    #[test]
    fn both_halves_decide_for_themselves_as_brute_force_says() {
        let ids: Vec<_> = (1..=5).map(NodeId).collect();
        let halves = |mask: u32| -> Vec<NodeId> {
            let chosen = ids.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
            chosen.map(|(_, id)| *id).collect()
        };
        for (new, old) in (1u32..32).flat_map(|new| (0u32..32).map(move |old| (new, old))) {
            let lost = new.is_multiple_of(3) && old > 1;
            let mut outgoing: Vec<_> = halves(old).into_iter().map(Some).collect();
            if lost {
                outgoing[0] = None;
            }
            let electorate = Electorate {
                voters: halves(new),
                outgoing: outgoing.clone(),
            };
            for held in vectors(5, 3) {
                let of = |id: NodeId| held[id.0 as usize - 1];
                let enough = |level: u64| {
                    let new = electorate.voters.iter().filter(|id| of(**id) >= level);
                    let old = outgoing.iter().flatten().filter(|id| of(**id) >= level);
                    let new_half = new.count() * 2 > electorate.voters.len();
                    new_half && (outgoing.is_empty() || old.count() * 2 > outgoing.len())
                };
                let brute = (1..3).filter(|level| enough(*level)).max().unwrap_or(0);
                assert_eq!(electorate.held(|id| Index(of(id))), Index(brute));
                assert_eq!(electorate.is_quorum(|id| of(id) > 1), enough(2));
                let won = electorate.tally(|id| Some(of(id) > 1)) == Tally::Won;
                assert_eq!(won, enough(2), "{electorate:?} {held:?}");
            }
        }
    }

    #[test]
    fn without_voters_nothing_is_ever_decided() {
        let nobody = Electorate::default();
        assert_eq!(nobody.held(|_| Index(9)), Index(0));
        assert!(!nobody.is_quorum(|_| true));
        assert_eq!(nobody.tally(|_| Some(true)), Tally::Pending);
    }
}
