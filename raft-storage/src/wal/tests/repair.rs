//! Goal: where synced data is damaged, the log is opened without its entries and with a mark that
//! reaches past all that was acknowledged, or it is refused. Never is it a shorter log without a
//! mark, never has it an older term or vote.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft_core::{GroupId, LogId, LogStore, StorageError, Term};

use super::super::segment::{HEADER_BYTES, file_name, sequence_of};
use super::super::{LogRepair, RecoveryReport, WalEngine, WalOptions};
use super::{
    Image, Model, OWNER, Probe, Random, entries, hard_state, make, options, read_dir, runtime,
    scratch_dir, vote, write_dir,
};
use crate::batch_thread::Change;
use crate::files::probe::PowerCut;

const GROUPS: [GroupId; 2] = [GroupId(0), GroupId(5)];

fn repairing(probe: Option<&Arc<Probe>>) -> WalOptions {
    WalOptions {
        repair: true,
        ..options(probe)
    }
}

fn open(dir: &Path) -> Result<(WalEngine, RecoveryReport), StorageError> {
    WalEngine::open(dir, OWNER, repairing(None))
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), index.into())
}

struct Sample {
    image: Image,
    /// Of each group, and before the last change.
    models: [Model; 2],
    before: [Model; 2],
    changes: Vec<(usize, Change)>,
}

/// Three segments of two groups. Votes lie in all of them, and the last change is one that nothing
/// vouches for, or that a witness does.
fn sample(witness: bool) -> Sample {
    let dir = scratch_dir();
    let changes = vec![
        (0, vote(1, 4)),
        (1, vote(2, 4)),
        (0, entries(1, 1, &[3, 700, 40, 900])),
        (1, entries(2, 1, &[100, 1_000])),
        (0, vote(3, 2)),
        (0, entries(3, 5, &[500, 900])),
        (1, entries(2, 3, &[50, 1_700])),
        (1, Change::Compact(id(2, 2))),
        (0, entries(3, 7, &[1_500, 600])),
        (1, vote(5, 1)),
        (0, entries(3, 9, &[300])),
        (1, entries(5, 5, &[9, 60])),
    ];
    let options = WalOptions {
        witness_after: witness.then_some(Duration::from_secs(3_600)),
        ..options(None)
    };
    let mut models = [Model::default(), Model::default()];
    let mut before = models.clone();
    runtime().block_on(async {
        let (engine, _) = WalEngine::open(dir.path(), OWNER, options).unwrap();
        let mut stores = GROUPS.map(|group| engine.group(group).unwrap());
        for (group, change) in &changes {
            make(&mut stores[*group], change).await.unwrap();
            before = models.clone();
            models[*group].apply(change);
        }
    });
    let image = read_dir(dir.path());
    assert_eq!(segments(&image), [1, 2, 3]);
    Sample {
        image,
        models,
        before,
        changes,
    }
}

fn segments(image: &Image) -> Vec<u64> {
    let names = image.keys().map(|name| name.to_string_lossy());
    names.filter_map(|name| sequence_of(&name)).collect()
}

fn name(sequence: u64) -> PathBuf {
    file_name(sequence).into()
}

fn end_of_data(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| (last + 1).next_multiple_of(8))
}

/// What the store of a group says: its log, and its mark.
async fn loaded(engine: &WalEngine, group: GroupId) -> (Model, Option<LogId>) {
    let mut store = engine.group(group).unwrap();
    let mark = store.load().await.unwrap().refill_to;
    (marked_contents(&mut store).await, mark)
}

async fn marked_contents(store: &mut super::super::WalLogStore) -> Model {
    let loaded = store.load().await.unwrap();
    let mut entries = Vec::new();
    if loaded.last.index > loaded.start.index {
        let all = loaded.start.index.next()..loaded.last.index.next();
        entries = store.reader().read(all, usize::MAX).await.unwrap();
    }
    Model {
        hard_state: loaded.hard_state,
        start: loaded.start,
        entries,
    }
}

/// Checks a log that was begun anew: nothing is forgotten that was promised.
async fn check_repaired(engine: &WalEngine, models: &[Model; 2], case: &str) {
    for (group, model) in GROUPS.iter().zip(models) {
        let (found, mark) = loaded(engine, *group).await;
        assert_eq!(found.hard_state, model.hard_state, "{case}, {group}");
        assert!(found.entries.is_empty(), "{case}, {group}");
        assert!(found.start <= model.start, "{case}, {group}");
        assert!(mark >= Some(model.last()), "{case}, {group}: {mark:?}");
    }
}

