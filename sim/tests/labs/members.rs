//! Fault classes N7 (changes of membership), N8 (leadership that is handed over) and N9 (snapshots
//! that travel in parts): none of them is in the course's suites.

use std::collections::BTreeMap;

use raft_core::{
    ChangeError, Incarnation, Index, LogId, Member, MemberRole, MembershipChange, NodeId,
    SnapshotPolicy, TransferError,
};
use sim::{Answer, Ask, Mark, Microseconds, Options};

use crate::harness::{Churners, Lab, MILLISECOND, SECOND, each_seed, number};

/// A cluster with snapshots, so that whoever joins needs one.
fn lab(seed: u64, nodes: u64) -> Lab {
    let mut options = Options::calm(seed, nodes);
    options.snapshots = SnapshotPolicy {
        entries: 30,
        ..options.snapshots
    };
    Lab::with_options(options)
}

impl Lab {
    /// Asks whoever leads until this change is made, at most for 10 s.
    fn change(&mut self, change: &MembershipChange) -> LogId {
        let end = self.world.now() + 10 * SECOND;
        while self.world.now() < end {
            match self.try_change(change, SECOND) {
                Some(Ok(at)) => return at,
                Some(Err(ChangeError::Invalid(error))) => {
                    // It was made, and the answer was lost.
                    if let Some(at) = self.is_made(change) {
                        return at;
                    }
                    self.fail(&format!("{change:?}: {error}"));
                }
                Some(Err(_)) | None => self.sleep(50 * MILLISECOND),
            }
        }
        self.fail(&format!("{change:?} was not made in 10 s"))
    }

    fn is_made(&self, change: &MembershipChange) -> Option<LogId> {
        let leader = self.world.leader()?;
        let state = self.world.state(leader)?;
        let after = state.membership.after(change);
        let is_settled = !state.membership.is_joint() && state.membership_index <= state.commit;
        let same = after.is_err() || after.is_ok_and(|after| after == state.membership);
        (is_settled && same).then_some(LogId::new(state.hard_state.term, state.membership_index))
    }

    /// Asks whoever leads once, and waits for an answer for so long.
    fn try_change(
        &mut self,
        change: &MembershipChange,
        patience: Microseconds,
    ) -> Option<Result<LogId, ChangeError>> {
        let leader = self.world.leader()?;
        let request = self.world.ask(leader, Ask::Change(change.clone()));
        self.sleep_while_not(patience, |world| world.answer_to(request).is_some());
        match self.world.answer_to(request)? {
            Answer::Changed(outcome) => Some(outcome.clone()),
            Answer::Gone => None,
            answer => self.fail(&format!("a change was answered with {answer:?}")),
        }
    }

    fn add_learner(&mut self) -> NodeId {
        let (id, incarnation) = self.world.add_node();
        self.change(&MembershipChange::AddLearner {
            id,
            incarnation,
            address: String::new(),
        });
        id
    }

    /// Hands leadership over, and waits for the answer.
    fn transfer(&mut self, from: NodeId, to: NodeId) -> Result<(), TransferError> {
        let request = self.world.ask(from, Ask::Transfer(to));
        let is_answered =
            self.sleep_while_not(5 * SECOND, |world| world.answer_to(request).is_some());
        assert!(is_answered, "a transfer ends");
        match self.world.answer_to(request) {
            Some(Answer::Transferred(outcome)) => outcome.clone(),
            answer => self.fail(&format!("a transfer was answered with {answer:?}")),
        }
    }

    /// Waits until a node has applied everything that is committed now.
    fn await_node(&mut self, id: NodeId) {
        let committed = self.world.committed().index;
        let has_it = self.sleep_while_not(10 * SECOND, |world| world.applied(id) >= committed);
        if !has_it {
            self.fail(&format!("n{id} does not reach {committed}"));
        }
    }

    /// Commits so many commands on a majority of a group of this size.
    fn commit(&mut self, count: u64, nodes: usize) {
        for _ in 0..count {
            let command = self.random();
            self.one(command, nodes, true);
        }
    }

    fn voters(&self) -> Vec<NodeId> {
        let leader = self.world.leader().expect("somebody leads");
        let state = self.world.state(leader).expect("it runs");
        state.membership.voters().collect()
    }
}

