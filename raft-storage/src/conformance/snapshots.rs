//! The cases about snapshots, one rule each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{
    Incarnation, Index, LogId, Member, MemberRole, Membership, NodeId, SnapshotDescriptor,
    SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter, StorageError, Term,
};

use super::model::Checked;
use super::place::Place;
use super::random::Random;
use crate::snapshot_file::SnapshotHasher;

/// A snapshot as it should be.
#[derive(Clone)]
struct Sample {
    descriptor: SnapshotDescriptor,
    parts: Vec<Bytes>,
}

/// A snapshot up to an entry, with parts of these lengths.
fn sample(index: u64, lengths: &[usize]) -> Sample {
    let member = |id: u64, role| {
        let member = Member {
            incarnation: Incarnation(id * 31),
            address: format!("host-{id}:7400"),
            role,
        };
        (NodeId(id), member)
    };
    let members = BTreeMap::from([
        member(1, MemberRole::Voter),
        member(index, MemberRole::Learner),
    ]);
    let membership = Membership::new(members).expect("a list that a group may have");
    let last = LogId::new(Term(1 + index / 10), Index(index));
    let parts: Vec<Bytes> = lengths
        .iter()
        .zip(index..)
        .map(|(length, mark)| {
            let pattern = mark.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            pattern.into_iter().cycle().take(*length).collect()
        })
        .collect();
    let mut hasher = SnapshotHasher::new();
    parts.iter().for_each(|part| hasher.add(part));
    let descriptor = hasher.descriptor(SnapshotMeta { last, membership });
    Sample { descriptor, parts }
}

/// A place with the snapshots in it.
struct Snapshots {
    case: &'static str,
    log: Checked,
}

impl Snapshots {
    async fn open(case: &'static str, place: Place) -> Self {
        let log = Checked::open(case, place).await;
        Self { case, log }
    }

    fn store(&mut self) -> Arc<dyn SnapshotStore> {
        self.log.store().snapshots()
    }

    async fn create(&mut self, sample: &Sample) -> Box<dyn SnapshotWriter> {
        let writer = self.store().create(sample.descriptor.meta.clone()).await;
        writer.unwrap_or_else(|error| panic!("{}: create: {error}", self.case))
    }

    async fn receive(&mut self, sample: &Sample) -> Box<dyn SnapshotWriter> {
        let writer = self.store().receive(sample.descriptor.clone()).await;
        writer.unwrap_or_else(|error| panic!("{}: receive: {error}", self.case))
    }

    /// Writes the parts behind those that the writer has.
    async fn write(&self, writer: &mut dyn SnapshotWriter, parts: &[Bytes]) {
        let before = writer.parts();
        for (part, written) in parts.iter().zip(before + 1..) {
            let done = writer.write(part.clone()).await;
            done.unwrap_or_else(|error| panic!("{}: write: {error}", self.case));
            assert_eq!(writer.parts(), written, "{}: parts", self.case);
        }
    }

    async fn take(&mut self, sample: &Sample) {
        let mut writer = self.create(sample).await;
        self.write(&mut *writer, &sample.parts).await;
        self.finish(writer, sample).await;
    }

    async fn finish(&self, writer: Box<dyn SnapshotWriter>, sample: &Sample) {
        let finished = writer.finish().await;
        let finished = finished.unwrap_or_else(|error| panic!("{}: finish: {error}", self.case));
        assert_eq!(finished, sample.descriptor, "{}: descriptor", self.case);
    }

    async fn reader(&mut self, sample: &Sample) -> Box<dyn SnapshotReader> {
        let reader = self.store().open(sample.descriptor.meta.last).await;
        let reader = reader.unwrap_or_else(|error| panic!("{}: open: {error}", self.case));
        assert_eq!(*reader.descriptor(), sample.descriptor, "{}", self.case);
        reader
    }

    async fn read(&self, reader: &mut dyn SnapshotReader, expected: &[Bytes]) {
        let case = self.case;
        let mut next = async || {
            let part = reader.next_part().await;
            part.unwrap_or_else(|error| panic!("{case}: read: {error}"))
        };
        for (part, number) in expected.iter().zip(0..) {
            let found = next().await;
            assert!(found.as_ref() == Some(part), "{case}: part {number}");
        }
        for _ in 0..2 {
            assert_eq!(next().await, None, "{case}: nothing behind the last part");
        }
    }

    /// That this one is the newest, whole, and nothing else is.
    async fn holds(&mut self, sample: &Sample) {
        let latest = self.store().latest();
        assert_eq!(latest.as_ref(), Some(&sample.descriptor), "{}", self.case);
        let mut reader = self.reader(sample).await;
        self.read(&mut *reader, &sample.parts).await;
    }

