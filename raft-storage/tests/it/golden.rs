//! Goal: files that any version wrote stay readable for ever, and the byte tables of
//! `docs/disk-format.md` are true.
//!
//! Method: `tests/golden/v<n>` holds logs that version n wrote, once. They are copied and opened;
//! and their bytes are compared with the tables by code that shares nothing with the store.
//!
//! `v1` is a log of two segments. `v2/compacted` went on from the same changes, and lost its first
//! segment; `v2/reset` lost all entries. `v3/groups` is of two groups, one of which was idle, so
//! that its entries were moved; `v3/anew` was damaged and begun anew. `v4` has the same two as
//! version 4 wrote them, `v5` and `v6` as versions 5 and 6 did; `v5/recycled` and `v6/recycled` end
//! in a file that had been another segment. `snapshot-v1` has a snapshot of either kind.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft_core::{
    AppendBatch, ClusterId, Entry, EntryKind, GroupId, HardState, Incarnation, Index, LogId,
    LogStore, Member, MemberRole, Membership, NodeId, SnapshotDescriptor, SnapshotMeta, Term,
};
use raft_storage::snapshot_file::{self, SnapshotHasher};
use raft_storage::{WalEngine, WalLogStore, WalOptions};

use crate::conformance::{OWNER, ScratchDir, scratch_dir};

pub(crate) fn golden_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    dir.join(name)
}

/// A copy of golden files in a directory for a log.
fn copy(name: &str) -> ScratchDir {
    let dir = scratch_dir();
    copy_files(&golden_dir(name), dir.path());
    dir
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let name = file.file_name();
        if is_segment(&name) || name.to_string_lossy().ends_with(".snap") {
            fs::copy(file.path(), to.join(name)).unwrap();
        }
    }
}

