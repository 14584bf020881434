//! Every limit of the store's interface, by name.

/// Bytes of a key: 1 to this many.
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// Bytes of a value. An append may not grow a value beyond it either.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Bytes of an encoded command: one key, two values (compare and new), and room for the rest.
pub const COMMAND_BYTES_MAX: usize = KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX + 1024;

/// Bytes of a request or response frame.
pub const FRAME_BYTES_MAX: usize = COMMAND_BYTES_MAX + 4096;

/// Keys in one page of a scan.
pub const SCAN_KEYS_MAX: u32 = 10_000;

/// Bytes of keys and values in one page of a scan; at least one pair is always returned.
pub const SCAN_PAGE_BYTES_MAX: usize = 1 << 20;

/// Requests that one connection may have outstanding.
pub const CONNECTION_REQUESTS_MAX: usize = 4096;

/// Sessions that are kept. The one not used for the longest (in log order) is evicted first.
pub const SESSIONS_MAX: usize = 10_000;

/// How far a call of a session may be ahead of its oldest unacknowledged one. The replies of that
/// one and of those ahead of it are kept.
pub const SESSION_WINDOW_MAX: u64 = 4096;

/// Replies that are kept for all sessions together, about 100 MiB of them. Over it, whole sessions
/// are evicted, as over [`SESSIONS_MAX`].
pub const SESSION_REPLIES_MAX: usize = 1_000_000;

/// Superseded revisions that are kept for reads at a revision.
pub const HISTORY_REVISIONS_MAX: usize = 100_000;

/// Bytes of keys and values in superseded revisions that are kept.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

/// Members that a group may have.
pub const MEMBERS_MAX: usize = 9;

/// Bytes of a member's address: 1 to this many.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Bytes of one part of a snapshot. The state machine aims at an eighth of it; the room is for one
/// record of the largest size, a key with its value. A part fits into a frame.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 2 << 20;

/// A key, value or command is larger than allowed, or empty where it may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{what} of {bytes} bytes is outside its limit of {min} to {max}")]
pub struct LimitExceeded {
    /// `key`, `value`, `command` or `address`.
    pub what: String,
    /// Its size.
    pub bytes: u64,
    /// The smallest size allowed.
    pub min: u64,
    /// The largest size allowed.
    pub max: u64,
}

/// Checks a key.
///
/// # Errors
/// When it is empty or longer than [`KEY_BYTES_MAX`].
pub fn check_key(key: &[u8]) -> Result<(), LimitExceeded> {
    check("key", key.len(), 1, KEY_BYTES_MAX)
}

/// Checks a value.
///
/// # Errors
/// When it is longer than [`VALUE_BYTES_MAX`].
pub fn check_value(value: &[u8]) -> Result<(), LimitExceeded> {
    check_value_bytes(value.len())
}

/// Checks the size of a value that is not there yet.
///
/// # Errors
/// When it is above [`VALUE_BYTES_MAX`].
pub fn check_value_bytes(bytes: usize) -> Result<(), LimitExceeded> {
    check("value", bytes, 0, VALUE_BYTES_MAX)
}

/// Checks the address of a member. Whether it leads anywhere is not looked at.
///
/// # Errors
/// When it is empty or longer than [`ADDRESS_BYTES_MAX`].
pub fn check_address(address: &str) -> Result<(), LimitExceeded> {
    check("address", address.len(), 1, ADDRESS_BYTES_MAX)
}

fn check(what: &str, bytes: usize, min: usize, max: usize) -> Result<(), LimitExceeded> {
    if (min..=max).contains(&bytes) {
        return Ok(());
    }
    let (bytes, min, max) = (bytes as u64, min as u64, max as u64);
    Err(LimitExceeded {
        what: what.to_owned(),
        bytes,
        min,
        max,
    })
}