    async fn holds_none(&mut self) {
        assert_eq!(self.store().latest(), None, "{}", self.case);
    }

    async fn lacks(&mut self, sample: &Sample) {
        let last = sample.descriptor.meta.last;
        let opened = self.store().open(last).await.map(|_| ());
        let refused = matches!(opened, Err(StorageError::NoSnapshot(l)) if l == last);
        assert!(refused, "{}: {opened:?}", self.case);
    }
}

pub(super) async fn a_store_begins_without(place: Place) {
    let mut snapshots = Snapshots::open("a store begins without a snapshot", place).await;
    snapshots.holds_none().await;
    snapshots.lacks(&sample(2, &[])).await;
    snapshots.log.reopen().await;
    snapshots.holds_none().await;
}

pub(super) async fn one_is_there_once_it_is_finished(place: Place) {
    let case = "a snapshot is there once it is finished";
    let mut snapshots = Snapshots::open(case, place).await;
    let lengths = [0, 1, 70_000, 8, 1 << 20, 0, SNAPSHOT_PART_BYTES_MAX, 3];
    let one = sample(40, &lengths);
    let mut writer = snapshots.create(&one).await;
    snapshots.write(&mut *writer, &one.parts).await;
    snapshots.holds_none().await;
    snapshots.lacks(&one).await;
    snapshots.finish(writer, &one).await;
    snapshots.holds(&one).await;
    snapshots.log.reopen().await;
    snapshots.holds(&one).await;
    // An empty one as well.
    let empty = sample(41, &[]);
    snapshots.take(&empty).await;
    snapshots.log.reopen().await;
    snapshots.holds(&empty).await;
}

pub(super) async fn one_that_is_not_finished_leaves_nothing(place: Place) {
    let case = "a snapshot that is not finished leaves nothing";
    let mut snapshots = Snapshots::open(case, place).await;
    let (one, two) = (sample(3, &[100, 200]), sample(5, &[300; 4]));
    drop(snapshots.create(&one).await);
    snapshots.holds_none().await;
    snapshots.take(&one).await;
    let mut writer = snapshots.create(&two).await;
    snapshots.write(&mut *writer, &two.parts).await;
    drop(writer);
    snapshots.holds(&one).await;
    snapshots.log.reopen().await;
    snapshots.holds(&one).await;
    snapshots.lacks(&two).await;
}

pub(super) async fn a_newer_one_takes_the_place(place: Place) {
    let case = "a newer snapshot takes the place of the older one";
    let mut snapshots = Snapshots::open(case, place).await;
    let one = sample(10, &[5_000; 6]);
    snapshots.take(&one).await;
    let mut held = snapshots.reader(&one).await;
    for index in 11..15 {
        let newer = sample(index, &[1_000; 3]);
        snapshots.take(&newer).await;
        snapshots.holds(&newer).await;
        snapshots.lacks(&one).await;
    }
    // Whoever has it open reads it to its end, and again.
    snapshots.read(&mut *held, &one.parts).await;
    assert!(held.seek(4).await.is_ok(), "{case}");
    snapshots.read(&mut *held, &one.parts[4..]).await;
    drop(held);
    // The same entry once more.
    let again = sample(14, &[77]);
    snapshots.take(&again).await;
    snapshots.holds(&again).await;
    snapshots.log.reopen().await;
    snapshots.holds(&again).await;
}

pub(super) async fn an_older_one_that_ends_later_goes(place: Place) {
    let case = "an older snapshot that is finished later goes";
    let mut snapshots = Snapshots::open(case, place).await;
    let (older, newer) = (sample(20, &[10; 3]), sample(30, &[20; 3]));
    let mut writer = snapshots.create(&older).await;
    snapshots.write(&mut *writer, &older.parts).await;
    let mut received = snapshots.receive(&newer).await;
    snapshots.write(&mut *received, &newer.parts).await;
    snapshots.finish(received, &newer).await;
    snapshots.finish(writer, &older).await;
    snapshots.holds(&newer).await;
    snapshots.lacks(&older).await;
    snapshots.log.reopen().await;
    snapshots.holds(&newer).await;
    snapshots.lacks(&older).await;
}