fn is_segment(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().ends_with(".wal")
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

fn member(id: u64) -> (NodeId, Member) {
    let member = Member {
        incarnation: Incarnation(id + 1_000),
        address: format!("host{id}:7400"),
        role: MemberRole::Voter,
    };
    (NodeId(id), member)
}

fn membership() -> Membership {
    Membership::new([member(2), member(9)].into()).unwrap()
}

/// What `v2/compacted` has behind [`batches`].
fn more() -> Vec<AppendBatch> {
    let id = LogId::new(Term(4), Index(7));
    let members = Entry::new(id, EntryKind::Membership, membership().encode());
    let long = "more ".repeat(300);
    vec![AppendBatch {
        entries: vec![members, entry(4, 8, &long)],
        ..AppendBatch::default()
    }]
}

async fn write_batches(store: &mut WalLogStore, batches: Vec<AppendBatch>) {
    for batch in batches {
        store.append(batch).await.unwrap();
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// What the idle group of `v3/groups` holds.
fn idle() -> AppendBatch {
    AppendBatch {
        hard_state: Some(HardState {
            term: Term(2),
            vote: Some(NodeId(9)),
        }),
        truncate_from: None,
        entries: vec![entry(2, 1, ""), entry(2, 2, "idle")],
    }
}

/// What the busy group of `v3/groups` has behind [`more`]: 9 to 15.
fn busy(indexes: Range<u64>) -> Vec<AppendBatch> {
    let long = "busy ".repeat(500);
    let batch = |index| AppendBatch {
        entries: vec![entry(4, index, &long)],
        ..AppendBatch::default()
    };
    indexes.map(batch).collect()
}

/// Those of `v5/recycled` and `v6/recycled`: a segment has blocks that its last batch does not
/// reach.
fn larger() -> WalOptions {
    WalOptions {
        segment_bytes: 16 << 10,
        ..options()
    }
}

/// What `v5/recycled` and `v6/recycled` end with.
fn last_of_recycled() -> AppendBatch {
    AppendBatch {
        entries: vec![entry(4, 10, "recycled")],
        ..AppendBatch::default()
    }
}

#[tokio::test]
#[ignore = "writes tests/golden/v6 anew; only for a new format version"]
async fn write_golden_logs() {
    let dir = scratch_dir();
    let (engine, _) = WalEngine::open(dir.path(), OWNER, options()).unwrap();
    let mut store = engine.group(GroupId(7)).unwrap();
    write_batches(&mut store, vec![idle()]).await;
    drop(store);
    let mut store = engine.group(GroupId(0)).unwrap();
    write_batches(&mut store, batches()).await;
    store.compact(id(3, 2)).await.unwrap();
    write_batches(&mut store, more()).await;
    write_batches(&mut store, busy(9..16)).await;
    store.compact(id(4, 12)).await.unwrap();
    drop((store, engine));
    copy_files(dir.path(), &golden_dir("v6/groups"));

    // The file has the bytes of an entry that is not the last one.
    let first = dir.path().join(format!("{:020}.wal", 8));
    let mut bytes = fs::read(&first).unwrap();
    bytes[6_000] ^= 1;
    fs::write(&first, bytes).unwrap();
    let repair = WalOptions {
        repair: true,
        ..options()
    };
    let (engine, report) = WalEngine::open(dir.path(), OWNER, repair).unwrap();
    assert!(report.repaired.is_some());
    drop(engine);
    copy_files(dir.path(), &golden_dir("v6/anew"));

    let dir = scratch_dir();
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, larger()).unwrap();
    write_batches(&mut store, busy(1..9)).await;
    store.compact(id(4, 8)).await.unwrap();
    write_batches(&mut store, busy(9..10)).await;
    write_batches(&mut store, vec![last_of_recycled()]).await;
    drop(store);
    copy_files(dir.path(), &golden_dir("v6/recycled"));
}

#[tokio::test]
async fn the_log_of_version_1_opens_and_goes_on() {
    let dir = copy("v1");
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!((report.segments, report.records, report.cut), (2, 14, None));
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.hard_state.term, Term(4));
    assert_eq!(loaded.hard_state.vote, None);
    assert_eq!(loaded.start, LogId::ZERO);
    assert_eq!(loaded.term_runs, [(Term(3), Index(1)), (Term(4), Index(3))]);
    assert_eq!(loaded.last, id(4, 6));
    let read = store.reader().read(Index(1)..Index(7), usize::MAX).await;
    let mut expected: Vec<_> = batches().into_iter().flat_map(|b| b.entries).collect();
    expected.remove(2);
    assert_eq!(read.unwrap(), expected);
    // On in the same segment, and behind a compaction that removes the first one.
    write_batches(&mut store, more()).await;
    store.compact(id(4, 4)).await.unwrap();
    drop(store);
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!(report.segments, 2);
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.start, loaded.last), (id(4, 4), id(4, 8)));
    assert_eq!(loaded.hard_state.term, Term(4));
}

#[tokio::test]
async fn the_logs_of_version_2_open() {
    let dir = copy("v2/compacted");
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!((report.segments, report.cut), (2, None));
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.start, loaded.last), (id(4, 4), id(4, 8)));
    assert_eq!(loaded.hard_state.term, Term(4));
    assert_eq!(loaded.memberships, more()[0].entries[..1]);
    let read = store.reader().read(Index(5)..Index(9), usize::MAX).await;
    let mut expected = batches().pop().unwrap().entries;
    expected.extend(more().remove(0).entries);
    assert_eq!(read.unwrap(), expected);

    let dir = copy("v2/reset");
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!((report.segments, report.cut), (1, None));
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.start, loaded.last), (id(6, 40), id(7, 41)));
    assert_eq!(loaded.hard_state.term, Term(4));
}

#[tokio::test]
async fn the_logs_of_versions_3_to_6_open() {
    for version in [3, 4, 5, 6] {
        the_logs_of_groups_open(version).await;
    }
}

