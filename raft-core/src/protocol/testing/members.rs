//! Changes of members: joint, one at a time, in effect at once, and finished whoever leads by then.

use super::Cluster;
use super::support::{
    add, deadlines, forget_leader, in_step, isolate, join, lead, led, member, nodes, promote,
    propose, remove, replace, set, settle, state, voters,
};
use crate::error::ChangeError;
use crate::membership::{MemberRole, MembershipChange, MembershipError};
use crate::message::{AppendReply, HeartbeatReply, Message, PreVoteReply, VoteReply};
use crate::protocol::{Input, Role};
use crate::types::{Incarnation, Index, NodeId, Term};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);

fn changed(cluster: &mut Cluster) -> Option<Result<(), ChangeError>> {
    let answer = cluster.answers.changed.pop()?;
    assert!(cluster.answers.changed.is_empty(), "one answer");
    Some(answer.map(|_| ()))
}

/// Asks A, and lets everybody work.
fn change(cluster: &mut Cluster, change: MembershipChange) -> Result<(), ChangeError> {
    cluster.change(A, change);
    settle(cluster, A);
    changed(cluster).expect("it comes to an end")
}

/// Writes, and messages of these nodes among each other, until nothing is left.
fn among(cluster: &mut Cluster, ids: &[NodeId]) {
    loop {
        for id in ids {
            while cluster.persist(*id) || cluster.load(*id) {}
        }
        let wanted = |e: &crate::Envelope| ids.contains(&e.from) && ids.contains(&e.to);
        let Some(position) = cluster.network.iter().position(wanted) else {
            return;
        };
        cluster.deliver(position);
    }
}

#[test]
fn a_learner_that_has_not_said_a_word_is_not_promoted() {
    // A group so young that its leader has counted no heartbeat yet.
    let mut cluster = nodes(1, &[]);
    cluster.campaign(A);
    cluster.stabilize();
    cluster.add_node(D);
    cluster.change(A, add(4, 400));
    cluster.stabilize();
    assert_eq!(changed(&mut cluster), Some(Ok(())));
    cluster.change(A, promote(4));
    cluster.stabilize();
    let lagging = ChangeError::Lagging {
        id: D,
        matched: Index(0),
        needed: Index(1),
    };
    assert_eq!(changed(&mut cluster), Some(Err(lagging)));
    assert!(!state(&cluster, A).membership.is_joint());
}

#[test]
fn any_set_of_voters_follows_any_other() {
    for target in [
        vec![4, 5],
        vec![1, 4, 5],
        vec![2],
        vec![3, 4],
        vec![1, 2, 3, 4, 5],
    ] {
        let mut cluster = led(3);
        for id in [4, 5] {
            join(&mut cluster, A, id);
        }
        cluster.answers.changed.clear();
        cluster.change(A, set(&target));
        assert_eq!(voters(&cluster, A), (target.clone(), vec![1, 2, 3]));
        for _ in 0..5 {
            cluster.stabilize();
            let leader = cluster.leader().unwrap_or(A);
            settle(&mut cluster, leader);
        }
        assert_eq!(changed(&mut cluster), Some(Ok(())), "{target:?}");
        let leader = cluster.leader().expect("somebody leads");
        assert!(target.contains(&leader.0), "{target:?}");
        propose(&mut cluster, leader, 3);
        settle(&mut cluster, leader);
        assert_eq!(voters(&cluster, leader), (target.clone(), vec![]));
        in_step(&cluster, &target);
    }
}

#[test]
fn while_two_sets_overlap_in_time_neither_decides_alone() {
    // A, B, C become C, D, E; what is appended then needs two of each.
    let mut cluster = led(3);
    for id in [4, 5] {
        join(&mut cluster, A, id);
    }
    cluster.change(A, set(&[3, 4, 5]));
    let joint = state(&cluster, A).last.index;
    among(&mut cluster, &[A, B]);
    assert!(
        state(&cluster, A).commit < joint,
        "only the old half has it"
    );
    among(&mut cluster, &[A, B, D]);
    assert!(state(&cluster, A).commit < joint, "one of the new half");
    among(&mut cluster, &[A, B, C, D]);
    assert!(state(&cluster, A).commit >= joint, "two of each");
    // The same for an election: D alone has the change, and the votes of the new half; of the old
    // one only C is there.
    let mut cluster = led(3);
    for id in [4, 5] {
        join(&mut cluster, A, id);
    }
    cluster.change(A, set(&[3, 4, 5]));
    cluster.network.retain(|e| e.to == D);
    among(&mut cluster, &[A, D]);
    cluster.crash(A, 0);
    cluster.crash(B, 0);
    deadlines(&mut cluster, 6);
    assert_eq!(cluster.leader(), None, "of the old half only C is there");
    cluster.start(B);
    deadlines(&mut cluster, 6);
    assert!(cluster.leader().is_some(), "and now two of each");
}

