//! The parts that the files of a state travel in. Nothing of it is trusted when it is read.
//!
//! ```text
//! offset  bytes
//!      0      1  2: what tells these parts from those of other kinds of images
//!      1      1  kind
//!      2      4  CRC-32C of all bytes behind it
//!      6
//! kind 1, once, the first:   version u32, files u32, bytes of all files u64,
//!                            term u64 and index u64 of the last command in the state
//! kind 2, before each file:  number of the file u32, its bytes u64, its name
//! kind 3, pieces of it:      number of the file u32, offset u64, the bytes
//! ```
//!
//! All numbers are little endian. Files come one after the other, and the pieces of each in order.

use bytes::{BufMut, Bytes, BytesMut};
use raft_core::{Index, LogId, StorageError, Term};

use crate::errors::{damaged, foreign};

/// The first byte of every part. Images of other kinds begin with another one.
pub const CHECKPOINT_TAG: u8 = 2;

/// Files that a state may have. RocksDB makes them of 64 MiB each, so this is more than fits on a
/// disk.
pub const STATE_FILES_MAX: u32 = 1_000_000;

/// Bytes of a file in one part.
pub(super) const PIECE_BYTES: usize = 512 << 10;

const VERSION: u32 = 1;

const HEAD: u8 = 1;
const FILE: u8 = 2;
const PIECE: u8 = 3;

const FRONT_BYTES: usize = 6;

/// Names are short; see [`is_file_name`].
const NAME_BYTES_MAX: usize = 64;

/// A part, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Head(Head),
    File {
        number: u32,
        bytes: u64,
        name: &'a str,
    },
    Piece {
        number: u32,
        offset: u64,
        bytes: &'a [u8],
    },
}

/// How much there is, and of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) files: u32,
    pub(super) bytes: u64,
    pub(super) applied: LogId,
}

impl Part<'_> {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        let kind = match self {
            Self::Head(_) => HEAD,
            Self::File { .. } => FILE,
            Self::Piece { bytes: piece, .. } => {
                bytes.reserve(FRONT_BYTES + 12 + piece.len());
                PIECE
            }
        };
        bytes.put_slice(&[CHECKPOINT_TAG, kind, 0, 0, 0, 0]);
        match self {
            Self::Head(head) => {
                bytes.put_u32_le(VERSION);
                bytes.put_u32_le(head.files);
                bytes.put_u64_le(head.bytes);
                bytes.put_u64_le(head.applied.term.0);
                bytes.put_u64_le(head.applied.index.0);
            }
            Self::File {
                number,
                bytes: size,
                name,
            } => {
                bytes.put_u32_le(*number);
                bytes.put_u64_le(*size);
                bytes.put_slice(name.as_bytes());
            }
            Self::Piece {
                number,
                offset,
                bytes: piece,
            } => {
                bytes.put_u32_le(*number);
                bytes.put_u64_le(*offset);
                bytes.put_slice(piece);
            }
        }
        let crc = crc32c::crc32c(&bytes[FRONT_BYTES..]);
        bytes[2..FRONT_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes.freeze()
    }

    /// # Errors
    /// `Foreign` for another version, `Damaged` for anything else that is no part.
    pub(super) fn decode(part: &[u8]) -> Result<Part<'_>, StorageError> {
        let cut = || wrong("it is cut short");
        let (front, rest) = part.split_first_chunk::<FRONT_BYTES>().ok_or_else(cut)?;
        let [tag, kind, crc @ ..] = *front;
        if tag != CHECKPOINT_TAG {
            return Err(wrong(format!("it is of format {tag}")));
        }
        if crc32c::crc32c(rest) != u32::from_le_bytes(crc) {
            return Err(wrong("its checksum does not match"));
        }
        let (number, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let number = u32::from_le_bytes(*number);
        if kind == HEAD {
            return decode_head(number, rest);
        }
        let (place, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let place = u64::from_le_bytes(*place);
        match kind {
            FILE => {
                let name = std::str::from_utf8(rest)
                    .ok()
                    .filter(|name| is_file_name(name));
                let name = name.ok_or_else(|| wrong("it names no file of a database"))?;
                Ok(Part::File {
                    number,
                    bytes: place,
                    name,
                })
            }
            PIECE => Ok(Part::Piece {
                number,
                offset: place,
                bytes: rest,
            }),
            kind => Err(wrong(format!("it is of kind {kind}"))),
        }
    }
}

