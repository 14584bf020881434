//! The memberships that a log holds, read entry by entry: a store knows where they are.

use raft_core::{Entry, EntryKind, Index, LogReader, StorageError};

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
