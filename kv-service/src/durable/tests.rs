//! Goal: whatever is done to it, and wherever it is killed, this machine is the one in memory.
//! Method: both are given the same random commands in batches; between them the process of this one
//! ends, well or badly, and images go from each kind to each kind. Replies, digests and all that
//! can be read are compared.

mod kills;

use std::path::{Path, PathBuf};

use kv_api::{Command, SessionId, SessionStamp, WriteOp, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use raft_core::{ClusterId, Incarnation, Index, NodeId, Term};
use raft_storage::conformance::copy_as_if_killed;
use raft_storage::rocks_state::STATE_CACHE_BYTES_MIN;

use super::*;
use crate::image::tests::snapshot;
use crate::state_machine::KvStateMachine;
use crate::store::tests::any_write;

const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([3; 16]),
    node: NodeId(2),
    incarnation: Incarnation(5),
};

const LIMITS: SessionLimits = SessionLimits {
    sessions_max: 3,
    window_max: 5,
    replies_max: 9,
};

fn open(dir: &Path, retention: Retention) -> Result<DurableStateMachine, StorageError> {
    let options = StateOptions {
        cache_bytes: STATE_CACHE_BYTES_MIN,
    };
    DurableStateMachine::open_with_limits(dir, OWNER, options, retention, LIMITS)
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Write(WriteOp),
    /// Of the n-th session from the newest on.
    Stamped(usize, u64, u64, WriteOp),
    /// To this part of the revisions, in percent.
    Compact(u64),
    Garbage,
    /// The end of a batch.
    Batch,
    /// A get and a scan at this part of the revisions, in percent.
    Read(u64, WriteOp),
    /// The process is killed, and what it had written without a flush may be gone.
    Kill,
    /// The process ends in order.
    Close,
    /// An image is taken, and read while commands go on.
    Image,
    /// The state is replaced by that of an image of the other machine.
    FromMemory,
}

/// Some values are large enough to be kept apart.
fn any_sized_write() -> impl Strategy<Value = WriteOp> {
    let enlarged = (any_write(), 4090_usize..4110).prop_map(|(op, bytes)| match op {
        WriteOp::Put { key, .. } => WriteOp::Put {
            key,
            value: vec![7; bytes].into(),
        },
        other => other,
    });
    prop_oneof![5 => any_write(), 1 => enlarged]
}

fn any_step() -> impl Strategy<Value = Step> {
    let stamped = (0_usize..4, 1_u64..9, 1_u64..6, any_sized_write())
        .prop_map(|(session, sequence, from, op)| Step::Stamped(session, sequence, from, op));
    let read = (0_u64..=110, any_write()).prop_map(|(percent, op)| Step::Read(percent, op));
    prop_oneof![
        6 => Just(Step::Open),
        60 => any_sized_write().prop_map(Step::Write),
        30 => stamped,
        6 => (0_u64..=100).prop_map(Step::Compact),
        1 => Just(Step::Garbage),
        30 => Just(Step::Batch),
        10 => read,
        3 => Just(Step::Kill),
        1 => Just(Step::Close),
        2 => Just(Step::Image),
        1 => Just(Step::FromMemory),
    ]
}

fn any_retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        Just(Retention::default()),
        (0_usize..40, 0_usize..9000).prop_map(|(revisions_max, bytes_max)| Retention {
            revisions_max,
            bytes_max,
        }),
    ]
}

/// Both machines, and the log that they were given.
struct Pair {
    dir: tempfile::TempDir,
    path: PathBuf,
    lives: usize,
    retention: Retention,
    disk: Option<DurableStateMachine>,
    memory: KvStateMachine,
    batch: Vec<CommittedCommand>,
    log: Vec<(CommittedCommand, Bytes)>,
    index: u64,
    opened: Vec<u64>,
}

