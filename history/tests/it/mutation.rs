//! One thing that is wrong with an otherwise legal history. Those of `ILLEGAL` are illegal whatever
//! else is in it, as long as values are unique and nothing is deleted; the reason is beside each.

use std::collections::BTreeMap;

use history::{ByteString, Completion, Event, EventKind, Expect, History, Op, Operation, Reply};

use crate::generator::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mutation {
    /// A read of a value that nobody wrote.
    NeverWritten,
    /// A read of what had been replaced, by an acknowledged write, before it began: versions only
    /// rise.
    StaleRead,
    /// A read of the value of a put with a version that the put did not make.
    ValueSwapped,
    /// A read of a value with a piece twice that was appended once.
    SeenTwice,
    /// A put that left another number of bytes than it brought.
    WrongLength,
    /// Two writes that made the same version.
    SameVersion,
    /// A compare-and-set that found the very version that it expected, and did not match.
    WrongMismatch,
    /// A failed write whose value was read.
    FailedButSeen,
    /// An acknowledged write turned into a failed one: what it did has no reason any more. Only
    /// likely to be illegal, as are all that follow.
    AckForgotten,
    /// A compare-and-set that is told the opposite.
    OtherOutcome,
    /// A delete that is told the opposite.
    OtherExistence,
    /// A version that is one too high.
    NextVersion,
    /// A read that found nothing.
    Nothing,
    /// An operation that began when it ended.
    LateBegin,
    /// An operation that ended when it began.
    EarlyEnd,
    /// Two reads with their answers exchanged.
    ReadsExchanged,
}

pub(crate) const ILLEGAL: [Mutation; 8] = [
    Mutation::NeverWritten,
    Mutation::StaleRead,
    Mutation::ValueSwapped,
    Mutation::SeenTwice,
    Mutation::WrongLength,
    Mutation::SameVersion,
    Mutation::WrongMismatch,
    Mutation::FailedButSeen,
];

pub(crate) const LIKELY: [Mutation; 8] = [
    Mutation::AckForgotten,
    Mutation::OtherOutcome,
    Mutation::OtherExistence,
    Mutation::NextVersion,
    Mutation::Nothing,
    Mutation::LateBegin,
    Mutation::EarlyEnd,
    Mutation::ReadsExchanged,
];

/// A change of one operation, or of two.
#[derive(Clone)]
enum Change {
    Reply(u64, Reply),
    Failed(u64),
    Times(u64, u64),
    Both(u64, Reply, u64, Reply),
}

/// The history with one thing wrong, and the key that it is wrong with; none where it has nothing
/// that could be changed like that.
pub(crate) fn mutate(
    history: &History,
    mutation: Mutation,
    chance: &mut Chance,
) -> Option<(History, ByteString)> {
    let mut changes = Vec::new();
    for operation in history.operations() {
        if let Completion::Ok { at, reply, .. } = &operation.completion {
            let answered = Answered {
                operation,
                at: *at,
                reply,
            };
            changes.extend(
                changes_of(history, &answered, mutation)
                    .into_iter()
                    .map(|change| (operation.op.key().clone(), change)),
            );
        }
    }
    let (key, change) = chance.pick(&changes)?.clone();
    let mut events = history.events().to_vec();
    for event in &mut events {
        apply(&change, event);
    }
    events.sort_by_key(|event| event.t);
    let mutant = History::new(history.header().clone(), events).expect("still consistent");
    (mutant != *history).then_some((mutant, key))
}

fn apply(change: &Change, event: &mut Event) {
    let is_end = event.kind != EventKind::Invoke;
    match change {
        Change::Reply(id, reply) if *id == event.id && is_end => event.res = Some(reply.clone()),
        Change::Both(id, reply, _, _) | Change::Both(_, _, id, reply)
            if *id == event.id && is_end =>
        {
            event.res = Some(reply.clone());
        }
        Change::Failed(id) if *id == event.id && is_end => {
            event.kind = EventKind::Fail;
            (event.res, event.term, event.index) = (None, None, None);
        }
        Change::Times(id, at) if *id == event.id => event.t = *at,
        _ => {}
    }
}

struct Answered<'a> {
    operation: &'a Operation,
    at: u64,
    reply: &'a Reply,
}