async fn the_logs_of_groups_open(version: u32) {
    let dir = copy(&format!("v{version}/groups"));
    let (engine, report) = WalEngine::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!((report.cut, report.repaired), (None, None));
    assert_eq!(engine.groups(), [GroupId(0), GroupId(7)]);
    let mut store = engine.group(GroupId(7)).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(Some(loaded.hard_state), idle().hard_state);
    let read = store.reader().read(Index(1)..Index(9), usize::MAX).await;
    assert_eq!(read.unwrap(), idle().entries);
    let mut store = engine.group(GroupId(0)).unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.start, loaded.last), (id(4, 12), id(4, 15)));
    assert_eq!(loaded.hard_state.term, Term(4));
    let read = store.reader().read(Index(13)..Index(99), usize::MAX).await;
    let mut expected = busy(13..16);
    assert_eq!(
        read.unwrap(),
        expected
            .iter_mut()
            .flat_map(|b| b.entries.drain(..))
            .collect::<Vec<_>>()
    );

    let dir = copy(&format!("v{version}/anew"));
    let (engine, report) = WalEngine::open(dir.path(), OWNER, options()).unwrap();
    assert_eq!((report.cut, report.repaired), (None, None));
    for (group, start, last, term) in [(0, id(4, 12), id(4, 15), 4), (7, LogId::ZERO, id(2, 2), 2)]
    {
        let mut store = engine.group(GroupId(group)).unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!((loaded.start, loaded.last), (start, start));
        assert_eq!(loaded.refill_to, Some(last));
        assert_eq!(loaded.hard_state.term, Term(term));
    }
}

#[tokio::test]
async fn the_recycled_logs_of_versions_5_and_6_open_and_go_on() {
    for version in [5, 6] {
        the_recycled_log_opens_and_goes_on(version).await;
    }
}

async fn the_recycled_log_opens_and_goes_on(version: u32) {
    let dir = copy(&format!("v{version}/recycled"));
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, larger()).unwrap();
    assert_eq!((report.cut, report.segments), (None, 1));
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.start, loaded.last), (id(4, 8), id(4, 10)));
    let read = store.reader().read(Index(9)..Index(99), usize::MAX).await;
    let mut expected = busy(9..10).remove(0).entries;
    expected.extend(last_of_recycled().entries);
    assert_eq!(read.unwrap(), expected);
    write_batches(&mut store, busy(11..15)).await;
    drop(store);
    let (mut store, report) = WalLogStore::open(dir.path(), OWNER, larger()).unwrap();
    assert_eq!(report.cut, None);
    assert_eq!(store.load().await.unwrap().last, id(4, 14));
}

/// Two snapshots: one of the node's own, and one that it received.
fn snapshots() -> [(SnapshotDescriptor, Vec<Bytes>); 2] {
    [(31, 2), (32, 3)].map(|(index, count)| {
        let parts: Vec<_> = (0..count)
            .map(|part| Bytes::from(format!("part {part} of {index} ").repeat(part * 9)))
            .collect();
        let mut hasher = SnapshotHasher::new();
        parts.iter().for_each(|part| hasher.add(part));
        let last = id(5, index);
        let membership = membership();
        (hasher.descriptor(SnapshotMeta { last, membership }), parts)
    })
}

fn snapshot_name(index: u64) -> String {
    format!("{index:020}-{:020}.snap", 5)
}

#[tokio::test]
#[ignore = "writes tests/golden/snapshot-v1 anew; only for a new format version"]
async fn write_golden_snapshots() {
    let dir = scratch_dir();
    let beside = dir.path().with_file_name("snapshots");
    let (store, _) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    let [(own, own_parts), (received, received_parts)] = snapshots();
    let store = store.snapshots();
    let mut writer = store.create(own.meta).await.unwrap();
    for part in own_parts {
        writer.write(part).await.unwrap();
    }
    writer.finish().await.unwrap();
    copy_files(&beside, &golden_dir("snapshot-v1"));
    let mut writer = store.receive(received).await.unwrap();
    for part in received_parts {
        writer.write(part).await.unwrap();
    }
    writer.finish().await.unwrap();
    copy_files(&beside, &golden_dir("snapshot-v1"));
}

