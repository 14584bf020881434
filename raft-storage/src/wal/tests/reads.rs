//! Reading entries from records that hold several.

use super::*;
use crate::wal::segment::{HEADER_BYTES, file_name};

/// The payloads of entries 1 to 4, which are one batch.
const LENGTHS: [usize; 4] = [9, 0, 100, 1];
/// Where their record begins: behind the first vote.
const RECORD: usize = HEADER_BYTES + 72;
const PAYLOAD: usize = RECORD + 48;

fn open_with_one_record() -> (ScratchDir, WalLogStore, Vec<Entry>) {
    let dir = scratch_dir();
    let (mut store, _) = open(dir.path()).unwrap();
    let batch = batch(1, 1, &LENGTHS);
    let entries = batch.entries.clone();
    runtime().block_on(store.append(batch)).unwrap();
    (dir, store, entries)
}

/// Flips a byte of the file below the open store.
fn rot(dir: &ScratchDir, position: usize) {
    let path = dir.path().join(file_name(1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[position] ^= 1;
    fs::write(&path, bytes).unwrap();
}

fn read(store: &WalLogStore, from: u64, to: u64) -> Result<Vec<Entry>, StorageError> {
    let range = Index(from)..Index(to);
    runtime().block_on(store.reader().read(range, usize::MAX))
}

#[test]
fn any_part_of_a_record_is_read() {
    let (_dir, store, entries) = open_with_one_record();
    for from in 1..=4 {
        for to in from + 1..=5 {
            let expected = &entries[from - 1..to - 1];
            let found = read(&store, from as u64, to as u64).unwrap();
            assert_eq!(found, expected, "{from}..{to}");
        }
    }
}

#[test]
fn rot_costs_the_entries_that_it_touches() {
    // The heads: nothing of the record can be told any more.
    for position in (RECORD..RECORD + 48).chain(PAYLOAD..PAYLOAD + 8 + 4 * 8) {
        let (dir, store, _) = open_with_one_record();
        rot(&dir, position);
        for index in 1..=4 {
            let refused = read(&store, index, index + 1).unwrap_err();
            assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
        }
    }
    // The payload of the first and of the third entry, and the zeros between two.
    for (offset, touched) in [
        (0, Some(1)),
        (8, Some(1)),
        (16, Some(3)),
        (115, Some(3)),
        (9, None),
    ] {
        let (dir, store, entries) = open_with_one_record();
        rot(&dir, PAYLOAD + 40 + offset);
        for (entry, index) in entries.iter().zip(1..) {
            let found = read(&store, index, index + 1);
            if Some(index) == touched {
                let refused = found.unwrap_err();
                assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
            } else {
                assert_eq!(found.unwrap(), std::slice::from_ref(entry), "{offset}");
            }
        }
    }
}
