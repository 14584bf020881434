//! What a snapshot contains, counted and hashed part by part: the same in memory and in files.

use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{SnapshotDescriptor, SnapshotHash, SnapshotMeta, StorageError};
use twox_hash::XxHash3_128;

/// Counts and hashes the parts of a snapshot: XXH3, 128 bits, over the length of each part (u32,
/// little endian) and its bytes.
#[derive(Clone)]
pub struct SnapshotHasher {
    hash: XxHash3_128,
    parts: u64,
    bytes: u64,
}

impl std::fmt::Debug for SnapshotHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotHasher")
            .field("parts", &self.parts)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Default for SnapshotHasher {
    fn default() -> Self {
        Self {
            hash: XxHash3_128::new(),
            parts: 0,
            bytes: 0,
        }
    }
}

impl SnapshotHasher {
    /// Before the first part.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more part.
    ///
    /// # Panics
    /// When it has 4 GiB or more, far above what a part may have.
    pub fn add(&mut self, part: &[u8]) {
        let length = u32::try_from(part.len()).expect("a part is far below 4 GiB");
        self.hash.write(&length.to_le_bytes());
        self.hash.write(part);
        self.parts += 1;
        self.bytes += u64::from(length);
    }

    /// Parts so far.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.parts
    }

    /// Bytes of all parts so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What identifies a snapshot that has these parts and no others.
    #[must_use]
    pub fn descriptor(&self, meta: SnapshotMeta) -> SnapshotDescriptor {
        SnapshotDescriptor {
            meta,
            parts: self.parts,
            bytes: self.bytes,
            hash: SnapshotHash(self.hash.finish_128()),
        }
    }
}

/// Refuses a part that is larger than a part may be. `place` is for the message.
pub(crate) fn check_part_size(place: &str, part: &[u8]) -> Result<(), StorageError> {
    let bytes = part.len();
    if bytes > SNAPSHOT_PART_BYTES_MAX {
        return Err(StorageError::Io {
            operation: "write",
            path: place.to_owned(),
            message: format!(
                "a part of {bytes} bytes is above the limit of {SNAPSHOT_PART_BYTES_MAX}"
            ),
        });
    }
    Ok(())
}

/// Refuses what was received where it is not what was announced. `place` is for the message.
pub(crate) fn check_announced(
    place: &str,
    announced: &SnapshotDescriptor,
    received: &SnapshotDescriptor,
) -> Result<(), StorageError> {
    let what = if received.parts != announced.parts {
        format!("it has {} parts, not {}", received.parts, announced.parts)
    } else if received.bytes != announced.bytes {
        format!("it has {} bytes, not {}", received.bytes, announced.bytes)
    } else if received.hash != announced.hash {
        format!("its hash is {}, not {}", received.hash, announced.hash)
    } else {
        return Ok(());
    };
    let path = place.to_owned();
    Err(StorageError::SnapshotMismatch { path, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&[u8]]) -> SnapshotDescriptor {
        let mut hasher = SnapshotHasher::new();
        parts.iter().for_each(|part| hasher.add(part));
        hasher.descriptor(SnapshotMeta::default())
    }

    #[test]
    fn lengths_and_order_of_the_parts_count() {
        let one = hash(&[b"ab", b"c"]);
        assert_eq!((one.parts, one.bytes), (2, 3));
        assert_eq!(one, hash(&[b"ab", b"c"]));
        let others: [&[&[u8]]; 5] = [
            &[b"a", b"bc"],
            &[b"c", b"ab"],
            &[b"abc"],
            &[b"ab", b"c", b""],
            &[],
        ];
        for other in others {
            assert_ne!(hash(other).hash, one.hash);
        }
    }

    #[test]
    fn the_hash_is_the_one_that_files_carry() {
        // Other programs compute the same: xxh128 of 02000000 6162 01000000 63.
        let bytes = [2, 0, 0, 0, b'a', b'b', 1, 0, 0, 0, b'c'];
        assert_eq!(
            hash(&[b"ab", b"c"]).hash,
            SnapshotHash(XxHash3_128::oneshot(&bytes))
        );
    }
}
