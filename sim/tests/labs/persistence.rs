//! Section 5C: persistence. A crash here is a loss of power: whatever the disk had not synced is
//! gone, where the course copies everything that was ever saved.

use bytes::Bytes;
use raft_core::{Index, NodeId};
use sim::Microseconds;

use crate::harness::{Churners, Lab, MILLISECOND, SECOND, each_seed, number};

/// Everybody, the leader, and a follower crash, one after the other, and what was committed stays.
#[test]
fn persist1() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.one(number(11), 3, true);
        lab.crash_and_start_all();
        lab.one(number(12), 3, true);
        let leader = lab.check_one_leader();
        lab.restart(leader);
        lab.one(number(13), 3, true);
        let leader = lab.check_one_leader();
        lab.disconnect(leader);
        let fourth = lab.one(number(14), 2, true);
        lab.start(leader);
        lab.connect(leader);
        lab.wait(fourth, 3, None);
        let leader = lab.check_one_leader();
        let follower = lab.behind(leader, 1);
        lab.disconnect(follower);
        lab.one(number(15), 2, true);
        lab.start(follower);
        lab.connect(follower);
        lab.one(number(16), 3, true);
        let mut applied = lab.applied();
        applied.dedup();
        assert_eq!(applied, (11..=16).map(number).collect::<Vec<_>>());
        lab.end();
    });
}

/// Five times: three of five commit something that two never saw, and crash; of the two and one of
/// the three only that one can lead, because its log is the longest.
#[test]
fn persist2() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 5);
        let mut value = 1;
        for _ in 0..5 {
            lab.one(number(10 + value), 5, true);
            value += 1;
            let leader = lab.check_one_leader();
            let others = [1, 2, 3, 4].map(|places| lab.behind(leader, places));
            lab.disconnect(others[0]);
            lab.disconnect(others[1]);
            let index = lab.one(number(10 + value), 3, true);
            value += 1;
            lab.disconnect(leader);
            lab.disconnect(others[2]);
            lab.disconnect(others[3]);
            for id in [others[0], others[1]] {
                lab.start(id);
                lab.connect(id);
            }
            lab.sleep(SECOND);
            lab.check_no_leader();
            lab.start(others[2]);
            lab.connect(others[2]);
            lab.one(number(10 + value), 3, true);
            value += 1;
            assert!(lab.n_committed(index) >= 3, "the long log won");
            lab.connect(others[3]);
            lab.connect(leader);
        }
        lab.one(number(1_000), 5, true);
        lab.end();
    });
}

/// The node that was cut off and the old leader, started anew, go on together: the second command
/// is only on one of them.
#[test]
fn persist3() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.one(number(101), 3, true);
        let leader = lab.check_one_leader();
        let (second, third) = (lab.behind(leader, 1), lab.behind(leader, 2));
        lab.disconnect(third);
        lab.one(number(102), 2, true);
        lab.crash(leader);
        lab.crash(second);
        lab.connect(third);
        lab.start(leader);
        lab.connect(leader);
        lab.one(number(103), 2, true);
        lab.start(second);
        lab.connect(second);
        lab.one(number(104), 3, true);
        let mut applied = lab.applied();
        applied.dedup();
        assert_eq!(applied, (101..=104).map(number).collect::<Vec<_>>());
        lab.end();
    });
}

/// The pause of a round: one of ten is up to half a second, enough for an election, the others are
/// up to 12 ms, enough for a message or two.
fn pause(lab: &mut Lab) -> Microseconds {
    let longest = if lab.chance.chance(100) { 499 } else { 12 };
    lab.chance.between(0, longest) * MILLISECOND
}

/// Paper figure 8: leaders propose and crash, most of them before they could commit; so there are
/// entries of old terms on majorities all the time, which must not count as committed. A thousand
/// rounds, then all come back and agree within 10 s.
#[test]
fn figure8() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 5);
        let first = lab.random();
        lab.one(first, 1, true);
        for _ in 0..1_000 {
            let mut leader = None;
            for id in lab.ids() {
                let command = lab.random();
                if lab.world.is_up(id) && lab.propose(id, command).is_some() {
                    leader = Some(id);
                }
            }
            let pause = pause(&mut lab);
            lab.sleep(pause);
            if let Some(leader) = leader {
                lab.crash(leader);
            }
            if lab.connected().len() < 3 {
                let id = lab.any();
                if !lab.world.is_up(id) {
                    lab.start(id);
                    lab.connect(id);
                }
            }
        }
        for id in lab.ids() {
            if !lab.world.is_up(id) {
                lab.start(id);
                lab.connect(id);
            }
        }
        let last = lab.random();
        lab.one(last, 5, true);
        lab.end();
    });
}

/// One `one` of several that are under way at the same time, each at its own pace.
struct Attempt {
    command: Bytes,
    ends_at: Microseconds,
    wakes_at: Microseconds,
    /// Where it was proposed, and until when it is waited for.
    proposed: Option<(Index, Microseconds)>,
}

impl Attempt {
    fn new(lab: &Lab, command: Bytes) -> Self {
        let now = lab.world.now();
        Self {
            command,
            ends_at: now + 10 * SECOND,
            wakes_at: now,
            proposed: None,
        }
    }

