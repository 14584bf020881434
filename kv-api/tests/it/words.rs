//! Arbitrary words: one strategy for each type that is ever encoded.

use bytes::Bytes;
use kv_api::{
    Command, CommandError, CommandReply, Expect, KeyValue, LimitExceeded, MemberChange, MemberKind,
    MemberReport, MembersReport, NodeStatus, Notice, Outcome, Query, QueryError, QueryReply,
    Request, RequestBody, Response, ScanPage, SessionId, SessionStamp, SnapshotHead, WriteOp,
    Written,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..8).prop_map(String::from_iter)
}

fn stamp() -> impl Strategy<Value = SessionStamp> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(session, sequence, unanswered_from)| {
        SessionStamp {
            session: SessionId(session),
            sequence,
            unanswered_from,
        }
    })
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        bytes().prop_map(Expect::Value),
        any::<u64>().prop_map(Expect::Version),
    ]
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    prop_oneof![
        (bytes(), bytes()).prop_map(|(key, value)| WriteOp::Put { key, value }),
        (bytes(), bytes()).prop_map(|(key, value)| WriteOp::Append { key, value }),
        bytes().prop_map(|key| WriteOp::Delete { key }),
        (bytes(), expect(), bytes()).prop_map(|(key, expect, value)| WriteOp::Cas {
            key,
            expect,
            value
        }),
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::OpenSession),
        (option::of(stamp()), write_op()).prop_map(|(stamp, op)| Command::Write { stamp, op }),
        any::<u64>().prop_map(|revision| Command::Compact { revision }),
    ]
}

fn limit_exceeded() -> impl Strategy<Value = LimitExceeded> {
    (text(), any::<[u64; 3]>()).prop_map(|(what, [bytes, min, max])| LimitExceeded {
        what,
        bytes,
        min,
        max,
    })
}

fn command_error() -> impl Strategy<Value = CommandError> {
    let window = |[sequence, from, limit]: [u64; 3]| CommandError::WindowExceeded {
        sequence,
        from,
        limit,
    };
    prop_oneof![
        any::<u64>().prop_map(|id| CommandError::SessionExpired(SessionId(id))),
        any::<u64>().prop_map(|sequence| CommandError::AlreadyAcknowledged { sequence }),
        any::<[u64; 3]>().prop_map(window),
        limit_exceeded().prop_map(CommandError::Limit),
        any::<[u64; 2]>()
            .prop_map(|[revision, newest]| CommandError::FutureRevision { revision, newest }),
        text().prop_map(CommandError::Malformed),
    ]
}

pub(crate) fn command_reply() -> impl Strategy<Value = CommandReply> {
    let written = |[revision, version, value_bytes]: [u64; 3]| {
        CommandReply::Written(Written {
            revision,
            version,
            value_bytes,
        })
    };
    prop_oneof![
        any::<u64>().prop_map(|id| CommandReply::SessionOpened(SessionId(id))),
        any::<[u64; 3]>().prop_map(written),
        (any::<bool>(), any::<u64>())
            .prop_map(|(existed, revision)| CommandReply::Deleted { existed, revision }),
        any::<[u64; 2]>()
            .prop_map(|[version, revision]| CommandReply::Mismatch { version, revision }),
        any::<u64>().prop_map(|oldest| CommandReply::Compacted { oldest }),
        command_error().prop_map(CommandReply::Refused),
    ]
}

pub(crate) fn query() -> impl Strategy<Value = Query> {
    let scan = (
        bytes(),
        option::of(bytes()),
        option::of(any::<u64>()),
        any::<u32>(),
        any::<bool>(),
    );
    prop_oneof![
        (bytes(), option::of(any::<u64>()))
            .prop_map(|(key, revision)| Query::Get { key, revision }),
        scan.prop_map(|(from, to, revision, limit, keys_only)| Query::Scan {
            from,
            to,
            revision,
            limit,
            keys_only,
        }),
    ]
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    (bytes(), bytes(), any::<[u64; 3]>()).prop_map(
        |(key, value, [create_revision, mod_revision, version])| KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
        },
    )
}

fn query_error() -> impl Strategy<Value = QueryError> {
    prop_oneof![
        any::<[u64; 2]>().prop_map(|[revision, oldest]| QueryError::Compacted { revision, oldest }),
        any::<[u64; 2]>()
            .prop_map(|[revision, newest]| QueryError::FutureRevision { revision, newest }),
        text().prop_map(QueryError::Malformed),
    ]
}