/// One damaged log. Whether it was repaired; `None` where it was refused.
fn open_damaged(sample: &Sample, image: &Image, case: &str) -> Option<bool> {
    runtime().block_on(async {
        let dir = write_dir(image);
        let (engine, report) = match open(dir.path()) {
            Ok(opened) => opened,
            Err(StorageError::LostPromises { .. } | StorageError::Foreign { .. }) => return None,
            Err(error) => panic!("{case}: {error}"),
        };
        if report.repaired.is_some() {
            check_repaired(&engine, &sample.models, case).await;
            return Some(true);
        }
        let last = sample.changes.last().unwrap();
        for (group, model) in sample.models.iter().enumerate() {
            let (found, mark) = loaded(&engine, GROUPS[group]).await;
            assert_eq!(mark, None, "{case}");
            let mut allowed = vec![model.clone()];
            if group == last.0 && report.cut.is_some() {
                allowed = sample.before[group].steps(&last.1);
            }
            assert!(allowed.contains(&found), "{case}, group {group}");
        }
        Some(false)
    })
}

#[test]
fn every_flipped_byte_is_harmless_repaired_or_refused() {
    for witness in [false, true] {
        let sample = sample(witness);
        let (mut repaired, mut refused) = (0, 0);
        for (name, bytes) in &sample.image {
            let data = end_of_data(bytes);
            let sparse = (data..bytes.len()).step_by(61);
            for position in (0..data).chain(sparse) {
                let mut image = sample.image.clone();
                image.get_mut(name).unwrap()[position] ^= 1 << (position % 8);
                let case = format!("witness {witness}, {} at {position}", name.display());
                match open_damaged(&sample, &image, &case) {
                    Some(was_repaired) => repaired += usize::from(was_repaired),
                    None => refused += 1,
                }
            }
        }
        // Header pages, votes that nothing repeats. Most of the damage is to entries.
        assert!(repaired > 8_000, "{repaired} repaired, {refused} refused");
        assert!(refused < 9_000, "{repaired} repaired, {refused} refused");
    }
}

#[test]
fn damage_to_what_another_record_proves_is_repaired_and_to_what_none_does_is_not() {
    let sample = sample(true);
    let data = end_of_data(&sample.image[&name(3)]);
    let vote_of_5 = hard_state(5, 1);
    // The newest vote of the second group stands in the last segment, and nothing repeats it.
    let position = (HEADER_BYTES..data)
        .find(|at| sample.image[&name(3)][*at..].starts_with(&vote_of_5.term.0.to_le_bytes()))
        .expect("the vote is there");
    let flip = |sequence: u64, position: usize| {
        let mut image = sample.image.clone();
        image.get_mut(&name(sequence)).unwrap()[position] ^= 1;
        image
    };
    let gone = |sequence: u64| {
        let mut image = sample.image.clone();
        image.remove(&name(sequence));
        image
    };
    let cut = |sequence: u64, length: usize| {
        let mut image = sample.image.clone();
        image.get_mut(&name(sequence)).unwrap().truncate(length);
        image
    };
    for (case, image, expected) in [
        ("an entry", flip(1, HEADER_BYTES + 300), Some(true)),
        ("the header page of a full segment", flip(1, 60), Some(true)),
        ("the header page of another", flip(2, 60), Some(true)),
        ("a full segment", gone(2), Some(true)),
        ("the first segment", gone(1), Some(true)),
        (
            "both full segments",
            {
                let mut image = gone(1);
                image.remove(&name(2));
                image
            },
            Some(true),
        ),
        ("the end of a full segment", cut(2, 5_000), Some(true)),
        ("all of a full segment", cut(1, 0), Some(true)),
        ("the header page of the last segment", flip(3, 60), None),
        ("the newest vote", flip(3, position), None),
        ("the last segment, cut", cut(3, data - 100), None),
        ("another owner", flip(3, 33), None),
    ] {
        assert_eq!(open_damaged(&sample, &image, case), expected, "{case}");
    }
}

/// The sample with a damaged entry in its first segment.
fn damaged_image() -> (Sample, Image) {
    let sample = sample(true);
    let mut image = sample.image.clone();
    image.get_mut(&name(1)).unwrap()[HEADER_BYTES + 300] ^= 1;
    (sample, image)
}

