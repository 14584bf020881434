//! What a picture of a failing history is about: which keys and operations, which of them in which
//! order, and who is to blame. How it looks is in `picture`.

use std::collections::{BTreeMap, BTreeSet};

use crate::budget::Exhausted;
use crate::event::ByteString;
use crate::linearizability::{Violation, by_key};
use crate::operation::{Completion, History, Location, Operation};
use crate::witness::WitnessError;

/// What a judge objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The objection, one line.
    pub problem: String,
    /// The keys that it is about.
    pub keys: BTreeSet<ByteString>,
    /// The operations that were put in an order, by number: the longest order that explains its own
    /// answers, or that of the log.
    pub order: Vec<u64>,
    /// What `order` is, for a reader.
    pub order_is: &'static str,
    /// The operations that do not fit, by number.
    pub culprits: Vec<u64>,
}

const LONGEST: &str = "the longest order found that explains its own answers";
const LOG: &str = "the order of the log, as far as writes were answered";

impl Scene {
    /// Of what the search found.
    #[must_use]
    pub fn of_violation(violation: &Violation) -> Self {
        Self {
            problem: format!("not linearizable: {violation}"),
            keys: BTreeSet::from([violation.key.clone()]),
            order: violation.prefix.iter().map(|op| op.id).collect(),
            order_is: LONGEST,
            culprits: vec![violation.blocked.id],
        }
    }

    /// Of a key that could not be judged; nobody is to blame.
    #[must_use]
    pub fn of_exhausted(exhausted: &Exhausted) -> Self {
        Self {
            problem: format!("unknown: {exhausted}"),
            keys: BTreeSet::from([exhausted.key.clone()]),
            order: Vec::new(),
            order_is: LONGEST,
            culprits: Vec::new(),
        }
    }

    /// Of what the log contradicts. None where that is not about operations of the history.
    #[must_use]
    pub fn of_witness(history: &History, error: &WitnessError) -> Option<Self> {
        let culprits = match error {
            WitnessError::Unexplained(violation) => {
                let scene = Self::of_violation(violation);
                let problem = error.to_string();
                return Some(Self { problem, ..scene });
            }
            WitnessError::Undecided(exhausted) => return Some(Self::of_exhausted(exhausted)),
            WitnessError::LogOrder { .. } | WitnessError::NobodyAsked { .. } => return None,
            WitnessError::NoLocation(operation)
            | WitnessError::NotInLog(operation)
            | WitnessError::WrongReply { operation, .. }
            | WitnessError::AnotherOp { operation, .. }
            | WitnessError::OtherPlace { operation, .. }
            | WitnessError::FailedInLog { operation, .. } => vec![operation],
            WitnessError::WrongRead { read, .. } => vec![read],
            WitnessError::SameIndex(first, second) | WitnessError::TermFalls(first, second) => {
                vec![first, second]
            }
            WitnessError::RealTime { earlier, later } => vec![earlier, later],
        };
        let keys = culprits.iter().map(|op| op.op.key().clone()).collect();
        Some(Self {
            problem: error.to_string(),
            order: located(history, &keys),
            keys,
            order_is: LOG,
            culprits: culprits.iter().map(|operation| operation.id).collect(),
        })
    }

    /// Chooses at most `limit` operations: those nearest in time to the culprits.
    pub(crate) fn select<'a>(&self, history: &'a History, limit: usize) -> Selection<'a> {
        let mut left_out = LeftOut::default();
        let mut shown = Vec::new();
        let by_key = by_key(history);
        for operations in self.keys.iter().filter_map(|key| by_key.get(key)) {
            shown.extend(operations.iter().copied());
        }
        for operation in history.operations() {
            match operation.completion {
                _ if !self.keys.contains(operation.op.key()) => left_out.other_keys += 1,
                Completion::Fail if self.culprits.contains(&operation.id) => shown.push(operation),
                Completion::Fail => left_out.failed += 1,
                Completion::Unknown if !operation.op.is_write() => left_out.unanswered_reads += 1,
                Completion::Ok { .. } | Completion::Unknown => {}
            }
        }
        let of_keys = shown.len();
        let centre = self.centre(&shown);
        shown.sort_by_key(|operation| {
            let is_culprit = self.culprits.contains(&operation.id);
            (!is_culprit, distance(operation, centre), operation.id)
        });
        shown.truncate(limit);
        shown.sort_by_key(|operation| (operation.invoked, operation.id));
        let first = shown.first().map_or(0, |operation| operation.invoked);
        let cut = of_keys - shown.len();
        Selection {
            shown,
            of_keys,
            cut,
            first,
            left_out,
        }
    }

    /// The time from which the culprits begin to the one at which they end; without a culprit, the
    /// end of everything.
    fn centre(&self, operations: &[&Operation]) -> (u64, u64) {
        let culprits = operations
            .iter()
            .filter(|op| self.culprits.contains(&op.id));
        let mut span: Option<(u64, u64)> = None;
        for culprit in culprits {
            let end = culprit.answered().unwrap_or(culprit.invoked);
            let (from, to) = span.unwrap_or((culprit.invoked, end));
            span = Some((from.min(culprit.invoked), to.max(end)));
        }
        let last = operations.iter().map(|op| op.invoked).max().unwrap_or(0);
        span.unwrap_or((last, last))
    }
}

/// The operations that are drawn, by invocation, and how many are not.
pub(crate) struct Selection<'a> {
    pub(crate) shown: Vec<&'a Operation>,
    /// Operations on the keys that a judge looks at.
    pub(crate) of_keys: usize,
    /// Of these, the ones that are too far away.
    pub(crate) cut: usize,
    /// When the first that is shown began.
    pub(crate) first: u64,
    pub(crate) left_out: LeftOut,
}

/// Operations that no judge of these keys looks at.
#[derive(Default)]
pub(crate) struct LeftOut {
    pub(crate) other_keys: usize,
    pub(crate) failed: usize,
    pub(crate) unanswered_reads: usize,
}

/// How far an operation is from a span of time, and how far its invocation. One without an answer
/// reaches everything that comes after it.
fn distance(operation: &Operation, (from, to): (u64, u64)) -> (u64, u64) {
    let end = operation.answered().unwrap_or(u64::MAX);
    let before = from.saturating_sub(end);
    let behind = operation.invoked.saturating_sub(to);
    (before.max(behind), operation.invoked.abs_diff(from))
}

/// Operations on some keys that say where they stand in the log, in its order.
fn located(history: &History, keys: &BTreeSet<ByteString>) -> Vec<u64> {
    let mut order: BTreeMap<(Location, u64), u64> = BTreeMap::new();
    for operation in history.operations() {
        if let Completion::Ok {
            location: Some(location),
            ..
        } = operation.completion
            && keys.contains(operation.op.key())
        {
            order.insert((location, operation.id), operation.id);
        }
    }
    order.into_values().collect()
}
