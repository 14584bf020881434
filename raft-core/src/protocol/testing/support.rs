//! What many tests begin with: a group that is led and in step, and changes of its members.

use std::collections::BTreeMap;

use super::Cluster;
use super::disk::Disk;
use crate::membership::{Member, MemberRole, MembershipChange};
use crate::protocol::{Input, Role, State};
use crate::types::{Incarnation, Index, LogId, NodeId, Term};

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// Nodes from 1 on with these logs.
pub(super) fn nodes(size: u64, terms: &[u64]) -> Cluster {
    let disks: BTreeMap<_, _> = (1..=size)
        .map(|id| (NodeId(id), Disk::with_terms(terms)))
        .collect();
    let mut cluster = Cluster::new(disks, 17);
    cluster.is_traced = false;
    cluster
}

/// So many nodes, led by n1, all in step.
pub(super) fn led(size: u64) -> Cluster {
    let mut cluster = nodes(size, &[]);
    lead(&mut cluster, NodeId(1));
    cluster
}

/// Makes this node campaign and everybody follow it.
pub(super) fn lead(cluster: &mut Cluster, id: NodeId) {
    cluster.campaign(id);
    for other in cluster.ids().into_iter().filter(|other| *other != id) {
        if cluster.is_up(other) {
            forget_leader(cluster, other);
        }
    }
    settle(cluster, id);
    assert_eq!(cluster.leader(), Some(id));
}

/// Time passes for one node alone, long enough for its followers to be in step.
pub(super) fn settle(cluster: &mut Cluster, id: NodeId) {
    cluster.stabilize();
    for _ in 0..cluster.timing.heartbeat_ticks * 12 {
        cluster.step(id, Input::Tick);
        cluster.stabilize();
    }
}

/// Time passes for everybody.
pub(super) fn pass(cluster: &mut Cluster, ticks: u32) {
    for _ in 0..ticks {
        for id in cluster.ids() {
            cluster.step(id, Input::Tick);
        }
        cluster.stabilize();
    }
}

/// Long enough that somebody else may be elected.
pub(super) fn forget_leader(cluster: &mut Cluster, id: NodeId) {
    while cluster.raft(id).role() == Role::Follower && cluster.raft(id).is_led() {
        cluster.step(id, Input::Tick);
    }
}

pub(super) fn isolate(cluster: &mut Cluster, id: NodeId) {
    for other in cluster.ids() {
        cluster.cut.extend([(id, other), (other, id)]);
    }
}

pub(super) fn propose(cluster: &mut Cluster, id: NodeId, count: u64) {
    for value in 0..count {
        cluster.propose(id, &format!("value {value:04}"));
        cluster.stabilize();
    }
}

/// The state without what is only counted.
pub(super) fn state(cluster: &Cluster, id: NodeId) -> State {
    State {
        counters: crate::protocol::Counters::default(),
        ..cluster.raft(id).state()
    }
}

pub(super) fn in_step(cluster: &Cluster, ids: &[u64]) {
    let leader = cluster.leader().expect("somebody leads");
    let wanted = cluster.raft(leader).state();
    for id in ids {
        let state = cluster.raft(NodeId(*id)).state();
        let held = (state.last, state.durable, state.commit, state.applied);
        let last = wanted.last;
        assert_eq!(held, (last, last.index, last.index, last.index), "n{id}");
    }
}

pub(super) fn member(incarnation: u64, role: MemberRole) -> Member {
    Member {
        incarnation: Incarnation(incarnation),
        address: String::new(),
        role,
    }
}

pub(super) fn add(id: u64, incarnation: u64) -> MembershipChange {
    MembershipChange::AddLearner {
        id: NodeId(id),
        incarnation: Incarnation(incarnation),
        address: String::new(),
    }
}

pub(super) fn promote(id: u64) -> MembershipChange {
    MembershipChange::Promote { id: NodeId(id) }
}

pub(super) fn remove(id: u64) -> MembershipChange {
    MembershipChange::Remove { id: NodeId(id) }
}

pub(super) fn replace(id: u64, incarnation: u64) -> MembershipChange {
    MembershipChange::Replace {
        id: NodeId(id),
        incarnation: Incarnation(incarnation),
        address: String::new(),
    }
}

/// All these as voters.
pub(super) fn set(ids: &[u64]) -> MembershipChange {
    let voters = ids
        .iter()
        .map(|id| (NodeId(*id), member(id * 100, MemberRole::Voter)));
    MembershipChange::Set(voters.collect())
}

/// Starts a new node and adds it as a learner that is in step.
pub(super) fn join(cluster: &mut Cluster, leader: NodeId, id: u64) {
    cluster.add_node(NodeId(id));
    cluster.start(NodeId(id));
    cluster.change(leader, add(id, id * 100));
    settle(cluster, leader);
}

/// The ids of the voters, and of those that vote in the half that is being left.
pub(super) fn voters(cluster: &Cluster, id: NodeId) -> (Vec<u64>, Vec<u64>) {
    let membership = cluster.raft(id).state().membership;
    let voters = membership.voters().map(|id| id.0).collect();
    let leaving = membership.outgoing().keys().map(|id| id.0).collect();
    (voters, leaving)
}

/// So many of the longest election deadlines pass for everybody.
pub(super) fn deadlines(cluster: &mut Cluster, count: u32) {
    let ticks = cluster.timing.election_ticks_max * count;
    pass(cluster, ticks);
}
