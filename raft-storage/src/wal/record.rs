//! The frame around everything in a segment: a header of 48 bytes, a payload, zeros up to a
//! multiple of 8. The byte table is in `docs/disk-format.md`.
//!
//! The header has a checksum of its own, so that a record whose payload is torn still tells its
//! index, and still vouches for what had been synced before it. It is seeded by the segment's salt:
//! bytes of another file, or of another life of this one, are not records. The payload's checksum
//! in the header is not seeded: with an empty payload it would be the seed, and cancel it.

use raft_core::{GroupId, Index, LogId, Term};

use super::options::ENTRY_BYTES_MAX;
use super::promises::PROMISES_BYTES;

/// Bytes before the payload.
pub(super) const RECORD_HEADER_BYTES: usize = 48;
/// Records begin at multiples of this.
pub(super) const RECORD_ALIGNMENT: u64 = 8;
/// Bytes of a seal, for which every segment keeps room.
pub(super) const SEAL_BYTES: u64 = RECORD_HEADER_BYTES as u64;

/// Bytes that so many take where something follows.
pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(RECORD_ALIGNMENT as usize)
}

const FLAG_BATCH_END: u8 = 1;
const STATES_FIELD: std::ops::Range<usize> = 14..16;
const GROUP_FIELD: std::ops::Range<usize> = 16..24;

/// What must be known of a segment to read its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What the checksums of headers begin with.
    pub(super) seed: u32,
    /// Whether records name a group and count hard states: not so before version 3.
    pub(super) has_groups: bool,
    pub(super) layout: RunLayout,
}

/// How the payload of a record is laid out that has entries, see `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunLayout {
    /// One encoded entry; up to version 3.
    One,
    /// Each entry behind its encoded header; versions 4 and 5.
    Headers,
    /// The heads of all entries, and then their payloads.
    Heads,
}

/// What a record is. 0 is never valid, so that zeros are not records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// A run of entries; its id is that of the last one.
    Entry,
    /// Term and vote, and how far the log must be refilled; its id is that of the last entry at
    /// that point.
    HardState,
    /// Drops the entry at its index and all behind it.
    Truncate,
    /// The last record of a segment that is full.
    Seal,
    /// Says nothing but what was synced before it.
    Witness,
    /// Its id is the start of the log: the entries up to it were compacted.
    Start,
    /// Drops all entries; the log begins behind its id.
    Reset,
    /// Entries again that stand in an older segment as well, so that this one can go.
    Moved,
}

impl RecordKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::HardState => 2,
            Self::Truncate => 3,
            Self::Seal => 4,
            Self::Witness => 5,
            Self::Start => 6,
            Self::Reset => 7,
            Self::Moved => 8,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::HardState),
            3 => Some(Self::Truncate),
            4 => Some(Self::Seal),
            5 => Some(Self::Witness),
            6 => Some(Self::Start),
            7 => Some(Self::Reset),
            8 => Some(Self::Moved),
            _ => None,
        }
    }

    /// Whether the payload is a run of entries.
    pub(super) fn has_entries(self) -> bool {
        matches!(self, Self::Entry | Self::Moved)
    }

    /// Whether a record of this kind may have a payload of so many bytes.
    pub(super) fn allows(self, payload_bytes: usize) -> bool {
        match self {
            Self::Entry | Self::Moved => payload_bytes <= ENTRY_BYTES_MAX,
            Self::HardState => PROMISES_BYTES.contains(&payload_bytes),
            Self::Truncate | Self::Seal | Self::Witness | Self::Start | Self::Reset => {
                payload_bytes == 0
            }
        }
    }
}

/// The fields of a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: RecordKind,
    /// Whose log it belongs to.
    pub(super) group: GroupId,
    /// The hard states in the log up to here, this record included; the low 16 bits of their
    /// number. What lies in a damaged place is unknown, but not how many hard states did.
    pub(super) states: u16,
    /// Whether it is the last one of its batch.
    pub(super) batch_end: bool,
    pub(super) payload_bytes: u32,
    pub(super) payload_checksum: u32,
    pub(super) id: LogId,
    /// The offset in this segment up to which all was known to be synced when this was written.
    pub(super) synced_to: u64,
}

/// What 48 bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A header of this segment.
    Record(RecordHeader),
    /// Not a header of this segment: zeros, torn, damaged, or of another file.
    Nothing,
    /// A header of this segment that this version cannot understand.
    Newer,
}

