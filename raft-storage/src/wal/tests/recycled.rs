//! Goal: a file that is written again as another segment saves the zeros, and nothing that stood in
//! it before is ever taken for a part of the log.
//!
//! Method: a disk of tests, on which whatever a write does not reach stays in sight.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use raft_core::{AppendBatch, Index, LogId, LogReader, LogStore, StorageError, Term};

use super::super::room::FREE_BYTES_MIN;
use super::super::segment::file_name;
use super::super::{RecoveryReport, WalLogStore, WalOptions};
use super::{Model, OWNER, batch, contents, entries, entry, make, runtime, scratch_dir};
use crate::batch_thread::Change;
use crate::sim_disk::{Image, SimDisk};

const DIR: &str = "/node/log";
const SEGMENT_BYTES: u64 = 16 << 10;
/// Entries of 1,500 bytes that a segment holds.
const ENTRIES: u64 = 7;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: Some(0),
        witness_after: None,
        ..WalOptions::default()
    }
}

fn open(disk: &SimDisk) -> Result<(WalLogStore, RecoveryReport), StorageError> {
    let disk = disk.disk();
    WalLogStore::open(Path::new(DIR), OWNER, WalOptions { disk, ..options() })
}

fn names(disk: &SimDisk, prefix: &str) -> usize {
    let files = disk.seen().files_in(Path::new(DIR));
    let names = files.keys().map(|name| name.to_string_lossy());
    names.filter(|name| name.starts_with(prefix)).count()
}

struct Log {
    store: WalLogStore,
    model: Model,
}

impl Log {
    async fn make(&mut self, change: Change) {
        make(&mut self.store, &change).await.unwrap();
        self.model.apply(&change);
    }

    async fn fill(&mut self, count: u64) {
        for _ in 0..count {
            let next = self.model.last().index.0 + 1;
            self.make(entries(1, next, &[1_500])).await;
        }
    }

    async fn compact(&mut self, to: u64) {
        let to = LogId::new(Term(1), Index(to));
        self.make(Change::Compact(to)).await;
    }
}

/// The log is this, and nothing is cut from it.
async fn opens_as(disk: &SimDisk, model: &Model) -> WalLogStore {
    let (mut store, report) = open(disk).unwrap();
    assert_eq!(report.cut, None);
    assert_eq!(contents(&mut store).await.unwrap(), *model);
    store
}

/// A log whose newest segment was another one before, with one entry in it.
async fn recycled() -> (SimDisk, Log) {
    let disk = SimDisk::new(&Image::default());
    let (store, _) = open(&disk).unwrap();
    let model = Model::default();
    let mut log = Log { store, model };
    log.fill(3 * ENTRIES).await;
    log.compact(2 * ENTRIES).await;
    assert_eq!(names(&disk, "recycled-"), 2);
    log.fill(1).await;
    assert_eq!(names(&disk, "recycled-"), 1);
    (disk, log)
}

fn newest() -> PathBuf {
    Path::new(DIR).join(file_name(4))
}

#[test]
fn old_segments_are_written_again_instead_of_zeros() {
    runtime().block_on(async {
        let (disk, mut log) = recycled().await;
        let old = entry(1, 2 * ENTRIES, 16);
        let file = &disk.seen().files[&newest()];
        assert!(file.windows(16).any(|bytes| bytes == old.payload()));
        let disk_bytes = |log: &Log| log.store.reader().usage().disk_bytes;
        // A spare that was made before there were old ones, and both segments that count.
        let spares = names(&disk, "spare");
        let before = disk_bytes(&log);
        assert_eq!(before, (3 + spares as u64) * SEGMENT_BYTES);
        log.fill(ENTRIES).await;
        assert_eq!(
            (names(&disk, "recycled-"), names(&disk, "spare")),
            (0, spares)
        );
        assert_eq!(disk_bytes(&log), before);
        // There is none left, so the next one is a spare again.
        log.fill(ENTRIES - 1).await;
        assert_eq!(names(&disk, "spare"), 1);
        log.fill(1).await;
        assert_eq!(disk_bytes(&log), 4 * SEGMENT_BYTES);
        assert_eq!(contents(&mut log.store).await.unwrap(), log.model);
    });
}

#[test]
fn no_more_old_segments_are_kept_than_told() {
    runtime().block_on(async {
        for kept in [0, 1, 4] {
            let disk = SimDisk::new(&Image::default());
            let options = WalOptions {
                recycled_segments_max: kept,
                disk: disk.disk(),
                ..options()
            };
            let (store, _) = WalLogStore::open(Path::new(DIR), OWNER, options).unwrap();
            let model = Model::default();
            let mut log = Log { store, model };
            log.fill(7 * ENTRIES).await;
            log.compact(6 * ENTRIES).await;
            assert_eq!(names(&disk, "recycled-"), kept);
            // They count as used until the log is opened anew.
            let usage = log.store.reader().usage().disk_bytes;
            let kept = u64::try_from(kept).unwrap();
            let spares = u64::try_from(names(&disk, "spare")).unwrap();
            assert_eq!(usage, (1 + kept + spares) * SEGMENT_BYTES);
            drop(log);
            drop(open(&disk).unwrap());
            assert_eq!(names(&disk, "recycled-"), 0);
        }
    });
}

