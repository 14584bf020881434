//! The judges on what the generator makes: legal histories are accepted, what is wrong is found,
//! and where a history is small enough to try every order, the judges say what that says.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use history::{Budget, Completion, History, Op, Reply, Verdict, check, dumped_log, witness};

use crate::brute;
use crate::generator::{Chance, Fault, Plan, Run, generate};
use crate::mutation::{ILLEGAL, LIKELY, Mutation, Tally, mutate};

const SMALL_RUNS: u64 = 2_000;
const LARGE_RUNS: u64 = 40;

fn small(seed: u64) -> (Run, Chance) {
    let mut chance = Chance::new(seed);
    let plan = Plan::small(&mut chance);
    (generate(plan, &mut chance), chance)
}

#[track_caller]
fn assert_verdict(history: &History, seed: u64) -> bool {
    let legal = brute::linearizable(history);
    let verdict = check(history, Budget::default());
    match &verdict {
        Verdict::Linearizable => assert!(legal, "seed {seed}\n{}", history.to_ndjson()),
        Verdict::Illegal(_) => assert!(!legal, "seed {seed}: {verdict}\n{}", history.to_ndjson()),
        Verdict::Unknown(_) => panic!("seed {seed}: {verdict}"),
    }
    legal
}

#[test]
fn small_legal_histories_are_accepted_by_everybody() {
    let (mut unknown, mut resent, mut operations) = (0, 0, 0);
    for seed in 0..SMALL_RUNS {
        let (Run { history, log }, _) = small(seed);
        assert!(assert_verdict(&history, seed), "seed {seed}: not legal");
        assert_eq!(witness::check(&history), Ok(()), "seed {seed}");
        assert_eq!(dumped_log::check(&history, &log), Ok(()), "seed {seed}");
        assert!(brute::explained_by_places(&history), "seed {seed}");
        assert!(brute::explained_by_log(&history, &log), "seed {seed}");
        let resolved = dumped_log::resolve(&history, &log).expect("the log is right");
        assert!(assert_verdict(&resolved, seed), "seed {seed}: resolved");
        operations += history.operations().len();
        let is_unknown = |op: &&history::Operation| op.completion == Completion::Unknown;
        unknown += history.operations().iter().filter(is_unknown).count();
        let senders: BTreeSet<u64> = log.iter().map(|entry| entry.operation).collect();
        resent += log.len() - senders.len();
    }
    // What the generator cannot make, no judge is tried on.
    assert!(
        operations > 7_000 && unknown > 700 && resent > 700,
        "{unknown} {resent}"
    );
}

/// Every kind of mutation, on small histories with everything in them that makes judging hard.
#[test]
fn small_mutated_histories_are_judged_as_by_trying_every_order() {
    let mut tally = Tally::default();
    for seed in 0..SMALL_RUNS {
        let (run, mut chance) = small(seed);
        for mutation in ILLEGAL.into_iter().chain(LIKELY) {
            let Some((mutant, _)) = mutate(&run.history, mutation, &mut chance) else {
                continue;
            };
            tally.count(mutation, assert_verdict(&mutant, seed));
            let by_places = witness::check(&mutant);
            let explained = brute::explained_by_places(&mutant);
            assert_eq!(by_places.is_ok(), explained, "seed {seed}: {by_places:?}");
            let by_log = dumped_log::check(&mutant, &run.log);
            let absent = mutant.operations().iter().any(|op| {
                op.completion == Completion::Fail
                    && run.log.iter().any(|entry| entry.operation == op.id)
            });
            let explained = !absent && brute::explained_by_log(&mutant, &run.log);
            assert_eq!(
                by_log.is_ok(),
                explained,
                "seed {seed}: {mutation:?} {by_log:?}"
            );
        }
    }
    for mutation in ILLEGAL.into_iter().chain(LIKELY) {
        assert!(tally.illegal(mutation) > 30, "{mutation:?}: {tally:?}");
    }
    let sometimes_legal = [
        Mutation::LateBegin,
        Mutation::EarlyEnd,
        Mutation::AckForgotten,
    ];
    for mutation in sometimes_legal {
        assert!(tally.legal(mutation) > 5, "{mutation:?}: {tally:?}");
    }
}

