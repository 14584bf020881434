//! Goal: whatever is interrupted, by a power cut after any operation or by a failure of one, the
//! newest snapshot that was acknowledged is there and whole, and what was left over goes.
//!
//! What every store must do is in `crate::conformance`, the bytes are in `crate::snapshot_file`.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use raft_core::{
    ClusterId, Incarnation, Index, LogId, NodeId, SnapshotDescriptor, SnapshotMeta, SnapshotStore,
    StorageError, Term,
};

use super::FileSnapshots;
use super::directory::SnapshotDirectory;
use crate::files::Disk;
use crate::files::probe::memory_dir;
use crate::owner::WalOwner;
use crate::sim_disk::{Image, NameOrder, Operation, Random, Replay, SimDisk};
use crate::snapshot_file::{SnapshotFileWriter, SnapshotHasher};

const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([9; 16]),
    node: NodeId(4),
    incarnation: Incarnation(77),
};

/// The parts of a snapshot up to `index`.
fn parts(index: u64) -> Vec<Bytes> {
    let byte = u8::try_from(index).expect("small");
    let lengths = [10, 700, 0, 1_500];
    lengths.map(|n| Bytes::from(vec![byte; n])).to_vec()
}

fn descriptor(index: u64) -> SnapshotDescriptor {
    let mut hasher = SnapshotHasher::new();
    parts(index).iter().for_each(|part| hasher.add(part));
    let meta = SnapshotMeta {
        last: LogId::new(Term(2), Index(index)),
        ..SnapshotMeta::default()
    };
    hasher.descriptor(meta)
}

/// What is done with the directory, one after the other. The numbers are indexes.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create(u64),
    GiveUp(u64),
    /// Up to so many parts; then the transfer ends.
    ReceiveSome(u64, usize),
    Receive(u64),
    /// A transfer that brings something else than it announced.
    ReceiveWrong(u64),
}

const STEPS: [Step; 10] = [
    Step::Create(10),
    Step::GiveUp(11),
    Step::Create(12),
    Step::ReceiveSome(20, 1),
    Step::ReceiveSome(20, 3),
    Step::Receive(20),
    Step::ReceiveSome(30, 2),
    Step::Create(31),
    Step::ReceiveWrong(40),
    Step::Receive(41),
];

impl Step {
    fn run(self, directory: &SnapshotDirectory) -> Result<(), StorageError> {
        match self {
            Self::Create(index) | Self::GiveUp(index) => {
                let mut writer = directory.create(descriptor(index).meta)?;
                write(&mut writer, &parts(index))?;
                if matches!(self, Self::Create(_)) {
                    assert_eq!(directory.finish(writer)?, descriptor(index));
                }
            }
            Self::ReceiveSome(index, some) => {
                let mut writer = directory.receive(&descriptor(index))?;
                write(&mut writer, &parts(index)[..some])?;
            }
            Self::Receive(index) => {
                let mut writer = directory.receive(&descriptor(index))?;
                write(&mut writer, &parts(index))?;
                assert_eq!(directory.finish(writer)?, descriptor(index));
            }
            Self::ReceiveWrong(index) => {
                let mut announced = descriptor(index);
                announced.hash.0 ^= 1;
                let mut writer = directory.receive(&announced)?;
                write(&mut writer, &parts(index))?;
                match directory.finish(writer) {
                    Err(StorageError::SnapshotMismatch { .. }) => {}
                    other => return other.map(|_| panic!("it is not what was announced")),
                }
            }
        }
        Ok(())
    }

    /// The newest snapshot behind it.
    fn latest(self, before: Option<u64>) -> Option<u64> {
        match self {
            Self::Create(index) | Self::Receive(index) => Some(index),
            _ => before,
        }
    }
}

/// Writes the parts that are not there yet.
fn write(writer: &mut SnapshotFileWriter, parts: &[Bytes]) -> Result<(), StorageError> {
    let there = usize::try_from(writer.parts()).expect("few");
    for part in parts.iter().skip(there) {
        writer.write_part(part)?;
    }
    Ok(())
}

/// The newest snapshot before the first step, and behind each.
fn history() -> Vec<Option<u64>> {
    let mut history = vec![None];
    for step in STEPS {
        history.push(step.latest(history[history.len() - 1]));
    }
    history
}

fn open(dir: &Path) -> Result<SnapshotDirectory, StorageError> {
    SnapshotDirectory::open(Disk::default(), dir, &OWNER)
}

