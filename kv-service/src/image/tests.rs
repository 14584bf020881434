//! Goal: a machine that was restored from an image is the one that it was taken from, and bytes
//! that are no image do no harm. Method: random commands through whole machines; images in small
//! parts, also damaged ones.

use std::collections::VecDeque;

use async_trait::async_trait;
use futures_util::FutureExt;
use kv_api::limits::{KEY_BYTES_MAX, SNAPSHOT_PART_BYTES_MAX, VALUE_BYTES_MAX};
use kv_api::{Command, ScanPage, SessionStamp, WriteOp, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample;
use raft_core::{
    Index, LogId, SnapshotDescriptor, SnapshotMeta, SnapshotReader, StateMachine,
    StateMachineError, StorageError, Term,
};

use super::*;
use crate::state_machine::KvStateMachine;
use crate::store::ScanRange;
use crate::store::tests::any_write;

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready at once")
}

/// The parts of a machine's image, each of about this many bytes.
fn parts_of(machine: &KvStateMachine, part_bytes: usize) -> Vec<Bytes> {
    let mut image = ImageParts {
        part_bytes,
        ..ImageParts::new(machine.store().clone(), machine.sessions().clone())
    };
    std::iter::from_fn(|| image.next_part()).collect()
}

/// A snapshot in memory.
struct Parts {
    descriptor: SnapshotDescriptor,
    parts: VecDeque<Bytes>,
}

#[async_trait]
impl SnapshotReader for Parts {
    fn descriptor(&self) -> &SnapshotDescriptor {
        &self.descriptor
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        self.parts.drain(..part as usize);
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        Ok(self.parts.pop_front())
    }
}

pub(crate) fn snapshot(last: u64, parts: Vec<Bytes>) -> Box<dyn SnapshotReader> {
    let last = LogId::new(Term(2), Index(last));
    let descriptor = SnapshotDescriptor {
        meta: SnapshotMeta {
            last,
            ..SnapshotMeta::default()
        },
        parts: parts.len() as u64,
        ..SnapshotDescriptor::default()
    };
    Box::new(Parts {
        descriptor,
        parts: parts.into(),
    })
}

fn restore(
    machine: &mut KvStateMachine,
    last: u64,
    parts: Vec<Bytes>,
) -> Result<(), StateMachineError> {
    now(machine.restore(snapshot(last, parts)))
}

const LIMITS: SessionLimits = SessionLimits {
    sessions_max: 3,
    window_max: 5,
    replies_max: 9,
};

fn retention(revisions_max: usize, bytes_max: usize) -> Retention {
    Retention {
        revisions_max,
        bytes_max,
    }
}

fn any_retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        Just(Retention::default()),
        (0_usize..40, 0_usize..600).prop_map(|(revisions, bytes)| retention(revisions, bytes)),
    ]
}

fn put(key: &str, value: impl Into<Bytes>) -> Command {
    let op = WriteOp::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
    };
    Command::Write { stamp: None, op }
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Write(WriteOp),
    /// Of the n-th session from the newest on.
    Stamped(usize, u64, u64, WriteOp),
    /// To this part of the revisions, in percent.
    Compact(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let stamped = (0_usize..4, 1_u64..9, 1_u64..6, any_write())
        .prop_map(|(session, sequence, from, op)| Step::Stamped(session, sequence, from, op));
    prop_oneof![
        1 => Just(Step::Open),
        10 => any_write().prop_map(Step::Write),
        5 => stamped,
        1 => (0_u64..=100).prop_map(Step::Compact),
    ]
}

/// Commands for a log that begins behind `index`. Entries that are no commands lie in between.
#[derive(Clone, Default)]
struct Log {
    index: u64,
    opened: Vec<u64>,
}

