//! Members that are removed hear of it, and count for nothing while they do.

use super::Cluster;
use super::support::{deadlines, in_step, isolate, join, led, pass, propose, remove, set, settle};
use crate::membership::MembershipChange;
use crate::message::{AppendReply, Message};
use crate::protocol::Input;
use crate::types::{Index, NodeId};

const A: NodeId = NodeId(1);
const C: NodeId = NodeId(3);

/// Whether a node knows, as something that is committed, that it is no member.
fn knows(cluster: &Cluster, id: NodeId) -> bool {
    let state = cluster.raft(id).state();
    state.membership.get(id).is_none() && state.commit >= state.membership_index
}

fn talks_to(cluster: &Cluster, id: NodeId) -> bool {
    cluster.raft(A).talks_to().get(id).is_some()
}

#[test]
fn a_follower_that_is_removed_hears_of_it_and_is_then_left_alone() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 3);
    cluster.change(A, remove(3));
    settle(&mut cluster, A);
    assert!(knows(&cluster, C));
    assert!(
        !talks_to(&cluster, C),
        "once it knows, nothing is said to it"
    );
    let last = cluster.raft(C).state().last;
    propose(&mut cluster, A, 3);
    settle(&mut cluster, A);
    assert_eq!(
        cluster.raft(C).state().last,
        last,
        "no more than it had to know"
    );
    in_step(&cluster, &[1, 2]);
}

#[test]
fn a_learner_that_is_removed_hears_of_it() {
    let mut cluster = led(3);
    join(&mut cluster, A, 4);
    cluster.change(A, remove(4));
    settle(&mut cluster, A);
    assert!(knows(&cluster, NodeId(4)));
    assert!(!talks_to(&cluster, NodeId(4)));
}

#[test]
fn several_that_are_removed_at_once_all_hear_of_it() {
    let mut cluster = led(5);
    propose(&mut cluster, A, 2);
    cluster.change(A, set(&[1, 2]));
    settle(&mut cluster, A);
    for id in [3, 4, 5].map(NodeId) {
        assert!(knows(&cluster, id), "n{id}");
        assert!(!talks_to(&cluster, id), "n{id}");
    }
}

#[test]
fn one_that_cannot_be_reached_is_given_up() {
    let mut cluster = led(3);
    isolate(&mut cluster, C);
    cluster.change(A, remove(3));
    settle(&mut cluster, A);
    assert!(talks_to(&cluster, C), "it is tried for a while");
    deadlines(&mut cluster, 9);
    assert!(!talks_to(&cluster, C));
    assert!(!knows(&cluster, C));
    cluster.cut.clear();
    deadlines(&mut cluster, 9);
    assert_eq!(cluster.leader(), Some(A), "and it disturbs nobody");
}

#[test]
fn one_that_was_away_for_a_moment_still_hears_of_it() {
    let mut cluster = led(3);
    isolate(&mut cluster, C);
    cluster.change(A, remove(3));
    deadlines(&mut cluster, 2);
    cluster.cut.clear();
    deadlines(&mut cluster, 2);
    assert!(knows(&cluster, C));
}

#[test]
fn what_it_acknowledges_counts_for_nothing() {
    let mut cluster = led(3);
    cluster.change(A, remove(3));
    // Until everybody knows but C.
    isolate(&mut cluster, C);
    settle(&mut cluster, A);
    isolate(&mut cluster, NodeId(2));
    propose(&mut cluster, A, 1);
    let last = cluster.raft(A).state().last;
    let accepted = Message::AppendReply(AppendReply::Accepted {
        matched: last.index,
    });
    let ack = cluster.envelope(C, A, last.term, accepted);
    cluster.step(A, Input::Message(ack));
    assert!(cluster.raft(A).state().commit < last.index);
    let matched = cluster.raft(A).state().matched;
    assert_eq!(matched.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn one_that_comes_back_at_once_is_an_ordinary_member_again() {
    let mut cluster = led(3);
    isolate(&mut cluster, C);
    cluster.change(A, remove(3));
    settle(&mut cluster, A);
    let add = MembershipChange::AddLearner {
        id: C,
        incarnation: cluster.node(C).incarnation,
        address: String::new(),
    };
    cluster.change(A, add);
    cluster.cut.clear();
    settle(&mut cluster, A);
    pass(&mut cluster, 100);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    let state = cluster.raft(A).state();
    assert!(state.matched.contains(&(C, state.last.index)));
}

#[test]
fn a_leader_that_follows_again_says_nothing_more() {
    let mut cluster = led(3);
    isolate(&mut cluster, C);
    cluster.change(A, remove(3));
    settle(&mut cluster, A);
    cluster.transfer_to(A, NodeId(2));
    settle(&mut cluster, NodeId(2));
    assert_eq!(cluster.leader(), Some(NodeId(2)));
    assert!(!talks_to(&cluster, C));
    assert!(cluster.raft(A).state().commit > Index(0));
}