#[test]
fn a_change_is_in_effect_as_soon_as_it_is_appended() {
    let mut cluster = led(3);
    cluster.change(A, set(&[1, 2]));
    assert!(state(&cluster, A).membership.is_joint());
    assert!(state(&cluster, A).membership_index > state(&cluster, A).commit);
    cluster.is_apply_slow = true;
    among(&mut cluster, &[A, B]);
    let at_b = state(&cluster, B);
    assert!(
        at_b.applied < at_b.membership_index,
        "long before it is applied"
    );
    assert_eq!(voters(&cluster, B).0, [1, 2]);
}

#[test]
fn learners_come_first_and_are_promoted_only_when_they_are_caught_up() {
    let mut cluster = led(3);
    propose(&mut cluster, A, 50);
    assert_eq!(
        change(&mut cluster, promote(4)),
        Err(MembershipError::NotAMember(D).into())
    );
    // A voter that nobody knows: not even as a part of a set.
    cluster.add_node(D);
    let needed = state(&cluster, A).commit;
    let lagging = |matched| ChangeError::Lagging {
        id: D,
        matched: Index(matched),
        needed,
    };
    assert_eq!(change(&mut cluster, set(&[1, 2, 3, 4])), Err(lagging(0)));
    assert_eq!(change(&mut cluster, add(4, 400)), Ok(()));
    let needed = state(&cluster, A).commit;
    let lagging = ChangeError::Lagging {
        id: D,
        matched: Index(0),
        needed,
    };
    assert_eq!(change(&mut cluster, promote(4)), Err(lagging));
    assert_eq!(
        state(&cluster, A).last.index,
        needed,
        "nothing was appended"
    );
    cluster.start(D);
    settle(&mut cluster, A);
    // Commits go on all the time: what it had a heartbeat ago is enough.
    cluster.propose(A, "not there yet");
    cluster.change(A, promote(4));
    settle(&mut cluster, A);
    assert_eq!(changed(&mut cluster), Some(Ok(())));
    assert_eq!(voters(&cluster, D), (vec![1, 2, 3, 4], vec![]));
    assert_eq!(
        change(&mut cluster, promote(4)),
        Err(MembershipError::AlreadyAVoter(D).into())
    );
    assert_eq!(
        change(&mut cluster, add(4, 400)),
        Err(MembershipError::AlreadyAMember(D).into())
    );
}

#[test]
fn a_leader_that_was_just_elected_does_not_take_an_empty_learner_for_one_that_caught_up() {
    // It knows of no commit yet, and so everybody has all that it knows to be committed. Of D it
    // hears that it has the first entry, and nothing else.
    let mut cluster = led(3);
    propose(&mut cluster, A, 50);
    join(&mut cluster, A, 4);
    cluster.answers.changed.clear();
    cluster.crash(D, 0);
    for id in [A, B, C] {
        cluster.crash(id, 0);
        cluster.start(id);
    }
    cluster.campaign(A);
    for _ in 0..12 {
        cluster.stabilize();
        let accepted = AppendReply::Accepted { matched: Index(1) };
        let term = state(&cluster, A).hard_state.term;
        let reply = cluster.envelope(D, A, term, Message::AppendReply(accepted));
        cluster.receive(reply);
        cluster.change(A, promote(4));
        let refused = changed(&mut cluster);
        let is_refused = matches!(
            refused,
            Some(Err(ChangeError::NotReady | ChangeError::Lagging { .. }))
        );
        assert!(is_refused, "{refused:?}");
        cluster.step(A, Input::Tick);
    }
}

