//! A node whose disk lost entries that it may have acknowledged: it is part of no quorum until it
//! has them again, and its leader sends it what it lacks although it acknowledged that once.

use std::collections::BTreeMap;

use super::Cluster;
use super::clocks::{Clocks, TICK};
use super::disk::Disk;
use super::support::{
    deadlines, forget_leader, in_step, isolate, join, led, log_id, promote, propose, set, settle,
    voters,
};
use crate::config::{Config, ConfigError, ReadPolicy};
use crate::error::{ChangeError, TransferError};
use crate::log_store::LoadedLog;
use crate::message::{AppendReply, Envelope, Message};
use crate::protocol::{Input, Raft, Role};
use crate::types::{HardState, Index, LogId, NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// The node loses power, and the entries from here on.
fn damage(cluster: &mut Cluster, id: NodeId, from: u64) {
    cluster.damage(id, Index(from));
}

/// What the leader counts of a follower.
fn counted(cluster: &Cluster, of: NodeId) -> Index {
    let matched = cluster.raft(A).state().matched;
    matched.iter().find(|(id, _)| *id == of).unwrap().1
}

fn is_refilling(cluster: &Cluster, id: NodeId) -> bool {
    cluster.raft(id).state().refilling.is_some()
}

/// One entry per message, one message at a time, so that a test sees each step.
fn entry_by_entry(size: u64) -> Cluster {
    let mut cluster = led(size);
    cluster.limits.append_entries_max = 1;
    cluster.limits.inflight_messages_max = 1;
    cluster.restart_all();
    super::support::lead(&mut cluster, A);
    cluster
}

/// The damaged follower answers one heartbeat, and nothing else happens.
fn leader_hears_of_it(cluster: &mut Cluster) {
    for _ in 0..cluster.timing.heartbeat_ticks {
        cluster.step(A, Input::Tick);
    }
    let beats = |e: &Envelope| matches!(e.message, Message::Heartbeat(_)) && e.to == C;
    deliver(cluster, beats);
    deliver(cluster, |e| {
        matches!(e.message, Message::HeartbeatReply(_)) && e.from == C
    });
}

/// Delivers the messages that match and are there now.
fn deliver(cluster: &mut Cluster, matches: impl Fn(&Envelope) -> bool) {
    let all = std::mem::take(&mut cluster.network);
    let (chosen, rest) = all.into_iter().partition(|e| matches(e));
    cluster.network = rest;
    let chosen: Vec<_> = chosen;
    for envelope in chosen {
        cluster.receive(envelope);
    }
}

/// Takes the messages that match off the network.
fn take(cluster: &mut Cluster, matches: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
    let all = std::mem::take(&mut cluster.network);
    let (chosen, rest) = all.into_iter().partition(|e| matches(e));
    cluster.network = rest;
    chosen
}

/// A leads, B is cut off, and C has written two more entries that nobody knows it to have.
fn two_entries_unacknowledged() -> (Cluster, LogId) {
    let mut cluster = entry_by_entry(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    isolate(&mut cluster, B);
    let committed = cluster.raft(A).state().last;
    cluster.cut.insert((C, A));
    propose(&mut cluster, A, 1);
    cluster.cut.remove(&(C, A));
    settle(&mut cluster, A);
    cluster.cut.insert((C, A));
    propose(&mut cluster, A, 2);
    (cluster, committed)
}

#[test]
fn a_refilling_node_is_asked_for_its_vote_in_vain() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    damage(&mut cluster, C, 3);
    assert_eq!(cluster.raft(C).state().refilling, Some(log_id(1, 5)));
    cluster.crash(A, 0);
    cluster.network.clear();
    forget_leader(&mut cluster, B);
    deadlines(&mut cluster, 6);
    // B has everything, but needs a second voice.
    assert_eq!(cluster.raft(B).state().hard_state.term, Term(1));
    assert_eq!(cluster.leader(), None);
    // Nor may C ask, whatever its deadline says.
    assert_eq!(cluster.raft(C).role(), Role::Follower);
    cluster.start(A);
    deadlines(&mut cluster, 6);
    let leader = cluster.leader().expect("A and B are a majority");
    assert_ne!(leader, C);
    settle(&mut cluster, leader);
    assert!(!is_refilling(&cluster, C));
    in_step(&cluster, &[1, 2, 3]);
    // And now it is one of them.
    cluster.crash(if leader == A { B } else { A }, 0);
    deadlines(&mut cluster, 6);
    assert!(cluster.leader().is_some(), "C votes again");
}

#[test]
fn a_vote_itself_is_refused_too_and_a_transfer_makes_no_difference() {
    for is_transfer in [false, true] {
        let mut cluster = led(3);
        propose(&mut cluster, A, 4);
        settle(&mut cluster, A);
        damage(&mut cluster, C, 3);
        let last = cluster.raft(B).state().last;
        let vote = Message::Vote(crate::message::Vote { last, is_transfer });
        let asks = cluster.envelope(B, C, Term(2), vote);
        cluster.receive(asks);
        cluster.persist(C);
        let refused = cluster.network.iter().any(
            |e| matches!(e.message, Message::VoteReply(reply) if e.from == C && !reply.granted),
        );
        assert!(refused);
        assert_eq!(cluster.node(C).disk.hard_state.vote, None);
    }
}

#[test]
fn a_refilling_node_does_not_campaign_when_its_leader_tells_it_to() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    damage(&mut cluster, C, 3);
    leader_hears_of_it(&mut cluster);
    cluster.network.clear();
    let now = cluster.envelope(A, C, Term(1), Message::TimeoutNow);
    cluster.receive(now);
    assert_eq!(cluster.raft(C).role(), Role::Follower);
}

