//! Bytes that nobody honest would send: an error, and no more work or memory than they are worth.

use std::fmt::Debug;

use kv_api::limits::FRAME_BYTES_MAX;
use kv_api::{
    Command, CommandReply, DecodeError, Query, QueryReply, Request, Response, codec, decode, encode,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::words;

/// Decodes as every type there is.
fn decode_as_all(bytes: &[u8]) {
    fn decode_as<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
        if let Ok(value) = decode::<T>(bytes) {
            // There is one encoding of a value: whatever is accepted is it.
            assert_eq!(encode(&value), bytes);
        }
    }
    decode_as::<Command>(bytes);
    decode_as::<CommandReply>(bytes);
    decode_as::<Query>(bytes);
    decode_as::<QueryReply>(bytes);
    decode_as::<Request>(bytes);
    decode_as::<Response>(bytes);
}

/// Puts a number wherever a length might stand. Were one believed, the allocation would end the
/// process, not the test.
fn lie_about_lengths<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let honest = encode(value);
    for position in 1..honest.len().saturating_sub(7) {
        for lie in [1 << 24, 1 << 33, u64::MAX / 2, u64::MAX] {
            let mut bytes = honest.clone();
            bytes[position..position + 8].copy_from_slice(&lie.to_le_bytes());
            decode_as_all(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..200)) {
        decode_as_all(&bytes);
        // A right beginning gets further.
        for variant in 0..15 {
            let begun = [&[codec::VERSION, variant, 0, 0, 0][..], &bytes].concat();
            decode_as_all(&begun);
        }
    }

    #[test]
    fn flipped_bytes(
        command in words::command(),
        reply in words::query_reply(),
        response in words::response(),
        at in any::<prop::sample::Index>(),
        with in 1_u8..,
    ) {
        for mut bytes in [encode(&command), encode(&reply), encode(&response)] {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            decode_as_all(&bytes);
        }
    }

    #[test]
    fn cut_bytes(reply in words::query_reply(), response in words::response()) {
        for bytes in [encode(&reply), encode(&response)] {
            for end in 0..bytes.len() {
                decode_as_all(&bytes[..end]);
            }
        }
    }

    #[test]
    fn lengths_that_lie(
        command in words::command(),
        reply in words::query_reply(),
        response in words::response(),
    ) {
        lie_about_lengths(&command);
        lie_about_lengths(&reply);
        lie_about_lengths(&response);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_by_name() {
    // A Get with a key of 8 GiB, of which one byte is there.
    let mut bytes = vec![codec::VERSION, 0, 0, 0, 0];
    bytes.extend_from_slice(&(1_u64 << 33).to_le_bytes());
    bytes.push(b'k');
    match decode::<Query>(&bytes) {
        Err(DecodeError::Malformed(message)) => assert_eq!(message, "LimitExceeded"),
        other => panic!("{other:?}"),
    }
    // The same at the limit: there is not that much behind it.
    bytes[5..13].copy_from_slice(&(FRAME_BYTES_MAX as u64 - 100).to_le_bytes());
    assert!(matches!(
        decode::<Query>(&bytes),
        Err(DecodeError::Malformed(_))
    ));
}