/// N7: one at a time. A learner joins, gets a snapshot, does not count, and becomes a voter; then a
/// follower goes, then the leader, and whoever is removed disturbs nobody.
#[test]
fn add_promote_and_remove() {
    each_seed(|seed| {
        let mut lab = lab(seed, 3);
        lab.commit(40, 3);
        let fourth = lab.add_learner();
        lab.await_node(fourth);
        assert!(lab.world.coverage().of(Mark::SnapshotDelivered) > 0);
        assert_eq!(lab.voters().len(), 3, "a learner does not vote");
        lab.change(&MembershipChange::Promote { id: fourth });
        assert_eq!(lab.voters().len(), 4);
        lab.commit(5, 4);
        let leader = lab.check_one_leader();
        let follower = lab.behind(leader, 1);
        lab.change(&MembershipChange::Remove { id: follower });
        lab.commit(5, 3);
        let leader = lab.check_one_leader();
        lab.change(&MembershipChange::Remove { id: leader });
        let next = lab.check_one_leader_but(leader);
        lab.commit(5, 2);
        assert_eq!(lab.voters().len(), 2);
        let term = lab.term(next);
        lab.sleep(10 * SECOND);
        assert_eq!(lab.term(next), term, "whoever was removed disturbs nobody");
        assert!(!lab.leads(leader) && !lab.leads(follower));
        lab.commit(1, 2);
    });
}

/// N7: the leader removes itself while clients are at work, and goes on until that is committed by
/// the others (thesis 4.2.2).
#[test]
fn remove_the_leader() {
    each_seed(|seed| {
        let mut lab = lab(seed, 5);
        let mut churners = Churners::new(3);
        churners.run(&mut lab, SECOND);
        for left in [4, 3] {
            let leader = lab.check_one_leader();
            let request = lab
                .world
                .ask(leader, Ask::Change(MembershipChange::Remove { id: leader }));
            churners.run(&mut lab, 2 * SECOND);
            let answer = lab.world.answer_to(request);
            assert!(matches!(answer, Some(Answer::Changed(Ok(_)))), "{answer:?}");
            let next = lab.check_one_leader_but(leader);
            assert!(!lab.leads(leader), "it has stepped down");
            assert_eq!(lab.voters().len(), left);
            assert!(!lab.voters().contains(&leader) && lab.voters().contains(&next));
            // It is switched off, as an operator would.
            lab.crash(leader);
        }
        let last = lab.random();
        lab.one(last, 3, true);
        churners.check(&mut lab);
    });
}

/// N7: a member loses its disk and comes back under a new incarnation: as a learner first, so that
/// what it promised and forgot counts for nothing, then as a voter.
#[test]
fn replace_after_a_lost_disk() {
    each_seed(|seed| {
        let mut lab = lab(seed, 3);
        lab.commit(40, 3);
        for round in 0..3 {
            let leader = lab.check_one_leader();
            let victim = if round == 1 {
                leader
            } else {
                lab.behind(leader, 1)
            };
            lab.world.lose_disk(victim);
            lab.check_one_leader_but(victim);
            lab.commit(5, 2);
            let incarnation = lab.world.format_anew(victim);
            lab.sleep(2 * SECOND);
            lab.change(&MembershipChange::Replace {
                id: victim,
                incarnation,
                address: String::new(),
            });
            assert_eq!(lab.voters().len(), 2, "it has to catch up first");
            lab.await_node(victim);
            lab.change(&MembershipChange::Promote { id: victim });
            lab.commit(5, 3);
            assert_eq!(lab.voters().len(), 3);
        }
    });
}

