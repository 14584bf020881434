//! Goal: groups share a writer and its syncs, and nothing else: none sees or loses anything because
//! of another, and an idle one keeps no old segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft_core::{GroupId, HardState, LogId, LogStore, StorageError, Term};

use super::super::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};
use super::super::run::front_alone;
use super::super::segment::{HEADER_BYTES, SegmentHeader, file_name, sequence_of};
use super::super::{WalEngine, WalLogStore, WalOptions};
use super::{
    Image, Model, OWNER, Probe, Random, batch, contents, entries, hard_state, make, options,
    random_changes, read_dir, runtime, scratch_dir, vote, write_dir,
};
use crate::batch_thread::Change;
use crate::files::probe::{Event, PowerCut};

const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(3), GroupId(u64::MAX)];

fn open_engine(dir: &std::path::Path, options: WalOptions) -> Result<WalEngine, StorageError> {
    WalEngine::open(dir, OWNER, options).map(|(engine, _)| engine)
}

fn stores(engine: &WalEngine) -> Vec<WalLogStore> {
    let stores = GROUPS.map(|group| engine.group(group).unwrap());
    stores.into()
}

async fn all_contents(engine: &WalEngine) -> Result<Vec<Model>, StorageError> {
    let mut models = Vec::new();
    for group in GROUPS {
        models.push(contents(&mut engine.group(group)?).await?);
    }
    Ok(models)
}

/// At once, one change of each store that has one.
async fn make_together(stores: &mut [WalLogStore], changes: &[Option<Change>]) {
    let [one, two, three] = stores else {
        panic!("three groups");
    };
    let make = async |store: &mut WalLogStore, change: &Option<Change>| {
        if let Some(change) = change {
            make(store, change).await.expect("nothing fails");
        }
    };
    tokio::join!(
        make(one, &changes[0]),
        make(two, &changes[1]),
        make(three, &changes[2])
    );
}

/// In each round some groups change.
fn random_rounds(seed: u64, rounds: usize) -> Vec<Vec<Option<Change>>> {
    let mut random = Random::new(seed);
    let mut changes = GROUPS.map(|_| random_changes(&mut random, rounds).into_iter());
    (0..rounds)
        .map(|_| {
            let picked = changes.iter_mut().map(|changes| match random.below(3) {
                0 => None,
                _ => changes.next(),
            });
            picked.collect()
        })
        .collect()
}

#[test]
fn what_waits_is_synced_together() {
    let dir = scratch_dir();
    let probe = Arc::new(Probe::of(&Image::new()));
    let options = WalOptions {
        segment_bytes: 4 << 20,
        ..options(Some(&probe))
    };
    let engine = open_engine(dir.path(), options).unwrap();
    let syncs = || {
        let trace = probe.trace();
        trace.iter().filter(|e| matches!(e, Event::Sync(_))).count()
    };
    let groups = 40;
    let mut stores: Vec<_> = (0..groups)
        .map(|group| engine.group(GroupId(group)).unwrap())
        .collect();
    for round in 1..=5 {
        let before = syncs();
        let held = probe.hold_syncs();
        let appends = stores
            .iter_mut()
            .map(|store| store.append(batch(1, round, &[100])));
        let mut appends: Vec<_> = appends.collect();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for append in &mut appends {
            assert!(append.as_mut().poll(&mut context).is_pending());
        }
        drop(held);
        runtime().block_on(async {
            for append in appends {
                append.await.unwrap();
            }
        });
        // One of what was there when the writer came, one of what waited behind it.
        let syncs = syncs() - before;
        assert!(
            (1..=2).contains(&syncs),
            "{syncs} syncs for {groups} appends"
        );
    }
}

#[test]
fn a_group_sees_its_own_entries_only() {
    for seed in 0..8 {
        runtime().block_on(async {
            let dir = scratch_dir();
            let mut models = vec![Model::default(); GROUPS.len()];
            let engine = open_engine(dir.path(), options(None)).unwrap();
            let mut open = stores(&engine);
            for round in random_rounds(seed, 30) {
                make_together(&mut open, &round).await;
                for (model, change) in models.iter_mut().zip(&round) {
                    change.iter().for_each(|change| model.apply(change));
                }
            }
            drop(open);
            assert_eq!(all_contents(&engine).await.unwrap(), models);
            drop(engine);
            let engine = open_engine(dir.path(), options(None)).unwrap();
            assert_eq!(all_contents(&engine).await.unwrap(), models, "seed {seed}");
        });
    }
}

#[test]
fn a_group_has_one_store_at_a_time_and_groups_are_limited() {
    let dir = scratch_dir();
    let engine = open_engine(dir.path(), options(None)).unwrap();
    let first = engine.group(GroupId(7)).unwrap();
    let refused = engine.group(GroupId(7)).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("7 is open"), "{refused}");
    drop(first);
    engine.group(GroupId(7)).unwrap();
    for group in 1_000..1_000 + WalOptions::GROUPS_MAX as u64 - 1 {
        engine.group(GroupId(group)).unwrap();
    }
    let refused = engine.group(GroupId(1)).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("limit of 1024"), "{refused}");
    assert_eq!(engine.groups().len(), WalOptions::GROUPS_MAX);
}

