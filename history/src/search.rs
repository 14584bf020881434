//! The search for an order that explains one key: Wing and Gong's, with Lowe's memory of what was
//! tried and a linked list from which an operation is lifted in constant time.
//!
//! Two facts make it fast. An answered operation that leaves the key as it is and whose answer fits
//! can be taken at once: whatever explains the rest afterwards explained it before, so there is no
//! need to come back to it. And an operation without an answer is only worth taking where it
//! changes the key, and is tried after all others.
//!
//! The same engine serves the witness, where the order of the answered writes is given.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use crate::budget::{Budget, Limit};
use crate::model::Register;
use crate::operation::Operation;

/// Steps between two questions to the caller's clock.
const STEPS_PER_DEADLINE_CHECK: u64 = 1024;

/// An operation on the key, and its place among the writes whose order is given.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) operation: &'a Operation,
    pub(crate) rank: Option<usize>,
}

/// What came of a search.
#[derive(Debug)]
pub(crate) enum Finding {
    /// There is an order that explains every answer.
    Explained,
    /// No order does.
    Stuck(Stuck),
    /// Nobody knows.
    Exhausted(Limit),
}

/// How far the search came.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// The longest order that explains its own answers.
    pub(crate) prefix: Vec<usize>,
    /// The key after it.
    pub(crate) state: Register,
    /// An operation that ended before anything else could be taken, and does not fit either.
    pub(crate) blocked: usize,
}

/// Searches. `spent` counts steps and may not pass `budget.steps`.
pub(crate) fn search(
    candidates: &[Candidate<'_>],
    budget: &Budget<'_>,
    spent: &mut u64,
) -> Finding {
    Search::new(candidates).run(budget, spent)
}

/// The three kinds of candidates, in the order in which they are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Answered, and leaves the key as it is.
    Keeping,
    /// Answered, and changes the key.
    Changing,
    /// Not answered.
    Open,
}

struct Taken {
    entry: usize,
    before: Register,
    phase: Phase,
}

struct Search<'a> {
    candidates: &'a [Candidate<'a>],
    list: EntryList,
    state: Register,
    done: Bits,
    taken: Vec<Taken>,
    /// Answered operations that are not taken yet.
    answered_left: usize,
    /// Whether there are operations without an answer.
    any_open: bool,
    /// The next write, where the order is given.
    next_rank: usize,
    tried: Tried,
    furthest: Option<Stuck>,
}

