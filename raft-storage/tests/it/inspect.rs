//! Goal: what is said of a stopped node's disk is what opening it finds, of every version of the
//! formats, and nothing is changed by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use raft_core::{LogId, LogStore};
use raft_storage::inspect::{FileKind, Finding, FindingKind, inspect_snapshots, inspect_wal};
use raft_storage::{WalLogStore, WalOptions, WalOwner};

use crate::conformance::{OWNER, ScratchDir, scratch_dir};

/// A copy of golden files.
fn copy(name: &str) -> ScratchDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = scratch_dir();
    fs::create_dir_all(dir.path()).unwrap();
    for file in fs::read_dir(from.join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// What `look` makes of a directory, which it must leave as it is.
fn unchanged<T>(dir: &Path, look: impl FnOnce(&Path) -> T) -> T {
    let before = contents(dir);
    let seen = look(dir);
    assert_eq!(contents(dir), before, "nothing was changed");
    seen
}

fn kinds(findings: &[Finding]) -> Vec<FindingKind> {
    findings.iter().map(|finding| finding.kind).collect()
}

#[tokio::test]
async fn logs_of_every_version_are_read_as_they_are_opened() {
    for (name, version) in [("v1", 1), ("v2/compacted", 2), ("v2/reset", 2)] {
        let dir = copy(name);
        let seen = unchanged(dir.path(), |dir| {
            inspect_wal(dir, &OWNER, LogId::ZERO).unwrap()
        });
        assert_eq!(seen.findings, [], "{name}");
        let segments: Vec<_> = seen
            .files
            .iter()
            .filter_map(|file| match &file.kind {
                FileKind::Segment(segment) => Some(segment),
                _ => None,
            })
            .collect();
        assert!(
            segments.iter().all(|segment| segment.version == version),
            "{name}"
        );
        let records: u64 = segments.iter().map(|segment| segment.records).sum();
        assert_eq!(records, seen.records, "{name}");

        let (mut store, _) = WalLogStore::open(dir.path(), OWNER, WalOptions::default()).unwrap();
        let loaded = store.load().await.unwrap();
        assert_eq!(seen.hard_state, Some(loaded.hard_state), "{name}");
        assert_eq!(
            (seen.start, seen.last),
            (loaded.start, loaded.last),
            "{name}"
        );
        assert_eq!(seen.entry_bytes, loaded.bytes, "{name}");
        assert_eq!(
            seen.membership.as_ref(),
            loaded.memberships.last(),
            "{name}"
        );
    }
}

#[test]
fn a_flip_of_any_byte_of_a_sealed_segment_is_told() {
    let dir = copy("v1");
    let path = dir.path().join("00000000000000000001.wal");
    let good = fs::read(&path).unwrap();
    let seen = inspect_wal(dir.path(), &OWNER, LogId::ZERO).unwrap();
    let used = seen.files.iter().find_map(|file| match &file.kind {
        FileKind::Segment(segment) if segment.is_sealed => Some(segment.used_bytes),
        _ => None,
    });
    let used = usize::try_from(used.expect("the first one is sealed")).unwrap();
    for at in (0..4096).step_by(97).chain(4096..used) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        fs::write(&path, &bad).unwrap();
        let findings = inspect_wal(dir.path(), &OWNER, LogId::ZERO)
            .unwrap()
            .findings;
        let is_padding = bad[at] == 0x20 && findings.is_empty();
        assert!(
            is_padding
                || findings
                    .iter()
                    .any(|it| it.path == path && !it.kind.is_harmless()),
            "byte {at}: {findings:?}"
        );
    }
}

#[test]
fn another_owner_is_foreign_and_not_damage() {
    let dir = copy("v2/compacted");
    let other = WalOwner {
        node: raft_core::NodeId(OWNER.node.0 + 1),
        ..OWNER
    };
    let seen = unchanged(dir.path(), |dir| {
        inspect_wal(dir, &other, LogId::ZERO).unwrap()
    });
    assert!(!seen.findings.is_empty());
    assert!(
        kinds(&seen.findings)
            .iter()
            .all(|kind| *kind == FindingKind::Foreign)
    );
}