/// Everything of this kind that can be done to an operation.
fn changes_of(history: &History, answered: &Answered<'_>, mutation: Mutation) -> Vec<Change> {
    let Answered {
        operation,
        at,
        reply,
    } = *answered;
    let (id, key) = (operation.id, operation.op.key());
    let others = || {
        history
            .operations()
            .iter()
            .filter(move |other| other.op.key() == key && other.id != id)
    };
    let reply_is = |reply: Reply| vec![Change::Reply(id, reply)];
    match (mutation, &operation.op, reply) {
        (Mutation::NeverWritten, Op::Get { .. }, _) => reply_is(Reply::Found {
            value: "nobody".into(),
            version: 1,
        }),
        (Mutation::Nothing, Op::Get { .. }, Reply::Found { .. }) => reply_is(Reply::Absent),
        (Mutation::StaleRead, Op::Get { .. }, _) => puts(others())
            .filter(|(_, version, _)| {
                others().any(|newer| {
                    version_of(newer) > *version
                        && newer.answered().is_some_and(|at| at < operation.invoked)
                })
            })
            .map(|(value, version, _)| Change::Reply(id, Reply::Found { value, version }))
            .collect(),
        (Mutation::ValueSwapped, Op::Get { .. }, Reply::Found { version, .. }) => puts(others())
            .filter(|(_, other, _)| other != version)
            .map(|(value, _, _)| {
                let version = *version;
                Change::Reply(id, Reply::Found { value, version })
            })
            .collect(),
        (Mutation::SeenTwice, Op::Get { .. }, Reply::Found { value, version }) => {
            let twice = [value.as_bytes(), value.as_bytes()].concat();
            if value.is_empty() {
                return Vec::new();
            }
            let (value, version) = (twice.into(), *version);
            reply_is(Reply::Found { value, version })
        }
        (
            Mutation::WrongLength,
            Op::Put { .. },
            Reply::Written {
                version,
                value_bytes,
            },
        ) => {
            let (version, value_bytes) = (*version, value_bytes + 1);
            reply_is(Reply::Written {
                version,
                value_bytes,
            })
        }
        (
            Mutation::NextVersion,
            _,
            Reply::Written {
                version,
                value_bytes,
            },
        ) => {
            let (version, value_bytes) = (version + 1, *value_bytes);
            reply_is(Reply::Written {
                version,
                value_bytes,
            })
        }
        (
            Mutation::SameVersion,
            _,
            Reply::Written {
                version,
                value_bytes,
            },
        ) => others()
            .filter(|other| matches!(other.reply(), Some(Reply::Written { .. })))
            .map(version_of)
            .filter(|other| other != version)
            .map(|version| {
                let value_bytes = *value_bytes;
                Change::Reply(
                    id,
                    Reply::Written {
                        version,
                        value_bytes,
                    },
                )
            })
            .collect(),
        (
            Mutation::WrongMismatch,
            Op::Cas {
                expect: Expect::Version(version),
                ..
            },
            Reply::Written { .. },
        ) => reply_is(Reply::Mismatch { version: *version }),
        (Mutation::OtherOutcome, Op::Cas { .. }, Reply::Written { version, .. }) => {
            let version = version - 1;
            reply_is(Reply::Mismatch { version })
        }
        (Mutation::OtherOutcome, Op::Cas { value, .. }, Reply::Mismatch { version }) => {
            let (version, value_bytes) = (version + 1, value.len() as u64);
            reply_is(Reply::Written {
                version,
                value_bytes,
            })
        }
        (Mutation::OtherExistence, Op::Delete { .. }, Reply::Deleted { existed }) => {
            let existed = !existed;
            reply_is(Reply::Deleted { existed })
        }
        (Mutation::FailedButSeen, Op::Put { value, .. }, _) => {
            let seen = others().any(|other| sees(other, value));
            if seen {
                vec![Change::Failed(id)]
            } else {
                Vec::new()
            }
        }
        (Mutation::AckForgotten, op, _) if op.is_write() => vec![Change::Failed(id)],
        (Mutation::LateBegin, _, _) => vec![Change::Times(id, at)],
        (Mutation::EarlyEnd, _, _) => vec![Change::Times(id, operation.invoked)],
        (Mutation::ReadsExchanged, Op::Get { .. }, reply) => others()
            .filter(|other| matches!(other.op, Op::Get { .. }))
            .filter_map(|other| Some((other.id, other.reply()?.clone())))
            .map(|(other, its)| Change::Both(id, its, other, reply.clone()))
            .collect(),
        _ => Vec::new(),
    }
}

/// Values and versions of answered puts.
fn puts<'a>(
    operations: impl Iterator<Item = &'a Operation>,
) -> impl Iterator<Item = (ByteString, u64, u64)> {
    operations.filter_map(|operation| match (&operation.op, operation.reply()) {
        (Op::Put { value, .. }, Some(Reply::Written { version, .. })) => {
            Some((value.clone(), *version, operation.id))
        }
        _ => None,
    })
}

fn version_of(operation: &Operation) -> u64 {
    match operation.reply() {
        Some(Reply::Written { version, .. } | Reply::Found { version, .. }) => *version,
        _ => 0,
    }
}

fn sees(operation: &Operation, piece: &ByteString) -> bool {
    let Some(Reply::Found { value, .. }) = operation.reply() else {
        return false;
    };
    !piece.is_empty()
        && value
            .as_bytes()
            .windows(piece.len())
            .any(|w| w == piece.as_bytes())
}

/// Counts, by kind.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<Mutation, (u32, u32)>);

impl Tally {
    pub(crate) fn count(&mut self, mutation: Mutation, legal: bool) {
        let (legal_ones, illegal_ones) = self.0.entry(mutation).or_default();
        *if legal { legal_ones } else { illegal_ones } += 1;
    }

    pub(crate) fn illegal(&self, mutation: Mutation) -> u32 {
        self.0.get(&mutation).map_or(0, |(_, illegal)| *illegal)
    }

    pub(crate) fn legal(&self, mutation: Mutation) -> u32 {
        self.0.get(&mutation).map_or(0, |(legal, _)| *legal)
    }
}
