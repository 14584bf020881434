//! The bytes of envelopes: they read back, they do not change, and nothing else is read.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use raft_core::membership::ADDRESS_BYTES_MAX;
use raft_core::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, ReadIndex,
    ReadIndexReply, Vote, VoteReply,
};
use raft_core::{
    ClusterId, Entry, EntryKind, Envelope, GroupId, Incarnation, Index, LogId, Member, MemberRole,
    Membership, Message, NodeId, SnapshotDescriptor, SnapshotHash, SnapshotMeta, Term,
};
use raft_transport::codec::{self, DecodeError};

fn bytes_of(envelope: &Envelope) -> Vec<u8> {
    codec::encode(envelope).concat()
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        cluster: ClusterId(*b"0123456789abcdef"),
        group: GroupId(1),
        from: NodeId(2),
        from_incarnation: Incarnation(0x1122_3344_5566_7788),
        to: NodeId(3),
        to_incarnation: Incarnation(4),
        term: Term(5),
        message,
    }
}

fn entries() -> Vec<Entry> {
    vec![
        Entry::new(id(2, 8), EntryKind::Noop, Bytes::new()),
        Entry::new(id(3, 9), EntryKind::Command, Bytes::from_static(b"value")),
    ]
}

/// One message of each kind with its bytes behind the part that all share. Changing a line here is
/// changing the wire format: nodes of two versions then do not understand each other.
fn golden() -> Vec<(Message, String)> {
    let word = |value: u64| hex(&value.to_le_bytes());
    let words = |values: &[u64]| values.iter().map(|value| word(*value)).collect::<String>();
    vec![
        (
            Message::PreVote(PreVote {
                next_term: Term(6),
                last: id(4, 7),
            }),
            format!("00000000{}", words(&[6, 4, 7])),
        ),
        (
            Message::PreVoteReply(PreVoteReply {
                next_term: Term(6),
                granted: true,
            }),
            format!("01000000{}01", word(6)),
        ),
        (
            Message::Vote(Vote {
                last: id(4, 7),
                is_transfer: false,
            }),
            format!("02000000{}", words(&[4, 7])),
        ),
        (
            Message::VoteReply(VoteReply {
                granted: false,
                last: id(4, 7),
            }),
            format!("0300000000{}", words(&[4, 7])),
        ),
        (
            Message::Append(Append {
                base: id(2, 7),
                commit: Index(6),
                entries: entries(),
            }),
            format!(
                "04000000{}02000000{}{}{}",
                words(&[2, 7, 6]),
                "010100000000000008000000000000000200000000000000310bfa5000000000",
                "0102000005000000090000000000000003000000000000001133b8fb00000000",
                hex(b"value"),
            ),
        ),
        (
            Message::AppendReply(AppendReply::Accepted { matched: Index(9) }),
            format!("05000000{}", word(9)),
        ),
        (
            Message::AppendReply(AppendReply::Rejected {
                base: id(4, 7),
                conflict: Conflict {
                    term: Term(3),
                    first: Index(5),
                    last: Index(6),
                },
                last: id(3, 8),
            }),
            format!("06000000{}", words(&[4, 7, 3, 5, 6, 3, 8])),
        ),
        (
            Message::Heartbeat(Heartbeat {
                commit: Index(6),
                round: 10,
                is_last: false,
            }),
            format!("07000000{}", words(&[6, 10])),
        ),
        (
            Message::HeartbeatReply(HeartbeatReply {
                round: 10,
                is_refilling: false,
            }),
            format!("08000000{}", word(10)),
        ),
        (
            Message::Vote(Vote {
                last: id(4, 7),
                is_transfer: true,
            }),
            format!("09000000{}", words(&[4, 7])),
        ),
        (
            Message::Heartbeat(Heartbeat {
                commit: Index(6),
                round: 10,
                is_last: true,
            }),
            format!("0a000000{}", words(&[6, 10])),
        ),
        (
            Message::Snapshot(snapshot(Membership::default())),
            format!("0b000000{}03000000010000", golden_snapshot()),
        ),
        (
            Message::Snapshot(snapshot(membership())),
            format!(
                "0b000000{}45000000{}",
                golden_snapshot(),
                concat!(
                    "010201",
                    "01000000000000000b000000000000000103613a31",
                    "02000000000000001600000000000000020462623a32",
                    "03000000000000002100000000000000010563633a3333"
                ),
            ),
        ),
        (Message::TimeoutNow, "0c000000".to_owned()),
        (
            Message::ReadIndex(ReadIndex { number: 12 }),
            format!("0d000000{}", word(12)),
        ),
        (
            Message::ReadIndexReply(ReadIndexReply {
                number: 12,
                index: None,
            }),
            format!("0e000000{}00", word(12)),
        ),
        (
            Message::ReadIndexReply(ReadIndexReply {
                number: 12,
                index: Some(Index(13)),
            }),
            format!("0e000000{}01{}", word(12), word(13)),
        ),
        (
            Message::RefillReply(AppendReply::Accepted { matched: Index(9) }),
            format!("0f000000{}", word(9)),
        ),
        (
            Message::RefillReply(AppendReply::Rejected {
                base: id(4, 7),
                conflict: Conflict {
                    term: Term(3),
                    first: Index(5),
                    last: Index(6),
                },
                last: id(3, 8),
            }),
            format!("10000000{}", words(&[4, 7, 3, 5, 6, 3, 8])),
        ),
        (
            Message::HeartbeatReply(HeartbeatReply {
                round: 10,
                is_refilling: true,
            }),
            format!("11000000{}", word(10)),
        ),
        (
            Message::AppendReply(AppendReply::NoRoom { matched: Index(9) }),
            format!("12000000{}", word(9)),
        ),
        (
            Message::RefillReply(AppendReply::NoRoom { matched: Index(9) }),
            format!("13000000{}", word(9)),
        ),
    ]
}

