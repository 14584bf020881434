//! Disks that are short of room: no commands are taken, and everything else goes on.

use super::Cluster;
use super::support::{deadlines, in_step, isolate, join, led, nodes, propose, set, settle, voters};
use crate::error::ProposeError;
use crate::message::{Envelope, Message};
use crate::protocol::Input;
use crate::types::{Index, NodeId};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn short(cluster: &mut Cluster, id: NodeId, is_short: bool) {
    cluster.step(id, Input::Room { is_short });
}

fn last_answer(cluster: &Cluster) -> Option<ProposeError> {
    cluster
        .answers
        .proposed
        .last()
        .and_then(|r| r.clone().err())
}

#[test]
fn a_leader_without_room_refuses_commands_and_leads_on() {
    let mut cluster = led(3);
    cluster.propose(A, "before");
    short(&mut cluster, A, true);
    assert!(cluster.raft(A).state().is_short_of_room);
    cluster.propose(A, "during");
    assert_eq!(last_answer(&cluster), Some(ProposeError::NoRoom(A)));
    deadlines(&mut cluster, 3);
    assert_eq!(cluster.leader(), Some(A), "it goes on leading");
    assert_eq!(
        cluster.raft(A).state().commit,
        Index(2),
        "what it had is committed"
    );
    in_step(&cluster, &[1, 2, 3]);
    cluster.read(A, 1);
    settle(&mut cluster, A);
    assert_eq!(cluster.answers.ready.len(), 1, "reads need no room");
    short(&mut cluster, A, false);
    cluster.propose(A, "after");
    settle(&mut cluster, A);
    assert_eq!(last_answer(&cluster), None);
    assert_eq!(cluster.raft(A).state().commit, Index(3));
}

#[test]
fn members_may_change_without_room() {
    let mut cluster = led(3);
    join(&mut cluster, A, 4);
    for id in cluster.ids() {
        short(&mut cluster, id, true);
    }
    cluster.change(A, set(&[1, 2, 4]));
    deadlines(&mut cluster, 3);
    assert_eq!(voters(&cluster, A).0, [1, 2, 4]);
}

#[test]
fn a_follower_without_room_takes_no_command_and_is_not_stormed() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 2);
    settle(&mut cluster, A);
    let held = cluster.raft(C).state().last;
    short(&mut cluster, C, true);
    propose(&mut cluster, A, 50);
    settle(&mut cluster, A);
    assert_eq!(cluster.raft(C).state().last, held);
    assert_eq!(
        cluster.raft(A).state().commit,
        Index(53),
        "the others are a majority"
    );
    let sent = cluster.entries_sent[&C];
    deadlines(&mut cluster, 10);
    propose(&mut cluster, A, 50);
    deadlines(&mut cluster, 10);
    assert_eq!(cluster.entries_sent[&C], sent, "nothing is sent in vain");
    assert_eq!(
        cluster.leader(),
        Some(A),
        "it hears the leader, and disturbs nobody"
    );
    // Its word counts as ever.
    assert_eq!(
        cluster.raft(A).state().matched,
        [(B, Index(103)), (C, held.index)]
    );
    short(&mut cluster, C, false);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
}

#[test]
fn without_room_at_a_majority_commands_are_refused_and_a_leader_is_elected() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 2);
    settle(&mut cluster, A);
    short(&mut cluster, B, true);
    short(&mut cluster, C, true);
    // The leader learns of it by a command that it takes in vain.
    cluster.propose(A, "stays open");
    deadlines(&mut cluster, 2);
    cluster.propose(A, "refused");
    assert!(matches!(
        last_answer(&cluster),
        Some(ProposeError::NoRoom(_))
    ));
    // The no-op of a new leader is small enough for everybody.
    cluster.crash(A, 0);
    deadlines(&mut cluster, 6);
    let leader = cluster.leader().expect("votes need no room");
    settle(&mut cluster, leader);
    let state = cluster.raft(leader).state();
    assert_eq!(state.commit, state.last.index);
    cluster.start(A);
    short(&mut cluster, B, false);
    short(&mut cluster, C, false);
    settle(&mut cluster, leader);
    cluster.propose(leader, "taken");
    settle(&mut cluster, leader);
    assert_eq!(last_answer(&cluster), None);
    in_step(&cluster, &[1, 2, 3]);
}

#[test]
fn what_is_in_the_log_already_is_acknowledged_without_room() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 2);
    settle(&mut cluster, A);
    // It is written down, but the acknowledgement is lost.
    cluster.cut.insert((C, A));
    cluster.propose(A, "once more");
    let is_append = |e: &&Envelope| e.to == C && matches!(e.message, Message::Append(_));
    let append = cluster.network.iter().find(is_append).unwrap().clone();
    cluster.stabilize();
    cluster.cut.clear();
    short(&mut cluster, C, true);
    let last = cluster.raft(C).state().last;
    assert!(cluster.raft(A).state().matched[1] < (C, last.index));
    cluster.receive(append);
    cluster.stabilize();
    assert_eq!(cluster.raft(A).state().matched[1], (C, last.index));
}

#[test]
fn a_no_op_is_taken_and_the_command_behind_it_is_not() {
    let mut cluster = nodes(3, &[]);
    isolate(&mut cluster, C);
    cluster.campaign(A);
    cluster.stabilize();
    propose(&mut cluster, A, 1);
    short(&mut cluster, C, true);
    cluster.cut.clear();
    settle(&mut cluster, A);
    assert_eq!(cluster.raft(C).state().last.index, Index(1));
    short(&mut cluster, C, false);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
}
