//! Reads by lease: when one holds, what ends it, and what every follower does so that it can be
//! trusted.

use super::Cluster;
use super::support::{deadlines, isolate, join, lead, log_id, nodes, propose, set, settle, state};
use crate::config::ReadPolicy;
use crate::message::{
    Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply, ReadIndex, Vote, VoteReply,
};
use crate::protocol::{Input, ReadTicket, Role};
use crate::types::{Index, NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

const MILLISECOND: u64 = 1_000_000;
/// 18 of 20 ticks of 10 ms, by a clock that may be 10 percent slower than another.
const LENGTH: u64 = 163_636_300;

fn leased(size: u64) -> Cluster {
    let mut cluster = nodes(size, &[]);
    cluster.reads = ReadPolicy::Lease {
        clock_drift_percent: 10,
    };
    cluster.restart_all();
    for id in cluster.ids() {
        for _ in 0..cluster.timing.election_ticks_max {
            if cluster.raft(id).role() == Role::Follower {
                cluster.step(id, Input::Tick);
            }
        }
    }
    cluster.network.clear();
    deadlines(&mut cluster, 5);
    let leader = cluster.leader().expect("somebody leads");
    if leader != A {
        cluster.transfer_to(leader, A);
        cluster.stabilize();
        settle(&mut cluster, A);
    }
    assert_eq!(cluster.leader(), Some(A));
    cluster.answers = super::cluster::Answers::default();
    cluster
}

/// The leader's clock says this, and then its heartbeat is answered.
fn renew(cluster: &mut Cluster, clock: u64) {
    cluster.step(A, Input::Clock(clock));
    for _ in 0..cluster.timing.heartbeat_ticks {
        cluster.step(A, Input::Tick);
    }
    cluster.stabilize();
}

/// A read at A when its clock says this: whether it is answered without a message.
fn reads_at(cluster: &mut Cluster, clock: u64) -> bool {
    let before = cluster.answers.ready.len();
    cluster.network.clear();
    let tickets = vec![ReadTicket(clock)];
    cluster.step_all(A, vec![Input::Read(tickets), Input::Clock(clock)]);
    let is_answered = cluster.answers.ready.len() > before;
    assert!(!is_answered || cluster.network.is_empty(), "by a lease");
    cluster.stabilize();
    is_answered
}

fn say(cluster: &mut Cluster, from: NodeId, to: NodeId, term: Term, message: Message) {
    let envelope = cluster.envelope(from, to, term, message);
    cluster.receive(envelope);
}

#[test]
fn a_lease_answers_reads_without_a_message_until_it_ends() {
    let mut cluster = leased(3);
    let start = 1_000 * MILLISECOND;
    renew(&mut cluster, start);
    for ahead in [0, 1, LENGTH / 2, LENGTH - 1] {
        assert!(reads_at(&mut cluster, start + ahead), "{ahead} ns");
    }
    assert_eq!(cluster.raft(A).state().counters.lease_reads, 4);
    assert!(!reads_at(&mut cluster, start + LENGTH), "by a round");
    assert_eq!(cluster.answers.ready.len(), 5, "which answers too");
    // That round began before the clock said this, and so renews the lease.
    assert!(reads_at(&mut cluster, start + 2 * LENGTH - 1));
    assert!(!reads_at(&mut cluster, start + 4 * LENGTH));
}

#[test]
fn without_the_option_there_is_no_lease() {
    let mut cluster = nodes(3, &[]);
    lead(&mut cluster, A);
    renew(&mut cluster, 1_000 * MILLISECOND);
    assert!(!reads_at(&mut cluster, 1_000 * MILLISECOND));
    assert_eq!(cluster.raft(A).state().counters.lease_reads, 0);
}

#[test]
fn a_pause_between_the_read_and_the_look_at_the_clock_is_noticed() {
    // A is stopped for a second after a read came in; meanwhile B leads and commits (TiKV 10011).
    let mut cluster = leased(3);
    let start = 1_000 * MILLISECOND;
    renew(&mut cluster, start);
    isolate(&mut cluster, A);
    for _ in 0..3 * cluster.timing.election_ticks_max {
        for id in [B, C] {
            cluster.step(id, Input::Tick);
        }
        cluster.stabilize();
    }
    let leader = cluster.leader().expect("another leads");
    assert_ne!(leader, A);
    propose(&mut cluster, leader, 1);
    assert_eq!(
        cluster.raft(A).role(),
        Role::Leader,
        "it knows nothing of it"
    );
    assert!(!reads_at(&mut cluster, start + 1_000 * MILLISECOND));
    assert_eq!(cluster.answers.ready, [], "nor does it answer");
    // A clock that goes back does not bring the lease back.
    cluster.network.clear();
    cluster.step_all(
        A,
        vec![Input::Read(vec![ReadTicket(7)]), Input::Clock(start)],
    );
    assert_eq!(cluster.answers.ready, []);
}

#[test]
fn a_lease_begins_before_the_heartbeat_that_a_majority_answers() {
    let mut cluster = leased(5);
    let start = 1_000 * MILLISECOND;
    let later = start + 100 * MILLISECOND;
    renew(&mut cluster, start);
    // A heartbeat is sent at `later`: the answers to the one before do not count for it.
    cluster.step(A, Input::Clock(later));
    for _ in 0..cluster.timing.heartbeat_ticks {
        cluster.step(A, Input::Tick);
    }
    let term = state(&cluster, A).hard_state.term;
    let beats = cluster.network.iter().filter_map(|e| match &e.message {
        Message::Heartbeat(beat) => Some(beat.round),
        _ => None,
    });
    let round = beats.max().expect("a heartbeat is sent");
    let answer = |round| {
        Message::HeartbeatReply(HeartbeatReply {
            round,
            is_refilling: false,
        })
    };
    cluster.network.clear();
    for id in 2..=5 {
        say(&mut cluster, NodeId(id), A, term, answer(round - 1));
    }
    // One of four, however often, is no majority either.
    for _ in 0..3 {
        say(&mut cluster, B, A, term, answer(round));
    }
    let mut other = cluster.take_raft(A);
    other.step(Input::Read(vec![ReadTicket(1)]));
    other.step(Input::Clock(start + LENGTH));
    assert!(other.take_effects().reads_ready.is_empty());
    cluster.nodes.get_mut(&A).unwrap().raft = Some(other);
    say(&mut cluster, C, A, term, answer(round));
    cluster.network.clear();
    assert!(reads_at(&mut cluster, later + LENGTH - 1));
}

#[test]
fn a_learner_does_not_renew_a_lease_and_a_joint_group_does_so_by_both_halves() {
    let mut cluster = leased(3);
    for id in [4, 5] {
        join(&mut cluster, A, id);
    }
    let start = 5_000 * MILLISECOND;
    isolate(&mut cluster, B);
    isolate(&mut cluster, C);
    renew(&mut cluster, start);
    assert!(!reads_at(&mut cluster, start));
    // A, D and E of the new half answer, and of the old half only A.
    cluster.change(A, set(&[1, 4, 5]));
    renew(&mut cluster, start + MILLISECOND);
    assert!(!reads_at(&mut cluster, start + MILLISECOND));
}

#[test]
fn there_is_no_lease_before_an_entry_of_the_own_term_is_committed() {
    let mut cluster = leased(3);
    cluster.transfer_to(A, B);
    cluster.stabilize();
    cluster.transfer_to(B, A);
    // Until A leads, but none of its appends arrives.
    while cluster.leader() != Some(A) {
        for id in [A, B, C] {
            while cluster.persist(id) {}
        }
        if !cluster.network.is_empty() {
            cluster.deliver(0);
        }
    }
    let start = 9_000 * MILLISECOND;
    for _ in 0..2 {
        cluster.step(A, Input::Clock(start));
        for _ in 0..cluster.timing.heartbeat_ticks {
            cluster.step(A, Input::Tick);
        }
        cluster.network.retain(|e| !e.message.is_bulk());
        while !cluster.network.is_empty() {
            cluster.deliver(0);
            cluster.network.retain(|e| !e.message.is_bulk());
        }
    }
    let read = vec![ReadTicket(1)];
    cluster.step_all(A, vec![Input::Read(read), Input::Clock(start)]);
    assert_eq!(cluster.answers.ready, []);
    cluster.network.clear();
    settle(&mut cluster, A);
    settle(&mut cluster, A);
    assert_eq!(cluster.answers.ready.len(), 1);
}

#[test]
fn a_transfer_forfeits_the_lease_for_the_rest_of_the_term() {
    let mut cluster = leased(3);
    let start = 1_000 * MILLISECOND;
    renew(&mut cluster, start);
    cluster.cut.insert((A, B));
    cluster.transfer_to(A, B);
    assert!(!reads_at(&mut cluster, start + 1));
    // The transfer fails, but somebody may still have been told.
    cluster.cut.clear();
    settle(&mut cluster, A);
    assert_eq!(cluster.leader(), Some(A));
    renew(&mut cluster, start + LENGTH);
    assert!(!reads_at(&mut cluster, start + LENGTH));
    // In its next term it has one again.
    lead_again(&mut cluster);
    let start = start + 100 * LENGTH;
    renew(&mut cluster, start);
    assert!(reads_at(&mut cluster, start));
}

fn lead_again(cluster: &mut Cluster) {
    for (from, to) in [(A, B), (B, A)] {
        cluster.transfer_to(from, to);
        cluster.stabilize();
        settle(cluster, to);
        assert_eq!(cluster.leader(), Some(to));
    }
}

#[test]
fn a_node_that_was_started_anew_grants_nothing_for_a_whole_deadline() {
    // Also one that knows no term: its answer may have left before its term was on its disk.
    for term in [0, 3] {
        let mut cluster = nodes(3, &[]);
        cluster.reads = ReadPolicy::Lease {
            clock_drift_percent: 10,
        };
        for node in cluster.nodes.values_mut() {
            node.disk.hard_state.term = Term(term);
        }
        cluster.restart_all();
        let embargo = cluster.timing.election_ticks_max;
        for tick in 0..=embargo {
            let is_over = tick == embargo;
            let asked = Term(10 + u64::from(tick));
            cluster.network.clear();
            let last = log_id(9, 9);
            let next_term = asked.next();
            let pre_vote = Message::PreVote(PreVote { next_term, last });
            say(&mut cluster, A, B, asked, pre_vote);
            for is_transfer in [false, true] {
                let vote = Message::Vote(Vote { last, is_transfer });
                let asked = Term(asked.0 * 2 + u64::from(is_transfer));
                say(&mut cluster, A, B, asked, vote);
            }
            while cluster.persist(B) {}
            let granted = cluster.network.iter().filter(|e| match e.message {
                Message::VoteReply(VoteReply { granted, .. })
                | Message::PreVoteReply(PreVoteReply { granted, .. }) => granted,
                _ => false,
            });
            let granted = granted.count();
            assert_eq!(granted > 0, is_over, "{granted} grants at tick {tick}");
            assert_eq!(cluster.raft(B).role(), Role::Follower, "nor does it ask");
            cluster.step(B, Input::Tick);
        }
    }
    let mut cluster = nodes(3, &[1]);
    let (next_term, last) = (Term(2), log_id(1, 1));
    let pre_vote = Message::PreVote(PreVote { next_term, last });
    say(&mut cluster, A, B, Term(1), pre_vote);
    let granted = true;
    let reply = Message::PreVoteReply(PreVoteReply { next_term, granted });
    assert_eq!(cluster.network[0].message, reply, "without leases it may");
}

#[test]
fn who_answered_a_heartbeat_votes_for_nobody_for_a_while_whatever_it_hears() {
    // C campaigns with pre-votes that were given before B heard A again, and an answer to B raises
    // its term before the request for its vote comes.
    let mut cluster = leased(3);
    let term = state(&cluster, A).hard_state.term;
    let ask = |cluster: &mut Cluster| {
        let vote = Vote {
            last: log_id(8, 99),
            is_transfer: false,
        };
        say(cluster, C, B, term.next(), Message::Vote(vote));
        while cluster.persist(B) {}
        state(cluster, B).hard_state.vote == Some(C)
    };
    let beat = Message::Heartbeat(Heartbeat {
        commit: Index(0),
        round: 1,
        is_last: false,
    });
    say(&mut cluster, A, B, term, beat);
    assert!(!ask(&mut cluster), "its term is not even looked at");
    let granted = false;
    let next_term = term.next();
    let reply = Message::PreVoteReply(PreVoteReply { next_term, granted });
    say(&mut cluster, C, B, term.next(), reply);
    assert_eq!(state(&cluster, B).hard_state.term, term.next());
    for tick in 0..cluster.timing.election_ticks_min {
        assert!(!ask(&mut cluster), "after {tick} ticks");
        cluster.step(B, Input::Tick);
    }
    assert_eq!(cluster.raft(B).role(), Role::Follower);
    assert!(ask(&mut cluster), "then it may");
}

#[test]
fn a_follower_reads_by_its_leaders_lease() {
    let mut cluster = leased(3);
    let start = 1_000 * MILLISECOND;
    renew(&mut cluster, start);
    propose(&mut cluster, A, 1);
    cluster.network.clear();
    let term = state(&cluster, A).hard_state.term;
    let question = Message::ReadIndex(ReadIndex { number: 5 });
    let question = cluster.envelope(C, A, term, question);
    cluster.step_all(A, vec![Input::Message(question), Input::Clock(start + 1)]);
    let [reply] = &cluster.network[..] else {
        panic!("{:?}", cluster.network);
    };
    let index = Some(state(&cluster, A).commit);
    let number = 5;
    let wanted = crate::message::ReadIndexReply { number, index };
    assert_eq!(reply.message, Message::ReadIndexReply(wanted));
}
