//! The classic anomalies, one by one, and legal histories that look like them.

use history::{
    Budget, History, Limit, Op, Operation, Reply, Verdict, WitnessError, check, witness,
};

use crate::build::{
    append, at, cas, delete, failed, found, get, history, ok, put, unknown, written,
};

fn verdict(history: &History) -> Verdict {
    check(history, Budget::default())
}

#[track_caller]
fn assert_legal<const N: usize>(operations: [Operation; N]) {
    let history = history(operations);
    let verdict = verdict(&history);
    assert_eq!(
        verdict,
        Verdict::Linearizable,
        "{verdict}\n{}",
        history.to_ndjson()
    );
}

/// Illegal; returns the message.
#[track_caller]
fn assert_illegal<const N: usize>(operations: [Operation; N]) -> String {
    let verdict = verdict(&history(operations));
    assert!(matches!(verdict, Verdict::Illegal(_)), "{verdict}");
    verdict.to_string()
}

#[test]
fn nothing_happened_and_that_is_fine() {
    assert_legal([]);
    assert_eq!(witness::check(&history([])), Ok(()));
}

#[test]
fn a_stale_read_is_illegal_and_is_named() {
    let message = assert_illegal([
        ok(1, 2, put("a"), written(1, 1)),
        ok(3, 4, put("b"), written(2, 1)),
        ok(5, 6, get(), found("a", 1)),
    ]);
    assert!(
        message.contains(r#"op 3 (client 3, t 5..6): get "k" -> "a" v1"#),
        "{message}"
    );
    assert!(message.contains(r#"leave "b" v2"#), "{message}");
    assert_eq!(message.lines().count(), 1);
}

#[test]
fn a_read_beside_a_write_may_see_either_side_of_it() {
    for seen in [Reply::Absent, found("a", 1)] {
        assert_legal([ok(1, 10, put("a"), written(1, 1)), ok(5, 6, get(), seen)]);
    }
}

#[test]
fn intervals_are_closed() {
    assert_legal([
        ok(1, 5, put("a"), written(1, 1)),
        ok(5, 6, get(), Reply::Absent),
    ]);
    assert_illegal([
        ok(1, 5, put("a"), written(1, 1)),
        ok(6, 7, get(), Reply::Absent),
    ]);
}

#[test]
fn two_reads_do_not_go_back_in_time() {
    let write = ok(1, 100, put("a"), written(1, 1));
    assert_legal([
        write.clone(),
        ok(10, 20, get(), Reply::Absent),
        ok(30, 40, get(), found("a", 1)),
    ]);
    assert_illegal([
        write,
        ok(10, 20, get(), found("a", 1)),
        ok(30, 40, get(), Reply::Absent),
    ]);
}

#[test]
fn a_lost_update_is_illegal() {
    assert_illegal([
        ok(1, 2, put("a"), written(1, 1)),
        ok(3, 9, cas("a", "b"), written(2, 1)),
        ok(4, 8, cas("a", "c"), written(2, 1)),
    ]);
    assert_illegal([
        ok(1, 5, append("x"), written(1, 1)),
        ok(2, 6, append("y"), written(1, 1)),
    ]);
}

#[test]
fn a_write_that_took_effect_twice_is_illegal() {
    assert_illegal([
        ok(1, 2, append("x"), written(1, 1)),
        ok(3, 4, get(), found("xx", 2)),
    ]);
    assert_illegal([ok(1, 2, append("x"), written(2, 2))]);
}

#[test]
fn a_read_of_a_failed_write_is_illegal() {
    assert_illegal([failed(1, put("a")), ok(3, 4, get(), found("a", 1))]);
    assert_legal([failed(1, put("a")), ok(3, 4, get(), Reply::Absent)]);
}

#[test]
fn a_read_from_the_future_is_illegal() {
    assert_illegal([
        ok(1, 2, get(), found("a", 1)),
        ok(3, 4, put("a"), written(1, 1)),
    ]);
    assert_illegal([ok(1, 2, get(), found("a", 1)), unknown(3, put("a"))]);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_once() {
    let write = unknown(1, put("a"));
    assert_legal([write.clone(), ok(5, 6, get(), Reply::Absent)]);
    assert_legal([
        write.clone(),
        ok(5, 6, get(), Reply::Absent),
        ok(7, 8, get(), found("a", 1)),
    ]);
    assert_illegal([
        write.clone(),
        ok(5, 6, get(), found("a", 1)),
        ok(7, 8, get(), Reply::Absent),
    ]);
    assert_illegal([
        write,
        ok(5, 6, get(), found("a", 1)),
        ok(7, 8, delete(), Reply::Deleted { existed: true }),
        ok(9, 10, get(), found("a", 1)),
    ]);
}

#[test]
fn an_unknown_read_says_nothing() {
    assert_legal([unknown(1, get()), ok(2, 3, put("a"), written(1, 1))]);
}

#[test]
fn versions_count_from_the_last_creation() {
    assert_legal([
        ok(1, 2, put("a"), written(1, 1)),
        ok(3, 4, delete(), Reply::Deleted { existed: true }),
        ok(5, 6, delete(), Reply::Deleted { existed: false }),
        ok(7, 8, put("b"), written(1, 1)),
        ok(9, 10, cas("a", "c"), Reply::Mismatch { version: 1 }),
    ]);
    assert_illegal([
        ok(1, 2, put("a"), written(1, 1)),
        ok(3, 4, delete(), Reply::Deleted { existed: true }),
        ok(7, 8, put("b"), written(2, 1)),
    ]);
}

#[test]
fn keys_are_judged_apart_and_the_bad_one_is_named() {
    let message = assert_illegal([
        ok(1, 2, Op::put("good", "a"), written(1, 1)),
        ok(1, 2, Op::put("bad", "a"), written(1, 1)),
        ok(3, 4, Op::get("good"), found("a", 1)),
        ok(3, 4, Op::get("bad"), Reply::Absent),
    ]);
    assert!(
        message.starts_with(r#"not linearizable: key "bad""#),
        "{message}"
    );
}

/// Legal, but only after a search: every put is unknown, the reads say which were seen in the end.
fn hard(count: u64) -> History {
    let value = |number: u64| format!("v{number}");
    let writes = (0..count).map(|number| unknown(number, put(&value(number))));
    let (first, last) = (value(0), value(1));
    let reads = [
        ok(100, 101, get(), found(&first, count - 1)),
        ok(102, 103, get(), found(&last, count)),
    ];
    history(writes.chain(reads))
}

#[test]
fn a_spent_budget_is_unknown_and_never_illegal() {
    let limits = [
        (
            Budget {
                steps: 10,
                ..Budget::default()
            },
            Limit::Steps(10),
        ),
        (
            Budget {
                memory_bytes: 500,
                ..Budget::default()
            },
            Limit::MemoryBytes(500),
        ),
        (
            Budget {
                expired: Some(&|| true),
                ..Budget::default()
            },
            Limit::Deadline,
        ),
    ];
    for (budget, expected) in limits {
        let verdict = check(&hard(12), budget);
        let Verdict::Unknown(exhausted) = &verdict else {
            panic!("{verdict}");
        };
        assert_eq!(exhausted.limit, expected);
        assert!(
            verdict
                .to_string()
                .starts_with(r#"unknown: key "k": not decided"#),
            "{verdict}"
        );
    }
    assert_eq!(verdict(&hard(12)), Verdict::Linearizable);
}

#[test]
fn an_illegal_key_outweighs_an_undecided_one() {
    let mut operations = hard(20).operations().to_vec();
    operations.push(ok(1, 2, Op::get("bad"), found("x", 1)));
    let budget = Budget {
        steps: 20,
        ..Budget::default()
    };
    let verdict = check(&history(operations), budget);
    assert!(matches!(verdict, Verdict::Illegal(_)), "{verdict}");
}

/// What the witness says; empty where it has no objection.
fn testimony<const N: usize>(operations: [Operation; N]) -> String {
    let checked = witness::check(&history(operations));
    checked.map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn the_witness_accepts_what_its_order_explains() {
    let accepted = testimony([
        at(5, 1, 9, put("a"), written(1, 1)),
        at(7, 2, 8, put("b"), written(2, 1)),
        ok(3, 4, get(), found("b", 2)),
        at(9, 10, 11, cas("a", "c"), Reply::Mismatch { version: 2 }),
        at(8, 10, 11, Op::put("other", "x"), written(1, 1)),
        ok(12, 13, get(), found("b", 2)),
    ]);
    assert_eq!(accepted, "");
}

#[test]
fn the_witness_names_writes_without_a_place_of_their_own() {
    let message = testimony([ok(1, 2, put("a"), written(1, 1))]);
    assert!(
        message.ends_with("does not say where in the log it stands"),
        "{message}"
    );
    let message = testimony([
        at(5, 1, 2, put("a"), written(1, 1)),
        at(5, 3, 4, put("b"), written(2, 1)),
    ]);
    assert!(
        message.starts_with("two writes stand at one index: op 1"),
        "{message}"
    );
}

#[test]
fn the_witness_sees_a_falling_term_and_an_order_against_real_time() {
    let mut first = at(5, 1, 9, put("a"), written(1, 1));
    let second = at(6, 1, 9, put("b"), written(2, 1));
    if let history::Completion::Ok { location, .. } = &mut first.completion {
        *location = Some(history::Location { index: 5, term: 3 });
    }
    let message = testimony([first, second]);
    assert!(message.starts_with("the term falls from op 1"), "{message}");
    let message = testimony([
        at(6, 1, 2, Op::put("one", "a"), written(1, 1)),
        at(5, 3, 4, Op::put("two", "b"), written(1, 1)),
    ]);
    assert!(message.starts_with("the log has op 2"), "{message}");
}

#[test]
fn the_witness_names_the_write_whose_answer_is_wrong() {
    let message = testimony([
        at(5, 1, 2, append("x"), written(1, 1)),
        at(6, 3, 4, append("y"), written(3, 3)),
    ]);
    let expected = concat!(
        r#"op 2 (client 2, t 3..4): append "k" "y" -> v3 of 3 bytes at 6@1 should have been "#,
        r#"answered v2 of 2 bytes: the log leaves "x" v1 before it"#
    );
    assert_eq!(message, expected);
}

#[test]
fn the_witness_names_the_read_and_what_it_could_have_seen() {
    let message = testimony([
        at(5, 1, 2, put("a"), written(1, 1)),
        at(6, 3, 9, put("b"), written(2, 1)),
        ok(4, 5, get(), Reply::Absent),
    ]);
    let expected = concat!(
        r#"op 3 (client 3, t 4..5): get "k" -> absent saw what was not there at the time: "#,
        r#"the key held "a" v1 (by op 1), then "b" v2 (by op 2)"#
    );
    assert_eq!(message, expected);
    let message = testimony([
        at(5, 1, 100, put("a"), written(1, 1)),
        ok(10, 20, get(), found("a", 1)),
        ok(30, 40, get(), Reply::Absent),
    ]);
    assert!(message.contains("op 3"), "{message}");
}

/// The second read saw less than the first, which it may: they overlap. The third may not.
#[test]
fn the_witness_remembers_the_latest_state_that_was_seen() {
    let operations = |seen: Reply| {
        [
            at(5, 1, 100, put("a"), written(1, 1)),
            at(6, 1, 100, put("b"), written(2, 1)),
            ok(10, 20, get(), found("b", 2)),
            ok(15, 30, get(), found("a", 1)),
            ok(40, 50, get(), seen),
        ]
    };
    assert_eq!(testimony(operations(found("b", 2))), "");
    let message = testimony(operations(found("a", 1)));
    assert!(message.starts_with("op 5"), "{message}");
}

#[test]
fn the_witness_finds_places_for_unanswered_writes() {
    let lost = unknown(1, put("lost"));
    assert_eq!(
        testimony([
            lost.clone(),
            at(5, 2, 3, put("a"), written(1, 1)),
            ok(4, 5, get(), found("lost", 2)),
            at(9, 6, 7, put("b"), written(3, 1)),
        ]),
        ""
    );
    let history = history([
        lost,
        at(5, 2, 3, put("a"), written(1, 1)),
        at(9, 6, 7, put("b"), written(4, 1)),
    ]);
    let error = witness::check(&history).unwrap_err();
    assert!(matches!(error, WitnessError::Unexplained(_)), "{error}");
    assert!(error.to_string().contains("op 3"), "{error}");
}

/// One unanswered write does not free the others from the order of the log.
#[test]
fn the_witness_keeps_the_order_of_the_others_beside_an_unanswered_write() {
    let operations = [
        unknown(1, put("c")),
        at(6, 1, 9, put("a"), written(1, 1)),
        at(5, 1, 9, put("b"), written(2, 1)),
    ];
    assert_legal(operations.clone());
    let message = testimony(operations);
    assert!(message.starts_with("by the order of the log"), "{message}");
}

#[test]
fn the_witness_takes_intervals_as_closed() {
    let write = at(5, 5, 9, put("a"), written(1, 1));
    for seen in [Reply::Absent, found("a", 1)] {
        assert_eq!(
            testimony([write.clone(), ok(1, 5, get(), seen.clone())]),
            ""
        );
        assert_eq!(testimony([write.clone(), ok(9, 10, get(), seen)]), "");
    }
    assert_ne!(
        testimony([write.clone(), ok(1, 4, get(), found("a", 1))]),
        ""
    );
    assert_ne!(testimony([write, ok(10, 11, get(), Reply::Absent)]), "");
}

/// The clients' view allows the other order, the log does not.
#[test]
fn the_witness_is_stricter_than_the_search() {
    let operations = [
        at(6, 1, 9, put("a"), written(1, 1)),
        at(5, 1, 9, put("b"), written(2, 1)),
    ];
    assert_legal(operations.clone());
    assert!(testimony(operations).contains("op 2"));
}