/// The header of a record is damaged, which alone names its entries: there may be as many as have
/// room in it.
#[test]
fn the_mark_reaches_past_the_smallest_entries_that_a_record_can_have() {
    let dir = scratch_dir();
    let changes = [
        (0, vote(1, 4)),
        (0, entries(1, 1, &[0; 9])),
        // Vouches for what stands before it.
        (1, vote(2, 4)),
    ];
    let mut models = [Model::default(), Model::default()];
    runtime().block_on(async {
        let (engine, _) = WalEngine::open(dir.path(), OWNER, options(None)).unwrap();
        let mut stores = GROUPS.map(|group| engine.group(group).unwrap());
        for (group, change) in &changes {
            make(&mut stores[*group], change).await.unwrap();
            models[*group].apply(change);
        }
    });
    let mut image = read_dir(dir.path());
    image.get_mut(&name(1)).unwrap()[HEADER_BYTES + 72] ^= 1;
    runtime().block_on(async {
        let dir = write_dir(&image);
        let (engine, report) = open(dir.path()).unwrap();
        assert!(report.repaired.is_some());
        let (found, mark) = loaded(&engine, GROUPS[0]).await;
        assert_eq!(found.hard_state, models[0].hard_state);
        assert!(mark >= Some(models[0].last()), "{mark:?}");
        // Not further than there is room for.
        let room = (48 + 8 + 9 * 8) / 8;
        assert!(mark <= Some(id(1, room)), "{mark:?}");
    });
}

#[test]
fn a_mark_lasts_until_the_log_has_reached_it() {
    let (_, image) = damaged_image();
    runtime().block_on(async {
        let dir = write_dir(&image);
        let (engine, report) = open(dir.path()).unwrap();
        let LogRepair {
            damage,
            set_aside,
            refill,
            groups_may_be_lost,
        } = report.repaired.expect("it is told");
        assert!(damage.to_string().contains("offset 4"), "{damage}");
        assert_eq!(set_aside.len(), 3);
        assert!(set_aside.iter().all(|path| path.exists()));
        assert_eq!(refill, [(GroupId(0), id(3, 9)), (GroupId(5), id(5, 6))]);
        assert!(!groups_may_be_lost);
        drop(engine);
        // Filled again entry by entry, over several segments and restarts.
        let mut model = Model {
            hard_state: hard_state(3, 2),
            ..Model::default()
        };
        for index in 1..=9 {
            let (engine, report) = open(dir.path()).unwrap();
            assert_eq!((report.repaired, report.cut), (None, None));
            let (found, mark) = loaded(&engine, GroupId(0)).await;
            assert_eq!((&found, mark), (&model, Some(id(3, 9))), "{index}");
            let change = entries(if index < 5 { 1 } else { 3 }, index, &[2_000]);
            let mut store = engine.group(GroupId(0)).unwrap();
            make(&mut store, &change).await.unwrap();
            model.apply(&change);
            let mark = store.load().await.unwrap().refill_to;
            assert_eq!(mark, (index < 9).then_some(id(3, 9)), "{index}");
        }
        let (engine, _) = open(dir.path()).unwrap();
        assert_eq!(loaded(&engine, GroupId(0)).await, (model, None));
        // The other group is not whole yet, and a vote does not change that.
        let mut store = engine.group(GroupId(5)).unwrap();
        make(&mut store, &vote(8, 8)).await.unwrap();
        assert_eq!(store.load().await.unwrap().refill_to, Some(id(5, 6)));
        // A snapshot of a later term may be what fills it.
        make(&mut store, &Change::Reset(id(7, 3))).await.unwrap();
        assert_eq!(store.load().await.unwrap().refill_to, None);
        drop((store, engine));
        let (engine, _) = open(dir.path()).unwrap();
        let (found, mark) = loaded(&engine, GroupId(5)).await;
        assert_eq!(
            (found.hard_state, found.start, mark),
            (hard_state(8, 8), id(7, 3), None)
        );
        assert!(segments(&read_dir(dir.path())).len() > 1);
    });
}

