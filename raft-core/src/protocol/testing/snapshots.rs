//! Snapshots: when they are taken, what is kept behind them, how a follower gets one, and what a
//! crash between any two steps of that leaves.

use super::Cluster;
use super::support::{
    add, forget_leader, in_step, isolate, join, lead, led, log_id, nodes, pass, propose, settle,
    state,
};
use crate::entry::{Entry, EntryKind};
use crate::message::{Append, AppendReply, Message, Vote};
use crate::protocol::{Input, Loaded, Role};
use crate::snapshot::{SnapshotDescriptor, SnapshotMeta};
use crate::types::{Index, LogId, NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// Three nodes, led by A, that take a snapshot after so many entries and keep so many bytes.
fn compacting(entries: u64, tail_bytes_max: u64) -> Cluster {
    let mut cluster = nodes(3, &[]);
    cluster.snapshots.entries = entries;
    cluster.snapshots.tail_bytes_max = tail_bytes_max;
    cluster.restart_all();
    lead(&mut cluster, A);
    cluster
}

/// C is alone with entries of its own; the others have compacted all that they had with it.
fn diverged() -> Cluster {
    let mut cluster = nodes(3, &[]);
    lead(&mut cluster, C);
    propose(&mut cluster, C, 3);
    isolate(&mut cluster, C);
    propose(&mut cluster, C, 5);
    cluster.snapshots.entries = 10;
    for id in [A, B] {
        cluster.crash(id, 0);
        cluster.start(id);
    }
    lead(&mut cluster, A);
    propose(&mut cluster, A, 20);
    // Its silence is over, so that it does not hold anything back.
    let patience = 16 * cluster.timing.election_ticks_max;
    for _ in 0..=patience {
        cluster.step(A, Input::Tick);
        cluster.step(B, Input::Tick);
        cluster.stabilize();
    }
    propose(&mut cluster, A, 20);
    assert!(state(&cluster, A).start.index > state(&cluster, C).last.index);
    assert_eq!(cluster.leader(), Some(A));
    cluster.cut.clear();
    cluster
}

/// Until a snapshot is on its way to C.
fn until_sent(cluster: &mut Cluster) {
    for _ in 0..100 {
        cluster.step(A, Input::Tick);
        while !cluster.network.is_empty() {
            cluster.deliver(0);
            for id in [A, B, C] {
                while cluster.persist(id) || cluster.load(id) {}
            }
        }
        if !cluster.transfers.is_empty() {
            return;
        }
    }
    panic!("C needs a snapshot");
}

fn snapshot(last: LogId, cluster: &Cluster) -> SnapshotDescriptor {
    SnapshotDescriptor {
        meta: SnapshotMeta {
            last,
            membership: state(cluster, A).membership,
        },
        parts: 1,
        ..SnapshotDescriptor::default()
    }
}

/// Delivers a snapshot of A, whose content is on the disk of the receiver.
fn deliver(cluster: &mut Cluster, to: NodeId, last: LogId) {
    let descriptor = snapshot(last, cluster);
    let term = state(cluster, A).hard_state.term;
    let node = cluster.nodes.get_mut(&to).unwrap();
    node.disk.keep_snapshot(descriptor.clone());
    let envelope = cluster.envelope(A, to, term, Message::Snapshot(descriptor));
    cluster.receive(envelope);
}

/// What a node answers, once its disk has done everything.
fn answers(cluster: &mut Cluster, id: NodeId) -> Vec<Message> {
    while cluster.persist(id) {}
    let network = std::mem::take(&mut cluster.network);
    let answers = network.into_iter().filter(|e| e.from == id);
    answers.map(|envelope| envelope.message).collect()
}

#[test]
fn each_threshold_asks_for_a_snapshot_by_itself() {
    let taken_after = |choose: fn(&mut crate::SnapshotPolicy)| {
        let mut cluster = nodes(1, &[]);
        choose(&mut cluster.snapshots);
        cluster.restart_all();
        lead(&mut cluster, A);
        for count in 1..=50 {
            propose(&mut cluster, A, 1);
            if cluster.counts.snapshots > 0 {
                return Some(count);
            }
            pass(&mut cluster, 10);
        }
        None
    };
    assert_eq!(taken_after(|_| ()), None, "all switched off");
    // The first entry is the leader's own.
    assert_eq!(taken_after(|policy| policy.entries = 8), Some(7));
    let bytes = taken_after(|policy| policy.log_bytes = 400).expect("by bytes");
    assert!((5..25).contains(&bytes), "{bytes} proposals");
    let ticks = taken_after(|policy| policy.ticks = 205).expect("by time");
    assert!((13..=20).contains(&ticks), "{ticks} times ten ticks");
}

#[test]
fn time_alone_takes_no_snapshot_where_nothing_was_applied() {
    let mut cluster = nodes(1, &[]);
    cluster.snapshots.ticks = 100;
    cluster.restart_all();
    lead(&mut cluster, A);
    pass(&mut cluster, 1000);
    assert_eq!(cluster.counts.snapshots, 1);
}

#[test]
fn one_that_could_not_be_written_is_tried_again_later() {
    let mut cluster = nodes(1, &[]);
    cluster.snapshots.entries = 3;
    cluster.restart_all();
    cluster.campaign(A);
    let attempts = |cluster: &mut Cluster, ticks: u32| {
        let mut attempts = 0;
        for _ in 0..ticks {
            cluster.propose(A, "x");
            while cluster.persist(A) || cluster.work(A) {}
            if cluster.nodes.get_mut(&A).unwrap().taking.take().is_some() {
                attempts += 1;
                cluster.step(A, Input::SnapshotTaken(None));
            }
            cluster.step(A, Input::Tick);
        }
        attempts
    };
    assert_eq!(attempts(&mut cluster, 900), 1);
    assert_eq!(attempts(&mut cluster, 900), 1);
}

#[test]
fn the_tail_is_kept_for_the_slowest_follower_that_lives_and_no_longer() {
    let mut cluster = compacting(10, 1 << 20);
    propose(&mut cluster, A, 100);
    let all = state(&cluster, A);
    let kept = all.snapshot.index.0 - all.start.index.0;
    assert!(kept <= 1, "everybody has everything");
    // C falls silent. It may come back, so what it needs is kept.
    let held = state(&cluster, C).last;
    isolate(&mut cluster, C);
    propose(&mut cluster, A, 100);
    assert!(state(&cluster, A).snapshot.index.0 > held.index.0 + 50);
    assert!(state(&cluster, A).start.index <= held.index);
    cluster.cut.clear();
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.counts.installs, 0, "the log was enough");
    // It stays away for good: nothing is kept for the dead.
    isolate(&mut cluster, C);
    let patience = 16 * cluster.timing.election_ticks_max;
    for _ in 0..=patience {
        cluster.step(A, Input::Tick);
        cluster.step(B, Input::Tick);
        cluster.stabilize();
    }
    propose(&mut cluster, A, 30);
    let left = state(&cluster, A);
    assert_eq!(left.start, left.snapshot);
    // A follower does not know who lags, and keeps what it may.
    assert!(state(&cluster, B).start.index < left.start.index);
}

