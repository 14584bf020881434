//! What follows the metadata, each in the one encoding that it has everywhere: entries, a
//! membership.

use bytes::Bytes;
use raft_core::entry::ENTRY_HEADER_BYTES;
use raft_core::{Entry, LogId, Membership};

use super::error::{DecodeError, MEMBERSHIP_BYTES_MAX};

pub(super) fn decode_entries(
    rest: &mut Bytes,
    base: LogId,
    count: u32,
) -> Result<Vec<Entry>, DecodeError> {
    // What is announced takes no memory before it is there.
    let capacity = (count as usize).min(rest.len() / ENTRY_HEADER_BYTES);
    let mut entries = Vec::with_capacity(capacity);
    let mut previous = base;
    for position in 0..count {
        let entry = Entry::decode(rest).map_err(|source| DecodeError::Entry {
            position,
            count,
            source,
        })?;
        let found = entry.id();
        if previous.index.0.checked_add(1) != Some(found.index.0) || found.term < previous.term {
            return Err(DecodeError::Order { previous, found });
        }
        previous = found;
        entries.push(entry);
    }
    Ok(entries)
}

pub(super) fn decode_membership(rest: &mut Bytes, length: u32) -> Result<Membership, DecodeError> {
    let bytes = length as usize;
    if bytes > MEMBERSHIP_BYTES_MAX || bytes > rest.len() {
        let there = rest.len();
        return Err(DecodeError::MembershipLength { bytes, there });
    }
    Ok(Membership::decode(&rest.split_to(bytes))?)
}