#[test]
fn damage_that_comes_again_is_repaired_again_and_little_is_kept() {
    let (_, image) = damaged_image();
    runtime().block_on(async {
        let dir = write_dir(&image);
        for round in 0..12 {
            let (engine, report) = open(dir.path()).unwrap();
            assert!(report.repaired.is_some(), "round {round}");
            let (_, mark) = loaded(&engine, GroupId(0)).await;
            // The mark does not come nearer because of what was written meanwhile.
            assert_eq!(mark, Some(id(3, 9)), "round {round}");
            let mut store = engine.group(GroupId(0)).unwrap();
            make(&mut store, &entries(1, 1, &[100])).await.unwrap();
            make(&mut store, &entries(1, 2, &[100])).await.unwrap();
            drop((store, engine));
            let newest = *segments(&read_dir(dir.path())).last().unwrap();
            let path = dir.path().join(name(newest));
            let mut bytes = std::fs::read(&path).unwrap();
            let first_entry = end_of_data(&bytes) - 2 * (48 + 136);
            bytes[first_entry + 60] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        let names = read_dir(dir.path()).into_keys();
        let kept = names.filter(|name| name.to_string_lossy().starts_with("damaged-"));
        assert_eq!(kept.count(), 8);
    });
}

#[test]
fn a_power_cut_during_the_repair_loses_nothing_that_was_certain() {
    let (sample, image) = damaged_image();
    let dir = write_dir(&image);
    let probe = Arc::new(Probe::of(&image));
    drop(WalEngine::open(dir.path(), OWNER, repairing(Some(&probe))).unwrap());
    let mut random = Random::new(3);
    let mut disk = PowerCut::new(image);
    let trace = probe.trace();
    let mut finished = 0;
    for (position, event) in trace.iter().enumerate() {
        disk.advance(event);
        for n in 0..20 {
            let image = disk.image(|bound| random.below(bound));
            let case = format!("cut behind event {position}, image {n}");
            let dir = write_dir(&image);
            runtime().block_on(async {
                let opened = open(dir.path());
                let (engine, report) = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
                check_repaired(&engine, &sample.models, &case).await;
                finished += usize::from(report.repaired.is_none());
            });
            let left = segments(&read_dir(dir.path()));
            assert_eq!(left.len(), 1, "{case}: {left:?}");
        }
    }
    assert!(finished > 10, "{finished}");
}

#[test]
fn damage_is_refused_where_that_is_asked_for_and_nothing_is_changed() {
    let (_, image) = damaged_image();
    let dir = write_dir(&image);
    let refused = WalEngine::open(dir.path(), OWNER, options(None)).map(|_| ());
    assert!(
        matches!(refused, Err(StorageError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(read_dir(dir.path()), image);
}

#[test]
fn promises_that_are_not_certain_are_refused_with_what_to_do_and_nothing_is_changed() {
    let mut image = sample(true).image;
    image.get_mut(&name(3)).unwrap()[60] ^= 1;
    let dir = write_dir(&image);
    let refused = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, StorageError::LostPromises { .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("flotilla member replace"),
        "{refused}"
    );
    assert_eq!(read_dir(dir.path()), image);
}

#[test]
fn groups_that_may_have_been_lost_are_not_begun_as_new_ones() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let engine = WalEngine::open(dir.path(), OWNER, options(None)).unwrap().0;
        let mut store = engine.group(GroupId(5)).unwrap();
        let mut lost = engine.group(GroupId(9)).unwrap();
        make(&mut store, &vote(1, 1)).await.unwrap();
        let from = end_of_data(&read_dir(dir.path())[&name(1)]);
        make(&mut lost, &vote(1, 1)).await.unwrap();
        let to = end_of_data(&read_dir(dir.path())[&name(1)]);
        make(&mut store, &vote(2, 1)).await.unwrap();
        make(&mut store, &entries(2, 1, &[10])).await.unwrap();
        drop((store, lost, engine));
        let mut image = read_dir(dir.path());
        image.get_mut(&name(1)).unwrap()[from..to].fill(0xee);
        let dir = write_dir(&image);
        for is_first in [true, false] {
            let (engine, report) = open(dir.path()).unwrap();
            assert_eq!(
                report.repaired.is_some_and(|r| r.groups_may_be_lost),
                is_first
            );
            let refused = engine.group(GroupId(9)).map(|_| ()).unwrap_err();
            assert!(
                matches!(refused, StorageError::LostPromises { .. }),
                "{refused}"
            );
            let (found, _) = loaded(&engine, GroupId(5)).await;
            assert_eq!(found.hard_state, hard_state(2, 1));
            let mut store = engine.group(GroupId(5)).unwrap();
            // Later segments say so as well.
            for index in 1..6 {
                let change = entries(2, if is_first { index } else { index + 5 }, &[2_000]);
                make(&mut store, &change).await.unwrap();
            }
        }
    });
}
