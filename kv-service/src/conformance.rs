//! What every machine of the store must do, whatever it keeps its keys in: said in bytes, to the
//! contract that a node knows. Runs over the machine in memory, and over the one in RocksDB where
//! that is built.

use bytes::Bytes;
use kv_api::limits::{
    KEY_BYTES_MAX, SCAN_PAGE_BYTES_MAX, SNAPSHOT_PART_BYTES_MAX, VALUE_BYTES_MAX,
};
use kv_api::{
    Command, CommandError, CommandReply, Expect, KeyValue, Query, QueryError, QueryReply,
    SessionId, SessionStamp, WriteOp, Written, decode, encode,
};
use raft_core::{Command as CommittedCommand, Index, LogId, StateMachine, Term};

use crate::image::tests::snapshot;
use crate::state_machine::KvStateMachine;

/// Runs a case over every kind of machine, each time with two new ones.
fn each(case: impl AsyncFn(Subject, Subject)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        case(Subject::memory(), Subject::memory()).await;
        #[cfg(feature = "rocksdb")]
        {
            let dir = tempfile::tempdir().unwrap();
            let disk = |name: &str| Subject::disk(&dir.path().join(name));
            case(disk("one"), disk("two")).await;
            case(
                disk("three"),
                Subject::memory_at(dir.path().join("unpacked")),
            )
            .await;
            case(Subject::memory(), disk("four")).await;
        }
    });
}

/// A machine, and where its log ends.
struct Subject {
    machine: Box<dyn StateMachine>,
    index: u64,
}

impl Subject {
    fn of(machine: impl StateMachine + 'static) -> Self {
        Self {
            machine: Box::new(machine),
            index: 0,
        }
    }

    fn memory() -> Self {
        Self::of(KvStateMachine::new())
    }

    #[cfg(feature = "rocksdb")]
    fn memory_at(scratch: std::path::PathBuf) -> Self {
        Self::of(KvStateMachine::new().unpacking_at(scratch))
    }

    #[cfg(feature = "rocksdb")]
    fn disk(dir: &std::path::Path) -> Self {
        let owner = raft_storage::WalOwner {
            cluster: raft_core::ClusterId([1; 16]),
            node: raft_core::NodeId(1),
            incarnation: raft_core::Incarnation(1),
        };
        let options = raft_storage::rocks_state::StateOptions::default();
        Self::of(crate::durable::DurableStateMachine::open(dir, owner, options).unwrap())
    }

    async fn apply_all(&mut self, commands: &[Command]) -> Vec<CommandReply> {
        let batch = commands.iter().map(|command| {
            self.index += 1;
            CommittedCommand {
                id: LogId::new(Term(2), Index(self.index)),
                payload: encode(command).into(),
            }
        });
        let batch = batch.collect();
        let replies = self.machine.apply(batch).await.unwrap();
        replies.iter().map(|reply| decode(reply).unwrap()).collect()
    }

    async fn apply(&mut self, command: Command) -> CommandReply {
        self.apply_all(&[command]).await.remove(0)
    }

    async fn write(&mut self, op: WriteOp) -> CommandReply {
        self.apply(Command::Write { stamp: None, op }).await
    }

    async fn ask(&mut self, query: Query) -> QueryReply {
        decode(&self.machine.query(encode(&query).into()).await.unwrap()).unwrap()
    }