#[test]
fn a_store_that_comes_after_a_cancelled_change_waits_for_it() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let engine = open_engine(dir.path(), options(None)).unwrap();
        let mut store = engine.group(GroupId(1)).unwrap();
        {
            let mut cancelled = std::pin::pin!(store.append(batch(1, 1, &[10])));
            std::future::poll_fn(|context| {
                drop(cancelled.as_mut().poll(context));
                std::task::Poll::Ready(())
            })
            .await;
        }
        drop(store);
        let mut store = engine.group(GroupId(1)).unwrap();
        assert_eq!(contents(&mut store).await.unwrap().entries.len(), 1);
    });
}

/// Group 0 fills segments and compacts; group 3 has a vote and two entries, and is idle.
async fn fill_beside_an_idle_group(stores: &mut [WalLogStore], rounds: u64) -> Vec<Model> {
    let mut models = vec![Model::default(); GROUPS.len()];
    let idle = [vote(4, 2), entries(4, 1, &[300, 400])];
    for change in &idle {
        make(&mut stores[1], change).await.unwrap();
        models[1].apply(change);
    }
    for index in 1..=rounds {
        let mut changes = vec![entries(1, index, &[1_500])];
        if index % 2 == 0 {
            changes.push(Change::Compact(LogId::new(Term(1), index.into())));
        }
        for change in &changes {
            make(&mut stores[0], change).await.unwrap();
            models[0].apply(change);
        }
    }
    models
}

fn sequences(image: &Image) -> Vec<u64> {
    let names = image.keys().map(|name| name.to_string_lossy());
    names.filter_map(|name| sequence_of(&name)).collect()
}

#[test]
fn an_idle_group_keeps_no_old_segments() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let engine = open_engine(dir.path(), options(None)).unwrap();
        let mut open = stores(&engine);
        let models = fill_beside_an_idle_group(&mut open, 40).await;
        drop(open);
        let left = sequences(&read_dir(dir.path()));
        assert!(left.len() <= 4 && left[0] > 10, "{left:?}");
        assert_eq!(all_contents(&engine).await.unwrap(), models);
        drop(engine);
        let engine = open_engine(dir.path(), options(None)).unwrap();
        assert_eq!(all_contents(&engine).await.unwrap(), models);
        // What was moved goes on like any other log.
        let mut store = engine.group(GROUPS[1]).unwrap();
        make(&mut store, &entries(4, 3, &[10])).await.unwrap();
        make(&mut store, &Change::Compact(LogId::new(Term(4), 1.into())))
            .await
            .unwrap();
        drop((store, engine));
        let engine = open_engine(dir.path(), options(None)).unwrap();
        let mut store = engine.group(GROUPS[1]).unwrap();
        let held = contents(&mut store).await.unwrap();
        let indexes: Vec<_> = held.entries.iter().map(|e| e.index().0).collect();
        assert_eq!((indexes, held.hard_state), (vec![2, 3], hard_state(4, 2)));
    });
}

/// The whole of what was asked for, and of the last round any part of each group.
fn check(found: &[Model], rounds: &[Vec<Option<Change>>], acknowledged: usize, case: &str) {
    for (group, found) in found.iter().enumerate() {
        let mut model = Model::default();
        for round in &rounds[..acknowledged] {
            round[group].iter().for_each(|change| model.apply(change));
        }
        let current = rounds.get(acknowledged).and_then(|r| r[group].as_ref());
        let allowed = match current {
            Some(change) => model.steps(change),
            None => vec![model],
        };
        let last = |model: &Model| (model.hard_state, model.start, model.last());
        assert!(
            allowed.contains(found),
            "{case}, group {group}: found {:?}, allowed {:?}",
            last(found),
            allowed.iter().map(last).collect::<Vec<_>>()
        );
    }
}

fn cut_rounds(rounds: &[Vec<Option<Change>>], images_per_event: usize, seed: u64) -> Vec<Event> {
    let dir = scratch_dir();
    let probe = Arc::new(Probe::of(&Image::new()));
    runtime().block_on(async {
        let engine = open_engine(dir.path(), options(Some(&probe))).unwrap();
        let mut open = stores(&engine);
        for (round, done) in rounds.iter().zip(1..) {
            make_together(&mut open, round).await;
            probe.acknowledge(done);
        }
        drop((open, engine));
        let mut random = Random::new(seed);
        let mut disk = PowerCut::new(Image::new());
        let trace = probe.trace();
        for (position, event) in trace.iter().enumerate() {
            disk.advance(event);
            for n in 0..images_per_event {
                let image = disk.image(|bound| random.below(bound));
                let case = format!("seed {seed}, cut behind event {position}, image {n}");
                let dir = write_dir(&image);
                let opened = open_engine(dir.path(), options(None));
                let engine = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
                let found = all_contents(&engine).await;
                let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
                check(&found, rounds, disk.acknowledged, &case);
            }
        }
        trace
    })
}

