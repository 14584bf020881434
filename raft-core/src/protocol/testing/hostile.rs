//! A peer that is broken or wrong: whatever it says, a node refuses it or goes on, and never stops.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::Cluster;
use super::disk::Disk;
use crate::entry::{Entry, EntryKind};
use crate::membership::{MEMBERS_MAX, Member, MemberRole, Membership};
use crate::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply,
    ReadIndex, ReadIndexReply, Vote, VoteReply,
};
use crate::protocol::{Input, ReadTicket, Role};
use crate::snapshot::{SnapshotDescriptor, SnapshotMeta};
use crate::types::{Incarnation, Index, LogId, NodeId, Term};

const NODE: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn entry(term: u64, index: u64) -> Entry {
    Entry::new(id(term, index), EntryKind::Command, Bytes::new())
}

/// Three nodes whose logs are 1 1 2, all of it committed in term 3, and led by n1 or by n2.
fn cluster(leader: NodeId) -> Cluster {
    let disks: BTreeMap<_, _> = (1..=3)
        .map(|id| (NodeId(id), Disk::with_terms(&[1, 1, 2])))
        .collect();
    let mut cluster = Cluster::new(disks, 5);
    cluster.campaign(leader);
    for _ in 0..10 {
        cluster.stabilize();
        cluster.step(leader, Input::Tick);
    }
    cluster.stabilize();
    assert_eq!(cluster.raft(NODE).state().commit, Index(4));
    cluster.take_trace();
    cluster
}

fn say(cluster: &mut Cluster, term: u64, message: Message) {
    let envelope = cluster.envelope(PEER, NODE, Term(term), message);
    cluster.receive(envelope);
}

fn append(base: LogId, entries: Vec<Entry>) -> Message {
    Message::Append(Append {
        base,
        commit: Index(u64::MAX),
        entries,
    })
}

/// The message is refused and changes nothing.
fn refused(term: u64, message: Message) {
    let mut cluster = cluster(PEER);
    let before = cluster.raft(NODE).state();
    say(&mut cluster, term, message.clone());
    let mut after = cluster.raft(NODE).state();
    assert_eq!(
        after.counters.refused,
        before.counters.refused + 1,
        "{message:?}"
    );
    after.counters = before.counters;
    assert_eq!(after, before, "{message:?}");
    assert!(cluster.node(NODE).writes.is_empty(), "{message:?}");
}

#[test]
fn a_base_at_the_end_of_all_indexes_is_refused() {
    refused(3, append(id(3, u64::MAX), vec![entry(3, 1)]));
    refused(3, append(id(3, u64::MAX), vec![entry(3, u64::MAX)]));
}

#[test]
fn an_entry_of_no_term_is_refused() {
    refused(3, append(LogId::ZERO, vec![entry(0, 1)]));
    refused(3, append(id(0, 4), vec![entry(3, 5)]));
}

#[test]
fn a_leader_of_no_term_is_refused() {
    let disks: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), Disk::default())).collect();
    let mut cluster = Cluster::new(disks, 5);
    say(&mut cluster, 0, append(LogId::ZERO, vec![]));
    assert_eq!(cluster.raft(NODE).leader(), None);
    assert_eq!(cluster.raft(NODE).state().counters.refused, 1);
}

#[test]
fn a_base_that_contradicts_what_is_committed_is_refused() {
    refused(3, append(id(1, 4), vec![entry(1, 5)]));
    refused(3, append(id(2, 2), vec![]));
}

#[test]
fn a_term_that_leaves_none_to_elect_in_is_refused() {
    for term in [u64::MAX, u64::MAX - 1] {
        let heartbeat = Heartbeat {
            commit: Index(0),
            round: 0,
            is_last: false,
        };
        refused(term, Message::Heartbeat(heartbeat));
        refused(
            term,
            Message::Vote(Vote {
                last: id(term, 9),
                is_transfer: false,
            }),
        );
        refused(term, append(id(3, 4), vec![entry(term, 5)]));
    }
}