    async fn get(&mut self, key: &str, revision: Option<u64>) -> Option<KeyValue> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        match self.ask(Query::Get { key, revision }).await {
            QueryReply::Get { found, .. } => found,
            other => panic!("{other:?}"),
        }
    }

    /// All pages of all keys at one revision.
    async fn scan(&mut self, revision: Option<u64>) -> Vec<KeyValue> {
        let (mut from, mut items, mut revision) = (Bytes::new(), Vec::new(), revision);
        loop {
            let scan = Query::Scan {
                from,
                to: None,
                revision,
                limit: 0,
                keys_only: false,
            };
            let page = match self.ask(scan).await {
                QueryReply::Scan(page) => page,
                other => panic!("{other:?}"),
            };
            items.extend(page.items);
            revision = Some(page.revision);
            match page.next {
                Some(next) => from = next,
                None => return items,
            }
        }
    }

    async fn parts(&mut self) -> Vec<Bytes> {
        let mut image = self.machine.snapshot().await.unwrap();
        let mut parts = Vec::new();
        while let Some(part) = image.next_part().await.unwrap() {
            assert!(part.len() <= SNAPSHOT_PART_BYTES_MAX);
            parts.push(part);
        }
        parts
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> WriteOp {
    let (key, value) = (key.into(), value.into());
    WriteOp::Put { key, value }
}

fn append(key: &'static str, value: impl Into<Bytes>) -> WriteOp {
    WriteOp::Append {
        key: key.into(),
        value: value.into(),
    }
}

fn written(revision: u64, version: u64, value_bytes: usize) -> CommandReply {
    CommandReply::Written(Written {
        revision,
        version,
        value_bytes: value_bytes as u64,
    })
}

#[test]
fn commands_of_one_batch_see_each_other() {
    each(async |mut machine, _| {
        let commands = [
            put("k", "v"),
            append("k", "w"),
            WriteOp::Cas {
                key: "k".into(),
                expect: Expect::Value("vw".into()),
                value: "x".into(),
            },
            WriteOp::Delete { key: "k".into() },
            WriteOp::Delete { key: "k".into() },
            append("k", "new"),
        ];
        let commands = commands.map(|op| Command::Write { stamp: None, op });
        let replies = machine.apply_all(&commands).await;
        let deleted = |existed| CommandReply::Deleted {
            existed,
            revision: 4,
        };
        let expected = [
            written(1, 1, 1),
            written(2, 2, 2),
            written(3, 3, 1),
            deleted(true),
            deleted(false),
            written(5, 1, 3),
        ];
        assert_eq!(replies, expected);
        for (revision, value) in [
            (0, None),
            (1, Some("v")),
            (2, Some("vw")),
            (3, Some("x")),
            (4, None),
            (5, Some("new")),
        ] {
            let found = machine.get("k", Some(revision)).await;
            let found = found.map(|found| found.value);
            assert_eq!(found, value.map(Bytes::from), "at {revision}");
        }
        let found = machine.get("k", None).await.unwrap();
        assert_eq!((found.create_revision, found.mod_revision), (5, 5));
    });
}

#[test]
fn what_is_no_command_or_out_of_order_changes_nothing() {
    each(async |mut machine, _| {
        machine.write(put("k", "v")).await;
        let garbage = |index| CommittedCommand {
            id: LogId::new(Term(2), Index(index)),
            payload: "no command".into(),
        };
        let replies = machine.machine.apply(vec![garbage(2)]).await.unwrap();
        let reply: CommandReply = decode(&replies[0]).unwrap();
        let malformed = matches!(&reply, CommandReply::Refused(CommandError::Malformed(_)));
        assert!(malformed, "{reply:?}");
        let reply = machine.machine.query("no query".into()).await.unwrap();
        let reply: QueryReply = decode(&reply).unwrap();
        let malformed = matches!(&reply, QueryReply::Refused(QueryError::Malformed(_)));
        assert!(malformed, "{reply:?}");
        assert_eq!(machine.scan(None).await.len(), 1);
        machine.machine.apply(vec![garbage(2)]).await.unwrap_err();
    });
}

#[test]
fn the_largest_keys_and_values_go_through() {
    each(async |mut machine, _| {
        let key = Bytes::from(vec![b'k'; KEY_BYTES_MAX]);
        let (old, new) = (vec![1; VALUE_BYTES_MAX], vec![2; VALUE_BYTES_MAX]);
        machine.write(put(key.clone(), old.clone())).await;
        let cas = WriteOp::Cas {
            key: key.clone(),
            expect: Expect::Value(old.clone().into()),
            value: new.clone().into(),
        };
        assert_eq!(machine.write(cas).await, written(2, 2, VALUE_BYTES_MAX));
        for (revision, value) in [(1, old), (2, new)] {
            let (key, revision) = (key.clone(), Some(revision));
            match machine.ask(Query::Get { key, revision }).await {
                QueryReply::Get { found, .. } => assert_eq!(found.unwrap().value, value),
                other => panic!("{other:?}"),
            }
        }
        // Small, large, small again: wherever a value lies, the newest one is read.
        for (revision, bytes) in [10, 4096, 4097, VALUE_BYTES_MAX, 0, 5000, 1]
            .into_iter()
            .enumerate()
        {
            machine
                .write(put("size", vec![revision as u8; bytes]))
                .await;
            let found = machine.get("size", None).await.unwrap();
            assert_eq!(found.value, vec![revision as u8; bytes]);
        }
        machine.write(WriteOp::Delete { key: "size".into() }).await;
        assert_eq!(machine.get("size", None).await, None);
        let kept = machine.get("size", Some(6)).await.unwrap();
        assert_eq!(kept.value.len(), VALUE_BYTES_MAX);
    });
}

/// Small commands that make large values: more than is held back until it is written.
#[test]
fn one_batch_may_change_far_more_than_it_has() {
    each(async |mut machine, _| {
        let keys = ["a", "b", "c"];
        for key in keys {
            machine
                .write(put(key, vec![b'x'; VALUE_BYTES_MAX - 100]))
                .await;
        }
        let appends = (0..90).map(|n| Command::Write {
            stamp: None,
            op: append(keys[n % 3], "y"),
        });
        let appends: Vec<Command> = appends.collect();
        let replies = machine.apply_all(&appends).await;
        assert_eq!(replies[89], written(93, 31, VALUE_BYTES_MAX - 70));
        for key in keys {
            let found = machine.get(key, None).await.unwrap();
            assert!(found.value.ends_with(b"xyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"));
        }
    });
}

#[test]
fn a_copy_of_a_call_gets_the_answer_of_the_first() {
    each(async |mut machine, _| {
        machine.apply(Command::OpenSession).await;
        let call = |sequence, op| Command::Write {
            stamp: Some(SessionStamp {
                session: SessionId(1),
                sequence,
                unanswered_from: 1,
            }),
            op,
        };
        machine.write(put("k", vec![1; VALUE_BYTES_MAX])).await;
        // A refusal is an outcome like any other.
        let refused = machine.apply(call(1, append("k", "x"))).await;
        assert!(matches!(
            refused,
            CommandReply::Refused(CommandError::Limit(_))
        ));
        machine.apply(call(2, put("k", "small"))).await;
        assert_eq!(machine.apply(call(1, append("k", "x"))).await, refused);
        let copies = [call(3, append("k", "y")), call(3, append("k", "y"))];
        let replies = machine.apply_all(&copies).await;
        assert_eq!(replies, [written(3, 3, 6), written(3, 3, 6)]);
        assert_eq!(machine.get("k", None).await.unwrap().value, "smally");
    });
}

#[test]
fn pages_agree_at_a_revision_and_keep_within_their_bounds() {
    each(async |mut machine, _| {
        let values = [10, 5000, SCAN_PAGE_BYTES_MAX / 2, VALUE_BYTES_MAX, 1];
        for (n, bytes) in (0..20).zip(values.into_iter().cycle()) {
            machine
                .write(put(format!("key-{n:02}"), vec![n; bytes]))
                .await;
        }
        let before = machine.scan(None).await;
        assert_eq!(before.len(), 20);
        for n in (0_u8..20).step_by(2) {
            machine
                .write(WriteOp::Delete {
                    key: format!("key-{n:02}").into(),
                })
                .await;
            machine.write(put(format!("key-{:02}", n + 1), "new")).await;
            machine
                .write(put(format!("other-{n}"), vec![n; 9000]))
                .await;
        }
        assert_eq!(machine.scan(Some(20)).await, before);
        assert_eq!(machine.scan(None).await.len(), 20);
        let query = |limit, keys_only| Query::Scan {
            from: "key".into(),
            to: Some("kez".into()),
            revision: Some(20),
            limit,
            keys_only,
        };
        match machine.ask(query(7, true)).await {
            QueryReply::Scan(page) => {
                assert_eq!((page.items.len(), page.next), (7, Some("key-07".into())));
                assert!(page.items.iter().all(|item| item.value.is_empty()));
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn history_goes_where_it_is_compacted() {
    each(async |mut machine, _| {
        for n in 0..3000 {
            machine.write(put("hot", format!("{n}"))).await;
        }
        let compacted = machine.apply(Command::Compact { revision: 2900 }).await;
        assert_eq!(compacted, CommandReply::Compacted { oldest: 2900 });
        let refused = machine.ask(Query::Get {
            key: "hot".into(),
            revision: Some(2899),
        });
        let oldest = 2900;
        let expected = QueryError::Compacted {
            revision: 2899,
            oldest,
        };
        assert_eq!(refused.await, QueryReply::Refused(expected));
        let found = machine.get("hot", Some(2900)).await.unwrap();
        assert_eq!(found.value, "2899");
    });
}

/// From each kind to each kind.
#[test]
fn a_machine_goes_on_from_the_image_of_another() {
    each(async |mut one, mut two| {
        one.apply(Command::OpenSession).await;
        for n in 0..40_u8 {
            one.write(put(
                format!("key-{:02}", n % 25),
                vec![n; 300 * usize::from(n)],
            ))
            .await;
        }
        for n in 0..5 {
            one.write(WriteOp::Delete {
                key: format!("key-{n:02}").into(),
            })
            .await;
        }
        one.write(put("key-03", "again")).await;
        let stamp = SessionStamp {
            session: SessionId(1),
            sequence: 1,
            unanswered_from: 1,
        };
        let call = Command::Write {
            stamp: Some(stamp),
            op: append("key-30", "once"),
        };
        let reply = one.apply(call.clone()).await;
        let (parts, taken_at) = (one.parts().await, one.index + 3);

        two.write(put("other", "goes")).await;
        let before = two.scan(None).await;
        // One that is cut short changes nothing.
        for cut in [1, parts.len() - 1] {
            let parts = parts[..cut].to_vec();
            two.machine
                .restore(snapshot(taken_at, parts))
                .await
                .unwrap_err();
            assert_eq!(two.scan(None).await, before);
        }
        two.machine
            .restore(snapshot(taken_at, parts))
            .await
            .unwrap();
        (one.index, two.index) = (taken_at, taken_at);
        for revision in 0..=46 {
            let (expected, found) = (
                one.scan(Some(revision)).await,
                two.scan(Some(revision)).await,
            );
            assert_eq!(found, expected, "at {revision}");
        }
        assert_eq!(two.apply(call).await, reply);
        for machine in [&mut one, &mut two] {
            assert_eq!(
                machine.write(append("key-03", "!")).await,
                written(48, 2, 6)
            );
        }
        assert_eq!(two.scan(None).await.len(), one.scan(None).await.len());
    });
}
