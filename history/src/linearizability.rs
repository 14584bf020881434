//! Is there an order of all operations in which every client got the answer that it got, and in
//! which nothing overtakes what had ended before it began (Herlihy and Wing 1990)?
//!
//! Keys are judged one by one; linearizability is local, so that is the same question. The answer
//! has three values: an exhausted budget is neither yes nor no. How an order is searched for is in
//! `search`.

use std::collections::BTreeMap;
use std::fmt;

use crate::budget::{Budget, Exhausted};
use crate::event::ByteString;
use crate::model::Register;
use crate::operation::{Completion, History, Operation};
use crate::search::{self, Candidate, Finding, Stuck};

/// Operations of the longest explained order that a message shows.
const SHOWN_PREFIX_MAX: usize = 5;

/// What a check found.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order for every key.
    Linearizable,
    /// There is none for this key.
    Illegal(Box<Violation>),
    /// Not decided; no key that was decided is illegal.
    Unknown(Exhausted),
}

/// A key that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: ByteString,
    /// The longest order that was found to explain its own answers.
    pub prefix: Vec<Operation>,
    /// The key after it.
    pub state: Register,
    /// An operation that had to come next and does not fit. The culprit may be another one, but
    /// this is where to begin reading.
    pub blocked: Operation,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, count) = (&self.key, self.prefix.len());
        write!(f, "key {key}: no order explains {}; ", self.blocked)?;
        write!(
            f,
            "{count} operations fit before it and leave {}",
            self.state
        )?;
        let shown = &self.prefix[count.saturating_sub(SHOWN_PREFIX_MAX)..];
        for (position, operation) in shown.iter().enumerate() {
            let before = if position == 0 {
                ", the last of them "
            } else {
                "; "
            };
            write!(f, "{before}{operation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Illegal(violation) => write!(f, "not linearizable: {violation}"),
            Self::Unknown(exhausted) => write!(f, "unknown: {exhausted}"),
        }
    }
}

/// Judges a history.
pub fn check(history: &History, budget: Budget<'_>) -> Verdict {
    let mut keys: Vec<_> = by_key(history).into_iter().collect();
    // Small ones first: what they leave of their share goes to the others.
    keys.sort_by_key(|(_, operations)| operations.len());
    let mut steps_left = budget.steps;
    let mut keys_left = keys.len() as u64;
    let mut exhausted = None;
    for (key, operations) in keys {
        let share = Budget {
            steps: steps_left / keys_left,
            ..budget
        };
        let mut spent = 0;
        match check_key(&operations, &share, &mut spent) {
            Finding::Explained => {}
            Finding::Stuck(stuck) => {
                return Verdict::Illegal(Box::new(violation(key, &operations, stuck)));
            }
            Finding::Exhausted(limit) => {
                exhausted = exhausted.or_else(|| {
                    let key = key.clone();
                    Some(Exhausted { key, limit })
                });
            }
        }
        steps_left -= spent;
        keys_left -= 1;
    }
    exhausted.map_or(Verdict::Linearizable, Verdict::Unknown)
}

/// The operations that matter, by key, in the order of their invocations: not those that had no
/// effect, and not reads that nobody got an answer to.
pub(crate) fn by_key(history: &History) -> BTreeMap<&ByteString, Vec<&Operation>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for operation in history.operations() {
        let matters = match operation.completion {
            Completion::Ok { .. } => true,
            Completion::Fail => false,
            Completion::Unknown => operation.op.is_write(),
        };
        if matters {
            keys.entry(operation.op.key()).or_default().push(operation);
        }
    }
    for operations in keys.values_mut() {
        operations.sort_by_key(|operation| operation.invoked);
    }
    keys
}

fn check_key(operations: &[&Operation], budget: &Budget<'_>, spent: &mut u64) -> Finding {
    let candidates: Vec<_> = operations
        .iter()
        .map(|operation| Candidate {
            operation,
            rank: None,
        })
        .collect();
    search::search(&candidates, budget, spent)
}

pub(crate) fn violation(key: &ByteString, operations: &[&Operation], stuck: Stuck) -> Violation {
    let pick = |position: usize| operations[position].clone();
    Violation {
        key: key.clone(),
        prefix: stuck.prefix.into_iter().map(pick).collect(),
        state: stuck.state,
        blocked: operations[stuck.blocked].clone(),
    }
}
