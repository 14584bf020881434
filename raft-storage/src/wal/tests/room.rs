//! Goal: a full disk is met before a write fails. The log says so, goes on in its reserve, and is
//! as before when there is room again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use raft_core::{LogId, LogStore, StorageError, Term};

use super::super::{WalLogStore, WalOptions};
use super::{Model, OWNER, contents, entries, make, runtime, vote};
use crate::batch_thread::Change;
use crate::sim_disk::{Image, SimDisk};

const SEGMENT_BYTES: u64 = 16 << 10;
/// Entries that a segment holds.
const ENTRIES: u64 = 7;

fn open(disk: &SimDisk) -> Result<WalLogStore, StorageError> {
    let options = WalOptions {
        segment_bytes: SEGMENT_BYTES,
        witness_after: None,
        disk: disk.disk(),
        ..WalOptions::default()
    };
    WalLogStore::open(Path::new("/node/log"), OWNER, options).map(|(store, _)| store)
}

fn is_short(store: &WalLogStore) -> bool {
    store.reader().usage().is_short_of_room
}

/// What is done from time to time needs no call.
fn wait(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

struct Log {
    store: WalLogStore,
    model: Model,
}

impl Log {
    async fn make(&mut self, change: Change) -> Result<(), StorageError> {
        make(&mut self.store, &change).await?;
        self.model.apply(&change);
        Ok(())
    }

    /// One more entry, of which a segment holds [`ENTRIES`].
    async fn append(&mut self) -> Result<(), StorageError> {
        let next = self.model.last().index.0 + 1;
        self.make(entries(1, next, &[1_500])).await
    }
}

/// A log with a reserve, on a disk that has just become full.
async fn full_disk() -> (SimDisk, Log) {
    let disk = SimDisk::new(&Image::default());
    let store = open(&disk).unwrap();
    let model = Model::default();
    let mut log = Log { store, model };
    log.make(vote(1, 2)).await.unwrap();
    assert_eq!(log.store.reader().usage().disk_bytes, 2 * SEGMENT_BYTES);
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(!is_short(&log.store));
    (disk, log)
}

#[test]
fn a_full_disk_is_told_before_a_write_fails() {
    runtime().block_on(async {
        let (disk, mut log) = full_disk().await;
        for _ in 0..2 {
            log.append().await.unwrap();
            assert!(!is_short(&log.store), "no room is wanted yet");
        }
        // Votes, memberships and what was accepted fill the segment, and then the reserve.
        for _ in 2..2 * ENTRIES {
            log.append().await.unwrap();
            assert!(is_short(&log.store));
        }
        log.make(vote(2, 1)).await.unwrap();
        assert!(is_short(&log.store));
        assert!(
            !disk
                .seen()
                .files_in(Path::new("/node/log"))
                .contains_key(Path::new("reserve"))
        );
        // Only now.
        let failed = log.append().await.unwrap_err();
        assert!(matches!(failed, StorageError::Full { .. }), "{failed}");
        let again = log.make(vote(3, 1)).await.unwrap_err();
        assert!(matches!(again, StorageError::Poisoned(_)), "{again}");
        let Log { store, model } = log;
        drop(store);
        disk.set_capacity(None);
        let mut store = open(&disk).unwrap();
        assert_eq!(contents(&mut store).await.unwrap(), model);
        assert!(!is_short(&store));
        assert!(store.reader().usage().disk_bytes >= 3 * SEGMENT_BYTES);
    });
}

#[test]
fn a_log_that_was_short_of_room_recovers_by_itself() {
    runtime().block_on(async {
        let (disk, mut log) = full_disk().await;
        for _ in 0..=ENTRIES {
            log.append().await.unwrap();
        }
        assert!(is_short(&log.store));
        disk.set_capacity(None);
        wait("there is room again", || !is_short(&log.store));
        for _ in 0..3 * ENTRIES {
            log.append().await.unwrap();
            assert!(!is_short(&log.store));
        }
        let Log { store, model } = log;
        drop(store);
        let mut store = open(&disk.restart()).unwrap();
        assert_eq!(contents(&mut store).await.unwrap(), model);
    });
}

#[test]
fn compaction_makes_room() {
    runtime().block_on(async {
        let (_disk, mut log) = full_disk().await;
        for _ in 0..=ENTRIES {
            log.append().await.unwrap();
        }
        assert!(is_short(&log.store));
        // All entries of the first segment go, and it with them: room for another reserve.
        let to = LogId::new(Term(1), ENTRIES.into());
        log.make(Change::Compact(to)).await.unwrap();
        wait("there is room for a reserve", || !is_short(&log.store));
        assert_eq!(contents(&mut log.store).await.unwrap(), log.model);
    });
}

#[test]
fn a_reserve_that_was_about_to_become_a_segment_is_filled_with_zeros_again() {
    let disk = SimDisk::new(&Image::default());
    drop(open(&disk).unwrap());
    let name = PathBuf::from("/node/log/reserve");
    disk.rot(&name, 700, 0xff).unwrap();
    drop(open(&disk).unwrap());
    let reserve = disk.seen().files_in(Path::new("/node/log"))[Path::new("reserve")].clone();
    assert_eq!(reserve, vec![0; usize::try_from(SEGMENT_BYTES).unwrap()]);
}

#[test]
fn no_reserve_is_kept_where_none_is_asked_for() {
    let disk = SimDisk::new(&Image::default());
    drop(open(&disk).unwrap());
    let options = WalOptions {
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: Some(0),
        disk: disk.disk(),
        ..WalOptions::default()
    };
    let (store, _) = WalLogStore::open(Path::new("/node/log"), OWNER, options).unwrap();
    assert_eq!(store.reader().usage().disk_bytes, SEGMENT_BYTES);
    drop(store);
    let seen = disk.seen().files_in(Path::new("/node/log"));
    assert!(!seen.contains_key(Path::new("reserve")));
}
