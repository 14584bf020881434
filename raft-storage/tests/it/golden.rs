//! Goal: files that version 1 wrote stay readable for ever, and the byte tables of
//! `docs/disk-format.md` are true.
//!
//! Method: `tests/golden/v1` holds a log of two segments, written once. It is copied and opened;
//! and its bytes are compared with the tables by code that shares nothing with the store.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft_core::{AppendBatch, Entry, EntryKind, HardState, Index, LogId, LogStore, NodeId, Term};
use raft_storage::{WalLogStore, WalOptions};

use crate::conformance::{OWNER, scratch_dir};

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        ..WalOptions::default()
    }
}

fn entry(term: u64, index: u64, payload: &str) -> Entry {
    let kind = if payload.is_empty() {
        EntryKind::Noop
    } else {
        EntryKind::Command
    };
    let id = LogId::new(Term(term), Index(index));
    Entry::new(id, kind, Bytes::copy_from_slice(payload.as_bytes()))
}

fn batches() -> Vec<AppendBatch> {
    let state = |term, vote: Option<u64>| {
        Some(HardState {
            term: Term(term),
            vote: vote.map(NodeId),
        })
    };
    let long = "long ".repeat(500);
    vec![
        AppendBatch {
            hard_state: state(3, Some(2)),
            truncate_from: None,
            entries: vec![entry(3, 1, ""), entry(3, 2, "first"), entry(3, 3, "wrong")],
        },
        AppendBatch {
            hard_state: state(4, None),
            truncate_from: Some(Index(3)),
            entries: vec![entry(4, 3, ""), entry(4, 4, &long)],
        },
        AppendBatch {
            hard_state: None,
            truncate_from: None,
            entries: vec![entry(4, 5, &long), entry(4, 6, "last")],
        },
    ]
}

#[tokio::test]
#[ignore = "writes tests/golden/v1 anew; only for a new format version"]
async fn write_golden() {
    let dir = scratch_dir();
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    for batch in batches() {
        store.append(batch).await.unwrap();
    }
    drop(store);
    fs::create_dir_all(golden_dir()).unwrap();
    for segment in ["00000000000000000001.wal", "00000000000000000002.wal"] {
        fs::copy(dir.path().join(segment), golden_dir().join(segment)).unwrap();
    }
}

#[tokio::test]
async fn the_log_of_version_1_opens() {
    let dir = scratch_dir();
    for file in fs::read_dir(golden_dir()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!((report.segments, report.records, report.cut), (2, 14, None));
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.hard_state.term, Term(4));
    assert_eq!(loaded.hard_state.vote, None);
    assert_eq!(loaded.term_runs, [(Term(3), Index(1)), (Term(4), Index(3))]);
    assert_eq!(loaded.last, LogId::new(Term(4), Index(6)));
    let read = store
        .reader()
        .read(Index(1)..Index(7), usize::MAX)
        .await
        .unwrap();
    let mut expected: Vec<_> = batches().into_iter().flat_map(|b| b.entries).collect();
    expected.remove(2);
    assert_eq!(read, expected);
    let more = AppendBatch {
        entries: vec![entry(5, 7, "more")],
        ..AppendBatch::default()
    };
    store.append(more).await.unwrap();
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// The records of a segment by the tables: kind, index, term, offset, header checksum.
fn records_by_the_table(file: &[u8]) -> Vec<(u8, u64, u64, usize, u32)> {
    let salt = crc32c::crc32c(&file[56..64]);
    let seed = crc32c::crc32c_append(salt, &file[48..56]);
    let mut records = Vec::new();
    let mut at = 4096;
    while at + 48 <= file.len() && file[at + 12] != 0 {
        let header = &file[at..at + 48];
        let length = u32_at(header, 8) as usize;
        let checksum = u32_at(header, 0);
        assert_eq!(checksum, crc32c::crc32c_append(seed, &header[4..]));
        assert_eq!(
            u32_at(header, 4),
            crc32c::crc32c(&file[at + 48..at + 48 + length])
        );
        assert!(header[13] <= 1 && header[14..24] == [0; 10]);
        assert!(u64_at(header, 40) <= at as u64);
        records.push((
            header[12],
            u64_at(header, 24),
            u64_at(header, 32),
            at,
            checksum,
        ));
        at += (48 + length).next_multiple_of(8);
    }
    assert!(file[at..].iter().all(|byte| *byte == 0));
    records
}

#[test]
fn the_byte_tables_are_true() {
    let files = [1, 2].map(|n| fs::read(golden_dir().join(format!("{n:020}.wal"))).unwrap());
    for (file, sequence) in files.iter().zip(1..) {
        assert_eq!(&file[..8], b"FLOTWAL\n");
        assert_eq!(u32_at(file, 8), 1);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..4096]);
        assert_eq!(u32_at(file, 12), checksum);
        assert_eq!(file[16..32], OWNER.cluster.0);
        assert_eq!(u64_at(file, 32), OWNER.node.0);
        assert_eq!(u64_at(file, 40), OWNER.incarnation.0);
        assert_eq!(u64_at(file, 48), sequence);
        assert_eq!(u64_at(file, 64), file.len() as u64);
        assert_eq!(u64_at(file, 72), 4096 + 72);
    }
    let [first, second] = files.map(|file| (records_by_the_table(&file), file));
    let ids = |records: &[(u8, u64, u64, usize, u32)]| -> Vec<(u8, u64, u64)> {
        records.iter().map(|r| (r.0, r.1, r.2)).collect()
    };
    let expected = [
        (2, 0, 0),
        (2, 0, 0),
        (1, 1, 3),
        (1, 2, 3),
        (1, 3, 3),
        (2, 3, 3),
        (3, 3, 3),
        (1, 3, 4),
        (1, 4, 4),
        (4, 4, 4),
    ];
    assert_eq!(ids(&first.0), expected);
    assert_eq!(ids(&second.0), [(2, 4, 4), (1, 5, 4), (1, 6, 4), (5, 6, 4)]);
    // The chain: the second header names the first one's seal.
    let seal = first.0.last().unwrap();
    assert_eq!(u64_at(&second.1, 80), seal.3 as u64);
    assert_eq!(u64_at(&second.1, 88), u64::from(seal.4));
    assert_eq!((u64_at(&first.1, 80), u64_at(&first.1, 88)), (0, 0));
    // A vote: term, candidate, whether there is one.
    let vote = &first.1[first.0[1].3 + 48..][..24];
    assert_eq!(
        (u64_at(vote, 0), u64_at(vote, 8), u64_at(vote, 16)),
        (3, 2, 1)
    );
}
