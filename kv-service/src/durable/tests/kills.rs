//! Goal: wherever the process is killed, the state on the disk is the one at exactly the place in
//! the log that it names, and with the rest of the log each command is applied once (the lab tests'
//! NEW-crash-between-apply-and-mark).
//!
//! Method: a process of its own applies known commands, more than the database keeps in memory, so
//! that it flushes by itself; takes an image; and is given a snapshot. Meanwhile the directory is
//! watched, and behind the n-th change of any file in it the process is killed: for each n, or as
//! many as `KILLS` says, spread over all. What it leaves behind is opened, compared with a machine
//! in memory at that place, and given the rest of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};

use kv_api::{Command, SessionId, SessionStamp, WriteOp, encode};
use raft_core::{Index, Term};

use raft_storage::conformance::files_below;

use super::*;
use crate::image::tests::snapshot;
use crate::state_machine::KvStateMachine;

/// Tells the process that it is the one to be killed, and where its state is.
const STATE_DIR: &str = "DURABLE_KILLS_STATE_DIR";

/// Kills, unless `KILLS` says how many.
const KILLS: usize = 24;

/// Commands of the log. The process is given those up to `BEFORE`, a snapshot of those up to
/// `SNAPSHOT`, which it never applied one by one, and the rest.
const COMMANDS: u64 = 160;
const IMAGE: u64 = 20;
const BEFORE: u64 = 80;
const SNAPSHOT: u64 = 90;

/// Of each value: the database writes a file behind some 32 MiB.
const VALUE_BYTES: usize = 700 << 10;

const RETENTION: Retention = Retention {
    revisions_max: 6,
    bytes_max: 8 << 20,
};

fn id(index: u64) -> LogId {
    LogId::new(Term(2), Index(index))
}

/// The command at an index. What is applied twice counts twice: in the revision, if nowhere else.
fn command(index: u64) -> CommittedCommand {
    let key = format!("key-{}", index % 7).into();
    let op = if index.is_multiple_of(11) {
        WriteOp::Delete { key }
    } else {
        let value = vec![u8::try_from(index).unwrap(); VALUE_BYTES].into();
        WriteOp::Put { key, value }
    };
    let stamp = index.is_multiple_of(5).then_some(SessionStamp {
        session: SessionId(1),
        sequence: index / 5,
        unanswered_from: index / 5,
    });
    let command = match index {
        1 => Command::OpenSession,
        _ => Command::Write { stamp, op },
    };
    CommittedCommand {
        id: id(index),
        payload: encode(&command).into(),
    }
}

fn memory() -> KvStateMachine {
    KvStateMachine::with_limits(RETENTION, LIMITS)
}

/// A machine in memory that was given the log up to here.
fn model(applied: u64) -> KvStateMachine {
    let mut model = memory();
    for index in 1..=applied {
        model.apply_command(Index(index), &command(index).payload);
    }
    model
}

/// Gives a machine a part of the log, in batches of one to four commands.
async fn apply(machine: &mut dyn StateMachine, from: u64, to: u64) -> Vec<Bytes> {
    let mut replies = Vec::new();
    let mut next = from;
    while next <= to {
        let end = to.min(next + next % 4);
        let batch = (next..=end).map(command).collect();
        replies.extend(machine.apply(batch).await.unwrap());
        next = end + 1;
    }
    replies
}

/// Everything up to here is kept from now on, whatever happens.
fn promise(dir: &Path, index: u64) {
    fs::write(dir.with_file_name(format!("kept-{index}")), "").unwrap();
}

/// What the process does that is killed.
async fn work(dir: &Path) {
    let mut machine = open(dir, RETENTION).unwrap();
    apply(&mut machine, 1, IMAGE).await;
    let mut image = machine.snapshot().await.unwrap();
    promise(dir, IMAGE);
    apply(&mut machine, IMAGE + 1, BEFORE).await;
    while image.next_part().await.unwrap().is_some() {}
    drop(image);
    let mut image = model(SNAPSHOT).image();
    let mut parts = Vec::new();
    while let Some(part) = image.next_part().await.unwrap() {
        parts.push(part);
    }
    machine.restore(snapshot(SNAPSHOT, parts)).await.unwrap();
    promise(dir, SNAPSHOT);
    apply(&mut machine, SNAPSHOT + 1, COMMANDS).await;
    drop(machine);
    promise(dir, COMMANDS);
}

