//! The keys and values of a state in the database. Numbers in keys are big endian, so that keys
//! sort as the numbers do; numbers in values are little endian.
//!
//! ```text
//! key                         value
//! 'd' key                     a key that is not there now but was: the revision that deleted it
//! 'h' end u64                 the version that ended at this revision: 2 replaced or 3 deleted
//!                             (1 byte), create, mod, version: u64 each, bytes of the key u32, key,
//!                             value
//! 'l' key                     what the key holds now: create, mod, version: u64 each, bytes of the
//!                             value u32, and the value, where it has at most 4 KiB
//! 'm'                         counters and limits: see `Summary`
//! 'r' session u64 call u64    the kept answer, encoded
//! 's' session u64             index of the last entry that used it u64, unanswered_from u64
//! 'v' key                     the value, where it has more than 4 KiB
//! ```

use bytes::{BufMut, Bytes};
use kv_api::SessionId;

use crate::sessions::SessionLimits;
use crate::store::Retention;
use crate::store::history::Superseded;
use crate::store::version::{Place, Version};

/// Values up to this many bytes lie beside the numbers of their key. Larger ones are kept apart, so
/// that whoever looks for keys does not read them.
pub(super) const VALUE_HERE_MAX: usize = 4 << 10;

pub(super) const DELETED: u8 = b'd';
pub(super) const HISTORY: u8 = b'h';
pub(super) const LIVE: u8 = b'l';
pub(super) const REPLY: u8 = b'r';
pub(super) const SESSION: u8 = b's';
pub(super) const VALUE: u8 = b'v';

pub(super) const SUMMARY_KEY: &[u8] = b"m";

const REPLACED_BY: u8 = 2;
const DELETED_BY: u8 = 3;

/// A key of the store behind the letter of its kind.
pub(super) fn of_key(kind: u8, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len() + 1);
    name.push(kind);
    name.extend_from_slice(key);
    name
}

pub(super) fn of_number(kind: u8, number: u64) -> [u8; 9] {
    let mut name = [kind; 9];
    name[1..].copy_from_slice(&number.to_be_bytes());
    name
}

pub(super) fn of_reply(session: SessionId, call: u64) -> [u8; 17] {
    let mut name = [REPLY; 17];
    name[1..9].copy_from_slice(&session.0.to_be_bytes());
    name[9..].copy_from_slice(&call.to_be_bytes());
    name
}

/// The number behind the letter of a kind.
pub(super) fn number_in(name: &[u8]) -> Option<u64> {
    let number: [u8; 8] = name.get(1..)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

/// The session and the call of a kept answer.
pub(super) fn reply_in(name: &[u8]) -> Option<(u64, u64)> {
    let (session, call) = name.get(1..)?.split_first_chunk::<8>()?;
    let call = u64::from_be_bytes(call.try_into().ok()?);
    Some((u64::from_be_bytes(*session), call))
}

pub(super) fn put_numbers(value: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        value.put_u64_le(*number);
    }
}

pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_le_bytes(*number))
}

fn take_length(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    Some(u32::from_le_bytes(*number))
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("bounded by the limits of the store")
}

fn take_version(rest: &mut &[u8]) -> Option<Version> {
    Some(Version {
        create_revision: take_number(rest)?,
        mod_revision: take_number(rest)?,
        version: take_number(rest)?,
        value: Bytes::new(),
        previous: Place::NONE,
    })
}

fn put_version(value: &mut Vec<u8>, version: &Version) {
    let numbers = [
        version.create_revision,
        version.mod_revision,
        version.version,
    ];
    put_numbers(value, &numbers);
}

pub(super) fn is_apart(version: &Version) -> bool {
    version.value.len() > VALUE_HERE_MAX
}

/// What a key holds now.
pub(super) fn encode_live(version: &Version) -> Vec<u8> {
    let mut value = Vec::new();
    put_version(&mut value, version);
    value.put_u32_le(length_of(&version.value));
    if !is_apart(version) {
        value.extend_from_slice(&version.value);
    }
    value
}

/// The version, and the bytes of its value where that is kept apart.
pub(super) fn decode_live(value: &[u8]) -> Option<(Version, Option<u32>)> {
    let mut rest = value;
    let mut version = take_version(&mut rest)?;
    let length = take_length(&mut rest)?;
    if length as usize > VALUE_HERE_MAX {
        return rest.is_empty().then_some((version, Some(length)));
    }
    version.value = Bytes::copy_from_slice(rest);
    (rest.len() == length as usize).then_some((version, None))
}

