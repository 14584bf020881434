//! What is encoded comes back as it was, and nothing else is taken for it.

use std::fmt::Debug;

use bytes::Bytes;
use kv_api::{Command, DecodeError, WriteOp, codec, decode, encode};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::words;

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = encode(value);
    assert_eq!(bytes[0], codec::VERSION);
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));

    // One byte more, one less, another version: never a value.
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(decode::<T>(&longer), Err(DecodeError::Trailing(1)));
    assert!(decode::<T>(&bytes[..bytes.len() - 1]).is_err());
    let mut foreign = bytes;
    foreign[0] = codec::VERSION + 1;
    let refused = DecodeError::Version(codec::VERSION + 1);
    assert_eq!(decode::<T>(&foreign), Err(refused));
    assert_eq!(decode::<T>(&[]), Err(DecodeError::Empty));
}

proptest! {
    #[test]
    fn commands(value in words::command()) {
        comes_back(&value);
    }

    #[test]
    fn command_replies(value in words::command_reply()) {
        comes_back(&value);
    }

    #[test]
    fn queries(value in words::query()) {
        comes_back(&value);
    }

    #[test]
    fn query_replies(value in words::query_reply()) {
        comes_back(&value);
    }

    #[test]
    fn requests(value in words::request()) {
        comes_back(&value);
    }

    #[test]
    fn responses(value in words::response()) {
        comes_back(&value);
    }
}

/// The store keeps what decoding gives it. Were that a slice of what was decoded, a small value
/// would keep a whole frame in memory.
#[test]
fn what_is_decoded_shares_nothing_with_the_bytes() {
    let op = WriteOp::Put {
        key: "key".into(),
        value: vec![7; 1000].into(),
    };
    let bytes = Bytes::from(encode(&Command::Write { stamp: None, op }));
    let command = decode(&bytes).expect("just encoded");
    let Command::Write {
        op: WriteOp::Put { key, value },
        ..
    } = command
    else {
        panic!("{command:?}");
    };
    for part in [&key, &value] {
        assert!(!bytes.as_ptr_range().contains(&part.as_ptr()));
    }
}