#[tokio::test]
async fn the_snapshots_of_version_1_open() {
    for (descriptor, parts) in snapshots() {
        let dir = scratch_dir();
        let name = snapshot_name(descriptor.meta.last.index.0);
        let golden = golden_dir("snapshot-v1").join(&name);
        let (found, origin) = snapshot_file::verify(&golden).unwrap();
        assert_eq!(found, descriptor);
        assert_eq!((origin.cluster, origin.node), (OWNER.cluster, OWNER.node));
        let beside = dir.path().with_file_name("snapshots");
        fs::create_dir(&beside).unwrap();
        fs::copy(&golden, beside.join(&name)).unwrap();
        let (store, _) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
        let store = store.snapshots();
        assert_eq!(store.latest().as_ref(), Some(&descriptor));
        let mut reader = store.open(descriptor.meta.last).await.unwrap();
        for part in parts {
            assert_eq!(reader.next_part().await.unwrap(), Some(part));
        }
        assert_eq!(reader.next_part().await.unwrap(), None);
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// Kind, index, term, offset, header checksum.
type FoundRecord = (u8, u64, u64, usize, u32);

/// The records of a segment by the tables.
pub(crate) fn records_by_the_table(file: &[u8]) -> Vec<FoundRecord> {
    let salt = crc32c::crc32c(&file[56..64]);
    let seed = crc32c::crc32c_append(salt, &file[48..56]);
    let mut records = Vec::new();
    let mut at = 4096;
    while at + 48 <= file.len() && file[at..at + 8] != [0; 8] {
        let header = &file[at..at + 48];
        let length = u32_at(header, 8) as usize;
        let checksum = u32_at(header, 0);
        assert_eq!(checksum, crc32c::crc32c_append(seed, &header[4..]));
        let payload = &file[at + 48..at + 48 + length];
        let has_entries = matches!(header[12], 1 | 8);
        let checked = match u32_at(file, 8) {
            4 | 5 if has_entries => entry_headers_by_the_table(payload),
            6 if has_entries => {
                let last = (u64_at(header, 24), u64_at(header, 32));
                heads_by_the_table(payload, last)
            }
            _ => payload.to_vec(),
        };
        assert_eq!(u32_at(header, 4), crc32c::crc32c(&checked));
        assert!(header[13] <= 1);
        assert!(u32_at(file, 8) > 2 || header[14..24] == [0; 10]);
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
    let is_sealed = records.last().is_some_and(|record| record.0 == 4);
    let may_be_recycled = u32_at(file, 8) > 4 && (is_sealed || file[at..at + 8] == [0; 8]);
    assert!(may_be_recycled || file[at..].iter().all(|byte| *byte == 0));
    records
}

/// The headers of the entries in a record, whose own checksums must be right.
fn entry_headers_by_the_table(payload: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let header = &payload[at..at + 32];
        let end = at + 32 + u32_at(header, 4) as usize;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..24]), &payload[at + 32..end]);
        assert_eq!(u32_at(header, 24), sum);
        headers.extend_from_slice(header);
        let zeros = &payload[end..end.next_multiple_of(8).min(payload.len())];
        assert!(zeros.iter().all(|byte| *byte == 0));
        at = end.next_multiple_of(8);
    }
    headers
}

/// Count and heads of the entries in a record, whose own checksums must be right.
fn heads_by_the_table(payload: &[u8], (last, term): (u64, u64)) -> Vec<u8> {
    let count = u32_at(payload, 0) as usize;
    let front = 8 + 8 * count;
    let mut at = front;
    for (head, index) in payload[8..front].chunks(8).zip(last + 1 - count as u64..) {
        let length = u32_at(head, 0) & 0x0fff_ffff;
        let mut encoded = vec![1, head[3] >> 4, 0, 0];
        encoded.extend_from_slice(&length.to_le_bytes());
        encoded.extend_from_slice(&index.to_le_bytes());
        encoded.extend_from_slice(&term.to_le_bytes());
        at = at.next_multiple_of(8);
        encoded.extend_from_slice(&payload[at..at + length as usize]);
        assert_eq!(u32_at(head, 4), crc32c::crc32c(&encoded));
        at += length as usize;
    }
    assert_eq!(at, payload.len());
    payload[..front].to_vec()
}

