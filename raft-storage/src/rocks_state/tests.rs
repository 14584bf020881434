//! Goal: after a crash at any moment there is one whole state, and its place in the log is that of
//! its data. Method: batches that say in the data which place they belong to; directories that are
//! copied while the store is open, which is what a killed process leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{ClusterId, Incarnation, Index, NodeId, Term};

use super::*;
use crate::conformance::copy_as_if_killed;

const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([7; 16]),
    node: NodeId(3),
    incarnation: Incarnation(9),
};

const OPTIONS: StateOptions = StateOptions {
    cache_bytes: STATE_CACHE_BYTES_MIN,
};

fn open(dir: &Path) -> Result<StateStore, StorageError> {
    StateStore::open(dir, OWNER, OPTIONS)
}

fn id(index: u64) -> LogId {
    LogId::new(Term(2), Index(index))
}

fn content(view: &StateView) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let range = view.range(b"", Bound::Unbounded, true);
    range.map(Result::unwrap).collect()
}

/// Writes batch number `index`: it says so under two keys, and in one of its own.
fn write_numbered(store: &mut StateStore, index: u64) {
    let mut batch = StateBatch::new();
    batch.put(b"first", &index.to_le_bytes());
    batch.put(
        format!("own-{index:05}").as_bytes(),
        &vec![index as u8; 2000],
    );
    if index > 3 {
        batch.delete(format!("own-{:05}", index - 3).as_bytes());
    }
    batch.put(b"zlast", &index.to_le_bytes());
    store.write(batch, id(index)).unwrap();
}

/// The number that the data says, which must be that of its place.
fn number_in(store: &StateStore) -> u64 {
    let view = store.view();
    let number = |key: &[u8]| {
        let value = view.get(key).unwrap();
        value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
    };
    let applied = store.applied().index.0;
    assert_eq!((number(b"first"), number(b"zlast")), (applied, applied));
    let own: Vec<u64> = content(view)
        .keys()
        .filter_map(|key| {
            std::str::from_utf8(key)
                .unwrap()
                .strip_prefix("own-")?
                .parse()
                .ok()
        })
        .collect();
    let expected: Vec<u64> = (applied.saturating_sub(2).max(1)..=applied).collect();
    assert_eq!(own, expected);
    applied
}

fn parts_of(image: &mut StateFiles) -> Vec<bytes::Bytes> {
    let mut parts = Vec::new();
    while let Some(part) = image.next_part().unwrap() {
        assert!(part.len() <= SNAPSHOT_PART_BYTES_MAX);
        assert_eq!(part[0], CHECKPOINT_TAG);
        parts.push(part);
    }
    parts
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_crash_leaves_data_and_mark_together_wherever_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut store = open(&path).unwrap();
    let (mut index, mut newest) = (0, 0);
    for round in 0..12 {
        for _ in 0..20 {
            index += 1;
            write_numbered(&mut store, index);
        }
        if round % 3 == 1 {
            store.flush().unwrap();
            newest = index;
        }
        let killed = dir.path().join(format!("killed-{round}"));
        copy_as_if_killed(&path, &killed);
        let reopened = open(&killed).unwrap();
        let kept = number_in(&reopened);
        assert!((newest..=index).contains(&kept), "{newest} {kept} {index}");
        assert_eq!(reopened.flushed(), reopened.applied());
    }
    assert_eq!(number_in(&store), index);
    // One that is closed keeps everything.
    drop(store);
    assert_eq!(number_in(&open(&path).unwrap()), index);
}

/// Tables that the database has written.
fn tables(path: &Path) -> usize {
    let names = names(&path.join("gen-1"));
    names.iter().filter(|name| name.ends_with(".sst")).count()
}

