//! The bytes of an envelope, version 1. The table is in `docs/wire-format.md`.
//!
//! ```text
//! version (1 byte) | metadata (bincode 2, fixed-size integers, little endian) | tail
//! ```
//!
//! The metadata are a wire format of their own (`wire`), not the types of `raft-core`: those may
//! change, these bytes may not. The tail is what has one encoding everywhere: the entries of an
//! append, the membership of a snapshot. Entries are never copied: encoding shares the payloads
//! with the log, decoding shares them with the frame.

mod error;
mod tail;
mod wire;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bytes::{Bytes, BytesMut};
use raft_core::entry::ENTRY_HEADER_BYTES;
use raft_core::{Envelope, Message};

pub use error::{DecodeError, MEMBERSHIP_BYTES_MAX, VERSION};

use wire::WireEnvelope;

/// The most bytes that the encoding of an envelope has besides its entries or membership.
pub const METADATA_BYTES_MAX: usize = 256;

type Settings = Configuration<LittleEndian, Fixint, Limit<METADATA_BYTES_MAX>>;

fn settings() -> Settings {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<METADATA_BYTES_MAX>()
}

/// Encodes an envelope in parts, to be written one after the other. All small parts are slices of
/// one allocation; the payloads of entries are the entries' own.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<Bytes> {
    let (entries, membership) = match &envelope.message {
        Message::Append(append) => (&append.entries[..], Bytes::new()),
        Message::Snapshot(descriptor) => (&[][..], descriptor.meta.membership.encode()),
        _ => (&[][..], Bytes::new()),
    };
    let wire = WireEnvelope::new(envelope, membership.len());
    let mut metadata = [0; METADATA_BYTES_MAX];
    let length = bincode::serde::encode_into_slice(wire, &mut metadata, settings())
        .expect("every kind of message fits, which a test shows");
    let headers = entries.len() * ENTRY_HEADER_BYTES;
    let mut fixed = BytesMut::with_capacity(1 + length + headers + membership.len());
    fixed.extend_from_slice(&[VERSION]);
    fixed.extend_from_slice(&metadata[..length]);
    let mut start_of_headers = fixed.len();
    for entry in entries {
        fixed.extend_from_slice(&entry.header());
    }
    fixed.extend_from_slice(&membership);
    let mut fixed = fixed.freeze();
    let mut parts = Vec::with_capacity(1 + 2 * entries.len());
    for entry in entries {
        parts.push(fixed.split_to(start_of_headers + ENTRY_HEADER_BYTES));
        parts.push(entry.payload().clone());
        start_of_headers = 0;
    }
    if !fixed.is_empty() {
        parts.push(fixed);
    }
    parts
}

/// Decodes an envelope. The entries' payloads share the allocation of `bytes`.
///
/// # Errors
/// When the bytes are not exactly one envelope, its entries do not follow its base without a gap,
/// or its membership is none.
pub fn decode(bytes: Bytes) -> Result<Envelope, DecodeError> {
    let (&version, metadata) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (wire, used) = bincode::serde::decode_from_slice::<WireEnvelope, _>(metadata, settings())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    let mut rest = bytes.slice(1 + used..);
    let envelope = wire.into_envelope(&mut rest)?;
    if rest.is_empty() {
        Ok(envelope)
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}