impl<'a> Search<'a> {
    fn new(candidates: &'a [Candidate<'a>]) -> Self {
        let answered = |candidate: &&Candidate<'_>| candidate.operation.answered().is_some();
        let answered_left = candidates.iter().filter(answered).count();
        Self {
            candidates,
            list: EntryList::new(candidates),
            state: Register::default(),
            done: Bits::new(candidates.len()),
            taken: Vec::new(),
            answered_left,
            any_open: answered_left < candidates.len(),
            next_rank: 0,
            tried: Tried::default(),
            furthest: None,
        }
    }

    fn run(mut self, budget: &Budget<'_>, spent: &mut u64) -> Finding {
        let mut phase = Phase::Keeping;
        let mut entry = self.list.first();
        while self.answered_left > 0 {
            if let Some(limit) = self.exhausted(budget, *spent) {
                return Finding::Exhausted(limit);
            }
            *spent += 1;
            match self.list.operation_invoked_by(entry) {
                Some(position) if self.take(position, entry, phase) => {
                    (phase, entry) = (Phase::Keeping, self.list.first());
                }
                Some(_) => entry = self.list.next(entry),
                None => match phase {
                    Phase::Keeping => (phase, entry) = (Phase::Changing, self.list.first()),
                    Phase::Changing if self.any_open => {
                        (phase, entry) = (Phase::Open, self.list.first());
                    }
                    Phase::Changing | Phase::Open => {
                        self.remember_if_furthest(entry);
                        match self.give_back() {
                            Some(from) => (phase, entry) = from,
                            None => return self.stuck(),
                        }
                    }
                },
            }
        }
        self.assert_explained();
        Finding::Explained
    }

    /// Replays what was found, so that a mistake of the search can never pass a bad history.
    fn assert_explained(&self) {
        let mut state = Register::default();
        let mut latest_invocation = 0;
        for position in self.order() {
            let operation = self.candidates[position].operation;
            let (after, reply) = state.apply(&operation.op);
            let fits = operation.reply().is_none_or(|answer| *answer == reply);
            assert!(fits, "the order found gives another answer to {operation}");
            let answered = operation.answered().unwrap_or(u64::MAX);
            assert!(
                latest_invocation <= answered,
                "the order found puts {operation} too late"
            );
            latest_invocation = latest_invocation.max(operation.invoked);
            state = after;
        }
    }

    fn exhausted(&self, budget: &Budget<'_>, spent: u64) -> Option<Limit> {
        if spent >= budget.steps {
            return Some(Limit::Steps(budget.steps));
        }
        if self.tried.bytes > budget.memory_bytes {
            return Some(Limit::MemoryBytes(budget.memory_bytes));
        }
        let expired = budget.expired?;
        (spent.is_multiple_of(STEPS_PER_DEADLINE_CHECK) && expired()).then_some(Limit::Deadline)
    }

    /// Takes the operation, if it is of this phase, fits, and leads to something new.
    fn take(&mut self, position: usize, entry: usize, phase: Phase) -> bool {
        let Candidate { operation, rank } = self.candidates[position];
        let is_open = operation.reply().is_none();
        if is_open != (phase == Phase::Open) || rank.is_some_and(|rank| rank != self.next_rank) {
            return false;
        }
        let (after, reply) = self.state.apply(&operation.op);
        if operation.reply().is_some_and(|answer| *answer != reply) {
            return false;
        }
        let keeps = after == self.state;
        if keeps != (phase == Phase::Keeping) {
            return false;
        }
        self.done.insert(position);
        if phase != Phase::Keeping && !self.tried.insert(&self.done, &after) {
            self.done.remove(position);
            return false;
        }
        let before = std::mem::replace(&mut self.state, after);
        self.list.lift(entry);
        self.answered_left -= usize::from(!is_open);
        self.next_rank += usize::from(rank.is_some());
        self.taken.push(Taken {
            entry,
            before,
            phase,
        });
        true
    }

    /// Undoes up to and including the last choice; says where to go on.
    fn give_back(&mut self) -> Option<(Phase, usize)> {
        loop {
            let Taken {
                entry,
                before,
                phase,
            } = self.taken.pop()?;
            let position = self.list.position(entry);
            self.state = before;
            self.list.put_back(entry);
            self.done.remove(position);
            self.answered_left += usize::from(phase != Phase::Open);
            self.next_rank -= usize::from(self.candidates[position].rank.is_some());
            if phase != Phase::Keeping {
                return Some((phase, self.list.next(entry)));
            }
        }
    }

    fn remember_if_furthest(&mut self, entry: usize) {
        let longest = self.furthest.as_ref().map(|stuck| stuck.prefix.len());
        if longest.is_none_or(|longest| longest < self.taken.len()) {
            self.furthest = Some(Stuck {
                prefix: self.order(),
                state: self.state.clone(),
                blocked: self.list.position(entry),
            });
        }
    }

    fn stuck(self) -> Finding {
        let stuck = self.furthest;
        Finding::Stuck(stuck.expect("the last step before giving up remembered something"))
    }

    fn order(&self) -> Vec<usize> {
        let position = |taken: &Taken| self.list.position(taken.entry);
        self.taken.iter().map(position).collect()
    }
}

/// Invocations and answers in the order of time, linked, so that an operation is lifted out and put
/// back in constant time. Entry 0 is the head. An operation without an answer has no second entry.
struct EntryList {
    entries: Vec<Entry>,
}

struct Entry {
    /// The operation.
    position: usize,
    /// The entry of its answer, if this is its invocation and there is one.
    answer: Option<usize>,
    is_answer: bool,
    previous: usize,
    next: usize,
}

const HEAD: usize = 0;