/// Two mutations at once, which may undo each other.
#[test]
fn small_histories_with_two_things_wrong_are_judged_as_by_trying_every_order() {
    let kinds: Vec<Mutation> = ILLEGAL.into_iter().chain(LIKELY).collect();
    for seed in 0..3 * SMALL_RUNS {
        let (run, mut chance) = small(seed);
        let mut history = run.history;
        for _ in 0..2 {
            let kind = *chance.pick(&kinds).expect("some");
            if let Some((mutant, _)) = mutate(&history, kind, &mut chance) {
                history = mutant;
            }
        }
        assert_verdict(&history, seed);
        // No order that the log allows is one that the clients could not have seen.
        if dumped_log::check(&history, &run.log).is_ok() || witness::check(&history).is_ok() {
            assert!(brute::linearizable(&history), "seed {seed}");
        }
    }
}

/// Mutations of `ILLEGAL` are what they say: no order explains one.
#[test]
fn what_is_called_illegal_is() {
    let mut tally = Tally::default();
    for seed in 0..SMALL_RUNS {
        let mut chance = Chance::new(seed);
        let plan = Plan {
            deletes: false,
            unique: true,
            ..Plan::small(&mut chance)
        };
        let run = generate(plan, &mut chance);
        for mutation in ILLEGAL {
            if let Some((mutant, _)) = mutate(&run.history, mutation, &mut chance) {
                assert!(!brute::linearizable(&mutant), "seed {seed}: {mutation:?}");
                tally.count(mutation, false);
            }
        }
    }
    assert!(
        ILLEGAL
            .into_iter()
            .all(|mutation| tally.illegal(mutation) > 30),
        "{tally:?}"
    );
}

#[test]
fn large_legal_histories_are_accepted_within_the_budget() {
    for seed in 0..LARGE_RUNS {
        let mut chance = Chance::new(seed);
        let plan = Plan::large(&mut chance);
        let Run { history, log } = generate(plan, &mut chance);
        let verdict = check(&history, Budget::default());
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}: {verdict}");
        assert_eq!(witness::check(&history), Ok(()), "seed {seed}");
        assert_eq!(dumped_log::check(&history, &log), Ok(()), "seed {seed}");
        let resolved = dumped_log::resolve(&history, &log).expect("the log is right");
        let verdict = check(&resolved, Budget::default());
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}: {verdict}");
    }
}

#[test]
fn one_thing_wrong_in_a_large_history_is_found_by_every_judge() {
    let mut tally = Tally::default();
    for seed in 0..LARGE_RUNS {
        let mut chance = Chance::new(seed);
        let plan = Plan {
            deletes: false,
            ..Plan::large(&mut chance)
        };
        let run = generate(plan, &mut chance);
        for mutation in ILLEGAL {
            let Some((mutant, key)) = mutate(&run.history, mutation, &mut chance) else {
                continue;
            };
            let verdict = check(&mutant, Budget::default());
            let Verdict::Illegal(violation) = &verdict else {
                panic!("seed {seed}: {mutation:?} is {verdict}");
            };
            assert_eq!(violation.key, key, "seed {seed}: {mutation:?}: {verdict}");
            let found = witness::check(&mutant);
            assert!(
                found.is_err(),
                "seed {seed}: the witness accepts {mutation:?}"
            );
            let found = dumped_log::check(&mutant, &run.log);
            assert!(found.is_err(), "seed {seed}: the log explains {mutation:?}");
            tally.count(mutation, false);
        }
    }
    assert!(
        ILLEGAL
            .into_iter()
            .all(|mutation| tally.illegal(mutation) > 20),
        "{tally:?}"
    );
}

/// Two acknowledged writes made one version of a key that nobody deletes.
fn has_a_version_twice(history: &History) -> bool {
    let mut made = BTreeSet::new();
    history
        .operations()
        .iter()
        .any(|operation| match operation.reply() {
            Some(Reply::Written { version, .. }) => !made.insert((operation.op.key(), *version)),
            _ => false,
        })
}

