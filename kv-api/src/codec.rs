//! The one place where words become bytes: a version byte, then bincode 2 with fixed settings.
//!
//! Decoding is always from a slice, with a limit on what may be allocated, and trailing bytes are
//! an error, so that nothing a peer sends can make a process grow or panic.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_BYTES_MAX;

/// The version of the encoding; the first byte of everything encoded.
pub const VERSION: u8 = 1;

type Settings = Configuration<LittleEndian, Fixint, Limit<FRAME_BYTES_MAX>>;

fn settings() -> Settings {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<FRAME_BYTES_MAX>()
}

/// Bytes that are not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing there.
    #[error("empty message")]
    Empty,
    /// Written by another version.
    #[error("encoding version {0}, this program reads {VERSION}")]
    Version(u8),
    /// Not a valid encoding.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// Bytes behind the end.
    #[error("{0} bytes behind the end of the message")]
    Trailing(usize),
}

/// Encodes a value.
///
/// # Panics
/// Never for the types of this crate: they have no form that cannot be encoded.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let unlimited = settings().with_no_limit();
    bincode::serde::encode_into_std_write(value, &mut bytes, unlimited)
        .expect("plain data encodes into memory");
    bytes
}

/// Decodes a value.
///
/// # Errors
/// When the bytes are not exactly one encoded value of this type and version.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&version, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (value, used) = bincode::serde::decode_from_slice(body, settings())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if used == body.len() {
        Ok(value)
    } else {
        Err(DecodeError::Trailing(body.len() - used))
    }
}
