//! A peer that is broken or wrong: whatever it says, a node refuses it or goes on, and never stops.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::Cluster;
use super::disk::Disk;
use crate::entry::{Entry, EntryKind};
use crate::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply, Vote,
    VoteReply,
};
use crate::protocol::{Input, Role};
use crate::types::{Index, LogId, NodeId, Term};

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
    prop_oneof![
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
        1 => log_id().prop_map(|last| Message::Vote(Vote { last, is_transfer: false })),
        1 => (any::<bool>(), log_id())
            .prop_map(|(granted, last)| Message::VoteReply(VoteReply { granted, last })),
        1 => (number(), number()).prop_map(|(commit, round)| {
            Message::Heartbeat(Heartbeat { commit: Index(commit), round, is_last: false })
        }),
        1 => number().prop_map(|round| Message::HeartbeatReply(HeartbeatReply { round })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No message, and no time that passes between them, stops a node: a leader, a follower, or
    /// one that campaigns.
    #[test]
    fn no_message_stops_a_node(
        leads in any::<bool>(),
        said in prop::collection::vec((number(), message(), 0u32..30), 1..12),
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
        for (term, message, ticks) in said {
            let envelope = envelopes.envelope(PEER, NODE, Term(term), message);
            raft.step(Input::Message(envelope));
            (0..ticks).for_each(|_| raft.step(Input::Tick));
            // The disk finishes at once. What was committed wrongly is not this test's concern.
            for write in raft.take_effects().writes {
                let done = crate::protocol::Persisted { number: write.number, last: write.last };
                raft.step(Input::Persisted(done));
            }
            raft.take_effects();
        }
    }
}