#[test]
fn the_tail_is_bounded_in_bytes_whoever_lags() {
    let mut cluster = compacting(10, 600);
    isolate(&mut cluster, C);
    propose(&mut cluster, A, 100);
    for id in [A, B] {
        let state = state(&cluster, id);
        let kept = state.snapshot.index.0 - state.start.index.0;
        assert!((5..30).contains(&kept), "n{id} keeps {kept} entries");
    }
    cluster.cut.clear();
    settle(&mut cluster, A);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    assert!(cluster.counts.installs > 0);
}

#[test]
fn a_snapshot_onto_a_diverged_log_survives_a_crash_between_any_two_steps() {
    // What is lost: the message itself; so many of the writes that it causes; nothing.
    for (crash, is_stepped) in [(0, false), (0, true), (1, true), (2, true), (9, true)] {
        let mut cluster = diverged();
        until_sent(&mut cluster);
        cluster.is_apply_slow = true;
        let sent = cluster.transfers[0].clone();
        let Message::Snapshot(descriptor) = &sent.message else {
            panic!("{sent:?}");
        };
        let last = descriptor.meta.last;
        assert!(!cluster.raft(C).log.contains(last));
        if is_stepped {
            cluster.finish_transfer(0, true);
            let installed = state(&cluster, C);
            assert_eq!((installed.start, installed.last), (last, last));
            assert_eq!(installed.snapshot, last);
            assert_eq!(installed.durable, Index(0), "not before the disk says so");
            assert!(cluster.node(C).work.is_empty(), "nor is it the state");
        } else {
            let node = cluster.nodes.get_mut(&C).unwrap();
            node.disk.keep_snapshot(descriptor.clone());
        }
        if crash == 9 {
            while cluster.persist(C) {}
            assert_eq!(cluster.node(C).work.len(), 1, "now it becomes the state");
        }
        cluster.crash(C, crash);
        cluster.start(C);
        let after = state(&cluster, C);
        let what = format!("{crash} writes are done, stepped {is_stepped}");
        assert_eq!((after.start, after.last), (last, last), "{what}");
        assert!(after.hard_state.term >= last.term, "{what}");
        cluster.is_apply_slow = false;
        pass(&mut cluster, 20);
        in_step(&cluster, &[1, 2, 3]);
    }
}