impl EntryList {
    fn new(candidates: &[Candidate<'_>]) -> Self {
        let mut moments = Vec::with_capacity(2 * candidates.len());
        for (position, candidate) in candidates.iter().enumerate() {
            moments.push((candidate.operation.invoked, false, position));
            if let Some(at) = candidate.operation.answered() {
                // Invocations first where times are equal: intervals are closed.
                moments.push((at, true, position));
            }
        }
        moments.sort_unstable();
        let count = moments.len() + 1;
        let mut entries = vec![Entry::linked(0, false, HEAD, count)];
        let mut invocations = vec![HEAD; candidates.len()];
        for (entry, (_, is_answer, position)) in (1..).zip(moments) {
            entries.push(Entry::linked(position, is_answer, entry, count));
            if is_answer {
                entries[invocations[position]].answer = Some(entry);
            } else {
                invocations[position] = entry;
            }
        }
        Self { entries }
    }

    fn first(&self) -> usize {
        self.entries[HEAD].next
    }

    fn next(&self, entry: usize) -> usize {
        self.entries[entry].next
    }

    fn position(&self, entry: usize) -> usize {
        self.entries[entry].position
    }

    /// The operation that this entry invokes; none if it is an answer, which nothing behind it may
    /// overtake.
    fn operation_invoked_by(&self, entry: usize) -> Option<usize> {
        let Entry {
            position,
            is_answer,
            ..
        } = self.entries[entry];
        (!is_answer).then_some(position)
    }

    fn lift(&mut self, entry: usize) {
        self.unlink(entry);
        if let Some(answer) = self.entries[entry].answer {
            self.unlink(answer);
        }
    }

    /// The reverse of `lift`; in the reverse order, so the neighbours are the same again.
    fn put_back(&mut self, entry: usize) {
        if let Some(answer) = self.entries[entry].answer {
            self.link(answer);
        }
        self.link(entry);
    }

    fn unlink(&mut self, entry: usize) {
        let Entry { previous, next, .. } = self.entries[entry];
        self.entries[previous].next = next;
        self.entries[next].previous = previous;
    }

    fn link(&mut self, entry: usize) {
        let Entry { previous, next, .. } = self.entries[entry];
        self.entries[previous].next = entry;
        self.entries[next].previous = entry;
    }
}

impl Entry {
    /// In a ring of `count` entries.
    fn linked(position: usize, is_answer: bool, entry: usize, count: usize) -> Self {
        Self {
            position,
            answer: None,
            is_answer,
            previous: (entry + count - 1) % count,
            next: (entry + 1) % count,
        }
    }
}

/// A set of positions.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn insert(&mut self, position: usize) {
        self.0[position / 64] |= 1 << (position % 64);
    }

    fn remove(&mut self, position: usize) {
        self.0[position / 64] &= !(1 << (position % 64));
    }

    /// The words that say anything: behind the full ones at the start, before the empty ones at the
    /// end. Operations are taken roughly in the order of their positions, so these are few.
    fn essence(&self) -> (usize, &[u64]) {
        let full = self.0.iter().take_while(|word| **word == u64::MAX).count();
        let empty = self.0.iter().rev().take_while(|word| **word == 0).count();
        (full, self.0.get(full..self.0.len() - empty).unwrap_or(&[]))
    }
}

/// Every (set of operations, state) that was reached. To reach one again leads to nothing new.
#[derive(Default)]
struct Tried {
    by_hash: HashMap<u64, Vec<Reached>, BuildHasherDefault<DefaultHasher>>,
    /// What all of this takes, roughly.
    bytes: usize,
}

#[derive(PartialEq, Eq)]
struct Reached {
    full_words: usize,
    words: Box<[u64]>,
    state: Register,
}

impl Tried {
    /// Whether it is new.
    fn insert(&mut self, done: &Bits, state: &Register) -> bool {
        let (full_words, words) = done.essence();
        let mut hasher = DefaultHasher::new();
        (full_words, words, state).hash(&mut hasher);
        let bucket = self.by_hash.entry(hasher.finish()).or_default();
        let known = |reached: &Reached| {
            reached.full_words == full_words && *reached.words == *words && reached.state == *state
        };
        if bucket.iter().any(known) {
            return false;
        }
        // Values are shared with the history unless an append made them; they are counted all the
        // same, so the number is never too small.
        let value_bytes = state.held().map_or(0, |(value, _)| value.len());
        let map_bytes = size_of::<(u64, Vec<Reached>)>();
        self.bytes += map_bytes + size_of::<Reached>() + size_of_val(words) + value_bytes;
        bucket.push(Reached {
            full_words,
            words: words.into(),
            state: state.clone(),
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_essence_of_a_set_leaves_out_what_is_full_and_what_is_empty() {
        let mut bits = Bits::new(320);
        assert_eq!(bits.essence(), (0, &[][..]));
        for position in 0..70 {
            bits.insert(position);
        }
        assert_eq!(bits.essence(), (1, &[0b11_1111][..]));
        for position in 70..320 {
            bits.insert(position);
        }
        assert_eq!(bits.essence(), (5, &[][..]));
        bits.remove(64);
        assert_eq!(bits.essence().0, 1);
    }

    #[test]
    fn the_same_set_and_state_is_new_only_once_and_is_counted() {
        let mut tried = Tried::default();
        let mut done = Bits::new(3);
        done.insert(1);
        assert!(tried.insert(&done, &Register::default()));
        assert!(!tried.insert(&done, &Register::default()));
        let before = tried.bytes;
        assert!(tried.insert(&done, &Register::holding("x".repeat(100), 1)));
        assert!(tried.bytes > before + 100);
    }
}
