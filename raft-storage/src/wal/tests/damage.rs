//! Goal: whatever happens to the bytes of a log, it is refused, or what is read is what was
//! written. A tail is cut only where nothing says that it had been synced.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use raft_core::{AppendBatch, ClusterId, Incarnation, LogId, LogStore, NodeId, StorageError, Term};

use super::super::segment::{HEADER_BYTES, file_name};
use super::super::{TailCut, WalLogStore};
use super::{
    Image, Model, OWNER, batch, contents, entries, hard_state, make, open, options, read_dir,
    runtime, scratch_dir, vote, write_dir, write_log,
};
use crate::batch_thread::Change;
use crate::owner::WalOwner;

/// Two segments; the last change is one that nothing vouches for yet.
fn sample_changes() -> Vec<Change> {
    vec![
        vote(1, 4),
        entries(1, 1, &[27, 724, 64]),
        Change::Append(AppendBatch {
            truncate_from: Some(3.into()),
            ..batch(2, 3, &[1_024, 1_324])
        }),
        vote(3, 2),
        entries(3, 5, &[524]),
        entries(3, 6, &[33, 84]),
    ]
}

/// The second and the third segment of three; the first one is gone.
fn compacted_changes() -> Vec<Change> {
    let id = |term, index: u64| LogId::new(Term(term), index.into());
    vec![
        vote(1, 4),
        entries(1, 1, &[27, 824, 1_324]),
        entries(1, 4, &[1_724, 64, 74]),
        Change::Compact(id(1, 4)),
        Change::Append(AppendBatch {
            truncate_from: Some(6.into()),
            ..batch(2, 6, &[1_024, 1_524])
        }),
        Change::Compact(id(1, 5)),
        vote(3, 2),
        entries(3, 8, &[33, 84]),
    ]
}

/// One segment left of three, and no entry of before.
fn reset_changes() -> Vec<Change> {
    vec![
        entries(1, 1, &[1_324, 1_324, 724]),
        vote(2, 4),
        entries(2, 4, &[1_224, 1_324, 1_324]),
        Change::Reset(LogId::new(Term(2), 40.into())),
        entries(2, 41, &[54]),
        entries(2, 42, &[33, 84]),
    ]
}

struct Sample {
    changes: Vec<Change>,
    image: Image,
    /// Of the segments that are there.
    names: Vec<PathBuf>,
    model: Model,
    /// Before the last change.
    before: Model,
    /// What was written of the last change, in the last file.
    last_batch: Range<usize>,
}

impl Sample {
    fn of(changes: Vec<Change>) -> Self {
        runtime().block_on(async {
            let (last, others) = changes.split_last().unwrap();
            let dir = scratch_dir();
            let before = write_log(dir.path(), others).await;
            let last_name = names(&read_dir(dir.path())).pop().unwrap();
            let start = end_of_data(&fs::read(dir.path().join(&last_name)).unwrap());
            let (mut store, _) = open(dir.path()).unwrap();
            make(&mut store, last).await.unwrap();
            drop(store);
            let mut model = before.clone();
            model.apply(last);
            let image = read_dir(dir.path());
            let end = end_of_data(&image[&last_name]);
            Self {
                names: names(&image),
                changes,
                image,
                model,
                before,
                last_batch: start..end,
            }
        })
    }

    fn last_name(&self) -> &Path {
        self.names.last().expect("a log has a segment")
    }
}

fn sample() -> Sample {
    let sample = Sample::of(sample_changes());
    assert_eq!(sample.names, segment_names(1..=2));
    sample
}

fn samples() -> [Sample; 3] {
    let compacted = Sample::of(compacted_changes());
    assert_eq!(compacted.names, segment_names(2..=3));
    let reset = Sample::of(reset_changes());
    assert_eq!(reset.names, segment_names(3..=3));
    [sample(), compacted, reset]
}

fn names(image: &Image) -> Vec<PathBuf> {
    let is_segment = |name: &&PathBuf| name.extension().is_some_and(|e| e == "wal");
    image.keys().filter(is_segment).cloned().collect()
}

fn segment_names(sequences: std::ops::RangeInclusive<u64>) -> Vec<PathBuf> {
    sequences
        .map(|sequence| file_name(sequence).into())
        .collect()
}

/// Where the zeros at the end of a file begin.
fn end_of_data(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| (last + 1).next_multiple_of(8))
}

/// Opens an image: its contents and whether something was cut.
fn recover(image: &Image) -> Result<(Model, Option<TailCut>), StorageError> {
    let dir = write_dir(image);
    let (mut store, report) = open(dir.path())?;
    let model = runtime().block_on(contents(&mut store))?;
    Ok((model, report.cut))
}

