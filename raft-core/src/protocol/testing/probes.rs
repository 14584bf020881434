//! How many appends are rejected before a follower is in step: none where its vote gave a hint and
//! its log is a prefix, one where it is only short, at most one for each wrong term it has.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Cluster;
use super::disk::Disk;
use crate::protocol::Input;
use crate::types::NodeId;

const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(3);

/// n1 leads with the vote of n2, whose log is the same. n3 has another log and is not heard before
/// the leader has committed. Returns the number of appends that n3 rejects until it is in step.
fn rejections(leader: &[u64], follower: &[u64], heard: bool) -> u64 {
    let logs = [(1, leader), (2, leader), (3, follower)];
    let mut disks: BTreeMap<_, _> = logs
        .into_iter()
        .map(|(id, terms)| (NodeId(id), Disk::with_terms(terms)))
        .collect();
    Disk::share_newest_term(&mut disks);
    let mut cluster = Cluster::new(disks, 3);
    if !heard {
        for other in [NodeId(1), NodeId(2)] {
            cluster.cut.extend([(FOLLOWER, other), (other, FOLLOWER)]);
        }
    }
    cluster.campaign(LEADER);
    cluster.stabilize();
    assert_eq!(cluster.leader(), Some(LEADER));
    cluster.cut.clear();
    for _ in 0..40 {
        cluster.step(LEADER, Input::Tick);
        cluster.stabilize();
    }
    let (held, wanted) = (
        &cluster.node(FOLLOWER).disk.entries,
        &cluster.node(LEADER).disk.entries,
    );
    assert_eq!(held, wanted, "the follower is in step");
    cluster.rejections
}

#[test]
fn a_voter_whose_log_is_a_prefix_rejects_nothing() {
    for length in 0..=6 {
        let leader = [1, 1, 2, 2, 2, 4];
        assert_eq!(
            rejections(&leader, &leader[..length], true),
            0,
            "{length} entries"
        );
    }
}

#[test]
fn a_short_follower_without_a_hint_rejects_at_most_once() {
    for length in 0..=6 {
        let leader = [1, 1, 2, 2, 2, 4];
        assert!(
            rejections(&leader, &leader[..length], false) <= 1,
            "{length} entries"
        );
    }
}

#[test]
fn ten_thousand_entries_over_fifty_wrong_terms_take_at_most_fifty_rejections() {
    // Every second term was lost by the follower, every other one by the leader.
    let mut leader = vec![1; 100];
    let mut follower = vec![1; 100];
    for term in 2..102 {
        let log = if term % 2 == 0 {
            &mut follower
        } else {
            &mut leader
        };
        log.extend(vec![term; 200]);
    }
    assert!(rejections(&leader, &follower, false) <= 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_diverged_follower_rejects_at_most_once_for_each_wrong_term(
        common in prop::collection::vec(1u64..4, 0..6),
        wrong in prop::collection::vec((4u64..14, 1usize..5), 0..6),
        right in prop::collection::vec((4u64..14, 1usize..5), 1..6),
        heard in any::<bool>(),
    ) {
        let mut common = common;
        common.sort_unstable();
        // A term has one leader, so only one of the two logs can have got entries from it.
        let runs = |list: Vec<(u64, usize)>, parity: u64| {
            let mut list: Vec<_> =
                list.into_iter().map(|(term, count)| (term * 2 + parity, count)).collect();
            list.sort_unstable();
            list.dedup_by_key(|(term, _)| *term);
            list
        };
        let (wrong, right) = (runs(wrong, 0), runs(right, 1));
        let log = |runs: &[(u64, usize)]| {
            let tail = runs.iter().flat_map(|(term, count)| vec![*term; *count]);
            common.iter().copied().chain(tail).collect::<Vec<_>>()
        };
        // The leader's log is the newer one, so that it can win.
        let newest = wrong.last().map_or(0, |(term, _)| *term);
        let mut right = right;
        if right.last().is_none_or(|(term, _)| *term < newest) {
            right.push((newest + 1, 1));
        }
        let wrong_terms = wrong.len() as u64;
        let rejected = rejections(&log(&right), &log(&wrong), heard);
        prop_assert!(rejected <= wrong_terms.max(1), "{rejected} for {wrong_terms} wrong terms");
        if heard && wrong_terms == 0 {
            prop_assert_eq!(rejected, 0);
        }
    }
}