impl Pair {
    fn new(retention: Retention) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("life-0");
        let disk = open(&path, retention).unwrap();
        Self {
            dir,
            path,
            lives: 0,
            retention,
            disk: Some(disk),
            memory: KvStateMachine::with_limits(retention, LIMITS),
            batch: Vec::new(),
            log: Vec::new(),
            index: 0,
            opened: Vec::new(),
        }
    }

    fn disk(&mut self) -> &mut DurableStateMachine {
        self.disk.as_mut().unwrap()
    }

    fn push(&mut self, payload: Vec<u8>) {
        self.index += 2;
        self.batch.push(CommittedCommand {
            id: LogId::new(Term(2), Index(self.index)),
            payload: payload.into(),
        });
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Open => {
                self.push(encode(&Command::OpenSession));
                self.opened.push(self.index);
            }
            Step::Write(op) => {
                let (stamp, op) = (None, op.clone());
                self.push(encode(&Command::Write { stamp, op }));
            }
            Step::Stamped(session, sequence, unanswered_from, op) => {
                let session = self.opened.iter().rev().nth(*session).copied();
                let stamp = Some(SessionStamp {
                    session: SessionId(session.unwrap_or(0)),
                    sequence: *sequence,
                    unanswered_from: *unanswered_from,
                });
                let op = op.clone();
                self.push(encode(&Command::Write { stamp, op }));
            }
            Step::Compact(percent) => {
                let revision = self.memory.store().revision() * percent / 100;
                self.push(encode(&Command::Compact { revision }));
            }
            Step::Garbage => self.push(b"no command".to_vec()),
            Step::Batch => self.flush_batch().await,
            Step::Read(percent, op) => self.read(*percent, op.key()).await,
            Step::Kill => {
                self.flush_batch().await;
                self.kill().await;
            }
            Step::Close => {
                self.flush_batch().await;
                self.disk = None;
                self.disk = Some(open(&self.path, self.retention).unwrap());
                let last = self.log.last().map(|(command, _)| command.id);
                let applied = self.disk().applied();
                assert!(
                    last.is_none_or(|last| last <= applied),
                    "all of it is there"
                );
            }
            Step::Image => self.image().await,
            Step::FromMemory => self.move_from_memory().await,
        }
    }

    async fn flush_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let expected = self.memory.apply(batch.clone()).await.unwrap();
        let replies = self.disk().apply(batch.clone()).await.unwrap();
        assert_eq!(replies, expected);
        self.log.extend(batch.into_iter().zip(replies));
    }

    /// Goes on with what the disk has kept, and is given the log from there on.
    async fn kill(&mut self) {
        self.lives += 1;
        let next = self.dir.path().join(format!("life-{}", self.lives));
        copy_as_if_killed(&self.path, &next);
        let flushed = self.disk().applied();
        self.disk = Some(open(&next, self.retention).unwrap());
        self.path = next;
        let applied = self.disk().applied();
        assert!(applied >= flushed, "{applied} {flushed}");
        let is_missing = |(command, _): &&(CommittedCommand, Bytes)| command.id > applied;
        let missing: Vec<_> = self.log.iter().filter(is_missing).cloned().collect();
        for part in missing.chunks(7) {
            let commands = part.iter().map(|(command, _)| command.clone()).collect();
            let replies = self.disk().apply(commands).await.unwrap();
            let expected: Vec<Bytes> = part.iter().map(|(_, reply)| reply.clone()).collect();
            assert_eq!(replies, expected, "applied again");
        }
        assert_eq!(self.disk().digest().unwrap(), self.memory.digest());
    }

    async fn ask(&mut self, query: Query) {
        let query = Bytes::from(encode(&query));
        let expected = self.memory.query(query.clone()).await.unwrap();
        assert_eq!(self.disk().query(query).await.unwrap(), expected);
    }

    async fn read(&mut self, percent: u64, key: &Bytes) {
        let revision = Some(self.memory.store().revision() * percent / 100);
        for revision in [None, revision] {
            let key = key.clone();
            self.ask(Query::Get { key, revision }).await;
        }
        for (from, to, limit, keys_only) in [
            (Bytes::new(), None, 0, false),
            (key.clone(), None, 3, false),
            (Bytes::new(), Some(key.clone()), 5, true),
        ] {
            let query = Query::Scan {
                from,
                to,
                revision,
                limit,
                keys_only,
            };
            self.ask(query).await;
        }
    }

    /// An image goes to a new machine of each kind.
    async fn image(&mut self) {
        self.flush_batch().await;
        let digest = self.memory.digest();
        let mut image = self.disk().snapshot().await.unwrap();
        // Not moved by what comes next.
        self.push(encode(&Command::Write {
            stamp: None,
            op: WriteOp::Delete {
                key: "hot-1".into(),
            },
        }));
        let taken_at = self.index - 1;
        self.flush_batch().await;
        let mut parts = Vec::new();
        while let Some(part) = image.next_part().await.unwrap() {
            parts.push(part);
        }
        let scratch = self.dir.path().join("unpacked");
        let memory = KvStateMachine::with_limits(self.retention, LIMITS);
        let mut memory = memory.unpacking_at(scratch.clone());
        memory
            .restore(snapshot(taken_at, parts.clone()))
            .await
            .unwrap();
        assert_eq!(memory.digest(), digest);
        memory.store().check();
        assert!(!scratch.exists(), "cleared away");

        let other = tempfile::tempdir_in(self.dir.path()).unwrap();
        let mut disk = open(other.path(), self.retention).unwrap();
        disk.restore(snapshot(taken_at, parts)).await.unwrap();
        assert_eq!(disk.digest().unwrap(), digest);
        assert_eq!(disk.applied().index, Index(taken_at));
    }

    async fn move_from_memory(&mut self) {
        self.flush_batch().await;
        let mut image = self.memory.image();
        let mut parts = Vec::new();
        while let Some(part) = image.next_part().await.unwrap() {
            parts.push(part);
        }
        self.index += 1;
        let last = self.index;
        self.disk().restore(snapshot(last, parts)).await.unwrap();
        assert_eq!(self.disk().applied().index, Index(last));
        assert_eq!(self.disk().digest().unwrap(), self.memory.digest());
        // What comes before it is not applied again.
        self.log.clear();
    }

    /// All that can be read, and that nothing is left in memory that the history has dropped.
    async fn finish(&mut self) {
        self.flush_batch().await;
        assert_eq!(self.disk().digest().unwrap(), self.memory.digest());
        let (oldest, newest) = (self.memory.store().oldest(), self.memory.store().revision());
        for revision in oldest..=newest {
            let query = Query::Scan {
                from: Bytes::new(),
                to: None,
                revision: Some(revision),
                limit: 0,
                keys_only: false,
            };
            self.ask(query).await;
        }
        let inner = Arc::clone(&self.disk().inner);
        let mut inner = inner.lock().unwrap();
        let view = Arc::clone(inner.store.view());
        let state = inner.state().unwrap();
        state.store.check();
        load::check_keys(&view, state).unwrap();
        let history = state.store.history_len();
        assert!(state.store.live_mut().previous_len() <= history);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_machine_in_memory(
        retention in any_retention(),
        steps in vec(any_step(), 1..250),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new(retention);
            for step in &steps {
                pair.step(step).await;
            }
            pair.finish().await;
            pair.kill().await;
            pair.finish().await;
        });
    }
}