fn members(count: u64) -> Membership {
    let member = |id: u64| Member {
        incarnation: Incarnation(id * 100),
        address: String::new(),
        role: MemberRole::Voter,
    };
    let members = (1..=count).map(|id| (NodeId(id), member(id)));
    Membership::new(members.collect()).unwrap_or_default()
}

fn snapshot(last: LogId, membership: Membership) -> Message {
    Message::Snapshot(SnapshotDescriptor {
        meta: SnapshotMeta { last, membership },
        ..SnapshotDescriptor::default()
    })
}

fn membership_entry(payload: Vec<u8>) -> Entry {
    Entry::new(id(3, 5), EntryKind::Membership, Bytes::from(payload))
}

#[test]
fn a_membership_that_is_damaged_is_refused_with_all_that_comes_with_it() {
    let good = members(3).encode();
    let mut bad = vec![vec![], Membership::default().encode().to_vec()];
    bad.extend((0..good.len()).map(|length| good[..length].to_vec()));
    bad.push([&good[..], &[0]].concat());
    let mut of_nobody = good.to_vec();
    of_nobody[3..11].fill(0);
    bad.push(of_nobody);
    let mut too_many = good.to_vec();
    too_many[1] = MEMBERS_MAX as u8 + 1;
    bad.push(too_many);
    for payload in bad {
        let entries = vec![membership_entry(payload), entry(3, 6)];
        refused(3, append(id(3, 4), entries));
    }
    let mut cluster = cluster(PEER);
    let sound = Message::Append(Append {
        base: id(3, 4),
        commit: Index(0),
        entries: vec![membership_entry(good.to_vec())],
    });
    say(&mut cluster, 3, sound);
    assert_eq!(cluster.raft(NODE).state().membership_index, Index(5));
}

#[test]
fn a_snapshot_that_cannot_be_is_refused() {
    for (last, size) in [
        (LogId::ZERO, 3),
        (id(0, 9), 3),
        (id(3, 0), 3),
        (id(4, 9), 3),
        (id(3, 9), 0),
        (id(3, u64::MAX), 3),
        (id(3, u64::MAX - 1), 3),
        // It contradicts what is committed.
        (id(1, 4), 3),
        (id(3, 3), 3),
    ] {
        refused(3, snapshot(last, members(size)));
    }
}

#[test]
fn a_leader_takes_no_word_of_another_leader_of_its_term() {
    let mut cluster = cluster(NODE);
    let before = cluster.raft(NODE).state();
    let heartbeat = |is_last| Heartbeat {
        commit: Index(4),
        round: 9,
        is_last,
    };
    let said = [
        snapshot(id(3, 9), members(3)),
        Message::Heartbeat(heartbeat(true)),
        Message::Heartbeat(heartbeat(false)),
        append(id(3, 4), vec![entry(3, 5)]),
        Message::TimeoutNow,
        Message::ReadIndexReply(ReadIndexReply {
            number: 1,
            index: Some(Index(0)),
        }),
        Message::Vote(Vote {
            last: id(3, 99),
            is_transfer: true,
        }),
    ];
    for message in said {
        say(&mut cluster, 3, message.clone());
        while cluster.persist(NODE) {}
        let mut after = cluster.raft(NODE).state();
        after.counters = before.counters;
        assert_eq!(after, before, "{message:?}");
    }
}

