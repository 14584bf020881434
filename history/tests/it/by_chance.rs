//! Random histories: legal ones by running the model, arbitrary ones beside the brute force.

use history::{Budget, Completion, Expect, Location, Op, Operation, Register, Verdict};
use history::{check, witness};
use proptest::prelude::*;

use crate::brute;
use crate::build::{found, history, written};

const VALUES: [&str; 3] = ["", "x", "y"];

fn any_op(key: &'static str) -> impl Strategy<Value = Op> {
    let value = || prop::sample::select(&VALUES[..]);
    let expect = prop_oneof![
        Just(Expect::Absent),
        value().prop_map(|value| Expect::Value(value.into())),
        (0u64..4).prop_map(Expect::Version),
    ];
    prop_oneof![
        3 => value().prop_map(move |value| Op::put(key, value)),
        2 => value().prop_map(move |value| Op::append(key, value)),
        1 => Just(Op::delete(key)),
        2 => (expect, value()).prop_map(move |(expect, value)| Op::cas(key, expect, value)),
        4 => Just(Op::get(key)),
    ]
}

/// How an operation of a sequential run is turned into one of a history.
#[derive(Clone, Debug)]
struct Step {
    op: Op,
    /// How far before its moment it is invoked, and how far behind it is answered.
    widen: (u64, u64),
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    AppliedUnknown,
    LostUnknown,
    Failed,
}

fn any_step(key: &'static str, widest: u64) -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        12 => Just(Fate::Answered),
        1 => Just(Fate::AppliedUnknown),
        1 => Just(Fate::LostUnknown),
        1 => Just(Fate::Failed),
    ];
    (any_op(key), 0..=widest, 0..=widest, fate).prop_map(|(op, before, after, fate)| Step {
        op,
        widen: (before, after),
        fate,
    })
}

/// Runs the steps one after the other, ten units of time apart.
fn run(steps: &[Step]) -> Vec<Operation> {
    let mut states: std::collections::BTreeMap<_, Register> = Default::default();
    let mut operations = Vec::new();
    for (index, step) in (1..).zip(steps) {
        let moment = 1_000_000 + 10 * index;
        let state = states.entry(step.op.key().clone()).or_default();
        let (after, reply) = state.apply(&step.op);
        if matches!(step.fate, Fate::Answered | Fate::AppliedUnknown) {
            *state = after;
        }
        let completion = match step.fate {
            Fate::Answered => Completion::Ok {
                at: moment + step.widen.1,
                reply,
                location: step.op.is_write().then_some(Location {
                    index,
                    term: 1 + index / 7,
                }),
            },
            Fate::AppliedUnknown | Fate::LostUnknown => Completion::Unknown,
            Fate::Failed => Completion::Fail,
        };
        operations.push(Operation {
            id: 0,
            client: 0,
            op: step.op.clone(),
            invoked: moment - step.widen.0,
            completion,
        });
    }
    operations
}

/// Few operations with answers that may or may not fit, so that both verdicts are common.
fn any_small_history() -> impl Strategy<Value = Vec<Operation>> {
    let mutation = (any::<prop::sample::Index>(), 0u8..5, 0u64..4);
    let steps = prop::collection::vec(any_step("k", 25), 1..=7);
    (steps, prop::collection::vec(mutation, 0..=2)).prop_map(|(steps, mutations)| {
        let mut operations = run(&steps);
        for (position, kind, number) in mutations {
            let position = position.index(operations.len());
            mutate(&mut operations[position], kind, number);
        }
        operations
    })
}

fn mutate(operation: &mut Operation, kind: u8, number: u64) {
    let Completion::Ok { at, reply, .. } = &mut operation.completion else {
        return;
    };
    match kind {
        0 => *at = operation.invoked.max(at.saturating_sub(10 * number)),
        1 => operation.invoked = (*at).min(operation.invoked + 10 * number),
        2 => *at += 10 * number,
        _ => match &operation.op {
            Op::Get { .. } => *reply = found(VALUES[(number % 3) as usize], number),
            Op::Delete { .. } => {
                let existed = number.is_multiple_of(2);
                *reply = history::Reply::Deleted { existed };
            }
            _ => *reply = written(number, number % 3),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_the_brute_force(operations in any_small_history()) {
        let history = history(operations);
        let verdict = check(&history, Budget::default());
        let legal = brute::linearizable(&history);
        prop_assert_eq!(verdict == Verdict::Linearizable, legal, "{}", verdict);
        prop_assert!(legal || matches!(verdict, Verdict::Illegal(_)), "{}", verdict);
    }

    #[test]
    fn what_the_witness_accepts_is_linearizable(operations in any_small_history()) {
        let history = history(operations);
        if witness::check(&history).is_ok() {
            prop_assert!(brute::linearizable(&history));
        }
    }

    #[test]
    fn a_small_budget_never_changes_a_verdict_into_its_opposite(
        operations in any_small_history(),
        steps in 0u64..60,
    ) {
        let history = history(operations);
        let budget = Budget { steps, ..Budget::default() };
        match check(&history, budget) {
            Verdict::Linearizable => prop_assert!(brute::linearizable(&history)),
            Verdict::Illegal(violation) => {
                prop_assert!(!brute::linearizable(&history), "{}", violation);
            }
            Verdict::Unknown(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_ran_one_by_one_is_accepted_by_both(
        steps in prop::collection::vec(
            prop_oneof![any_step("a", 60), any_step("b", 60)],
            1..120,
        ),
    ) {
        let history = history(run(&steps));
        let verdict = check(&history, Budget::default());
        prop_assert_eq!(&verdict, &Verdict::Linearizable, "{}", verdict);
        let testimony = witness::check(&history);
        prop_assert!(testimony.is_ok(), "{}", testimony.unwrap_err());
    }

    #[test]
    fn a_history_survives_being_written_and_read(
        steps in prop::collection::vec(any_step("k", 60), 0..20),
    ) {
        let history = history(run(&steps));
        let again = history::History::parse(&history.to_ndjson());
        prop_assert_eq!(again.as_ref(), Ok(&history));
    }
}