/// N7, joint: all three voters at once are replaced by three others, which are caught up as
/// learners first. While the change is under way the leader is cut off; whoever leads then finishes
/// what is in its log. In the end either the old ones are the group or the new ones, and the others
/// can be switched off.
#[test]
fn joint_change_of_everybody() {
    each_seed(|seed| {
        let mut lab = lab(seed, 3);
        lab.commit(40, 3);
        let old = lab.ids();
        let new: Vec<_> = (0..3).map(|_| lab.add_learner()).collect();
        new.iter().for_each(|id| lab.await_node(*id));
        let member = |id: &NodeId| {
            let member = Member {
                incarnation: Incarnation(id.0 * 100),
                address: String::new(),
                role: MemberRole::Voter,
            };
            (*id, member)
        };
        let target: BTreeMap<_, _> = new.iter().map(member).collect();
        let leader = lab.check_one_leader();
        lab.world
            .ask(leader, Ask::Change(MembershipChange::Set(target)));
        // Up to 3 ms: at any moment from the entry's arrival to the end of both steps.
        let pause = lab.chance.below(3 * MILLISECOND);
        lab.sleep(pause);
        lab.disconnect(leader);
        lab.check_one_leader_but(leader);
        lab.connect(leader);
        lab.sleep(2 * SECOND);
        let leader = lab.check_one_leader();
        let state = lab.world.state(leader).expect("it runs");
        assert!(!state.membership.is_joint(), "it was finished");
        let voters = lab.voters();
        let others = if voters == new { &old } else { &new };
        assert!(voters == old || voters == new, "{voters:?}");
        others.iter().for_each(|id| lab.crash(*id));
        lab.commit(3, 3);
    });
}

/// N7: members come and go at random while clients are at work, leaders are cut off and everybody
/// crashes now and then.
#[test]
fn members_under_churn() {
    each_seed(|seed| {
        let mut lab = lab(seed, 3);
        let mut churners = Churners::new(2);
        churners.run(&mut lab, SECOND);
        let mut spare = Vec::new();
        for round in 0..12 {
            let voters = lab.voters_of_anybody();
            let change = match round % 4 {
                0 => {
                    let (id, incarnation) = lab.world.add_node();
                    spare.push(id);
                    MembershipChange::AddLearner {
                        id,
                        incarnation,
                        address: String::new(),
                    }
                }
                1 => MembershipChange::Promote {
                    id: *spare.last().expect("added before"),
                },
                _ if voters.len() > 3 => MembershipChange::Remove {
                    id: *lab.chance.pick(&voters),
                },
                _ => MembershipChange::Promote {
                    id: *lab.chance.pick(&voters),
                },
            };
            if let Some(leader) = lab.world.leader() {
                lab.world.ask(leader, Ask::Change(change));
                let pause = lab.chance.below(5);
                churners.run(&mut lab, pause * MILLISECOND);
                match lab.chance.below(4) {
                    0 => lab.disconnect(leader),
                    1 => lab.crash(leader),
                    _ => {}
                }
            }
            churners.run(&mut lab, 700 * MILLISECOND);
            for id in lab.ids() {
                if !lab.world.is_up(id) {
                    lab.start(id);
                }
                lab.connect(id);
            }
            churners.run(&mut lab, 500 * MILLISECOND);
        }
        let settled = lab.sleep_while_not(10 * SECOND, |world| {
            let leader = world.leader().and_then(|id| world.state(id));
            leader.is_some_and(|state| {
                !state.membership.is_joint() && state.membership_index <= state.commit
            })
        });
        assert!(settled, "no change stays half done");
        let voters = lab.voters().len();
        let last = lab.random();
        lab.one(last, voters, true);
        churners.check(&mut lab);
    });
}

impl Lab {
    fn voters_of_anybody(&self) -> Vec<NodeId> {
        // A node that was never added knows of nobody.
        let known = self.ids().into_iter().filter_map(|id| self.world.state(id));
        let known = known.filter(|state| !state.membership.is_empty());
        let newest = known.max_by_key(|state| state.membership_index);
        newest.map_or_else(Vec::new, |state| state.membership.voters().collect())
    }
}