/// Group and hard states so far, of each record.
fn groups_by_the_table(file: &[u8], records: &[FoundRecord]) -> Vec<(u64, u16)> {
    let fields = |at: usize| {
        let states = u16::from_le_bytes(file[at + 14..at + 16].try_into().unwrap());
        (u64_at(file, at + 16), states)
    };
    records.iter().map(|record| fields(record.3)).collect()
}

fn check_header_page(file: &[u8], version: u32, sequence: u64) {
    assert_eq!(&file[..8], b"FLOTWAL\n");
    assert_eq!(u32_at(file, 8), version);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..4096]);
    assert_eq!(u32_at(file, 12), checksum);
    assert_eq!(file[16..32], OWNER.cluster.0);
    assert_eq!(u64_at(file, 32), OWNER.node.0);
    assert_eq!(u64_at(file, 40), OWNER.incarnation.0);
    assert_eq!(u64_at(file, 48), sequence);
    assert_eq!(u64_at(file, 64), file.len() as u64);
    let begun = match version {
        1 => 72,
        2 => 72 + 48,
        _ if u32_at(file, 92) == 2 => 2 * (72 + 16 + 48),
        _ => 2 * (72 + 48),
    };
    assert_eq!(u64_at(file, 72), 4096 + begun);
    assert!(file[96..4096].iter().all(|byte| *byte == 0));
}

fn segment(log: &str, version: u32, sequence: u64) -> (Vec<FoundRecord>, Vec<u8>) {
    let file = fs::read(golden_dir(log).join(format!("{sequence:020}.wal"))).unwrap();
    check_header_page(&file, version, sequence);
    (records_by_the_table(&file), file)
}

fn ids(records: &[FoundRecord]) -> Vec<(u8, u64, u64)> {
    records.iter().map(|r| (r.0, r.1, r.2)).collect()
}

/// The chain: a header names the seal before it.
fn check_chain(before: &[FoundRecord], behind: &[u8]) {
    let seal = before.last().unwrap();
    assert_eq!(u64_at(behind, 80), seal.3 as u64);
    assert_eq!(u32_at(behind, 88), seal.4);
}

#[test]
fn the_byte_tables_are_true_of_version_1() {
    let [first, second] = [1, 2].map(|sequence| segment("v1", 1, sequence));
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
    check_chain(&first.0, &second.1);
    assert_eq!((u64_at(&first.1, 80), u64_at(&first.1, 88)), (0, 0));
    // A vote: term, candidate, whether there is one.
    let vote = &first.1[first.0[1].3 + 48..][..24];
    assert_eq!(
        (u64_at(vote, 0), u64_at(vote, 8), u64_at(vote, 16)),
        (3, 2, 1)
    );
}

#[test]
fn the_byte_tables_are_true_of_version_2() {
    let [second, third] = [2, 3].map(|sequence| segment("v2/compacted", 2, sequence));
    let expected = [
        (2, 4, 4),
        (6, 0, 0),
        (1, 5, 4),
        (1, 6, 4),
        (6, 2, 3),
        (1, 7, 4),
        (4, 7, 4),
    ];
    assert_eq!(ids(&second.0), expected);
    let expected = [(2, 7, 4), (6, 2, 3), (1, 8, 4), (6, 4, 4), (5, 8, 4)];
    assert_eq!(ids(&third.0), expected);
    check_chain(&second.0, &third.1);
    let (records, _) = segment("v2/reset", 2, 2);
    let expected = [
        (2, 4, 4),
        (6, 0, 0),
        (1, 5, 4),
        (1, 6, 4),
        (7, 40, 6),
        (1, 41, 7),
        (5, 41, 7),
    ];
    assert_eq!(ids(&records), expected);
}