#[test]
fn strangers_other_lives_and_nobody_are_not_counted() {
    // Somebody who is no member, a member as another incarnation, the id 0, and ourselves.
    let number = 1;
    let index = Some(Index(0));
    let replies = [
        Message::PreVoteReply(PreVoteReply {
            next_term: Term(4),
            granted: true,
        }),
        Message::VoteReply(VoteReply {
            granted: true,
            last: id(3, 4),
        }),
        Message::AppendReply(AppendReply::Accepted { matched: Index(5) }),
        Message::HeartbeatReply(HeartbeatReply {
            round: 0,
            is_refilling: false,
        }),
        Message::ReadIndex(ReadIndex { number }),
        Message::ReadIndexReply(ReadIndexReply { number, index }),
    ];
    let questions = [
        Message::TimeoutNow,
        append(id(3, 4), vec![entry(3, 5)]),
        snapshot(id(3, 9), members(3)),
        Message::Vote(Vote {
            last: id(9, 9),
            is_transfer: true,
        }),
    ];
    for leader in [NODE, PEER] {
        let mut cluster = cluster(leader);
        cluster.propose(leader, "open");
        cluster.network.clear();
        let before = cluster.raft(NODE).state();
        for (from, incarnation) in [(9, 900), (2, 201), (3, 0), (0, 0), (1, 100)] {
            let mut said = replies.to_vec();
            if from < 2 {
                said.extend(questions.clone());
            }
            for message in said {
                for term in [3, 9] {
                    let message = message.clone();
                    let mut envelope = cluster.envelope(NodeId(from), NODE, Term(term), message);
                    envelope.from_incarnation = Incarnation(incarnation);
                    cluster.receive(envelope.clone());
                    let mut after = cluster.raft(NODE).state();
                    let refused = after.counters.refused;
                    assert!(refused > 0, "{envelope:?}");
                    after.counters = before.counters;
                    assert_eq!(after, before, "{envelope:?}");
                }
            }
        }
    }
}

#[test]
fn what_is_meant_for_another_life_of_this_node_is_refused() {
    let mut cluster = cluster(PEER);
    let before = cluster.raft(NODE).state();
    for message in [
        Message::TimeoutNow,
        snapshot(id(3, 9), members(3)),
        append(id(3, 4), vec![entry(3, 5)]),
        Message::Vote(Vote {
            last: id(9, 9),
            is_transfer: true,
        }),
    ] {
        let mut envelope = cluster.envelope(PEER, NODE, Term(3), message);
        envelope.to_incarnation = Incarnation(99);
        cluster.receive(envelope);
        let mut after = cluster.raft(NODE).state();
        assert!(after.counters.refused > before.counters.refused);
        after.counters = before.counters;
        assert_eq!(after, before);
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..8, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => Just(1 << 63)]
}

fn log_id() -> impl Strategy<Value = LogId> {
    (number(), number()).prop_map(|(term, index)| id(term, index))
}