impl RecordHeader {
    /// The bytes of the header, by the seed of its segment, and the checksum in them, which names
    /// the record for good.
    pub(super) fn encode(&self, seed: u32) -> ([u8; RECORD_HEADER_BYTES], u32) {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12] = self.kind.to_byte();
        bytes[13] = if self.batch_end { FLAG_BATCH_END } else { 0 };
        bytes[STATES_FIELD].copy_from_slice(&self.states.to_le_bytes());
        bytes[GROUP_FIELD].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.id.index.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.id.term.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.synced_to.to_le_bytes());
        let checksum = crc32c::crc32c_append(seed, &bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Reads a header at a place where none need be, of a file of `file_bytes`: `None` where it
    /// cannot have been written at `offset`.
    pub(super) fn decode_stray(
        bytes: &[u8; RECORD_HEADER_BYTES],
        frame: Frame,
        offset: u64,
        file_bytes: u64,
    ) -> Option<Self> {
        // Most of what is no header shows here, without a checksum.
        let kind = RecordKind::from_byte(bytes[12])?;
        let length = u32_at(bytes, 8) as usize;
        if u64_at(bytes, 40) > offset || !kind.allows(length) {
            return None;
        }
        match Self::decode(bytes, frame) {
            Decoded::Record(header) if offset + header.record_bytes() <= file_bytes => Some(header),
            _ => None,
        }
    }

    /// Reads a header. Never fails on arbitrary bytes.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER_BYTES], frame: Frame) -> Decoded {
        let checksum = |bytes: &[u8]| crc32c::crc32c_append(frame.seed, bytes);
        if bytes[12] == 0 || header_checksum(bytes) != checksum(&bytes[4..]) {
            return Decoded::Nothing;
        }
        let Some(kind) = RecordKind::from_byte(bytes[12]) else {
            return Decoded::Newer;
        };
        let states = u16::from_le_bytes([bytes[14], bytes[15]]);
        let group = GroupId(u64_at(bytes, GROUP_FIELD.start));
        let is_older = group == GroupId(0) && states == 0 && kind != RecordKind::Moved;
        if bytes[13] & !FLAG_BATCH_END != 0 || !(frame.has_groups || is_older) {
            return Decoded::Newer;
        }
        Decoded::Record(Self {
            kind,
            group,
            states,
            batch_end: bytes[13] & FLAG_BATCH_END != 0,
            payload_bytes: u32_at(bytes, 8),
            payload_checksum: u32_at(bytes, 4),
            id: LogId::new(Term(u64_at(bytes, 32)), Index(u64_at(bytes, 24))),
            synced_to: u64_at(bytes, 40),
        })
    }

    /// Bytes that the whole record takes in the segment.
    pub(super) fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes as usize)
    }
}

/// The checksum in a header.
pub(super) fn header_checksum(bytes: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    u32_at(bytes, 0)
}

/// Bytes that a record with such a payload takes in a segment.
pub(super) fn record_bytes(payload_bytes: usize) -> u64 {
    ((RECORD_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(RECORD_ALIGNMENT)
}

/// The number at `offset`, which is inside `bytes`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

/// The number at `offset`, which is inside `bytes`.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seed: u32) -> Frame {
        Frame {
            seed,
            has_groups: true,
            layout: RunLayout::Heads,
        }
    }

    fn sample() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Entry,
            group: GroupId(6),
            states: 0x0a0b,
            batch_end: true,
            payload_bytes: 77,
            payload_checksum: 0xdead_beef,
            id: LogId::new(Term(3), Index(9)),
            synced_to: 4096,
        }
    }

    #[test]
    fn a_header_decodes_to_itself_under_its_own_seed_only() {
        let (bytes, checksum) = sample().encode(5);
        assert_eq!(
            RecordHeader::decode(&bytes, frame(5)),
            Decoded::Record(sample())
        );
        assert_eq!(RecordHeader::decode(&bytes, frame(6)), Decoded::Nothing);
        assert_eq!(header_checksum(&bytes), checksum);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let (good, _) = sample().encode(5);
        for bit in 0..RECORD_HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let decoded = RecordHeader::decode(&bad, frame(5));
            assert_eq!(decoded, Decoded::Nothing, "bit {bit}");
        }
    }

    /// Random bytes match a checksum once in 2^32 times, and a file has millions of places.
    #[test]
    fn a_stray_header_counts_only_where_it_can_have_been_written() {
        let (bytes, _) = sample().encode(5);
        let bytes_max = |offset: u64| offset + sample().record_bytes();
        let stray =
            |offset, file_bytes| RecordHeader::decode_stray(&bytes, frame(5), offset, file_bytes);
        assert_eq!(stray(4096, bytes_max(4096)), Some(sample()));
        assert_eq!(
            stray(4096, bytes_max(4096) - 1),
            None,
            "the file ends in it"
        );
        assert_eq!(stray(4088, 1 << 20), None, "it says that more was synced");
        let impossible = RecordHeader {
            kind: RecordKind::Seal,
            ..sample()
        };
        let (bytes, _) = impossible.encode(5);
        let found = RecordHeader::decode_stray(&bytes, frame(5), 4096, 1 << 20);
        assert_eq!(found, None, "a seal has no payload");
    }

    fn decode_changed(position: usize, value: u8, frame: Frame) -> Decoded {
        let older = RecordHeader {
            group: GroupId(0),
            states: 0,
            ..sample()
        };
        let (mut bytes, _) = older.encode(5);
        bytes[position] = value;
        let checksum = crc32c::crc32c_append(5, &bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        RecordHeader::decode(&bytes, frame)
    }

    #[test]
    fn an_unknown_kind_or_flag_with_a_right_checksum_is_newer() {
        let older = Frame {
            has_groups: false,
            ..frame(5)
        };
        for (position, value) in [(12, 9), (13, 2)] {
            for frame in [frame(5), older] {
                let decoded = decode_changed(position, value, frame);
                assert_eq!(decoded, Decoded::Newer);
            }
        }
        // Groups, counts and moved entries are known since version 3.
        for (position, value) in [(12, 8), (14, 1), (16, 1), (23, 1)] {
            let decoded = decode_changed(position, value, frame(5));
            assert!(matches!(decoded, Decoded::Record(_)), "{position}");
            assert_eq!(decode_changed(position, value, older), Decoded::Newer);
        }
    }
}
