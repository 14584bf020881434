//! The program: its exit codes and what it writes.

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn one_seed_prints_what_it_drew_and_what_it_reached() {
    let output = sim(&["--seed", "5", "--steps", "2000"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["seed: 5,", "a leader was elected", "trace ", "events/s"] {
        assert!(text.contains(part), "{part} is in {text}");
    }
}

#[test]
fn a_range_is_inclusive_and_missing_states_can_be_an_error() {
    let output = sim(&["--seeds", "1..3", "--steps", "500"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("3 seeds, 0 failed"));
    let strict = ["--seeds", "1..3", "--steps", "500", "--require-coverage"];
    assert_eq!(sim(&strict).status.code(), Some(13));
}

#[test]
fn a_wrong_call_ends_with_2() {
    for wrong in [
        &[][..],
        &["--seeds", "3..1"],
        &["--seeds", "x"],
        &["--seed", "1", "--seeds", "1..2"],
        &["--replay", "/no/such/file"],
        &["--seeds", "1..2", "--trace", "trace.txt"],
        &["--seeds", "1..2", "--html", "page.html"],
    ] {
        assert_eq!(sim(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// The exit code tells what kind of failure it was; the line says more, and the seed is in it.
#[test]
fn every_kind_of_failure_has_an_exit_code_of_its_own() {
    for (kind, code, told) in [
        ("crash", 10, "crash: a drill"),
        ("safety", 11, "safety: INV-"),
        ("liveness", 12, "liveness: some client is not served"),
    ] {
        let output = sim(&["--seed", "5", "--drill", kind]);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(code), "{kind}: {text}");
        let lines: Vec<_> = text.lines().collect();
        let place = lines.iter().position(|line| line.contains(told));
        let place = place.unwrap_or_else(|| panic!("{told} is in {text}"));
        assert!(lines[place - 1].starts_with("seed 5: "), "{text}");
    }
    let several = sim(&["--seeds", "5..6", "--drill", "safety"]);
    assert_eq!(several.status.code(), Some(11));
    assert!(text(&several).contains("2 seeds, 2 failed"));
}