#[test]
fn a_term_that_only_the_snapshot_tells_is_adopted_at_the_start() {
    let mut cluster = diverged();
    until_sent(&mut cluster);
    let sent = cluster.transfers[0].clone();
    let Message::Snapshot(descriptor) = sent.message else {
        panic!("{sent:?}");
    };
    cluster.crash(C, 0);
    let node = cluster.nodes.get_mut(&C).unwrap();
    node.disk.keep_snapshot(descriptor.clone());
    node.disk.hard_state.term = Term(1);
    node.disk.hard_state.vote = Some(C);
    cluster.start(C);
    let hard_state = state(&cluster, C).hard_state;
    assert_eq!(hard_state.term, descriptor.meta.last.term);
    assert_eq!(hard_state.vote, None, "the vote was of another term");
    cluster.step(C, Input::Tick);
    while cluster.persist(C) {}
    assert_eq!(cluster.node(C).disk.hard_state, hard_state);
}

#[test]
fn an_old_or_equal_snapshot_changes_nothing_and_is_answered() {
    let mut cluster = compacting(10, 1 << 20);
    propose(&mut cluster, A, 25);
    settle(&mut cluster, A);
    let before = state(&cluster, B);
    let last = before.last;
    let term = last.term.0;
    for index in [before.snapshot.index.0, 5, 1, last.index.0] {
        for _ in 0..2 {
            deliver(&mut cluster, B, log_id(term, index));
            let matched = last.index;
            let accepted = Message::AppendReply(AppendReply::Accepted { matched });
            assert_eq!(answers(&mut cluster, B), [accepted], "up to {index}");
            let mut after = state(&cluster, B);
            assert!(after.snapshot.index >= before.snapshot.index);
            after.snapshot = before.snapshot;
            assert_eq!(after, before, "up to {index}");
        }
    }
    // Another term at a committed index: whoever says so is no leader (openraft 1892).
    let refused = cluster.raft(B).state().counters.refused;
    lead(&mut cluster, B);
    lead(&mut cluster, A);
    let before = state(&cluster, B);
    deliver(&mut cluster, B, log_id(term, before.last.index.0));
    assert_eq!(answers(&mut cluster, B), []);
    assert_eq!(cluster.raft(B).state().counters.refused, refused + 1);
    assert_eq!(state(&cluster, B), before);
}

