//! Messages that come late or twice, kind by kind: none changes a vote, a log, a commit index, or
//! what a leader counts.

use std::collections::{BTreeMap, BTreeSet};

use super::Cluster;
use super::disk::Disk;
use crate::message::{
    Append, AppendReply, Conflict, Envelope, Heartbeat, HeartbeatReply, Message, PreVote,
    PreVoteReply, Vote, VoteReply,
};
use crate::protocol::{Input, Role, State};
use crate::types::{Index, LogId, NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn nodes(count: u64, terms: &[u64]) -> Cluster {
    let disks: BTreeMap<_, _> = (1..=count)
        .map(|id| (NodeId(id), Disk::with_terms(terms)))
        .collect();
    Cluster::new(disks, 11)
}

/// Delivers everything, one message at a time, and returns what was delivered.
fn deliver_all(cluster: &mut Cluster) -> Vec<Envelope> {
    let mut delivered = Vec::new();
    loop {
        for id in cluster.ids() {
            while cluster.persist(id) {}
        }
        let Some(next) = cluster.network.first() else {
            return delivered;
        };
        delivered.push(next.clone());
        cluster.deliver(0);
    }
}

/// Three nodes with the log 1 1; A leads term 2 and all of it is committed.
fn led_by_a() -> Cluster {
    let mut cluster = nodes(3, &[1, 1]);
    cluster.campaign(A);
    for _ in 0..10 {
        deliver_all(&mut cluster);
        cluster.step(A, Input::Tick);
    }
    deliver_all(&mut cluster);
    assert_eq!(cluster.raft(A).state().role, Role::Leader);
    assert_eq!(cluster.raft(B).state().commit, Index(3));
    cluster
}

/// Says it twice, and asserts that nothing changed. Returns the answers.
fn harmless(cluster: &mut Cluster, from: NodeId, to: NodeId, term: u64, message: Message) {
    let before = cluster.raft(to).state();
    let envelope = cluster.envelope(from, to, Term(term), message);
    for _ in 0..2 {
        cluster.receive(envelope.clone());
        while cluster.persist(to) {}
        assert_eq!(cluster.raft(to).state(), before, "{envelope:?}");
    }
}

/// What `from` answered since the network was empty.
fn answers(cluster: &mut Cluster, from: NodeId) -> Vec<Message> {
    let network = std::mem::take(&mut cluster.network);
    let answers = network.into_iter().filter(|e| e.from == from);
    answers.map(|envelope| envelope.message).collect()
}

#[test]
fn everything_that_was_ever_said_may_be_said_again() {
    let mut cluster = nodes(3, &[]);
    let mut said = Vec::new();
    for (leader, other) in [(A, B), (B, C), (C, A)] {
        // The last leader is cut off with an entry that nobody else has.
        if let Some(last) = cluster.leader() {
            cluster.cut.extend([(last, A), (last, B), (last, C)]);
            cluster.propose(last, "lost");
            said.extend(deliver_all(&mut cluster));
        }
        for _ in 0..cluster.timing.election_ticks_min {
            cluster.step(other, Input::Tick);
        }
        cluster.campaign(leader);
        said.extend(deliver_all(&mut cluster));
        cluster.cut.clear();
        for value in 0..30 {
            cluster.propose(leader, &value.to_string());
            cluster.step(leader, Input::Tick);
            cluster.read(leader, leader.0 * 100 + value);
            said.extend(deliver_all(&mut cluster));
        }
        assert_eq!(cluster.leader(), Some(leader));
    }
    let kinds: BTreeSet<_> = said.iter().map(|e| e.message.name()).collect();
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    let state = |cluster: &Cluster, id| State {
        counters: Default::default(),
        ..cluster.raft(id).state()
    };
    for envelope in said {
        let to = envelope.to;
        let before = state(&cluster, to);
        cluster.receive(envelope.clone());
        while cluster.persist(to) {}
        assert_eq!(state(&cluster, to), before, "{envelope:?}");
        cluster.network.clear();
    }
}

#[test]
fn pre_vote() {
    let mut cluster = led_by_a();
    for (term, next_term) in [(1, 2), (2, 3), (2, 9), (7, 8)] {
        let question = PreVote {
            next_term: Term(next_term),
            last: id(9, 9),
        };
        harmless(&mut cluster, C, B, term, Message::PreVote(question));
        harmless(&mut cluster, C, A, term, Message::PreVote(question));
    }
}

#[test]
fn pre_vote_reply() {
    let mut cluster = led_by_a();
    let reply = |next_term| PreVoteReply {
        next_term: Term(next_term),
        granted: true,
    };
    harmless(&mut cluster, C, A, 2, Message::PreVoteReply(reply(2)));
    harmless(&mut cluster, C, B, 2, Message::PreVoteReply(reply(3)));
    // Nor does an answer to an earlier round count in this one.
    cluster.campaign(B);
    cluster.network.clear();
    harmless(&mut cluster, C, B, 1, Message::PreVoteReply(reply(2)));
    harmless(&mut cluster, C, B, 2, Message::PreVoteReply(reply(2)));
    assert_eq!(cluster.raft(B).role(), Role::PreCandidate);
}

#[test]
fn vote() {
    let mut cluster = led_by_a();
    // The one that was voted for, asking again; another one in the same term; one of an old term.
    for (from, term, last) in [
        (A, 2, id(1, 2)),
        (C, 2, id(2, 9)),
        (A, 1, id(2, 9)),
        (C, 1, id(2, 9)),
    ] {
        let vote = Vote {
            last,
            is_transfer: false,
        };
        harmless(&mut cluster, from, B, term, Message::Vote(vote));
        for answer in answers(&mut cluster, B) {
            let Message::VoteReply(reply) = answer else {
                panic!("{answer:?}");
            };
            assert!(!reply.granted, "n{from} asks in term {term}");
        }
    }
    harmless(
        &mut cluster,
        C,
        A,
        2,
        Message::Vote(Vote {
            last: id(2, 9),
            is_transfer: false,
        }),
    );
}

#[test]
fn vote_reply() {
    let mut cluster = led_by_a();
    for granted in [true, false] {
        let reply = VoteReply {
            granted,
            last: id(1, 2),
        };
        for (to, term) in [(A, 2), (A, 1), (B, 2), (B, 1)] {
            harmless(&mut cluster, C, to, term, Message::VoteReply(reply));
        }
    }
    // One voter is one vote, however often it says so, and an old term's vote is none.
    let mut cluster = nodes(5, &[1]);
    cluster.campaign(A);
    for peer in [B, C] {
        let reply = PreVoteReply {
            next_term: Term(2),
            granted: true,
        };
        let envelope = cluster.envelope(peer, A, Term(1), Message::PreVoteReply(reply));
        cluster.receive(envelope);
    }
    while cluster.persist(A) {}
    assert_eq!(cluster.raft(A).role(), Role::Candidate);
    let reply = VoteReply {
        granted: true,
        last: id(1, 1),
    };
    harmless(&mut cluster, B, A, 2, Message::VoteReply(reply));
    harmless(&mut cluster, C, A, 1, Message::VoteReply(reply));
    assert_eq!(cluster.raft(A).role(), Role::Candidate);
}

#[test]
fn append() {
    let mut cluster = led_by_a();
    let entries = cluster.node(A).disk.entries.clone();
    for (base, first, count) in [(LogId::ZERO, 0, 3), (LogId::ZERO, 0, 1), (id(1, 1), 1, 1)] {
        for term in [2, 1] {
            let append = Append {
                base,
                commit: Index(1),
                // A leader of term 1 had only the first two.
                entries: entries[first..first + count.min(if term == 1 { 2 } else { 3 })].to_vec(),
            };
            harmless(&mut cluster, A, B, term, Message::Append(append));
        }
        // What is acknowledged is what the append verified, or what is committed.
        let accepted = AppendReply::Accepted { matched: Index(3) };
        assert!(answers(&mut cluster, B).contains(&Message::AppendReply(accepted)));
    }
    // An entry beyond the commit index survives a late, shorter append too.
    let beyond = Append {
        base: id(2, 3),
        commit: Index(3),
        entries: vec![crate::Entry::new(
            id(2, 4),
            crate::EntryKind::Noop,
            bytes::Bytes::new(),
        )],
    };
    let envelope = cluster.envelope(A, B, Term(2), Message::Append(beyond));
    cluster.receive(envelope);
    while cluster.persist(B) {}
    let shorter = Append {
        base: id(1, 2),
        commit: Index(3),
        entries: entries[2..].to_vec(),
    };
    harmless(&mut cluster, A, B, 2, Message::Append(shorter));
    assert_eq!(cluster.raft(B).state().last, id(2, 4));
}

#[test]
fn append_reply() {
    let mut cluster = led_by_a();
    let rejected = AppendReply::Rejected {
        base: id(1, 2),
        conflict: Conflict::default(),
        last: LogId::ZERO,
    };
    let accepted = |matched| AppendReply::Accepted {
        matched: Index(matched),
    };
    for (term, reply) in [
        (2, accepted(1)),
        (2, accepted(3)),
        (1, accepted(3)),
        (1, rejected),
    ] {
        harmless(&mut cluster, B, A, term, Message::AppendReply(reply));
        harmless(&mut cluster, A, B, term, Message::AppendReply(reply));
    }
    // An acknowledgement of the last term does not count for what was proposed in this one.
    cluster.propose(A, "new");
    while cluster.persist(A) {}
    cluster.network.clear();
    harmless(&mut cluster, B, A, 1, Message::AppendReply(accepted(4)));
    let before = cluster.raft(A).state();
    let late = cluster.envelope(B, A, Term(2), Message::AppendReply(rejected));
    cluster.receive(late);
    let mut after = cluster.raft(A).state();
    after.counters = before.counters;
    assert_eq!(after, before, "a rejection below what is matched");
}

#[test]
fn heartbeat() {
    let mut cluster = led_by_a();
    for (term, commit) in [(2, 0), (2, 3), (1, 3), (1, 99)] {
        let heartbeat = Heartbeat {
            commit: Index(commit),
            round: 0,
            is_last: false,
        };
        harmless(&mut cluster, A, B, term, Message::Heartbeat(heartbeat));
    }
}

#[test]
fn heartbeat_reply() {
    let mut cluster = led_by_a();
    cluster.read(A, 1);
    deliver_all(&mut cluster);
    cluster.take_trace();
    // Round 2 is asked; answers to round 1, and one of an old term, confirm nothing.
    cluster.read(A, 2);
    cluster.network.clear();
    for (term, round) in [(2, 0), (2, 1), (1, 2)] {
        let reply = HeartbeatReply {
            round,
            is_refilling: false,
        };
        harmless(&mut cluster, B, A, term, Message::HeartbeatReply(reply));
        harmless(&mut cluster, A, B, term, Message::HeartbeatReply(reply));
    }
    let is_ready = |line: &String| line.contains("read 2 ready");
    assert!(!cluster.take_trace().iter().any(is_ready));
    let reply = Message::HeartbeatReply(HeartbeatReply {
        round: 2,
        is_refilling: false,
    });
    let envelope = cluster.envelope(B, A, Term(2), reply);
    cluster.receive(envelope);
    assert!(cluster.take_trace().iter().any(is_ready));
}

/// One vote in a term, wherever the voter loses its power.
#[test]
fn a_vote_is_given_once_whatever_is_lost() {
    for (persisted, kept) in [(false, 0), (false, 1), (true, 0)] {
        let mut cluster = nodes(3, &[1]);
        let ask = |cluster: &mut Cluster, from| {
            let vote = Message::Vote(Vote {
                last: id(1, 1),
                is_transfer: false,
            });
            let envelope = cluster.envelope(from, C, Term(2), vote);
            cluster.receive(envelope);
        };
        ask(&mut cluster, A);
        if persisted {
            while cluster.persist(C) {}
        }
        cluster.crash(C, kept);
        let is_promised = !cluster.network.is_empty();
        assert_eq!(is_promised, persisted, "a vote leaves when it is durable");
        cluster.start(C);
        ask(&mut cluster, B);
        let vote = cluster.raft(C).state().hard_state.vote;
        let forgotten = !persisted && kept == 0;
        assert_eq!(vote, Some(if forgotten { B } else { A }));
        while cluster.persist(C) {}
    }
}
