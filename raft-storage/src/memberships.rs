//! The memberships that a log holds, read entry by entry: a store knows where they are.

use raft_core::{Entry, EntryKind, Index, LogReader, StorageError};

/// Where an encoded entry has its kind, and which byte that is of a membership.
const KIND: (usize, u8) = (1, 3);

/// Whether these bytes, whose checksum was checked, begin an encoded entry that is a membership.
pub(crate) fn is_membership(encoded: &[u8]) -> bool {
    encoded.get(KIND.0) == Some(&KIND.1)
}

/// The entries at these indexes.
pub(crate) async fn read_memberships(
    reader: &dyn LogReader,
    indexes: &[Index],
) -> Result<Vec<Entry>, StorageError> {
    let mut memberships = Vec::with_capacity(indexes.len());
    for &index in indexes {
        // A read gives at least one entry, whatever its size.
        memberships.extend(reader.read(index..index.next(), 0).await?);
    }
    debug_assert!(
        memberships
            .iter()
            .all(|e| e.kind() == EntryKind::Membership)
    );
    Ok(memberships)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::LogId;

    use super::*;

    #[test]
    fn memberships_are_told_by_their_header() {
        let kinds = [EntryKind::Noop, EntryKind::Command, EntryKind::Membership];
        let entries = kinds.map(|kind| Entry::new(LogId::ZERO, kind, Bytes::new()));
        let told = entries.map(|entry| is_membership(&entry.header()));
        assert_eq!(told, [false, false, true]);
    }
}
