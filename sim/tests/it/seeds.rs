//! A fixed set of seeds holds, and the same seed is the same run.

use sim::{Keep, Options, Report, run};

fn run_seed(seed: u64) -> Report {
    run(Options::draw(seed), Keep::default())
}

fn assert_good(report: &Report) {
    let (seed, failure) = (report.options.seed, &report.failure);
    assert!(
        failure.is_none(),
        "seed {seed}: {}",
        failure.as_ref().expect("seen")
    );
}

#[test]
fn twenty_seeds_hold_and_run_twice_the_same() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 1..=20 {
        let (first, second) = (run_seed(seed), run_seed(seed));
        assert_good(&first);
        let numbers = |report: &Report| (report.steps, report.time, report.committed);
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(numbers(&first), numbers(&second), "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 20, "and no two seeds are the same run");
}

#[test]
fn every_seed_that_failed_once_holds() {
    let text = include_str!("../../seeds.txt");
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let seeds: Vec<u64> = lines
        .filter_map(|line| line.split_whitespace().next())
        .map(|seed| seed.parse().expect("a number"))
        .collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        assert_good(&run_seed(seed));
    }
}

#[test]
fn a_trace_and_a_diagram_do_not_change_a_run() {
    let keep = Keep {
        trace: true,
        page: true,
    };
    let watched = run(Options::draw(3), keep);
    assert_eq!(watched.hash, run_seed(3).hash);
    assert!(watched.lines.len() > 1_000);
    assert!(watched.page.expect("asked for").contains("seed 3"));
}