#[test]
fn the_leader_forgets_what_a_damaged_follower_had_acknowledged() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    assert_eq!(counted(&cluster, C), Index(5));
    damage(&mut cluster, C, 3);
    leader_hears_of_it(&mut cluster);
    assert_eq!(counted(&cluster, C), Index(0));
    // Nobody wants anything, and it gets everything all the same.
    settle(&mut cluster, A);
    assert!(!is_refilling(&cluster, C));
    assert_eq!(counted(&cluster, C), Index(5));
    in_step(&cluster, &[1, 2, 3]);
}

#[test]
fn what_a_refilling_node_acknowledges_commits_nothing() {
    let (mut cluster, committed) = two_entries_unacknowledged();
    let last = cluster.raft(A).state().last;
    assert_eq!(
        cluster.node(C).disk.last(),
        log_id(last.term.0, committed.index.0 + 2)
    );
    damage(&mut cluster, C, 3);
    cluster.cut.remove(&(C, A));
    cluster.network.clear();
    let mut flagged = 0;
    for _ in 0..10_000 {
        if !is_refilling(&cluster, C) {
            break;
        }
        cluster.step(A, Input::Tick);
        while !cluster.network.is_empty() || cluster.persist(A) || cluster.persist(C) {
            if cluster.network.is_empty() {
                continue;
            }
            let is_ack = matches!(cluster.network[0].message, Message::RefillReply(_));
            cluster.deliver(0);
            if is_ack {
                flagged += 1;
                assert_eq!(counted(&cluster, C), Index(0), "it counts for nothing");
                let commit = cluster.raft(A).state().commit;
                assert!(commit <= committed.index.next(), "{commit} is on one disk");
            }
            while cluster.load(A) {}
        }
    }
    assert!(flagged > 3, "it was refilled step by step: {flagged}");
    settle(&mut cluster, A);
    assert_eq!(
        cluster.raft(A).state().commit,
        cluster.raft(A).state().last.index
    );
}

#[test]
fn an_acknowledgement_of_before_the_damage_does_not_bring_the_old_match_back() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    let old = Message::AppendReply(AppendReply::Accepted { matched: Index(5) });
    let old = cluster.envelope(C, A, Term(1), old);
    damage(&mut cluster, C, 3);
    leader_hears_of_it(&mut cluster);
    assert_eq!(counted(&cluster, C), Index(0));
    cluster.receive(old.clone());
    assert_eq!(counted(&cluster, C), Index(0), "it was sent before");
    // Nor does an answer to a heartbeat that had been sent before.
    for round in 0..=cluster.raft(A).read_round() {
        let alive = crate::message::HeartbeatReply {
            round,
            is_refilling: false,
        };
        let alive = cluster.envelope(C, A, Term(1), Message::HeartbeatReply(alive));
        cluster.receive(alive);
        cluster.receive(old.clone());
        assert_eq!(counted(&cluster, C), Index(0), "round {round}");
    }
    settle(&mut cluster, A);
    assert!(!is_refilling(&cluster, C));
    assert_eq!(counted(&cluster, C), Index(5));
}