/// Where the snapshots are on a simulated disk.
const SIM_DIR: &str = "/node/snapshots";

fn open_sim(disk: &SimDisk) -> Result<SnapshotDirectory, StorageError> {
    SnapshotDirectory::open(disk.disk(), Path::new(SIM_DIR), &OWNER)
}

fn base() -> Image {
    Image::with_dir(Path::new(SIM_DIR))
}

fn sim_names(disk: &SimDisk) -> BTreeSet<String> {
    let names = disk.seen().files_in(Path::new(SIM_DIR)).into_keys();
    names.map(|n| n.to_string_lossy().into_owned()).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name());
    names.map(|n| n.to_string_lossy().into_owned()).collect()
}

/// The newest snapshot, which is read and compared, and nothing but it and a transfer is there.
fn check(disk: &SimDisk, directory: &SnapshotDirectory, case: &str) -> Option<u64> {
    let mut expected = BTreeSet::from(["lock".to_owned()]);
    let latest = directory.latest();
    if let Some(latest) = &latest {
        let index = latest.meta.last.index.0;
        assert_eq!(*latest, descriptor(index), "{case}");
        let file = directory.open_file(latest.meta.last).unwrap();
        let mut at = file.first();
        for part in parts(index) {
            let (found, next) = file.part(at).unwrap().expect("there are more parts");
            assert_eq!(found, part, "{case}");
            at = next;
        }
        assert_eq!(file.part(at).unwrap(), None, "{case}");
        expected.insert(format!("{index:020}-{:020}.snap", 2));
    }
    let mut found = sim_names(disk);
    found.remove("incoming");
    assert_eq!(found, expected, "{case}");
    latest.map(|latest| latest.meta.last.index.0)
}

/// Opens what was left, compares it, and goes on with it.
fn reopen(disk: &SimDisk, allowed: &[Option<u64>], case: &str) {
    let directory = open_sim(disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let latest = check(disk, &directory, case);
    assert!(
        allowed.contains(&latest),
        "{case}: found {latest:?} of {allowed:?}"
    );
    for index in [20, 30, 50] {
        if latest.is_none_or(|latest| latest < index) {
            let case = format!("{case}, gone on with {index}");
            let step = Step::Receive(index).run(&directory);
            step.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(check(disk, &directory, &case), Some(index));
        }
    }
}

/// Runs the steps over a disk and records them, with a mark behind each.
fn record(base: &Image, steps: &[Step]) -> Vec<Operation> {
    let disk = SimDisk::recorded(base);
    let directory = open_sim(&disk).unwrap();
    for (step, done) in steps.iter().zip(1..) {
        step.run(&directory).unwrap();
        disk.mark(done);
    }
    disk.recording()
}

/// Steps that were acknowledged.
fn acknowledged(replay: &Replay) -> usize {
    usize::try_from(replay.mark()).expect("few")
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let history = history();
    let mut random = Random::new(0);
    let mut replay = Replay::new(&base());
    for (position, operation) in record(&base(), &STEPS).iter().enumerate() {
        replay.advance(operation);
        let done = acknowledged(&replay);
        let allowed = &history[done..history.len().min(done + 2)];
        let cuts = replay.cuts(NameOrder::AsMade, 32, &mut random);
        for (number, image) in cuts.images.iter().enumerate() {
            let case = format!("cut {number} behind operation {position}");
            reopen(&SimDisk::new(image), allowed, &case);
            if random.below(30) == 0 {
                cut_again(image, allowed, &mut random, &case);
            }
        }
    }
}

/// A second cut, while what the first one left is cleared away and gone on with.
fn cut_again(image: &Image, before: &[Option<u64>], random: &mut Random, case: &str) {
    let steps = [Step::Receive(60), Step::Create(61)];
    let mut replay = Replay::new(image);
    for (position, operation) in record(image, &steps).iter().enumerate() {
        replay.advance(operation);
        let case = format!("{case}, cut again behind operation {position}");
        let done = acknowledged(&replay);
        let mut allowed = match done {
            0 => before.to_vec(),
            done => vec![steps[done - 1].latest(None)],
        };
        allowed.extend(steps.get(done).map(|step| step.latest(None)));
        for image in replay.cuts(NameOrder::AsMade, 2, random).images {
            reopen(&SimDisk::new(&image), &allowed, &case);
        }
    }
}

#[test]
fn a_failure_of_any_operation_loses_nothing() {
    let history = history();
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        let mut failures = 0;
        for operations in 0.. {
            let disk = SimDisk::new(&base());
            disk.fail_after(operations, kind);
            let directory = open_sim(&disk).unwrap();
            let mut done = 0;
            for step in STEPS {
                if let Err(error) = step.run(&directory) {
                    let is_full = matches!(error, StorageError::Full { .. });
                    assert_eq!(is_full, kind == ErrorKind::StorageFull, "{error}");
                    failures += 1;
                    break;
                }
                done += 1;
            }
            drop(directory);
            let case = format!("operation {operations} failed in step {done}");
            let end = history.len().min(done + 2);
            let will_fail = disk.will_fail();
            // The process starts again, or the whole machine.
            let again = disk.restart();
            let cut = again
                .power_cuts(NameOrder::AsMade, 4, &mut Random::new(9))
                .images;
            reopen(&disk.restart(), &history[done..end], &case);
            for image in cut {
                reopen(&SimDisk::new(&image), &history[done..end], &case);
            }
            if will_fail {
                break;
            }
        }
        assert!(failures > 50, "{failures}");
    }
}