fn put(key: &'static str, value: impl Into<Bytes>) -> Command {
    let (key, value) = (key.into(), value.into());
    let op = WriteOp::Put { key, value };
    Command::Write { stamp: None, op }
}

fn committed(index: u64, command: &Command) -> CommittedCommand {
    CommittedCommand {
        id: LogId::new(Term(1), Index(index)),
        payload: encode(command).into(),
    }
}

#[tokio::test]
async fn what_was_kept_with_other_limits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = open(dir.path(), Retention::default()).unwrap();
    machine
        .apply(vec![committed(1, &put("k", "v"))])
        .await
        .unwrap();
    let mut image = machine.snapshot().await.unwrap();
    let mut parts = Vec::new();
    while let Some(part) = image.next_part().await.unwrap() {
        parts.push(part);
    }
    drop((image, machine));
    let other = Retention {
        revisions_max: 3,
        ..Retention::default()
    };
    let refused = open(dir.path(), other).unwrap_err();
    assert!(matches!(refused, StorageError::Foreign { .. }), "{refused}");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut machine = open(elsewhere.path(), other).unwrap();
    let refused = machine.restore(snapshot(1, parts)).await.unwrap_err();
    assert!(refused.to_string().contains("other limits"), "{refused}");
    machine
        .apply(vec![committed(1, &put("k", "v"))])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_machine_in_memory_needs_a_place_to_unpack() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = open(dir.path(), Retention::default()).unwrap();
    machine
        .apply(vec![committed(1, &put("k", "v"))])
        .await
        .unwrap();
    let mut image = machine.snapshot().await.unwrap();
    let part = image.next_part().await.unwrap().unwrap();
    let mut memory = KvStateMachine::with_limits(Retention::default(), LIMITS);
    let refused = memory.restore(snapshot(1, vec![part])).await.unwrap_err();
    assert!(
        refused.to_string().contains("checkpoint of RocksDB"),
        "{refused}"
    );
}

