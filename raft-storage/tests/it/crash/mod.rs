//! Goal: whenever the power goes, whatever part of what was not synced the disk kept, everything
//! that was acknowledged is there and nothing that was never asked for (N5 of the lab tests: a
//! crash between every pair of storage steps).
//!
//! Method: a scenario is recorded, operation by operation. Behind each operation all disks that a
//! cut could leave are made, or a seeded sample where there are more than a bound; each is opened,
//! compared, opened again and written on. Opening is itself a scenario: it is cut as well.
//!
//! The bound is `CRASH_STATES` combinations per operation, 128 unless told; `make crash-states`
//! runs with more.

mod groups;
mod judge;
mod n4;
mod repair;
mod snapshot_bytes;
mod steps;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use raft_core::LogId;
use raft_storage::sim_disk::{Image, NameOrder, Operation, Random, Replay, SimDisk};

use judge::{recover, write_on};
use steps::random_steps;

pub(crate) use judge::{open, open_to_repair, whole_or_refilling};
pub(crate) use steps::{Model, Step, append, id, overwrite, parts, vote};

/// Of how many different disks one is cut again while it is opened, and one is written on.
const CUT_AGAIN_EACH: u64 = 6;
const WRITE_ON_EACH: u64 = 4;

fn bound() -> usize {
    let told = std::env::var("CRASH_STATES").ok();
    told.and_then(|bound| bound.parse().ok()).unwrap_or(128)
}

/// What was tried.
#[derive(Debug, Default)]
struct Tally {
    operations: u64,
    states: u64,
    sampled: u64,
    distinct: u64,
    exhausted: u64,
    in_recovery: u64,
}

/// What a disk may hold, and what was found on those that were opened already.
struct Enumerator<'a> {
    start: &'a Model,
    steps: &'a [Step],
    random: Random,
    known: HashMap<u64, Model>,
    tally: Tally,
}

impl Enumerator<'_> {
    /// All that may be found when so many steps were acknowledged.
    fn allowed(&self, acknowledged: u64) -> Vec<Model> {
        let done = usize::try_from(acknowledged).expect("few");
        let mut model = self.start.clone();
        for step in &self.steps[..done] {
            model.apply(step);
        }
        match self.steps.get(done) {
            Some(step) => model.steps(step),
            None => vec![model],
        }
    }

    async fn run(&mut self, base: &Image, recording: &[Operation], bound: usize, name: &str) {
        let mut replay = Replay::new(base);
        let mut allowed = self.allowed(0);
        for (position, operation) in recording.iter().enumerate() {
            replay.advance(operation);
            if let Operation::Mark(_) = operation {
                allowed = self.allowed(replay.mark());
            }
            self.tally.operations += 1;
            let cuts = replay.cuts(NameOrder::AsMade, bound, &mut self.random);
            self.tally.states += cuts.images.len() as u64;
            self.tally.sampled += cuts.sampled as u64;
            self.tally.exhausted += u64::from(cuts.exhaustive);
            for (number, image) in cuts.images.iter().enumerate() {
                let case = || {
                    let operation = describe(operation);
                    format!("{name}, cut {number} behind operation {position}, {operation}")
                };
                let found = self.look(image, &case).await;
                assert!(
                    allowed.contains(&found),
                    "{}: found {}, allowed {:#?}",
                    case(),
                    found.sketch(),
                    allowed.iter().map(Model::sketch).collect::<Vec<_>>()
                );
            }
        }
    }

    /// What is on a disk; one that was opened before is not opened again.
    async fn look(&mut self, image: &Image, case: &dyn Fn() -> String) -> Model {
        let mut hasher = DefaultHasher::new();
        image.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(found) = self.known.get(&key) {
            return found.clone();
        }
        let case = case();
        let recovered = recover(image, &case).await;
        let found = recovered.model.clone();
        self.known.insert(key, found.clone());
        self.tally.distinct += 1;
        if self.tally.distinct.is_multiple_of(WRITE_ON_EACH) {
            write_on(&recovered, &case).await;
        }
        if self.tally.distinct.is_multiple_of(CUT_AGAIN_EACH) {
            self.cut_again(image, &recovered.disk.recording(), &found, &case)
                .await;
        }
        found
    }

    /// A second cut, while the disk that the first one left is opened.
    async fn cut_again(
        &mut self,
        image: &Image,
        recording: &[Operation],
        found: &Model,
        case: &str,
    ) {
        let mut replay = Replay::new(image);
        for (position, operation) in recording.iter().enumerate() {
            replay.advance(operation);
            for image in replay.cuts(NameOrder::AsMade, 3, &mut self.random).images {
                let case = format!("{case}, cut again behind operation {position} of opening it");
                let again = recover(&image, &case).await.model;
                assert_eq!(again, *found, "{case}");
                self.tally.in_recovery += 1;
            }
        }
    }
}

