//! Reads see what was committed when they began.

use std::collections::BTreeMap;

use raft_core::protocol::ReadTicket;
use raft_core::{Index, NodeId};

use crate::violation::{Violation, require};

/// Reads under way.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    begun: BTreeMap<ReadTicket, Index>,
}

impl Reads {
    /// A read begins while everything up to `committed` is committed.
    pub(crate) fn begin(&mut self, ticket: ReadTicket, committed: Index) {
        self.begun.insert(ticket, committed);
    }

    /// A read may be answered once `index` is applied.
    ///
    /// # Errors
    /// When that is not enough.
    pub(crate) fn ready(
        &mut self,
        id: NodeId,
        ticket: ReadTicket,
        index: Index,
    ) -> Result<(), Violation> {
        let needed = self.begun.remove(&ticket).unwrap_or_default();
        require(index >= needed, 35, || {
            format!("n{id} reads at {index}; {needed} was committed when the read began")
        })
    }

    /// A read was refused.
    pub(crate) fn refused(&mut self, ticket: ReadTicket) {
        self.begun.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_needs_what_was_committed_when_it_began() {
        let mut reads = Reads::default();
        let (early, late, gone) = (ReadTicket(1), ReadTicket(2), ReadTicket(3));
        reads.begin(early, Index(5));
        reads.begin(late, Index(9));
        reads.begin(gone, Index(9));
        reads.refused(gone);
        assert_eq!(reads.ready(NodeId(1), early, Index(5)), Ok(()));
        let stale = reads.ready(NodeId(1), late, Index(8));
        assert_eq!(stale.expect_err("it misses one").invariant, 35);
        assert_eq!(reads.ready(NodeId(1), gone, Index(0)), Ok(()));
    }
}