fn decode_head(version: u32, rest: &[u8]) -> Result<Part<'_>, StorageError> {
    if version != VERSION {
        let what = format!("has version {version}, this program reads version {VERSION}");
        return Err(foreign(PLACE.as_ref(), what));
    }
    let fields: &[u8; 28] = rest
        .try_into()
        .map_err(|_| wrong(format!("its head has {} bytes", rest.len())))?;
    let (files, numbers) = fields
        .split_first_chunk::<4>()
        .ok_or_else(|| wrong("cut"))?;
    let mut numbers = numbers.chunks_exact(8).map(|number| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(number);
        u64::from_le_bytes(bytes)
    });
    let mut next = || numbers.next().unwrap_or_default();
    let (bytes, term, index) = (next(), next(), next());
    let files = u32::from_le_bytes(*files);
    if files == 0 || files > STATE_FILES_MAX {
        let what = format!("{files} files are outside the limit of 1 to {STATE_FILES_MAX}");
        return Err(wrong(what));
    }
    Ok(Part::Head(Head {
        files,
        bytes,
        applied: LogId::new(Term(term), Index(index)),
    }))
}

/// Stands in errors for the path that a part does not have.
const PLACE: &str = "part of an image";

pub(super) fn wrong(what: impl Into<String>) -> StorageError {
    damaged(PLACE.as_ref(), 0, what)
}

/// What RocksDB calls its files; nothing else may be written anywhere. What is left out of an image
/// (options, the lock, text logs) is not among them.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        !text.is_empty() && text.len() < NAME_BYTES_MAX && digits
    };
    name == "CURRENT"
        || name.strip_prefix("MANIFEST-").is_some_and(is_number)
        || name.strip_suffix(".sst").is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const HEAD: Part<'static> = Part::Head(Head {
        files: 3,
        bytes: 77,
        applied: LogId {
            term: Term(2),
            index: Index(9),
        },
    });

    /// Snapshots are kept for years: these bytes never change.
    #[test]
    fn the_bytes_of_version_1() {
        let hex = |part: &Part<'_>| -> String {
            let bytes = part.encode();
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let file = Part::File {
            number: 1,
            bytes: 5,
            name: "000012.sst",
        };
        let piece = Part::Piece {
            number: 1,
            offset: 3,
            bytes: b"ab",
        };
        let crc = |text: &str| {
            let bytes: Vec<u8> = (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect();
            let crc = crc32c::crc32c(&bytes).to_le_bytes();
            crc.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let head = "01000000030000004d0000000000000002000000000000000900000000000000";
        assert_eq!(hex(&HEAD), format!("0201{}{head}", crc(head)));
        let named = "0100000005000000000000003030303031322e737374";
        assert_eq!(hex(&file), format!("0202{}{named}", crc(named)));
        let bytes = "0100000003000000000000006162";
        assert_eq!(hex(&piece), format!("0203{}{bytes}", crc(bytes)));
        for part in [HEAD, file, piece] {
            assert_eq!(Part::decode(&part.encode()).unwrap(), part);
        }
    }

    #[test]
    fn only_files_of_a_database_have_names() {
        for name in ["CURRENT", "MANIFEST-000005", "000012.sst"] {
            assert!(is_file_name(name), "{name}");
        }
        for name in [
            "",
            ".sst",
            "../000012.sst",
            "a/1.sst",
            "CURRENT/..",
            "MANIFEST-",
            "MANIFEST-1/2",
            "LOCK",
            "OPTIONS-000007",
            "000012.log",
            "\0.sst",
        ] {
            assert!(!is_file_name(name), "{name}");
        }
        assert!(!is_file_name(&format!("{}.sst", "1".repeat(300))));
    }

    #[test]
    fn every_flip_of_a_part_is_noticed() {
        let honest = HEAD.encode();
        for at in 0..honest.len() {
            for bit in 0..8 {
                let mut bytes = honest.to_vec();
                bytes[at] ^= 1 << bit;
                let kind = at == 1;
                let same = Part::decode(&bytes).is_ok_and(|part| part == HEAD);
                assert!(!same, "byte {at}, bit {bit}");
                // The kind is not under the checksum; another one does not fit what follows.
                assert!(
                    kind || Part::decode(&bytes).is_err(),
                    "byte {at}, bit {bit}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(kind in 0_u8..5, bytes in vec(any::<u8>(), 0..80)) {
            let _ = Part::decode(&bytes);
            // A right checksum gets further than noise does.
            let crc = crc32c::crc32c(&bytes).to_le_bytes();
            let part = [&[CHECKPOINT_TAG, kind][..], &crc, &bytes].concat();
            let _ = Part::decode(&part);
        }
    }
}
