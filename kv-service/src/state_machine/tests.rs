//! Tests of the machine as replicas and clients see it: bytes in, bytes out.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use kv_api::limits::VALUE_BYTES_MAX;
use kv_api::{
    Command, CommandError, Expect, SessionId, SessionStamp, WriteOp, Written, decode, encode,
};
use proptest::collection::vec;
use proptest::prelude::*;
use raft_core::Term;

use super::*;
use crate::store::tests::cpu_nanos;

fn write(stamp: Option<SessionStamp>, op: WriteOp) -> Command {
    Command::Write { stamp, op }
}

fn put(key: &'static str, value: impl Into<Bytes>) -> WriteOp {
    WriteOp::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn append(key: &'static str, value: impl Into<Bytes>) -> WriteOp {
    WriteOp::Append {
        key: key.into(),
        value: value.into(),
    }
}

fn committed(term: u64, index: u64, payload: impl Into<Bytes>) -> CommittedCommand {
    CommittedCommand {
        id: LogId::new(Term(term), Index(index)),
        payload: payload.into(),
    }
}

/// The machine awaits nothing, so its futures are ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready at once")
}

fn apply(machine: &mut KvStateMachine, index: u64, command: &Command) -> CommandReply {
    machine.apply_command(Index(index), &encode(command))
}

