//! What may fail at once. Only faults that the protocol promises to survive are injected, so every
//! failure is a bug (TigerBeetle calls this the atlas).
//!
//! Crashes, pauses, cuts and lost messages never endanger what is committed, however many there
//! are; they only stop progress, and the liveness phase ends them. A disk that is lost for good is
//! different: it takes promises with it. And a lease trusts clocks, so none jumps where leases are.

use raft_core::{Incarnation, Membership, NodeId};

/// Whether a majority of each half of a membership still has the disk that it was formatted with.
/// `has_disk` says so of a member and its incarnation.
pub(crate) fn has_quorum_of_disks(
    membership: &Membership,
    has_disk: impl Fn(NodeId, Incarnation) -> bool,
) -> bool {
    halves(membership).iter().all(|half| {
        let left = half.iter().filter(|(id, life)| has_disk(*id, *life));
        half.is_empty() || left.count() * 2 > half.len()
    })
}

/// The voters of both halves of a membership, with their incarnations; the second is empty where no
/// change is under way.
pub(crate) fn halves(membership: &Membership) -> [Vec<(NodeId, Incarnation)>; 2] {
    let members = membership.members();
    let voters = membership.voters().map(|id| (id, members[&id].incarnation));
    let outgoing = membership.outgoing().iter();
    let outgoing = outgoing.map(|(id, member)| (*id, member.incarnation));
    [voters.collect(), outgoing.collect()]
}

#[cfg(test)]
mod tests {
    use raft_core::{Member, MemberRole};

    use super::*;

    fn of(ids: std::ops::RangeInclusive<u64>) -> std::collections::BTreeMap<NodeId, Member> {
        let member = |id| Member {
            incarnation: Incarnation(id),
            address: String::new(),
            role: MemberRole::Voter,
        };
        ids.map(|id| (NodeId(id), member(id))).collect()
    }

    #[test]
    fn a_majority_of_disks_is_always_left() {
        for voters in 1..=9 {
            let membership = Membership::new(of(1..=voters)).expect("valid");
            for lost in 0..=voters {
                let quorum = has_quorum_of_disks(&membership, |id, _| id.0 > lost);
                assert_eq!(quorum, (voters - lost) * 2 > voters, "{lost} of {voters}");
            }
        }
    }

    #[test]
    fn both_halves_of_a_joint_membership_need_one() {
        let joint = Membership::joint(of(1..=3), of(3..=5)).expect("valid");
        let with = |ids: &[u64]| has_quorum_of_disks(&joint, |id, _| ids.contains(&id.0));
        assert!(with(&[1, 2, 3, 4]));
        assert!(!with(&[1, 2, 3]) && !with(&[3, 4, 5]));
        assert!(!has_quorum_of_disks(&joint, |_, life| life == Incarnation(0)));
    }
}
