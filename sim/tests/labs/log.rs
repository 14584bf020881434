//! Section 5B: agreement on a log.

use raft_core::NodeId;

use crate::harness::{Lab, SECOND, each_seed, number};

/// Three commands, each applied by all within 2 s of the first attempt, as the 1st, 2nd and 3rd
/// command (P1: their indexes are one higher, because the leader begins with an entry of its own).
#[test]
fn basic_agree() {
    each_seed(|seed| {
        for size in [3, 5] {
            let mut lab = Lab::new(seed, size);
            let everybody = lab.size();
            for ordinal in 1..=3 {
                assert_eq!(
                    lab.commands(),
                    ordinal - 1,
                    "applied before it was proposed"
                );
                lab.check_one_leader();
                let index = lab.one(number(ordinal * 100), everybody, false);
                assert_eq!(lab.ordinal(index), ordinal);
            }
            lab.end();
        }
    });
}

/// Ten commands of 5,000 bytes: each is sent to each peer once. The course allows 3 x 50,000 +
/// 50,000 bytes, which includes one copy from client to leader; there is none here, so the same
/// bound leaves room for one superfluous copy, and the exact one is asserted too: two copies, a
/// header of 32 bytes with each, and heartbeats and answers of 64 bytes.
#[test]
fn rpc_bytes() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.check_one_leader();
        lab.one(number(99), 3, false);
        let before = lab.world.traffic().bytes;
        let mut sent = 0;
        for ordinal in 2..=11 {
            let command: Vec<u8> = (0..5_000).map(|_| lab.chance.next() as u8).collect();
            sent += command.len() as u64;
            let index = lab.one(command, 3, false);
            assert_eq!(lab.ordinal(index), ordinal);
        }
        let used = lab.world.traffic().bytes - before;
        assert!(used <= 3 * sent + 50_000, "{used} bytes for {sent}");
        assert!(used <= 2 * sent + 20_000, "{used} bytes for {sent}");
        lab.end();
    });
}

/// A leader that loses its followers one by one: with one it commits, with none it accepts the 4th
/// command and nobody ever applies it (P2: it is asked at once, before check-quorum ends its
/// leadership).
#[test]
fn follower_failure() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.one(number(101), 3, false);
        let leader = lab.check_one_leader();
        lab.disconnect(lab.behind(leader, 1));
        lab.one(number(102), 2, false);
        lab.sleep(SECOND);
        let third = lab.one(number(103), 2, false);
        let leader = lab.check_one_leader();
        lab.disconnect(lab.behind(leader, 1));
        lab.disconnect(lab.behind(leader, 2));
        let at = lab.propose(leader, number(104)).expect("it still leads");
        assert_eq!(at.index, third.next(), "the 4th command");
        lab.sleep(2 * SECOND);
        assert_eq!(lab.n_committed(at.index), 0, "without a majority");
        assert_eq!(lab.commands(), 3);
        lab.end();
    });
}

/// Leaders fail one by one: with two nodes left commands are committed, with one none is, whoever
/// is asked.
#[test]
fn leader_failure() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.one(number(101), 3, false);
        let first = lab.check_one_leader();
        lab.disconnect(first);
        lab.one(number(102), 2, false);
        lab.sleep(SECOND);
        let third = lab.one(number(103), 2, false);
        let second = lab.check_one_leader();
        lab.disconnect(second);
        for id in lab.ids() {
            lab.propose(id, number(104));
        }
        lab.sleep(2 * SECOND);
        assert_eq!(lab.n_committed(third.next()), 0, "without a majority");
        assert_eq!(lab.commands(), 3);
        lab.end();
    });
}

/// A follower misses four commands, rejoins and has them all. Its term has not grown meanwhile, and
/// its return costs no election (P3).
#[test]
fn fail_agree() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.one(number(101), 3, false);
        let leader = lab.check_one_leader();
        let follower = lab.behind(leader, 1);
        lab.disconnect(follower);
        lab.one(number(102), 2, false);
        lab.one(number(103), 2, false);
        lab.sleep(SECOND);
        lab.one(number(104), 2, false);
        lab.one(number(105), 2, false);
        let term = lab.term(leader);
        lab.connect(follower);
        lab.one(number(106), 3, true);
        lab.sleep(SECOND);
        lab.one(number(107), 3, true);
        assert_eq!(lab.check_terms(), term, "the return cost an election");
        assert_eq!(lab.applied(), (101..=107).map(number).collect::<Vec<_>>());
        lab.end();
    });
}

/// Without a majority nothing is committed; with it again the next command is the 2nd, or the 3rd
/// where the one that was not committed survived.
#[test]
fn fail_no_agree() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 5);
        let first = lab.one(number(10), 5, false);
        let leader = lab.check_one_leader();
        let followers = [1, 2, 3].map(|places| lab.behind(leader, places));
        followers.iter().for_each(|id| lab.disconnect(*id));
        let at = lab.propose(leader, number(20)).expect("it still leads");
        assert_eq!(at.index, first.next(), "the 2nd command");
        lab.sleep(2 * SECOND);
        assert_eq!(lab.n_committed(at.index), 0, "without a majority");
        assert_eq!(lab.commands(), 1);
        followers.iter().for_each(|id| lab.connect(*id));
        let leader = lab.check_one_leader();
        let at = lab.propose(leader, number(30)).expect("it leads");
        lab.one(number(1_000), 5, false);
        let ordinal = lab.ordinal(at.index);
        assert!((2..=3).contains(&ordinal), "the command is the {ordinal}th");
        assert!(lab.is_at(at.index, &number(30)));
        lab.end();
    });
}