#[test]
fn a_learner_neither_counts_nor_campaigns_but_it_answers() {
    let mut cluster = led(3);
    for id in [4, 5] {
        join(&mut cluster, A, id);
    }
    // With both learners and without B and C nothing is committed.
    for id in [B, C] {
        cluster.crash(id, 0);
    }
    let commit = state(&cluster, A).commit;
    propose(&mut cluster, A, 1);
    assert_eq!(state(&cluster, A).commit, commit);
    cluster.read(A, 1);
    cluster.stabilize();
    assert_eq!(cluster.answers.ready, []);
    deadlines(&mut cluster, 1);
    assert_ne!(cluster.raft(A).role(), Role::Leader, "no majority is heard");
    cluster.crash(A, 0);
    deadlines(&mut cluster, 10);
    for id in [D, NodeId(5)] {
        assert_eq!(cluster.raft(id).role(), Role::Follower);
        assert_eq!(
            cluster.raft(id).leader(),
            None,
            "and says that nobody leads"
        );
    }
    // Somebody who knows it as a voter already asks it, and it votes (etcd 10998).
    let last = state(&cluster, D).last;
    let term = Term(state(&cluster, D).hard_state.term.0 + 1);
    let vote = crate::message::Vote {
        last,
        is_transfer: false,
    };
    cluster.receive(cluster.envelope(C, D, term, Message::Vote(vote)));
    while cluster.persist(D) {}
    let granted = Message::VoteReply(VoteReply {
        granted: true,
        last,
    });
    assert!(cluster.network.iter().any(|e| e.message == granted));
}

#[test]
fn changes_that_leave_no_group_are_refused() {
    let mut cluster = led(1);
    let none = Err(ChangeError::Invalid(MembershipError::NoVoter));
    assert_eq!(change(&mut cluster, remove(1)), none);
    // Nor with a learner left over.
    join(&mut cluster, A, 2);
    cluster.answers.changed.clear();
    assert_eq!(change(&mut cluster, remove(1)), none);
    assert_eq!(change(&mut cluster, MembershipChange::Set([].into())), none);
    let learner = [(A, member(100, MemberRole::Learner))];
    assert_eq!(
        change(&mut cluster, MembershipChange::Set(learner.into())),
        none
    );
    assert_eq!(cluster.leader(), Some(A));
}

#[test]
fn new_voters_of_whom_no_majority_answers_are_refused() {
    let mut cluster = led(3);
    for id in [4, 5] {
        join(&mut cluster, A, id);
    }
    for id in [D, NodeId(5)] {
        cluster.crash(id, 0);
    }
    for _ in 0..10 {
        settle(&mut cluster, A);
    }
    cluster.answers.changed.clear();
    let silent = vec![D, NodeId(5)];
    assert_eq!(
        change(&mut cluster, set(&[1, 4, 5])),
        Err(ChangeError::NoQuorum { silent })
    );
    assert_eq!(change(&mut cluster, set(&[1, 2, 3, 4])), Ok(()));
}

#[test]
fn one_change_at_a_time_and_none_before_the_leader_committed_in_its_term() {
    let mut cluster = led(3);
    isolate(&mut cluster, B);
    isolate(&mut cluster, C);
    cluster.change(A, add(4, 400));
    let since = state(&cluster, A).last.index;
    for another in [add(5, 500), remove(2), set(&[1]), promote(4)] {
        cluster.change(A, another);
        let refused = Err(ChangeError::InProgress { since });
        assert_eq!(changed(&mut cluster), Some(refused));
    }
    cluster.cut.clear();
    settle(&mut cluster, A);
    assert_eq!(changed(&mut cluster), Some(Ok(())));
    // Joint, and committed, but not left: still under way.
    cluster.change(A, remove(3));
    let since = state(&cluster, A).last.index;
    cluster.change(A, add(5, 500));
    let refused = Err(ChangeError::InProgress { since });
    assert_eq!(changed(&mut cluster), Some(refused));
    settle(&mut cluster, A);
    assert_eq!(changed(&mut cluster), Some(Ok(())));
    // A new leader cannot know what is under way (Ongaro 2015).
    let mut cluster = nodes(3, &[1]);
    cluster.campaign(A);
    while cluster.raft(A).role() != Role::Leader {
        cluster.persist(A);
        if !cluster.network.is_empty() {
            cluster.deliver(0);
        }
        while cluster.persist(B) {}
    }
    cluster.change(A, add(4, 400));
    assert_eq!(changed(&mut cluster), Some(Err(ChangeError::NotReady)));
    let leader = Some(A);
    settle(&mut cluster, A);
    cluster.change(B, add(4, 400));
    let refused = Err(ChangeError::NotLeader { leader });
    assert_eq!(changed(&mut cluster), Some(refused));
}