fn message() -> impl Strategy<Value = Message> {
    let entries = (log_id(), 0u64..4, 0u64..3).prop_map(|(base, count, step)| {
        (1..=count)
            .map(|offset| {
                entry(
                    base.term.0.saturating_add(step),
                    base.index.0.wrapping_add(offset),
                )
            })
            .collect::<Vec<_>>()
    });
    let append = (log_id(), number(), entries, any::<bool>()).prop_map(
        |(base, commit, entries, chained)| {
            // Most of the time the entries follow their base, else nothing gets past the first
            // check.
            let before = entries
                .first()
                .map(|first: &Entry| id(base.term.0, first.index().0.wrapping_sub(1)));
            Message::Append(Append {
                base: before.filter(|_| chained).unwrap_or(base),
                commit: Index(commit),
                entries,
            })
        },
    );
    let rejected = (log_id(), number(), number(), number(), log_id()).prop_map(
        |(base, term, first, until, last)| {
            let conflict = Conflict {
                term: Term(term),
                first: Index(first),
                last: Index(until),
            };
            Message::AppendReply(AppendReply::Rejected {
                base,
                conflict,
                last,
            })
        },
    );
    let payload = prop_oneof![
        Just(members(3).encode().to_vec()),
        Just(members(9).encode().to_vec()),
        Just(members(1).encode().to_vec()),
        prop::collection::vec(any::<u8>(), 0..60),
    ];
    let memberships = (number(), log_id(), payload).prop_map(|(commit, base, payload)| {
        let at = id(base.term.0, base.index.0.wrapping_add(1));
        let entries = vec![Entry::new(at, EntryKind::Membership, Bytes::from(payload))];
        let commit = Index(commit);
        Message::Append(Append {
            base,
            commit,
            entries,
        })
    });
    let heartbeat = (number(), number(), any::<bool>()).prop_map(|(commit, round, is_last)| {
        let commit = Index(commit);
        Message::Heartbeat(Heartbeat {
            commit,
            round,
            is_last,
        })
    });
    let vote = (log_id(), any::<bool>())
        .prop_map(|(last, is_transfer)| Message::Vote(Vote { last, is_transfer }));
    prop_oneof![
        2 => memberships,
        1 => (log_id(), 0u64..5).prop_map(|(last, size)| snapshot(last, members(size))),
        1 => Just(Message::TimeoutNow),
        1 => number().prop_map(|number| Message::ReadIndex(ReadIndex { number })),
        1 => (number(), prop::option::of(number())).prop_map(|(number, index)| {
            let index = index.map(Index);
            Message::ReadIndexReply(ReadIndexReply { number, index })
        }),
        4 => append,
        2 => rejected,
        1 => number().prop_map(|matched| {
            let matched = Index(matched);
            Message::AppendReply(AppendReply::Accepted { matched })
        }),
        1 => (number(), log_id()).prop_map(|(term, last)| {
            Message::PreVote(PreVote { next_term: Term(term), last })
        }),
        1 => (number(), any::<bool>()).prop_map(|(term, granted)| {
            Message::PreVoteReply(PreVoteReply { next_term: Term(term), granted })
        }),
        1 => vote,
        1 => (any::<bool>(), log_id())
            .prop_map(|(granted, last)| Message::VoteReply(VoteReply { granted, last })),
        2 => heartbeat,
        1 => (number(), any::<bool>()).prop_map(|(round, is_refilling)| {
            Message::HeartbeatReply(HeartbeatReply { round, is_refilling })
        }),
        1 => number().prop_map(|matched| {
            Message::AppendReply(AppendReply::NoRoom { matched: Index(matched) })
        }),
        1 => number().prop_map(|matched| {
            Message::RefillReply(AppendReply::Accepted { matched: Index(matched) })
        }),
    ]
}

/// Mostly a member; else a stranger, another life of a member, or nobody.
fn speaker() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![8 => Just((2, 200)), 1 => Just((9, 900)), 1 => Just((2, 201)), 1 => Just((0, 0))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No message, and no time that passes between them, stops a node: a leader, a follower, or
    /// one that campaigns.
    #[test]
    fn no_message_stops_a_node(
        leads in any::<bool>(),
        said in prop::collection::vec((speaker(), number(), message(), 0u32..30), 1..12),
    ) {
        let mut raft = {
            let mut cluster = cluster(if leads { NODE } else { PEER });
            prop_assert_eq!(cluster.raft(NODE).role() == Role::Leader, leads);
            cluster.take_raft(NODE)
        };
        let envelopes = Cluster::new(
            (1..=3).map(|id| (NodeId(id), Disk::default())).collect(),
            5,
        );
        for ((from, incarnation), term, message, ticks) in said {
            let mut envelope = envelopes.envelope(NodeId(from), NODE, Term(term), message);
            envelope.from_incarnation = Incarnation(incarnation);
            raft.step(Input::Message(envelope));
            raft.step(Input::Read(vec![ReadTicket(1)]));
            raft.step(Input::SnapshotSent { to: PEER, is_delivered: ticks % 2 == 0 });
            (0..ticks).for_each(|_| raft.step(Input::Tick));
            // The disk finishes at once. What was committed wrongly is not this test's concern.
            for _ in 0..2 {
                let effects = raft.take_effects();
                for write in effects.writes {
                    let (number, last) = (write.number, write.last);
                    raft.step(Input::Persisted(crate::protocol::Persisted { number, last }));
                }
                let restored = effects.restore.map(|meta| meta.last.index);
                let applied = effects.apply.map(|apply| apply.to);
                for index in restored.into_iter().chain(applied) {
                    raft.step(Input::Applied(index));
                }
            }
        }
    }
}
