//! Goal: a power cut takes nothing acknowledged from any group of an engine, whichever group was
//! being written, and whichever group's few old entries were being moved.

use std::path::Path;

use raft_core::{GroupId, LogStore};
use raft_storage::sim_disk::{Image, NameOrder, Operation, Random, Replay, SimDisk};
use raft_storage::{WalEngine, WalLogStore};

use super::judge::{LOG_DIR, contents, options};
use super::steps::{Model, Step, append, id, overwrite, vote};
use crate::conformance::OWNER;

const GROUPS: u64 = 3;

/// The second group writes little and rarely, and holds old segments; the third comes late.
fn steps() -> Vec<(u64, Step)> {
    vec![
        (0, vote(1, 3)),
        (1, vote(2, 4)),
        (1, append(2, 1, &[30, 40])),
        (0, append(1, 1, &[1_500])),
        (0, append(1, 2, &[1_500, 200])),
        (2, append(5, 1, &[10])),
        (0, overwrite(2, 3, &[1_200])),
        (0, append(2, 4, &[1_500])),
        (0, Step::Compact(id(2, 4))),
        (2, vote(6, 1)),
        (0, append(2, 5, &[1_500, 900])),
        (2, Step::Reset(id(6, 20))),
        (1, Step::Compact(id(2, 1))),
        (0, append(2, 7, &[1_500])),
        (0, Step::Compact(id(2, 6))),
        (1, overwrite(3, 2, &[70])),
    ]
}

fn open(disk: &SimDisk) -> (WalEngine, Vec<WalLogStore>) {
    let opened = WalEngine::open(Path::new(LOG_DIR), OWNER, options(disk));
    let (engine, _) = opened.expect("what a cut leaves can be opened");
    let groups = (0..GROUPS).map(|group| engine.group(GroupId(group)));
    let groups = groups
        .map(|group| group.expect("it is open once"))
        .collect();
    (engine, groups)
}

async fn record(steps: &[(u64, Step)], base: &Image) -> Vec<Operation> {
    let disk = SimDisk::recorded(base);
    let (_engine, mut groups) = open(&disk);
    for ((group, step), done) in steps.iter().zip(1..) {
        let store: &mut dyn LogStore = &mut groups[usize::try_from(*group).expect("few")];
        step.run(store).await.expect("nothing fails");
        disk.mark(done);
    }
    disk.recording()
}

/// All groups, when so many steps were acknowledged and the next one was under way.
fn allowed(steps: &[(u64, Step)], done: usize, group: u64) -> Vec<Model> {
    let mut model = Model::default();
    for (_, step) in steps[..done].iter().filter(|(of, _)| *of == group) {
        model.apply(step);
    }
    match steps.get(done) {
        Some((of, step)) if *of == group => model.steps(step),
        _ => vec![model],
    }
}

#[tokio::test]
async fn n5_a_crash_between_any_two_steps_of_many_groups_loses_nothing() {
    let steps = steps();
    let base = Image::with_dir(Path::new("/node"));
    let recording = record(&steps, &base).await;
    let mut replay = Replay::new(&base);
    let mut random = Random::new(3);
    let bound = super::bound().div_ceil(4);
    let (mut states, mut sampled) = (0, 0);
    for (position, operation) in recording.iter().enumerate() {
        replay.advance(operation);
        let done = usize::try_from(replay.mark()).expect("few");
        let cuts = replay.cuts(NameOrder::AsMade, bound, &mut random);
        states += cuts.images.len();
        sampled += cuts.sampled;
        for image in &cuts.images {
            let (_engine, mut groups) = open(&SimDisk::new(image));
            for (store, group) in groups.iter_mut().zip(0..) {
                let found = contents(store).await.expect("it can be read");
                let allowed = allowed(&steps, done, group);
                assert!(
                    allowed.contains(&found),
                    "group {group}, cut behind operation {position}: {}",
                    found.sketch()
                );
            }
        }
    }
    println!(
        "groups: {states} states enumerated, {sampled} sampled, behind {} operations (bound \
         {bound})",
        recording.len()
    );
    assert!(states > 500, "{states}");
}
