//! A log entry and its encoding, which the wire and most stores carry. A store that keeps it in
//! another form keeps its checksum.
//!
//! ```text
//! offset  size  field
//!      0     1  version (1)
//!      1     1  kind: 1 no-op, 2 command, 3 membership
//!      2     2  zero
//!      4     4  payload length, little endian, like all that follow
//!      8     8  index
//!     16     8  term
//!     24     4  crc32c of bytes 0..24 and the payload
//!     28     4  zero
//!     32     -  payload
//! ```
//!
//! The payload is shared by reference count between the followers' frames, the disk and the state
//! machine; the header is made from the fields when it is needed. The checksum is computed once, by
//! the leader that creates the entry, and checked wherever the entry comes in from outside.

use bytes::{Buf, Bytes};

use crate::types::{Index, LogId, Term};

/// Bytes of an encoded entry before its payload.
pub const ENTRY_HEADER_BYTES: usize = 32;

/// The most bytes that a payload may have, whatever is configured. The length field could say more;
/// this bounds what a decoder will ever allocate.
pub const ENTRY_PAYLOAD_BYTES_MAX: usize = 64 << 20;

const VERSION: u8 = 1;
const CHECKED_HEADER_BYTES: usize = 24;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The empty entry that a leader puts at the start of its term (thesis section 6.4, and the
    /// own-term commit rule of paper section 5.4.2).
    Noop,
    /// A command for the state machine.
    Command,
    /// A new membership of the group; it takes effect when it is appended (paper section 6).
    Membership,
}

impl EntryKind {
    /// The kind in one byte, from 1 on, as the encoding of an entry has it.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Noop => 1,
            Self::Command => 2,
            Self::Membership => 3,
        }
    }

    /// The kind that [`EntryKind::to_byte`] gives as `byte`, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Noop),
            2 => Some(Self::Command),
            3 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// A log entry. Cheap to clone: the payload is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    id: LogId,
    kind: EntryKind,
    checksum: u32,
    payload: Bytes,
}

/// What the first [`ENTRY_HEADER_BYTES`] of an encoded entry say. Whether that is true shows only
/// with the payload: see [`EntryHead::checksum_before_payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// The identity.
    pub id: LogId,
    /// What the entry is for.
    pub kind: EntryKind,
    /// Bytes of the payload that follows, at most [`ENTRY_PAYLOAD_BYTES_MAX`].
    pub payload_bytes: usize,
    /// The checksum that header and payload should have.
    pub checksum: u32,
    before_payload: u32,
}

impl EntryHead {
    /// Reads a header by itself.
    ///
    /// # Errors
    /// When version, kind or length are none that an entry has.
    pub fn decode(header: &[u8; ENTRY_HEADER_BYTES]) -> Result<Self, EntryDecodeError> {
        let mut fields = &header[..];
        let version = fields.get_u8();
        if version != VERSION {
            return Err(EntryDecodeError::Version(version));
        }
        let kind_byte = fields.get_u8();
        let kind = EntryKind::from_byte(kind_byte).ok_or(EntryDecodeError::Kind(kind_byte))?;
        let _zero = fields.get_u16_le();
        let payload_bytes = fields.get_u32_le() as usize;
        let index = Index(fields.get_u64_le());
        let term = Term(fields.get_u64_le());
        check_length(payload_bytes)?;
        Ok(Self {
            id: LogId::new(term, index),
            kind,
            payload_bytes,
            checksum: fields.get_u32_le(),
            before_payload: crc32c::crc32c(&header[..CHECKED_HEADER_BYTES]),
        })
    }

    /// The head of an entry that a store keeps in another form than the encoded header.
    ///
    /// # Errors
    /// When the length is above [`ENTRY_PAYLOAD_BYTES_MAX`].
    pub fn from_fields(
        id: LogId,
        kind: EntryKind,
        payload_bytes: usize,
        checksum: u32,
    ) -> Result<Self, EntryDecodeError> {
        check_length(payload_bytes)?;
        Ok(Self {
            id,
            kind,
            payload_bytes,
            checksum,
            before_payload: crc32c::crc32c(&header_prefix(id, kind, payload_bytes)),
        })
    }

