//! Goal: a power cut while a damaged log is repaired changes nothing of what the repair says: how
//! far the log is to be filled again is never forgotten, nor is a vote.

use std::path::Path;

use raft_core::{HardState, LogId, LogStore};
use raft_storage::sim_disk::{Image, NameOrder, Random, Replay, SimDisk};

use super::judge::{LOG_DIR, open};
use super::steps::{append, vote};

/// Two segments of a log that was closed, and its term and vote.
async fn sound() -> Image {
    let disk = SimDisk::new(&Image::with_dir(Path::new("/node")));
    let (mut store, _) = open(&disk).unwrap();
    for step in [
        vote(1, 3),
        append(1, 1, &[200, 700]),
        append(1, 3, &[1_500, 600]),
        vote(4, 2),
        append(4, 5, &[1_500, 30]),
        append(4, 7, &[100]),
    ] {
        step.run(&mut store).await.unwrap();
    }
    drop(store);
    disk.seen()
}

/// What a log says that is to be filled again; nothing where it is whole or refused.
async fn repaired(disk: &SimDisk) -> Option<(HardState, LogId, LogId)> {
    let (mut store, _) = open(disk).ok()?;
    let loaded = store.load().await.expect("it was opened");
    Some((loaded.hard_state, loaded.last, loaded.refill_to?))
}

#[tokio::test]
async fn a_crash_during_a_repair_forgets_neither_the_vote_nor_what_is_missing() {
    let sound = sound().await;
    let mut random = Random::new(8);
    let (mut repairs, mut states) = (0, 0);
    for (name, bytes) in sound.files_in(Path::new(LOG_DIR)) {
        if !name.to_string_lossy().ends_with(".wal") {
            continue;
        }
        for position in (4_096..bytes.len()).step_by(409) {
            let mut image = sound.clone();
            let path = Path::new(LOG_DIR).join(&name);
            image.files.get_mut(&path).expect("it is listed")[position] ^= 0x11;
            let disk = SimDisk::recorded(&image);
            let Some(expected) = repaired(&disk).await else {
                continue;
            };
            repairs += 1;
            let case = format!("{} at {position}", name.display());
            assert_eq!(expected.2, LogId::new(4.into(), 7.into()), "{case}");
            let mut replay = Replay::new(&image);
            for operation in disk.recording() {
                replay.advance(&operation);
                for image in replay.cuts(NameOrder::AsMade, 12, &mut random).images {
                    states += 1;
                    let found = repaired(&SimDisk::new(&image)).await;
                    assert_eq!(found, Some(expected), "{case}");
                }
            }
        }
    }
    println!("repair: {states} states behind {repairs} repairs");
    assert!(repairs > 3, "{repairs}");
}
