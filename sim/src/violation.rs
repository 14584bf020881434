//! What must hold at all times, numbered, and what is said when it does not.

use std::fmt;

/// The invariants across nodes. Those of one node are the protocol's own, below 20.
pub const INVARIANTS: &[(u32, &str)] = &[
    (20, "At most one node leads a term."),
    (
        21,
        "A node votes at most once in a term, over all its lives.",
    ),
    (
        22,
        "A vote goes to a log that is at least as new as the voter's.",
    ),
    (
        23,
        "Term, commit index and applied index of a life never go back; nor does a durable term.",
    ),
    (24, "Terms never fall along a log."),
    (
        25,
        "Entries with the same index and term are equal, and so is everything before them.",
    ),
    (26, "What was committed at an index never changes."),
    (27, "What is committed is on the disks of a majority."),
    (
        28,
        "Nobody who lacks a committed entry could be elected by what is on the disks.",
    ),
    (
        29,
        "A leader holds everything that was committed in its term and before.",
    ),
    (
        30,
        "A leader's commit index moves only to an entry of its own term.",
    ),
    (
        31,
        "All nodes apply the same entries in the same order, without gaps, and answer the same.",
    ),
    (
        32,
        "What a leader believes matched is on that follower's disk.",
    ),
    (
        33,
        "A promise is true on the disk of whoever makes it when it leaves.",
    ),
    (
        34,
        "What was acknowledged to a client is committed where the client was told.",
    ),
    (
        35,
        "A read sees everything that was committed when it began.",
    ),
    (
        36,
        "What a node believes of its log and of its disk is true.",
    ),
    (37, "A leader never removes entries of its own log."),
    (38, "No honest message is refused as malformed."),
    (
        39,
        "Machines that applied the same entries are in the same state.",
    ),
    (
        40,
        "The order of the log explains everything that clients were told.",
    ),
    (
        41,
        "What clients were told is linearizable, and decided within the budget.",
    ),
    (
        42,
        "A log begins behind a committed entry, and only behind what its node has applied or got.",
    ),
    (
        43,
        "A snapshot stands for what its node has applied, and the state never goes back.",
    ),
    (
        44,
        "A snapshot carries the membership that the log up to its end says.",
    ),
    (
        45,
        "Who lost entries that it may have acknowledged is in no quorum until it has them again.",
    ),
    (
        46,
        "A leader that hears from such a node counts nothing of it.",
    ),
];

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Violation {
    /// Its number in [`INVARIANTS`].
    pub invariant: u32,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = INVARIANTS
            .iter()
            .find(|(number, _)| *number == self.invariant)
            .map_or("(not in the table)", |(_, sentence)| sentence);
        write!(f, "INV-{}: {} {}", self.invariant, sentence, self.what)
    }
}

/// Fails with a violation of `invariant` unless `holds`; `what` is only called then.
///
/// # Errors
/// When it does not hold.
pub(crate) fn require(
    holds: bool,
    invariant: u32,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        return Ok(());
    }
    Err(Violation {
        invariant,
        what: what(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_invariant_in_the_same_words() {
        let page = include_str!("../../docs/protocol.md");
        for (number, sentence) in INVARIANTS {
            let row = format!("| INV-{number} | {sentence} |");
            assert!(page.contains(&row), "{row}");
        }
        let mut numbers = INVARIANTS.iter().map(|(number, _)| *number);
        assert!(numbers.clone().is_sorted() && numbers.all(|number| number >= 20));
    }

    #[test]
    fn a_violation_says_which_invariant_and_what_was_seen() {
        let violation = require(false, 20, || "n1 and n2 lead term 3".to_owned());
        let text = violation.expect_err("it does not hold").to_string();
        assert_eq!(
            text,
            "INV-20: At most one node leads a term. n1 and n2 lead term 3"
        );
        assert_eq!(require(true, 20, String::new), Ok(()));
    }
}