fn value_of(machine: &KvStateMachine, key: &'static str) -> Option<Bytes> {
    let query = Query::Get {
        key: key.into(),
        revision: None,
    };
    match machine.answer(&query) {
        QueryReply::Get { found, .. } => found.map(|found| found.value),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_speaks_encoded_words() {
    let mut machine = KvStateMachine::new();
    assert_eq!(machine.applied(), LogId::ZERO);
    let batch = vec![
        committed(2, 5, encode(&write(None, put("k", "v")))),
        committed(2, 6, encode(&Command::OpenSession)),
        committed(3, 9, "no command"),
    ];
    let replies = now(machine.apply(batch)).expect("applies");
    let replies: Vec<CommandReply> = replies
        .iter()
        .map(|reply| decode(reply).expect("a reply"))
        .collect();
    let written = Written {
        revision: 1,
        version: 1,
        value_bytes: 1,
    };
    assert_eq!(replies[0], CommandReply::Written(written));
    assert_eq!(replies[1], CommandReply::SessionOpened(SessionId(6)));
    assert!(matches!(
        replies[2],
        CommandReply::Refused(CommandError::Malformed(_))
    ));
    assert_eq!(machine.applied(), LogId::new(Term(3), Index(9)));

    let query = Query::Get {
        key: "k".into(),
        revision: Some(1),
    };
    let reply = now(machine.query(encode(&query).into())).expect("answers");
    match decode(&reply).expect("a reply") {
        QueryReply::Get { found, revision } => {
            assert_eq!(found.map(|found| found.value), Some("v".into()));
            assert_eq!(revision, 1);
        }
        other => panic!("{other:?}"),
    }
    let reply = now(machine.query("no query".into())).expect("answers");
    assert!(matches!(
        decode(&reply),
        Ok(QueryReply::Refused(QueryError::Malformed(_)))
    ));
}

#[test]
fn what_is_applied_out_of_order_is_an_error() {
    let mut machine = KvStateMachine::new();
    let payload = encode(&write(None, append("k", "x")));
    now(machine.apply(vec![committed(1, 3, payload.clone())])).expect("applies");
    for index in [1, 3] {
        now(machine.apply(vec![committed(1, index, payload.clone())])).expect_err("not in order");
    }
    assert_eq!(value_of(&machine, "k"), Some("x".into()));
}

/// A payload is often a slice of a frame with a thousand other entries. What the store keeps of it
/// must be its own, or one small value would keep the frame.
#[test]
fn nothing_that_is_kept_shares_the_payload() {
    let mut machine = KvStateMachine::new();
    let frame = Bytes::from(encode(&write(None, put("key", vec![1; 1000]))));
    now(machine.apply(vec![committed(1, 1, frame.clone())])).expect("applies");
    assert!(frame.is_unique());
    let value = value_of(&machine, "key").expect("there");
    assert!(!frame.as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn values_of_a_mebibyte_go_through() {
    let mut machine = KvStateMachine::new();
    let old = Bytes::from(vec![1; VALUE_BYTES_MAX]);
    let new = Bytes::from(vec![2; VALUE_BYTES_MAX]);
    apply(&mut machine, 1, &write(None, put("k", old.clone())));
    let key = Bytes::from(vec![b'k'; kv_api::limits::KEY_BYTES_MAX]);
    for (index, expect) in [(2, Expect::Absent), (3, Expect::Value(old))] {
        let op = WriteOp::Cas {
            key: key.clone(),
            expect,
            value: if index == 2 {
                vec![1; VALUE_BYTES_MAX].into()
            } else {
                new.clone()
            },
        };
        let command = encode(&write(None, op));
        assert!(command.len() <= kv_api::limits::COMMAND_BYTES_MAX);
        let reply = machine.apply_command(Index(index), &command);
        assert!(matches!(reply, CommandReply::Written(_)), "{reply:?}");
    }
    let query = encode(&Query::Get {
        key,
        revision: None,
    });
    let reply = now(machine.query(query.into())).expect("answers");
    match decode(&reply).expect("a reply") {
        QueryReply::Get { found, .. } => assert_eq!(found.map(|found| found.value), Some(new)),
        other => panic!("{other:?}"),
    }
}

/// A refusal because of a limit is an outcome like any other: a copy of the call gets the same,
/// even if the call would be possible by then.
#[test]
fn a_refused_call_stays_refused() {
    let mut machine = KvStateMachine::new();
    apply(&mut machine, 1, &Command::OpenSession);
    let stamp = |sequence| SessionStamp {
        session: SessionId(1),
        sequence,
        unanswered_from: 1,
    };
    apply(
        &mut machine,
        2,
        &write(None, put("k", vec![1; VALUE_BYTES_MAX])),
    );
    let command = write(Some(stamp(1)), append("k", "x"));
    let refused = apply(&mut machine, 3, &command);
    assert!(matches!(
        refused,
        CommandReply::Refused(CommandError::Limit(_))
    ));
    let delete = WriteOp::Delete { key: "k".into() };
    apply(&mut machine, 4, &write(Some(stamp(2)), delete));
    assert_eq!(apply(&mut machine, 5, &command), refused);
    assert_eq!(value_of(&machine, "k"), None);
}

#[test]
fn the_digest_sees_every_part_of_the_state() {
    let mut machine = KvStateMachine::new();
    let mut seen = vec![machine.digest()];
    let stamp = |sequence, unanswered_from| SessionStamp {
        session: SessionId(3),
        sequence,
        unanswered_from,
    };
    let commands = [
        write(None, put("k", "v")),
        // The same value again: another revision.
        write(None, put("k", "v")),
        Command::OpenSession,
        write(Some(stamp(1, 1)), append("k", "")),
        // Nothing but a kept reply.
        write(Some(stamp(2, 1)), WriteOp::Delete { key: "x".into() }),
        // A copy: nothing but a use of the session.
        write(Some(stamp(2, 1)), WriteOp::Delete { key: "x".into() }),
        // An acknowledgement.
        write(Some(stamp(2, 2)), WriteOp::Delete { key: "x".into() }),
        Command::Compact { revision: 2 },
    ];
    for (index, command) in (1..).zip(&commands) {
        apply(&mut machine, index, command);
        assert!(!seen.contains(&machine.digest()), "{command:?}");
        seen.push(machine.digest());
    }
    let before = machine.digest();
    machine.apply_command(Index(100), b"no command");
    assert_eq!(machine.digest(), before);
}

/// Sessions in the most naive way: everything is remembered, and looked for.
#[derive(Default)]
struct Model {
    limits: Option<SessionLimits>,
    sessions: Vec<ModelSession>,
    /// What was executed, in order.
    executed: Vec<(SessionId, u64)>,
}

struct ModelSession {
    id: SessionId,
    last_used: u64,
    from: u64,
    replies: BTreeMap<u64, CommandReply>,
}

impl Model {
    fn evict(&mut self) {
        let limits = self.limits.expect("set");
        let replies = |sessions: &[ModelSession]| -> usize {
            sessions.iter().map(|session| session.replies.len()).sum()
        };
        while self.sessions.len() > limits.sessions_max
            || replies(&self.sessions) > limits.replies_max
        {
            let oldest = self.sessions.iter().map(|session| session.last_used).min();
            self.sessions
                .retain(|session| Some(session.last_used) != oldest);
        }
    }

    fn open(&mut self, index: u64) -> CommandReply {
        self.sessions.push(ModelSession {
            id: SessionId(index),
            last_used: index,
            from: 1,
            replies: BTreeMap::new(),
        });
        self.evict();
        CommandReply::SessionOpened(SessionId(index))
    }

    /// The reply, or none where the call must be executed.
    fn call(&mut self, index: u64, stamp: &SessionStamp) -> Option<CommandReply> {
        let sequence = stamp.sequence;
        let limit = self.limits.expect("set").window_max;
        let mut sessions = self.sessions.iter_mut();
        let Some(session) = sessions.find(|session| session.id == stamp.session) else {
            let expired = CommandError::SessionExpired(stamp.session);
            return Some(CommandReply::Refused(expired));
        };
        session.last_used = index;
        session.from = session.from.max(stamp.unanswered_from);
        let from = session.from;
        session.replies.retain(|sequence, _| *sequence >= from);
        if sequence < from {
            let acknowledged = CommandError::AlreadyAcknowledged { sequence };
            return Some(CommandReply::Refused(acknowledged));
        }
        if sequence > from + limit {
            let exceeded = CommandError::WindowExceeded {
                sequence,
                from,
                limit,
            };
            return Some(CommandReply::Refused(exceeded));
        }
        session.replies.get(&sequence).cloned()
    }

    fn record(&mut self, stamp: &SessionStamp, reply: CommandReply) {
        self.executed.push((stamp.session, stamp.sequence));
        let mut sessions = self.sessions.iter_mut();
        if let Some(session) = sessions.find(|session| session.id == stamp.session) {
            session.replies.insert(stamp.sequence, reply);
        }
        self.evict();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    /// A call of the n-th session from the newest on.
    Call {
        session: usize,
        sequence: u64,
        unanswered_from: u64,
    },
    Compact,
    Garbage(Vec<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let call =
        (0_usize..6, 0_u64..14, 0_u64..8).prop_map(|(session, sequence, unanswered_from)| {
            Step::Call {
                session,
                sequence,
                unanswered_from,
            }
        });
    prop_oneof![
        2 => Just(Step::Open),
        20 => call,
        1 => Just(Step::Compact),
        1 => vec(any::<u8>(), 0..40).prop_map(Step::Garbage),
    ]
}

/// The value is made of exactly the calls that were executed, in order, each one once.
fn check_executed_once(machine: &KvStateMachine, model: &Model) {
    let tokens = model.executed.iter();
    let mut tokens: Vec<String> = tokens
        .map(|(id, sequence)| format!("{}.{sequence} ", id.0))
        .collect();
    let value = value_of(machine, "k").unwrap_or_default();
    assert_eq!(value, tokens.concat());
    let executed = tokens.len();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), executed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Copies, gaps, late copies and evictions, against the model; and a second machine that is fed
    /// the same in batches comes out the same.
    #[test]
    fn calls_take_effect_exactly_once(
        sessions_max in 1_usize..5,
        replies_max in 6_usize..20,
        steps in vec(any_step(), 1..300),
    ) {
        let limits = SessionLimits { sessions_max, window_max: 5, replies_max };
        let retention = Retention { revisions_max: 50, bytes_max: 2_000 };
        let mut machine = KvStateMachine::with_limits(retention, limits);
        let mut model = Model { limits: Some(limits), ..Model::default() };
        let mut log = Vec::new();
        let mut replies = Vec::new();
        let mut opened = vec![SessionId(0)];
        for (index, step) in (1..).map(|n| n * 3).zip(steps) {
            let command = match step {
                Step::Open => {
                    opened.insert(0, SessionId(index));
                    Command::OpenSession
                }
                Step::Call { session, sequence, unanswered_from } => {
                    let session = opened[session.min(opened.len() - 1)];
                    let stamp = SessionStamp { session, sequence, unanswered_from };
                    let token = format!("{}.{sequence} ", session.0);
                    write(Some(stamp), append("k", token))
                }
                Step::Compact => Command::Compact { revision: machine.store().revision() / 2 },
                Step::Garbage(bytes) => {
                    // One in many of these is a command by chance.
                    prop_assume!(decode::<Command>(&bytes).is_err());
                    let reply = machine.apply_command(Index(index), &bytes);
                    let malformed =
                        matches!(&reply, CommandReply::Refused(CommandError::Malformed(_)));
                    prop_assert!(malformed, "{reply:?}");
                    log.push(committed(1, index, bytes));
                    replies.push(reply);
                    continue;
                }
            };
            let reply = apply(&mut machine, index, &command);
            log.push(committed(1, index, encode(&command)));
            match &command {
                Command::OpenSession => prop_assert_eq!(&reply, &model.open(index)),
                Command::Write { stamp: Some(stamp), .. } => match model.call(index, stamp) {
                    Some(expected) => prop_assert_eq!(&reply, &expected),
                    None => {
                        prop_assert!(matches!(reply, CommandReply::Written(_)), "{reply:?}");
                        model.record(stamp, reply.clone());
                    }
                },
                _ => {}
            }
            replies.push(reply);
            prop_assert_eq!(machine.sessions().len(), model.sessions.len());
        }
        check_executed_once(&machine, &model);
        machine.store().check();

        let mut other = KvStateMachine::with_limits(retention, limits);
        let mut other_replies = Vec::new();
        for batch in log.chunks(7) {
            let batch = now(other.apply(batch.to_vec())).expect("applies");
            other_replies.extend(batch);
        }
        let replies: Vec<Bytes> = replies.iter().map(|reply| encode(reply).into()).collect();
        prop_assert_eq!(replies, other_replies);
        prop_assert_eq!(machine.digest(), other.digest());
    }

    /// Whatever is done, two machines that are fed the same say the same and are the same; a clone
    /// goes on like the original.
    #[test]
    fn replicas_stay_equal(
        ops in vec(crate::store::tests::any_write(), 1..150),
        split in 0_usize..150,
    ) {
        let mut one = KvStateMachine::new();
        let mut two = KvStateMachine::new();
        let mut clone = None;
        for (index, op) in (1..).zip(&ops) {
            if index == split as u64 {
                clone = Some((one.clone(), one.digest()));
            }
            let payload = encode(&write(None, op.clone()));
            let reply = one.apply_command(Index(index), &payload);
            prop_assert_eq!(reply, two.apply_command(Index(index), &payload));
        }
        prop_assert_eq!(one.digest(), two.digest());
        if let Some((mut clone, digest)) = clone {
            prop_assert_eq!(clone.digest(), digest);
            for (index, op) in (1..).zip(&ops).skip(split - 1) {
                apply(&mut clone, index, &write(None, op.clone()));
            }
            prop_assert_eq!(one.digest(), clone.digest());
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(payloads in vec(vec(any::<u8>(), 0..60), 1..40)) {
        let mut machine = KvStateMachine::new();
        for (index, payload) in (1..).zip(payloads) {
            // A right beginning gets further than noise does.
            let payload = [&[kv_api::codec::VERSION][..], &payload[..]].concat();
            machine.apply_command(Index(index), &payload);
            now(machine.query(payload.into())).expect("answers");
        }
    }
}

/// Run with `cargo test --release -p kv-service -- --ignored --nocapture costs`.
#[test]
#[ignore = "measures, does not check"]
fn command_costs() {
    const KEYS: u64 = 100_000;
    const ROUNDS: u64 = 6;
    for in_session in [false, true] {
        let mut machine = KvStateMachine::new();
        apply(&mut machine, 1, &Command::OpenSession);
        let mut index = 1;
        for round in 0..ROUNDS {
            let payloads: Vec<Bytes> = (0..KEYS)
                .map(|n| {
                    // Spread over the keys, so that neighbours in time are no neighbours in the
                    // map.
                    let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
                    let sequence = round * KEYS + n + 1;
                    let stamp = SessionStamp {
                        session: SessionId(1),
                        sequence,
                        unanswered_from: sequence.saturating_sub(64),
                    };
                    let op = WriteOp::Put {
                        key: format!("key-{key:08}").into(),
                        value: vec![1; 256].into(),
                    };
                    encode(&write(in_session.then_some(stamp), op)).into()
                })
                .collect();
            let start = cpu_nanos();
            for batch in payloads.chunks(64) {
                let batch = batch.iter().map(|payload| {
                    index += 1;
                    committed(1, index, payload.clone())
                });
                now(machine.apply(batch.collect())).expect("applies");
            }
            let each = (cpu_nanos() - start) / KEYS;
            println!("round {round}: {each} ns per put, in a session: {in_session}");
        }
    }
}