/// Somebody read a piece twice; every piece is appended once.
fn has_a_piece_twice(history: &History) -> bool {
    history.operations().iter().any(|operation| {
        let Some(Reply::Found { value, .. }) = operation.reply() else {
            return false;
        };
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut pieces: BTreeMap<&str, u32> = BTreeMap::new();
        text.split_inclusive('>')
            .for_each(|piece| *pieces.entry(piece).or_default() += 1);
        pieces.values().any(|count| *count > 1)
    })
}

#[test]
fn a_store_that_loses_an_acknowledged_write_or_does_one_twice_is_caught() {
    let (mut lost, mut twice) = (0, 0);
    for seed in 0..4 * LARGE_RUNS {
        let mut chance = Chance::new(seed);
        let large = Plan::large(&mut chance);
        let (fault, unknown_percent) = if seed.is_multiple_of(2) {
            (Fault::Loses(1 + chance.up_to(150)), 1)
        } else {
            (Fault::DoesTwice, 1)
        };
        let plan = Plan {
            deletes: false,
            unknown_percent,
            fault,
            operations: 250,
            ..large
        };
        let Run { history, log } = generate(plan, &mut chance);
        let certain = match fault {
            Fault::DoesTwice => has_a_piece_twice(&history),
            _ => has_a_version_twice(&history),
        };
        if !certain {
            continue;
        }
        *if fault == Fault::DoesTwice {
            &mut twice
        } else {
            &mut lost
        } += 1;
        let verdict = check(&history, Budget::default());
        assert!(
            matches!(verdict, Verdict::Illegal(_)),
            "seed {seed}: {fault:?} {verdict}"
        );
        assert!(witness::check(&history).is_err(), "seed {seed}: {fault:?}");
        assert!(
            dumped_log::check(&history, &log).is_err(),
            "seed {seed}: {fault:?}"
        );
    }
    assert!(lost > 20 && twice > 20, "{lost} {twice}");
}

/// Whatever the budget, what is said is true.
#[test]
fn a_spent_budget_is_never_a_verdict() {
    let mut unknown = [0; 3];
    for seed in 0..SMALL_RUNS {
        let (run, mut chance) = small(seed);
        let kind = *chance.pick(&LIKELY).expect("some");
        let mutant = mutate(&run.history, kind, &mut chance);
        let history = mutant.map_or(run.history, |(history, _)| history);
        let legal = brute::linearizable(&history);
        let asked = Cell::new(chance.up_to(2));
        let expired = || asked.replace(asked.get().saturating_sub(1)) == 0;
        let budgets = [
            Budget {
                steps: chance.up_to(30),
                ..Budget::default()
            },
            Budget {
                memory_bytes: chance.up_to(800) as usize,
                ..Budget::default()
            },
            Budget {
                expired: Some(&expired),
                ..Budget::default()
            },
        ];
        for (budget, unknown) in budgets.into_iter().zip(&mut unknown) {
            match check(&history, budget) {
                Verdict::Linearizable => assert!(legal, "seed {seed}: {budget:?}"),
                Verdict::Illegal(_) => assert!(!legal, "seed {seed}: {budget:?}"),
                Verdict::Unknown(_) => *unknown += 1,
            }
        }
    }
    assert!(unknown.iter().all(|count| *count > 100), "{unknown:?}");
}

/// What the log settles saves the search its work.
#[test]
fn a_resolved_history_is_cheaper_to_judge() {
    let mut chance = Chance::new(7);
    let plan = Plan {
        unknown_percent: 30,
        deletes: true,
        ..Plan::large(&mut chance)
    };
    let Run { history, log } = generate(plan, &mut chance);
    let resolved = dumped_log::resolve(&history, &log).expect("the log is right");
    let open = |history: &History| {
        let is_open = |op: &&history::Operation| {
            op.completion == Completion::Unknown && !matches!(op.op, Op::Get { .. })
        };
        history.operations().iter().filter(is_open).count()
    };
    assert!(
        open(&history) > 50 && open(&resolved) < 5,
        "{} {}",
        open(&history),
        open(&resolved)
    );
    assert_eq!(check(&resolved, Budget::default()), Verdict::Linearizable);
    assert_eq!(dumped_log::check(&history, &log), Ok(()));
}
