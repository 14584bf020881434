//! N4 of the lab tests: torn and short ends, bits that flip in the middle, syncs that fail or take
//! long, full disks. Whatever a disk does, the log says so or holds all that it acknowledged.

use std::path::Path;

use raft_core::{Index, LogStore, StorageError};
use raft_storage::sim_disk::{Image, NameOrder, Random, SimDisk};

use super::judge::{
    LOG_DIR, Recovered, contents, open, open_to_repair, recover, whole_or_refilling, write_on,
};
use super::steps::{Model, Step, append, batch, id, overwrite, vote};

fn empty_disk() -> SimDisk {
    SimDisk::recorded(&Image::with_dir(Path::new("/node")))
}

/// Two segments and a bit. Nothing repeats the last vote.
fn steps() -> Vec<Step> {
    vec![
        vote(1, 3),
        append(1, 1, &[20, 700]),
        append(1, 3, &[1_500, 60]),
        overwrite(2, 4, &[40, 50]),
        append(2, 6, &[1_600, 30]),
        vote(3, 1),
        append(3, 8, &[2_500]),
        vote(4, 2),
        append(4, 9, &[100, 9]),
    ]
}

/// Makes steps until one fails: how many were acknowledged, and the failure.
async fn run_all(store: &mut dyn LogStore, steps: &[Step]) -> (usize, Option<StorageError>) {
    for (done, step) in steps.iter().enumerate() {
        if let Err(error) = step.run(store).await {
            return (done, Some(error));
        }
    }
    (steps.len(), None)
}

fn after(steps: &[Step]) -> Model {
    let mut model = Model::default();
    steps.iter().for_each(|step| model.apply(step));
    model
}

/// What may be there when so many steps were acknowledged.
pub(super) fn allowed(steps: &[Step], acknowledged: usize) -> Vec<Model> {
    let model = after(&steps[..acknowledged]);
    match steps.get(acknowledged) {
        Some(step) => model.steps(step),
        None => vec![model],
    }
}

/// The disk of a log to which this was done, and which was closed.
async fn written(steps: &[Step]) -> SimDisk {
    let disk = empty_disk();
    let (mut store, _) = open(&disk).unwrap();
    let (_, failed) = run_all(&mut store, steps).await;
    assert_eq!(failed, None);
    drop(store);
    disk
}

/// Waits until a sync is held.
pub(super) async fn wait_for_sync(disk: &SimDisk) {
    let began = std::time::Instant::now();
    while disk.syncs_waiting() == 0 {
        assert!(began.elapsed().as_secs() < 60, "nothing is synced");
        tokio::task::yield_now().await;
    }
}

/// What opening says: the log, or nothing where it is refused or is to be filled again.
async fn found(disk: &SimDisk) -> Result<Option<Model>, StorageError> {
    let (mut store, _) = open(disk)?;
    if store.load().await?.refill_to.is_some() {
        return Ok(None);
    }
    Ok(Some(contents(&mut store).await?))
}

#[tokio::test]
async fn n4_a_torn_or_short_end_is_cut_and_nothing_acknowledged_with_it() {
    let steps = steps();
    let (last, before) = steps.split_last().unwrap();
    let disk = empty_disk();
    let (mut store, _) = open(&disk).unwrap();
    run_all(&mut store, before).await;
    disk.hold_syncs(true);
    let writing = tokio::spawn({
        let last = last.clone();
        async move { last.run(&mut store).await }
    });
    wait_for_sync(&disk).await;
    let cuts = disk.power_cuts(NameOrder::AsMade, 400, &mut Random::new(5));
    assert!(writing.await.unwrap().is_err(), "its disk is gone");
    let allowed = allowed(&steps, before.len());
    for (number, image) in cuts.images.iter().enumerate() {
        let case = format!("image {number}");
        let recovered = recover(image, &case).await;
        assert!(allowed.contains(&recovered.model), "{case}");
        write_on(&recovered, &case).await;
    }
}

#[tokio::test]
async fn n4_a_bit_that_flips_in_the_middle_is_never_taken_for_an_end() {
    let steps = steps();
    let expected = after(&steps);
    let seen = written(&steps).await.seen();
    for (name, bytes) in seen.files_in(Path::new(LOG_DIR)) {
        if !name.to_string_lossy().ends_with(".wal") {
            continue;
        }
        let path = Path::new(LOG_DIR).join(&name);
        for position in (0..bytes.len()).step_by(7) {
            let disk = SimDisk::new(&seen);
            disk.rot(&path, position, 1 << (position % 8)).unwrap();
            // Refused, or told that it is to be filled again, or nothing reads this byte.
            if let Ok(Some(model)) = found(&disk).await {
                let case = format!("{} at {position}", name.display());
                assert_eq!(model, expected, "{case}: {}", model.sketch());
            }
        }
    }
}

/// The version in the header page of a segment: a higher one is of a newer program, whatever the
/// checksum of that program's page may be.
const VERSION_BYTES: std::ops::Range<usize> = 8..12;

