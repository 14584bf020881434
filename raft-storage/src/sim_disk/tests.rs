//! Goal: the disk of tests forgets, refuses and lies as it says, and only then.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Image, NameOrder, Random, Replay, SECTOR_BYTES, SimDisk};
use crate::files::{FileHandle, FileSystem};

const FILE: &str = "/dir/file";

fn path(name: &str) -> PathBuf {
    Path::new("/dir").join(name)
}

fn empty() -> SimDisk {
    SimDisk::recorded(&Image::with_dir(Path::new("/dir")))
}

/// A disk with one durable file of so many bytes, all ones.
fn with_file(bytes: usize) -> SimDisk {
    let mut image = Image::with_dir(Path::new("/dir"));
    image.files.insert(FILE.into(), vec![1; bytes]);
    SimDisk::recorded(&image)
}

fn read(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open_to_read(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Every disk that a cut may leave, as the bytes of one file.
fn cut(disk: &SimDisk, path: &Path) -> Vec<Option<Vec<u8>>> {
    let cuts = disk.power_cuts(NameOrder::AsMade, 1_000, &mut Random::new(1));
    assert!(cuts.exhaustive);
    let whole = cuts.images.len() - cuts.sampled;
    let mut found: Vec<_> = cuts.images[..whole]
        .iter()
        .map(|image| image.files.get(path).cloned())
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn sectors_are_kept_or_lost_one_by_one_until_a_sync() {
    let disk = with_file(3 * SECTOR_BYTES);
    let file = disk.open(Path::new(FILE)).unwrap();
    // The end of the first sector, and the front of the second.
    file.write_at(&[2; 100], SECTOR_BYTES as u64 - 50).unwrap();
    file.write_at(&[3; 10], SECTOR_BYTES as u64).unwrap();
    assert_eq!(read(&disk, Path::new(FILE))[SECTOR_BYTES], 3);
    // Two versions of one, three of the other.
    assert_eq!(cut(&disk, Path::new(FILE)).len(), 6);

    let disk = disk.restart();
    let file = disk.open(Path::new(FILE)).unwrap();
    file.sync().unwrap();
    let seen = read(&disk, Path::new(FILE));
    assert_eq!(cut(&disk, Path::new(FILE)), [Some(seen)]);
}

#[test]
fn a_new_length_is_durable_by_itself() {
    let disk = with_file(0);
    let file = disk.open(Path::new(FILE)).unwrap();
    file.write_at(&[5; 10], 0).unwrap();
    let found = cut(&disk, Path::new(FILE));
    let expected = [Some(vec![]), Some(vec![0; 10]), Some(vec![5; 10])];
    assert_eq!(found, expected);
}

#[test]
fn a_torn_sector_changes_no_byte_that_was_not_written() {
    let disk = with_file(SECTOR_BYTES);
    let file = disk.open(Path::new(FILE)).unwrap();
    file.write_at(&[2; 100], 200).unwrap();
    let cuts = disk.power_cuts(NameOrder::AsMade, 10, &mut Random::new(3));
    assert_eq!((cuts.combinations, cuts.sampled), (2, 4));
    let torn = &cuts.images[2..];
    for image in torn {
        let bytes = &image.files[Path::new(FILE)];
        assert!(bytes[..200].iter().chain(&bytes[300..]).all(|b| *b == 1));
    }
    assert!(torn.iter().any(|image| {
        let written = &image.files[Path::new(FILE)][200..300];
        written.contains(&1) && written.contains(&2)
    }));
}

#[test]
fn names_become_durable_in_their_order_or_with_a_sync_of_the_directory() {
    let disk = empty();
    let file = disk.create(&path("new")).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    disk.rename(&path("new"), &path("old")).unwrap();
    assert_eq!(cut(&disk, &path("old")), [None, Some(b"x".to_vec())]);

    let disk = disk.restart();
    let both = |order| {
        let disk = disk.restart();
        disk.create(&path("other")).unwrap();
        let cuts = disk.power_cuts(order, 100, &mut Random::new(1)).images;
        let has = |image: &Image, name| image.files.contains_key(&path(name));
        cuts.iter()
            .any(|image| has(image, "other") && !has(image, "old"))
    };
    assert!(!both(NameOrder::AsMade));

    let disk = empty();
    disk.create(&path("first")).unwrap();
    disk.create(&path("second")).unwrap();
    let cuts = disk.power_cuts(NameOrder::Any, 100, &mut Random::new(1));
    assert_eq!(cuts.combinations, 4);

    let disk = empty();
    disk.create(&path("first")).unwrap();
    disk.sync_dir(Path::new("/dir")).unwrap();
    assert_eq!(cut(&disk, &path("first")), [Some(Vec::new())]);
}

#[test]
fn a_file_without_a_name_is_read_on() {
    let disk = with_file(20);
    let file = disk.open_to_read(Path::new(FILE)).unwrap();
    disk.remove(Path::new(FILE)).unwrap();
    file.read_at(&mut [0; 20], 0).unwrap();
    assert!(disk.open(Path::new(FILE)).is_err());
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept_and_the_next_one_lies() {
    let disk = with_file(SECTOR_BYTES);
    let file = disk.open(Path::new(FILE)).unwrap();
    file.write_at(&[2; 10], 0).unwrap();
    disk.fail_sync_after(0);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(read(&disk, Path::new(FILE))[0], 2, "the cache has it");
    file.drop_cache().unwrap();
    assert_eq!(read(&disk, Path::new(FILE))[0], 1, "the disk has not");
}

#[test]
fn lost_and_misdirected_writes_are_seen_only_behind_the_cache() {
    let whole = |disk: &SimDisk, file: &dyn FileHandle| {
        file.write_at(&[2; 10], 0).unwrap();
        file.sync().unwrap();
        assert_eq!(read(disk, Path::new(FILE))[0], 2);
        file.drop_cache().unwrap();
        let bytes = read(disk, Path::new(FILE));
        (bytes[0], bytes[SECTOR_BYTES])
    };
    let disk = with_file(2 * SECTOR_BYTES);
    disk.lose_write_after(0);
    let file = disk.open(Path::new(FILE)).unwrap();
    assert_eq!(whole(&disk, &*file), (1, 1));
    disk.misdirect_write_after(0, 1);
    assert_eq!(whole(&disk, &*file), (1, 2));
    assert!(!disk.will_fail());
    assert_eq!(whole(&disk, &*file), (2, 2));
}

#[test]
fn failures_limits_and_rot_come_where_they_were_asked_for() {
    let disk = with_file(10);
    let file = disk.open(Path::new(FILE)).unwrap();
    disk.fail_after(1, ErrorKind::PermissionDenied);
    file.write_at(&[2], 0).unwrap();
    let failed = file.write_at(&[3], 0).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::PermissionDenied);
    assert_eq!(read(&disk, Path::new(FILE))[0], 2);

    disk.set_capacity(Some(16));
    let failed = file.write_at(&[4; 20], 0).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::StorageFull);
    assert_eq!(read(&disk, Path::new(FILE)), [4; 16], "as far as it fits");
    file.write_at(&[5; 16], 0).unwrap();
    disk.set_capacity(None);
    file.write_at(&[6; 20], 0).unwrap();
    disk.rot(Path::new(FILE), 3, 0x10).unwrap();
    assert_eq!(read(&disk, Path::new(FILE))[3], 6 ^ 0x10);
}

#[test]
fn syncs_wait_while_they_are_held_and_fail_when_the_power_goes() {
    let disk = with_file(10);
    let file = disk.open(Path::new(FILE)).unwrap();
    for is_cut in [false, true] {
        disk.hold_syncs(true);
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| file.sync());
            while disk.syncs_waiting() == 0 {
                std::thread::yield_now();
            }
            if is_cut {
                drop(disk.restart());
            } else {
                disk.hold_syncs(false);
            }
            assert_eq!(sync.join().unwrap().is_err(), is_cut);
        });
    }
    assert!(file.write_at(&[1], 0).is_err(), "this disk is gone");
}