#[test]
fn what_the_log_has_behind_a_snapshot_that_it_contains_is_kept() {
    let mut cluster = led(3);
    // B has entries that it does not know to be committed.
    for value in 0..10 {
        cluster.propose(A, &value.to_string());
    }
    while cluster.persist(A) {}
    cluster.network.retain(|e| e.to == B);
    while !cluster.network.is_empty() {
        cluster.deliver(0);
        while cluster.persist(B) {}
        cluster.network.retain(|e| e.to == B);
    }
    let before = state(&cluster, B);
    assert_eq!((before.commit, before.last.index), (Index(1), Index(11)));
    deliver(&mut cluster, B, log_id(1, 6));
    let matched = Index(6);
    let accepted = Message::AppendReply(AppendReply::Accepted { matched });
    assert_eq!(answers(&mut cluster, B), [accepted]);
    let after = state(&cluster, B);
    assert_eq!((after.start, after.last), (LogId::ZERO, before.last));
    assert_eq!((after.commit, after.applied), (Index(6), Index(6)));
    assert_eq!(cluster.counts.installs, 0);
}

#[test]
fn nothing_that_is_not_applied_is_compacted() {
    // B takes a snapshot of its own while its state machine is behind; then one of the leader
    // comes that its log contains (simulator, seed 344).
    let mut cluster = compacting(4, 0);
    isolate(&mut cluster, C);
    propose(&mut cluster, A, 2);
    cluster.is_apply_slow = true;
    for value in 0..10 {
        cluster.propose(A, &value.to_string());
        for _ in 0..4 {
            for id in [A, B] {
                while cluster.persist(id) || cluster.load(id) {}
            }
            while !cluster.network.is_empty() {
                cluster.deliver(0);
            }
        }
        cluster.step(A, Input::Tick);
    }
    while cluster.node(B).taking.is_none() {
        assert!(cluster.work(B), "it takes one");
    }
    let state_of_b = state(&cluster, B);
    assert!(state_of_b.applied < state_of_b.commit);
    let last = cluster.raft(B).log.id_at(state_of_b.commit);
    deliver(&mut cluster, B, last);
    cluster.finish_snapshot(B);
    while cluster.persist(B) {}
    assert!(state(&cluster, B).start.index <= state(&cluster, B).applied);
    while cluster.work(B) {}
    assert_eq!(state(&cluster, B).applied, last.index);
}

#[test]
fn a_second_snapshot_may_come_before_the_first_is_the_state() {
    for durable in [false, true] {
        let mut cluster = led(3);
        isolate(&mut cluster, C);
        propose(&mut cluster, A, 30);
        cluster.cut.clear();
        cluster.is_apply_slow = true;
        for index in [10, 20] {
            deliver(&mut cluster, C, log_id(1, index));
            while durable && cluster.persist(C) {}
        }
        deliver(&mut cluster, C, log_id(1, 15));
        let installed = state(&cluster, C);
        assert_eq!(installed.start, log_id(1, 20));
        cluster.is_apply_slow = false;
        settle(&mut cluster, A);
        in_step(&cluster, &[1, 2, 3]);
    }
}

#[test]
fn a_leader_that_compacted_everything_brings_a_fresh_follower_in_step() {
    let mut cluster = led(3);
    isolate(&mut cluster, C);
    cluster.crash(C, 0);
    propose(&mut cluster, A, 20);
    // Everything is compacted, to the last entry.
    cluster.snapshots.entries = 1;
    for id in [A, B] {
        cluster.crash(id, 0);
        cluster.start(id);
    }
    lead(&mut cluster, A);
    for _ in 0..16 * cluster.timing.election_ticks_max {
        cluster.step(A, Input::Tick);
        cluster.stabilize();
    }
    propose(&mut cluster, A, 1);
    let idle = state(&cluster, A);
    assert_eq!(idle.start, idle.last, "nothing is left to send");
    cluster.cut.clear();
    cluster.start(C);
    settle(&mut cluster, A);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(state(&cluster, C).start, idle.start);
}