fn is_refusal(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Damaged { .. } | StorageError::Foreign { .. }
    )
}

/// The two segments of [`sample`].
fn two_names() -> [PathBuf; 2] {
    [1, 2].map(|sequence| file_name(sequence).into())
}

/// Whether a byte is one that nothing reads: zeros behind the data, or padding behind an entry.
fn is_unread(sample: &Sample, name: &Path, position: usize) -> bool {
    let bytes = &sample.image[name];
    if position >= end_of_data(bytes) {
        return true;
    }
    let mut at = HEADER_BYTES;
    while at + 48 <= bytes.len() && bytes[at + 12] != 0 {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let end = (at + 48 + length).next_multiple_of(8);
        if matches!(bytes[at + 12], 1 | 8) {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let count = word(at + 48) as usize;
            let mut body = at + 56 + 8 * count;
            for head in 0..count {
                let used = body + (word(at + 56 + 8 * head) & 0x0fff_ffff) as usize;
                body = used.next_multiple_of(8);
                if (used..body.min(end)).contains(&position) {
                    return true;
                }
            }
        }
        at = end;
    }
    false
}

#[test]
fn every_flipped_byte_is_harmless_or_noticed() {
    for sample in samples() {
        let mut cuts = 0;
        for name in &sample.names {
            let is_last = name == sample.last_name();
            for position in 0..sample.image[name].len() {
                let mut image = sample.image.clone();
                image.get_mut(name).unwrap()[position] ^= 1 << (position % 8);
                let in_last_batch = is_last && sample.last_batch.contains(&position);
                let case = format!("{} at {position}", name.display());
                match recover(&image) {
                    Err(error) => {
                        assert!(is_refusal(&error), "{case}: {error}");
                        assert!(!is_unread(&sample, name, position), "{case}: {error}");
                        assert!(!in_last_batch, "{case}: {error}");
                    }
                    Ok((model, None)) => {
                        assert!(is_unread(&sample, name, position), "{case}: not noticed");
                        assert_eq!(model, sample.model, "{case}");
                    }
                    Ok((model, Some(_))) if in_last_batch => {
                        let left = sample.before.steps(sample.changes.last().unwrap());
                        assert!(left.contains(&model), "{case}");
                        cuts += 1;
                    }
                    Ok((model, Some(_))) => {
                        assert!(is_last && position >= sample.last_batch.end, "{case}");
                        assert_eq!(model, sample.model, "{case}");
                    }
                }
            }
        }
        assert!(cuts > 100);
    }
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    for sample in samples() {
        for name in &sample.names {
            let whole = sample.image[name].len();
            for length in (0..whole).chain([whole + 1, 2 * whole]) {
                let mut image = sample.image.clone();
                image.get_mut(name).unwrap().resize(length, 0);
                let refused = recover(&image).unwrap_err();
                assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
            }
        }
    }
}

#[test]
fn the_first_record_of_a_segment_needs_no_other_witness() {
    // Behind a segment that is full another one is begun.
    let mut image = sample().image;
    let name = &two_names()[1];
    image.remove(name);
    let dir = write_dir(&image);
    drop(open(dir.path()).unwrap());
    let image = read_dir(dir.path());
    let end = HEADER_BYTES + 72 + 48;
    assert!(end_of_data(&image[name]) <= end);
    for position in HEADER_BYTES..end {
        let mut image = image.clone();
        image.get_mut(name).unwrap()[position] ^= 1;
        let refused = recover(&image).unwrap_err();
        assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
    }
}

#[test]
fn a_torn_tail_is_cut_kept_aside_and_reported_once() {
    let sample = sample();
    let [_, last] = two_names();
    for torn_from in [sample.last_batch.start + 60, sample.last_batch.end] {
        let mut image = sample.image.clone();
        let end = torn_from + 1_000;
        image.get_mut(&last).unwrap()[torn_from..end].fill(0xab);
        let dir = write_dir(&image);
        let (mut store, report) = open(dir.path()).unwrap();
        let cut = report.cut.expect("a cut is reported");
        assert_eq!(cut.path, dir.path().join(&last));
        let offset = usize::try_from(cut.offset).unwrap();
        assert!(offset <= torn_from);
        assert_eq!(cut.bytes, (end.next_multiple_of(8) - offset) as u64);
        let kept = fs::read(cut.copy.unwrap()).unwrap();
        assert_eq!(kept, image[&last][offset..end.next_multiple_of(8)]);
        let mut model = runtime().block_on(contents(&mut store)).unwrap();
        let change = entries(7, model.entries.len() as u64 + 1, &[33]);
        runtime().block_on(make(&mut store, &change)).unwrap();
        model.apply(&change);
        drop(store);
        let (again, cut) = recover(&read_dir(dir.path())).unwrap();
        assert_eq!((again, cut), (model, None));
    }
}

