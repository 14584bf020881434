//! Whose write is whose: from an entry of the log back to the operation that asked for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use history::{ByteString, Location, LoggedWrite, Op, OpId};
use kv_api::{Command, Expect, SessionId, SessionStamp, WriteOp};
use raft_core::Entry;

use crate::checks::is_refused;

/// The writes that clients asked for.
#[derive(Debug, Default)]
pub(crate) struct Written {
    by_call: BTreeMap<(SessionId, u64), OpId>,
    /// Outside a session: every value is written once only.
    by_value: BTreeMap<ByteString, OpId>,
}

impl Written {
    pub(crate) fn note(&mut self, id: OpId, op: &Op, stamp: Option<SessionStamp>) {
        match (stamp, op) {
            (Some(stamp), _) => {
                self.by_call.insert((stamp.session, stamp.sequence), id);
            }
            (None, Op::Put { value, .. } | Op::Append { value, .. } | Op::Cas { value, .. }) => {
                self.by_value.insert(value.clone(), id);
            }
            (None, Op::Delete { .. } | Op::Get { .. }) => {}
        }
    }

    /// What stands in the log and was not refused.
    pub(crate) fn log_of(&self, applied: &[(Entry, Bytes)]) -> Vec<LoggedWrite> {
        let executed = applied.iter().filter(|(_, reply)| !is_refused(reply));
        executed
            .filter_map(|(entry, _)| self.logged(entry))
            .collect()
    }

    fn logged(&self, entry: &Entry) -> Option<LoggedWrite> {
        let Ok(Command::Write { stamp, op }) = kv_api::decode(entry.payload()) else {
            return None;
        };
        let op = asked(&op);
        let id = match (stamp, &op) {
            (Some(stamp), _) => self.by_call.get(&(stamp.session, stamp.sequence)),
            (None, Op::Put { value, .. } | Op::Append { value, .. } | Op::Cas { value, .. }) => {
                self.by_value.get(value)
            }
            (None, Op::Delete { .. } | Op::Get { .. }) => None,
        };
        Some(LoggedWrite {
            location: Location {
                index: entry.index().0,
                term: entry.term().0,
            },
            operation: id?.0,
            op,
        })
    }
}

/// The operation in the words of the history.
fn asked(op: &WriteOp) -> Op {
    let bytes = |bytes: &Bytes| ByteString::from(&bytes[..]);
    match op {
        WriteOp::Put { key, value } => Op::put(bytes(key), bytes(value)),
        WriteOp::Append { key, value } => Op::append(bytes(key), bytes(value)),
        WriteOp::Delete { key } => Op::delete(bytes(key)),
        WriteOp::Cas { key, expect, value } => {
            let expect = match expect {
                Expect::Absent => history::Expect::Absent,
                Expect::Value(value) => history::Expect::Value(bytes(value)),
                Expect::Version(version) => history::Expect::Version(*version),
            };
            Op::cas(bytes(key), expect, bytes(value))
        }
    }
}