#[test]
fn entries_that_were_compacted_while_they_were_read_are_not_sent() {
    // Down to the one before what comes next, to that very entry (simulator, seed 95), or beyond.
    for (ahead, is_useful) in [(-1, true), (0, false), (1, false), (5, false)] {
        let mut cluster = nodes(3, &[]);
        cluster.limits.tail_bytes_max = 0;
        cluster.restart_all();
        lead(&mut cluster, A);
        isolate(&mut cluster, C);
        propose(&mut cluster, A, 8);
        cluster.cut.clear();
        while cluster.node(A).loads.is_empty() {
            cluster.step(A, Input::Tick);
            while !cluster.network.is_empty() {
                cluster.deliver(0);
                for id in [A, B, C] {
                    while cluster.persist(id) {}
                }
            }
        }
        let load = cluster.node(A).loads[0];
        let entries = cluster.node(A).disk.read(load.from, load.to);
        let to = log_id(1, load.from.0.checked_add_signed(ahead).unwrap());
        let taken = snapshot(to, &cluster);
        let mut raft = cluster.take_raft(A);
        raft.step(Input::SnapshotTaken(Some(taken)));
        raft.step(Input::Loaded(Loaded {
            peer: C,
            term: load.term,
            entries,
        }));
        let effects = raft.take_effects();
        assert_eq!(raft.state().start, to);
        let appends = effects.send.iter().filter(|e| e.message.is_bulk()).count();
        assert_eq!(appends > 0, is_useful, "compacted to {to}");
        let is_sent = effects.send_snapshot.iter().any(|e| e.to == C);
        assert_eq!(is_sent, !is_useful, "only a snapshot helps now");
    }
}

#[test]
fn a_node_with_a_snapshot_and_an_empty_log_votes_and_appends_by_the_snapshots_last_entry() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 9);
    let last = log_id(1, 10);
    cluster.crash(B, 0);
    let descriptor = snapshot(last, &cluster);
    let node = cluster.nodes.get_mut(&B).unwrap();
    node.disk.keep_snapshot(descriptor);
    node.disk.start = last;
    node.disk.entries.clear();
    node.disk.hard_state.term = Term(3);
    cluster.start(B);
    assert_eq!(state(&cluster, B).last, last);
    cluster.crash(A, 0);
    // It votes for nobody with less, and for the same.
    for (term, claimed, granted) in [
        (4, log_id(1, 9), false),
        (5, LogId::ZERO, false),
        (6, last, true),
        (7, log_id(2, 3), true),
    ] {
        let vote = Message::Vote(Vote {
            last: claimed,
            is_transfer: false,
        });
        cluster.receive(cluster.envelope(C, B, Term(term), vote));
        let said = answers(&mut cluster, B);
        let reply = crate::message::VoteReply { granted, last };
        assert_eq!(said, [Message::VoteReply(reply)], "{claimed}");
    }
    let entry = |term, index| {
        let id = log_id(term, index);
        Entry::new(id, EntryKind::Noop, bytes::Bytes::new())
    };
    let append = |base, entries| {
        let commit = Index(0);
        Message::Append(Append {
            base,
            commit,
            entries,
        })
    };
    // Right behind the end, over it, before it, and with another term at it.
    let accepted = |matched| vec![AppendReply::Accepted { matched }];
    for (base, entries, expected) in [
        (last, vec![], accepted(last.index)),
        (log_id(1, 4), vec![entry(1, 5)], accepted(last.index)),
        (log_id(1, 9), vec![entry(2, 10)], vec![]),
        (log_id(2, 10), vec![entry(8, 11)], vec![]),
        (
            log_id(1, 8),
            vec![entry(1, 9), entry(1, 10), entry(8, 11)],
            accepted(Index(11)),
        ),
    ] {
        cluster.receive(cluster.envelope(C, B, Term(8), append(base, entries.clone())));
        let said = answers(&mut cluster, B);
        let expected: Vec<_> = expected.into_iter().map(Message::AppendReply).collect();
        assert_eq!(said, expected, "{base} {entries:?}");
    }
    assert_eq!(state(&cluster, B).last, log_id(8, 11));
}

