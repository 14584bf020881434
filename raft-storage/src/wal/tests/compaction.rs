//! Goal: segments go when nothing in them is needed, and only then; what is missing for another
//! reason is noticed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use raft_core::{AppendBatch, Index, LogId, LogStore, StorageError, Term};

use super::super::WalLogStore;
use super::super::segment::{file_name, sequence_of};
use super::{
    Image, Model, OWNER, Probe, batch, contents, entries, make, open, options, read_dir, runtime,
    scratch_dir, vote, write_dir,
};
use crate::batch_thread::Change;
use crate::files::probe::Event;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn segment_name(sequence: u64) -> PathBuf {
    file_name(sequence).into()
}

fn sequences(image: &Image) -> Vec<u64> {
    let names = image.keys().map(|name| name.to_string_lossy());
    names.filter_map(|name| sequence_of(&name)).collect()
}

/// Two entries per segment.
async fn fill(store: &mut WalLogStore, first: u64, count: u64) {
    for index in first..first + count {
        store.append(batch(1, index, &[1_500])).await.unwrap();
    }
}

#[test]
fn segments_go_with_their_last_entry() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let (mut store, _) = open(dir.path()).unwrap();
        make(&mut store, &vote(1, 3)).await.unwrap();
        fill(&mut store, 1, 10).await;
        assert_eq!(sequences(&read_dir(dir.path())), [1, 2, 3, 4, 5]);
        for (to, left) in [
            (1, vec![1, 2, 3, 4, 5]),
            (2, vec![2, 3, 4, 5]),
            (5, vec![3, 4, 5]),
            (9, vec![5]),
            (10, vec![5]),
        ] {
            store.compact(id(1, to)).await.unwrap();
            let image = read_dir(dir.path());
            assert_eq!(sequences(&image), left, "compacted to {to}");
            let spare = fs::metadata(dir.path().join("spare")).map_or(0, |spare| spare.len());
            let files: usize = image.values().map(Vec::len).sum();
            let usage = store.reader().usage();
            assert!(usage.disk_bytes - files as u64 <= spare.max(8 << 10));
            assert_eq!(usage.log_bytes, (10 - to) * 1_532);
        }
        drop(store);
        let (mut store, report) = open(dir.path()).unwrap();
        assert_eq!((report.segments, report.cut), (1, None));
        let held = contents(&mut store).await.unwrap();
        assert_eq!(held.hard_state, super::hard_state(1, 3));
        assert_eq!(held.last(), id(1, 10));
    });
}

/// Segments that are needed no more, and what is there once the log was opened.
async fn opened(image: &Image) -> Result<(Model, Vec<u64>), StorageError> {
    let dir = write_dir(image);
    let (mut store, _) = open(dir.path())?;
    let model = contents(&mut store).await?;
    Ok((model, sequences(&read_dir(dir.path()))))
}

#[test]
fn a_removal_that_was_interrupted_is_finished_at_the_next_start() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let (mut store, _) = open(dir.path()).unwrap();
        fill(&mut store, 1, 9).await;
        let before = read_dir(dir.path());
        store.compact(id(1, 6)).await.unwrap();
        let expected = contents(&mut store).await.unwrap();
        let after = read_dir(dir.path());
        assert_eq!(
            (sequences(&before).len(), sequences(&after)),
            (5, vec![4, 5])
        );
        // The marker is there, and some of the files that should be gone.
        for left in 1..=4 {
            let mut image = after.clone();
            for sequence in left..4 {
                let name = segment_name(sequence);
                image.insert(name.clone(), before[&name].clone());
            }
            assert_eq!(
                opened(&image).await.unwrap(),
                (expected.clone(), vec![4, 5])
            );
        }
    });
}

