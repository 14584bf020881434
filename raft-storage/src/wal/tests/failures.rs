//! Goal: after a failed operation nothing is taken any more, nothing acknowledged is lost, and a
//! full disk is told from a broken one.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use raft_core::{Index, LogStore, StorageError};

use super::super::{WalLogStore, WalOptions};
use super::{
    Image, Model, OWNER, Probe, Random, batch, contents, make, open, options, random_changes,
    runtime, scratch_dir,
};
use crate::batch_thread::Change;

/// Makes changes until something fails; how many were acknowledged, and the failure.
async fn make_all(store: &mut WalLogStore, changes: &[Change]) -> (usize, Option<StorageError>) {
    for (change, before) in changes.iter().zip(0..) {
        if let Err(error) = make(store, change).await {
            return (before, Some(error));
        }
    }
    (changes.len(), None)
}

async fn check_after_failure(dir: &Path, changes: &[Change], acknowledged: usize) {
    let mut model = Model::default();
    for change in &changes[..acknowledged] {
        model.apply(change);
    }
    let (mut store, _) = open(dir).unwrap();
    let found = contents(&mut store).await.unwrap();
    let allowed = match changes.get(acknowledged) {
        Some(change) => model.steps(change),
        None => vec![model],
    };
    assert!(allowed.contains(&found));
}

#[test]
fn a_failure_of_any_operation_is_final_and_loses_nothing() {
    let changes = random_changes(&mut Random::new(5), 30);
    let mut failures = 0;
    for operations in 0.. {
        let dir = scratch_dir();
        let probe = Arc::new(Probe::of(&Image::new()));
        probe.fail_after(operations, ErrorKind::Other);
        let ended = runtime().block_on(async {
            let opened = WalLogStore::open(dir.path(), OWNER, options(Some(&probe)));
            let (acknowledged, failed) = match opened {
                Ok((mut store, _)) => {
                    let (acknowledged, failed) = make_all(&mut store, &changes).await;
                    if failed.is_some() {
                        let again = [
                            store.append(batch(999, 1, &[])).await,
                            store.reset(Model::default().last()).await,
                        ];
                        for again in again {
                            assert!(matches!(again, Err(StorageError::Poisoned(_))), "{again:?}");
                        }
                        let read = store.reader().read(Index(1)..Index(2), 1).await;
                        assert!(matches!(read, Err(StorageError::Poisoned(_))), "{read:?}");
                        assert!(store.load().await.is_err());
                    }
                    (acknowledged, failed)
                }
                Err(error) => (0, Some(error)),
            };
            failures += usize::from(failed.is_some());
            check_after_failure(dir.path(), &changes, acknowledged).await;
            probe.will_fail()
        });
        if ended {
            break;
        }
    }
    // Many operations are those of spares, whose failure shows only where the spare is needed.
    assert!(failures > 50, "{failures}");
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    for (kind, full) in [
        (ErrorKind::StorageFull, true),
        (ErrorKind::QuotaExceeded, true),
        (ErrorKind::Other, false),
    ] {
        runtime().block_on(async {
            let dir = scratch_dir();
            let probe = Arc::new(Probe::of(&Image::new()));
            // So large that no spare is made meanwhile, which would take the failure.
            let options = WalOptions {
                segment_bytes: 64 << 10,
                ..options(Some(&probe))
            };
            let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options).unwrap();
            store.append(batch(1, 1, &[10])).await.unwrap();
            probe.fail_after(0, kind);
            let failed = store.append(batch(1, 2, &[10])).await;
            let is_full = matches!(failed, Err(StorageError::Full { .. }));
            assert_eq!(is_full, full, "{failed:?}");
        });
    }
}

#[test]
fn a_spare_that_did_not_fit_is_made_again_when_it_is_needed() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let probe = Arc::new(Probe::of(&Image::new()));
        let options = options(Some(&probe));
        let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options).unwrap();
        // Behind the write and the sync of a batch that half fills the segment comes its spare,
        // made by a thread of its own: the next batch waits until that has failed.
        probe.fail_after(2, ErrorKind::StorageFull);
        store.append(batch(1, 1, &[1_000])).await.unwrap();
        let began = std::time::Instant::now();
        while probe.will_fail() {
            assert!(began.elapsed().as_secs() < 20, "a spare is being made");
            std::thread::yield_now();
        }
        store.append(batch(1, 2, &[3_000])).await.unwrap();
        assert!(!probe.will_fail());
        store.append(batch(1, 3, &[3_000])).await.unwrap();
        assert_eq!(contents(&mut store).await.unwrap().entries.len(), 3);
    });
}

#[test]
fn a_log_is_open_once() {
    let dir = scratch_dir();
    let (first, _) = open(dir.path()).unwrap();
    let second = open(dir.path()).map(|_| ());
    let refused = matches!(
        second,
        Err(StorageError::Io {
            operation: "lock",
            ..
        })
    );
    assert!(refused, "{second:?}");
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_log_that_must_exist_is_not_made() {
    let dir = scratch_dir();
    let missing = dir.path().join("missing");
    for path in [dir.path(), &missing] {
        let options = WalOptions {
            create: false,
            ..options(None)
        };
        let opened = WalLogStore::open(path, OWNER, options).map(|_| ());
        assert!(
            matches!(opened, Err(StorageError::Foreign { .. })),
            "{opened:?}"
        );
    }
    assert!(!missing.exists());
    open(dir.path()).unwrap();
    let options = WalOptions {
        create: false,
        ..options(None)
    };
    WalLogStore::open(dir.path(), OWNER, options).unwrap();
}
