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