#[test]
fn whatever_reconnects_a_follower_to_the_log_ends_its_wait_for_a_snapshot() {
    // A snapshot of B, when B led, arrives while one of A is on its way for ever (cockroach
    // 106793).
    let mut cluster = diverged();
    until_sent(&mut cluster);
    let matched = |cluster: &Cluster| {
        let matched = state(cluster, A).matched;
        matched.iter().find(|(id, _)| *id == C).unwrap().1
    };
    assert_eq!(matched(&cluster), Index(0));
    let last = state(&cluster, A).start;
    deliver(&mut cluster, C, last);
    while cluster.persist(C) {}
    assert!(!cluster.transfers.is_empty(), "the other one goes on");
    for _ in 0..20 {
        while !cluster.network.is_empty() {
            cluster.deliver(0);
        }
        for id in [A, B, C] {
            while cluster.persist(id) || cluster.load(id) {}
        }
        cluster.step(A, Input::Tick);
    }
    assert_eq!(matched(&cluster), state(&cluster, A).last.index);
    // It ends at last, twice, and changes nothing.
    let before = state(&cluster, A);
    for is_delivered in [false, true] {
        cluster.step(
            A,
            Input::SnapshotSent {
                to: C,
                is_delivered,
            },
        );
        assert_eq!(state(&cluster, A), before);
    }
}

#[test]
fn a_lost_transfer_and_a_lost_answer_are_found_out_by_a_probe() {
    let mut cluster = diverged();
    for _ in 0..3 {
        until_sent(&mut cluster);
        cluster.finish_transfer(0, false);
    }
    until_sent(&mut cluster);
    cluster.finish_transfer(0, true);
    while cluster.persist(C) {}
    cluster.network.retain(|e| e.from != C);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.counts.installs, 1);
}

#[test]
fn a_probe_that_is_answered_late_does_not_disturb_a_snapshot_under_way() {
    let mut cluster = diverged();
    until_sent(&mut cluster);
    let before = state(&cluster, A);
    let rejected = AppendReply::Rejected {
        base: log_id(1, 5),
        conflict: crate::message::Conflict::default(),
        last: LogId::ZERO,
    };
    let term = before.hard_state.term;
    let late = cluster.envelope(C, A, term, Message::AppendReply(rejected));
    for _ in 0..3 {
        cluster.receive(late.clone());
    }
    assert_eq!(cluster.transfers.len(), 1);
    assert_eq!(state(&cluster, A).matched, before.matched);
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3]);
    assert_eq!(cluster.counts.installs, 1);
}

#[test]
fn a_snapshot_takes_the_place_of_memberships_that_were_never_committed() {
    // C, cut off, began to add somebody; the snapshot knows nothing of that.
    let mut cluster = nodes(3, &[]);
    lead(&mut cluster, C);
    isolate(&mut cluster, C);
    cluster.change(C, add(9, 900));
    assert!(state(&cluster, C).membership.get(NodeId(9)).is_some());
    forget_leader(&mut cluster, B);
    lead(&mut cluster, A);
    propose(&mut cluster, A, 10);
    cluster.cut.clear();
    let last = state(&cluster, A).last;
    deliver(&mut cluster, C, last);
    assert_eq!(
        state(&cluster, C).membership,
        state(&cluster, A).membership,
        "at once, not when it is restored"
    );
    settle(&mut cluster, A);
    cluster.crash(C, 0);
    cluster.start(C);
    assert_eq!(state(&cluster, C).membership, state(&cluster, A).membership);
}

#[test]
fn a_node_that_joins_takes_no_snapshot_before_it_knows_its_group() {
    let mut cluster = led(1);
    propose(&mut cluster, A, 20);
    cluster.snapshots.entries = 5;
    cluster.limits.append_entries_max = 4;
    join(&mut cluster, A, 2);
    for node in cluster.nodes.values().filter(|node| node.id == B) {
        let snapshot = node.disk.snapshot.as_ref().expect("it takes one at last");
        assert!(!snapshot.meta.membership.is_empty());
    }
    assert_eq!(cluster.raft(A).role(), Role::Leader);
}