#[test]
fn an_old_acknowledgement_that_misleads_the_leader_does_not_leave_the_follower_behind() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    damage(&mut cluster, C, 3);
    leader_hears_of_it(&mut cluster);
    // The probe is answered by the past: all is there, it says.
    take(&mut cluster, |e| e.to == C);
    for message in [
        Message::RefillReply(AppendReply::Accepted { matched: Index(5) }),
        Message::AppendReply(AppendReply::Accepted { matched: Index(5) }),
    ] {
        let old = cluster.envelope(C, A, Term(1), message);
        cluster.receive(old);
    }
    settle(&mut cluster, A);
    assert!(!is_refilling(&cluster, C));
    in_step(&cluster, &[1, 2, 3]);
}

#[test]
fn a_log_that_is_damaged_twice_is_refilled_twice() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    damage(&mut cluster, C, 4);
    leader_hears_of_it(&mut cluster);
    damage(&mut cluster, C, 2);
    assert_eq!(cluster.raft(C).state().refilling, Some(log_id(1, 5)));
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    damage(&mut cluster, C, 2);
    leader_hears_of_it(&mut cluster);
    assert_eq!(counted(&cluster, C), Index(0));
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
}

#[test]
fn a_node_is_whole_when_the_entry_is_on_its_disk_and_not_before() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    damage(&mut cluster, C, 3);
    for _ in 0..200 {
        cluster.step(A, Input::Tick);
        while !cluster.network.is_empty() {
            cluster.deliver(0);
        }
        if cluster.raft(C).state().last == log_id(1, 5) {
            break;
        }
        // The first writes of its life carry no entries.
        while cluster
            .node(C)
            .writes
            .iter()
            .all(|w| w.batch.entries.is_empty())
            && cluster.persist(C)
        {}
    }
    assert_eq!(cluster.raft(C).state().last, log_id(1, 5), "in memory");
    assert!(is_refilling(&cluster, C));
    while cluster.persist(C) {}
    assert!(!is_refilling(&cluster, C));
}

#[test]
fn an_entry_of_a_later_term_makes_whole_however_long_the_lost_log_was() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 2);
    settle(&mut cluster, A);
    // A goes on alone, and loses all of it.
    isolate(&mut cluster, A);
    propose(&mut cluster, A, 9);
    let lost = cluster.raft(A).state().last;
    damage(&mut cluster, A, 3);
    deadlines(&mut cluster, 6);
    let leader = cluster.leader().expect("B and C go on");
    assert_eq!(cluster.raft(A).state().refilling, Some(lost));
    cluster.cut.clear();
    settle(&mut cluster, leader);
    assert!(cluster.raft(A).state().last.index < lost.index);
    assert!(!is_refilling(&cluster, A));
}

/// A store that cannot tell how much it lost names an entry that never was.
#[test]
fn a_bound_that_is_too_far_is_passed_by_a_new_term() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    cluster.crash(C, 0);
    let node = cluster.nodes.get_mut(&C).unwrap();
    node.disk.damage(Index(3));
    node.disk.refill_to = Some(log_id(1, 9_000));
    cluster.start(C);
    settle(&mut cluster, A);
    assert!(is_refilling(&cluster, C), "it has all that there is");
    assert_eq!(cluster.raft(C).state().last, cluster.raft(A).state().last);
    deadlines(&mut cluster, 6);
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, A, "another one does, so that C is of use");
    settle(&mut cluster, leader);
    assert!(!is_refilling(&cluster, C));
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.answers.transferred, [], "nobody asked for it");
    let term = cluster.raft(leader).state().hard_state.term;
    deadlines(&mut cluster, 12);
    assert_eq!(
        cluster.raft(leader).state().hard_state.term,
        term,
        "once is enough"
    );
}

/// Learners are brought on too, also where one node decides alone.
#[test]
fn a_bound_that_is_too_far_is_passed_for_learners_too() {
    for size in [1, 3] {
        let mut cluster = led(size);
        propose(&mut cluster, A, 4);
        let d = NodeId(4);
        join(&mut cluster, A, 4);
        cluster.crash(d, 0);
        let node = cluster.nodes.get_mut(&d).unwrap();
        node.disk.damage(Index(3));
        node.disk.refill_to = Some(log_id(1, 9_000));
        cluster.start(d);
        settle(&mut cluster, A);
        assert!(is_refilling(&cluster, d), "it has all that there is");
        deadlines(&mut cluster, 8);
        let leader = cluster.leader().expect("somebody leads");
        settle(&mut cluster, leader);
        assert!(!is_refilling(&cluster, d), "of {size}");
    }
}

