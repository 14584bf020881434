//! Version 1 of the encoding, byte for byte. Logs are full of commands: were one of these to
//! change, a new program could not read an old log. New variants get new lines; no line ever
//! changes.

use std::fmt::Debug;

use bytes::Bytes;
use kv_api::{
    Command, CommandReply, Expect, KeyValue, MemberChange, MemberKind, MemberReport, MembersReport,
    Outcome, Query, QueryReply, Request, RequestBody, Response, SessionId, SessionStamp,
    SnapshotHead, WriteOp, Written, decode, encode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Checks both directions. The expected bytes are given in hexadecimal, blanks where a reader wants
/// them.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
    let expected: String = expected.split_whitespace().collect();
    let found: String = encode(value).iter().map(|it| format!("{it:02x}")).collect();
    assert_eq!(found, expected, "{value:?}");
    let bytes: Vec<u8> = (0..expected.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&expected[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
}

fn write(op: WriteOp) -> Command {
    Command::Write { stamp: None, op }
}

#[test]
fn commands() {
    let (key, value) = (Bytes::from("k"), Bytes::from("vw"));
    check(&Command::OpenSession, "01 00000000");
    check(
        &Command::Compact { revision: 0x0102 },
        "01 02000000 0201000000000000",
    );
    check(
        &write(WriteOp::Put {
            key: key.clone(),
            value: value.clone(),
        }),
        "01 01000000 00 00000000 0100000000000000 6b 0200000000000000 7677",
    );
    let stamp = SessionStamp {
        session: SessionId(5),
        sequence: 6,
        unanswered_from: 4,
    };
    let op = WriteOp::Append {
        key: key.clone(),
        value: value.clone(),
    };
    check(
        &Command::Write {
            stamp: Some(stamp),
            op,
        },
        "01 01000000 01 0500000000000000 0600000000000000 0400000000000000
         01000000 0100000000000000 6b 0200000000000000 7677",
    );
    check(
        &write(WriteOp::Delete { key: key.clone() }),
        "01 01000000 00 02000000 0100000000000000 6b",
    );
    let cas = |expect| {
        write(WriteOp::Cas {
            key: key.clone(),
            expect,
            value: value.clone(),
        })
    };
    check(
        &cas(Expect::Absent),
        "01 01000000 00 03000000 0100000000000000 6b 00000000 0200000000000000 7677",
    );
    check(
        &cas(Expect::Value("x".into())),
        "01 01000000 00 03000000 0100000000000000 6b 01000000 0100000000000000 78
         0200000000000000 7677",
    );
    check(
        &cas(Expect::Version(3)),
        "01 01000000 00 03000000 0100000000000000 6b 02000000 0300000000000000
         0200000000000000 7677",
    );
}

/// What goes over the wire, one of each: a client of one build talks to a server of another.
#[test]
fn what_is_said_to_and_by_a_server() {
    let written = Written {
        revision: 7,
        version: 2,
        value_bytes: 9,
    };
    check(
        &CommandReply::Written(written),
        "01 01000000 0700000000000000 0200000000000000 0900000000000000",
    );
    check(
        &Query::Get {
            key: "k".into(),
            revision: Some(7),
        },
        "01 00000000 0100000000000000 6b 01 0700000000000000",
    );
    check(
        &Query::Scan {
            from: "k".into(),
            to: None,
            revision: None,
            limit: 10,
            keys_only: true,
        },
        "01 01000000 0100000000000000 6b 00 00 0a000000 01",
    );
    let found = KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: 1,
        mod_revision: 2,
        version: 3,
    };
    check(
        &QueryReply::Get {
            found: Some(found),
            revision: 4,
        },
        "01 00000000 01 0100000000000000 6b 0100000000000000 76
         0100000000000000 0200000000000000 0300000000000000 0400000000000000",
    );
    check(
        &Request {
            id: 1,
            body: RequestBody::Read("q".into()),
        },
        "01 0100000000000000 01000000 0100000000000000 71",
    );
    check(
        &Response {
            id: 1,
            outcome: Outcome::Applied {
                term: 2,
                index: 3,
                reply: "r".into(),
            },
        },
        "01 0100000000000000 00000000 0200000000000000 0300000000000000
         0100000000000000 72",
    );
}

/// What administrators ask for. The numbers of the variants come after those of all that was there
/// before.
#[test]
fn what_administrators_ask_for() {
    let asked = |body, expected: &str| {
        let expected = format!("01 0100000000000000 {expected}");
        check(&Request { id: 1, body }, &expected);
    };
    let (id, incarnation, address) = (4, 0x1122, "h:1".to_owned());
    asked(RequestBody::Members, "04000000");
    asked(
        RequestBody::ChangeMembers(MemberChange::Add {
            id,
            incarnation,
            address: address.clone(),
        }),
        "05000000 00000000 0400000000000000 2211000000000000 0300000000000000 683a31",
    );
    asked(
        RequestBody::ChangeMembers(MemberChange::Promote { id }),
        "05000000 01000000 0400000000000000",
    );
    asked(
        RequestBody::ChangeMembers(MemberChange::Remove { id }),
        "05000000 02000000 0400000000000000",
    );
    asked(
        RequestBody::ChangeMembers(MemberChange::Replace {
            id,
            incarnation,
            address,
        }),
        "05000000 03000000 0400000000000000 2211000000000000 0300000000000000 683a31",
    );
    asked(
        RequestBody::TransferLeader { to: 2 },
        "06000000 0200000000000000",
    );
    asked(RequestBody::SaveSnapshot, "07000000");
}

/// What they are answered.
#[test]
fn what_administrators_are_answered() {
    let answered = |outcome, expected: &str| {
        let expected = format!("01 0100000000000000 {expected}");
        check(&Response { id: 1, outcome }, &expected);
    };
    let member = |id, role, is_leaving| MemberReport {
        id,
        incarnation: 0x1122,
        address: "h:1".to_owned(),
        role,
        is_leaving,
    };
    let report = MembersReport {
        members: vec![
            member(1, MemberKind::Voter, true),
            member(2, MemberKind::Learner, false),
        ],
        is_changing: true,
    };
    let said = "0200000000000000
         0100000000000000 2211000000000000 0300000000000000 683a31 00000000 01
         0200000000000000 2211000000000000 0300000000000000 683a31 01000000 00
         01";
    answered(
        Outcome::Members(report.clone()),
        &format!("09000000 {said}"),
    );
    answered(Outcome::Done, "0a000000");
    answered(
        Outcome::SnapshotPart("p".into()),
        "0b000000 0100000000000000 70",
    );
    answered(
        Outcome::SnapshotEnd { parts: 2, bytes: 3 },
        "0c000000 0200000000000000 0300000000000000",
    );
    answered(
        Outcome::SnapshotBegin(SnapshotHead {
            cluster_id: "c".to_owned(),
            term: 2,
            index: 3,
            members: report,
        }),
        &format!("0d000000 0100000000000000 63 0200000000000000 0300000000000000 {said}"),
    );
}