impl Log {
    fn apply(&mut self, machine: &mut KvStateMachine, step: &Step) -> CommandReply {
        self.index += 2;
        let command = match step {
            Step::Open => {
                self.opened.push(self.index);
                Command::OpenSession
            }
            Step::Write(op) => Command::Write {
                stamp: None,
                op: op.clone(),
            },
            Step::Stamped(session, sequence, unanswered_from, op) => {
                let session = self.opened.iter().rev().nth(*session).copied();
                let stamp = SessionStamp {
                    session: SessionId(session.unwrap_or(0)),
                    sequence: *sequence,
                    unanswered_from: *unanswered_from,
                };
                Command::Write {
                    stamp: Some(stamp),
                    op: op.clone(),
                }
            }
            Step::Compact(percent) => {
                // A damaged image may be of any revision.
                let share = u128::from(machine.store().revision()) * u128::from(*percent) / 100;
                let revision = u64::try_from(share).expect("at most the whole");
                Command::Compact { revision }
            }
        };
        machine.apply_command(Index(self.index), &encode(&command))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_machine_goes_on_like_the_original(
        retention in any_retention(),
        part_bytes in 1_usize..400,
        before in vec(any_step(), 0..120),
        after in vec(any_step(), 0..120),
    ) {
        let mut original = KvStateMachine::with_limits(retention, LIMITS);
        let mut log = Log::default();
        for step in &before {
            log.apply(&mut original, step);
        }
        // The image is read while the machine goes on, and does not move.
        let (digest, at_once) = (original.digest(), parts_of(&original, part_bytes));
        let mut image = ImageParts {
            part_bytes,
            ..ImageParts::new(original.store().clone(), original.sessions().clone())
        };
        let (taken_at, mut log_of_restored) = (log.index + 1, log.clone());
        let unmoved = original.clone();
        let (mut parts, mut replies) = (Vec::new(), Vec::new());
        for step in &after {
            replies.push(log.apply(&mut original, step));
            parts.extend(image.next_part());
        }
        parts.extend(std::iter::from_fn(|| image.next_part()));
        prop_assert_eq!(&parts, &at_once);

        let mut restored = KvStateMachine::with_limits(retention, LIMITS);
        // Whatever was there before is gone.
        restored.apply_command(Index(1), &encode(&put("other", "x")));
        restore(&mut restored, taken_at, parts).unwrap();
        prop_assert_eq!(restored.applied(), LogId::new(Term(2), Index(taken_at)));
        prop_assert_eq!(restored.digest(), digest);
        restored.store().check();
        prop_assert_eq!(parts_of(&restored, part_bytes), at_once);
        let (before, now) = (readable_in(&restored), readable_in(&unmoved));
        prop_assert_eq!(before, now, "what can be read at any revision");
        for (step, reply) in after.iter().zip(replies) {
            prop_assert_eq!(log_of_restored.apply(&mut restored, step), reply, "{:?}", step);
        }
        prop_assert_eq!(restored.digest(), original.digest());
        restored.store().check();
        prop_assert_eq!(parts_of(&restored, part_bytes), parts_of(&original, part_bytes));
    }

    /// Whatever is changed in it: an error, or another image of a whole machine.
    #[test]
    fn a_damaged_image_does_no_harm(
        steps in vec(any_step(), 0..60),
        damages in vec(any::<(sample::Index, sample::Index, u8)>(), 1..4),
        cut in any::<Option<sample::Index>>(),
    ) {
        let mut machine = KvStateMachine::with_limits(Retention::default(), LIMITS);
        let mut log = Log::default();
        for step in &steps {
            log.apply(&mut machine, step);
        }
        let parts = parts_of(&machine, 100);
        let mut parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        for (part, byte, value) in damages {
            let part = part.get_mut(&mut parts);
            *byte.get_mut(part) = value;
        }
        if let Some(cut) = cut {
            let last = parts.last_mut().expect("a head");
            last.truncate(cut.index(last.len()));
        }
        let parts = parts.into_iter().map(Bytes::from).collect();
        let before = machine.digest();
        if restore(&mut machine, log.index, parts).is_err() {
            prop_assert_eq!(machine.digest(), before, "all or nothing");
        }
        machine.store().check();
        log.apply(&mut machine, &Step::Open);
        log.apply(&mut machine, &Step::Compact(50));
    }

    #[test]
    fn arbitrary_parts_do_no_harm(parts in vec(vec(any::<u8>(), 0..200), 0..4)) {
        let mut writer = ImageRestorer::new(Retention::default(), LIMITS);
        let honest = parts_of(&KvStateMachine::with_limits(Retention::default(), LIMITS), 100);
        writer.push(&honest[0]).unwrap();
        for (kind, part) in [SESSIONS, KEYS, KEYS, 9].into_iter().zip(parts) {
            let part = [&[FORMAT, kind][..], &part].concat();
            if writer.push(&part).is_err() {
                return Ok(());
            }
        }
    }
}

/// All that can be read, at each revision that can be read at.
fn readable_in(machine: &KvStateMachine) -> Vec<ScanPage> {
    let store = machine.store();
    let range = ScanRange {
        from: Bytes::new(),
        to: None,
        limit: 0,
        keys_only: false,
    };
    let pages = (store.oldest()..=store.revision()).map(|at| store.scan(&range, Some(at)));
    pages.map(|page| page.expect("readable")).collect()
}

/// A machine with something of everything.
fn example() -> (KvStateMachine, u64) {
    let mut machine = KvStateMachine::with_limits(retention(10, 1000), LIMITS);
    let stamp = SessionStamp {
        session: SessionId(1),
        sequence: 3,
        unanswered_from: 2,
    };
    let delete = WriteOp::Delete { key: "b".into() };
    let commands = [
        Command::OpenSession,
        put("a", "1"),
        put("b", "2"),
        put("a", "3"),
        Command::Write {
            stamp: Some(stamp),
            op: delete,
        },
    ];
    for (index, command) in (1..).zip(&commands) {
        machine.apply_command(Index(index), &encode(command));
    }
    (machine, commands.len() as u64)
}

/// Snapshots are kept for years: these bytes never change, a new format gets a new number.
#[test]
fn the_bytes_of_format_1() {
    let (machine, _) = example();
    let found: Vec<String> = parts_of(&machine, PART_BYTES)
        .iter()
        .map(|part| part.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let number = |value: u64| -> String {
        let bytes = value.to_le_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let numbers = |values: &[u64]| -> String { values.iter().map(|it| number(*it)).collect() };
    let counts = numbers(&[4, 0, 1, 2, 4, 1, 1]);
    let limits = numbers(&[10, 1000, 3, 5, 9]);
    let session = numbers(&[1, 5, 2]);
    let reply = "01020000000104000000";
    let expected = [
        format!("0101{counts}{limits}"),
        format!("0102 01{session} 02{} 0e000000 {reply}00000000", number(3)),
        format!(
            "0103 02{}0100000001000000 61 31 01{}0100000001000000 61 33 \
             03{}0100000001000000 62 32",
            numbers(&[1, 1, 1, 3]),
            numbers(&[1, 3, 2]),
            numbers(&[2, 2, 1, 4]),
        ),
    ];
    let expected = expected.map(|it| it.split_whitespace().collect::<String>());
    assert_eq!(found, expected);
}

#[test]
fn a_repetition_is_recognised_after_a_restore() {
    let (mut original, last) = example();
    let mut restored = KvStateMachine::with_limits(retention(10, 1000), LIMITS);
    restore(&mut restored, last, parts_of(&original, PART_BYTES)).unwrap();
    let stamp = SessionStamp {
        session: SessionId(1),
        sequence: 3,
        unanswered_from: 2,
    };
    let again = encode(&Command::Write {
        stamp: Some(stamp),
        op: WriteOp::Delete { key: "b".into() },
    });
    let reply = restored.apply_command(Index(6), &again);
    let deleted = CommandReply::Deleted {
        existed: true,
        revision: 4,
    };
    assert_eq!(reply, deleted, "not executed again: it would find nothing");
    assert_eq!(original.apply_command(Index(6), &again), deleted);
}

#[test]
fn parts_are_bounded_whatever_is_in_them() {
    let mut machine = KvStateMachine::new();
    let mut index = 0;
    let mut apply = |machine: &mut KvStateMachine, command: &Command| {
        index += 1;
        machine.apply_command(Index(index), &encode(command));
    };
    let key = "k".repeat(KEY_BYTES_MAX - 1);
    for n in 0..3 {
        let value = vec![n; VALUE_BYTES_MAX];
        apply(&mut machine, &put(&format!("{key}{n}"), value));
    }
    for n in 0..5_000 {
        apply(&mut machine, &put(&format!("small-{n:05}"), vec![1; 200]));
        apply(&mut machine, &Command::OpenSession);
    }
    let parts = parts_of(&machine, PART_BYTES);
    let largest = parts.iter().map(Bytes::len).max().unwrap();
    assert!(largest <= PART_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 64);
    assert!(largest <= SNAPSHOT_PART_BYTES_MAX);
    assert!(largest <= raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX);
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    assert!(parts.len() <= bytes / PART_BYTES + 4, "no part for nothing");
    let mut restored = KvStateMachine::new();
    restore(&mut restored, index, parts).unwrap();
    assert_eq!(restored.digest(), machine.digest());
}

#[test]
fn an_image_costs_nothing_to_take() {
    let (mut machine, _) = example();
    let mut image = now(machine.snapshot()).unwrap();
    machine.apply_command(Index(6), &encode(&put("c", "later")));
    let mut parts = Vec::new();
    while let Some(part) = now(image.next_part()).unwrap() {
        parts.push(part);
    }
    assert_eq!(parts, parts_of(&example().0, PART_BYTES));
}

/// Restores what a change makes of the parts of the example; gives the words of the error.
fn refused(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> String {
    let (mut machine, last) = example();
    let mut parts: Vec<Vec<u8>> = parts_of(&machine, PART_BYTES)
        .iter()
        .map(|it| it.to_vec())
        .collect();
    change(&mut parts);
    let parts = parts.into_iter().map(Bytes::from).collect();
    let error = restore(&mut machine, last, parts).unwrap_err().to_string();
    assert_eq!(machine.digest(), example().0.digest(), "all or nothing");
    error
}

#[test]
fn what_is_no_image_is_refused_with_the_reason() {
    fn add(part: &mut [u8], at: usize, by: u8) {
        part[at] = part[at].wrapping_add(by);
    }
    type Change<'a> = &'a dyn Fn(&mut Vec<Vec<u8>>);
    let cases: [(&str, Change<'_>); 18] = [
        ("there is no head", &|parts| parts.clear()),
        ("part 0: format 3", &|parts| parts[0][0] = 3),
        ("checkpoint of RocksDB", &|parts| parts[0][0] = CHECKPOINT),
        ("kind 3 behind one of kind 0", &|parts| {
            drop(parts.drain(..2));
        }),
        ("kind 2 behind one of kind 3", &|parts| parts.swap(1, 2)),
        ("kind 1 behind one of kind 3", &|parts| {
            parts.push(parts[0].clone());
        }),
        ("kind 9 behind one of kind 2", &|parts| parts[2][1] = 9),
        ("1 bytes behind the head", &|parts| parts[0].push(0)),
        ("sessions: 0 instead of 1", &|parts| drop(parts.remove(1))),
        ("keys: 0 instead of 1", &|parts| drop(parts.remove(2))),
        ("kept replies: 1 instead of 2", &|parts| {
            add(&mut parts[0], 2 + 6 * 8, 1);
        }),
        ("history revisions_max of 11", &|parts| {
            add(&mut parts[0], 2 + 7 * 8, 1);
        }),
        ("revision 9223372036854775", &|parts| parts[0][2 + 7] = 0x80),
        ("the order of sessions", &|parts| {
            let session = parts[1][2..27].to_vec();
            parts[1].extend(session);
        }),
        ("session was used by entry 6", &|parts| {
            add(&mut parts[1], 2 + 1 + 8, 1);
        }),
        ("the order of keys", &|parts| {
            let first = parts[2][2..45].to_vec();
            parts[2].extend(first);
        }),
        ("its count of writes", &|parts| {
            add(&mut parts[2], 2 + 1 + 16, 1);
        }),
        ("cut short inside a record, 1 bytes", &|parts| {
            let _last = parts[2].pop();
        }),
    ];
    for (said, change) in cases {
        let error = refused(change);
        assert!(error.contains(said), "{said}: {error}");
    }
}

/// A compaction is paid off by the commands that follow. Replicas that have got further with it are
/// in the same state.
#[test]
fn how_far_a_compaction_has_got_is_not_part_of_an_image() {
    let mut machine = KvStateMachine::new();
    let mut index = 0;
    let mut apply = |machine: &mut KvStateMachine, command: &Command| {
        index += 1;
        machine.apply_command(Index(index), &encode(command));
    };
    for round in 0..5_000_u64 {
        let key = format!("key-{}", round % 3);
        apply(&mut machine, &put(&key, round.to_le_bytes().to_vec()));
    }
    let delete = WriteOp::Delete {
        key: "key-2".into(),
    };
    let delete = Command::Write {
        stamp: None,
        op: delete,
    };
    apply(&mut machine, &delete);
    let compact = Command::Compact { revision: 5_001 };
    apply(&mut machine, &compact);
    let held = machine.store().history_len();
    assert!(held > 1_000, "{held} versions are still to be dropped");
    let (early, digest) = (parts_of(&machine, PART_BYTES), machine.digest());
    let mut restored = KvStateMachine::new();
    restore(&mut restored, 5_002, early.clone()).unwrap();
    assert_eq!(
        (restored.digest(), restored.store().history_len()),
        (digest, 0)
    );
    for _ in 0..10 {
        apply(&mut machine, &compact);
    }
    assert_eq!(machine.store().history_len(), 0);
    assert_eq!(parts_of(&machine, PART_BYTES), early);
}

fn version(key: &str, [create, modified, version]: [u64; 3], fate: Fate) -> Retained {
    Retained {
        key: Bytes::copy_from_slice(key.as_bytes()),
        create_revision: create,
        mod_revision: modified,
        version,
        value: "v".into(),
        fate,
    }
}

#[test]
fn versions_that_contradict_each_other_are_refused() {
    use Fate::{Deleted, Live, Replaced};
    let counts = StoreCounts {
        revision: 20,
        oldest: 5,
        live: 2,
        superseded: 3,
        superseded_bytes: 6,
    };
    let restored = |versions: &[Retained]| {
        let mut store = StoreRestorer::new(Retention::default(), counts, MemoryLive::default())?;
        for version in versions {
            store.push(version.clone())?;
        }
        store.finish()
    };
    let good = [
        version("a", [2, 4, 2], Replaced(7)),
        version("a", [2, 7, 3], Deleted(9)),
        version("a", [12, 12, 1], Live),
        version("b", [3, 3, 1], Deleted(8)),
        version("c", [20, 20, 1], Live),
    ];
    restored(&good).unwrap().check();
    let changed = |at: usize, change: fn(&mut Retained)| {
        let mut versions = good.clone();
        change(&mut versions[at]);
        restored(&versions).unwrap_err().to_string()
    };
    for (at, change, said) in [
        (
            0,
            (|it| it.create_revision = 0) as fn(&mut Retained),
            "the revisions of its key",
        ),
        (0, |it| it.create_revision = 5, "the revisions of its key"),
        (4, |it| it.mod_revision = 21, "the revisions of its key"),
        (0, |it| it.version = 0, "its count of writes"),
        (0, |it| it.version = 4, "its count of writes"),
        (4, |it| it.version = 2, "its count of writes"),
        (2, |it| it.create_revision = 10, "its count of writes"),
        (0, |it| it.fate = Replaced(4), "the revision that ended it"),
        (0, |it| it.fate = Replaced(5), "the revision that ended it"),
        (3, |it| it.fate = Deleted(21), "the revision that ended it"),
        (3, |it| it.fate = Deleted(9), "ended at the same revision"),
        (3, |it| it.fate = Replaced(8), "what replaced it is missing"),
        (0, |it| it.fate = Replaced(6), "which another one replaced"),
        (1, |it| it.version = 4, "which another one replaced"),
        (1, |it| it.create_revision = 3, "which another one replaced"),
        (0, |it| it.fate = Deleted(7), "which was deleted"),
        (1, |it| it.fate = Deleted(12), "which was deleted"),
        (1, |it| it.fate = Live, "the newest version of its key"),
        (3, |it| it.key = "0".into(), "the order of keys"),
        (3, |it| it.key = Bytes::new(), "key of 0 bytes"),
        (
            3,
            |it| it.value = vec![0; VALUE_BYTES_MAX + 1].into(),
            "value of 1048577 bytes",
        ),
        (
            3,
            |it| it.value = "vw".into(),
            "bytes of superseded versions: 7 instead of 6",
        ),
        (
            3,
            |it| it.value = Bytes::new(),
            "bytes of superseded versions: 5 instead of 6",
        ),
        (3, |it| it.fate = Live, "keys: 3 instead of 2"),
    ] {
        let error = changed(at, change);
        assert!(error.contains(said), "{at}, {said}: {error}");
    }
    let error = restored(&good[..4]).unwrap_err().to_string();
    assert!(error.contains("keys: 1 instead of 2"), "{error}");
    let error = restored(&[&good[..3], &good[4..]].concat()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("superseded versions: 2 instead of 3"),
        "{error}"
    );
    let announced = |counts| {
        let live = MemoryLive::default();
        StoreRestorer::new(retention(2, 6), counts, live).unwrap_err()
    };
    let error = announced(counts).to_string();
    assert!(
        error.contains("superseded versions of 3 are above the limit of 2"),
        "{error}"
    );
    let oldest = StoreCounts {
        oldest: 21,
        ..counts
    };
    assert!(
        announced(oldest)
            .to_string()
            .contains("the oldest revision: 21")
    );
}

#[test]
fn sessions_that_contradict_each_other_are_refused() {
    let session = |id, last_used, unanswered_from| SessionRecord::Session {
        id: SessionId(id),
        last_used,
        unanswered_from,
    };
    let reply = |sequence| SessionRecord::Reply(sequence, CommandReply::Compacted { oldest: 1 });
    let restored = |records: &[SessionRecord]| {
        let mut sessions = Sessions::new(LIMITS);
        let pushed = records.iter().try_for_each(|it| sessions.push(it.clone()));
        pushed.map(|()| sessions).map_err(|error| error.to_string())
    };
    let good = [
        session(2, 9, 3),
        reply(3),
        reply(8),
        session(5, 7, 1),
        reply(1),
    ];
    assert_eq!(restored(&good).unwrap().replies(), 3);
    for (records, said) in [
        (vec![reply(1)], "belongs to no session"),
        (vec![session(0, 1, 1)], "the order of sessions"),
        (
            vec![session(5, 7, 1), session(2, 9, 1)],
            "the order of sessions",
        ),
        (
            vec![session(5, 7, 1), session(5, 8, 1)],
            "the order of sessions",
        ),
        (vec![session(5, 4, 1)], "the order of their uses"),
        (
            vec![session(2, 9, 1), session(5, 9, 1)],
            "the order of their uses",
        ),
        (vec![session(2, 9, 0)], "the first number of a call"),
        (vec![session(2, 9, 3), reply(2)], "the window of its calls"),
        (vec![session(2, 9, 3), reply(9)], "the window of its calls"),
        (
            vec![session(2, 9, 1), reply(3), reply(3)],
            "the order of calls",
        ),
        (
            (1..=4).map(|id| session(id, 10 + id, 1)).collect(),
            "sessions of 4 are above",
        ),
        (
            [1, 2]
                .into_iter()
                .flat_map(|id| {
                    let replies = (1..=5).map(reply);
                    std::iter::once(session(id, 10 + id, 1)).chain(replies)
                })
                .collect(),
            "kept replies of 10 are above the limit of 9",
        ),
    ] {
        let error = restored(&records).unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
}
