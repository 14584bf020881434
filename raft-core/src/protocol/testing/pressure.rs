//! What slows clients down before anything grows without bound, and what a state machine is given
//! at once.

use super::support::{isolate, led, propose, settle, state};
use crate::error::ProposeError;
use crate::protocol::Input;
use crate::types::NodeId;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn busy(limit_name: &'static str, limit: usize) -> ProposeError {
    ProposeError::Busy { limit_name, limit }
}

#[test]
fn proposals_wait_once_too_many_bytes_are_not_committed() {
    let mut cluster = led(3);
    cluster.limits.proposal_bytes_max = 1000;
    cluster.limits.uncommitted_bytes_max = 4096;
    cluster.restart_all();
    super::support::lead(&mut cluster, A);
    isolate(&mut cluster, A);
    cluster.answers.proposed.clear();
    let text = "x".repeat(1000);
    (0..6).for_each(|_| cluster.propose(A, &text));
    let (taken, refused): (Vec<_>, Vec<_>) =
        cluster.answers.proposed.drain(..).partition(Result::is_ok);
    assert_eq!((taken.len(), refused.len()), (4, 2));
    let wanted = Err(busy("uncommitted_bytes_max", 4096));
    assert!(refused.iter().all(|refused| *refused == wanted));
    cluster.cut.clear();
    settle(&mut cluster, A);
    propose(&mut cluster, A, 1);
    assert!(
        cluster.answers.proposed[0].is_ok(),
        "once that is committed"
    );
}

#[test]
fn proposals_wait_once_nothing_was_committed_for_too_long() {
    // B answers heartbeats, so that A leads on, but takes no entries.
    let mut cluster = led(3);
    cluster.limits.uncommitted_ticks_max = 50;
    cluster.restart_all();
    super::support::lead(&mut cluster, A);
    cluster.crash(C, 0);
    // A long rest before is nobody's fault.
    settle(&mut cluster, A);
    settle(&mut cluster, A);
    for tick in 0..200 {
        cluster.answers.proposed.clear();
        if tick % 10 == 0 {
            cluster.propose(A, "x");
            let taken = cluster.answers.proposed[0].clone();
            match taken {
                Ok(_) => assert!(tick <= 50, "after {tick} ticks"),
                Err(error) => {
                    assert!(tick > 50, "after {tick} ticks");
                    assert_eq!(error, busy("uncommitted_ticks_max", 50));
                }
            }
        }
        cluster.step(A, Input::Tick);
        while cluster.persist(A) {}
        cluster.network.retain(|e| !e.message.is_bulk());
        while !cluster.network.is_empty() {
            cluster.deliver(0);
            cluster.network.retain(|e| !e.message.is_bulk());
        }
    }
    assert_eq!(cluster.leader(), Some(A));
    for _ in 0..5 {
        settle(&mut cluster, A);
    }
    assert_eq!(state(&cluster, B).commit, state(&cluster, A).last.index);
    cluster.answers.proposed.clear();
    propose(&mut cluster, A, 1);
    assert!(
        cluster.answers.proposed[0].is_ok(),
        "once that is committed"
    );
}

#[test]
fn a_state_machine_is_given_a_page_at_a_time() {
    for tail_bytes_max in [0, 1 << 20] {
        let mut cluster = led(1);
        cluster.limits.apply_bytes_max = 4096;
        cluster.limits.tail_bytes_max = tail_bytes_max;
        cluster.restart_all();
        super::support::lead(&mut cluster, A);
        cluster.is_apply_slow = true;
        let text = "x".repeat(1000);
        for _ in 0..20 {
            cluster.propose(A, &text);
            while cluster.persist(A) {}
        }
        let mut pages = 0;
        loop {
            let waiting = cluster.node(A).work.len();
            if waiting == 0 {
                break;
            }
            assert!(waiting <= 5, "{waiting} pages wait");
            let before = state(&cluster, A).applied;
            assert!(cluster.work(A));
            let applied = state(&cluster, A).applied.0 - before.0;
            if tail_bytes_max > 0 {
                assert!(
                    applied <= 4,
                    "{applied} entries of a thousand bytes at once"
                );
            }
            pages += 1;
        }
        assert!(pages > 1, "{pages}");
        let end = state(&cluster, A);
        assert_eq!(end.applied, end.last.index);
    }
}