#[test]
fn torn_tails_that_are_kept_aside_are_bounded_in_number() {
    let sample = sample();
    let dir = write_dir(&sample.image);
    let path = dir.path().join(&two_names()[1]);
    let next = sample.model.entries.len() as u64 + 1;
    for next in next..next + 12 {
        let mut bytes = fs::read(&path).unwrap();
        let end = end_of_data(&bytes);
        bytes[end + 4] = 1;
        fs::write(&path, bytes).unwrap();
        let (mut store, report) = open(dir.path()).unwrap();
        assert!(report.cut.is_some_and(|cut| cut.copy.unwrap().exists()));
        runtime()
            .block_on(store.append(batch(8, next, &[1])))
            .unwrap();
    }
    let copies = read_dir(dir.path()).into_keys();
    let copies = copies.filter(|name| name.to_string_lossy().starts_with("torn-"));
    assert_eq!(copies.count(), 8);
}

#[test]
fn damage_in_the_middle_names_the_place_and_changes_nothing() {
    let sample = sample();
    let [first, last] = two_names();
    for (name, offset) in [(&first, HEADER_BYTES + 72), (&last, HEADER_BYTES + 120)] {
        let mut image = sample.image.clone();
        let bytes = image.get_mut(name).unwrap();
        bytes[offset + 50] ^= 1;
        // A torn tail as well: it must not be touched while the log is refused.
        let end = bytes.len();
        bytes[end - 100..].fill(3);
        let dir = write_dir(&image);
        let refused = open(dir.path()).map(|_| ()).unwrap_err();
        let StorageError::Damaged {
            path, offset: at, ..
        } = &refused
        else {
            panic!("{refused}");
        };
        assert_eq!(*path, dir.path().join(name).display().to_string());
        assert_eq!(*at, offset as u64, "{refused}");
        assert_eq!(read_dir(dir.path()), image);
    }
}

