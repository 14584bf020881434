//! Goal: after a power cut at any moment, whatever part of the unsynced sectors the disk kept, the
//! log opens and holds all that was acknowledged and nothing that was not asked for.
//!
//! Method: a run is recorded, operation by operation. After each operation several disks are made
//! that a cut could have left, and each is opened. Some of them are then cut again while they are
//! being repaired and written on.

use std::sync::Arc;
use std::time::Duration;

use raft_core::{LogId, Term};

use super::super::{WalLogStore, WalOptions};
use super::{
    Image, Model, OWNER, Probe, Random, contents, entries, make, options, random_changes, runtime,
    write_dir,
};
use crate::batch_thread::Change;
use crate::files::probe::{Event, PowerCut};

/// Makes changes over `base` and records it. Stops where the store does not open.
async fn record(base: &Image, changes: &[Change]) -> Vec<Event> {
    let dir = write_dir(base);
    let probe = Arc::new(Probe::of(base));
    // A witness is written when the store is dropped, so that cuts around it are tried as well.
    let options = WalOptions {
        witness_after: Some(Duration::from_secs(3_600)),
        ..options(Some(&probe))
    };
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options).expect("the base is sound");
    for (change, done) in changes.iter().zip(1..) {
        make(&mut store, change).await.expect("nothing fails");
        probe.acknowledge(done);
    }
    drop(store);
    probe.trace()
}

/// What may be found after a cut.
struct Allowed<'a> {
    start: &'a Model,
    changes: &'a [Change],
}

impl Allowed<'_> {
    fn check(&self, acknowledged: usize, found: &Model, case: &str) {
        let mut model = self.start.clone();
        for change in &self.changes[..acknowledged] {
            model.apply(change);
        }
        let allowed = match self.changes.get(acknowledged) {
            Some(change) => model.steps(change),
            None => vec![model],
        };
        let sketch = |m: &Model| {
            let ids: Vec<_> = m.entries.iter().map(|e| e.id().to_string()).collect();
            format!("{:?} behind {} {ids:?}", m.hard_state, m.start)
        };
        assert!(
            allowed.contains(found),
            "{case}: found {}, allowed {:#?}",
            sketch(found),
            allowed.iter().map(sketch).collect::<Vec<_>>()
        );
    }
}

/// Opens what a cut left, compares it, writes on and opens again.
async fn reopen(image: &Image, case: &str) -> Model {
    let dir = write_dir(image);
    let opened = WalLogStore::open(dir.path(), OWNER, options(None));
    let (mut store, _) = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = contents(&mut store).await;
    let mut found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
    let cut = found.clone();
    let next = found.last().index.next();
    let change = entries(10_000, next.0, &[300, 20]);
    make(&mut store, &change)
        .await
        .expect("it can be written on");
    found.apply(&change);
    drop(store);
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options(None))
        .unwrap_or_else(|error| panic!("{case}, written on: {error}"));
    assert_eq!(report.cut, None, "{case}, written on");
    let again = contents(&mut store)
        .await
        .expect("what was read can be read");
    assert_eq!(again, found, "{case}, written on");
    cut
}

fn run(seed: u64, change_count: usize, images_per_event: usize) {
    runtime().block_on(async {
        let mut random = Random::new(seed);
        let changes = random_changes(&mut random, change_count);
        let start = Model::default();
        let base = Image::new();
        let trace = record(&base, &changes).await;
        let allowed = Allowed {
            start: &start,
            changes: &changes,
        };
        let mut disk = PowerCut::new(base);
        for (position, event) in trace.iter().enumerate() {
            disk.advance(event);
            for n in 0..images_per_event {
                let image = disk.image(|bound| random.below(bound));
                let case = format!("seed {seed}, cut behind event {position}, image {n}");
                let found = reopen(&image, &case).await;
                allowed.check(disk.acknowledged, &found, &case);
                if random.below(40) == 0 {
                    cut_again(&image, &found, &mut random, &case).await;
                }
            }
        }
    });
}

/// A second cut, while what the first one left is repaired and written on.
async fn cut_again(image: &Image, found: &Model, random: &mut Random, case: &str) {
    let first = found.last().index.next();
    let id = |index| LogId::new(Term(2_000), index);
    let changes = [
        entries(2_000, first.0, &[100, 700]),
        super::vote(2_001, 3),
        Change::Compact(id(first)),
        Change::Reset(id(first.plus(40))),
    ];
    let trace = record(image, &changes).await;
    let allowed = Allowed {
        start: found,
        changes: &changes,
    };
    let mut disk = PowerCut::new(image.clone());
    for (position, event) in trace.iter().enumerate() {
        disk.advance(event);
        let image = disk.image(|bound| random.below(bound));
        let case = format!("{case}, cut again behind event {position}");
        let found = reopen(&image, &case).await;
        allowed.check(disk.acknowledged, &found, &case);
    }
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    for seed in 0..6 {
        run(seed, 24, 3);
    }
}

#[test]
#[ignore = "minutes; run it when the writer or recovery changes"]
fn no_power_cut_loses_what_was_acknowledged_long() {
    for seed in 100..300 {
        run(seed, 40, 4);
    }
}