fn member(incarnation: u64, address: &str, role: MemberRole) -> Member {
    Member {
        incarnation: Incarnation(incarnation),
        address: address.to_owned(),
        role,
    }
}

fn membership() -> Membership {
    let members = [
        (NodeId(1), member(11, "a:1", MemberRole::Voter)),
        (NodeId(2), member(22, "bb:2", MemberRole::Learner)),
    ];
    let outgoing = [(NodeId(3), member(33, "cc:33", MemberRole::Voter))];
    Membership::joint(members.into(), outgoing.into()).unwrap()
}

fn snapshot(membership: Membership) -> SnapshotDescriptor {
    SnapshotDescriptor {
        meta: SnapshotMeta {
            last: id(4, 7),
            membership,
        },
        parts: 3,
        bytes: 1_000,
        hash: SnapshotHash(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
    }
}

/// Its last log id, parts, bytes and hash.
fn golden_snapshot() -> String {
    let words = [4_u64, 7, 3, 1_000].map(|word| hex(&word.to_le_bytes()));
    format!("{}ffeeddccbbaa99887766554433221100", words.concat())
}

/// Version, cluster, group, from, its incarnation, to, its incarnation, term.
const GOLDEN_START: &str = concat!(
    "01",
    "30313233343536373839616263646566",
    "0100000000000000",
    "0200000000000000",
    "8877665544332211",
    "0300000000000000",
    "0400000000000000",
    "0500000000000000",
);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_version_1_do_not_change() {
    for (message, bytes) in golden() {
        let envelope = envelope(message);
        let encoded = bytes_of(&envelope);
        let name = envelope.message.name();
        assert_eq!(hex(&encoded), format!("{GOLDEN_START}{bytes}"), "{name}");
        assert_eq!(codec::decode(encoded.into()), Ok(envelope), "{name}");
    }
}

#[test]
fn every_cut_and_every_byte_too_much_is_an_error() {
    for (message, _) in golden() {
        let whole = bytes_of(&envelope(message));
        for length in 0..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..length]);
            assert!(codec::decode(cut).is_err(), "cut at {length}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(codec::decode(longer.into()), Err(DecodeError::Trailing(1)));
        let mut newer = whole;
        newer[0] = 2;
        assert_eq!(codec::decode(newer.into()), Err(DecodeError::Version(2)));
    }
}

#[test]
fn payloads_are_not_copied() {
    let payload = Bytes::from(vec![7; 5_000]);
    let entry = Entry::new(id(1, 1), EntryKind::Command, payload.clone());
    let parts = codec::encode(&envelope(Message::Append(Append {
        base: id(0, 0),
        commit: Index(0),
        entries: vec![entry],
    })));
    assert_eq!(parts[1].as_ptr(), payload.as_ptr());
    let frame = Bytes::from(parts.concat());
    let start = frame.as_ptr() as usize;
    let Message::Append(append) = codec::decode(frame.clone()).unwrap().message else {
        panic!("an append was encoded");
    };
    let place = append.entries[0].payload().as_ptr() as usize;
    assert!((start..start + frame.len()).contains(&place));
}