#[test]
fn another_owner_and_a_newer_version_are_refused() {
    let sample = sample();
    let dir = write_dir(&sample.image);
    let others = [
        WalOwner {
            cluster: ClusterId([1; 16]),
            ..OWNER
        },
        WalOwner {
            node: NodeId(5),
            ..OWNER
        },
        WalOwner {
            incarnation: Incarnation(78),
            ..OWNER
        },
    ];
    for owner in others {
        let refused = WalLogStore::open(dir.path(), owner, options(None)).map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Foreign { .. })),
            "{refused:?}"
        );
    }
    let mut newer = sample.image.clone();
    newer.get_mut(&two_names()[0]).unwrap()[8] = 7;
    let refused = recover(&newer).unwrap_err();
    assert!(
        matches!(&refused, StorageError::Foreign { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("version 7"), "{refused}");
    assert_eq!(read_dir(dir.path()), sample.image);
}

#[test]
fn a_missing_or_misplaced_segment_is_refused() {
    let sample = sample();
    let [first, last] = two_names();
    let mut missing = sample.image.clone();
    missing.remove(&first);
    let mut swapped = sample.image.clone();
    swapped.insert(first.clone(), sample.image[&last].clone());
    swapped.insert(last.clone(), sample.image[&first].clone());
    let mut repeated = sample.image.clone();
    repeated.insert(file_name(3).into(), sample.image[&last].clone());
    let mut misnamed = sample.image.clone();
    misnamed.insert("3.wal".into(), Vec::new());
    let mut unnumbered = sample.image.clone();
    unnumbered.insert(file_name(0).into(), sample.image[&first].clone());
    let mut highest = Image::new();
    highest.insert(file_name(u64::MAX).into(), sample.image[&last].clone());
    for image in [missing, swapped, repeated, misnamed, unnumbered, highest] {
        let refused = recover(&image).unwrap_err();
        assert!(is_refusal(&refused), "{refused}");
    }
}

#[test]
fn records_of_another_life_of_a_segment_are_not_records() {
    // The same batches in two directories differ in nothing but their salts.
    let (one, other) = (sample(), sample());
    let [first, last] = two_names();
    let mut image = one.image.clone();
    image.insert(first.clone(), other.image[&first].clone());
    assert!(is_refusal(&recover(&image).unwrap_err()), "not chained");

    let stale = other.image[&last][one.last_batch.clone()].to_vec();
    for (from, stale) in [
        (one.last_batch.start, stale.clone()),
        (one.last_batch.end, stale),
        (
            one.last_batch.end,
            one.image[&first][HEADER_BYTES..HEADER_BYTES + 400].to_vec(),
        ),
    ] {
        let mut image = one.image.clone();
        let bytes = image.get_mut(&last).unwrap();
        bytes[from..from + stale.len()].copy_from_slice(&stale);
        let (model, cut) = recover(&image).unwrap();
        assert!(cut.is_some_and(|cut| cut.offset == from as u64));
        assert_eq!(
            model.entries.len(),
            if from == one.last_batch.end { 7 } else { 5 }
        );
    }
}

#[test]
fn rot_after_opening_is_noticed_by_the_reader() {
    let sample = sample();
    let dir = write_dir(&sample.image);
    let (mut store, _) = open(dir.path()).unwrap();
    assert!(runtime().block_on(contents(&mut store)).is_ok());
    let path = dir.path().join(&two_names()[0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER_BYTES + 2_000] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    let refused = runtime().block_on(contents(&mut store)).unwrap_err();
    assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
}

#[test]
fn an_end_inside_a_batch_is_reported() {
    let mut changes = sample_changes();
    changes.push(Change::Append(AppendBatch {
        hard_state: Some(hard_state(4, 1)),
        ..batch(4, 8, &[9])
    }));
    let sample = Sample::of(changes);
    let mut image = sample.image.clone();
    // The entry behind the vote, in the last batch, never reached the disk.
    let second = sample.last_batch.start + 48 + 24;
    image.get_mut(sample.last_name()).unwrap()[second..].fill(0);
    let dir = write_dir(&image);
    let (_, report) = open(dir.path()).unwrap();
    assert!(report.unfinished_batch && report.cut.is_none());
    let (_, report) = open(write_dir(&sample.image).path()).unwrap();
    assert!(!report.unfinished_batch);
}

#[test]
fn the_report_counts_what_is_there() {
    let sample = sample();
    let dir = write_dir(&sample.image);
    let (store, report) = open(dir.path()).unwrap();
    let data: usize = sample.image.values().map(|bytes| end_of_data(bytes)).sum();
    assert_eq!((report.segments, report.bytes), (2, data as u64));
    // 8 entries in 4 batches, of which one was truncated, 1 truncation, 2 votes, 1 seal, and what
    // the second segment begins with.
    assert_eq!(report.records, 10);
    let files: usize = sample.image.values().map(Vec::len).sum();
    assert_eq!(store.reader().usage().disk_bytes, files as u64);
}

/// Every state that the sample log went through.
fn past_states() -> Vec<Model> {
    let mut model = Model::default();
    let mut states = Vec::new();
    for change in sample_changes() {
        states.extend(model.steps(&change));
        model.apply(&change);
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_files_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..12_000),
        keep in 0_usize..4_300,
    ) {
        let sample = sample();
        let [first, _] = two_names();
        // The front of a good file, then anything, with the good length and with another.
        let mut file = sample.image[&first][..keep].to_vec();
        file.extend_from_slice(&bytes);
        for length in [file.len(), sample.image[&first].len()] {
            file.resize(length, 0);
            let image = Image::from([(first.clone(), file.clone())]);
            if let Err(error) = recover(&image) {
                prop_assert!(is_refusal(&error), "{error}");
            }
        }
    }

    #[test]
    fn spliced_logs_are_refused_unless_the_splice_reaches_the_last_batch(
        from in 0_usize..8_192, to in 0_usize..8_192, length in 1_usize..600, last in any::<bool>(),
    ) {
        let sample = sample();
        let name = two_names()[usize::from(last)].clone();
        let mut image = sample.image.clone();
        let bytes = image.get_mut(&name).unwrap();
        let length = length.min(8_192 - from).min(8_192 - to);
        bytes.copy_within(from..from + length, to);
        let touches_last = last
            && to < sample.last_batch.end
            && to + length > sample.last_batch.start;
        match recover(&image) {
            Err(error) => prop_assert!(is_refusal(&error), "{error}"),
            Ok((model, _)) if touches_last => {
                // All witnesses may be gone: what is left is still some state of the past.
                prop_assert!(past_states().contains(&model));
            }
            Ok((model, _)) => prop_assert_eq!(model, sample.model),
        }
    }
}
