//! The memberships that the log holds. One takes effect when its entry is appended and goes
//! when the entry is truncated (paper section 6), so all are kept that can still come back.
//!
//! Invariants: never empty; indexes ascend; the first is that of the log's beginning.

use crate::membership::Membership;
use crate::types::Index;

#[derive(Debug)]
pub(crate) struct Configurations {
    list: Vec<(Index, Membership)>,
}

impl Configurations {
    /// What held at the log's beginning.
    pub(crate) fn new(start: Index, membership: Membership) -> Self {
        Self {
            list: vec![(start, membership)],
        }
    }

    /// The newest membership, which is the one in effect, and the entry that brought it.
    pub(crate) fn current(&self) -> (Index, &Membership) {
        let (index, membership) = self.list.last().expect("never empty");
        (*index, membership)
    }

    /// The membership as of the entry at `index`.
    pub(crate) fn at(&self, index: Index) -> &Membership {
        let position = self.list.partition_point(|(since, _)| *since <= index);
        &self.list[position.saturating_sub(1)].1
    }

    /// How many came with entries behind `commit`.
    #[cfg(any(debug_assertions, feature = "invariants"))]
    pub(crate) fn uncommitted(&self, commit: Index) -> usize {
        let open = self
            .list
            .iter()
            .skip(1)
            .filter(|(index, _)| *index > commit);
        open.count()
    }

    pub(crate) fn append(&mut self, index: Index, membership: Membership) {
        assert!(
            index > self.current().0,
            "a newer membership has a higher index"
        );
        self.list.push((index, membership));
    }

    /// Takes back all that came with `from` or an entry behind it. Returns whether that is any.
    pub(crate) fn truncate(&mut self, from: Index) -> bool {
        let kept = self.list.partition_point(|(index, _)| *index < from).max(1);
        let is_changed = kept < self.list.len();
        self.list.truncate(kept);
        is_changed
    }

    /// The log became empty behind `start`, for which a snapshot with this membership stands.
    pub(crate) fn reset(&mut self, start: Index, membership: Membership) {
        *self = Self::new(start, membership);
    }

    /// The log begins behind `start` now.
    pub(crate) fn compact(&mut self, start: Index) {
        let kept = self.list.partition_point(|(index, _)| *index <= start);
        self.list.drain(..kept.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::membership::{Member, MemberRole};
    use crate::types::{Incarnation, NodeId};

    fn of(size: u64) -> Membership {
        let member = |id| Member {
            incarnation: Incarnation(id),
            address: String::new(),
            role: MemberRole::Voter,
        };
        let members: BTreeMap<_, _> = (1..=size).map(|id| (NodeId(id), member(id))).collect();
        Membership::new(members).unwrap()
    }

    #[test]
    fn several_memberships_that_are_truncated_at_once_go_together() {
        let mut list = Configurations::new(Index(0), of(3));
        list.append(Index(5), of(4));
        list.append(Index(7), of(5));
        assert!(!list.truncate(Index(8)));
        assert!(list.truncate(Index(5)));
        assert_eq!(list.current(), (Index(0), &of(3)));
        assert!(!list.truncate(Index(1)), "the first one never goes");
    }

    #[test]
    fn each_index_has_the_membership_of_its_time() {
        let mut list = Configurations::new(Index(0), of(1));
        list.append(Index(5), of(2));
        list.append(Index(9), of(3));
        let sizes = |list: &Configurations, index| list.at(Index(index)).members().len();
        assert_eq!([4, 5, 8, 9].map(|index| sizes(&list, index)), [1, 2, 2, 3]);
        list.compact(Index(6));
        assert_eq!([6, 9].map(|index| sizes(&list, index)), [2, 3]);
        list.compact(Index(9));
        assert_eq!(list.current(), (Index(9), &of(3)));
    }
}