#[test]
fn entries_that_do_not_follow_each_other_are_refused() {
    let noop = |term, index| Entry::new(id(term, index), EntryKind::Noop, Bytes::new());
    for (base, entries) in [
        (id(2, 7), vec![noop(2, 9)]),
        (id(2, 7), vec![noop(2, 7)]),
        (id(2, 7), vec![noop(1, 8)]),
        (id(2, 7), vec![noop(2, 8), noop(2, 10)]),
        (id(2, 7), vec![noop(3, 8), noop(2, 9)]),
        (id(2, u64::MAX), vec![noop(2, 0)]),
    ] {
        let bytes = bytes_of(&envelope(Message::Append(Append {
            base,
            commit: Index(0),
            entries,
        })));
        let result = codec::decode(bytes.into());
        assert!(
            matches!(result, Err(DecodeError::Order { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn an_announced_number_of_entries_takes_no_memory() {
    let empty = Message::Append(Append {
        base: id(2, 7),
        commit: Index(0),
        entries: Vec::new(),
    });
    let mut bytes = bytes_of(&envelope(empty));
    let count = bytes.len() - 4;
    bytes[count..].copy_from_slice(&u32::MAX.to_le_bytes());
    let result = codec::decode(bytes.into());
    assert!(
        matches!(
            result,
            Err(DecodeError::Entry {
                position: 0,
                count: u32::MAX,
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn a_membership_that_is_too_long_or_none_is_refused() {
    let encoded = bytes_of(&envelope(Message::Snapshot(snapshot(membership()))));
    let length = encoded.len() - membership().encode().len();
    let with_length = |announced: u32| {
        let mut bytes = encoded.clone();
        bytes[length - 4..length].copy_from_slice(&announced.to_le_bytes());
        codec::decode(bytes.into())
    };
    let right = membership().encode().len() as u32;
    for announced in [u32::MAX, 10_000, right + 1] {
        let result = with_length(announced);
        assert!(
            matches!(result, Err(DecodeError::MembershipLength { bytes, .. })
                if bytes == announced as usize),
            "{result:?}"
        );
    }
    let result = with_length(right - 1);
    assert!(
        matches!(result, Err(DecodeError::Membership(_))),
        "{result:?}"
    );
    // Above the limit it is refused however many bytes there are.
    let mut long = encoded[..length].to_vec();
    let above = codec::MEMBERSHIP_BYTES_MAX + 1;
    long[length - 4..].copy_from_slice(&(above as u32).to_le_bytes());
    long.resize(length + above, 0);
    let result = codec::decode(long.into());
    assert!(
        matches!(result, Err(DecodeError::MembershipLength { .. })),
        "{result:?}"
    );
}

#[test]
fn the_largest_membership_is_as_long_as_its_limit() {
    let address = "x".repeat(ADDRESS_BYTES_MAX);
    let list = |from| {
        (from..from + 9)
            .map(|id| (NodeId(id), member(id, &address, MemberRole::Voter)))
            .collect()
    };
    let largest = Membership::joint(list(1), list(10)).unwrap();
    assert_eq!(largest.encode().len(), codec::MEMBERSHIP_BYTES_MAX);
    let envelope = envelope(Message::Snapshot(snapshot(largest)));
    let bytes = bytes_of(&envelope);
    assert!(bytes.len() <= 1 + codec::METADATA_BYTES_MAX + codec::MEMBERSHIP_BYTES_MAX);
    assert_eq!(codec::decode(bytes.into()), Ok(envelope));
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let member = (any::<u64>(), "[ -~]{0,30}", any::<bool>());
    let list = || proptest::collection::btree_map(1_u64..50, member, 0..6);
    (list(), list(), any::<bool>()).prop_map(|(members, outgoing, is_empty)| {
        if is_empty {
            return Membership::default();
        }
        let typed = |list: BTreeMap<u64, (u64, String, bool)>| {
            let typed = list.into_iter().map(|(id, (incarnation, address, votes))| {
                let role = if votes {
                    MemberRole::Voter
                } else {
                    MemberRole::Learner
                };
                (NodeId(id), self::member(incarnation, &address, role))
            });
            typed.collect::<BTreeMap<_, _>>()
        };
        let mut members = typed(members);
        members.insert(NodeId(99), self::member(9, "voter:1", MemberRole::Voter));
        Membership::joint(members, typed(outgoing)).unwrap()
    })
}

fn any_snapshot() -> impl Strategy<Value = SnapshotDescriptor> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u128>());
    (any_id(), any_membership(), numbers).prop_map(|(last, membership, (parts, bytes, hash))| {
        SnapshotDescriptor {
            meta: SnapshotMeta { last, membership },
            parts,
            bytes,
            hash: SnapshotHash(hash),
        }
    })
}

fn any_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| id(term, index))
}

fn any_append() -> impl Strategy<Value = Append> {
    let entry = (
        0_u64..3,
        proptest::collection::vec(any::<u8>(), 0..50),
        any::<bool>(),
    );
    (
        0_u64..1_000,
        0_u64..1_000,
        any::<u64>(),
        proptest::collection::vec(entry, 0..20),
    )
        .prop_map(|(term, index, commit, entries)| {
            let base = id(term, index);
            let mut last = base;
            let entries = entries
                .into_iter()
                .map(|(newer, payload, command)| {
                    last = id(last.term.0 + newer, last.index.0 + 1);
                    let kind = if command {
                        EntryKind::Command
                    } else {
                        EntryKind::Noop
                    };
                    Entry::new(last, kind, payload.into())
                })
                .collect();
            Append {
                base,
                commit: Index(commit),
                entries,
            }
        })
}

fn any_append_reply() -> impl Strategy<Value = AppendReply> {
    let index = any::<u64>().prop_map(Index);
    let rejected = (any_id(), any_id(), any::<u64>(), any_id());
    prop_oneof![
        index
            .clone()
            .prop_map(|matched| AppendReply::Accepted { matched }),
        index.prop_map(|matched| AppendReply::NoRoom { matched }),
        rejected.prop_map(|(base, run, first, last)| AppendReply::Rejected {
            base,
            conflict: Conflict {
                term: run.term,
                first: Index(first),
                last: run.index,
            },
            last,
        }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let word = any::<u64>();
    prop_oneof![
        (word, any_id()).prop_map(|(term, last)| Message::PreVote(PreVote {
            next_term: Term(term),
            last
        })),
        (word, any::<bool>()).prop_map(|(term, granted)| Message::PreVoteReply(PreVoteReply {
            next_term: Term(term),
            granted
        })),
        (any_id(), any::<bool>())
            .prop_map(|(last, is_transfer)| Message::Vote(Vote { last, is_transfer })),
        any_snapshot().prop_map(Message::Snapshot),
        Just(Message::TimeoutNow),
        word.prop_map(|number| Message::ReadIndex(ReadIndex { number })),
        (word, any::<Option<u64>>()).prop_map(|(number, index)| {
            let index = index.map(Index);
            Message::ReadIndexReply(ReadIndexReply { number, index })
        }),
        (any::<bool>(), any_id())
            .prop_map(|(granted, last)| Message::VoteReply(VoteReply { granted, last })),
        any_append().prop_map(Message::Append),
        (word, word, any::<bool>()).prop_map(|(commit, round, is_last)| {
            Message::Heartbeat(Heartbeat {
                commit: Index(commit),
                round,
                is_last,
            })
        }),
        (word, any::<bool>()).prop_map(|(round, is_refilling)| {
            Message::HeartbeatReply(HeartbeatReply {
                round,
                is_refilling,
            })
        }),
        any_append_reply().prop_map(Message::AppendReply),
        any_append_reply().prop_map(Message::RefillReply),
    ]
}

proptest! {
    #[test]
    fn envelopes_read_back(
        message in any_message(),
        cluster in any::<[u8; 16]>(),
        words in any::<[u64; 6]>(),
    ) {
        let envelope = Envelope {
            cluster: ClusterId(cluster),
            group: GroupId(words[0]),
            from: NodeId(words[1]),
            from_incarnation: Incarnation(words[2]),
            to: NodeId(words[3]),
            to_incarnation: Incarnation(words[4]),
            term: Term(words[5]),
            message,
        };
        prop_assert_eq!(codec::decode(bytes_of(&envelope).into()), Ok(envelope));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_but_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        version in any::<bool>(),
        kind in 0_u8..21,
    ) {
        if version && bytes.len() > 70 {
            bytes[0] = codec::VERSION;
            bytes[65..69].copy_from_slice(&u32::from(kind).to_le_bytes());
        }
        // What is read must be what would be written: there is one encoding of everything.
        if let Ok(envelope) = codec::decode(bytes.clone().into()) {
            prop_assert_eq!(bytes_of(&envelope).len(), bytes.len());
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(
        message in any_message(),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut bytes = bytes_of(&envelope(message));
        let position = place.index(bytes.len());
        bytes[position] ^= 1 << bit;
        let _ = codec::decode(bytes.into());
    }
}
