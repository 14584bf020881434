//! Term and vote as 24 bytes, the same in every store.

use raft_core::{HardState, NodeId, Term};

/// Bytes of an encoded hard state: term, candidate, whether there was a vote, 7 zeros.
pub(crate) const HARD_STATE_BYTES: usize = 24;

pub(crate) fn encode_hard_state(state: HardState) -> [u8; HARD_STATE_BYTES] {
    let mut bytes = [0; HARD_STATE_BYTES];
    bytes[..8].copy_from_slice(&state.term.0.to_le_bytes());
    if let Some(vote) = state.vote {
        bytes[8..16].copy_from_slice(&vote.0.to_le_bytes());
        bytes[16] = 1;
    }
    bytes
}

/// `None` where the bytes are not a hard state.
pub(crate) fn decode_hard_state(bytes: &[u8]) -> Option<HardState> {
    let (term, rest) = bytes.split_first_chunk::<8>()?;
    let (candidate, rest) = rest.split_first_chunk::<8>()?;
    let term = Term(u64::from_le_bytes(*term));
    let candidate = u64::from_le_bytes(*candidate);
    let vote = match (rest, candidate) {
        ([0, 0, 0, 0, 0, 0, 0, 0], 0) => None,
        ([1, 0, 0, 0, 0, 0, 0, 0], _) => Some(NodeId(candidate)),
        _ => return None,
    };
    Some(HardState { term, vote })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_states_decode_to_themselves() {
        for vote in [None, Some(NodeId(0)), Some(NodeId(7))] {
            let term = Term(u64::MAX);
            let state = HardState { term, vote };
            assert_eq!(decode_hard_state(&encode_hard_state(state)), Some(state));
        }
        assert_eq!(decode_hard_state(&[0; HARD_STATE_BYTES - 1]), None);
        assert_eq!(decode_hard_state(&[0; HARD_STATE_BYTES + 1]), None);
        assert_eq!(decode_hard_state(&[2; HARD_STATE_BYTES]), None);
    }
}