#[test]
fn a_snapshot_makes_whole_too() {
    let mut cluster = led(3);
    cluster.snapshots.entries = 2;
    cluster.restart_all();
    super::support::lead(&mut cluster, A);
    propose(&mut cluster, A, 6);
    settle(&mut cluster, A);
    cluster.crash(C, 0);
    let node = cluster.nodes.get_mut(&C).unwrap();
    let lost = node.disk.last();
    // Everything is gone, its own snapshots too.
    node.disk.snapshot = None;
    node.disk.start = LogId::ZERO;
    node.disk.damage(Index(0));
    node.disk.refill_to = Some(lost);
    node.disk.vouched.push(lost);
    cluster.start(C);
    settle(&mut cluster, A);
    for _ in 0..4 {
        if !cluster.transfers.is_empty() {
            cluster.finish_transfer(0, true);
        }
        settle(&mut cluster, A);
    }
    assert!(cluster.raft(C).state().counters.snapshots_installed > 0);
    assert!(!is_refilling(&cluster, C));
    in_step(&cluster, &[1, 2, 3]);
}

#[test]
fn leadership_is_not_handed_to_a_refilling_node() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    settle(&mut cluster, A);
    // It is asked for while the target is healthy, and the target is damaged meanwhile.
    cluster.propose(A, "one more");
    cluster.transfer_to(A, C);
    damage(&mut cluster, C, 3);
    leader_hears_of_it(&mut cluster);
    let last = |cluster: &Cluster| cluster.answers.transferred.last().cloned();
    assert_eq!(last(&cluster), Some(Err(TransferError::Refilling(C))));
    cluster.answers.transferred.clear();
    cluster.transfer_to(A, C);
    assert_eq!(last(&cluster), Some(Err(TransferError::Refilling(C))));
    settle(&mut cluster, A);
    cluster.transfer_to(A, C);
    settle(&mut cluster, A);
    assert_eq!(cluster.raft(C).role(), Role::Leader);
}

#[test]
fn a_refilling_learner_is_not_promoted() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 4);
    join(&mut cluster, A, 4);
    let d = NodeId(4);
    damage(&mut cluster, d, 3);
    for _ in 0..cluster.timing.heartbeat_ticks {
        cluster.step(A, Input::Tick);
    }
    deliver(&mut cluster, |e| matches!(e.message, Message::Heartbeat(_)));
    deliver(&mut cluster, |e| {
        matches!(e.message, Message::HeartbeatReply(_))
    });
    cluster.change(A, promote(4));
    let refused = cluster.answers.changed.last().cloned();
    assert!(
        matches!(refused, Some(Err(ChangeError::Lagging { id, .. })) if id == d),
        "{refused:?}"
    );
    settle(&mut cluster, A);
    cluster.change(A, promote(4));
    settle(&mut cluster, A);
    assert_eq!(voters(&cluster, A).0, [1, 2, 3, 4]);
}

#[test]
fn a_refilling_node_confirms_no_read_and_renews_no_lease() {
    for is_lease in [false, true] {
        let mut cluster = entry_by_entry(3);
        if is_lease {
            cluster.reads = ReadPolicy::Lease {
                clock_drift_percent: 1,
            };
            cluster.clocks = Some(Clocks::default());
            cluster.restart_all();
            deadlines(&mut cluster, 3);
            super::support::lead(&mut cluster, A);
        }
        propose(&mut cluster, A, 4);
        settle(&mut cluster, A);
        isolate(&mut cluster, B);
        damage(&mut cluster, C, 3);
        // What C is sent of the log is lost, so it stays as it is.
        let ready = cluster.answers.ready.len();
        cluster.read(A, 7);
        for _ in 0..cluster.timing.election_ticks_min * 3 {
            if let Some(clocks) = &mut cluster.clocks {
                clocks.pass(TICK);
            }
            cluster.step(A, Input::Tick);
            take(&mut cluster, |e| matches!(e.message, Message::Append(_)));
            deliver(&mut cluster, |e| e.to == C);
            deliver(&mut cluster, |e| e.to == A);
        }
        assert!(is_refilling(&cluster, C));
        assert_eq!(cluster.raft(A).role(), Role::Leader, "C lives");
        let last = cluster.raft(A).state().counters.lease_reads;
        if !is_lease {
            assert_eq!(cluster.answers.ready.len(), ready);
        }
        cluster.read(A, 8);
        assert_eq!(cluster.raft(A).state().counters.lease_reads, last);
        settle(&mut cluster, A);
        assert_eq!(cluster.answers.ready.len(), ready + 2);
    }
}

