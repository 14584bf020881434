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
//! independent of it, except for that search. Where the log itself was dumped, `dumped_log` judges
//! without any search.

use std::collections::BTreeMap;

use crate::budget::{Budget, Exhausted};
use crate::event::{ByteString, Op, Reply};
use crate::linearizability::{Violation, by_key, violation};
use crate::model::Register;
use crate::operation::{Completion, History, Location, Operation};
use crate::search::{self, Candidate, Finding};
use crate::timeline::{Misfit, RealTime, Timeline, WrongReply, place_reads};

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
    /// The entries of a dumped log do not stand in an order that a log can have.
    #[error("the dumped log has {after} behind {before}")]
    LogOrder {
        /// Stands before.
        before: Location,
        /// Stands behind, with an index that is not higher or a term that is lower.
        after: Location,
    },
    /// The dumped log has a write that no client of the history asked for.
    #[error("the dumped log has {op} at {location}, of an op {id} that nobody asked for")]
    NobodyAsked {
        /// Where it stands.
        location: Location,
        /// The operation that it claims to be.
        id: u64,
        /// What it does.
        op: Box<Op>,
    },
    /// The dumped log has something else than what was asked for.
    #[error("the dumped log has {op} at {location} for {operation}")]
    AnotherOp {
        /// Where it stands.
        location: Location,
        /// What it does.
        op: Box<Op>,
        /// What was asked for.
        operation: Box<Operation>,
    },
    /// An acknowledged write is not in the dumped log: it is lost.
    #[error("the dumped log does not have {0}")]
    NotInLog(Box<Operation>),
    /// An acknowledged write is not in the dumped log where its answer says.
    #[error("the dumped log does not have {operation} there, but at {location}")]
    OtherPlace {
        /// The write.
        operation: Box<Operation>,
        /// Where it stands first.
        location: Location,
    },
    /// A write that certainly took no effect is in the dumped log.
    #[error("the dumped log has {operation} at {location}")]
    FailedInLog {
        /// The write.
        operation: Box<Operation>,
        /// Where it stands.
        location: Location,
    },
}

impl From<WrongReply<'_>> for WitnessError {
    fn from(wrong: WrongReply<'_>) -> Self {
        Self::WrongReply {
            operation: boxed(wrong.operation),
            before: wrong.before,
            expected: wrong.expected,
        }
    }
}

impl From<Misfit<'_>> for WitnessError {
    fn from(misfit: Misfit<'_>) -> Self {
        Self::WrongRead {
            read: boxed(misfit.read),
            choices: misfit.choices,
        }
    }
}

/// Steps of the search on one key with unanswered writes.
const STEPS_PER_KEY_MAX: u64 = 20_000_000;

/// Memory of that search in bytes.
const MEMORY_BYTES_MAX: usize = 256 << 20;

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

/// Whether a write that began after another had ended stands behind it.
pub(crate) fn check_real_time(log: &[&Operation]) -> Result<(), WitnessError> {
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
    reads.sort_by_key(|read| read.invoked);
    let real_time = RealTime::new(&writes);
    let timeline = Timeline::replay(writes.into_iter().enumerate().collect())?;
    let reads = reads.into_iter().map(|read| (read, &timeline));
    Ok(place_reads(reads, &real_time)?)
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

pub(crate) fn boxed(operation: &Operation) -> Box<Operation> {
    Box::new(operation.clone())
}