/// Five commands at one moment: all reach a leader before it has done anything about the first.
/// They are all applied, each once, by everybody. Tried again where the term changed.
#[test]
fn concurrent_starts() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        for attempt in 0.. {
            assert!(attempt < 5, "the term changed too often");
            if attempt > 0 {
                lab.sleep(3 * SECOND);
            }
            let leader = lab.check_one_leader();
            let term = lab.term(leader);
            if lab.propose(leader, number(1)).is_none() {
                continue;
            }
            let values: Vec<_> = (0..5).map(|n| number(100 + attempt * 10 + n)).collect();
            let asked: Vec<_> = values
                .iter()
                .map(|value| lab.ask(leader, value.clone()))
                .collect();
            lab.sleep(2 * SECOND);
            if lab.ids().iter().any(|id| lab.term(*id) != term) {
                continue;
            }
            let mut indexes = Vec::new();
            for (request, value) in asked.into_iter().zip(&values) {
                let index = lab.applied_at(request).expect("the term did not change");
                assert!(lab.is_at(index, value));
                assert_eq!(lab.n_committed(index), 3);
                indexes.push(index);
            }
            indexes.dedup();
            assert_eq!(indexes.len(), 5, "each has its own index");
            break;
        }
        lab.end();
    });
}

/// A leader with commands that nobody else has rejoins when another one has gone on: what it had
/// alone is replaced, and everybody agrees.
#[test]
fn rejoin() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.one(number(101), 3, true);
        let first = lab.check_one_leader();
        lab.disconnect(first);
        for value in 102..=104 {
            lab.propose(first, number(value)).expect("it still leads");
        }
        lab.one(number(103), 2, true);
        let second = lab.check_one_leader();
        lab.disconnect(second);
        lab.connect(first);
        lab.one(number(104), 2, true);
        lab.connect(second);
        lab.one(number(105), 3, true);
        let mut applied = lab.applied();
        // One that had to be proposed twice may be there twice.
        applied.dedup();
        assert_eq!(applied, [101, 103, 104, 105].map(number));
        lab.end();
    });
}

/// Many commands that two leaders never committed, one after the other, have to go quickly: every
/// one of the hundred commands afterwards has its 10 s, and the test its 120.
#[test]
fn backup() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 5);
        let first = lab.random();
        lab.one(first, 5, true);
        let leader = lab.check_one_leader();
        for places in 2..=4 {
            lab.disconnect(lab.behind(leader, places));
        }
        propose_in_vain(&mut lab, leader);
        lab.sleep(SECOND / 2);
        lab.disconnect(leader);
        lab.disconnect(lab.behind(leader, 1));
        for places in 2..=4 {
            lab.connect(lab.behind(leader, places));
        }
        commit_fifty(&mut lab);
        let second = lab.check_one_leader();
        let mut other = lab.behind(leader, 2);
        if other == second {
            other = lab.behind(second, 1);
        }
        lab.disconnect(other);
        propose_in_vain(&mut lab, second);
        lab.sleep(SECOND / 2);
        for id in lab.ids() {
            lab.disconnect(id);
        }
        for id in [leader, lab.behind(leader, 1), other] {
            lab.connect(id);
        }
        commit_fifty(&mut lab);
        for id in lab.ids() {
            lab.connect(id);
        }
        let last = lab.random();
        lab.one(last, 5, true);
        assert!(lab.commands() >= 102);
        lab.end();
    });
}

/// Fifty commands at a leader that cannot commit them; the first is accepted at least.
fn propose_in_vain(lab: &mut Lab, leader: NodeId) {
    for _ in 0..50 {
        let command = lab.random();
        lab.propose(leader, command).expect("it still leads");
    }
}

fn commit_fifty(lab: &mut Lab) {
    for _ in 0..50 {
        let command = lab.random();
        lab.one(command, 3, true);
    }
}

/// How many messages things cost. A call of the course is a request and its reply, so each of its
/// bounds is twice as many messages: 1 to 30 calls for the election, (10 + 1 + 3) x 3 calls for
/// twelve commands back to back, and 3 x 20 calls in an idle second. The commands are proposed one
/// by one, each in a turn of its own: the case without any batching by the driver.
#[test]
fn count() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        lab.check_one_leader();
        let election = lab.world.traffic().messages;
        assert!(
            (2..=30 * 2).contains(&election),
            "{election} messages for the first leader"
        );
        for attempt in 0.. {
            assert!(attempt < 5, "the term changed too often");
            if attempt > 0 {
                lab.sleep(3 * SECOND);
            }
            let leader = lab.check_one_leader();
            let before = lab.world.traffic().messages;
            let term = lab.term(leader);
            let Some(first) = lab.propose(leader, number(1)) else {
                continue;
            };
            let commands: Vec<_> = (0..11).map(|_| lab.random()).collect();
            let mut expected = first.index;
            let mut moved_on = false;
            for command in &commands {
                let Some(at) = lab.propose(leader, command.clone()) else {
                    moved_on = true;
                    break;
                };
                expected = expected.next();
                assert_eq!(at.index, expected, "proposed one after the other");
            }
            let mut index = first.index;
            for command in commands.iter().take(10) {
                index = index.next();
                match lab.wait(index, 3, Some(term)) {
                    Some(payload) if !moved_on => assert_eq!(&payload, command),
                    _ => moved_on = true,
                }
            }
            if moved_on || lab.ids().iter().any(|id| lab.term(*id) != term) {
                continue;
            }
            let spent = lab.world.traffic().messages - before;
            assert!(
                spent <= (10 + 1 + 3) * 3 * 2,
                "{spent} messages for 12 commands"
            );
            break;
        }
        lab.sleep(SECOND);
        let before = lab.world.traffic().messages;
        lab.sleep(SECOND);
        let idle = lab.world.traffic().messages - before;
        assert!(idle <= 3 * 20 * 2, "{idle} messages in an idle second");
        lab.end();
    });
}