/// NEW-crash-between-apply-and-mark, where the database decides itself what it writes when: were a
/// place and its data two writes, a table would end between them sooner or later. (The machine over
/// this store is killed in `kv-service/src/durable/tests/kills.rs`.)
#[test]
fn what_the_database_flushes_by_itself_ends_with_a_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut store = open(&path).unwrap();
    let (mut index, mut newest) = (0_u64, 0);
    let known = tables(&path);
    for flushes in 1..=3 {
        loop {
            // Small batches: as likely as not it is a place that fills a table.
            for _ in 0..2_000 {
                index += 1;
                let mut batch = StateBatch::new();
                batch.put(b"index", &index.to_le_bytes());
                store.write(batch, id(index)).unwrap();
            }
            if tables(&path) < known + flushes {
                continue;
            }
            let killed = dir.path().join(format!("killed-{index}"));
            copy_as_if_killed(&path, &killed);
            let reopened = open(&killed).unwrap();
            let kept = reopened.applied().index.0;
            let data = reopened.view().get(b"index").unwrap();
            let data = data.map_or(0, |data| u64::from_le_bytes(data.try_into().unwrap()));
            assert_eq!(data, kept, "the data is that of its place");
            // The table may have been there without being a part of the state yet.
            if kept > newest {
                newest = kept;
                break;
            }
        }
    }
    assert!(newest < index, "the rest is gone");
}

#[test]
fn what_is_not_flushed_is_gone_as_a_whole_and_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut store = open(&path).unwrap();
    assert_eq!(store.applied(), LogId::ZERO);
    write_numbered(&mut store, 1);
    store.flush().unwrap();
    assert_eq!(store.flushed(), id(1));
    write_numbered(&mut store, 2);
    assert_eq!(store.flushed(), id(1));
    let killed = dir.path().join("killed");
    copy_as_if_killed(&path, &killed);
    let mut reopened = open(&killed).unwrap();
    assert_eq!(number_in(&reopened), 1);
    write_numbered(&mut reopened, 2);
    assert_eq!(number_in(&reopened), 2);
    assert_eq!(content(reopened.view()), content(store.view()));
}

#[test]
#[should_panic(expected = "comes after")]
fn a_batch_of_an_earlier_place_is_a_bug() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    write_numbered(&mut store, 2);
    let _ = store.write(StateBatch::new(), id(2));
}

#[test]
fn ranges_are_those_of_a_map() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    let mut batch = StateBatch::new();
    let keys: [&[u8]; 7] = [b"", b"a", b"a\0", b"ab", b"b", b"\xff", b"\xff\xff"];
    for key in keys {
        batch.put(key, key);
    }
    store.write(batch, id(1)).unwrap();
    let view = store.view();
    let found = |prefix: &[u8], from: Bound<&[u8]>| -> Vec<Vec<u8>> {
        let range = view.range(prefix, from, false);
        range.map(|found| found.unwrap().0).collect()
    };
    assert_eq!(found(b"", Bound::Unbounded), keys);
    assert_eq!(found(b"a", Bound::Unbounded), keys[1..4]);
    assert_eq!(found(b"a", Bound::Included(b"")), keys[1..4]);
    assert_eq!(found(b"", Bound::Included(b"a\0")), keys[2..]);
    assert_eq!(found(b"", Bound::Excluded(b"a")), keys[2..]);
    assert_eq!(found(b"a", Bound::Excluded(b"ab")), keys[..0]);
    assert_eq!(found(b"\xff", Bound::Excluded(b"\xff")), keys[6..]);
    assert_eq!(view.get(b"ab").unwrap(), Some(b"ab".to_vec()));
    assert_eq!(view.get(b"abc").unwrap(), None);
}

#[test]
fn another_owner_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    for other in [
        WalOwner {
            cluster: ClusterId([1; 16]),
            ..OWNER
        },
        WalOwner {
            node: NodeId(1),
            ..OWNER
        },
        WalOwner {
            incarnation: Incarnation(1),
            ..OWNER
        },
    ] {
        let refused = StateStore::open(dir.path(), other, OPTIONS).unwrap_err();
        assert!(matches!(refused, StorageError::Foreign { .. }), "{refused}");
    }
    let store = open(dir.path()).unwrap();
    let locked = open(dir.path()).unwrap_err();
    assert!(matches!(locked, StorageError::Io { .. }), "{locked}");
    let mut newer = encode_owner(&OWNER);
    newer[8] = 2;
    store.view().db().put(OWNER_KEY, newer).unwrap();
    drop(store);
    let refused = open(dir.path()).unwrap_err();
    assert!(refused.to_string().contains("version 2"), "{refused}");
}