/// N7: what must be refused is, and changes nothing: two changes at once, a promotion of somebody
/// who is not caught up, and changes at somebody who does not lead.
#[test]
fn refused_changes() {
    each_seed(|seed| {
        let mut lab = lab(seed, 3);
        lab.commit(5, 3);
        let leader = lab.check_one_leader();
        let follower = lab.behind(leader, 1);
        let remove = MembershipChange::Remove { id: follower };
        let request = lab.world.ask(follower, Ask::Change(remove.clone()));
        lab.sleep(100 * MILLISECOND);
        assert!(matches!(
            lab.world.answer_to(request),
            Some(Answer::Changed(Err(ChangeError::NotLeader { .. })))
        ));
        let (id, incarnation) = lab.world.add_node();
        lab.disconnect(id);
        lab.change(&MembershipChange::AddLearner {
            id,
            incarnation,
            address: String::new(),
        });
        let refused = lab.try_change(&MembershipChange::Promote { id }, SECOND);
        assert!(
            matches!(refused, Some(Err(ChangeError::Lagging { .. }))),
            "{refused:?}"
        );
        lab.connect(id);
        let both: Vec<_> = (0..2)
            .map(|_| lab.world.ask(leader, Ask::Change(remove.clone())))
            .collect();
        lab.sleep(SECOND);
        assert!(matches!(
            lab.world.answer_to(both[0]),
            Some(Answer::Changed(Ok(_)))
        ));
        assert!(matches!(
            lab.world.answer_to(both[1]),
            Some(Answer::Changed(Err(
                ChangeError::InProgress { .. } | ChangeError::Invalid(_)
            )))
        ));
    });
}

/// N8: leadership goes to whoever it is handed to, within a deadline, with clients at work; nothing
/// that was committed is lost, and the old leader's term ends by it, not by a timeout (S0-36: else
/// the same node tends to win again).
#[test]
fn transfer() {
    each_seed(|seed| {
        let mut lab = lab(seed, 5);
        let mut churners = Churners::new(3);
        let mut leader = lab.check_one_leader();
        for places in [1, 2, 3, 4, 1, 1] {
            churners.run(&mut lab, 300 * MILLISECOND);
            let target = lab.behind(leader, places);
            let request = lab.world.ask(leader, Ask::Transfer(target));
            churners.run(&mut lab, 300 * MILLISECOND);
            assert_eq!(
                lab.world.answer_to(request),
                Some(&Answer::Transferred(Ok(()))),
                "handed over within the shortest deadline"
            );
            assert!(lab.leads(target) && !lab.leads(leader));
            leader = target;
        }
        assert_eq!(lab.transfer(leader, leader), Ok(()), "to itself");
        let last = lab.random();
        lab.one(last, 5, true);
        churners.check(&mut lab);
    });
}

/// N8: a transfer that cannot succeed ends with an error within a deadline or two, and the leader
/// goes on: to a learner, to a stranger, to somebody who is down, or who goes down just then.
#[test]
fn transfer_in_vain() {
    each_seed(|seed| {
        let mut lab = lab(seed, 3);
        lab.commit(3, 3);
        let learner = lab.add_learner();
        lab.await_node(learner);
        let leader = lab.check_one_leader();
        assert_eq!(
            lab.transfer(leader, learner),
            Err(TransferError::NotAVoter(learner))
        );
        assert_eq!(
            lab.transfer(leader, NodeId(9)),
            Err(TransferError::NotAVoter(NodeId(9)))
        );
        let follower = lab.voters().into_iter().find(|id| *id != leader);
        let follower = follower.expect("three voters");
        let refused = lab.transfer(follower, leader);
        assert!(matches!(refused, Err(TransferError::NotLeader { .. })));
        lab.crash(follower);
        lab.sleep(SECOND);
        let refused = lab.transfer(leader, follower);
        assert_eq!(refused, Err(TransferError::Unreachable(follower)));
        lab.start(follower);
        lab.connect(follower);
        lab.sleep(SECOND);
        let begun = lab.world.now();
        let request = lab.world.ask(leader, Ask::Transfer(follower));
        let pause = lab.chance.below(2 * MILLISECOND);
        lab.sleep(pause);
        lab.crash(follower);
        let is_answered =
            lab.sleep_while_not(2 * SECOND, |world| world.answer_to(request).is_some());
        assert!(is_answered, "{} us", lab.world.now() - begun);
        let left = lab.check_one_leader();
        assert_ne!(left, follower);
        lab.commit(3, 3);
    });
}

/// How slow a part of a snapshot is in the tests of transfers.
const PART: Microseconds = 30 * MILLISECOND;