#[test]
fn snapshots_are_read_to_their_ends() {
    let dir = copy("snapshot-v1");
    let seen = unchanged(dir.path(), |dir| inspect_snapshots(dir, &OWNER).unwrap());
    // The older one of the two goes when the directory is opened.
    assert_eq!(kinds(&seen.findings), [FindingKind::Leftover]);
    let latest = seen.latest.expect("the newest one is whole");
    assert_eq!(latest.meta.last.index.0, 32);
    let newest = seen.files.last().expect("files").path.clone();
    let good = fs::read(&newest).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        fs::write(&newest, &bad).unwrap();
        let seen = inspect_snapshots(dir.path(), &OWNER).unwrap();
        let harmful: Vec<_> = seen
            .findings
            .iter()
            .filter(|it| !it.kind.is_harmless())
            .collect();
        assert!(!harmful.is_empty() && seen.latest.is_none(), "byte {at}");
    }
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use bytes::Bytes;
    use raft_core::{AppendBatch, Entry, EntryKind, HardState, Index, NodeId, Term};
    use raft_storage::RocksLogStore;
    use raft_storage::inspect::inspect_rocks;

    use super::*;

    async fn write_log(dir: &Path) {
        let mut store = RocksLogStore::open(dir, OWNER).unwrap();
        for index in 1..=20 {
            let id = LogId::new(Term(1), Index(index));
            let batch = AppendBatch {
                hard_state: Some(HardState {
                    term: Term(1),
                    vote: Some(NodeId(2)),
                }),
                entries: vec![Entry::new(
                    id,
                    EntryKind::Command,
                    Bytes::from(vec![7; 3_000]),
                )],
                ..AppendBatch::default()
            };
            store.append(batch).await.unwrap();
        }
        store.compact(LogId::new(Term(1), Index(5))).await.unwrap();
    }

    /// Files of this ending, the largest last.
    fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = contents(dir)
            .into_iter()
            .filter(|(path, _)| path.to_string_lossy().ends_with(ending))
            .map(|(path, bytes)| (bytes.len(), path))
            .collect();
        files.sort_unstable();
        files.into_iter().map(|(_, path)| path).collect()
    }

    #[tokio::test]
    async fn a_log_in_rocksdb_is_read_and_left_as_it_is() {
        let dir = scratch_dir();
        write_log(dir.path()).await;
        // Once from RocksDB's own log, once from a table.
        for _ in 0..2 {
            let seen = unchanged(dir.path(), |dir| inspect_rocks(dir, &OWNER).unwrap());
            assert_eq!(seen.findings, []);
            assert_eq!((seen.start.index, seen.last.index), (Index(5), Index(20)));
            assert_eq!(
                seen.hard_state.and_then(|state| state.vote),
                Some(NodeId(2))
            );
            assert!(seen.records >= 15);
            drop(RocksLogStore::open(dir.path(), OWNER).unwrap());
        }
        let other = WalOwner {
            node: NodeId(OWNER.node.0 + 1),
            ..OWNER
        };
        let seen = unchanged(dir.path(), |dir| inspect_rocks(dir, &other).unwrap());
        assert_eq!(kinds(&seen.findings), [FindingKind::Foreign]);
    }

    #[tokio::test]
    async fn damage_in_a_file_of_rocksdb_is_told() {
        let dir = scratch_dir();
        write_log(dir.path()).await;
        drop(RocksLogStore::open(dir.path(), OWNER).unwrap());
        let table = files(dir.path(), ".sst").pop().expect("a table");
        let mut bytes = fs::read(&table).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(&table, bytes).unwrap();
        let seen = unchanged(dir.path(), |dir| inspect_rocks(dir, &OWNER).unwrap());
        assert_eq!(kinds(&seen.findings), [FindingKind::Log], "{seen:?}");
    }
}
