//! What the log keeps of a group besides its entries: term and vote, and how far the log must be
//! filled again after damage. One record carries all of it, so that who has read the newest one
//! knows every promise of the group.

use raft_core::{HardState, Index, LogId, Term};

use crate::hard_state::{HARD_STATE_BYTES, decode_hard_state, encode_hard_state};

/// Bytes of the payload of a hard state, without and with a refill mark.
pub(super) const PROMISES_BYTES: [usize; 2] = [HARD_STATE_BYTES, HARD_STATE_BYTES + 16];

/// The most of them.
pub(super) const PROMISES_BYTES_MAX: usize = PROMISES_BYTES[1];

/// The payload of a hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Promises {
    pub(super) hard_state: HardState,
    /// The last entry that may have been acknowledged before the log was damaged, until the log
    /// has reached it again.
    pub(super) refill_to: Option<LogId>,
}

impl Promises {
    pub(super) fn encode(&self) -> ([u8; PROMISES_BYTES_MAX], usize) {
        let mut bytes = [0; PROMISES_BYTES_MAX];
        bytes[..HARD_STATE_BYTES].copy_from_slice(&encode_hard_state(self.hard_state));
        let Some(to) = self.refill_to else {
            return (bytes, PROMISES_BYTES[0]);
        };
        let mark = &mut bytes[HARD_STATE_BYTES..];
        mark[..8].copy_from_slice(&to.term.0.to_le_bytes());
        mark[8..].copy_from_slice(&to.index.0.to_le_bytes());
        (bytes, PROMISES_BYTES[1])
    }

    /// `None` where the bytes are no such payload.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (state, mark) = bytes.split_at_checked(HARD_STATE_BYTES)?;
        let refill_to = match mark.split_first_chunk::<8>() {
            Some((term, index)) => Some(LogId::new(
                Term(u64::from_le_bytes(*term)),
                Index(u64::from_le_bytes(index.try_into().ok()?)),
            )),
            None if mark.is_empty() => None,
            None => return None,
        };
        Some(Self {
            hard_state: decode_hard_state(state)?,
            refill_to,
        })
    }

    /// The mark ends when the log has reached it, or something newer.
    pub(super) fn log_reaches(&mut self, last: LogId) {
        self.refill_to = self.refill_to.filter(|to| last < *to);
    }
}

#[cfg(test)]
mod tests {
    use raft_core::NodeId;

    use super::*;

    #[test]
    fn promises_decode_to_themselves_and_nothing_else_does() {
        for refill_to in [None, Some(LogId::new(Term(7), Index(u64::MAX)))] {
            let promises = Promises {
                hard_state: HardState {
                    term: Term(8),
                    vote: Some(NodeId(3)),
                },
                refill_to,
            };
            let (bytes, length) = promises.encode();
            assert_eq!(Promises::decode(&bytes[..length]), Some(promises));
            for other in (0..PROMISES_BYTES_MAX).filter(|n| !PROMISES_BYTES.contains(n)) {
                assert_eq!(Promises::decode(&bytes[..other]), None, "{other}");
            }
        }
    }

    #[test]
    fn a_mark_ends_with_a_log_that_is_as_new() {
        let id = |term, index| LogId::new(Term(term), Index(index));
        for (last, is_over) in [
            ((2, 9), false),
            ((3, 4), false),
            ((3, 5), true),
            ((4, 1), true),
        ] {
            let mut promises = Promises {
                refill_to: Some(id(3, 5)),
                ..Promises::default()
            };
            promises.log_reaches(id(last.0, last.1));
            assert_eq!(promises.refill_to.is_none(), is_over, "{last:?}");
        }
    }
}