    /// Bytes of the encoded entry: header and payload.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        ENTRY_HEADER_BYTES + self.payload_bytes
    }

    /// What the checksum of the entry goes on from: `crc32c_append` of this and the payload gives
    /// [`EntryHead::checksum`] where the entry is undamaged.
    #[must_use]
    pub fn checksum_before_payload(&self) -> u32 {
        self.before_payload
    }
}

/// Bytes that are not an encoded entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryDecodeError {
    /// Fewer bytes than the header announces; or another number, where the payload comes alone.
    #[error("entry is cut short: {have} of {need} bytes")]
    Short {
        /// Bytes that were there.
        have: usize,
        /// Bytes that the header asks for.
        need: usize,
    },
    /// Written by a newer version of this program, or not an entry at all.
    #[error("entry has version {0}, this program reads version 1")]
    Version(u8),
    /// A kind that this version does not know.
    #[error("entry has unknown kind {0}")]
    Kind(u8),
    /// The length field is above [`ENTRY_PAYLOAD_BYTES_MAX`].
    #[error("entry payload of {0} bytes is above the limit of {ENTRY_PAYLOAD_BYTES_MAX}")]
    Length(usize),
    /// The bytes are damaged.
    #[error("entry {id} has checksum {found:08x}, its header says {stored:08x}")]
    Checksum {
        /// The id that the damaged header names.
        id: LogId,
        /// The checksum of the bytes.
        found: u32,
        /// The checksum in the header.
        stored: u32,
    },
}

impl Entry {
    /// A new entry.
    ///
    /// # Panics
    /// When the payload is larger than [`ENTRY_PAYLOAD_BYTES_MAX`]; the configured limit, which is
    /// checked before a proposal is accepted, is never above it.
    #[must_use]
    pub fn new(id: LogId, kind: EntryKind, payload: Bytes) -> Self {
        assert!(
            payload.len() <= ENTRY_PAYLOAD_BYTES_MAX,
            "payload limit is checked on entry"
        );
        let checksum = checksum(&header_prefix(id, kind, payload.len()), &payload);
        Self {
            id,
            kind,
            checksum,
            payload,
        }
    }