pub(super) async fn readers_go_to_any_part(place: Place) {
    let case = "readers go to any part";
    let mut snapshots = Snapshots::open(case, place).await;
    let one = sample(9, &[10, 0, 9_000, 300, 1]);
    snapshots.take(&one).await;
    let mut reader = snapshots.reader(&one).await;
    for part in [3, 0, 4, 5, 2, 1] {
        let sought = reader.seek(part).await;
        sought.unwrap_or_else(|error| panic!("{case}: seek to {part}: {error}"));
        let position = usize::try_from(part).expect("small");
        snapshots.read(&mut *reader, &one.parts[position..]).await;
    }
    for part in [6, u64::MAX] {
        assert!(reader.seek(part).await.is_err(), "{case}: seek to {part}");
    }
}

pub(super) async fn a_transfer_goes_on_where_it_ended(place: Place) {
    let case = "a transfer goes on where it ended";
    let mut snapshots = Snapshots::open(case, place).await;
    let one = sample(50, &[4_000, 0, 70_000, 1, 2_000, 900]);
    for (at, next) in [0..1, 1..1, 1..3, 3..6, 6..6].into_iter().zip(0..) {
        let mut writer = snapshots.receive(&one).await;
        assert_eq!(
            writer.parts(),
            at.start as u64,
            "{case}: parts that are there"
        );
        snapshots.write(&mut *writer, &one.parts[at]).await;
        drop(writer);
        snapshots.holds_none().await;
        snapshots.lacks(&one).await;
        if next % 2 == 0 {
            snapshots.log.reopen().await;
        }
    }
    let writer = snapshots.receive(&one).await;
    assert_eq!(writer.parts(), 6, "{case}: parts that are there");
    snapshots.finish(writer, &one).await;
    snapshots.holds(&one).await;
    snapshots.log.reopen().await;
    snapshots.holds(&one).await;
}

pub(super) async fn a_transfer_of_another_one_begins_anew(place: Place) {
    let case = "a transfer of another snapshot begins anew";
    let mut snapshots = Snapshots::open(case, place).await;
    let one = sample(50, &[4_000, 500]);
    let mut others = vec![one.clone(); 5];
    others[0].descriptor.meta.last.index = Index(51);
    others[1].descriptor.meta.membership = Membership::default();
    others[2].descriptor.hash.0 ^= 1;
    others[3].descriptor.parts += 1;
    others[4].descriptor.bytes += 1;
    for other in others {
        let mut writer = snapshots.receive(&other).await;
        snapshots.write(&mut *writer, &other.parts[..1]).await;
        drop(writer);
        let mut writer = snapshots.receive(&one).await;
        assert_eq!(writer.parts(), 0, "{case}: {}", other.descriptor);
        snapshots.write(&mut *writer, &one.parts[..1]).await;
        drop(writer);
        snapshots.log.reopen().await;
    }
    let mut writer = snapshots.receive(&one).await;
    snapshots.write(&mut *writer, &one.parts[1..]).await;
    snapshots.finish(writer, &one).await;
    snapshots.holds(&one).await;
}

pub(super) async fn what_was_not_announced_is_refused(place: Place) {
    let case = "what was not announced is refused";
    let mut snapshots = Snapshots::open(case, place).await;
    let one = sample(7, &[100, 200, 300]);
    let mut few = one.clone();
    few.parts.pop();
    let mut other_bytes = one.clone();
    other_bytes.parts[1] = Bytes::from(vec![9; 200]);
    let mut other_order = one.clone();
    other_order.parts.swap(0, 1);
    let mut short = one.clone();
    short.parts[2] = Bytes::new();
    for wrong in [few, other_bytes, other_order, short] {
        let mut writer = snapshots.receive(&wrong).await;
        assert_eq!(writer.parts(), 0, "{case}: what was wrong is removed");
        snapshots.write(&mut *writer, &wrong.parts).await;
        let refused = writer.finish().await;
        let is_told = matches!(refused, Err(StorageError::SnapshotMismatch { .. }));
        assert!(is_told, "{case}: {refused:?}");
        snapshots.holds_none().await;
        snapshots.log.reopen().await;
        snapshots.holds_none().await;
    }
    // More than was announced is refused before it takes room.
    let mut writer = snapshots.receive(&one).await;
    snapshots.write(&mut *writer, &one.parts).await;
    let refused = writer.write(Bytes::from_static(b"more")).await;
    let is_told = matches!(refused, Err(StorageError::SnapshotMismatch { .. }));
    assert!(is_told, "{case}: {refused:?}");
    drop(writer);
    snapshots.holds_none().await;
    snapshots.log.reopen().await;
    snapshots.holds_none().await;
}