#[tokio::test]
async fn n4_every_byte_that_flips_leaves_a_log_whole_refilling_or_refused() {
    let steps = steps();
    let expected = after(&steps);
    let seen = written(&steps).await.seen();
    let (mut whole, mut refilling, mut refused) = (0, 0, 0);
    for (name, bytes) in seen.files_in(Path::new(LOG_DIR)) {
        if !name.to_string_lossy().ends_with(".wal") {
            continue;
        }
        let path = Path::new(LOG_DIR).join(&name);
        for position in 0..bytes.len() {
            let case = format!("{} at {position}", name.display());
            let disk = SimDisk::new(&seen);
            disk.rot(&path, position, 1 << (position % 8)).unwrap();
            let (mut store, _) = match open_to_repair(&disk) {
                Ok(opened) => opened,
                Err(StorageError::LostPromises { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(StorageError::Foreign { .. }) if VERSION_BYTES.contains(&position) => continue,
                Err(error) => panic!("{case}: {error}"),
            };
            match whole_or_refilling(&mut store).await.unwrap() {
                Ok(model) => {
                    whole += 1;
                    assert!(model == expected, "{case}: {}", model.sketch());
                }
                Err(log) => {
                    refilling += 1;
                    log.check(&expected, &case);
                }
            }
        }
    }
    println!("flips: {whole} logs are whole, {refilling} are refilling, {refused} are refused");
    assert!(
        refilling > 4_000 && refused > 4_000,
        "most of it is something"
    );
}

#[tokio::test]
async fn n4_a_write_that_the_disk_lost_or_misplaced_is_never_taken_for_an_end() {
    let steps = steps();
    let expected = after(&steps);
    let mut noticed = 0;
    for misplaced in [false, true] {
        for writes in 0.. {
            let disk = empty_disk();
            if misplaced {
                disk.misdirect_write_after(writes, 3);
            } else {
                disk.lose_write_after(writes);
            }
            let (mut store, _) = open(&disk).unwrap();
            let (_, failed) = run_all(&mut store, &steps).await;
            assert_eq!(failed, None, "nobody is told");
            drop(store);
            let cuts = disk.power_cuts(NameOrder::AsMade, 1, &mut Random::new(1));
            match found(&SimDisk::new(&cuts.images[0])).await {
                Ok(Some(model)) => assert_eq!(model, expected, "write {writes}"),
                _ => noticed += 1,
            }
            if disk.will_fail() {
                break;
            }
        }
    }
    assert!(noticed > 10, "{noticed}");
}

#[tokio::test]
async fn n4_a_failed_sync_stops_the_log_and_is_not_tried_again() {
    let steps = steps();
    let mut failures = 0;
    for syncs in 0.. {
        let disk = empty_disk();
        disk.fail_sync_after(syncs);
        let mut acknowledged = 0;
        if let Ok((mut store, _)) = open(&disk) {
            let (done, failed) = run_all(&mut store, &steps).await;
            acknowledged = done;
            if failed.is_some() {
                failures += 1;
                let operations = disk.recording().len();
                for again in [
                    store.append(batch(99, 1, &[1])).await,
                    store.compact(id(1, 1)).await,
                    store.reset(id(99, 1)).await,
                    store.reader().read(Index(1)..Index(2), 1).await.map(|_| ()),
                ] {
                    assert!(matches!(again, Err(StorageError::Poisoned(_))), "{again:?}");
                }
                drop(store);
                assert_eq!(disk.recording().len(), operations, "nothing is tried again");
            }
        }
        let allowed = allowed(&steps, acknowledged);
        let case = format!("sync {syncs} failed behind step {acknowledged}");
        for image in disk
            .power_cuts(NameOrder::AsMade, 8, &mut Random::new(syncs as u64))
            .images
        {
            let recovered = recover(&image, &case).await;
            assert!(
                allowed.contains(&recovered.model),
                "{case}: {}",
                recovered.model.sketch()
            );
        }
        if disk.will_fail() {
            break;
        }
    }
    assert!(failures >= 8, "{failures}");
}

#[tokio::test]
async fn n4_a_full_disk_is_told_and_loses_nothing() {
    let steps = steps();
    let mut full = 0;
    for kib in 0..48 {
        let disk = empty_disk();
        disk.set_capacity(Some(kib << 10));
        let mut acknowledged = 0;
        match open(&disk) {
            Ok((mut store, _)) => {
                let (done, failed) = run_all(&mut store, &steps).await;
                acknowledged = done;
                if let Some(failed) = failed {
                    assert!(matches!(failed, StorageError::Full { .. }), "{failed}");
                    full += 1;
                }
            }
            Err(failed) => assert!(matches!(failed, StorageError::Full { .. }), "{failed}"),
        }
        // There is room again, and nothing else happened to the disk.
        let disk = disk.restart();
        let (mut store, _) = open(&disk).unwrap();
        let model = contents(&mut store).await.unwrap();
        let case = format!("{kib} KiB, full behind step {acknowledged}");
        assert!(
            allowed(&steps, acknowledged).contains(&model),
            "{case}: {}",
            model.sketch()
        );
        drop(store);
        write_on(&Recovered { model, disk }, &case).await;
    }
    assert!(full > 5, "{full}");
}

#[tokio::test]
async fn n4_reads_go_on_while_a_sync_takes_long() {
    let disk = empty_disk();
    let (mut store, _) = open(&disk).unwrap();
    append(1, 1, &[20, 30]).run(&mut store).await.unwrap();
    let reader = store.reader();
    disk.hold_syncs(true);
    let writing = tokio::spawn(async move { append(1, 3, &[40]).run(&mut store).await });
    wait_for_sync(&disk).await;
    let held = reader.read(Index(1)..Index(3), usize::MAX).await.unwrap();
    assert_eq!(held.len(), 2);
    let not_yet = reader.read(Index(3)..Index(4), usize::MAX).await;
    assert!(not_yet.is_err(), "it is not durable");
    disk.hold_syncs(false);
    writing.await.unwrap().unwrap();
    assert_eq!(
        reader
            .read(Index(3)..Index(4), usize::MAX)
            .await
            .unwrap()
            .len(),
        1
    );
}