/// Every record that is changed or missing is an error where it is loaded or checked, or changes
/// nothing that can be read.
#[tokio::test]
async fn records_that_contradict_each_other_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = open(dir.path(), Retention::default()).unwrap();
    let delete = WriteOp::Delete { key: "b".into() };
    let stamp = SessionStamp {
        session: SessionId(1),
        sequence: 1,
        unanswered_from: 1,
    };
    let commands = [
        Command::OpenSession,
        put("a", "1"),
        put("b", "2"),
        put("a", vec![7; 5000]),
        Command::Write {
            stamp: Some(stamp),
            op: delete,
        },
    ];
    let batch = (1..)
        .zip(&commands)
        .map(|(index, command)| committed(index, command));
    machine.apply(batch.collect()).await.unwrap();
    let digest = machine.digest().unwrap();
    let records: Vec<(Vec<u8>, Vec<u8>)> = {
        let inner = machine.inner.lock().unwrap();
        let range = inner
            .store
            .view()
            .range(b"", std::ops::Bound::Unbounded, true);
        range.map(Result::unwrap).collect()
    };
    drop(machine);
    let kinds: Vec<u8> = records.iter().map(|(key, _)| key[0]).collect();
    assert_eq!(kinds, b"dhhlmrsv");
    let outcome = |change: &dyn Fn(&mut raft_storage::rocks_state::StateBatch)| {
        let copied = tempfile::tempdir().unwrap();
        copy_as_if_killed(dir.path(), copied.path());
        let options = StateOptions::default();
        let mut store = StateStore::open(copied.path(), OWNER, options).unwrap();
        let mut batch = raft_storage::rocks_state::StateBatch::new();
        change(&mut batch);
        store.write(batch, LogId::new(Term(1), Index(6))).unwrap();
        let (view, applied) = (Arc::clone(store.view()), store.applied());
        let state = load::load(&view, applied, Retention::default(), LIMITS)?;
        load::check_keys(&view, &state)?;
        state.digest()
    };
    assert_eq!(outcome(&|_| ()), Ok(digest));
    for (key, value) in &records {
        let missing = outcome(&|batch| batch.delete(key));
        assert!(missing.is_err(), "{key:?} is missing");
        for at in (0..value.len()).step_by(3) {
            let mut damaged = value.clone();
            damaged[at] ^= 0xff;
            let found = outcome(&|batch| batch.put(key, &damaged));
            // A value that is changed to another value of the same size is RocksDB's to find.
            assert!(found != Ok(digest), "{key:?} at {at}");
            if value.len() > 200 && at > 40 {
                break;
            }
        }
        let cut = outcome(&|batch| batch.put(key, &value[..value.len() - 1]));
        assert!(cut != Ok(digest), "{key:?} is cut short");
    }
}