fn start(dir: &Path) -> Child {
    let mut process = Process::new(std::env::current_exe().unwrap());
    let name = "durable::tests::kills::a_kill_at_any_step_leaves_the_data_of_exactly_its_mark";
    process.args(["--exact", name]).env(STATE_DIR, dir);
    process.stdout(Stdio::null()).stderr(Stdio::null());
    process.spawn().unwrap()
}

/// The files of a state, but for what RocksDB says of itself. None where one went meanwhile.
fn watch(dir: &Path) -> Option<BTreeMap<PathBuf, Option<u64>>> {
    let mut seen = files_below(dir).ok()?;
    let is_told = |path: &PathBuf| path.file_name().is_some_and(|name| name == "LOG");
    seen.retain(|path, length| length.is_some() && !is_told(path));
    Some(seen)
}

/// Runs the process, and kills it behind a change of its files. The changes that there were, and
/// whether it came to its end.
fn run(dir: &Path, kill_behind: usize) -> (usize, bool) {
    let mut process = start(dir);
    let (mut changes, mut known) = (0, BTreeMap::new());
    loop {
        if let Some(ended) = process.try_wait().unwrap() {
            let is_killed = changes == kill_behind;
            assert!(ended.success() || is_killed, "{ended}");
            return (changes, ended.success());
        }
        let Some(seen) = watch(dir).filter(|seen| *seen != known) else {
            continue;
        };
        known = seen;
        changes += 1;
        if changes == kill_behind {
            process.kill().unwrap();
            let ended = process.wait().unwrap();
            return (changes, ended.success());
        }
    }
}

/// Opens what is left, compares it, and gives it the rest. The place that it named.
async fn judge(dir: &Path, case: &str) -> u64 {
    let mut machine = open(dir, RETENTION).unwrap_or_else(|error| panic!("{case}: {error}"));
    let mark = machine.applied().index.0;
    for kept in [IMAGE, SNAPSHOT, COMMANDS] {
        let is_promised = dir.with_file_name(format!("kept-{kept}")).exists();
        assert!(mark >= kept || !is_promised, "{case}: {mark}, not {kept}");
    }
    let is_between = mark > BEFORE && mark < SNAPSHOT;
    assert!(!is_between, "{case}: {mark} was never applied by itself");
    let mut model = model(mark);
    let is_same = machine.digest().unwrap() == model.digest();
    assert!(is_same, "{case}: the data is not that of {mark}");
    let expected = apply(&mut model, mark + 1, COMMANDS).await;
    let replies = apply(&mut machine, mark + 1, COMMANDS).await;
    assert!(replies == expected, "{case}: other replies behind {mark}");
    let is_same = machine.digest().unwrap() == model.digest();
    assert!(is_same, "{case}: each command is applied once");
    mark
}

#[tokio::test]
async fn a_kill_at_any_step_leaves_the_data_of_exactly_its_mark() {
    if let Ok(dir) = std::env::var(STATE_DIR) {
        work(Path::new(&dir)).await;
        return;
    }
    let memory = Path::new("/dev/shm");
    let outer = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let outer = outer.unwrap();
    let dir_of = |name: String| {
        let dir = outer.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir.join("state")
    };
    let whole = dir_of("whole".to_owned());
    let (mut changes, ended) = run(&whole, usize::MAX);
    assert!(ended, "nobody kills it");
    assert_eq!(judge(&whole, "not killed").await, COMMANDS);
    let told = std::env::var("KILLS").ok();
    let kills = told.and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut marks = BTreeSet::new();
    for number in 0..kills {
        let behind = 1 + number * changes / kills;
        let dir = dir_of(format!("kill-{number}"));
        let (seen, ended) = run(&dir, behind);
        let case = format!("killed behind change {behind} of about {changes}");
        marks.insert(judge(&dir, &case).await);
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
        if ended {
            // It was looked at less often this time.
            changes = seen;
        }
    }
    println!("kills: {kills} behind changes 1 to {changes} of files, found at {marks:?}");
    let by_itself = |mark: &&u64| ![0, IMAGE, SNAPSHOT, COMMANDS].contains(*mark);
    let flushed = marks.iter().filter(by_itself).count();
    assert!(flushed > 1, "it flushes by itself: {marks:?}");
}
