//! Goal: damage to the very last batch is told from a torn write, once the log has been idle or was
//! closed.

use std::fs;
use std::time::{Duration, Instant};

use raft_core::{LogStore, StorageError};

use super::super::segment::{HEADER_BYTES, file_name};
use super::super::{WalLogStore, WalOptions};
use super::{OWNER, batch, contents, open, options, runtime, scratch_dir};

/// A hard state: every group begins with one.
const FIRST_RECORDS_BYTES: usize = 72;
const WITNESS: u8 = 5;

fn with_witness(after: Duration) -> WalOptions {
    WalOptions {
        witness_after: Some(after),
        ..options(None)
    }
}

#[test]
fn a_closed_log_vouches_for_its_last_batch() {
    let dir = scratch_dir();
    let hour = Duration::from_secs(3_600);
    for index in 1..4 {
        let (mut store, report) = WalLogStore::open(dir.path(), OWNER, with_witness(hour)).unwrap();
        // One at first, an entry and a witness per round; opening alone adds nothing.
        assert_eq!(report.records, if index == 1 { 0 } else { 2 * index - 1 });
        runtime()
            .block_on(store.append(batch(1, index, &[100])))
            .unwrap();
        drop(store);
        drop(WalLogStore::open(dir.path(), OWNER, with_witness(hour)).unwrap());
    }
    let path = dir.path().join(file_name(1));
    let good = fs::read(&path).unwrap();
    let last_entry = HEADER_BYTES + FIRST_RECORDS_BYTES + 2 * (168 + 48);
    for position in last_entry..last_entry + 164 {
        let mut bad = good.clone();
        bad[position] ^= 4;
        fs::write(&path, bad).unwrap();
        let refused = open(dir.path()).map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Damaged { .. })),
            "{position}"
        );
    }
    fs::write(&path, good).unwrap();
    let (mut store, _) = open(dir.path()).unwrap();
    let held = runtime().block_on(contents(&mut store)).unwrap();
    assert_eq!(held.entries.len(), 3);
}

#[test]
fn an_idle_log_vouches_for_its_last_batch() {
    let dir = scratch_dir();
    let soon = Duration::from_millis(1);
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, with_witness(soon)).unwrap();
    runtime()
        .block_on(store.append(batch(1, 1, &[100])))
        .unwrap();
    let kind = HEADER_BYTES + FIRST_RECORDS_BYTES + 168 + 12;
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read(dir.path().join(file_name(1))).unwrap()[kind] != WITNESS {
        assert!(Instant::now() < deadline, "no witness was written");
        std::thread::yield_now();
    }
}
