//! The replicated log as a witness. Every acknowledged write says at which index it stands, so
//! there is nothing to guess: the order is given, and what contradicts it is named.
//!
//! 1. Every acknowledged write has a place, no two have the same, terms never fall along the log.
//! 2. The order of the log respects real time: a write that began after another had ended stands
//!    behind it, on whatever key.
//! 3. Replaying the writes of a key in that order gives exactly the answers that were given. A
//!    write that took effect twice, was lost, or failed and took effect all the same shows here.
//! 4. Every read saw a state that the key had between the read's invocation and its answer.
//!
//! A key that has writes without an answer is not quite determined: each of them may stand anywhere
//! behind its invocation, or nowhere. There the places are searched for, with the order of the
//! others given. Stronger than `linearizability` (the log's order must be the explanation) and
//! independent of it, except for that search.

use std::collections::BTreeMap;

use crate::budget::{Budget, Exhausted};
use crate::event::{ByteString, Reply};
use crate::linearizability::{Violation, by_key, violation};
use crate::model::Register;
use crate::operation::{Completion, History, Location, Operation};
use crate::search::{self, Candidate, Finding};

/// Why the log does not explain a history. Every message is one line and names the operations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// An acknowledged write does not say where it stands.
    #[error("{0} does not say where in the log it stands")]
    NoLocation(Box<Operation>),
    /// Two acknowledged writes stand at one index: one of them is lost, or was answered by mistake.
    #[error("two writes stand at one index: {0} and {1}")]
    SameIndex(Box<Operation>, Box<Operation>),
    /// The term falls along the log.
    #[error("the term falls from {0} to {1}")]
    TermFalls(Box<Operation>, Box<Operation>),
    /// The log has a write before one that had ended when it began.
    #[error("the log has {later} before {earlier}, which had ended when it began")]
    RealTime {
        /// Ended first.
        earlier: Box<Operation>,
        /// Began afterwards, and stands before it.
        later: Box<Operation>,
    },
    /// The log gives another answer.
    #[error("{operation} should have been answered {expected}: the log leaves {before} before it")]
    WrongReply {
        /// The write.
        operation: Box<Operation>,
        /// The key before it.
        before: Register,
        /// What the model answers.
        expected: Reply,
    },
    /// A read saw what the key did not hold at any time between its invocation and its answer.
    #[error("{read} saw what was not there at the time: {choices}")]
    WrongRead {
        /// The read.
        read: Box<Operation>,
        /// What it could have seen.
        choices: String,
    },
    /// A key with unanswered writes that no place of theirs explains.
    #[error("by the order of the log, {0}")]
    Unexplained(Box<Violation>),
    /// A key has too many unanswered writes to decide. This is no violation.
    #[error("by the order of the log, {0}")]
    Undecided(Exhausted),
}

/// Steps of the search on one key with unanswered writes.
const STEPS_PER_KEY_MAX: u64 = 20_000_000;

/// Memory of that search in bytes.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// States that a message about a read shows.
const SHOWN_STATES_MAX: usize = 4;

/// Judges a history whose writes say where they stand.
///
/// # Errors
/// The first contradiction: of the log as a whole, then key by key.
pub fn check(history: &History) -> Result<(), WitnessError> {
    let log = log_order(history)?;
    check_real_time(&log)?;
    let mut ranks = BTreeMap::new();
    for (rank, operation) in log.iter().enumerate() {
        ranks.insert(operation.id, rank);
    }
    let mut undecided = Ok(());
    for (key, operations) in by_key(history) {
        let checked = if operations.iter().any(|op| op.answered().is_none()) {
            place_unanswered(key, &operations, &ranks)
        } else {
            replay(operations, &ranks)
        };
        match checked {
            Err(WitnessError::Undecided(_)) if undecided.is_ok() => undecided = checked,
            Ok(()) | Err(WitnessError::Undecided(_)) => {}
            Err(_) => return checked,
        }
    }
    undecided
}