#[test]
fn the_byte_tables_are_true_of_version_3() {
    let files = [8, 9, 10].map(|sequence| segment("v3/groups", 3, sequence));
    let begins = |last| [(2, last, 4), (6, 2, 3), (2, 2, 2), (6, 0, 0)];
    let expected = [
        [(1, 13, 4), (4, 13, 4)].to_vec(),
        [(1, 14, 4), (4, 14, 4)].to_vec(),
        [(1, 15, 4), (6, 12, 4), (8, 1, 2), (8, 2, 2), (5, 2, 2)].to_vec(),
    ];
    for (((records, file), behind), last) in files.iter().zip(&expected).zip(12..) {
        let found = ids(records);
        assert_eq!(found[..4], begins(last));
        assert_eq!(found[4..], behind[..]);
        // Two more hard states, each with the start of its group, then what is group 0's.
        let states = u16::try_from(2 * last - 8).unwrap();
        let groups = groups_by_the_table(file, records);
        let begun = [(0, states), (0, states), (7, states + 1), (7, states + 1)];
        assert_eq!(groups[..4], begun);
        let group = |kind: u8| if matches!(kind, 8 | 5) { 7 } else { 0 };
        let expected: Vec<_> = behind.iter().map(|r| (group(r.0), states + 1)).collect();
        assert_eq!(groups[4..], expected);
    }
    check_chain(&files[0].0, &files[1].1);
    check_chain(&files[1].0, &files[2].1);
    assert!(files.iter().all(|(_, file)| u32_at(file, 92) == 0));

    let (records, file) = segment("v3/anew", 3, 11);
    assert_eq!(
        ids(&records),
        [(2, 12, 4), (6, 12, 4), (2, 0, 0), (6, 0, 0)]
    );
    assert_eq!(
        groups_by_the_table(&file, &records),
        [(0, 1), (0, 1), (7, 2), (7, 2)]
    );
    assert_eq!((u64_at(&file, 80), u32_at(&file, 92)), (0, 2));
    // Term, candidate, whether there is one; then the mark.
    let promises = &file[records[2].3 + 48..][..40];
    let fields: Vec<_> = (0..5).map(|n| u64_at(promises, 8 * n)).collect();
    assert_eq!(fields, [2, 9, 1, 2, 2]);
}

/// Where version 4 differs: several entries in one record, under the id of the last one.
#[test]
fn the_byte_tables_are_true_of_version_4() {
    let files = [8, 9, 10].map(|sequence| segment("v4/groups", 4, sequence));
    let behind = files.each_ref().map(|(records, _)| ids(&records[4..]));
    assert_eq!(behind[0], [(1, 13, 4), (4, 13, 4)]);
    assert_eq!(behind[1], [(1, 14, 4), (4, 14, 4)]);
    assert_eq!(behind[2], [(1, 15, 4), (6, 12, 4), (8, 2, 2), (5, 2, 2)]);
    check_chain(&files[0].0, &files[1].1);
    check_chain(&files[1].0, &files[2].1);
    let (records, file) = &files[2];
    let moved = &file[records[6].3..][..48 + 32 + 36];
    assert_eq!((u32_at(moved, 8), moved[13]), (32 + 36, 1));
    // A no-op, and the entry `idle`.
    assert_eq!((u32_at(moved, 52), u64_at(moved, 56)), (0, 1));
    assert_eq!((u32_at(moved, 84), u64_at(moved, 88)), (4, 2));
    assert_eq!(&moved[112..], b"idle");
    let (records, file) = segment("v4/anew", 4, 11);
    let found = ids(&records);
    assert_eq!(found, [(2, 12, 4), (6, 12, 4), (2, 0, 0), (6, 0, 0)]);
    assert_eq!((u64_at(&file, 80), u32_at(&file, 92)), (0, 2));
}

/// Where version 5 differs: behind the zeros that end the records there may be older ones.
#[test]
fn the_byte_tables_are_true_of_version_5() {
    let files = [8, 9, 10].map(|sequence| segment("v5/groups", 5, sequence));
    let behind = files.each_ref().map(|(records, _)| ids(&records[4..]));
    assert_eq!(behind[2], [(1, 15, 4), (6, 12, 4), (8, 2, 2), (5, 2, 2)]);
    check_chain(&files[0].0, &files[1].1);
    let (records, _) = segment("v5/anew", 5, 11);
    assert_eq!(ids(&records).len(), 4);
    let file = fs::read(golden_dir("v5/recycled").join(format!("{:020}.wal", 3))).unwrap();
    let records = records_by_the_table(&file);
    assert_eq!(ids(&records).last(), Some(&(5, 10, 4)));
    let end = records.last().unwrap().3 + 48;
    let old = &file[end..];
    assert!(old.windows(9).any(|bytes| bytes == b"busy busy"));
}

