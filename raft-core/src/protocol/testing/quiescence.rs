//! Sleep: when a group falls asleep, what wakes it, and that nothing is lost by it.

use super::Cluster;
use super::support::{
    add, deadlines, in_step, isolate, join, lead, nodes, pass, propose, remove, state,
};
use crate::message::{Heartbeat, Message};
use crate::protocol::{Input, Role};
use crate::types::{Index, NodeId};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// Three nodes that fall asleep after so many ticks.
fn sleepy(ticks: u32) -> Cluster {
    let mut cluster = nodes(3, &[]);
    cluster.quiesce_after_ticks = Some(ticks);
    cluster.restart_all();
    lead(&mut cluster, A);
    cluster
}

fn asleep(cluster: &Cluster) -> Vec<u64> {
    let asleep = |id: &NodeId| cluster.is_up(*id) && cluster.raft(*id).is_asleep();
    let ids = cluster.ids().into_iter().filter(asleep);
    ids.map(|id| id.0).collect()
}

/// Time passes for everybody. Returns how many messages were sent.
fn messages(cluster: &mut Cluster, ticks: u32) -> usize {
    let mut sent = 0;
    for _ in 0..ticks {
        for id in cluster.ids() {
            cluster.step(id, Input::Tick);
        }
        sent += cluster.network.len();
        cluster.stabilize();
    }
    sent
}

#[test]
fn an_idle_group_falls_asleep_and_says_nothing_any_more() {
    // Shorter and longer than what a quorum is checked by.
    for ticks in [1, 7, 50, 300] {
        let mut cluster = sleepy(ticks);
        propose(&mut cluster, A, 3);
        assert!(messages(&mut cluster, ticks * 2 + 60) > 0);
        assert_eq!(asleep(&cluster), [1, 2, 3], "after {ticks} ticks");
        let term = state(&cluster, A).hard_state.term;
        assert_eq!(messages(&mut cluster, 10_000), 0);
        assert_eq!(cluster.leader(), Some(A));
        assert_eq!(state(&cluster, A).hard_state.term, term);
    }
    let mut cluster = nodes(3, &[]);
    lead(&mut cluster, A);
    assert!(
        messages(&mut cluster, 1_000) > 300,
        "unless it is switched off"
    );
}

#[test]
fn a_group_with_something_to_do_stays_awake() {
    // Somebody is dead, or behind; a change is under way.
    let mut cluster = sleepy(30);
    propose(&mut cluster, A, 1);
    cluster.crash(C, 0);
    pass(&mut cluster, 500);
    assert_eq!(asleep(&cluster), []);
    cluster.start(C);
    pass(&mut cluster, 200);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    let mut cluster = sleepy(10);
    cluster.change(A, add(4, 400));
    pass(&mut cluster, 500);
    assert_eq!(asleep(&cluster), [], "n4 never came");
}

/// Puts the group to sleep, does something, and returns who is awake then, before any clock moves.
fn woken_by(act: impl Fn(&mut Cluster)) -> (Cluster, Vec<u64>) {
    let mut cluster = sleepy(10);
    pass(&mut cluster, 200);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    act(&mut cluster);
    cluster.stabilize();
    let asleep = asleep(&cluster);
    let awake = (1..=3).filter(|id| !asleep.contains(id)).collect();
    (cluster, awake)
}

#[test]
fn whatever_is_wanted_wakes_those_who_have_to_do_it() {
    let (mut cluster, awake) = woken_by(|cluster| cluster.propose(A, "x"));
    assert_eq!(awake, [1, 2, 3]);
    deadlines(&mut cluster, 3);
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(asleep(&cluster), [1, 2, 3], "and all sleep again");

    let (cluster, awake) = woken_by(|cluster| cluster.read(A, 1));
    assert_eq!(awake, [1, 2, 3]);
    assert_eq!(cluster.answers.ready.len(), 1);

    let (cluster, _) = woken_by(|cluster| cluster.read(C, 1));
    assert_eq!(cluster.answers.ready.len(), 1, "a follower asks its leader");

    let (cluster, _) = woken_by(|cluster| cluster.transfer_to(A, B));
    assert_eq!(
        cluster.leader(),
        Some(B),
        "as if all had been heard just now"
    );

    let (cluster, _) = woken_by(|cluster| cluster.change(A, remove(3)));
    let changed = &cluster.answers.changed;
    assert!(changed[0].is_ok(), "{changed:?}");

    let (mut cluster, _) = woken_by(|cluster| join(cluster, A, 4));
    pass(&mut cluster, 200);
    assert_eq!(asleep(&cluster), [1, 2, 3, 4], "a learner sleeps too");
}