#[test]
fn a_removed_leader_hands_over_and_its_successor_leads_without_waiting() {
    for target in [vec![2, 3], vec![2], vec![3, 4, 5]] {
        let mut cluster = led(3);
        for id in [4, 5] {
            join(&mut cluster, A, id);
        }
        cluster.answers.changed.clear();
        cluster.change(A, set(&target));
        // No clock moves at all.
        cluster.stabilize();
        assert_eq!(changed(&mut cluster), Some(Ok(())));
        let leader = cluster.leader().expect("somebody leads at once");
        assert!(target.contains(&leader.0), "{target:?}");
        assert_eq!(cluster.raft(A).role(), Role::Follower);
        // It left only after those who matter knew, and it does not come back.
        let term = state(&cluster, leader).hard_state.term;
        deadlines(&mut cluster, 20);
        assert_eq!(cluster.leader(), Some(leader));
        assert_eq!(state(&cluster, leader).hard_state.term, term);
    }
}

#[test]
fn a_removed_leader_does_not_count_itself() {
    // A and B are left for C and D: in the new half nobody but those two counts.
    let mut cluster = led(2);
    for id in [3, 4] {
        join(&mut cluster, A, id);
    }
    cluster.change(A, set(&[3, 4]));
    among(&mut cluster, &[A, B, C]);
    let joint = state(&cluster, A).membership_index;
    assert!(state(&cluster, A).commit < joint, "A and C are not C and D");
    among(&mut cluster, &[A, B, C, D]);
    assert_ne!(cluster.raft(A).role(), Role::Leader);
}

#[test]
fn whoever_leads_next_finishes_a_change_wherever_the_leader_crashed() {
    // The leader is gone after so many deliveries since the change was asked for.
    for target in [vec![3, 4, 5], vec![1, 2, 4], vec![2, 3]] {
        for steps in 0..60 {
            let mut cluster = led(3);
            for id in [4, 5] {
                join(&mut cluster, A, id);
            }
            cluster.change(A, set(&target));
            let mut done = 0;
            'steps: while done < steps {
                for id in cluster.ids() {
                    if done < steps && cluster.persist(id) {
                        done += 1;
                        continue 'steps;
                    }
                }
                if cluster.network.is_empty() {
                    break;
                }
                cluster.deliver(0);
                done += 1;
            }
            let is_lost = steps % 2 == 0;
            if is_lost {
                cluster.network.clear();
            }
            cluster.crash(A, 0);
            deadlines(&mut cluster, 12);
            let at = format!("{target:?} after {steps} steps");
            let leader = cluster.leader().unwrap_or_else(|| panic!("nobody, {at}"));
            let (new, old) = voters(&cluster, leader);
            assert!(old.is_empty(), "nobody stays joint, {at}");
            assert!(new == target || new == [1, 2, 3], "{new:?}, {at}");
            cluster.start(A);
            deadlines(&mut cluster, 4);
            let leader = cluster.leader().expect("somebody leads");
            propose(&mut cluster, leader, 1);
            settle(&mut cluster, leader);
            in_step(&cluster, &new);
        }
    }
}

#[test]
fn a_restart_within_a_change_keeps_it() {
    for id in [A, B, D] {
        let mut cluster = led(3);
        for id in [4, 5] {
            join(&mut cluster, A, id);
        }
        cluster.change(A, set(&[3, 4, 5]));
        among(&mut cluster, &[A, id]);
        let joint = (vec![3, 4, 5], vec![1, 2, 3]);
        assert_eq!(voters(&cluster, id), joint);
        cluster.crash(id, 0);
        cluster.start(id);
        assert_eq!(voters(&cluster, id), joint, "n{id}");
    }
}

