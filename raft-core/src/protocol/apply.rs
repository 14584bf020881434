//! What the state machine is given: committed entries that are on the local disk, in order, a
//! bounded amount at a time; or a whole snapshot.

use std::collections::VecDeque;

use crate::protocol::Raft;
use crate::protocol::effects::Apply;
use crate::types::Index;

/// Entries that are handed to the state machine at once when they are read from the disk.
const COLD_APPLY_ENTRIES_MAX: u64 = 65_536;

/// Where the state machine stands.
#[derive(Debug)]
pub(crate) struct Applying {
    applied: Index,
    /// What the machine had applied when the node started, where its log ended before that.
    ahead: Index,
    /// Handed over and not applied yet: the end of each part, and its bytes.
    parts: VecDeque<(Index, usize)>,
    /// Bytes of all parts.
    bytes: usize,
}

impl Applying {
    pub(crate) fn new(applied: Index, ahead: Index) -> Self {
        Self {
            applied,
            ahead,
            parts: VecDeque::new(),
            bytes: 0,
        }
    }

    /// The last entry that is part of the state.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// Whether the machine's state is that of a later entry than it was handed.
    pub(crate) fn is_ahead(&self) -> bool {
        self.handed() < self.ahead
    }

    /// The last entry that is part of the state or on its way there.
    pub(crate) fn handed(&self) -> Index {
        self.parts.back().map_or(self.applied, |(to, _)| *to)
    }

    pub(crate) fn hand(&mut self, to: Index, bytes: usize) {
        self.parts.push_back((to, bytes));
        self.bytes += bytes;
    }

    fn done(&mut self, index: Index) {
        self.applied = self.applied.max(index);
        while let Some((_, bytes)) = self.parts.pop_front_if(|(to, _)| *to <= index) {
            self.bytes -= bytes;
        }
    }
}

impl Raft {
    pub(crate) fn handle_applied(&mut self, index: Index) {
        assert!(index <= self.commit, "only committed entries are applied");
        self.applying.done(index);
    }

    /// Hands committed entries over, but none that is not on the local disk: a durable state
    /// machine must never run ahead of its log.
    pub(crate) fn hand_to_apply(&mut self) {
        if !self.hand_snapshot() {
            return;
        }
        let handed = self.applying.handed();
        let to = self.commit.min(self.log.durable());
        let (used, limit) = (self.applying.bytes, self.config.limits.apply_bytes_max);
        if handed >= to || used >= limit {
            return;
        }
        let from = handed.next();
        let tail_first = self.log.tail_first();
        let apply = if from < tail_first {
            let to = to
                .min(tail_first.previous())
                .min(handed.plus(COLD_APPLY_ENTRIES_MAX));
            self.applying.hand(to, limit);
            Apply {
                from,
                to,
                entries: Vec::new(),
            }
        } else {
            let (entries, bytes) = self.log.in_memory(from, to, limit - used, usize::MAX);
            let to = entries.last().expect("at least one entry").index();
            self.applying.hand(to, bytes);
            Apply { from, to, entries }
        };
        self.outbox.effects().apply = Some(apply);
    }
}
