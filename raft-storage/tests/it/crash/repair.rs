//! Goal: a power cut while a damaged log is begun anew changes nothing of what that says: the term
//! and vote are what they were, and how far the log is to be filled again is never forgotten.
//!
//! Method: synced data is damaged in many ways, a repair of each is recorded, and behind each of
//! its operations all disks that a cut could leave are opened, or a sample. Some are cut again
//! while they are opened, some are filled again to the end. The bound is a quarter of that of the
//! other scenarios.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use raft_core::{LogStore, StorageError};
use raft_storage::sim_disk::{Image, NameOrder, Operation, Random, Replay, SimDisk};

use super::describe;
use super::judge::{
    LOG_DIR, Refilling, contents, newest_snapshot, open, open_to_repair, whole_or_refilling,
};
use super::n4::{allowed, wait_for_sync};
use super::steps::{Model, Step, append, id, overwrite, vote};

/// Of how many different disks one is cut again, one is filled again, and one is opened by
/// somebody who does not repair.
const CUT_AGAIN_EACH: u64 = 6;
const REFILL_EACH: u64 = 5;
const REFUSE_EACH: u64 = 3;

/// Bytes between those that are flipped.
const FLIP_EACH: usize = 257;

/// Three segments, of which the first one begins before a snapshot. Nothing repeats the last vote.
fn steps() -> Vec<Step> {
    vec![
        vote(1, 3),
        append(1, 1, &[200, 700]),
        append(1, 3, &[1_500, 60]),
        Step::Snapshot(id(1, 2)),
        Step::Compact(id(1, 2)),
        overwrite(2, 4, &[40, 50]),
        vote(4, 2),
        append(4, 6, &[1_600, 30]),
        append(4, 8, &[2_500]),
        vote(5, 1),
        append(5, 9, &[100, 9]),
    ]
}

/// The disk of a log to which this was done, and which was closed.
async fn written(base: &Image, steps: &[Step]) -> Image {
    let disk = SimDisk::new(base);
    let (mut store, _) = open_to_repair(&disk).expect("it was opened before");
    for step in steps {
        step.run(&mut store).await.expect("nothing fails");
    }
    drop(store);
    disk.seen()
}

fn segments(image: &Image) -> Vec<(PathBuf, Vec<u8>)> {
    let files = image.files_in(Path::new(LOG_DIR)).into_iter();
    files
        .filter(|(name, _)| name.to_string_lossy().ends_with(".wal"))
        .map(|(name, bytes)| (Path::new(LOG_DIR).join(name), bytes))
        .collect()
}

/// Images with synced data of the log damaged, each in its own way.
fn damages(sound: &Image) -> Vec<(String, Image)> {
    let mut damaged = Vec::new();
    let mut add = |what: String, change: &dyn Fn(&mut Image)| {
        let mut image = sound.clone();
        change(&mut image);
        damaged.push((what, image));
    };
    let segments = segments(sound);
    for (path, bytes) in &segments {
        let name = path.file_name().unwrap_or_default().display();
        let file = |image: &mut Image| image.files[path].clone();
        for position in (50..bytes.len()).step_by(FLIP_EACH) {
            add(format!("{name} flipped at {position}"), &|image| {
                let mut bytes = file(image);
                bytes[position] ^= 0x11;
                image.files.insert(path.clone(), bytes);
            });
        }
        for (what, from, to) in [("begin", 0, 512), ("middle", 4_608, 5_120)] {
            add(format!("{name}, zeros in its {what}"), &|image| {
                let mut bytes = file(image);
                bytes[from..to].fill(0);
                image.files.insert(path.clone(), bytes);
            });
        }
        for kept in [0, 5_000] {
            add(
                format!("{name}, of which {kept} bytes are left"),
                &|image| {
                    let mut bytes = file(image);
                    bytes.truncate(kept);
                    image.files.insert(path.clone(), bytes);
                },
            );
        }
    }
    // That the newest one is gone is not noticed: see `docs/disk-format.md`.
    for (path, _) in segments.iter().rev().skip(1) {
        add(format!("{} is gone", path.display()), &|image| {
            image.files.remove(path);
        });
    }
    damaged
}

/// What opening with repair says.
async fn repaired(disk: &SimDisk) -> Result<Result<Model, Refilling>, StorageError> {
    let (mut store, report) = open_to_repair(disk)?;
    let found = whole_or_refilling(&mut store).await?;
    if let Err(log) = &found {
        let is_empty = log.last == log.start;
        assert!(
            is_empty || report.repaired.is_none(),
            "damaged entries are kept"
        );
        let newest = newest_snapshot(&store).await?;
        assert_eq!(newest, Some(id(1, 2)), "the snapshot is not damaged");
    }
    Ok(found)
}

#[derive(Debug, Default)]
struct Tally {
    repairs: u64,
    operations: u64,
    states: u64,
    sampled: u64,
    distinct: u64,
    in_recovery: u64,
    refilled: u64,
}

