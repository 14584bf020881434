//! The judge that has the whole log: by hand, and by changing the logs of legal runs.

use history::{Completion, History, Location, LoggedWrite, Op, Operation, Reply, dumped_log};

use crate::brute;
use crate::build::{append, at, delete, failed, found, get, history, ok, put, unknown, written};
use crate::generator::{Chance, Plan, generate};

fn entry(index: u64, operation: u64, op: Op) -> LoggedWrite {
    let location = Location { index, term: 1 };
    LoggedWrite {
        location,
        operation,
        op,
    }
}

/// What is wrong; empty where nothing is.
fn objection<const N: usize>(operations: [Operation; N], log: &[LoggedWrite]) -> String {
    let checked = dumped_log::check(&history(operations), log);
    checked.map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn a_log_settles_what_no_client_learnt() {
    let operations = [
        unknown(1, put("a")),
        unknown(1, put("b")),
        ok(5, 6, get(), found("a", 1)),
        ok(7, 8, append("c"), written(2, 2)),
    ];
    let log = [entry(3, 1, put("a")), entry(5, 4, append("c"))];
    assert_eq!(objection(operations.clone(), &log), "");
    // Had the other one taken effect as well, the answers would be others.
    let log = [
        entry(3, 1, put("a")),
        entry(4, 2, put("b")),
        entry(5, 4, append("c")),
    ];
    let message = objection(operations, &log);
    assert!(
        message.contains("should have been answered v3 of 2 bytes"),
        "{message}"
    );
}

#[test]
fn a_second_entry_of_an_operation_changes_nothing_and_may_be_the_one_that_was_answered() {
    let log = [
        entry(3, 1, append("x")),
        entry(4, 2, append("y")),
        entry(9, 1, append("x")),
    ];
    for index in [3, 9] {
        let operations = [
            at(index, 1, 8, append("x"), written(1, 1)),
            ok(1, 8, append("y"), written(2, 2)),
            ok(9, 10, get(), found("xy", 2)),
        ];
        assert_eq!(objection(operations, &log), "");
    }
    let message = objection([at(4, 1, 8, append("x"), written(1, 1))], &log[..1]);
    assert!(message.contains("at 4@1 there, but at 3@1"), "{message}");
}

#[test]
fn every_contradiction_of_the_log_is_named() {
    let write = ok(1, 2, put("a"), written(1, 1));
    let early = |index, term, operation| LoggedWrite {
        location: Location { index, term },
        operation,
        op: put("a"),
    };
    for (operation, log, expected) in [
        (write.clone(), vec![], "the dumped log does not have op 1"),
        (
            write.clone(),
            vec![early(3, 2, 1), early(3, 2, 1)],
            "the dumped log has 3@2 behind 3@2",
        ),
        (
            write.clone(),
            vec![early(3, 2, 1), early(4, 1, 1)],
            "the dumped log has 4@1 behind 3@2",
        ),
        (
            write.clone(),
            vec![early(3, 1, 1), early(4, 1, 2)],
            r#"the dumped log has put "k" "a" at 4@1, of an op 2 that nobody asked for"#,
        ),
        (
            write,
            vec![entry(3, 1, put("b"))],
            r#"the dumped log has put "k" "b" at 3@1 for op 1"#,
        ),
        (
            failed(1, put("a")),
            vec![early(3, 1, 1)],
            "the dumped log has op 1",
        ),
        (
            ok(1, 2, get(), Reply::Absent),
            vec![entry(3, 1, get())],
            r#"the dumped log has get "k" at 3@1 for op 1"#,
        ),
    ] {
        let message = objection([operation], &log);
        assert!(
            message.starts_with(expected),
            "{message}\nexpected {expected}"
        );
    }
}

#[test]
fn the_log_has_to_respect_real_time_even_of_writes_without_an_answer() {
    let operations = [ok(1, 2, put("a"), written(2, 1)), unknown(3, put("b"))];
    let message = objection(operations, &[entry(1, 2, put("b")), entry(2, 1, put("a"))]);
    assert!(message.starts_with("the log has op 2"), "{message}");
}

/// Each key alone is in order, and each is linearizable. But the first read has seen entry 2, and
/// the second begins later and has not seen entry 1.
#[test]
fn reads_of_several_keys_have_to_agree_on_how_far_the_log_was() {
    let operations = |seen: Reply| {
        [
            ok(1, 99, Op::put("one", "a"), written(1, 1)),
            ok(1, 99, Op::put("two", "b"), written(1, 1)),
            ok(10, 20, Op::get("two"), found("b", 1)),
            ok(30, 40, Op::get("one"), seen),
        ]
    };
    let log = [
        entry(1, 1, Op::put("one", "a")),
        entry(2, 2, Op::put("two", "b")),
    ];
    assert_eq!(objection(operations(found("a", 1)), &log), "");
    let message = objection(operations(Reply::Absent), &log);
    assert!(message.starts_with("op 4"), "{message}");
    assert!(!brute::explained_by_log(
        &history(operations(Reply::Absent)),
        &log
    ));
    assert!(brute::linearizable(&history(operations(Reply::Absent))));
}

fn resolved<const N: usize>(operations: [Operation; N], log: &[LoggedWrite]) -> History {
    dumped_log::resolve(&history(operations), log).expect("the log is of this history")
}

#[test]
fn what_the_log_does_not_have_did_nothing() {
    let resolved = resolved([unknown(1, put("a")), unknown(2, get())], &[]);
    assert_eq!(resolved.operations()[0].completion, Completion::Fail);
    assert_eq!(resolved.operations()[1].completion, Completion::Unknown);
}

#[test]
fn what_the_log_has_ends_when_it_was_first_seen() {
    let log = [
        entry(1, 1, put("a")),
        entry(2, 2, put("b")),
        entry(3, 3, delete()),
    ];
    let writes = [
        unknown(1, put("a")),
        unknown(2, put("b")),
        unknown(3, delete()),
    ];
    let [first, second, third] = writes;
    // The second is seen by a read, and what it saw stands behind the first. Nobody saw the third:
    // that the key is absent may be so because nothing had happened yet.
    let read = ok(10, 20, get(), found("b", 2));
    let vague = ok(5, 6, get(), Reply::Absent);
    let history = resolved([first, second, third, read, vague], &log);
    let ended: Vec<_> = history.operations()[..3]
        .iter()
        .map(|operation| (operation.answered(), operation.reply().cloned()))
        .collect();
    assert_eq!(ended[0], (Some(20), Some(written(1, 1))));
    assert_eq!(ended[1], (Some(20), Some(written(2, 1))));
    assert_eq!(ended[2], (None, None));
}

#[test]
fn an_answered_write_behind_it_has_seen_it_too() {
    let log = [entry(1, 1, put("a")), entry(2, 2, Op::put("other", "b"))];
    let operations = [
        unknown(1, put("a")),
        ok(3, 4, Op::put("other", "b"), written(1, 1)),
    ];
    assert_eq!(
        resolved(operations, &log).operations()[0].answered(),
        Some(4)
    );
    // Not before it began: that would be made up. It stays open, and `check` objects.
    let operations = [
        unknown(9, put("a")),
        ok(3, 4, Op::put("other", "b"), written(1, 1)),
    ];
    let history = history(operations.clone());
    let resolved = dumped_log::resolve(&history, &log).expect("the log is of this history");
    assert_eq!(resolved, history);
    assert!(dumped_log::check(&history, &log).is_err());
}

#[test]
fn an_operation_that_never_ended_is_resolved_as_well() {
    let mut events = history([unknown(1, put("a"))]).events().to_vec();
    events.truncate(1);
    let open = History::new(history::Header::default(), events).expect("only begun");
    let resolved = dumped_log::resolve(&open, &[]).expect("an empty log is one");
    assert_eq!(resolved.operations()[0].completion, Completion::Fail);
}

/// Entries dropped, exchanged, moved or added: the judge says what trying every order says.
#[test]
fn changed_logs_are_judged_as_by_trying_every_order() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..6_000 {
        let mut chance = Chance::new(seed);
        let plan = Plan::small(&mut chance);
        let run = generate(plan, &mut chance);
        let Some(log) = changed(&run.log, &run.history, &mut chance) else {
            continue;
        };
        // Where an answer says it stands is another matter than what the order makes of it.
        let history = without_places(&run.history);
        let failed = history.operations().iter().any(|operation| {
            operation.completion == Completion::Fail
                && log.iter().any(|entry| entry.operation == operation.id)
        });
        let explained = !failed && brute::explained_by_log(&history, &log);
        let checked = dumped_log::check(&history, &log);
        assert_eq!(checked.is_ok(), explained, "seed {seed}: {checked:?}");
        *if explained {
            &mut accepted
        } else {
            &mut refused
        } += 1;
    }
    assert!(accepted > 300 && refused > 1_000, "{accepted} {refused}");
}

fn without_places(history: &History) -> History {
    let mut events = history.events().to_vec();
    for event in &mut events {
        (event.term, event.index) = (None, None);
    }
    History::new(history.header().clone(), events).expect("places are not needed")
}

fn changed(
    log: &[LoggedWrite],
    history: &History,
    chance: &mut Chance,
) -> Option<Vec<LoggedWrite>> {
    let mut log = log.to_vec();
    let last = (log.len() as u64).checked_sub(1)?;
    let position = chance.up_to(last) as usize;
    match chance.up_to(3) {
        0 => {
            log.remove(position);
        }
        1 => {
            let other = chance.up_to(last) as usize;
            log.swap(position, other);
        }
        2 => {
            let moved = log.remove(position);
            log.insert(chance.up_to(last) as usize, moved);
        }
        _ => {
            let writes: Vec<_> = history
                .operations()
                .iter()
                .filter(|operation| operation.op.is_write())
                .collect();
            let operation = *chance.pick(&writes)?;
            log.insert(position, entry(0, operation.id, operation.op.clone()));
        }
    }
    for (index, entry) in (1..).zip(&mut log) {
        entry.location = Location { index, term: 1 };
    }
    Some(log)
}
