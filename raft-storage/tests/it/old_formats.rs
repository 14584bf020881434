//! Goal: a log of an older version is judged as one of this version is, damaged or torn, and goes
//! on in this one's format wherever the older one ended.
//!
//! Method: the golden logs of two groups, as versions 3 to 6 wrote them, on a simulated disk.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use raft_core::{
    AppendBatch, Entry, EntryKind, GroupId, Index, LogId, LogStore, StorageError, Term,
};
use raft_storage::sim_disk::{Image, SimDisk};
use raft_storage::{RecoveryReport, WalEngine, WalOptions};

use crate::conformance::OWNER;
use crate::golden::{golden_dir, records_by_the_table};

const LOG_DIR: &str = "/node/log";
const VERSIONS: [u32; 4] = [3, 4, 5, 6];
/// The group with few entries and the one with many.
const GROUPS: [GroupId; 2] = [GroupId(7), GroupId(0)];
/// The version in the header page: a higher one is of a newer program.
const VERSION_BYTES: std::ops::Range<usize> = 8..12;
/// The newest segment of these logs.
const NEWEST: u64 = 10;

fn segment_path(sequence: u64) -> PathBuf {
    Path::new(LOG_DIR).join(format!("{sequence:020}.wal"))
}

fn golden(version: u32) -> Image {
    let dir = golden_dir(&format!("v{version}/groups"));
    let mut image = Image::with_dir(Path::new(LOG_DIR));
    for sequence in 8..=NEWEST {
        let path = segment_path(sequence);
        let bytes = fs::read(dir.join(path.file_name().unwrap())).unwrap();
        image.files.insert(path, bytes);
    }
    image
}

fn open(disk: &SimDisk, repair: bool) -> Result<(WalEngine, RecoveryReport), StorageError> {
    let options = WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        disk: disk.disk(),
        repair,
        ..WalOptions::default()
    };
    WalEngine::open(Path::new(LOG_DIR), OWNER, options)
}

/// All entries of a group; `None` where they are to be filled in again.
async fn entries(engine: &WalEngine, group: GroupId) -> Result<Option<Vec<Entry>>, StorageError> {
    let mut store = engine.group(group)?;
    let loaded = store.load().await?;
    if loaded.refill_to.is_some() {
        return Ok(None);
    }
    let all = loaded.start.index.next()..loaded.last.index.next();
    store.reader().read(all, usize::MAX).await.map(Some)
}

/// The entries of both groups, of those that are not to be filled in again.
async fn contents(engine: &WalEngine) -> Result<Vec<Option<Vec<Entry>>>, StorageError> {
    let mut found = Vec::new();
    for group in GROUPS {
        found.push(entries(engine, group).await?);
    }
    Ok(found)
}

async fn whole(version: u32) -> Vec<Option<Vec<Entry>>> {
    let (engine, report) = open(&SimDisk::new(&golden(version)), false).unwrap();
    assert_eq!(report.cut, None);
    let found = contents(&engine).await.unwrap();
    let counts = found.iter().map(|entries| entries.as_ref().map(Vec::len));
    assert_eq!(counts.collect::<Vec<_>>(), [Some(2), Some(3)]);
    found
}

fn entry(term: u64, index: u64) -> Entry {
    let id = LogId::new(Term(term), Index(index));
    Entry::new(id, EntryKind::Command, Bytes::from_static(b"new"))
}

#[tokio::test]
async fn a_byte_of_an_old_log_that_flips_leaves_it_whole_refilling_or_refused() {
    for version in VERSIONS {
        let image = golden(version);
        let expected = whole(version).await;
        let (mut kept, mut refilling, mut refused) = (0, 0, 0);
        for (path, bytes) in &image.files {
            // The zeros of the header page are covered by one sum.
            for position in (0..96).chain((4_096..bytes.len()).step_by(3)) {
                let case = format!("version {version}, {} at {position}", path.display());
                for repair in [false, true] {
                    let disk = SimDisk::new(&image);
                    disk.rot(path, position, 1 << (position % 8)).unwrap();
                    let found = match open(&disk, repair) {
                        Ok((engine, _)) => contents(&engine).await,
                        Err(error) => Err(error),
                    };
                    match found {
                        Ok(found) => {
                            for (found, expected) in found.iter().zip(&expected) {
                                let Some(found) = found else {
                                    assert!(repair, "{case}");
                                    refilling += 1;
                                    continue;
                                };
                                assert_eq!(Some(found), expected.as_ref(), "{case}");
                                kept += 1;
                            }
                        }
                        Err(StorageError::Foreign { .. }) if VERSION_BYTES.contains(&position) => {}
                        Err(error) => {
                            let is_damage = matches!(
                                error,
                                StorageError::Damaged { .. } | StorageError::LostPromises { .. }
                            );
                            assert!(is_damage, "{case}: {error}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        println!("version {version}: {kept} whole, {refilling} refilling, {refused} refused");
        assert!(kept > 0 && refilling > 0 && refused > 0);
    }
}

#[tokio::test]
async fn a_torn_end_of_an_old_log_is_cut_and_the_log_goes_on() {
    for version in VERSIONS {
        let expected = whole(version).await;
        let mut image = golden(version);
        // The witness at its end came in part.
        let newest = image.files.get_mut(&segment_path(NEWEST)).unwrap();
        let (.., end, _) = *records_by_the_table(newest).last().unwrap();
        newest[end + 20..end + 48].fill(0);
        let disk = SimDisk::new(&image);
        let (engine, report) = open(&disk, false).unwrap();
        assert_eq!(
            report.cut.map(|cut| cut.offset),
            Some(end as u64),
            "version {version}"
        );
        assert_eq!(contents(&engine).await.unwrap(), expected);
        let mut store = engine.group(GroupId(0)).unwrap();
        let batch = AppendBatch {
            entries: vec![entry(4, 16)],
            ..AppendBatch::default()
        };
        store.append(batch).await.unwrap();
        drop((store, engine));
        let (engine, report) = open(&disk.restart(), false).unwrap();
        assert_eq!(report.cut, None);
        let mut all = expected[1].clone().unwrap();
        all.push(entry(4, 16));
        assert_eq!(entries(&engine, GroupId(0)).await.unwrap(), Some(all));
    }
}

#[tokio::test]
async fn an_old_record_is_cut_in_its_middle_and_the_log_goes_on_in_a_new_one() {
    for version in VERSIONS {
        let disk = SimDisk::new(&golden(version));
        let old = whole(version).await.remove(0).unwrap();
        let (engine, _) = open(&disk, false).unwrap();
        let mut store = engine.group(GroupId(7)).unwrap();
        let batch = AppendBatch {
            truncate_from: Some(Index(2)),
            entries: vec![entry(3, 2), entry(3, 3)],
            ..AppendBatch::default()
        };
        store.append(batch).await.unwrap();
        let expected = vec![old[0].clone(), entry(3, 2), entry(3, 3)];
        let read = store.reader().read(Index(1)..Index(4), usize::MAX).await;
        assert_eq!(read.as_ref(), Ok(&expected), "version {version}");
        drop((store, engine));
        let (engine, report) = open(&disk.restart(), false).unwrap();
        assert_eq!(report.cut, None);
        let found = entries(&engine, GroupId(7)).await.unwrap();
        assert_eq!(found, Some(expected), "version {version}");
    }
}