#[test]
fn a_lost_connection_wakes_who_needs_it() {
    let (_, awake) = woken_by(|cluster| cluster.step(B, Input::Unreachable(A)));
    assert_eq!(awake, [2]);
    let (_, awake) = woken_by(|cluster| cluster.step(B, Input::Unreachable(C)));
    assert_eq!(awake, [0; 0], "that is the leader's business");
    let (_, awake) = woken_by(|cluster| cluster.step(A, Input::Unreachable(C)));
    assert_eq!(awake, [1]);
}

#[test]
fn a_node_that_starts_into_a_sleeping_group_disturbs_nobody() {
    let (mut cluster, _) = woken_by(|cluster| {
        cluster.crash(C, 0);
        cluster.start(C);
    });
    let term = state(&cluster, A).hard_state.term;
    deadlines(&mut cluster, 10);
    assert_eq!(state(&cluster, A).hard_state.term, term);
    assert_eq!(cluster.leader(), Some(A));
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
}

#[test]
fn a_last_heartbeat_that_is_lost_costs_no_election() {
    let mut cluster = sleepy(10);
    propose(&mut cluster, A, 1);
    let term = state(&cluster, A).hard_state.term;
    while !cluster.raft(A).is_asleep() {
        for id in [A, B, C] {
            cluster.step(id, Input::Tick);
        }
        cluster.network.retain(|e| match e.message {
            Message::Heartbeat(heartbeat) => !heartbeat.is_last || e.to != C,
            _ => true,
        });
        cluster.stabilize();
    }
    assert_eq!(asleep(&cluster), [1, 2]);
    deadlines(&mut cluster, 10);
    assert_eq!(state(&cluster, A).hard_state.term, term);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
}

#[test]
fn a_leader_that_dies_in_its_sleep_is_missed_as_soon_as_somebody_wants_something() {
    let (mut cluster, awake) = woken_by(|cluster| cluster.crash(A, 0));
    assert_eq!(awake, [1], "nobody noticed");
    cluster.propose(B, "x");
    cluster.step(B, Input::Unreachable(A));
    deadlines(&mut cluster, 8);
    let leader = cluster.leader().expect("the others elect");
    propose(&mut cluster, leader, 1);
    pass(&mut cluster, 20);
    in_step(&cluster, &[2, 3]);
}

#[test]
fn who_is_not_done_does_not_sleep() {
    let mut cluster = sleepy(10);
    cluster.cut.insert((A, C));
    propose(&mut cluster, A, 1);
    let known = state(&cluster, C);
    let term = known.hard_state.term;
    for commit in [0, known.last.index.0, known.last.index.0 + 1, u64::MAX] {
        let commit = Index(commit);
        let last = Message::Heartbeat(Heartbeat {
            commit,
            round: 0,
            is_last: true,
        });
        let is_done = commit == known.last.index;
        cluster.cut.clear();
        let envelope = cluster.envelope(A, C, term, last);
        cluster.receive(envelope);
        let sleeps = cluster.raft(C).is_asleep();
        assert_eq!(sleeps, is_done, "committed {commit}");
    }
}

#[test]
fn nobody_who_sleeps_holds_up_an_election() {
    // C wakes alone, the leader is gone for good, and B sleeps on.
    let (mut cluster, _) = woken_by(|cluster| {
        isolate(cluster, A);
        cluster.step(C, Input::Unreachable(A));
    });
    deadlines(&mut cluster, 6);
    let leaders = [B, C].map(|id| cluster.raft(id).role());
    assert!(leaders.contains(&Role::Leader), "{leaders:?}");
}
