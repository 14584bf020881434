//! The frame: its header, and a decoder that takes bytes as they come. No IO.
//!
//! ```text
//! offset  size  field (little endian)
//!      0     2  magic, f1 07
//!      2     1  version, 1
//!      3     1  kind, the user's
//!      4     4  payload length
//!      8     4  crc32c of bytes 0..8 and the payload
//!     12     -  payload
//! ```

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::FrameError;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 12;

/// Bytes of the header that the checksum covers.
const CHECKED_HEADER_BYTES: usize = 8;

const MAGIC: u16 = 0x07f1;
const VERSION: u8 = 1;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the users of the stream agreed on.
    pub kind: u8,
    /// The bytes, in an allocation of their own: to keep a part of it keeps this frame, no more.
    pub payload: Bytes,
}

/// The header of a frame with the given payload.
pub(crate) fn encode_header(
    kind: u8,
    payload_bytes: u32,
    payload: &[Bytes],
) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    header[2] = VERSION;
    header[3] = kind;
    header[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
    let checksum = payload.iter().fold(
        crc32c::crc32c(&header[..CHECKED_HEADER_BYTES]),
        |checksum, part| crc32c::crc32c_append(checksum, part),
    );
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// A header that was read, and as much of the payload as is there.
#[derive(Debug)]
struct Partial {
    kind: u8,
    payload_bytes: usize,
    stored: u32,
    checksum: u32,
    payload: BytesMut,
}

/// Turns the bytes of a stream into frames. It holds the bytes given to it and at most one frame
/// that is not complete.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    partial: Option<Partial>,
    /// Once the stream is not understood, nothing behind that place can be.
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// An empty decoder at the start of a frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunk_bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// The next frame, if all of it is here.
    ///
    /// # Errors
    /// When the bytes are no frame, or a larger one than `payload_bytes_max`: that is
    /// known from the header, before any memory is taken for the payload. Every later call gives
    /// the same error.
    pub fn next_frame(&mut self, payload_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance(payload_bytes_max)
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Whether a frame has begun and is not complete.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        self.partial.is_some() || self.chunk_bytes > 0
    }

    fn advance(&mut self, payload_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => match self.take_header()? {
                Some(partial) => partial,
                None => return Ok(None),
            },
        };
        if partial.payload_bytes > payload_bytes_max {
            return Err(FrameError::TooLarge {
                bytes: partial.payload_bytes,
                limit: payload_bytes_max,
            });
        }
        self.fill(&mut partial);
        if partial.payload.len() < partial.payload_bytes {
            self.partial = Some(partial);
            return Ok(None);
        }
        if partial.checksum != partial.stored {
            return Err(FrameError::Checksum {
                found: partial.checksum,
                stored: partial.stored,
            });
        }
        Ok(Some(Frame {
            kind: partial.kind,
            payload: partial.payload.freeze(),
        }))
    }

    fn take_header(&mut self) -> Result<Option<Partial>, FrameError> {
        if self.chunk_bytes < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        self.copy_to(&mut header);
        let mut fields = &header[..];
        let magic = fields.get_u16_le();
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let version = fields.get_u8();
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        Ok(Some(Partial {
            kind: fields.get_u8(),
            payload_bytes: fields.get_u32_le() as usize,
            stored: fields.get_u32_le(),
            checksum: crc32c::crc32c(&header[..CHECKED_HEADER_BYTES]),
            payload: BytesMut::new(),
        }))
    }

    /// Moves what is here of the payload into its place.
    fn fill(&mut self, partial: &mut Partial) {
        let missing = partial.payload_bytes - partial.payload.len();
        let mut count = missing.min(self.chunk_bytes);
        if count > 0 && partial.payload.is_empty() {
            partial.payload = BytesMut::with_capacity(partial.payload_bytes);
        }
        while count > 0 {
            let taken = self.take_chunk(count);
            partial.checksum = crc32c::crc32c_append(partial.checksum, &taken);
            partial.payload.extend_from_slice(&taken);
            count -= taken.len();
        }
    }

    /// Takes bytes from the front, at most `count` and at most one chunk.
    ///
    /// # Panics
    /// When no bytes are there, which the callers have checked.
    fn take_chunk(&mut self, count: usize) -> Bytes {
        let mut front = self.chunks.pop_front().expect("the count was checked");
        let taken = front.split_to(count.min(front.len()));
        if !front.is_empty() {
            self.chunks.push_front(front);
        }
        self.chunk_bytes -= taken.len();
        taken
    }

    fn copy_to(&mut self, target: &mut [u8]) {
        let mut filled = 0;
        while filled < target.len() {
            let taken = self.take_chunk(target.len() - filled);
            target[filled..filled + taken.len()].copy_from_slice(&taken);
            filled += taken.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
        let parts = [Bytes::copy_from_slice(payload)];
        let mut bytes = encode_header(kind, payload.len() as u32, &parts).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        assert_eq!(
            encode(7, b"abc"),
            [
                0xf1, 0x07, 1, 7, 3, 0, 0, 0, 0x3d, 0xb6, 0xd4, 0xd4, b'a', b'b', b'c'
            ]
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = encode(7, b"payload");
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                let mut decoder = FrameDecoder::new();
                decoder.push(bad.into());
                // A longer length is noticed when the stream ends inside the frame.
                let noticed = match decoder.next_frame(1 << 30) {
                    Ok(None) => decoder.is_inside_frame(),
                    Ok(Some(_)) => false,
                    Err(_) => true,
                };
                assert!(noticed, "byte {position} bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_from_its_header_alone() {
        let mut decoder = FrameDecoder::new();
        decoder.push(Bytes::copy_from_slice(&encode(7, &[0; 100])[..12]));
        let refused = FrameError::TooLarge {
            bytes: 100,
            limit: 99,
        };
        assert_eq!(decoder.next_frame(99), Err(refused.clone()));
        assert_eq!(decoder.next_frame(1 << 20), Err(refused));
    }

    #[test]
    fn a_partial_payload_takes_memory_only_as_its_bytes_come() {
        let mut decoder = FrameDecoder::new();
        decoder.push(Bytes::copy_from_slice(&encode(7, &[0; 100])[..12]));
        assert_eq!(decoder.next_frame(100), Ok(None));
        assert_eq!(decoder.partial.as_ref().unwrap().payload.capacity(), 0);
    }

    proptest::proptest! {
        #[test]
        fn frames_come_out_whatever_way_the_bytes_are_cut(
            payloads in proptest::collection::vec(
                proptest::collection::vec(proptest::num::u8::ANY, 0..300), 1..8),
            cuts in proptest::collection::vec(1_usize..200, 1..40),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| encode(3, payload)).collect();
            let mut rest = Bytes::from(bytes);
            let mut decoder = FrameDecoder::new();
            let mut frames = Vec::new();
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                decoder.push(rest.split_to(cut.min(rest.len())));
                while let Some(frame) = decoder.next_frame(300).unwrap() {
                    frames.push(frame.payload.to_vec());
                }
            }
            proptest::prop_assert_eq!(frames, payloads);
            proptest::prop_assert!(!decoder.is_inside_frame());
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_pass_the_limit(
            prefix in proptest::bool::ANY,
            chunks in proptest::collection::vec(
                proptest::collection::vec(proptest::num::u8::ANY, 0..40), 0..20),
        ) {
            let mut decoder = FrameDecoder::new();
            if prefix {
                decoder.push(Bytes::from_static(&[0xf1, 0x07, 1]));
            }
            for chunk in chunks {
                decoder.push(chunk.into());
                while let Ok(Some(frame)) = decoder.next_frame(64) {
                    proptest::prop_assert!(frame.payload.len() <= 64);
                }
            }
        }
    }
}
