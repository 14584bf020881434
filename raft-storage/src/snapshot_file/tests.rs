//! Goal: no byte of a snapshot file can change or be missing without being noticed, and what is
//! noticed names file, offset and what is wrong there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{
    ClusterId, Incarnation, Index, LogId, Member, MemberRole, Membership, NodeId,
    SnapshotDescriptor, SnapshotMeta, StorageError, Term,
};
use tempfile::TempDir;

use super::{SnapshotFileReader, SnapshotFileWriter, SnapshotHasher, SnapshotOrigin, verify};
use crate::files::Disk;
use crate::files::probe::memory_dir;

const ORIGIN: SnapshotOrigin = SnapshotOrigin {
    cluster: ClusterId([6; 16]),
    node: NodeId(3),
};
const PARTS: [&[u8]; 4] = [b"first", b"", &[0; 300], b"the last one"];

fn meta() -> SnapshotMeta {
    let member = Member {
        incarnation: Incarnation(12),
        address: "host:7400".to_owned(),
        role: MemberRole::Voter,
    };
    SnapshotMeta {
        last: LogId::new(Term(4), Index(77)),
        membership: Membership::new(BTreeMap::from([(NodeId(3), member)])).unwrap(),
    }
}

fn descriptor() -> SnapshotDescriptor {
    let mut hasher = SnapshotHasher::new();
    PARTS.iter().for_each(|part| hasher.add(part));
    hasher.descriptor(meta())
}

/// A snapshot of the node's own, and one that was received.
fn samples() -> [(TempDir, PathBuf); 2] {
    [false, true].map(|is_received| {
        let dir = memory_dir();
        let path = dir.path().join("sample");
        let mut writer = if is_received {
            let partial = dir.path().join("partial");
            let announced = descriptor();
            SnapshotFileWriter::resume_in(&Disk::default(), &partial, &path, ORIGIN, &announced)
        } else {
            SnapshotFileWriter::create(&path, ORIGIN, meta())
        }
        .unwrap();
        for part in PARTS {
            writer.write_part(part).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), descriptor());
        (dir, path)
    })
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name());
    let mut names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_read_and_verified() {
    for (dir, path) in samples() {
        assert_eq!(names(dir.path()), ["sample"]);
        assert_eq!(verify(&path).unwrap(), (descriptor(), ORIGIN));
        let mut reader = SnapshotFileReader::open(&path).unwrap();
        for part in PARTS {
            assert_eq!(reader.next_part().unwrap().as_deref(), Some(part));
        }
        assert_eq!(reader.next_part().unwrap(), None);
        for from in [2, 0, 4, 3] {
            reader.seek(from as u64).unwrap();
            for part in &PARTS[from..] {
                assert_eq!(reader.next_part().unwrap().as_deref(), Some(*part));
            }
            assert_eq!(reader.next_part().unwrap(), None);
        }
        assert!(reader.seek(5).is_err());
    }
}