/// A version that holds no more.
pub(super) fn encode_superseded(superseded: &Superseded) -> Vec<u8> {
    let fate = if superseded.deleted {
        DELETED_BY
    } else {
        REPLACED_BY
    };
    let mut value = vec![fate];
    put_version(&mut value, &superseded.version);
    value.put_u32_le(length_of(&superseded.key));
    value.extend_from_slice(&superseded.key);
    value.extend_from_slice(&superseded.version.value);
    value
}

/// Its key, itself, and whether a deletion ended it.
pub(super) fn decode_superseded(value: &[u8]) -> Option<(Bytes, Version, bool)> {
    let (fate, mut rest) = value.split_first()?;
    let deleted = match *fate {
        REPLACED_BY => false,
        DELETED_BY => true,
        _ => return None,
    };
    let mut version = take_version(&mut rest)?;
    let length = take_length(&mut rest)?;
    let (key, value) = rest.split_at_checked(length as usize)?;
    version.value = Bytes::copy_from_slice(value);
    Some((Bytes::copy_from_slice(key), version, deleted))
}

/// What there is of everything, and the limits that it was kept with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) revision: u64,
    pub(super) oldest: u64,
    pub(super) live: u64,
    /// The end of the first version of the history, behind which the others are found.
    pub(super) history_from: u64,
    /// How many versions it has.
    pub(super) history: u64,
    /// Keys that it knows and that are not there now.
    pub(super) deleted: u64,
    pub(super) sessions_open: u64,
    pub(super) replies: u64,
    pub(super) retention: Retention,
    pub(super) sessions: SessionLimits,
}

impl Summary {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(104);
        let numbers = [
            self.revision,
            self.oldest,
            self.live,
            self.history_from,
            self.history,
            self.deleted,
            self.sessions_open,
            self.replies,
            self.retention.revisions_max as u64,
            self.retention.bytes_max as u64,
            self.sessions.sessions_max as u64,
            self.sessions.window_max,
            self.sessions.replies_max as u64,
        ];
        put_numbers(&mut value, &numbers);
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut rest = value;
        let mut next = || take_number(&mut rest);
        let summary = Self {
            revision: next()?,
            oldest: next()?,
            live: next()?,
            history_from: next()?,
            history: next()?,
            deleted: next()?,
            sessions_open: next()?,
            replies: next()?,
            retention: Retention {
                revisions_max: usize::try_from(next()?).ok()?,
                bytes_max: usize::try_from(next()?).ok()?,
            },
            sessions: SessionLimits {
                sessions_max: usize::try_from(next()?).ok()?,
                window_max: next()?,
                replies_max: usize::try_from(next()?).ok()?,
            },
        };
        rest.is_empty().then_some(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(value_bytes: usize) -> Version {
        Version {
            create_revision: 1,
            mod_revision: 2,
            version: 3,
            value: vec![7; value_bytes].into(),
            previous: Place::NONE,
        }
    }

    /// A state is opened years later: these bytes never change.
    #[test]
    fn the_bytes_of_records() {
        let numbers = [
            [1, 0, 0, 0, 0, 0, 0, 0],
            [2, 0, 0, 0, 0, 0, 0, 0],
            [3, 0, 0, 0, 0, 0, 0, 0],
        ];
        let numbers = numbers.concat();
        let small = encode_live(&version(2));
        assert_eq!(small, [&numbers[..], &[2, 0, 0, 0, 7, 7]].concat());
        let large = encode_live(&version(VALUE_HERE_MAX + 1));
        assert_eq!(large, [&numbers[..], &[1, 16, 0, 0]].concat());
        assert_eq!(of_number(HISTORY, 258), [b'h', 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(of_key(LIVE, b"key"), b"lkey");
        let reply = of_reply(SessionId(1), 2);
        assert_eq!(reply[..10], [b'r', 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!((reply[16], reply_in(&reply)), (2, Some((1, 2))));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_not_read() {
        for bytes in [0, 1, VALUE_HERE_MAX, VALUE_HERE_MAX + 1] {
            let honest = encode_live(&version(bytes));
            assert!(decode_live(&honest).is_some());
            for length in 0..honest.len() {
                assert!(decode_live(&honest[..length]).is_none(), "{length}");
            }
            assert!(decode_live(&[&honest[..], &[0]].concat()).is_none());
        }
        let summary = Summary {
            revision: 1,
            oldest: 2,
            live: 3,
            history_from: 4,
            history: 5,
            deleted: 8,
            sessions_open: 6,
            replies: 7,
            retention: Retention::default(),
            sessions: SessionLimits::default(),
        };
        let honest = summary.encode();
        assert_eq!(Summary::decode(&honest), Some(summary));
        for length in 0..honest.len() {
            assert_eq!(Summary::decode(&honest[..length]), None);
        }
    }
}