#[test]
fn what_is_no_whole_state_is_damaged() {
    let damaged = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path()).unwrap();
        write_numbered(&mut store, 1);
        drop(store);
        change(dir.path());
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    };
    damaged(&|dir| fs::write(dir.join("current"), "gen-").unwrap());
    damaged(&|dir| fs::write(dir.join("current"), "gen-01\n").unwrap());
    damaged(&|dir| fs::write(dir.join("current"), "../gen-1\n").unwrap());
    damaged(&|dir| fs::write(dir.join("current"), "gen-2\n").unwrap());
    damaged(&|dir| {
        // Which of them counts nobody knows any more.
        fs::create_dir(dir.join("gen-2")).unwrap();
        fs::remove_file(dir.join("current")).unwrap();
    });
    damaged(&|dir| {
        let view = StateView::open(&dir.join("gen-1"), &OPTIONS, false).unwrap();
        view.db().delete(APPLIED_KEY).unwrap();
    });
    damaged(&|dir| {
        let view = StateView::open(&dir.join("gen-1"), &OPTIONS, false).unwrap();
        view.db().put(OWNER_KEY, "x").unwrap();
    });
}

#[test]
fn an_image_is_not_moved_and_goes_when_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut store = open(&path).unwrap();
    for index in 1..=50 {
        write_numbered(&mut store, index);
    }
    let before = content(store.view());
    let mut image = store.image().unwrap();
    // It is durable before it is there.
    assert_eq!((image.applied(), store.flushed()), (id(50), id(50)));
    for index in 51..=90 {
        write_numbered(&mut store, index);
    }
    let killed = dir.path().join("killed");
    copy_as_if_killed(&path, &killed);
    let parts = parts_of(&mut image);
    assert!(path.join("image-0").is_dir());
    drop(image);
    assert_eq!(names(&path), ["current", "gen-1", "lock"]);
    // A crash leaves it; the next start does not.
    assert!(killed.join("image-0").is_dir());
    drop(open(&killed).unwrap());
    assert_eq!(names(&killed), ["current", "gen-1", "lock"]);

    let other = dir.path().join("other");
    let mut other_store = open(&other).unwrap();
    write_numbered(&mut other_store, 1);
    let mut replacement = other_store.replacement().unwrap();
    for part in &parts {
        replacement.push(part).unwrap();
    }
    assert_eq!(content(&replacement.open().unwrap()), before);
    assert_eq!(number_in(&other_store), 1);
    other_store.switch(replacement, id(60)).unwrap();
    assert_eq!(content(other_store.view()), before);
    assert_eq!(other_store.applied(), id(60));
    assert_eq!(names(&other), ["current", "gen-2", "lock"]);
    drop(other_store);
    let reopened = open(&other).unwrap();
    assert_eq!(
        (reopened.applied(), content(reopened.view())),
        (id(60), before)
    );
}

/// Before the new name of `current` the old state is there, behind it the new one; whatever else
/// lies around goes at the next start.
#[test]
fn a_switch_is_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut store = open(&path).unwrap();
    write_numbered(&mut store, 1);
    store.flush().unwrap();
    let mut stages: Vec<PathBuf> = Vec::new();
    let mut stage = || {
        let killed = dir.path().join(format!("stage-{}", stages.len()));
        copy_as_if_killed(&path, &killed);
        stages.push(killed);
    };
    let mut replacement = store.replacement().unwrap();
    stage();
    replacement.begin().unwrap();
    stage();
    let mut batch = StateBatch::new();
    batch.put(b"new", b"state");
    replacement.write(batch).unwrap();
    stage();
    store.switch(replacement, id(9)).unwrap();
    let after = dir.path().join("after");
    copy_as_if_killed(&path, &after);
    // The new one is durable, and nothing names it yet; the new `current` lies beside the old one.
    let between = dir.path().join("between");
    copy_as_if_killed(&stages[0], &between);
    fs::remove_dir_all(between.join("gen-2")).unwrap();
    copy_as_if_killed(&after.join("gen-2"), &between.join("gen-2"));
    fs::copy(after.join("current"), between.join("current.new")).unwrap();
    stages.push(between);
    for killed in &stages {
        let reopened = open(killed).unwrap();
        assert_eq!(number_in(&reopened), 1, "{}", killed.display());
        assert_eq!(names(killed), ["current", "gen-1", "lock"]);
    }
    // It was renamed, and the old one is not removed yet.
    let old = after.join("gen-1");
    copy_as_if_killed(&stages[0].join("gen-1"), &old);
    let reopened = open(&after).unwrap();
    assert_eq!(reopened.applied(), id(9));
    assert_eq!(
        reopened.view().get(b"new").unwrap(),
        Some(b"state".to_vec())
    );
    assert_eq!(names(&after), ["current", "gen-2", "lock"]);
}