    /// The entry that has this head and this payload.
    ///
    /// # Errors
    /// When the payload is not as long as the head says, or does not match its checksum.
    pub fn from_head(head: &EntryHead, payload: Bytes) -> Result<Self, EntryDecodeError> {
        let (have, need) = (payload.len(), head.payload_bytes);
        if have != need {
            return Err(EntryDecodeError::Short { have, need });
        }
        let found = crc32c::crc32c_append(head.checksum_before_payload(), &payload);
        let (id, stored) = (head.id, head.checksum);
        if found != stored {
            return Err(EntryDecodeError::Checksum { id, found, stored });
        }
        Ok(Self {
            id,
            kind: head.kind,
            checksum: stored,
            payload,
        })
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Its position.
    #[must_use]
    pub fn index(&self) -> Index {
        self.id.index
    }

    /// The term of the leader that created it.
    #[must_use]
    pub fn term(&self) -> Term {
        self.id.term
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// The command, or the membership; empty for a no-op.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// CRC-32C of what it is and of its payload, as its encoded header has it.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Bytes of the encoded entry: header and payload.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        ENTRY_HEADER_BYTES + self.payload.len()
    }

    /// The encoded header. The payload follows it unchanged.
    #[inline]
    #[must_use]
    pub fn header(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let [first, index, term] = header_words(self.id, self.kind, self.payload.len());
        little_endian([first, index, term, self.checksum.into()])
    }

    /// Takes one entry from the front of `bytes` and checks it. The payload shares the buffer.
    ///
    /// # Errors
    /// When the front of `bytes` is not one whole, undamaged entry; `bytes` is then unspecified.
    pub fn decode(bytes: &mut Bytes) -> Result<Self, EntryDecodeError> {
        let short = |have, need| EntryDecodeError::Short { have, need };
        let Some(header) = bytes.first_chunk::<ENTRY_HEADER_BYTES>() else {
            return Err(short(bytes.len(), ENTRY_HEADER_BYTES));
        };
        let head = EntryHead::decode(header)?;
        let (have, need) = (bytes.len(), head.encoded_len());
        if have < need {
            return Err(short(have, need));
        }
        bytes.advance(ENTRY_HEADER_BYTES);
        Self::from_head(&head, bytes.split_to(head.payload_bytes))
    }
}

fn check_length(payload_bytes: usize) -> Result<(), EntryDecodeError> {
    if payload_bytes > ENTRY_PAYLOAD_BYTES_MAX {
        return Err(EntryDecodeError::Length(payload_bytes));
    }
    Ok(())
}

fn header_prefix(id: LogId, kind: EntryKind, length: usize) -> [u8; CHECKED_HEADER_BYTES] {
    little_endian(header_words(id, kind, length))
}

/// Version, kind, two zeros and the length are the first word.
fn header_words(id: LogId, kind: EntryKind, length: usize) -> [u64; 3] {
    let length = u32::try_from(length).expect("payload limit is below 4 GiB");
    let first = u64::from(VERSION) | u64::from(kind.to_byte()) << 8 | u64::from(length) << 32;
    [first, id.index.0, id.term.0]
}

/// In whole words, because a batch has thousands of headers.
fn little_endian<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (field, word) in bytes.chunks_exact_mut(8).zip(words) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn checksum(prefix: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(prefix), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(entry: &Entry) -> Vec<u8> {
        let mut bytes = entry.header().to_vec();
        bytes.extend_from_slice(entry.payload());
        bytes
    }

    fn sample() -> Entry {
        let id = LogId::new(Term(7), Index(42));
        Entry::new(id, EntryKind::Command, Bytes::from_static(b"value"))
    }

    #[test]
    fn an_encoded_entry_decodes_to_itself_and_leaves_the_rest() {
        let mut bytes = encode(&sample());
        bytes.extend_from_slice(b"rest");
        let mut bytes = Bytes::from(bytes);
        assert_eq!(Entry::decode(&mut bytes).unwrap(), sample());
        assert_eq!(&bytes[..], b"rest");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&sample());
        for position in 0..good.len() {
            if (2..4).contains(&position) || (28..32).contains(&position) {
                continue; // 2..4 is covered below; 28..32 is padding that nothing reads.
            }
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                assert!(
                    Entry::decode(&mut Bytes::from(bad)).is_err(),
                    "byte {position} bit {bit}"
                );
            }
        }
        for length in 0..good.len() {
            let mut cut = Bytes::copy_from_slice(&good[..length]);
            assert!(Entry::decode(&mut cut).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_anything_is_allocated() {
        let mut bytes = encode(&sample());
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let refused = Entry::decode(&mut Bytes::from(bytes));
        assert_eq!(refused, Err(EntryDecodeError::Length(u32::MAX as usize)));
        let fields = |length| EntryHead::from_fields(LogId::ZERO, EntryKind::Noop, length, 0);
        assert!(fields(ENTRY_PAYLOAD_BYTES_MAX).is_ok());
        let above = ENTRY_PAYLOAD_BYTES_MAX + 1;
        assert_eq!(fields(above), Err(EntryDecodeError::Length(above)));
    }

    #[test]
    fn an_entry_comes_back_from_its_fields() {
        let entry = sample();
        let (id, kind, sum) = (entry.id(), entry.kind(), entry.checksum());
        let head = EntryHead::from_fields(id, kind, 5, sum).unwrap();
        let header = entry.header();
        assert_eq!(EntryHead::decode(&header), Ok(head));
        let payload = entry.payload();
        assert_eq!(Entry::from_head(&head, payload.clone()), Ok(entry.clone()));
        for payload in ["", "valu", "valuf", "value!"] {
            let refused = Entry::from_head(&head, Bytes::from(payload));
            assert!(refused.is_err(), "{payload}");
        }
        let noop = EntryHead::from_fields(id, EntryKind::Noop, 5, sum).unwrap();
        let next = LogId::new(id.term, id.index.next());
        let next = EntryHead::from_fields(next, kind, 5, sum).unwrap();
        for head in [noop, next] {
            let refused = Entry::from_head(&head, payload.clone());
            assert!(matches!(refused, Err(EntryDecodeError::Checksum { .. })));
        }
    }

    #[test]
    fn kinds_are_told_by_a_byte() {
        for kind in [EntryKind::Noop, EntryKind::Command, EntryKind::Membership] {
            assert_eq!(EntryKind::from_byte(kind.to_byte()), Some(kind));
        }
        let known = (0..=u8::MAX).filter_map(EntryKind::from_byte);
        assert_eq!(known.count(), 3);
    }
}