#[test]
fn neither_half_of_a_joint_membership_counts_a_refilling_node() {
    let mut cluster = led(3);
    join(&mut cluster, A, 4);
    join(&mut cluster, A, 5);
    settle(&mut cluster, A);
    // From 1 2 3 to 1 4 5; 2 and 5 are cut off, so 3 and 4 decide for their halves.
    for damaged in [3, 4] {
        let mut cluster = led(3);
        join(&mut cluster, A, 4);
        join(&mut cluster, A, 5);
        settle(&mut cluster, A);
        isolate(&mut cluster, NodeId(2));
        isolate(&mut cluster, NodeId(5));
        let d = NodeId(damaged);
        let commit = cluster.raft(A).state().commit;
        cluster.cut.extend([(d, A)]);
        cluster.change(A, set(&[1, 4, 5]));
        assert_eq!(
            cluster.answers.changed.last().and_then(|r| r.clone().err()),
            None
        );
        cluster.stabilize();
        assert_eq!(
            cluster.raft(A).state().commit,
            commit,
            "one half is missing"
        );
        damage(&mut cluster, d, 3);
        cluster.cut.remove(&(d, A));
        for _ in 0..cluster.timing.election_ticks_min * 2 {
            cluster.step(A, Input::Tick);
            // All but what would make it whole.
            let makes_whole = |e: &Envelope| {
                let Message::Append(append) = &e.message else {
                    return false;
                };
                e.to == d && append.entries.iter().any(|entry| entry.index() > commit)
            };
            take(&mut cluster, makes_whole);
            while !cluster.network.is_empty() {
                cluster.deliver(0);
                take(&mut cluster, makes_whole);
            }
            for id in cluster.ids() {
                while cluster.persist(id) {}
            }
        }
        assert!(is_refilling(&cluster, d));
        assert_eq!(
            cluster.raft(A).state().commit,
            commit,
            "{damaged} does not count"
        );
        settle(&mut cluster, A);
        assert!(cluster.raft(A).state().commit > commit);
    }
}

#[test]
fn without_a_whole_majority_nobody_leads() {
    let mut cluster = led(1);
    propose(&mut cluster, A, 3);
    damage(&mut cluster, A, 2);
    deadlines(&mut cluster, 9);
    assert_eq!(cluster.raft(A).role(), Role::Follower);
    assert_eq!(cluster.raft(A).state().refilling, Some(log_id(1, 4)));

    let mut cluster = led(3);
    propose(&mut cluster, A, 3);
    settle(&mut cluster, A);
    damage(&mut cluster, B, 2);
    damage(&mut cluster, C, 2);
    cluster.crash(A, 0);
    cluster.start(A);
    deadlines(&mut cluster, 9);
    assert_eq!(cluster.leader(), None);
    assert!(is_refilling(&cluster, B) && is_refilling(&cluster, C));
}

fn config() -> Config {
    let mut cluster = Cluster::new(BTreeMap::from([(A, Disk::default())]), 1);
    cluster.take_raft(A).config
}

fn loaded(terms: &[u64], refill_to: Option<LogId>) -> LoadedLog {
    let disk = Disk::with_terms(terms);
    let hard_state = HardState {
        term: Term(3),
        vote: None,
    };
    LoadedLog {
        refill_to,
        ..LoadedLog::of_entries(hard_state, LogId::ZERO, &disk.entries)
    }
}

#[test]
fn a_machine_may_be_ahead_of_a_damaged_log_only() {
    let applied = log_id(2, 5);
    let found = Raft::new(config(), loaded(&[1, 1, 2], None), None, applied);
    let last = log_id(2, 3);
    assert_eq!(found.err(), Some(ConfigError::LogBehind { applied, last }));

    let mut config = config();
    config.snapshots.entries = 1;
    let log = loaded(&[1, 1, 2], Some(log_id(2, 4)));
    let mut raft = Raft::new(config, log, None, applied).expect("it is refilled");
    let state = raft.state();
    assert_eq!((state.commit, state.applied), (Index(3), Index(3)));
    assert_eq!(
        state.refilling,
        Some(applied),
        "what was applied was durable"
    );
    let effects = raft.take_effects();
    assert_eq!(effects.take_snapshot, None, "the state is that of entry 5");
    assert_eq!(effects.apply, None);
}

#[test]
fn a_log_that_has_reached_what_was_lost_is_whole() {
    for (to, is_missing) in [
        (None, false),
        (Some(log_id(1, 2)), false),
        (Some(log_id(2, 3)), false),
        (Some(log_id(1, 9)), false),
        (Some(log_id(2, 4)), true),
        (Some(log_id(3, 1)), true),
    ] {
        let raft = Raft::new(config(), loaded(&[1, 1, 2], to), None, LogId::ZERO).unwrap();
        assert_eq!(raft.state().refilling.is_some(), is_missing, "{to:?}");
    }
}
