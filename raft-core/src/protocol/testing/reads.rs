//! Reads of followers: who is asked, what counts as an answer, and what ends the wait.

use super::Cluster;
use super::support::{deadlines, isolate, lead, led, propose, remove, settle, state};
use crate::error::ReadError;
use crate::message::{Message, ReadIndex, ReadIndexReply};
use crate::protocol::{Input, ReadTicket, Role};
use crate::types::{Index, NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn read(cluster: &mut Cluster, id: NodeId, tickets: &[u64]) {
    let tickets = tickets.iter().map(|ticket| ReadTicket(*ticket)).collect();
    cluster.step(id, Input::Read(tickets));
}

/// The numbers of the questions that are under way.
fn questions(cluster: &Cluster) -> Vec<u64> {
    let number = |message: &Message| match message {
        Message::ReadIndex(ReadIndex { number }) => Some(*number),
        _ => None,
    };
    let under_way = cluster.network.iter();
    under_way.filter_map(|e| number(&e.message)).collect()
}

fn answer(cluster: &mut Cluster, from: NodeId, term: Term, number: u64, index: Option<u64>) {
    let index = index.map(Index);
    let reply = Message::ReadIndexReply(ReadIndexReply { number, index });
    let envelope = cluster.envelope(from, C, term, reply);
    cluster.receive(envelope);
}

fn tickets(cluster: &Cluster) -> Vec<u64> {
    let ready = cluster.answers.ready.iter();
    ready.map(|(ticket, _)| ticket.0).collect()
}

#[test]
fn all_reads_that_a_follower_has_share_one_question() {
    let mut cluster = led(3);
    read(&mut cluster, C, &[1, 2, 3]);
    let first = questions(&cluster);
    assert_eq!(first.len(), 1);
    // What comes meanwhile may need to see more, so it waits for the next one.
    read(&mut cluster, C, &[4]);
    read(&mut cluster, C, &[5]);
    assert_eq!(questions(&cluster), first);
    cluster.stabilize();
    assert_eq!(tickets(&cluster), [1, 2, 3, 4, 5]);
    let at = Index(state(&cluster, A).commit.0);
    assert!(cluster.answers.ready.iter().all(|(_, index)| *index == at));
}

#[test]
fn all_reads_that_a_leader_has_share_one_round() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 1);
    settle(&mut cluster, A);
    read(&mut cluster, A, &[1]);
    // What comes meanwhile may need to see more, so it waits for the next round, all of it.
    for ticket in 2..=100 {
        read(&mut cluster, A, &[ticket]);
    }
    let mut rounds = std::collections::BTreeSet::new();
    while !cluster.network.is_empty() {
        for envelope in &cluster.network {
            if let Message::Heartbeat(heartbeat) = &envelope.message {
                rounds.insert(heartbeat.round);
            }
        }
        cluster.deliver(0);
    }
    assert_eq!(tickets(&cluster), (1..=100).collect::<Vec<_>>());
    assert_eq!(rounds.len(), 2, "{rounds:?}");
}

#[test]
fn only_the_leaders_answer_to_the_newest_question_counts() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 5);
    let term = state(&cluster, A).hard_state.term;
    read(&mut cluster, C, &[1]);
    let [old] = questions(&cluster)[..] else {
        panic!("one question");
    };
    // It seems lost, and is asked again.
    cluster.network.clear();
    for _ in 0..cluster.timing.heartbeat_ticks * 2 {
        cluster.step(C, Input::Tick);
    }
    let [new] = questions(&cluster)[..] else {
        panic!("another question");
    };
    assert!(new > old);
    for (from, term, number) in [
        (A, term, old),
        (A, term, new + 1),
        (A, Term(term.0 - 1), new),
        (B, term, new),
    ] {
        answer(&mut cluster, from, term, number, Some(1));
        assert_eq!(cluster.answers.ready, [], "n{from} in term {term}");
    }
    answer(&mut cluster, A, term, new, Some(6));
    assert_eq!(cluster.answers.ready, [(ReadTicket(1), Index(6))]);
    answer(&mut cluster, A, term, new, Some(1));
    assert_eq!(cluster.answers.ready.len(), 1);
}