/// A cluster where a snapshot takes a while to travel: up to 12 parts of 30 ms and more.
fn slow_parts(seed: u64) -> (Lab, NodeId, Index) {
    let mut options = Options::calm(seed, 3);
    options.snapshots.entries = 30;
    options.disk.sync_min = PART;
    options.disk.sync_max = PART;
    let mut lab = Lab::with_options(options);
    let leader = lab.check_one_leader();
    let victim = lab.behind(leader, 1);
    lab.disconnect(victim);
    lab.commit(70, 2);
    let committed = lab.world.committed().index;
    (lab, victim, committed)
}

/// Waits until a snapshot is on its way to a node, at most so long.
fn await_transfer(lab: &mut Lab, to: NodeId) -> bool {
    lab.sleep_while_not(3 * SECOND, |world| world.node(to).receiving.is_some())
}

/// N9: a link breaks in the middle of a transfer, again and again: it is resumed where it broke.
#[test]
fn snapshot_over_a_link_that_breaks() {
    let resumed = std::cell::Cell::new(0);
    each_seed(|seed| {
        let (mut lab, victim, committed) = slow_parts(seed);
        lab.connect(victim);
        for _ in 0..5 {
            if await_transfer(&mut lab, victim) {
                let pause = lab.chance.below(4 * PART);
                lab.sleep(pause);
            }
            lab.disconnect(victim);
            lab.sleep(200 * MILLISECOND);
            lab.connect(victim);
        }
        let has_all = lab.sleep_while_not(10 * SECOND, |world| world.applied(victim) >= committed);
        assert!(has_all, "the snapshot gets there");
        lab.commit(1, 3);
        resumed.set(resumed.get() + lab.world.coverage().of(Mark::SnapshotResumed));
    });
    assert!(resumed.get() > 0, "some transfer goes on where it broke");
}

/// N9: the leader changes in the middle of a transfer (but for those of one part, which arrive at
/// once).
#[test]
fn snapshot_while_the_leader_changes() {
    each_seed(|seed| {
        let (mut lab, victim, committed) = slow_parts(seed);
        lab.connect(victim);
        if !await_transfer(&mut lab, victim) {
            assert!(lab.world.coverage().of(Mark::SnapshotDelivered) > 0);
        }
        let pause = lab.chance.below(4 * PART);
        lab.sleep(pause);
        let leader = lab.world.leader().expect("it sends");
        lab.crash(leader);
        lab.sleep(100 * MILLISECOND);
        // Without it there is no majority that has all; it comes back as a follower at first.
        lab.start(leader);
        lab.connect(leader);
        let has_all = lab.sleep_while_not(10 * SECOND, |world| world.applied(victim) >= committed);
        assert!(has_all, "the snapshot of the next leader gets there");
        lab.commit(1, 3);
    });
}

/// N9: the receiver crashes in the middle of a transfer, or while it puts the snapshot in the place
/// of its log; what came is kept, and in the end it has everything.
#[test]
fn snapshot_while_the_receiver_restarts() {
    each_seed(|seed| {
        let (mut lab, victim, committed) = slow_parts(seed);
        lab.connect(victim);
        for _ in 0..3 {
            await_transfer(&mut lab, victim);
            let pause = lab.chance.below(12 * PART);
            lab.sleep(pause);
            lab.restart(victim);
        }
        let has_all = lab.sleep_while_not(10 * SECOND, |world| world.applied(victim) >= committed);
        assert!(has_all, "it has everything in the end");
        lab.commit(1, 3);
    });
}

/// N9: messages are lost and overtake each other while snapshots travel, one after the other,
/// because more is committed all the time.
#[test]
fn snapshot_over_a_bad_network() {
    each_seed(|seed| {
        let (mut lab, victim, _) = slow_parts(seed);
        lab.set_unreliable(true);
        lab.connect(victim);
        let mut churners = Churners::new(2);
        churners.run(&mut lab, 5 * SECOND);
        lab.set_unreliable(false);
        lab.commit(1, 3);
        churners.check(&mut lab);
    });
}

/// N7: one voter and a learner that is down: the learner is in nobody's quorum.
#[test]
fn a_learner_alone_changes_no_quorum() {
    each_seed(|seed| {
        let mut lab = lab(seed, 1);
        lab.one(number(1), 1, false);
        let learner = lab.add_learner();
        lab.await_node(learner);
        lab.crash(learner);
        lab.one(number(2), 1, false);
    });
}
