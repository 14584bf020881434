//! Section 5A: elections.

use raft_core::Term;

use crate::harness::{Lab, MILLISECOND, SECOND, each_seed, number};

/// One leader, one term everywhere, and both are still the same 2 s later. The course only warns
/// when the term changed; here that fails, and goes on to fail for 100 s (W1; ten minutes
/// are in `stable_leader`).
#[test]
fn initial_election() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        let leader = lab.check_one_leader();
        lab.sleep(50 * MILLISECOND);
        let term = lab.check_terms();
        assert!(term >= Term(1));
        lab.sleep(2 * SECOND);
        assert_eq!(
            lab.check_terms(),
            term,
            "the term changed without a failure"
        );
        assert_eq!(lab.check_one_leader(), leader);
        lab.sleep(100 * SECOND);
        assert_eq!(
            lab.check_terms(),
            term,
            "the term changed without a failure"
        );
        assert_eq!(lab.check_one_leader(), leader);
        lab.end();
    });
}

/// A new leader after each failure, none without a quorum, and one again with it. Whoever was cut
/// off is in the term in which it was cut when it comes back (P3, checked by `Lab::connect`), so
/// the old leader that rejoins does not even cost an election: the new one goes on.
#[test]
fn re_election() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        let first = lab.check_one_leader();
        lab.disconnect(first);
        let second = lab.check_one_leader();
        let term = lab.term(second);
        lab.connect(first);
        assert_eq!(lab.check_one_leader(), second);
        assert_eq!(
            lab.check_terms(),
            term,
            "a node that rejoined disturbed the leader"
        );
        lab.disconnect(second);
        lab.disconnect(lab.behind(second, 1));
        lab.sleep(2 * SECOND);
        lab.check_no_leader();
        lab.connect(lab.behind(second, 1));
        lab.check_one_leader();
        lab.connect(second);
        lab.check_one_leader();
        lab.end();
    });
}

/// Nine times three of seven are cut off, perhaps fewer where one is drawn twice: one leader each
/// time, and nobody's term grows alone (P3).
#[test]
fn many_elections() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 7);
        lab.check_one_leader();
        for _ in 0..9 {
            let drawn = [lab.any(), lab.any(), lab.any()];
            drawn.iter().for_each(|id| lab.disconnect(*id));
            lab.check_one_leader();
            drawn.iter().for_each(|id| lab.connect(*id));
        }
        lab.check_one_leader();
        lab.end();
    });
}

/// Sizes that the course never tries (W5): one, two, four and six. Each agrees with as many cut
/// off as a majority can spare, has no leader and commits nothing with one more, and agrees again
/// afterwards.
#[test]
fn even_sizes_and_one() {
    each_seed(|seed| {
        for size in [1, 2, 4, 6] {
            let mut lab = Lab::new(seed, size);
            let leader = lab.check_one_leader();
            let everybody = lab.size();
            lab.one(number(1), everybody, false);
            let spare = (size - 1) / 2;
            for places in 1..=spare {
                lab.disconnect(lab.behind(leader, places));
            }
            let left = everybody - usize::try_from(spare).expect("small");
            lab.one(number(2), left, false);
            if size > 1 {
                lab.disconnect(lab.behind(leader, spare + 1));
                let at = lab.propose(leader, number(3)).expect("it still leads");
                lab.sleep(2 * SECOND);
                lab.check_no_leader();
                assert_eq!(lab.n_committed(at.index), 0, "without a majority");
            }
            for places in 1..=spare + 1 {
                lab.connect(lab.behind(leader, places));
            }
            lab.check_one_leader();
            lab.one(number(4), everybody, true);
            lab.end();
        }
    });
}