/// The acknowledged writes in the order of the log.
fn log_order(history: &History) -> Result<Vec<&Operation>, WitnessError> {
    let mut log: BTreeMap<u64, (Location, &Operation)> = BTreeMap::new();
    for operation in history.operations() {
        let Completion::Ok { location, .. } = &operation.completion else {
            continue;
        };
        if !operation.op.is_write() {
            continue;
        }
        let location = location.ok_or_else(|| WitnessError::NoLocation(boxed(operation)))?;
        if let Some((_, other)) = log.insert(location.index, (location, operation)) {
            return Err(WitnessError::SameIndex(boxed(other), boxed(operation)));
        }
    }
    for ((before, first), (after, second)) in log.values().zip(log.values().skip(1)) {
        if after.term < before.term {
            return Err(WitnessError::TermFalls(boxed(first), boxed(second)));
        }
    }
    Ok(log.into_values().map(|(_, operation)| operation).collect())
}

fn check_real_time(log: &[&Operation]) -> Result<(), WitnessError> {
    let mut latest: Option<&Operation> = None;
    for operation in log {
        if let Some(later) = latest.filter(|latest| operation.precedes(latest)) {
            return Err(WitnessError::RealTime {
                earlier: boxed(operation),
                later: boxed(later),
            });
        }
        if latest.is_none_or(|latest| latest.invoked < operation.invoked) {
            latest = Some(operation);
        }
    }
    Ok(())
}

/// Replays the writes of a key and places its reads between them.
fn replay(operations: Vec<&Operation>, ranks: &BTreeMap<u64, usize>) -> Result<(), WitnessError> {
    let (mut writes, mut reads): (Vec<_>, Vec<_>) = operations
        .into_iter()
        .partition(|operation| operation.op.is_write());
    writes.sort_by_key(|write| ranks.get(&write.id));
    let mut states = vec![Register::default()];
    for write in &writes {
        let before = &states[states.len() - 1];
        let (after, expected) = before.apply(&write.op);
        if write.reply() != Some(&expected) {
            return Err(WitnessError::WrongReply {
                operation: boxed(write),
                before: before.clone(),
                expected,
            });
        }
        states.push(after);
    }
    reads.sort_by_key(|read| read.invoked);
    place_reads(&reads, &Timeline::new(writes, states))
}

/// Gives each read, in the order of their invocations, the earliest place that it can have.
/// Earliest is best: a place only ever forbids earlier ones to reads that began after it had ended.
fn place_reads(reads: &[&Operation], timeline: &Timeline<'_>) -> Result<(), WitnessError> {
    // Reads that were placed, by the time of their answer: the latest place up to then.
    let mut floors: BTreeMap<u64, usize> = BTreeMap::new();
    for read in reads {
        let seen = floors
            .range(..read.invoked)
            .next_back()
            .map_or(0, |(_, place)| *place);
        let first = timeline.first_place(read).max(seen);
        let last = timeline.last_place(read);
        let place = timeline.find(read, first, last).ok_or_else(|| {
            let choices = timeline.describe(first, last);
            let read = boxed(read);
            WitnessError::WrongRead { read, choices }
        })?;
        let answered = read.answered().unwrap_or(read.invoked);
        raise_floor(&mut floors, answered, place);
    }
    Ok(())
}

/// Keeps the floors growing with time, so that the newest before a moment is the highest.
fn raise_floor(floors: &mut BTreeMap<u64, usize>, at: u64, place: usize) {
    let before = floors
        .range(..=at)
        .next_back()
        .map_or(0, |(_, place)| *place);
    if before >= place {
        return;
    }
    let covered: Vec<u64> = floors
        .range(at..)
        .take_while(|(_, later)| **later <= place)
        .map(|(at, _)| *at)
        .collect();
    for at in covered {
        floors.remove(&at);
    }
    floors.insert(at, place);
}

/// The states of a key along the log. Place `p` is after the first `p` writes.
struct Timeline<'a> {
    writes: Vec<&'a Operation>,
    states: Vec<Register>,
    /// For each write, the latest invocation among it and those before it.
    latest_invocation: Vec<u64>,
    /// For each write, the earliest answer among it and those behind it.
    earliest_answer: Vec<u64>,
    /// The places at which the key had a version, by that version.
    by_version: BTreeMap<u64, Vec<usize>>,
}

