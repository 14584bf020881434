//! A checker that is too simple to be wrong: it tries every order of every subset.

use history::{Completion, History, Operation, Register};

/// Whether there is an order of all answered operations, and of some of the open ones, that
/// respects real time and gives every answer. All on one key.
pub(crate) fn linearizable(history: &History) -> bool {
    let left: Vec<&Operation> = history
        .operations()
        .iter()
        .filter(|operation| operation.completion != Completion::Fail)
        .collect();
    explains(&Register::default(), &left)
}

fn explains(state: &Register, left: &[&Operation]) -> bool {
    if left.iter().all(|operation| operation.answered().is_none()) {
        return true;
    }
    (0..left.len()).any(|position| {
        let next = left[position];
        let mut rest = left.to_vec();
        rest.remove(position);
        if rest.iter().any(|other| other.precedes(next)) {
            return false;
        }
        let (after, reply) = state.apply(&next.op);
        next.reply().is_none_or(|answer| *answer == reply) && explains(&after, &rest)
    })
}
