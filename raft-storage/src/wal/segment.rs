//! One segment file: its name, and the page that it begins with. The byte table is in
//! `docs/disk-format.md`.

use std::path::{Path, PathBuf};

use raft_core::StorageError;

use super::record::{u32_at, u64_at};
use crate::errors::{damaged, foreign};
use crate::owner::WalOwner;

/// Bytes of the header page. Records begin behind it.
pub(super) const HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"FLOTWAL\n";
/// Segments of version 1 begin with a hard state only; a start is in none that it wrote.
const VERSION: u32 = 2;
const SUFFIX: &str = ".wal";
const SEQUENCE_DIGITS: usize = 20;

/// Where the seal of a segment stands, and the checksum that names it. The next segment carries it:
/// only a file that is chained so counts as the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SealMark {
    pub(super) offset: u64,
    pub(super) checksum: u32,
}

/// The fields of a header page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Whether a start stands behind the first hard state: not so in version 1.
    pub(super) begins_with_start: bool,
    pub(super) owner: WalOwner,
    pub(super) sequence: u64,
    /// Random, drawn anew whenever a file is put to use.
    pub(super) salt: u64,
    /// Length of the file, which it has before it gets its name.
    pub(super) file_bytes: u64,
    /// Up to here all was synced before the file got its name.
    pub(super) synced_to: u64,
    /// The seal of the segment before; zeros in segment 1.
    pub(super) previous: SealMark,
}

/// What is needed to read records of a segment later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentRef {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) seed: u32,
}

impl SegmentHeader {
    /// What the checksums of the records in this segment begin with.
    pub(super) fn seed(&self) -> u32 {
        let salt = crc32c::crc32c(&self.salt.to_le_bytes());
        crc32c::crc32c_append(salt, &self.sequence.to_le_bytes())
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut page = [0; HEADER_BYTES];
        page[..8].copy_from_slice(&MAGIC);
        let version = if self.begins_with_start { VERSION } else { 1 };
        page[8..12].copy_from_slice(&version.to_le_bytes());
        page[16..32].copy_from_slice(&self.owner.cluster.0);
        for (offset, value) in [
            (32, self.owner.node.0),
            (40, self.owner.incarnation.0),
            (48, self.sequence),
            (56, self.salt),
            (64, self.file_bytes),
            (72, self.synced_to),
            (80, self.previous.offset),
            (88, u64::from(self.previous.checksum)),
        ] {
            page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        let checksum = page_checksum(&page);
        page[12..16].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// Reads a header page of a file that should be `owner`'s segment `sequence`. The version may
    /// be an older one.
    ///
    /// # Errors
    /// `Damaged` where it is no header page of this segment, `Foreign` where it is somebody else's
    /// or of a newer version.
    pub(super) fn decode(
        page: &[u8; HEADER_BYTES],
        path: &Path,
        owner: &WalOwner,
        sequence: u64,
    ) -> Result<Self, StorageError> {
        if page[..8] != MAGIC {
            return Err(damaged(path, 0, "it does not begin as a segment does"));
        }
        let version = u32_at(page, 8);
        if version > VERSION {
            let what = format!("has version {version}, this program reads up to {VERSION}");
            return Err(foreign(path, what));
        }
        if version == 0 || u32_at(page, 12) != page_checksum(page) {
            return Err(damaged(path, 0, "its header does not match its checksum"));
        }
        let header = Self {
            begins_with_start: version > 1,
            owner: decode_owner(page),
            sequence: u64_at(page, 48),
            salt: u64_at(page, 56),
            file_bytes: u64_at(page, 64),
            synced_to: u64_at(page, 72),
            previous: SealMark {
                offset: u64_at(page, 80),
                checksum: u32_at(page, 88),
            },
        };
        header.owner.check(path, owner)?;
        if header.sequence != sequence {
            let what = format!("it is segment {} under another's name", header.sequence);
            return Err(damaged(path, 48, what));
        }
        Ok(header)
    }
}

fn decode_owner(page: &[u8; HEADER_BYTES]) -> WalOwner {
    let mut cluster = [0; 16];
    cluster.copy_from_slice(&page[16..32]);
    WalOwner {
        cluster: raft_core::ClusterId(cluster),
        node: raft_core::NodeId(u64_at(page, 32)),
        incarnation: raft_core::Incarnation(u64_at(page, 40)),
    }
}

fn page_checksum(page: &[u8; HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page[..12]), &page[16..])
}

/// The file name of a segment.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:0SEQUENCE_DIGITS$}{SUFFIX}")
}

/// The sequence number in a file name; `None` where it is not the name of a segment.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == SEQUENCE_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_their_numbers_and_only_they_are_names() {
        assert_eq!(file_name(7), "00000000000000000007.wal");
        for sequence in [0, 1, u64::MAX] {
            assert_eq!(sequence_of(&file_name(sequence)), Some(sequence));
        }
        for other in [
            "7.wal",
            "spare",
            "+0000000000000000007.wal",
            "99999999999999999999.wal",
        ] {
            assert_eq!(sequence_of(other), None, "{other}");
        }
    }
}