impl<'a> Timeline<'a> {
    fn new(writes: Vec<&'a Operation>, states: Vec<Register>) -> Self {
        let grow = |latest: &mut u64, write: &&Operation| {
            *latest = (*latest).max(write.invoked);
            Some(*latest)
        };
        let latest_invocation = writes.iter().scan(0, grow).collect();
        let shrink = |earliest: &mut u64, write: &&Operation| {
            *earliest = (*earliest).min(write.answered().unwrap_or(u64::MAX));
            Some(*earliest)
        };
        let mut earliest_answer: Vec<u64> = writes.iter().rev().scan(u64::MAX, shrink).collect();
        earliest_answer.reverse();
        let mut by_version: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (place, state) in states.iter().enumerate() {
            by_version.entry(state.version()).or_default().push(place);
        }
        Self {
            writes,
            states,
            latest_invocation,
            earliest_answer,
            by_version,
        }
    }

    /// Behind every write that had been answered when the read began.
    fn first_place(&self, read: &Operation) -> usize {
        self.earliest_answer
            .partition_point(|answer| *answer < read.invoked)
    }

    /// Before every write that began after the read was answered.
    fn last_place(&self, read: &Operation) -> usize {
        let answered = read.answered().unwrap_or(u64::MAX);
        self.latest_invocation
            .partition_point(|invoked| *invoked <= answered)
    }

    fn find(&self, read: &Operation, first: usize, last: usize) -> Option<usize> {
        let version = match read.reply() {
            Some(Reply::Found { version, .. }) => *version,
            _ => 0,
        };
        let places = self.by_version.get(&version)?;
        let from = places.partition_point(|place| *place < first);
        places[from..]
            .iter()
            .take_while(|place| **place <= last)
            .find(|place| Some(&self.states[**place].apply(&read.op).1) == read.reply())
            .copied()
    }

    fn describe(&self, first: usize, last: usize) -> String {
        if first > last {
            return "a read before it had seen a later state".to_owned();
        }
        let mut text = String::from("the key held ");
        for (count, place) in (first..=last).enumerate() {
            let separator = if count == 0 { "" } else { ", then " };
            if count == SHOWN_STATES_MAX {
                text.push_str(&format!("{separator}{} more", last - place + 1));
                break;
            }
            text.push_str(&format!("{separator}{}", self.states[place]));
            if let Some(write) = place.checked_sub(1).map(|write| self.writes[write]) {
                text.push_str(&format!(" (by op {})", write.id));
            }
        }
        text
    }
}

/// Searches places for the unanswered writes of a key, the order of the others being given.
fn place_unanswered(
    key: &ByteString,
    operations: &[&Operation],
    ranks: &BTreeMap<u64, usize>,
) -> Result<(), WitnessError> {
    let mut order: Vec<usize> = operations
        .iter()
        .filter_map(|operation| ranks.get(&operation.id).copied())
        .collect();
    order.sort_unstable();
    let local = |operation: &&Operation| {
        let rank = ranks.get(&operation.id)?;
        order.binary_search(rank).ok()
    };
    let candidates: Vec<_> = operations
        .iter()
        .map(|operation| Candidate {
            operation,
            rank: local(operation),
        })
        .collect();
    let budget = Budget {
        steps: STEPS_PER_KEY_MAX,
        memory_bytes: MEMORY_BYTES_MAX,
        expired: None,
    };
    match search::search(&candidates, &budget, &mut 0) {
        Finding::Explained => Ok(()),
        Finding::Stuck(stuck) => {
            let violation = violation(key, operations, stuck);
            Err(WitnessError::Unexplained(Box::new(violation)))
        }
        Finding::Exhausted(limit) => {
            let key = key.clone();
            Err(WitnessError::Undecided(Exhausted { key, limit }))
        }
    }
}

fn boxed(operation: &Operation) -> Box<Operation> {
    Box::new(operation.clone())
}