    /// Does what `Lab::one` would do now. Says whether it is done.
    fn step(&mut self, lab: &mut Lab) -> bool {
        let now = lab.world.now();
        if let Some((index, _)) = self.proposed
            && lab.n_committed(index) >= 1
            && lab.is_at(index, &self.command)
        {
            return true;
        }
        if now >= self.ends_at {
            lab.fail(&format!("{:?} did not reach agreement", self.command));
        }
        if self.proposed.is_none_or(|(_, until)| now >= until) {
            let placed = lab.propose_anywhere(&self.command);
            self.proposed = placed.map(|at| (at.index, now + 2 * SECOND));
        }
        let pause = if self.proposed.is_some() { 20 } else { 50 };
        self.wakes_at = now + pause * MILLISECOND;
        false
    }
}

/// Finishes attempts side by side, until none is left or one is due later than `until`.
fn advance(lab: &mut Lab, attempts: &mut Vec<Attempt>, until: Option<Microseconds>) {
    while let Some(wakes_at) = attempts.iter().map(|attempt| attempt.wakes_at).min() {
        if until.is_some_and(|until| wakes_at > until) {
            break;
        }
        lab.sleep(wakes_at.saturating_sub(lab.world.now()));
        attempts.retain_mut(|attempt| attempt.wakes_at > wakes_at || !attempt.step(lab));
    }
    if let Some(until) = until {
        lab.sleep(until.saturating_sub(lab.world.now()));
    }
}

/// A network that loses one of ten messages each way: in 49 rounds four commands are left to
/// themselves and a fifth is waited for; all of the 246 are applied.
#[test]
fn unreliable_agree() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 5);
        lab.set_unreliable(true);
        let mut behind = Vec::new();
        for round in 1..50 {
            for place in 0..4 {
                behind.push(Attempt::new(&lab, number(100 * round + place)));
            }
            let awaited = number(1_000_000 + round);
            let mut waited = Attempt::new(&lab, awaited);
            while !waited.step(&mut lab) {
                let until = waited.wakes_at;
                advance(&mut lab, &mut behind, Some(until));
            }
        }
        lab.set_unreliable(false);
        advance(&mut lab, &mut behind, None);
        let index = lab.one(number(100), 5, true);
        assert!(lab.ordinal(index) >= 246);
        let applied = lab.applied();
        for round in 1..50 {
            for value in (0..4).map(|n| 100 * round + n).chain([1_000_000 + round]) {
                assert!(applied.contains(&number(value)), "{value} was applied");
            }
        }
        lab.end();
    });
}

/// As `figure8`, but leaders are cut off instead of losing power, the network loses messages, and
/// from the 200th round on two of three replies are up to 2.2 s late, so that they come from terms
/// long gone. Even so all agree within 10 s in the end.
#[test]
fn figure8_unreliable() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 5);
        lab.set_unreliable(true);
        let first = lab.random();
        lab.one(first, 1, true);
        for round in 0..1_000 {
            if round == 200 {
                lab.set_long_reordering(true);
            }
            let mut leader = None;
            for id in lab.ids() {
                let command = lab.random();
                if lab.propose(id, command).is_some() && lab.is_connected(id) {
                    leader = Some(id);
                }
            }
            let pause = pause(&mut lab);
            lab.sleep(pause);
            if let Some(leader) = leader
                && lab.chance.chance(500)
            {
                lab.disconnect(leader);
            }
            if lab.connected().len() < 3 {
                let id = lab.any();
                lab.connect(id);
            }
        }
        for id in lab.ids() {
            lab.connect(id);
        }
        let last = lab.random();
        lab.one(last, 5, true);
        lab.end();
    });
}

/// Nodes are cut off, crash and come back every 700 ms while three clients propose: whatever one of
/// them saw applied is there in the end, and every index is applied by all five.
fn churn(seed: u64, unreliable: bool) {
    let mut lab = Lab::new(seed, 5);
    lab.set_unreliable(unreliable);
    let mut churners = Churners::new(3);
    for _ in 0..20 {
        if lab.chance.chance(200) {
            let id = lab.any();
            lab.disconnect(id);
        }
        if lab.chance.chance(500) {
            let id = lab.any();
            if !lab.world.is_up(id) {
                lab.start(id);
            }
            lab.connect(id);
        }
        if lab.chance.chance(200) {
            let id = lab.any();
            if lab.world.is_up(id) {
                lab.crash(id);
            }
        }
        churners.run(&mut lab, 700 * MILLISECOND);
    }
    churners.run(&mut lab, SECOND);
    lab.set_unreliable(false);
    for id in lab.ids() {
        if !lab.world.is_up(id) {
            lab.start(id);
        }
        lab.connect(id);
    }
    lab.sleep(SECOND);
    let last = lab.random();
    let last = lab.one(last, 5, true);
    for index in 1..=last.0 {
        assert_eq!(lab.n_committed(Index(index)), 5, "index {index}");
    }
    churners.check(&mut lab);
    lab.end();
}

/// See [`churn`].
#[test]
fn reliable_churn() {
    each_seed(|seed| churn(seed, false));
}

/// See [`churn`].
#[test]
fn unreliable_churn() {
    each_seed(|seed| churn(seed, true));
}

impl Lab {
    /// All crash, then all come back.
    fn crash_and_start_all(&mut self) {
        let ids: Vec<NodeId> = self.ids();
        ids.iter().for_each(|id| self.crash(*id));
        ids.iter().for_each(|id| self.start(*id));
        ids.iter().for_each(|id| self.connect(*id));
    }
}
