//! State machine safety (paper figure 3): everybody applies the same and says the same; and where
//! each call of a session took effect.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_api::{Command, CommandError, CommandReply, SessionId};
use raft_core::{Entry, Index, LogId, NodeId, SnapshotDescriptor};

use crate::violation::{Violation, require};

/// What applying an entry showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Nobody had applied it before.
    pub is_first: bool,
    /// It repeated a call of a session that had been executed.
    pub is_repetition: bool,
}

/// Whether the sessions refused to execute a call.
pub(crate) fn is_refused(reply: &[u8]) -> bool {
    matches!(
        kv_api::decode(reply),
        Ok(CommandReply::Refused(
            CommandError::SessionExpired(_)
                | CommandError::AlreadyAcknowledged { .. }
                | CommandError::WindowExceeded { .. }
        ))
    )
}

/// What anybody has applied.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    applied: Vec<(Entry, Bytes)>,
    /// Where each call of a session was executed.
    executed: BTreeMap<(SessionId, u64), LogId>,
    digests: BTreeMap<Index, u64>,
    snapshots: BTreeMap<Index, SnapshotDescriptor>,
}

impl Machines {
    /// The entry that was applied at an index.
    #[must_use]
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let position = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.applied.get(position).map(|(entry, _)| entry)
    }

    /// Everything that was applied, in order, and what the machines said to it.
    #[must_use]
    pub(crate) fn all(&self) -> &[(Entry, Bytes)] {
        &self.applied
    }

    /// Where a call of a session was executed.
    #[must_use]
    pub(crate) fn executed(&self, session: SessionId, sequence: u64) -> Option<LogId> {
        self.executed.get(&(session, sequence)).copied()
    }

    /// A node applied an entry; the reply is empty for what is no command.
    ///
    /// # Errors
    /// When somebody else applied another one there, or was answered something else.
    pub(crate) fn applied(
        &mut self,
        id: NodeId,
        entry: &Entry,
        reply: &Bytes,
    ) -> Result<Applied, Violation> {
        let position = usize::try_from(entry.index().previous().0).expect("logs fit into memory");
        if let Some((known, answered)) = self.applied.get(position) {
            require(known == entry, 31, || {
                format!(
                    "n{id} applies {}, elsewhere it was {}",
                    entry.id(),
                    known.id()
                )
            })?;
            require(answered == reply, 31, || {
                format!(
                    "n{id} answers {} with {reply:?}, elsewhere {answered:?}",
                    entry.id()
                )
            })?;
            return Ok(Applied::default());
        }
        require(position == self.applied.len(), 31, || {
            format!("n{id} applies {} before what is before it", entry.id())
        })?;
        self.applied.push((entry.clone(), reply.clone()));
        Ok(Applied {
            is_first: true,
            is_repetition: self.execute(entry, reply),
        })
    }

    /// Notes where a call was executed. Returns whether it had been before.
    fn execute(&mut self, entry: &Entry, reply: &Bytes) -> bool {
        let Ok(Command::Write {
            stamp: Some(stamp), ..
        }) = kv_api::decode(entry.payload())
        else {
            return false;
        };
        if is_refused(reply) {
            return false;
        }
        let call = (stamp.session, stamp.sequence);
        if self.executed.contains_key(&call) {
            return true;
        }
        self.executed.insert(call, entry.id());
        false
    }

    /// A node wrote its state down. Replicas in the same state write the same parts, so that a
    /// transfer may go on from another sender.
    ///
    /// # Errors
    /// When another node's snapshot of the same entry is another one.
    pub(crate) fn snapshot(
        &mut self,
        id: NodeId,
        descriptor: &SnapshotDescriptor,
    ) -> Result<(), Violation> {
        let index = descriptor.meta.last.index;
        let known = self.snapshots.entry(index).or_insert(descriptor.clone());
        require(known == descriptor, 39, || {
            format!("n{id} has {descriptor:?}, elsewhere {known:?}")
        })
    }

    /// The state of a machine that has applied everything up to `index`.
    ///
    /// # Errors
    /// When another one was in another state there.
    pub(crate) fn digest(
        &mut self,
        id: NodeId,
        index: Index,
        digest: u64,
    ) -> Result<(), Violation> {
        let known = *self.digests.entry(index).or_insert(digest);
        require(known == digest, 39, || {
            format!("n{id} at {index} has digest {digest:016x}, elsewhere {known:016x}")
        })
    }
}

#[cfg(test)]
mod tests {
    use kv_api::{SessionStamp, WriteOp, Written};
    use raft_core::{EntryKind, Term};

    use super::*;

    fn call(index: u64, sequence: u64) -> Entry {
        let stamp = SessionStamp {
            session: SessionId(1),
            sequence,
            unanswered_from: 1,
        };
        let op = WriteOp::Delete { key: "k".into() };
        let stamp = Some(stamp);
        let payload = kv_api::encode(&Command::Write { stamp, op });
        let id = LogId::new(Term(1), Index(index));
        Entry::new(id, EntryKind::Command, payload.into())
    }

    fn reply(revision: u64) -> Bytes {
        let written = Written {
            revision,
            version: 1,
            value_bytes: 1,
        };
        kv_api::encode(&CommandReply::Written(written)).into()
    }

    #[test]
    fn everybody_applies_the_same_and_answers_the_same() {
        let mut machines = Machines::default();
        let mut apply = |node, entry: &Entry, reply| machines.applied(NodeId(node), entry, &reply);
        assert!(apply(1, &call(1, 1), reply(1)).expect("the first").is_first);
        assert!(!apply(2, &call(1, 1), reply(1)).expect("the same").is_first);
        for (entry, reply) in [
            (call(1, 2), reply(1)),
            (call(1, 1), reply(2)),
            (call(3, 3), reply(3)),
        ] {
            let violation = apply(2, &entry, reply).expect_err("another one, or a gap");
            assert_eq!(violation.invariant, 31);
        }
        assert_eq!(machines.digest(NodeId(1), Index(1), 7), Ok(()));
        let violation = machines.digest(NodeId(2), Index(1), 8);
        assert_eq!(violation.expect_err("another state").invariant, 39);
    }

    #[test]
    fn a_call_is_executed_where_it_stands_first_and_was_not_refused() {
        let mut machines = Machines::default();
        let expired = CommandReply::Refused(CommandError::SessionExpired(SessionId(1)));
        let expired = Bytes::from(kv_api::encode(&expired));
        let mut apply = |entry: &Entry, reply| machines.applied(NodeId(1), entry, &reply);
        apply(&call(1, 1), expired).expect("applied");
        assert!(!apply(&call(2, 1), reply(1)).expect("applied").is_repetition);
        assert!(apply(&call(3, 1), reply(1)).expect("applied").is_repetition);
        let at = machines.executed(SessionId(1), 1).expect("executed");
        assert_eq!(at.index, Index(2));
    }
}