struct Enumerator {
    promised: Model,
    random: Random,
    tally: Tally,
}

impl Enumerator {
    fn new(promised: Model) -> Self {
        Self {
            promised,
            random: Random::new(8),
            tally: Tally::default(),
        }
    }

    /// Cuts behind every operation of the repair of a damaged disk, where there is one.
    async fn damaged(&mut self, image: &Image, what: &str, bound: usize) {
        let disk = SimDisk::recorded(image);
        let expected = match repaired(&disk).await {
            Ok(Err(refilling)) => refilling,
            Ok(Ok(model)) => {
                assert!(model == self.promised, "{what}: {}", model.sketch());
                return;
            }
            Err(StorageError::LostPromises { .. }) => return,
            Err(error) => panic!("{what}: {error}"),
        };
        expected.check(&self.promised, what);
        self.tally.repairs += 1;
        let recording = disk.recording();
        let mut replay = Replay::new(image);
        let mut known = HashSet::new();
        for (position, operation) in recording.iter().enumerate() {
            replay.advance(operation);
            let cuts = replay.cuts(NameOrder::AsMade, bound, &mut self.random);
            self.tally.operations += 1;
            self.tally.states += cuts.images.len() as u64;
            self.tally.sampled += cuts.sampled as u64;
            for image in &cuts.images {
                let mut hasher = DefaultHasher::new();
                image.hash(&mut hasher);
                if known.insert(hasher.finish()) {
                    let operation = describe(operation);
                    let case = format!("{what}, cut behind operation {position}, {operation}");
                    self.look(image, &expected, &case).await;
                }
            }
        }
    }

    async fn look(&mut self, image: &Image, expected: &Refilling, case: &str) {
        self.tally.distinct += 1;
        let disk = SimDisk::recorded(image);
        let found = repaired(&disk).await;
        let same = Ok(Err(expected.clone()));
        assert_eq!(found, same, "{case}");
        check_names(&disk, case);
        let number = self.tally.distinct;
        if number.is_multiple_of(REFUSE_EACH) {
            let unwilling = open_without_repair(&SimDisk::new(image)).await;
            let is_damage = matches!(unwilling, Err(StorageError::Damaged { .. }));
            assert!(is_damage || unwilling == same, "{case}: {unwilling:?}");
        }
        if number.is_multiple_of(REFILL_EACH) {
            self.refill(&disk.restart(), expected, case).await;
        }
        if number.is_multiple_of(CUT_AGAIN_EACH) {
            self.cut_again(image, &disk.recording(), expected, case)
                .await;
        }
    }

    /// A second cut, while the disk that the first one left is opened.
    async fn cut_again(
        &mut self,
        image: &Image,
        recording: &[Operation],
        expected: &Refilling,
        case: &str,
    ) {
        let mut replay = Replay::new(image);
        for (position, operation) in recording.iter().enumerate() {
            replay.advance(operation);
            for image in replay.cuts(NameOrder::AsMade, 3, &mut self.random).images {
                let case = format!("{case}, cut again behind operation {position}");
                let found = repaired(&SimDisk::new(&image)).await;
                assert_eq!(found, Ok(Err(expected.clone())), "{case}");
                self.tally.in_recovery += 1;
            }
        }
    }

    /// A leader fills the log again: it is whole once it has reached the mark, and not before.
    async fn refill(&mut self, disk: &SimDisk, expected: &Refilling, case: &str) {
        let (mut store, report) = open_to_repair(disk).expect("it was opened before");
        assert_eq!(report.repaired, None, "{case}: repaired twice");
        if expected.start != self.promised.start {
            // Only a snapshot reaches it.
            let to = self.promised.start;
            Step::Reset(to).run(&mut store).await.expect("it may");
        }
        let mut model = self.promised.clone();
        model.entries.retain(|entry| entry.id() <= expected.last);
        let beyond = id(9, self.promised.last().index.0 + 1);
        let mut entries = self.promised.entries.clone();
        entries.retain(|entry| entry.id() > expected.last);
        entries.extend(append(beyond.term.0, beyond.index.0, &[30]).entries());
        for entry in entries {
            let last = entry.id();
            let step = Step::Append(raft_core::AppendBatch {
                entries: vec![entry],
                ..raft_core::AppendBatch::default()
            });
            step.run(&mut store).await.expect("it can be written on");
            model.apply(&step);
            drop(store);
            store = open_to_repair(disk).expect("nothing was interrupted").0;
            let mark = store.load().await.expect("it is open").refill_to;
            let missing = Some(expected.refill_to).filter(|to| last < *to);
            assert_eq!(mark, missing, "{case}, filled up to {last}");
        }
        let found = contents(&mut store).await.expect("it is whole");
        assert!(found == model, "{case}, filled again: {}", found.sketch());
        self.tally.refilled += 1;
    }