#[test]
fn two_memberships_that_are_truncated_at_once_go_together() {
    // A commits the joint one in its own group of messages, appends the next, and is deposed; C,
    // which has neither, replaces both (scylla 30936).
    let mut cluster = led(3);
    let before = voters(&cluster, A);
    isolate(&mut cluster, A);
    cluster.change(A, add(4, 400));
    cluster.propose(A, "lost");
    while cluster.persist(A) {}
    // As if another leader had left a second one behind it.
    let index = state(&cluster, A).last.index.next();
    let joint = state(&cluster, A)
        .membership
        .after(&promote(4))
        .map(|target| state(&cluster, A).membership.towards(target))
        .unwrap();
    let id = crate::LogId::new(Term(9), index);
    let entry = crate::Entry::new(id, crate::EntryKind::Membership, joint.encode());
    let base = state(&cluster, A).last;
    let append = crate::message::Append {
        base,
        commit: Index(0),
        entries: vec![entry],
    };
    let envelope = cluster.envelope(B, A, Term(9), Message::Append(append));
    cluster.cut.clear();
    cluster.receive(envelope);
    while cluster.persist(A) {}
    assert_eq!(voters(&cluster, A).0, [1, 2, 3, 4]);
    cluster.network.clear();
    forget_leader(&mut cluster, C);
    let noop = crate::Entry::new(
        crate::LogId::new(Term(10), Index(2)),
        crate::EntryKind::Noop,
        bytes::Bytes::new(),
    );
    let append = crate::message::Append {
        base: crate::LogId::new(Term(1), Index(1)),
        commit: Index(0),
        entries: vec![noop],
    };
    let envelope = cluster.envelope(C, A, Term(10), Message::Append(append));
    cluster.receive(envelope);
    assert_eq!(voters(&cluster, A), before);
    assert_eq!(state(&cluster, A).membership_index, Index(0));
    // The same from its disk, after a crash that keeps all of it.
    cluster.crash(A, 9);
    cluster.start(A);
    assert_eq!(voters(&cluster, A), before);
}

#[test]
fn a_removed_node_that_was_not_told_disturbs_nobody() {
    for is_cut in [true, false] {
        let mut cluster = led(5);
        let removed = NodeId(5);
        isolate(&mut cluster, removed);
        assert_eq!(change(&mut cluster, remove(5)), Ok(()));
        let term = state(&cluster, A).hard_state.term;
        if !is_cut {
            cluster.cut.clear();
        }
        for _ in 0..3 {
            deadlines(&mut cluster, 10);
            cluster.cut.clear();
            propose(&mut cluster, A, 1);
        }
        assert_eq!(cluster.leader(), Some(A));
        assert_eq!(state(&cluster, A).hard_state.term, term);
        assert_eq!(state(&cluster, removed).hard_state.term, term);
    }
}

/// C lost its disk and is back as 301; A, B and D are there.
fn wiped() -> Cluster {
    let mut cluster = led(4);
    propose(&mut cluster, A, 3);
    cluster.crash(C, 0);
    cluster.wipe(C);
    cluster.start(C);
    cluster
}