pub(crate) fn query_reply() -> impl Strategy<Value = QueryReply> {
    let page = (vec(key_value(), 0..5), option::of(bytes()), any::<u64>());
    prop_oneof![
        (option::of(key_value()), any::<u64>())
            .prop_map(|(found, revision)| QueryReply::Get { found, revision }),
        page.prop_map(|(items, next, revision)| {
            QueryReply::Scan(ScanPage {
                items,
                next,
                revision,
            })
        }),
        query_error().prop_map(QueryReply::Refused),
    ]
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let body = prop_oneof![
        bytes().prop_map(RequestBody::Write),
        bytes().prop_map(RequestBody::Read),
        bytes().prop_map(RequestBody::ReadStale),
        Just(RequestBody::Status),
        Just(RequestBody::Members),
        member_change().prop_map(RequestBody::ChangeMembers),
        any::<u64>().prop_map(|to| RequestBody::TransferLeader { to }),
        Just(RequestBody::SaveSnapshot),
    ];
    (any::<u64>(), body).prop_map(|(id, body)| Request { id, body })
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    let place = || (any::<[u64; 2]>(), text());
    prop_oneof![
        place().prop_map(|([id, incarnation], address)| MemberChange::Add {
            id,
            incarnation,
            address,
        }),
        any::<u64>().prop_map(|id| MemberChange::Promote { id }),
        any::<u64>().prop_map(|id| MemberChange::Remove { id }),
        place().prop_map(|([id, incarnation], address)| MemberChange::Replace {
            id,
            incarnation,
            address,
        }),
    ]
}

fn members_report() -> impl Strategy<Value = MembersReport> {
    let role = prop_oneof![Just(MemberKind::Voter), Just(MemberKind::Learner)];
    let member = (any::<[u64; 2]>(), text(), role, any::<bool>()).prop_map(
        |([id, incarnation], address, role, is_leaving)| MemberReport {
            id,
            incarnation,
            address,
            role,
            is_leaving,
        },
    );
    (vec(member, 0..5), any::<bool>()).prop_map(|(members, is_changing)| MembersReport {
        members,
        is_changing,
    })
}

fn snapshot_head() -> impl Strategy<Value = SnapshotHead> {
    (text(), any::<[u64; 2]>(), members_report()).prop_map(
        |(cluster_id, [term, index], members)| SnapshotHead {
            cluster_id,
            term,
            index,
            members,
        },
    )
}

fn notice() -> impl Strategy<Value = Notice> {
    (any::<u64>(), option::of((any::<u64>(), text())))
        .prop_map(|(term, leader)| Notice { term, leader })
}

fn node_status() -> impl Strategy<Value = NodeStatus> {
    (
        any::<[u64; 9]>(),
        vec(text(), 6),
        option::of(any::<u64>()),
        vec((any::<u64>(), text()), 0..5),
        members_report(),
    )
        .prop_map(|(numbers, texts, leader, members, membership)| NodeStatus {
            cluster_id: texts[0].clone(),
            id: numbers[0],
            addr: texts[1].clone(),
            role: texts[2].clone(),
            term: numbers[1],
            leader,
            last_index: numbers[2],
            commit: numbers[3],
            applied: numbers[4],
            snapshot_index: numbers[5],
            log_bytes: numbers[6],
            disk_bytes: numbers[7],
            storage: texts[3].clone(),
            version: texts[4].clone(),
            members,
            log_start: numbers[8],
            refilling: leader.map(|index| (numbers[1], index)),
            is_short_of_room: numbers[0] % 2 == 0,
            state: texts[5].clone(),
            membership,
        })
}

pub(crate) fn response() -> impl Strategy<Value = Response> {
    let outcome =
        prop_oneof![
            (any::<u64>(), any::<u64>(), bytes())
                .prop_map(|(term, index, reply)| Outcome::Applied { term, index, reply }),
            bytes().prop_map(Outcome::Answer),
            node_status().prop_map(|status| Outcome::Status(Box::new(status))),
            notice().prop_map(Outcome::NotLeader),
            text().prop_map(Outcome::Unavailable),
            text().prop_map(Outcome::Unknown),
            limit_exceeded().prop_map(Outcome::Limit),
            text().prop_map(Outcome::Refused),
            notice().prop_map(Outcome::Notice),
            members_report().prop_map(Outcome::Members),
            Just(Outcome::Done),
            bytes().prop_map(Outcome::SnapshotPart),
            any::<[u64; 2]>().prop_map(|[parts, bytes]| Outcome::SnapshotEnd { parts, bytes }),
            snapshot_head().prop_map(Outcome::SnapshotBegin),
        ];
    (any::<u64>(), outcome).prop_map(|(id, outcome)| Response { id, outcome })
}