/// Without the bytes.
fn describe(operation: &Operation) -> String {
    match operation {
        Operation::Write(file, offset, bytes) => {
            format!("a write of {} bytes at {offset} of {file:?}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}

/// Runs steps over a new disk and records them.
async fn record(steps: &[Step]) -> (Image, Vec<Operation>) {
    let base = Image::with_dir(Path::new("/node"));
    let disk = SimDisk::recorded(&base);
    let (mut store, _) = open(&disk).expect("an empty disk can be opened");
    for (step, done) in steps.iter().zip(1..) {
        step.run(&mut store)
            .await
            .unwrap_or_else(|error| panic!("{step:?}: {error}"));
        // What was given up is removed on another thread.
        tokio::task::spawn_blocking(|| {})
            .await
            .expect("it does not panic");
        disk.mark(done);
    }
    drop(store);
    (base, disk.recording())
}

fn enumerate(name: &str, seed: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let (base, recording) = record(steps).await;
        let mut enumerator = Enumerator {
            start: &Model::default(),
            steps,
            random: Random::new(seed),
            known: HashMap::new(),
            tally: Tally::default(),
        };
        let bound = bound();
        enumerator.run(&base, &recording, bound, name).await;
        let tally = &enumerator.tally;
        println!(
            "{name}: {} states enumerated, {} sampled, {} distinct, behind {} operations, of which \
             {} exhaustively (bound {bound}); {} more while they were opened",
            tally.states,
            tally.sampled,
            tally.distinct,
            tally.operations,
            tally.exhausted,
            tally.in_recovery,
        );
        assert!(tally.distinct > 100, "{tally:?}");
    });
}

#[test]
fn n5_a_crash_between_any_two_steps_of_a_log_loses_nothing() {
    let steps = [
        vote(1, 3),
        append(1, 1, &[20, 700]),
        append(1, 3, &[1_500]),
        overwrite(2, 3, &[40, 50]),
        vote(3, 1),
        // Does not fit into the first segment.
        append(3, 5, &[1_600, 30]),
        append(3, 7, &[2_500]),
        vote(4, 2),
        overwrite(4, 6, &[10]),
    ];
    enumerate("log", 1, &steps);
}

#[test]
fn n5_a_crash_between_snapshot_marker_and_removal_loses_nothing() {
    let last: LogId = id(2, 12);
    let steps = [
        append(1, 1, &[1_500, 1_500]),
        append(1, 3, &[1_500, 1_500]),
        Step::Snapshot(id(1, 2)),
        Step::Compact(id(1, 2)),
        Step::GiveUp(id(1, 3)),
        append(1, 5, &[1_500]),
        Step::Snapshot(id(1, 4)),
        Step::Compact(id(1, 4)),
        Step::ReceiveSome(last, 2),
        vote(2, 1),
        Step::Install(last),
        Step::Reset(last),
        append(2, 13, &[100]),
    ];
    enumerate("snapshots", 2, &steps);
}

#[test]
fn a_crash_in_any_of_random_steps_loses_nothing() {
    for seed in 0..4 {
        let steps = random_steps(&mut Random::new(seed), 14);
        enumerate(&format!("random {seed}"), seed, &steps);
    }
}
