//! The bytes around the parts: header, frames, footer. The tables are in `docs/disk-format.md`.

use std::path::Path;

use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{
    ClusterId, Index, LogId, Membership, NodeId, SnapshotDescriptor, SnapshotHash, SnapshotMeta,
    StorageError, Term,
};

use crate::errors::{damaged, foreign};

/// Bytes of a header before the membership.
pub(super) const FIXED_HEADER_BYTES: usize = 96;
/// Bytes before a part.
pub(super) const FRAME_HEADER_BYTES: usize = 16;
/// Bytes behind the last part.
pub(super) const FOOTER_BYTES: usize = 40;

const MAGIC: [u8; 8] = *b"FLOTSNP\n";
const VERSION: u32 = 1;
/// The most bytes that an encoded membership may have; twice what the largest one has.
const MEMBERSHIP_BYTES_MAX: usize = 10 << 10;
const FLAG_ANNOUNCED: u32 = 1;
/// In the place of a part's length: no part has this one.
const FOOTER_MARK: u32 = u32::MAX;

/// Where a snapshot file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotOrigin {
    /// The cluster whose state it is.
    pub cluster: ClusterId,
    /// The node that wrote the file.
    pub node: NodeId,
}

/// Parts, bytes and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) parts: u64,
    pub(super) bytes: u64,
    pub(super) hash: SnapshotHash,
}

impl Content {
    pub(super) fn of(descriptor: &SnapshotDescriptor) -> Self {
        Self {
            parts: descriptor.parts,
            bytes: descriptor.bytes,
            hash: descriptor.hash,
        }
    }

    /// Fills the last 32 bytes.
    fn encode(self, bytes: &mut [u8]) {
        let at = bytes.len() - 32;
        bytes[at..at + 8].copy_from_slice(&self.parts.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[at + 16..].copy_from_slice(&self.hash.0.to_le_bytes());
    }

    /// Reads the last 32 bytes.
    fn decode(bytes: &[u8]) -> Self {
        let at = bytes.len() - 32;
        let mut hash = [0; 16];
        hash.copy_from_slice(&bytes[at + 16..]);
        Self {
            parts: u64_at(bytes, at),
            bytes: u64_at(bytes, at + 8),
            hash: SnapshotHash(u128::from_le_bytes(hash)),
        }
    }
}

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) origin: SnapshotOrigin,
    pub(super) meta: SnapshotMeta,
    /// What will be in it, where that was known before.
    pub(super) announced: Option<Content>,
}

impl FileHeader {
    /// The bytes, and the seed of the checksums behind them.
    pub(super) fn encode(&self) -> (Vec<u8>, u32) {
        let membership = self.meta.membership.encode();
        let mut bytes = vec![0; FIXED_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.origin.cluster.0);
        bytes[32..40].copy_from_slice(&self.origin.node.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.meta.last.index.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.meta.last.term.0.to_le_bytes());
        let length = u32::try_from(membership.len()).expect("a membership has a few KiB");
        bytes[56..60].copy_from_slice(&length.to_le_bytes());
        if let Some(announced) = self.announced {
            bytes[60..64].copy_from_slice(&FLAG_ANNOUNCED.to_le_bytes());
            announced.encode(&mut bytes);
        }
        bytes.extend_from_slice(&membership);
        let checksum = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// How many bytes the whole header has that begins so.
    pub(super) fn length(
        fixed: &[u8; FIXED_HEADER_BYTES],
        path: &Path,
    ) -> Result<usize, StorageError> {
        if fixed[..8] != MAGIC {
            return Err(damaged(path, 0, "it does not begin as a snapshot does"));
        }
        let version = u32_at(fixed, 8);
        if version > VERSION {
            let what = format!("has version {version}, this program reads up to {VERSION}");
            return Err(foreign(path, what));
        }
        if version == 0 {
            return Err(damaged(path, 8, "its version is 0"));
        }
        let membership = u32_at(fixed, 56) as usize;
        if membership > MEMBERSHIP_BYTES_MAX {
            let what = format!("its membership has {membership} bytes");
            return Err(damaged(path, 56, what));
        }
        Ok(FIXED_HEADER_BYTES + membership)
    }

    /// Reads a whole header, and gives the seed of the checksums behind it.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<(Self, u32), StorageError> {
        let checksum = u32_at(bytes, 12);
        if checksum != header_checksum(bytes) {
            return Err(damaged(path, 12, "its header does not match its checksum"));
        }
        let flags = u32_at(bytes, 60);
        if flags & !FLAG_ANNOUNCED != 0 {
            return Err(damaged(path, 60, format!("its header has flags {flags:x}")));
        }
        let membership = Membership::decode(&bytes[FIXED_HEADER_BYTES..])
            .map_err(|error| damaged(path, FIXED_HEADER_BYTES as u64, error.to_string()))?;
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[16..32]);
        let last = LogId::new(Term(u64_at(bytes, 48)), Index(u64_at(bytes, 40)));
        let header = Self {
            origin: SnapshotOrigin {
                cluster: ClusterId(cluster),
                node: NodeId(u64_at(bytes, 32)),
            },
            meta: SnapshotMeta { last, membership },
            announced: (flags != 0).then(|| Content::decode(&bytes[..FIXED_HEADER_BYTES])),
        };
        Ok((header, checksum))
    }
}

fn header_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// What stands before a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    checksum: u32,
    /// Bytes of the part.
    pub(super) length: usize,
    number: u64,
}

impl FrameHeader {
    /// The bytes before part `number` of a file with this seed.
    pub(super) fn encode(seed: u32, number: u64, part: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
        let length = u32::try_from(part.len()).expect("a part is far below 4 GiB");
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[4..]), part);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the bytes before part `number`, or says what is wrong with them. Only with the part is
    /// it known whether they are right.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER_BYTES], number: u64) -> Result<Self, String> {
        let header = Self {
            checksum: u32_at(bytes, 0),
            length: u32_at(bytes, 4) as usize,
            number: u64_at(bytes, 8),
        };
        if header.number != number {
            let found = header.number;
            return Err(format!("part {number} should begin here, not {found}"));
        }
        if header.length > SNAPSHOT_PART_BYTES_MAX {
            return Err(format!("part {number} has an impossible length"));
        }
        Ok(header)
    }

    /// Whether this is its part.
    pub(super) fn check(self, seed: u32, part: &[u8]) -> Result<(), String> {
        let again = Self::encode(seed, self.number, part);
        if part.len() == self.length && u32_at(&again, 0) == self.checksum {
            return Ok(());
        }
        Err(format!("part {} does not match its checksum", self.number))
    }
}

/// The bytes behind the last part of a file with this seed.
pub(super) fn encode_footer(seed: u32, content: Content) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    bytes[4..8].copy_from_slice(&FOOTER_MARK.to_le_bytes());
    content.encode(&mut bytes);
    let checksum = crc32c::crc32c_append(seed, &bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// `None` where the bytes are not the footer of a file with this seed.
pub(super) fn decode_footer(seed: u32, bytes: &[u8; FOOTER_BYTES]) -> Option<Content> {
    let is_whole = u32_at(bytes, 0) == crc32c::crc32c_append(seed, &bytes[4..])
        && u32_at(bytes, 4) == FOOTER_MARK;
    is_whole.then(|| Content::decode(bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(field)
}