pub(super) async fn one_transfer_at_a_time(place: Place) {
    let case = "one transfer at a time";
    let mut snapshots = Snapshots::open(case, place).await;
    let (one, two) = (sample(7, &[100]), sample(8, &[100]));
    let mut first = snapshots.receive(&one).await;
    for sample in [&one, &two] {
        let second = snapshots.store().receive(sample.descriptor.clone()).await;
        assert!(second.is_err(), "{case}");
    }
    // It goes on as if nothing had happened, beside a snapshot of the node's own.
    let own = sample(3, &[5]);
    snapshots.take(&own).await;
    snapshots.holds(&own).await;
    snapshots.write(&mut *first, &one.parts).await;
    snapshots.finish(first, &one).await;
    snapshots.holds(&one).await;
    let mut next = snapshots.receive(&two).await;
    snapshots.write(&mut *next, &two.parts).await;
    snapshots.finish(next, &two).await;
    snapshots.holds(&two).await;
}

pub(super) async fn parts_have_a_largest_size(place: Place) {
    let case = "parts have a largest size";
    let mut snapshots = Snapshots::open(case, place).await;
    let large = sample(7, &[SNAPSHOT_PART_BYTES_MAX + 1]);
    for mut writer in [
        snapshots.create(&large).await,
        snapshots.receive(&large).await,
    ] {
        let refused = writer.write(large.parts[0].clone()).await;
        assert!(refused.is_err(), "{case}");
        assert_eq!(writer.parts(), 0, "{case}");
    }
    snapshots.log.reopen().await;
    snapshots.holds_none().await;
}

pub(super) async fn the_log_and_they_do_not_touch_each_other(place: Place) {
    let case = "the log and its snapshots do not touch each other";
    let mut snapshots = Snapshots::open(case, place).await;
    snapshots.log.append_entries(1, &[3_000; 8]).await;
    let one = sample(4, &[2_000; 3]);
    snapshots.take(&one).await;
    snapshots.log.compare().await;
    let to = snapshots.log.id_at(4);
    snapshots.log.compact(to).await;
    snapshots.log.reopen().await;
    snapshots.holds(&one).await;
    let two = sample(90, &[2_000; 3]);
    let mut writer = snapshots.receive(&two).await;
    snapshots.write(&mut *writer, &two.parts).await;
    snapshots.finish(writer, &two).await;
    snapshots.log.reopen().await;
    snapshots.log.reset(two.descriptor.meta.last).await;
    snapshots.log.reopen().await;
    snapshots.holds(&two).await;
}

/// Random steps against a model: the newest snapshot, and a transfer that can be resumed.
pub(super) async fn random_steps(place: Place, seed: u64) {
    let case = "random snapshots";
    let mut snapshots = Snapshots::open(case, place).await;
    let mut random = Random(seed);
    let mut latest: Option<Sample> = None;
    let mut partial: Option<(Sample, usize)> = None;
    for _ in 0..40 {
        let index = latest
            .as_ref()
            .map_or(2, |s| s.descriptor.meta.last.index.0);
        let next = random_sample(&mut random, index + 1);
        match random.below(5) {
            0 => {
                snapshots.take(&next).await;
                partial = partial.filter(|(begun, _)| is_behind(begun, &next));
                latest = Some(next);
            }
            1 => {
                let mut writer = snapshots.create(&next).await;
                let some = random.position(next.parts.len());
                snapshots.write(&mut *writer, &next.parts[..some]).await;
            }
            kind => {
                let resumed = partial.take().filter(|_| random.below(4) > 0);
                let (sample, there) = resumed.unwrap_or((next, 0));
                let mut writer = snapshots.receive(&sample).await;
                assert_eq!(writer.parts(), there as u64, "{case}: parts that are there");
                let left = &sample.parts[there..];
                let some = if kind == 2 {
                    left.len()
                } else {
                    random.position(left.len())
                };
                snapshots.write(&mut *writer, &left[..some]).await;
                if kind == 2 {
                    snapshots.finish(writer, &sample).await;
                    latest = Some(sample);
                } else {
                    partial = Some((sample, there + some));
                }
            }
        }
        if random.below(3) == 0 {
            snapshots.log.reopen().await;
        }
        match &latest {
            Some(latest) => snapshots.holds(latest).await,
            None => snapshots.holds_none().await,
        }
    }
}

fn random_sample(random: &mut Random, index: u64) -> Sample {
    let lengths: Vec<usize> = (0..random.below(6)).map(|_| random.length()).collect();
    sample(index + random.below(3), &lengths)
}

fn is_behind(one: &Sample, other: &Sample) -> bool {
    one.descriptor.meta.last.index > other.descriptor.meta.last.index
}