#[test]
fn a_failed_write_leaves_the_snapshot_before_it_and_no_litter() {
    for step in [Step::Create(2), Step::Receive(2)] {
        let mut failures = 0;
        for operations in 0.. {
            let disk = SimDisk::new(&base());
            let directory = open_sim(&disk).unwrap();
            Step::Create(1).run(&directory).unwrap();
            disk.fail_after(operations, ErrorKind::Other);
            let case = format!("{step:?}, operation {operations}");
            if step.run(&directory).is_err() {
                failures += 1;
                assert_eq!(check(&disk, &directory, &case), Some(1));
                step.run(&directory).unwrap();
                assert_eq!(check(&disk, &directory, &case), Some(2));
            }
            if disk.will_fail() {
                break;
            }
        }
        assert!(failures > 5, "{failures}");
    }
}

/// Receives a snapshot of several pages, or what is missing of it.
fn receive_large(directory: &SnapshotDirectory) -> Result<SnapshotDescriptor, StorageError> {
    let parts: Vec<Bytes> = (1..5).map(|byte| vec![byte; 9_000].into()).collect();
    let mut hasher = SnapshotHasher::new();
    parts.iter().for_each(|part| hasher.add(part));
    let announced = hasher.descriptor(descriptor(2).meta);
    let mut writer = directory.receive(&announced)?;
    write(&mut writer, &parts)?;
    directory.finish(writer)
}

#[test]
fn nothing_that_a_failed_sync_lost_is_counted_on_when_it_is_received_again() {
    let mut failures = 0;
    for syncs in 0.. {
        let disk = SimDisk::new(&base());
        let directory = open_sim(&disk).unwrap();
        disk.fail_sync_after(syncs);
        let mut received = receive_large(&directory);
        if received.is_err() {
            failures += 1;
            received = receive_large(&directory);
        }
        let received = received.unwrap();
        let cuts = disk.power_cuts(NameOrder::AsMade, 8, &mut Random::new(3));
        for image in cuts.images {
            let directory = open_sim(&SimDisk::new(&image)).unwrap();
            let file = directory.open_file(received.meta.last).unwrap();
            let mut at = file.first();
            while let Some((_, next)) = file.part(at).unwrap() {
                at = next;
            }
        }
        if disk.will_fail() {
            break;
        }
    }
    assert!(failures > 0, "{failures}");
}

#[test]
fn the_disk_may_be_full_for_a_while() {
    let disk = SimDisk::new(&base());
    let directory = open_sim(&disk).unwrap();
    for step in [Step::Create(1), Step::Receive(2)] {
        disk.fail_after(4, ErrorKind::StorageFull);
        let failed = step.run(&directory);
        assert!(
            matches!(failed, Err(StorageError::Full { .. })),
            "{failed:?}"
        );
        step.run(&directory).unwrap();
        assert_eq!(check(&disk, &directory, "later"), step.latest(None));
    }
}