/// Others have their files on the same disk, and no write of the log may come any more.
#[test]
fn old_segments_are_given_back_when_the_disk_gets_full() {
    runtime().block_on(async {
        let (disk, mut log) = recycled().await;
        disk.set_capacity(Some(disk.used_bytes() + FREE_BYTES_MIN));
        log.fill(1).await;
        assert_eq!(names(&disk, "recycled-"), 1, "there is enough");
        disk.set_capacity(Some(disk.used_bytes() + FREE_BYTES_MIN / 2));
        let began = Instant::now();
        while names(&disk, "recycled-") > 0 {
            assert!(began.elapsed().as_secs() < 20, "they are kept");
            thread::yield_now();
        }
        // And none is kept from now on.
        log.fill(ENTRIES).await;
        log.compact(3 * ENTRIES + 2).await;
        assert_eq!(names(&disk, "recycled-"), 0);
        assert_eq!(contents(&mut log.store).await.unwrap(), log.model);
    });
}

/// A segment for one large entry is no old one, but old ones may be what its room is taken by.
#[test]
fn old_segments_make_room_for_a_longer_one() {
    runtime().block_on(async {
        let (disk, mut log) = recycled().await;
        disk.set_capacity(Some(disk.used_bytes() + SEGMENT_BYTES / 2));
        let next = log.model.last().index.0 + 1;
        let length = usize::try_from(SEGMENT_BYTES * 3 / 2).unwrap();
        log.make(entries(1, next, &[length])).await;
        assert_eq!(names(&disk, "recycled-"), 0);
        drop(log.store);
        drop(opens_as(&disk, &log.model).await);
    });
}

/// It is told where a spare is needed, and none was.
#[test]
fn a_spare_that_could_not_be_made_is_forgotten_where_an_old_segment_does() {
    runtime().block_on(async {
        let mut failed_spares = 0;
        for operations in 0.. {
            let disk = SimDisk::new(&Image::default());
            let (store, _) = open(&disk).unwrap();
            let model = Model::default();
            let mut log = Log { store, model };
            log.fill(2 * ENTRIES + 2).await;
            assert_eq!(names(&disk, "spare"), 0);
            // With the next entry the segment is half full.
            let next = log.model.last().index.0 + 1;
            let wanted = entries(1, next, &[1_500]);
            disk.fail_after(operations, ErrorKind::Other);
            if make(&mut log.store, &wanted).await.is_err() {
                continue; // It was an operation of the log itself.
            }
            if disk.will_fail() {
                break;
            }
            log.model.apply(&wanted);
            failed_spares += 1;
            log.compact(2 * ENTRIES).await;
            assert_eq!(names(&disk, "recycled-"), 2);
            log.fill(5 * ENTRIES).await;
            drop(log.store);
            drop(opens_as(&disk, &log.model).await);
        }
        assert!(failed_spares > 2, "{failed_spares}");
    });
}

#[test]
fn what_a_file_held_before_is_neither_read_nor_reported() {
    runtime().block_on(async {
        let (disk, mut log) = recycled().await;
        for _ in 0..ENTRIES - 2 {
            log.fill(1).await;
            let copy = SimDisk::new(&disk.seen());
            let store = opens_as(&copy, &log.model).await;
            // And on from there.
            let model = log.model.clone();
            let mut other = Log { store, model };
            other.fill(2).await;
            drop(other.store);
            drop(opens_as(&copy, &other.model).await);
        }
    });
}

/// The second record of a batch reached the disk, the first one did not.
#[test]
fn the_rest_of_a_torn_batch_never_becomes_a_part_of_the_log() {
    runtime().block_on(async {
        let (disk, mut log) = recycled().await;
        let before = disk.seen();
        let next = log.model.last().index.0 + 1;
        let two_terms = AppendBatch {
            entries: vec![entry(1, next, 100), entry(2, next + 1, 100)],
            ..AppendBatch::default()
        };
        log.store.append(two_terms).await.unwrap();
        let mut torn = disk.seen();
        let (old, new) = (&before.files[&newest()], &torn.files[&newest()]);
        let start = old.iter().zip(new).position(|(old, new)| old != new);
        let start = start.unwrap() / 8 * 8;
        let second = start + 48 + 16 + 104;
        let mut mixed = new.clone();
        mixed[start..second].copy_from_slice(&old[start..second]);
        torn.files.insert(newest(), mixed);

        let disk = SimDisk::new(&torn);
        let (mut store, report) = open(&disk).unwrap();
        let cut = report.cut.expect("it is told of");
        assert_eq!(cut.offset, start as u64);
        assert_eq!(contents(&mut store).await.unwrap(), log.model);
        // An entry of the same length as the one that is lost.
        let model = log.model.clone();
        let mut log = Log { store, model };
        log.make(entries(1, next, &[100])).await;
        drop(log.store);
        drop(opens_as(&disk, &log.model).await);
    });
}

/// Files are written again while somebody reads them.
#[test]
fn readers_never_take_another_life_of_a_file_for_damage() {
    let dir = scratch_dir();
    let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options()).unwrap();
    let reader: Arc<dyn LogReader> = store.reader();
    let stop = Arc::new(AtomicBool::new(false));
    let reading = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut from = 1;
            let mut found = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let range = Index(from)..Index(from + 2 * ENTRIES);
                match runtime().block_on(reader.read(range, usize::MAX)) {
                    Ok(entries) => {
                        let first = entries.first().expect("at least one");
                        assert_eq!(*first, entry(1, first.index().0, 1_500));
                        found += 1;
                    }
                    Err(StorageError::OutOfRange { first, .. }) => from = first.0,
                    Err(other) => panic!("{other}"),
                }
            }
            found
        })
    };
    runtime().block_on(async {
        for index in 1..=300 * ENTRIES {
            store.append(batch(1, index, &[1_500])).await.unwrap();
            if index % (2 * ENTRIES) == 0 {
                let to = LogId::new(Term(1), Index(index - 1));
                store.compact(to).await.unwrap();
            }
        }
    });
    stop.store(true, Ordering::Relaxed);
    assert!(reading.join().unwrap() > 0);
}
