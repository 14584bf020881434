//! The bytes of envelopes: they read back, they do not change, and nothing else is read.

use bytes::Bytes;
use proptest::prelude::*;
use raft_core::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Vote,
    VoteReply,
};
use raft_core::{
    ClusterId, Entry, EntryKind, Envelope, GroupId, Incarnation, Index, LogId, Message, NodeId,
    Term,
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
            }),
            format!("07000000{}", words(&[6, 10])),
        ),
        (
            Message::HeartbeatReply(HeartbeatReply { round: 10 }),
            format!("08000000{}", word(10)),
        ),
    ]
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
        any_id().prop_map(|last| Message::Vote(Vote {
            last,
            is_transfer: false
        })),
        (any::<bool>(), any_id())
            .prop_map(|(granted, last)| Message::VoteReply(VoteReply { granted, last })),
        any_append().prop_map(Message::Append),
        word.prop_map(|matched| Message::AppendReply(AppendReply::Accepted {
            matched: Index(matched)
        })),
        (any_id(), any_id(), word, any_id()).prop_map(|(base, run, first, last)| {
            Message::AppendReply(AppendReply::Rejected {
                base,
                conflict: Conflict {
                    term: run.term,
                    first: Index(first),
                    last: run.index,
                },
                last,
            })
        }),
        (word, word).prop_map(|(commit, round)| Message::Heartbeat(Heartbeat {
            commit: Index(commit),
            round
        })),
        word.prop_map(|round| Message::HeartbeatReply(HeartbeatReply { round })),
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
        kind in 0_u8..10,
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