/// Where version 6 differs: the heads of all entries of a record stand in front of their payloads.
#[test]
fn the_byte_tables_are_true_of_version_6() {
    let files = [8, 9, 10].map(|sequence| segment("v6/groups", 6, sequence));
    let behind = files.each_ref().map(|(records, _)| ids(&records[4..]));
    assert_eq!(behind[2], [(1, 15, 4), (6, 12, 4), (8, 2, 2), (5, 2, 2)]);
    check_chain(&files[0].0, &files[1].1);
    let (records, file) = &files[2];
    // A no-op, and the entry `idle`.
    let moved = &file[records[6].3..][..48 + 8 + 2 * 8 + 4];
    assert_eq!((u32_at(moved, 8), moved[13]), (8 + 2 * 8 + 4, 1));
    assert_eq!(u64_at(moved, 48), 2);
    assert_eq!(
        (u32_at(moved, 56), u32_at(moved, 64)),
        (1 << 28, 2 << 28 | 4)
    );
    assert_eq!(&moved[72..], b"idle");
    let (records, _) = segment("v6/anew", 6, 11);
    assert_eq!(ids(&records).len(), 4);
    let file = fs::read(golden_dir("v6/recycled").join(format!("{:020}.wal", 3))).unwrap();
    assert_eq!(ids(&records_by_the_table(&file)).last(), Some(&(5, 10, 4)));
}

#[test]
fn the_byte_tables_are_true_of_snapshots() {
    for (descriptor, parts) in snapshots() {
        let index = descriptor.meta.last.index.0;
        let name = snapshot_name(index);
        let file = fs::read(golden_dir("snapshot-v1").join(name)).unwrap();
        let membership = membership().encode();
        let header = 96 + membership.len();
        assert_eq!(&file[..8], b"FLOTSNP\n");
        assert_eq!(u32_at(&file, 8), 1);
        let seed = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..header]);
        assert_eq!(u32_at(&file, 12), seed);
        assert_eq!(ClusterId(file[16..32].try_into().unwrap()), OWNER.cluster);
        assert_eq!(u64_at(&file, 32), OWNER.node.0);
        assert_eq!((u64_at(&file, 40), u64_at(&file, 48)), (index, 5));
        assert_eq!(u32_at(&file, 56) as usize, membership.len());
        assert_eq!(file[96..header], membership);
        let mut at = header;
        for (part, number) in parts.iter().zip(0..) {
            let end = at + 16 + part.len();
            let checksum = crc32c::crc32c_append(seed, &file[at + 4..end]);
            assert_eq!(u32_at(&file, at), checksum);
            assert_eq!(u32_at(&file, at + 4) as usize, part.len());
            assert_eq!(u64_at(&file, at + 8), number);
            assert_eq!(file[at + 16..end], part[..]);
            at = end;
        }
        let footer = &file[at..];
        assert_eq!(footer.len(), 40);
        assert_eq!(u32_at(footer, 0), crc32c::crc32c_append(seed, &footer[4..]));
        assert_eq!(u32_at(footer, 4), u32::MAX);
        assert_eq!(u64_at(footer, 8), parts.len() as u64);
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        assert_eq!(u64_at(footer, 16), bytes as u64);
        let hash = u128::from_le_bytes(footer[24..].try_into().unwrap());
        assert_eq!(hash, descriptor.hash.0);
        // What was announced is what came, or nothing was.
        let announced: &[u8] = if index == 32 { &footer[8..] } else { &[0; 32] };
        assert_eq!(&file[64..96], announced);
        assert_eq!(u32_at(&file, 60), u32::from(index == 32));
    }
}