#[test]
fn an_unfinished_file_has_another_name_and_goes_when_it_is_dropped() {
    let dir = memory_dir();
    let path = dir.path().join("save");
    let mut writer = SnapshotFileWriter::create(&path, ORIGIN, meta()).unwrap();
    writer.write_part(b"part").unwrap();
    assert_eq!(names(dir.path()), ["save.tmp"]);
    drop(writer);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn nothing_is_tried_again_after_a_failure() {
    let dir = memory_dir();
    let path = dir.path().join("save");
    let mut writer = SnapshotFileWriter::create(&path, ORIGIN, meta()).unwrap();
    let large = vec![1; SNAPSHOT_PART_BYTES_MAX + 1];
    let refused = writer.write_part(&large).unwrap_err();
    assert!(refused.to_string().contains("4194305 bytes"), "{refused}");
    for refused in [writer.write_part(b"part"), writer.finish().map(|_| ())] {
        assert!(
            matches!(refused, Err(StorageError::Poisoned(_))),
            "{refused:?}"
        );
    }
    assert!(names(dir.path()).is_empty());
}

/// A refusal that says where and what.
fn assert_told(path: &Path, refused: &StorageError, case: &str) {
    let text = refused.to_string();
    assert!(text.contains(&path.display().to_string()), "{case}: {text}");
    match refused {
        StorageError::Damaged { what, .. } => assert!(!what.is_empty(), "{case}"),
        StorageError::Foreign { what, .. } => assert!(what.contains("version"), "{case}: {text}"),
        other => panic!("{case}: {other}"),
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    for (_dir, path) in samples() {
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1 << (position % 8);
            fs::write(&path, bad).unwrap();
            let case = format!("byte {position}");
            let refused = verify(&path).expect_err(&case);
            assert_told(&path, &refused, &case);
            let is_version = (8..12).contains(&position);
            let is_foreign = matches!(refused, StorageError::Foreign { .. });
            assert!(is_version || !is_foreign, "{case}: {refused}");
        }
        fs::write(&path, good).unwrap();
        verify(&path).unwrap();
    }
}

#[test]
fn every_truncation_and_every_tail_is_noticed() {
    for (_dir, path) in samples() {
        let good = fs::read(&path).unwrap();
        for length in (0..good.len()).chain([good.len() + 1, 2 * good.len()]) {
            let mut bad = good.clone();
            bad.resize(length, 0);
            fs::write(&path, bad).unwrap();
            let case = format!("{length} bytes");
            let refused = verify(&path).expect_err(&case);
            assert_told(&path, &refused, &case);
        }
        // A footer behind the footer, and parts that were left out.
        let footer = good.len() - 40;
        let header = 96 + meta().membership.encode().len();
        for bad in [
            [&good[..], &good[footer..]].concat(),
            [&good[..header], &good[footer..]].concat(),
            [&good[..footer - 28], &good[footer..]].concat(),
        ] {
            fs::write(&path, bad).unwrap();
            assert_told(&path, &verify(&path).unwrap_err(), "splice");
        }
    }
}

#[test]
fn the_damaged_part_is_named_by_its_place() {
    let [(_dir, path), _] = samples();
    let good = fs::read(&path).unwrap();
    let header = 96 + meta().membership.encode().len();
    // Into the third part: two frames, the first with five bytes.
    let offset = header + 16 + 5 + 16;
    let mut bad = good.clone();
    bad[offset + 16 + 100] ^= 1;
    fs::write(&path, bad).unwrap();
    let mut reader = SnapshotFileReader::open(&path).unwrap();
    reader.next_part().unwrap();
    reader.next_part().unwrap();
    let refused = reader.next_part().unwrap_err();
    let StorageError::Damaged {
        offset: at, what, ..
    } = &refused
    else {
        panic!("{refused}");
    };
    assert_eq!(
        (*at, what.as_str()),
        (offset as u64, "part 2 does not match its checksum")
    );
    // It is not passed by.
    assert_eq!(reader.next_part().unwrap_err(), refused);
}

#[test]
fn parts_of_another_snapshot_do_not_fit() {
    let [(_one_dir, one), (_other_dir, other)] = samples();
    // The same parts, but one header says what was announced.
    let (mut bytes, other) = (fs::read(&one).unwrap(), fs::read(&other).unwrap());
    let header = 96 + meta().membership.encode().len();
    bytes[header..header + 21].copy_from_slice(&other[header..header + 21]);
    fs::write(&one, bytes).unwrap();
    assert!(verify(&one).unwrap_err().to_string().contains("part 0"));
}

#[test]
fn a_transfer_goes_on_behind_its_last_whole_part() {
    let dir = memory_dir();
    let (partial, path) = (dir.path().join("partial"), dir.path().join("done"));
    let resume = || {
        SnapshotFileWriter::resume_in(&Disk::default(), &partial, &path, ORIGIN, &descriptor())
            .unwrap()
    };
    let mut writer = resume();
    for part in &PARTS[..3] {
        writer.write_part(part).unwrap();
    }
    drop(writer);
    let good = fs::read(&partial).unwrap();
    let header = 96 + meta().membership.encode().len();
    let ends = [header, header + 21, header + 37, good.len()];
    for length in 0..=good.len() {
        for garbage in [0, 40, 400] {
            let mut torn = good[..length].to_vec();
            torn.resize(length + garbage, 0xee);
            fs::write(&partial, &torn).unwrap();
            let mut writer = resume();
            let whole = ends.iter().filter(|end| **end <= length).count();
            let parts = whole.saturating_sub(1);
            assert_eq!(writer.parts(), parts as u64, "{length} bytes");
            for part in &PARTS[parts..] {
                writer.write_part(part).unwrap();
            }
            assert_eq!(writer.finish().unwrap(), descriptor());
            assert_eq!(verify(&path).unwrap().0, descriptor());
        }
    }
    // A flip anywhere costs what is behind it, and nothing else.
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x20;
        fs::write(&partial, &bad).unwrap();
        let mut writer = resume();
        let parts = usize::try_from(writer.parts()).unwrap();
        let whole = ends.iter().filter(|end| **end <= position).count();
        assert_eq!(parts, whole.saturating_sub(1), "byte {position}");
        for part in &PARTS[parts..] {
            writer.write_part(part).unwrap();
        }
        writer.finish().unwrap();
        verify(&path).unwrap();
    }
}

#[test]
fn a_newer_version_is_not_called_damaged() {
    let [(_dir, path), _] = samples();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, bytes).unwrap();
    let refused = verify(&path).unwrap_err();
    assert!(matches!(refused, StorageError::Foreign { .. }), "{refused}");
    assert!(refused.to_string().contains("version 2"), "{refused}");
}