#[test]
fn an_answer_to_a_former_life_is_none_to_this_one() {
    let mut cluster = led(3);
    let term = state(&cluster, A).hard_state.term;
    read(&mut cluster, C, &[1]);
    let before = questions(&cluster);
    cluster.network.clear();
    propose(&mut cluster, A, 3);
    cluster.crash(C, 0);
    cluster.start(C);
    settle(&mut cluster, A);
    read(&mut cluster, C, &[2]);
    assert_ne!(questions(&cluster), before, "it begins at random");
    answer(&mut cluster, A, term, before[0], Some(1));
    assert_eq!(cluster.answers.ready, []);
    cluster.stabilize();
    assert_eq!(cluster.answers.ready, [(ReadTicket(2), Index(4))]);
}

#[test]
fn a_follower_tells_its_readers_when_the_leader_changes() {
    let mut cluster = led(3);
    isolate(&mut cluster, A);
    read(&mut cluster, C, &[1, 2]);
    lead(&mut cluster, B);
    let refused: Vec<_> = cluster.answers.refused.iter().map(|(t, _)| t.0).collect();
    assert_eq!(refused, [1, 2]);
    // The old leader's answer comes at last: it is of another term.
    let before = cluster.answers.ready.len();
    answer(&mut cluster, A, Term(1), u64::MAX, Some(1));
    assert_eq!(cluster.answers.ready.len(), before);
    read(&mut cluster, C, &[3]);
    cluster.stabilize();
    assert_eq!(tickets(&cluster), [3]);
}

#[test]
fn a_leader_that_cannot_say_refuses_and_so_does_the_follower() {
    let mut cluster = led(3);
    let term = state(&cluster, A).hard_state.term;
    read(&mut cluster, C, &[1]);
    let [number] = questions(&cluster)[..] else {
        panic!("one question");
    };
    cluster.network.clear();
    answer(&mut cluster, A, term, number, None);
    let leader = Some(A);
    let refused = (ReadTicket(1), ReadError::NotLeader { leader });
    assert_eq!(cluster.answers.refused, [refused]);
    // Whoever does not lead says so.
    let question = Message::ReadIndex(ReadIndex { number: 9 });
    let envelope = cluster.envelope(C, B, term, question);
    cluster.receive(envelope);
    let index = None;
    let reply = Message::ReadIndexReply(ReadIndexReply { number: 9, index });
    assert_eq!(cluster.network[0].message, reply);
}

#[test]
fn a_new_leader_answers_nobody_before_it_has_committed_in_its_term() {
    // It does not know yet what its predecessor committed (etcd 7331).
    let mut cluster = led(3);
    propose(&mut cluster, A, 5);
    isolate(&mut cluster, A);
    cluster.campaign(B);
    while cluster.raft(C).is_led() {
        cluster.step(C, Input::Tick);
    }
    while cluster.raft(B).role() != Role::Leader {
        for id in [B, C] {
            while cluster.persist(id) {}
        }
        cluster.deliver(0);
    }
    let bulk = |cluster: &mut Cluster| cluster.network.retain(|e| !e.message.is_bulk());
    read(&mut cluster, B, &[1]);
    let term = state(&cluster, B).hard_state.term;
    let question = Message::ReadIndex(ReadIndex { number: 1 });
    let envelope = cluster.envelope(C, B, term, question);
    cluster.receive(envelope);
    for _ in 0..10 {
        bulk(&mut cluster);
        while !cluster.network.is_empty() {
            cluster.deliver(0);
            bulk(&mut cluster);
        }
        cluster.step(B, Input::Tick);
    }
    assert_eq!(cluster.answers.ready, []);
    settle(&mut cluster, B);
    settle(&mut cluster, B);
    assert_eq!(tickets(&cluster), [1]);
    assert!(cluster.answers.ready[0].1 >= Index(7));
}

#[test]
fn reads_that_wait_are_bounded_and_a_removed_node_does_not_wait_for_ever() {
    let mut cluster = led(3);
    cluster.limits.reads_pending_max = 2;
    cluster.crash(C, 0);
    cluster.start(C);
    settle(&mut cluster, A);
    read(&mut cluster, C, &[1, 2, 3]);
    let (limit_name, limit) = ("reads_pending_max", 2);
    let busy = (ReadTicket(3), ReadError::Busy { limit_name, limit });
    assert_eq!(cluster.answers.refused, [busy]);
    cluster.stabilize();
    assert_eq!(tickets(&cluster), [1, 2]);
    cluster.answers.refused.clear();
    cluster.change(A, remove(3));
    cluster.stabilize();
    read(&mut cluster, C, &[4]);
    deadlines(&mut cluster, 2);
    let leader = None;
    let refused = (ReadTicket(4), ReadError::NotLeader { leader });
    assert_eq!(cluster.answers.refused, [refused]);
}