#[test]
fn no_power_cut_loses_what_any_group_was_told() {
    for seed in 0..4 {
        cut_rounds(&random_rounds(seed, 20), 2, seed);
    }
}

#[test]
fn no_power_cut_loses_entries_that_are_being_moved() {
    let mut rounds = vec![vec![None, Some(vote(4, 2)), None]];
    rounds.push(vec![None, Some(entries(4, 1, &[300, 400, 500])), None]);
    for index in 1..=12 {
        rounds.push(vec![Some(entries(1, index, &[1_500])), None, None]);
        if index % 2 == 0 {
            let compaction = Change::Compact(LogId::new(Term(1), index.into()));
            rounds.push(vec![Some(compaction), None, None]);
        }
    }
    let trace = cut_rounds(&rounds, 6, 1);
    let moved = u8::try_from(8).unwrap();
    let is_move = |event: &Event| match event {
        Event::Write(_, offset, bytes) => *offset > 4_096 && bytes.get(12) == Some(&moved),
        _ => false,
    };
    assert!(trace.iter().any(is_move), "nothing was moved");
}

/// Adds records to the end of the only segment.
fn with_records(
    image: &Image,
    records: impl IntoIterator<Item = (RecordHeader, Vec<u8>)>,
) -> Image {
    let mut image = image.clone();
    let name = std::path::PathBuf::from(file_name(1));
    let file = image.get_mut(&name).unwrap();
    let page = file[..HEADER_BYTES].try_into().unwrap();
    let header = SegmentHeader::decode(page, &name, &OWNER, 1).unwrap();
    let end = file.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut at = end.next_multiple_of(8);
    for (record, payload) in records {
        let record = RecordHeader {
            payload_checksum: crc32c::crc32c(&payload),
            payload_bytes: u32::try_from(payload.len()).unwrap(),
            ..record
        };
        let (bytes, _) = record.encode(header.frame().seed);
        file[at..at + RECORD_HEADER_BYTES].copy_from_slice(&bytes);
        at += RECORD_HEADER_BYTES;
        file[at..at + payload.len()].copy_from_slice(&payload);
        at += payload.len().next_multiple_of(8);
    }
    image
}

#[test]
fn records_of_groups_that_never_began_and_of_too_many_are_refused() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let options = WalOptions {
            segment_bytes: 256 << 10,
            ..options(None)
        };
        let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options.clone()).unwrap();
        make(&mut store, &vote(1, 2)).await.unwrap();
        drop(store);
        let image = read_dir(dir.path());
        let record = |kind, group, states, id| RecordHeader {
            kind,
            group: GroupId(group),
            states,
            batch_end: true,
            payload_bytes: 0,
            payload_checksum: 0,
            id,
            synced_to: 4_096,
        };
        let first = LogId::new(Term(1), 1.into());
        let far = LogId::new(Term(1), u64::MAX.into());
        let entry = raft_core::Entry::new(first, raft_core::EntryKind::Noop, bytes::Bytes::new());
        let state = crate::hard_state::encode_hard_state(HardState::default()).to_vec();
        let many = (1..=1_024).map(|n: u16| {
            let header = record(
                RecordKind::HardState,
                u64::from(n) << 40,
                n + 1,
                LogId::ZERO,
            );
            (header, state.clone())
        });
        let hostile: BTreeMap<&str, Image> = BTreeMap::from([
            ("too many", with_records(&image, many)),
            (
                "never began",
                with_records(
                    &image,
                    [(
                        record(RecordKind::Entry, 99, 1, first),
                        front_alone(&entry).to_vec(),
                    )],
                ),
            ),
            (
                "far reset",
                with_records(&image, [(record(RecordKind::Reset, 0, 1, far), Vec::new())]),
            ),
            (
                "wrong count",
                with_records(
                    &image,
                    [(record(RecordKind::Witness, 0, 7, LogId::ZERO), Vec::new())],
                ),
            ),
            (
                "moved from nowhere",
                with_records(
                    &image,
                    [(
                        record(RecordKind::Moved, 0, 1, first),
                        front_alone(&entry).to_vec(),
                    )],
                ),
            ),
        ]);
        for (case, image) in hostile {
            let dir = write_dir(&image);
            let refused = open_engine(dir.path(), options.clone()).map(|_| ());
            assert!(
                matches!(refused, Err(StorageError::Damaged { .. })),
                "{case}: {refused:?}"
            );
            let repair = WalOptions {
                repair: true,
                ..options.clone()
            };
            // No panic, and no way around the limits, where it may be repaired.
            let repaired = open_engine(dir.path(), repair).map(|engine| engine.groups());
            match case {
                "wrong count" | "moved from nowhere" => {
                    assert_eq!(repaired.unwrap(), [GroupId(0)], "{case}");
                }
                _ => assert!(
                    matches!(repaired, Err(StorageError::LostPromises { .. })),
                    "{case}: {repaired:?}"
                ),
            }
        }
    });
}