#[test]
fn a_damaged_newest_snapshot_is_told_and_left_as_it_is() {
    let dir = memory_dir();
    Step::Create(7).run(&open(dir.path()).unwrap()).unwrap();
    let path = dir.path().join(format!("{:020}-{:020}.snap", 7, 2));
    let good = fs::read(&path).unwrap();
    for position in [50, good.len() - 3] {
        let mut bad = good.clone();
        bad[position] ^= 1;
        fs::write(&path, &bad).unwrap();
        let refused = open(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(refused, StorageError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
    // Damage to a part is noticed by who reads it.
    let mut bad = good.clone();
    bad[good.len() - 100] ^= 1;
    fs::write(&path, &bad).unwrap();
    let directory = open(dir.path()).unwrap();
    let file = directory.open_file(descriptor(7).meta.last).unwrap();
    let at = file.find(3, file.first()).unwrap();
    assert!(matches!(file.part(at), Err(StorageError::Damaged { .. })));
}

#[test]
fn what_is_not_this_nodes_is_refused() {
    let dir = memory_dir();
    Step::Create(7).run(&open(dir.path()).unwrap()).unwrap();
    let others = [
        WalOwner {
            cluster: ClusterId([1; 16]),
            ..OWNER
        },
        WalOwner {
            node: NodeId(5),
            ..OWNER
        },
    ];
    for owner in others {
        let refused = SnapshotDirectory::open(Disk::default(), dir.path(), &owner).map(|_| ());
        assert!(
            matches!(refused, Err(StorageError::Foreign { .. })),
            "{refused:?}"
        );
    }
    let [from, to] = [7, 8].map(|index| dir.path().join(format!("{index:020}-{:020}.snap", 2)));
    fs::rename(&from, &to).unwrap();
    let refused = open(dir.path()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("up to 7@2"), "{refused}");
    fs::rename(&to, dir.path().join("8.snap")).unwrap();
    let refused = open(dir.path()).map(|_| ());
    assert!(
        matches!(refused, Err(StorageError::Foreign { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_directory_is_open_once() {
    let dir = memory_dir();
    let first = open(dir.path()).unwrap();
    assert!(open(dir.path()).is_err());
    drop(first);
    open(dir.path()).unwrap();
}

/// Begins a call and gives it up before its blocking work, for which there is one thread, begins.
async fn give_up<T>(call: impl Future<Output = T>) {
    let (go, wait) = std::sync::mpsc::channel();
    tokio::task::spawn_blocking(move || wait.recv());
    {
        let mut call = std::pin::pin!(call);
        let is_pending = std::future::poll_fn(|context| {
            std::task::Poll::Ready(call.as_mut().poll(context).is_pending())
        });
        assert!(is_pending.await);
    }
    go.send(()).unwrap();
}

#[test]
fn a_call_that_is_given_up_leaves_whole_parts_and_room_for_the_next_one() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(give_calls_up());
}

async fn give_calls_up() {
    let dir = memory_dir();
    let store = FileSnapshots::open(Disk::default(), dir.path(), &OWNER).unwrap();
    let announced = descriptor(5);
    for round in 0..5 {
        let mut writer = store.receive(announced.clone()).await.unwrap();
        assert_eq!(writer.parts(), round);
        let there = usize::try_from(writer.parts()).unwrap();
        let Some(part) = parts(5).get(there).cloned() else {
            break;
        };
        give_up(writer.write(part.clone())).await;
        assert!(
            writer.write(part).await.is_err(),
            "nobody knows how it ended"
        );
        drop(writer);
        give_up(store.receive(announced.clone())).await;
    }
    let mut writer = store.receive(announced.clone()).await.unwrap();
    let there = usize::try_from(writer.parts()).unwrap();
    for part in &parts(5)[there..] {
        writer.write(part.clone()).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), announced);
    let mut reader = store.open(announced.meta.last).await.unwrap();
    for part in parts(5) {
        give_up(reader.next_part()).await;
        assert_eq!(reader.next_part().await.unwrap(), Some(part));
    }
    // A store that is opened again waits for what was given up.
    let mut writer = store.create(descriptor(6).meta).await.unwrap();
    give_up(writer.write(Bytes::from(vec![1; 1 << 20]))).await;
    drop((writer, store, reader));
    let store = tokio::task::spawn_blocking({
        let path = dir.path().to_owned();
        move || FileSnapshots::open(Disk::default(), &path, &OWNER)
    });
    let store = store.await.unwrap().unwrap();
    assert_eq!(store.latest(), Some(announced));
    assert!(names(dir.path()).iter().all(|name| !name.ends_with(".tmp")));
}