#[test]
fn a_replacement_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    write_numbered(&mut store, 1);
    let replacement = store.replacement().unwrap();
    drop(replacement);
    assert_eq!(names(dir.path()), ["current", "gen-1", "lock"]);
    let replacement = store.replacement().unwrap();
    assert!(
        store.switch(replacement, id(2)).is_err(),
        "there is nothing in it"
    );
    assert!(
        store.write(StateBatch::new(), id(3)).is_err(),
        "it has failed"
    );
    drop(store);
    assert_eq!(number_in(&open(dir.path()).unwrap()), 1);
}

/// Blocks are checked where they are read. Who copies files does not read them, so they are read
/// beside that.
#[test]
fn nothing_damaged_leaves_as_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut store = open(&path).unwrap();
    for index in 1..=5 {
        let mut batch = StateBatch::new();
        batch.put(&index_key(index), &vec![index as u8; 100_000]);
        store.write(batch, id(index)).unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let tables: Vec<PathBuf> = fs::read_dir(path.join("gen-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "sst"))
        .collect();
    assert!(!tables.is_empty());
    for table in &tables {
        let honest = fs::read(table).unwrap();
        // In the middle of a value.
        for place in [2, 3, 5] {
            let mut bytes = honest.clone();
            let at = bytes.len() / place;
            bytes[at] ^= 1;
            fs::write(table, &bytes).unwrap();
            let read = open(&path).and_then(|mut store| {
                let mut image = store.image()?;
                while image.next_part()?.is_some() {}
                Ok(())
            });
            let error = read.expect_err("noticed");
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        }
        fs::write(table, &honest).unwrap();
    }
    assert_eq!(open(&path).unwrap().applied(), id(5));
}

fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

#[test]
fn parts_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir.path().join("from")).unwrap();
    write_numbered(&mut store, 1);
    let parts = parts_of(&mut store.image().unwrap());
    let mut to = open(&dir.path().join("to")).unwrap();
    let mut restore = |parts: &[bytes::Bytes]| {
        let mut replacement = to.replacement()?;
        for part in parts {
            replacement.push(part)?;
        }
        replacement.open().map(|_| ())
    };
    restore(&parts).unwrap();
    for left_out in 0..parts.len() {
        let mut fewer = parts.clone();
        fewer.remove(left_out);
        assert!(restore(&fewer).is_err(), "part {left_out} is missing");
        let mut twice = parts.clone();
        twice.insert(left_out, parts[left_out].clone());
        assert!(restore(&twice).is_err(), "part {left_out} comes twice");
        let mut damaged = parts.clone();
        let mut bytes = damaged[left_out].to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
        damaged[left_out] = bytes.into();
        assert!(restore(&damaged).is_err(), "part {left_out} is damaged");
    }
    let swapped: Vec<bytes::Bytes> = parts.iter().rev().cloned().collect();
    assert!(restore(&swapped).is_err());
    assert!(restore(&[]).is_err());
    drop(to);
    assert_eq!(names(&dir.path().join("to")), ["current", "gen-1", "lock"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// Whatever comes: an error, and nothing outside of the directory.
    #[test]
    fn arbitrary_parts_do_no_harm(
        contents in vec((1_u8..4, vec(any::<u8>(), 12..60)), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir.path().join("state")).unwrap();
        write_numbered(&mut store, 1);
        let mut replacement = store.replacement().unwrap();
        let head = parts_of(&mut store.image().unwrap())[0].clone();
        replacement.push(&head).unwrap();
        for (kind, mut bytes) in contents {
            // The number of the file and the high bytes of sizes are often right.
            bytes[..4].fill(0);
            bytes[6..12].fill(0);
            let crc = crc32c::crc32c(&bytes).to_le_bytes();
            let part = [&[CHECKPOINT_TAG, kind][..], &crc, &bytes].concat();
            let _ = replacement.push(&part);
        }
        prop_assert!(replacement.open().is_err());
        drop(replacement);
        prop_assert_eq!(names(dir.path()), ["state"]);
        prop_assert_eq!(number_in(&store), 1);
    }
}