#[test]
fn a_lock_is_held_once_and_free_after_a_restart() {
    let disk = empty();
    let lock = disk.lock(&path("lock")).unwrap();
    assert_eq!(
        disk.lock(&path("lock")).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(lock);
    let _held = disk.lock(&path("lock")).unwrap();
    disk.restart().lock(&path("lock")).unwrap();
}

#[test]
fn a_recording_done_again_leaves_the_same_disks() {
    let disk = empty();
    for name in ["one", "two", "three"] {
        let file = disk.create(&path(name)).unwrap();
        file.write_at(&[7; 3_000], 100).unwrap();
        file.set_length(2_000).unwrap();
        if name == "two" {
            file.sync().unwrap();
            disk.rename(&path("two"), &path("four")).unwrap();
            disk.sync_dir(Path::new("/dir")).unwrap();
        }
    }
    disk.mark(9);
    let mut replay = Replay::new(&Image::with_dir(Path::new("/dir")));
    disk.recording()
        .iter()
        .for_each(|operation| replay.advance(operation));
    assert_eq!(replay.mark(), 9);
    let once = replay
        .cuts(NameOrder::AsMade, 50, &mut Random::new(4))
        .images;
    let again = disk
        .power_cuts(NameOrder::AsMade, 50, &mut Random::new(4))
        .images;
    assert!(once.len() >= 50);
    assert_eq!(once, again);
}
