//! One segment file: its name, and the page that it begins with. The byte table is in
//! `docs/disk-format.md`.

use std::path::{Path, PathBuf};

use raft_core::StorageError;

use super::record::{Frame, RunLayout, u32_at, u64_at};
use crate::errors::{damaged, foreign};
use crate::owner::WalOwner;

/// Bytes of the header page. Records begin behind it.
pub(super) const HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"FLOTWAL\n";
/// Segments of version 1 begin with a hard state only; a start is in none that it wrote. Those of
/// version 2 are of one group. Up to version 3 a record has one entry. Up to version 4 all behind
/// the last record is zeros. Up to version 5 an entry stands behind its encoded header.
pub(super) const VERSION: u32 = 6;
const FLAG_GROUPS_MAY_BE_LOST: u32 = 1;
const FLAG_BEGINS_ANEW: u32 = 2;
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
    /// Of the format; the older ones are read, not written.
    pub(super) version: u32,
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
    /// Whether damage may have taken groups that nothing names any more.
    pub(super) groups_may_be_lost: bool,
    /// Whether the log begins here: what stands in earlier segments is damaged, and counts no more.
    pub(super) begins_anew: bool,
}

/// What is needed to read records of a segment later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentRef {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) frame: Frame,
}

impl SegmentHeader {
    /// What the checksums of the records in this segment begin with.
    fn seed(&self) -> u32 {
        let salt = crc32c::crc32c(&self.salt.to_le_bytes());
        crc32c::crc32c_append(salt, &self.sequence.to_le_bytes())
    }

    /// What must be known to read the records.
    pub(super) fn frame(&self) -> Frame {
        Frame {
            seed: self.seed(),
            has_groups: self.has_groups(),
            layout: self.layout(),
        }
    }

    fn layout(&self) -> RunLayout {
        match self.version {
            ..=3 => RunLayout::One,
            4 | 5 => RunLayout::Headers,
            6.. => RunLayout::Heads,
        }
    }

    /// Whether a start stands behind each hard state that the segment begins with.
    pub(super) fn begins_with_start(&self) -> bool {
        self.version > 1
    }

    /// Whether behind the last record, and some zeros, there may be anything: what the file held
    /// when it was another segment.
    pub(super) fn may_be_recycled(&self) -> bool {
        self.version > 4
    }

    /// Whether the records are of many groups.
    pub(super) fn has_groups(&self) -> bool {
        self.version > 2
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut page = [0; HEADER_BYTES];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&self.version.to_le_bytes());
        page[16..32].copy_from_slice(&self.owner.cluster.0);
        for (offset, value) in [
            (32, self.owner.node.0),
            (40, self.owner.incarnation.0),
            (48, self.sequence),
            (56, self.salt),
            (64, self.file_bytes),
            (72, self.synced_to),
            (80, self.previous.offset),
        ] {
            page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        page[88..92].copy_from_slice(&self.previous.checksum.to_le_bytes());
        let groups_may_be_lost = u32::from(self.groups_may_be_lost) * FLAG_GROUPS_MAY_BE_LOST;
        let begins_anew = u32::from(self.begins_anew) * FLAG_BEGINS_ANEW;
        page[92..96].copy_from_slice(&(groups_may_be_lost | begins_anew).to_le_bytes());
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
        let flags = u32_at(page, 92);
        if flags & !(FLAG_GROUPS_MAY_BE_LOST | FLAG_BEGINS_ANEW) != 0 {
            return Err(foreign(
                path,
                "was written by a newer version of this program",
            ));
        }
        let header = Self {
            version,
            owner: decode_owner(page),
            sequence: u64_at(page, 48),
            salt: u64_at(page, 56),
            file_bytes: u64_at(page, 64),
            synced_to: u64_at(page, 72),
            previous: SealMark {
                offset: u64_at(page, 80),
                checksum: u32_at(page, 88),
            },
            groups_may_be_lost: flags & FLAG_GROUPS_MAY_BE_LOST != 0,
            begins_anew: flags & FLAG_BEGINS_ANEW != 0,
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