#[test]
fn a_wiped_node_counts_for_nothing_until_it_is_taken_in_again() {
    let mut cluster = wiped();
    let (old, new) = (Incarnation(300), Incarnation(301));
    cluster.crash(D, 0);
    propose(&mut cluster, A, 1);
    let before = state(&cluster, A);
    assert!(before.commit < before.last.index, "two of four");
    // Whatever it says as its new self is refused; as its old self it is not there any more.
    let term = before.hard_state.term;
    let replies = [
        Message::AppendReply(AppendReply::Accepted {
            matched: before.last.index,
        }),
        Message::HeartbeatReply(HeartbeatReply {
            round: 0,
            is_refilling: false,
        }),
        Message::VoteReply(VoteReply {
            granted: true,
            last: before.last,
        }),
        Message::PreVoteReply(PreVoteReply {
            next_term: term.next(),
            granted: true,
        }),
        Message::ReadIndex(crate::message::ReadIndex { number: 1 }),
    ];
    for message in replies {
        let mut envelope = cluster.envelope(C, A, term, message);
        assert_eq!(envelope.from_incarnation, new);
        let refused = cluster.raft(A).state().counters.refused;
        cluster.receive(envelope.clone());
        assert_eq!(cluster.raft(A).state().counters.refused, refused + 1);
        assert_eq!(state(&cluster, A), before, "{envelope:?}");
        // What is meant for its old self does not reach it either.
        envelope = cluster.envelope(A, C, term, envelope.message);
        envelope.to_incarnation = old;
        let at_c = state(&cluster, C);
        cluster.receive(envelope);
        assert_eq!(state(&cluster, C), at_c);
    }
    // It never campaigns.
    for _ in 0..200 {
        cluster.step(C, Input::Tick);
    }
    assert_eq!(cluster.raft(C).role(), Role::Follower);
    // Its votes decide nothing: A and B of four are not enough, with its help neither.
    cluster.crash(A, 0);
    cluster.start(A);
    deadlines(&mut cluster, 6);
    assert_eq!(cluster.leader(), None);
}

#[test]
fn a_wiped_node_comes_back_as_a_learner_and_is_promoted() {
    let mut cluster = wiped();
    assert_eq!(
        change(&mut cluster, replace(3, 300)),
        Err(ChangeError::Invalid(MembershipError::SameIncarnation {
            id: C,
            incarnation: Incarnation(300)
        }))
    );
    assert_eq!(change(&mut cluster, replace(3, 301)), Ok(()));
    assert_eq!(voters(&cluster, A), (vec![1, 2, 4], vec![]));
    assert_eq!(change(&mut cluster, promote(3)), Ok(()));
    settle(&mut cluster, A);
    in_step(&cluster, &[1, 2, 3, 4]);
    assert_eq!(voters(&cluster, C), (vec![1, 2, 3, 4], vec![]));
}

#[test]
fn a_list_that_names_another_life_of_the_leader_does_not_mean_it() {
    let mut cluster = led(3);
    let mut members = state(&cluster, A).membership.members().clone();
    members.insert(A, member(101, MemberRole::Voter));
    let needed = state(&cluster, A).commit;
    assert_eq!(
        change(&mut cluster, MembershipChange::Set(members)),
        Err(ChangeError::Lagging {
            id: A,
            matched: Index(0),
            needed
        })
    );
    // Its own replacement leaves it out of every count, and it goes once that is settled.
    cluster.change(A, replace(1, 101));
    cluster.network.retain(|e| e.to == B);
    among(&mut cluster, &[A, B]);
    let at_a = state(&cluster, A);
    assert!(at_a.commit < at_a.membership_index, "B alone");
    settle(&mut cluster, A);
    assert_ne!(cluster.leader(), Some(A));
    assert!(cluster.leader().is_some());
}

#[test]
fn the_answer_is_unknown_where_leadership_ends_within_a_change() {
    let mut cluster = led(3);
    isolate(&mut cluster, A);
    cluster.change(A, add(4, 400));
    for _ in 0..cluster.timing.election_ticks_min * 2 {
        cluster.step(A, Input::Tick);
    }
    assert_eq!(changed(&mut cluster), Some(Err(ChangeError::Unknown)));
    lead(&mut cluster, B);
    assert_eq!(voters(&cluster, B).0, [1, 2, 3]);
    assert_eq!(state(&cluster, B).membership.get(D), None);
}

#[test]
fn progress_begins_anew_with_a_new_disk_and_goes_on_with_the_old_one() {
    let mut cluster = led(3);
    let matched = |cluster: &Cluster, id| {
        let matched = state(cluster, A).matched;
        matched.iter().find(|(of, _)| *of == id).map(|(_, at)| *at)
    };
    let known = matched(&cluster, B);
    cluster.change(A, add(4, 400));
    assert_eq!(
        (matched(&cluster, B), matched(&cluster, D)),
        (known, Some(Index(0)))
    );
    settle(&mut cluster, A);
    cluster.change(A, replace(3, 301));
    assert_eq!(matched(&cluster, C), Some(Index(0)), "it is another disk");
}
