//! What clients want replicated: taken in by a leader up to named limits, so that they slow down
//! before anything grows without bound.

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::error::ProposeError;
use crate::protocol::input::Proposal;
use crate::protocol::{Raft, RoleState};
use crate::types::LogId;

impl Raft {
    pub(crate) fn handle_propose(&mut self, proposals: Vec<Proposal>) {
        self.wake();
        for Proposal { ticket, payload } in proposals {
            let outcome = self.propose_one(payload);
            self.outbox.effects().proposed.push((ticket, outcome));
        }
    }

    fn propose_one(&mut self, payload: Bytes) -> Result<LogId, ProposeError> {
        let limits = self.config.limits;
        let leader = self.leader();
        let RoleState::Leader(role) = &self.role else {
            return Err(ProposeError::NotLeader { leader });
        };
        if let Some(target) = self.transferring_to() {
            return Err(ProposeError::Transferring(target));
        }
        let bytes = payload.len();
        if bytes > limits.proposal_bytes_max {
            return Err(ProposeError::TooLarge {
                bytes,
                limit: limits.proposal_bytes_max,
            });
        }
        if let Some(node) = self.who_has_no_room() {
            return Err(ProposeError::NoRoom(node));
        }
        let limit = limits.uncommitted_bytes_max;
        if role.uncommitted_bytes > 0 && role.uncommitted_bytes + bytes > limit {
            return Err(ProposeError::Busy {
                limit_name: "uncommitted_bytes_max",
                limit,
            });
        }
        let limit = limits.uncommitted_ticks_max;
        let is_waiting = self.commit < self.log.last().index;
        if limit > 0 && is_waiting && role.now > role.committed_at + u64::from(limit) {
            return Err(ProposeError::Busy {
                limit_name: "uncommitted_ticks_max",
                limit: limit as usize,
            });
        }
        Ok(self.append_as_leader(EntryKind::Command, payload))
    }

    pub(crate) fn append_as_leader(&mut self, kind: EntryKind, payload: Bytes) -> LogId {
        let id = LogId::new(self.hard_state.term, self.last().index.next());
        let entry = Entry::new(id, kind, payload);
        let is_first = self.commit == self.last().index;
        if let RoleState::Leader(role) = &mut self.role {
            role.uncommitted_bytes += entry.encoded_len();
            role.wake();
            if is_first {
                role.committed_at = role.now;
            }
        }
        self.append_entry(entry);
        id
    }
}
