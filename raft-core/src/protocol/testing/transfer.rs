//! Handing leadership over: to whom, how fast, and what happens when it fails.

use super::Cluster;
use super::support::{
    add, deadlines, forget_leader, isolate, join, lead, led, propose, remove, settle, state,
};
use crate::error::{ChangeError, ProposeError, TransferError};
use crate::message::Message;
use crate::protocol::{Input, Role};
use crate::types::{NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn transferred(cluster: &mut Cluster) -> Option<Result<(), TransferError>> {
    let answer = cluster.answers.transferred.pop();
    assert!(cluster.answers.transferred.is_empty(), "one answer");
    answer
}

/// Asks A, whose answer comes at once.
fn refused(cluster: &mut Cluster, target: NodeId) -> Option<TransferError> {
    cluster.transfer_to(A, target);
    transferred(cluster).and_then(Result::err)
}

fn timed_out() -> TransferError {
    TransferError::TimedOut {
        target: B,
        ticks: 40,
        leader: A,
    }
}

#[test]
fn a_voter_in_step_leads_before_any_clock_moves() {
    let mut cluster = led(3);
    cluster.transfer_to(A, B);
    // Everybody has just heard the leader, and votes all the same.
    cluster.stabilize();
    assert_eq!(cluster.leader(), Some(B));
    let term = state(&cluster, B).hard_state.term;
    assert_eq!(term, Term(state(&cluster, A).hard_state.term.0));
    for id in [A, C] {
        assert_eq!(cluster.raft(id).leader(), Some(B));
    }
    cluster.step(A, Input::Tick);
    assert_eq!(transferred(&mut cluster), Some(Ok(())));
    deadlines(&mut cluster, 10);
    assert_eq!(state(&cluster, B).hard_state.term, term);
}

#[test]
fn nothing_new_is_taken_in_meanwhile() {
    let mut cluster = led(3);
    cluster.cut.insert((A, B));
    cluster.propose(A, "to catch up with");
    cluster.transfer_to(A, B);
    cluster.propose(A, "refused");
    let refused = cluster.answers.proposed.pop();
    assert_eq!(refused, Some(Err(ProposeError::Transferring(B))));
    cluster.change(A, add(4, 400));
    let refused = cluster.answers.changed.pop();
    assert_eq!(refused, Some(Err(ChangeError::Transferring(B))));
    cluster.transfer_to(A, C);
    let refused = transferred(&mut cluster);
    assert_eq!(refused, Some(Err(TransferError::InProgress(B))));
    // It takes too long, and everything goes on.
    settle(&mut cluster, A);
    assert_eq!(transferred(&mut cluster), Some(Err(timed_out())));
    propose(&mut cluster, A, 1);
    assert!(cluster.answers.proposed.pop().unwrap().is_ok());
}

#[test]
fn a_lagging_target_is_brought_in_step_before_it_is_told() {
    let mut cluster = led(3);
    cluster.cut.insert((A, B));
    propose(&mut cluster, A, 20);
    cluster.cut.clear();
    cluster.step(A, Input::Unreachable(B));
    cluster.transfer_to(A, B);
    let mut told = false;
    for _ in 0..300 {
        for id in cluster.ids() {
            while cluster.persist(id) {}
        }
        if let Some(next) = cluster.network.first().cloned() {
            cluster.deliver(0);
            if next.message == Message::TimeoutNow {
                told = true;
                assert_eq!(state(&cluster, B).last, state(&cluster, A).last);
            }
        } else if cluster.leader() == Some(A) {
            cluster.step(A, Input::Tick);
        }
    }
    assert!(told);
    assert_eq!(cluster.leader(), Some(B));
    assert_eq!(transferred(&mut cluster), None, "A looks at its next tick");
    cluster.step(A, Input::Tick);
    assert_eq!(transferred(&mut cluster), Some(Ok(())));
}

#[test]
fn only_a_voter_that_answers_can_be_a_target() {
    let mut cluster = led(3);
    join(&mut cluster, A, 4);
    assert_eq!(
        refused(&mut cluster, NodeId(4)),
        Some(TransferError::NotAVoter(NodeId(4)))
    );
    assert_eq!(
        refused(&mut cluster, NodeId(9)),
        Some(TransferError::NotAVoter(NodeId(9)))
    );
    cluster.change(A, remove(3));
    // While it is being left it still votes, but it must not lead.
    assert_eq!(refused(&mut cluster, C), Some(TransferError::NotAVoter(C)));
    settle(&mut cluster, A);
    assert_eq!(refused(&mut cluster, C), Some(TransferError::NotAVoter(C)));
    cluster.transfer_to(A, A);
    assert_eq!(transferred(&mut cluster), Some(Ok(())), "it leads already");
    let leader = Some(A);
    cluster.transfer_to(B, B);
    assert_eq!(
        transferred(&mut cluster),
        Some(Err(TransferError::NotLeader { leader }))
    );
    let mut cluster = led(3);
    cluster.crash(C, 0);
    settle(&mut cluster, A);
    assert_eq!(
        refused(&mut cluster, C),
        Some(TransferError::Unreachable(C))
    );
    assert_eq!(cluster.leader(), Some(A));
}

#[test]
fn a_target_that_dies_costs_one_deadline() {
    let mut cluster = led(3);
    cluster.crash(B, 0);
    cluster.transfer_to(A, B);
    settle(&mut cluster, A);
    assert_eq!(transferred(&mut cluster), Some(Err(timed_out())));
    assert_eq!(cluster.leader(), Some(A));
    // The word comes late, and twice: it does no harm, for B asks and wins, or not.
    cluster.start(B);
    settle(&mut cluster, A);
    let term = state(&cluster, A).hard_state.term;
    let late = cluster.envelope(A, B, term, Message::TimeoutNow);
    cluster.receive(late.clone());
    cluster.receive(late);
    cluster.stabilize();
    let after = state(&cluster, B);
    assert_eq!(
        (after.role, after.hard_state.term),
        (Role::Leader, term.next())
    );
}

#[test]
fn another_that_takes_over_is_named() {
    let mut cluster = led(3);
    cluster.cut.insert((A, B));
    cluster.propose(A, "B does not have it");
    cluster.network.retain(|e| e.to != B);
    cluster.stabilize();
    cluster.transfer_to(A, B);
    lead(&mut cluster, C);
    cluster.step(A, Input::Tick);
    let lost = Err(TransferError::LostToAnother(B));
    assert_eq!(transferred(&mut cluster), Some(lost));
}

#[test]
fn nobody_campaigns_whom_its_leader_did_not_tell() {
    let mut cluster = led(3);
    join(&mut cluster, A, 4);
    let term = state(&cluster, A).hard_state.term;
    let before = |term: u64| Term(term - 1);
    for (from, to, at) in [
        (C, B, term),
        (A, B, before(term.0)),
        (A, NodeId(4), term),
        (B, A, term),
        (NodeId(9), B, term),
    ] {
        let told = cluster.envelope(from, to, at, Message::TimeoutNow);
        let known = state(&cluster, to);
        cluster.receive(told);
        assert_eq!(state(&cluster, to), known, "n{from} to n{to} in term {at}");
    }
}

#[test]
fn a_transfer_does_not_outlive_its_term() {
    // Else the target is told in a term whose lease was not forfeited.
    let mut cluster = led(3);
    cluster.cut.insert((A, B));
    cluster.propose(A, "B does not have it");
    cluster.stabilize();
    cluster.transfer_to(A, B);
    let pre_vote = |cluster: &mut Cluster| {
        forget_leader(cluster, C);
        let term = state(cluster, A).hard_state.term.next();
        let vote = crate::message::Vote {
            last: state(cluster, A).last,
            is_transfer: true,
        };
        let envelope = cluster.envelope(C, A, term, Message::Vote(vote));
        cluster.receive(envelope);
    };
    // C takes the term away and does not use it; A is elected again, all within one deadline.
    pre_vote(&mut cluster);
    assert_eq!(cluster.raft(A).role(), Role::Follower);
    let vote = crate::message::Heartbeat {
        commit: crate::Index(0),
        round: 0,
        is_last: false,
    };
    let term = state(&cluster, A).hard_state.term;
    let beat = cluster.envelope(C, A, term, Message::Heartbeat(vote));
    cluster.receive(beat);
    let told = cluster.envelope(C, A, term, Message::TimeoutNow);
    cluster.receive(told);
    cluster.stabilize();
    assert_eq!(cluster.leader(), Some(A));
    assert_eq!(transferred(&mut cluster), Some(Err(timed_out())));
    cluster.cut.clear();
    settle(&mut cluster, A);
    assert_eq!(cluster.leader(), Some(A), "nobody was told to campaign");
    propose(&mut cluster, A, 1);
    assert!(cluster.answers.proposed.pop().unwrap().is_ok());
}

#[test]
fn reads_go_on_while_leadership_is_handed_over() {
    let mut cluster = led(3);
    cluster.cut.insert((A, B));
    cluster.propose(A, "B does not have it");
    cluster.transfer_to(A, B);
    cluster.read(A, 1);
    cluster.stabilize();
    assert_eq!(cluster.answers.ready.len(), 1);
    // Once another leads, the old one refuses what waits.
    cluster.cut.clear();
    cluster.read(A, 2);
    cluster.network.clear();
    settle(&mut cluster, A);
    isolate(&mut cluster, A);
    let told = cluster.answers.ready.len() + cluster.answers.refused.len();
    assert_eq!(told, 2);
}