#[test]
fn a_segment_that_is_missing_without_a_marker_is_noticed() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let (mut store, _) = open(dir.path()).unwrap();
        fill(&mut store, 1, 9).await;
        let whole = read_dir(dir.path());
        store.compact(id(1, 3)).await.unwrap();
        let compacted = read_dir(dir.path());
        assert_eq!(sequences(&compacted), [2, 3, 4, 5]);
        // Without a marker no segment may be missing, with one only those below it, and no other
        // one in between.
        for (image, missing) in [(&whole, 1..=4), (&compacted, 2..=4)] {
            for end in missing.clone() {
                let mut image = image.clone();
                image.retain(|name, _| *name > segment_name(end));
                let refused = opened(&image).await.unwrap_err();
                let StorageError::Damaged { path, what, .. } = &refused else {
                    panic!("{refused}");
                };
                assert!(!path.is_empty() && what.contains("before it"), "{refused}");
            }
            for only in missing.filter(|only| *only > 2) {
                let mut image = image.clone();
                image.remove(&segment_name(only));
                let refused = opened(&image).await.unwrap_err();
                assert!(refused.to_string().contains("missing"), "{refused}");
            }
        }
    });
}

#[test]
fn an_older_copy_of_a_segment_does_not_fit() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let (mut store, _) = open(dir.path()).unwrap();
        fill(&mut store, 1, 5).await;
        let older = read_dir(dir.path());
        store.compact(id(1, 2)).await.unwrap();
        fill(&mut store, 6, 4).await;
        drop(store);
        let newer = read_dir(dir.path());
        // The third one went on after the copy was made.
        let third = segment_name(3);
        let mut image = newer.clone();
        image.insert(third.clone(), older[&third].clone());
        assert!(opened(&image).await.is_err());
        assert!(opened(&newer).await.is_ok());
    });
}

#[test]
fn a_wrong_tail_that_reaches_into_segments_that_are_gone_is_understood() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let (mut store, _) = open(dir.path()).unwrap();
        fill(&mut store, 1, 8).await;
        // The fourth segment ends with entry 9, the fifth drops 4 to 9 and goes on.
        store.append(batch(1, 9, &[650])).await.unwrap();
        let truncation = Change::Append(AppendBatch {
            truncate_from: Some(Index(4)),
            ..batch(2, 4, &[3_000])
        });
        make(&mut store, &truncation).await.unwrap();
        make(&mut store, &entries(2, 5, &[20])).await.unwrap();
        store.compact(id(1, 3)).await.unwrap();
        let expected = contents(&mut store).await.unwrap();
        let image = read_dir(dir.path());
        assert_eq!(sequences(&image), [5]);
        assert_eq!(opened(&image).await.unwrap().0, expected);
        assert_eq!((expected.start, expected.last()), (id(1, 3), id(2, 5)));
    });
}

/// Waits until the last of so many files was made and synced: a thread of its own does that.
fn wait_for_spare(probe: &Probe, files: usize) {
    let began = std::time::Instant::now();
    loop {
        let trace = probe.trace();
        let made = trace.iter().filter(|e| matches!(e, Event::Create(..)));
        if made.count() == files && matches!(trace.last(), Some(Event::Sync(_))) {
            return;
        }
        assert!(began.elapsed().as_secs() < 20, "a spare is being made");
        std::thread::yield_now();
    }
}

#[test]
fn a_failure_to_remove_a_segment_is_final_and_harmless() {
    runtime().block_on(async {
        let dir = scratch_dir();
        let probe = Arc::new(Probe::of(&Image::new()));
        let (mut store, _) = WalLogStore::open(dir.path(), OWNER, options(Some(&probe))).unwrap();
        fill(&mut store, 1, 5).await;
        wait_for_spare(&probe, 4);
        // A write, a sync, and then the first segment gets another name.
        probe.fail_after(2, std::io::ErrorKind::PermissionDenied);
        let failed = store.compact(id(1, 4)).await.unwrap_err();
        let failed = failed.to_string();
        // A disk that is nearly full keeps no old segments.
        assert!(
            failed.contains("rename") || failed.contains("remove"),
            "{failed}"
        );
        assert!(matches!(
            store.append(batch(1, 6, &[1])).await,
            Err(StorageError::Poisoned(_))
        ));
        drop(store);
        let (mut store, _) = open(dir.path()).unwrap();
        let held = contents(&mut store).await.unwrap();
        assert_eq!((held.start, held.entries.len()), (id(1, 4), 1));
    });
}