    fn report(&self, name: &str, bound: usize) {
        let tally = &self.tally;
        println!(
            "{name}: {} states enumerated, {} sampled, {} distinct, behind {} operations of {} \
             repairs (bound {bound}); {} more while they were opened, {} filled again",
            tally.states,
            tally.sampled,
            tally.distinct,
            tally.operations,
            tally.repairs,
            tally.in_recovery,
            tally.refilled,
        );
        assert!(tally.distinct > 100 && tally.refilled > 10, "{tally:?}");
    }
}

/// Only the new segment is part of the log, and nothing is left that nobody needs.
fn check_names(disk: &SimDisk, case: &str) {
    let seen = disk.seen();
    assert_eq!(segments(&seen).len(), 1, "{case}");
    for name in seen.files_in(Path::new(LOG_DIR)).keys() {
        let name = name.to_string_lossy();
        let is_known = ["lock", "reserve"].contains(&&*name) || name.ends_with(".wal");
        let is_aside = name.starts_with("damaged-") || name.starts_with("torn-");
        assert!(is_known || is_aside, "{case}: {name} is left");
    }
}

async fn open_without_repair(disk: &SimDisk) -> Result<Result<Model, Refilling>, StorageError> {
    let (mut store, _) = open(disk)?;
    whole_or_refilling(&mut store).await
}

/// The sound log, and what it promised.
async fn sound() -> (Image, Model) {
    let steps = steps();
    let mut promised = Model::default();
    steps.iter().for_each(|step| promised.apply(step));
    let sound = written(&Image::with_dir(Path::new("/node")), &steps).await;
    assert_eq!(segments(&sound).len(), 3);
    (sound, promised)
}

async fn enumerate(name: &str, image: &Image, promised: Model) {
    let bound = super::bound().div_ceil(4);
    let mut enumerator = Enumerator::new(promised);
    for (what, image) in damages(image) {
        enumerator.damaged(&image, &what, bound).await;
    }
    enumerator.report(name, bound);
}

#[tokio::test]
async fn a_crash_during_a_repair_forgets_neither_the_vote_nor_what_is_missing() {
    let (sound, promised) = sound().await;
    enumerate("repair", &sound, promised).await;
}

#[tokio::test]
async fn a_crash_during_the_repair_of_a_log_that_was_being_filled_again_forgets_nothing() {
    let (mut image, promised) = sound().await;
    let first = segments(&image)[0].0.clone();
    image.files.get_mut(&first).expect("it is there")[5_000] ^= 1;
    // The leader has sent less than is missing.
    let some = [append(1, 3, &[1_500]), append(2, 4, &[40, 50])];
    let image = written(&image, &some).await;
    assert_eq!(segments(&image).len(), 1);
    enumerate("repair again", &image, promised).await;
}

/// The last step was being written when the power went, and data in the segments before is damaged.
/// (In the newest one nothing vouches for what was written last.)
#[tokio::test]
async fn damage_before_a_torn_end_loses_nothing_that_was_acknowledged() {
    let steps = steps();
    let (last, before) = steps.split_last().expect("there are some");
    let disk = SimDisk::new(&Image::with_dir(Path::new("/node")));
    let (mut store, _) = open(&disk).expect("an empty disk can be opened");
    for step in before {
        step.run(&mut store).await.expect("nothing fails");
    }
    disk.hold_syncs(true);
    let writing = tokio::spawn({
        let last = last.clone();
        async move { last.run(&mut store).await }
    });
    wait_for_sync(&disk).await;
    let cuts = disk.power_cuts(NameOrder::AsMade, 24, &mut Random::new(9));
    assert!(writing.await.expect("it ends").is_err(), "its disk is gone");
    let allowed = allowed(&steps, before.len());
    let (mut whole, mut refilling, mut refused) = (0, 0, 0);
    for (number, image) in cuts.images.iter().enumerate() {
        let newest = segments(image).pop().expect("there are some").0;
        let unharmed = &image.files[&newest];
        for (what, image) in damages(image) {
            if image.files.get(&newest) != Some(unharmed) {
                continue;
            }
            let case = format!("image {number}, {what}");
            match repaired(&SimDisk::new(&image)).await {
                Ok(Ok(model)) => {
                    whole += 1;
                    assert!(allowed.contains(&model), "{case}: {}", model.sketch());
                }
                Ok(Err(log)) => {
                    refilling += 1;
                    log.check(&allowed[0], &case);
                }
                Err(StorageError::LostPromises { .. }) => refused += 1,
                Err(error) => panic!("{case}: {error}"),
            }
        }
    }
    println!(
        "damage before a torn end: {whole} logs are whole, {refilling} are refilling, {refused} \
         are refused"
    );
    assert!(whole > 20 && refilling > 100, "it is damaged and torn");
}
