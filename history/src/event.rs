//! The words of a history: what a client asked, what it was told, and when. One event is one line
//! of JSON. How events belong together is in `operation`.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format that this version writes and reads.
pub const SCHEMA: u32 = 1;

/// Bytes of a key or value that a message shows before it cuts.
const SHOWN_BYTES_MAX: usize = 32;

/// Bytes of a key or a value. Cheap to clone. In JSON a string where the bytes are UTF-8, otherwise
/// `{"hex": "00ff"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteString(Arc<[u8]>);

impl ByteString {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

/// Quoted, printable, and cut when long.
impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN_BYTES_MAX).unwrap_or(&self.0);
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Hex(Hex),
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let hex = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                Hex { hex }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(text.into()),
            Written::Hex(Hex { hex }) => from_hex(&hex)
                .map(Self::from)
                .ok_or_else(|| D::Error::custom(format!("{hex:?} is not pairs of hex digits"))),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

/// The first line: what was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format; [`SCHEMA`].
    pub schema: u32,
    /// The seed of the run, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The commit that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How it was run, in the words of whoever ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            seed: None,
            commit: None,
            config: None,
        }
    }
}

/// One line after the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The operation; its invocation and its completion carry the same number.
    pub id: u64,
    /// The logical client. It has one operation at a time, and no further one after an `info`.
    pub client: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When: taken before the request leaves and after its answer came. Intervals are closed: what
    /// ends at the moment when something else begins overlaps it.
    pub t: u64,
    /// What was asked; in an `invoke` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// What was answered; in an `ok` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub res: Option<Reply>,
    /// The term of the log entry; with `index`, in the `ok` of a write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// The index of the log entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The node that answered. For readers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The session of the client. For readers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The number of the call in its session. For readers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// What an event says about its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// It began.
    Invoke,
    /// It took effect, with this answer.
    Ok,
    /// It certainly took no effect.
    Fail,
    /// It may have taken effect, or may yet: its interval stays open for ever.
    Info,
}

/// What a client asks. Every operation is about one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "lowercase", deny_unknown_fields)]
pub enum Op {
    /// Set a value.
    Put {
        /// The key.
        key: ByteString,
        /// Its new value.
        value: ByteString,
    },
    /// Put bytes behind a value; an absent key counts as empty.
    Append {
        /// The key.
        key: ByteString,
        /// What to append.
        value: ByteString,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: ByteString,
    },
    /// Set a value where the current one is as expected.
    Cas {
        /// The key.
        key: ByteString,
        /// What must be there.
        expect: Expect,
        /// Its new value.
        value: ByteString,
    },
    /// Read, linearizably.
    Get {
        /// The key.
        key: ByteString,
    },
}

/// What a compare-and-set expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The key is absent.
    Absent,
    /// The key has this value.
    Value(ByteString),
    /// The key has this version.
    Version(u64),
}

impl Op {
    /// A [`Op::Put`].
    pub fn put(key: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
        }
    }

    /// An [`Op::Append`].
    pub fn append(key: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        Self::Append {
            key: key.into(),
            value: value.into(),
        }
    }

    /// A [`Op::Delete`].
    pub fn delete(key: impl Into<ByteString>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// An [`Op::Cas`].
    pub fn cas(key: impl Into<ByteString>, expect: Expect, value: impl Into<ByteString>) -> Self {
        Self::Cas {
            key: key.into(),
            expect,
            value: value.into(),
        }
    }

    /// An [`Op::Get`].
    pub fn get(key: impl Into<ByteString>) -> Self {
        Self::Get { key: key.into() }
    }

    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &ByteString {
        match self {
            Self::Put { key, .. }
            | Self::Append { key, .. }
            | Self::Delete { key }
            | Self::Cas { key, .. }
            | Self::Get { key } => key,
        }
    }

    /// Whether it goes through the log.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Get { .. })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key} {value}"),
            Self::Append { key, value } => write!(f, "append {key} {value}"),
            Self::Delete { key } => write!(f, "delete {key}"),
            Self::Cas { key, expect, value } => match expect {
                Expect::Absent => write!(f, "cas {key} absent to {value}"),
                Expect::Value(expected) => write!(f, "cas {key} {expected} to {value}"),
                Expect::Version(version) => write!(f, "cas {key} v{version} to {value}"),
            },
            Self::Get { key } => write!(f, "get {key}"),
        }
    }
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "r", rename_all = "lowercase", deny_unknown_fields)]
pub enum Reply {
    /// The key was set: to a put, an append, or a compare-and-set that matched.
    Written {
        /// Writes since the key was created, 1 for the first.
        version: u64,
        /// Bytes of the value afterwards.
        value_bytes: u64,
    },
    /// To a delete.
    Deleted {
        /// Whether the key had been there.
        existed: bool,
    },
    /// A compare-and-set found something else.
    Mismatch {
        /// The key's version, 0 where it is absent.
        version: u64,
    },
    /// A get found the key.
    Found {
        /// Its value.
        value: ByteString,
        /// Its version.
        version: u64,
    },
    /// A get found nothing.
    Absent,
}

impl Reply {
    /// Whether this can be an answer to `op` at all.
    #[must_use]
    pub fn answers(&self, op: &Op) -> bool {
        match op {
            Op::Put { .. } | Op::Append { .. } => matches!(self, Self::Written { .. }),
            Op::Delete { .. } => matches!(self, Self::Deleted { .. }),
            Op::Cas { .. } => matches!(self, Self::Written { .. } | Self::Mismatch { .. }),
            Op::Get { .. } => matches!(self, Self::Found { .. } | Self::Absent),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written {
                version,
                value_bytes,
            } => write!(f, "v{version} of {value_bytes} bytes"),
            Self::Deleted { existed: true } => f.write_str("deleted"),
            Self::Deleted { existed: false } => f.write_str("nothing to delete"),
            Self::Mismatch { version: 0 } => f.write_str("mismatch, absent"),
            Self::Mismatch { version } => write!(f, "mismatch, v{version}"),
            Self::Found { value, version } => write!(f, "{value} v{version}"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_written_as_text_and_other_bytes_as_hex() {
        let text = serde_json::to_string(&ByteString::from("a\"b")).unwrap();
        assert_eq!(text, r#""a\"b""#);
        let bytes = ByteString::from(vec![0x00, 0xff]);
        let hex = serde_json::to_string(&bytes).unwrap();
        assert_eq!(hex, r#"{"hex":"00ff"}"#);
        assert_eq!(serde_json::from_str::<ByteString>(&hex).unwrap(), bytes);
        for bad in [r#"{"hex":"0"}"#, r#"{"hex":"0g"}"#, r#"{"base":"00"}"#, "7"] {
            assert!(serde_json::from_str::<ByteString>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_is_one_flat_line() {
        let event = Event {
            id: 3,
            client: 1,
            kind: EventKind::Invoke,
            t: 10,
            op: Some(Op::cas("k", Expect::Version(2), "v")),
            res: None,
            term: None,
            index: None,
            node: Some(2),
            session: None,
            seq: None,
        };
        let line = serde_json::to_string(&event).unwrap();
        let expected = concat!(
            r#"{"id":3,"client":1,"type":"invoke","t":10,"op":{"f":"cas","key":"k","#,
            r#""expect":{"version":2},"value":"v"},"node":2}"#
        );
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn unknown_fields_and_operations_are_refused() {
        for bad in [
            r#"{"id":1,"client":1,"type":"invoke","t":1,"extra":1}"#,
            r#"{"id":1,"client":1,"type":"maybe","t":1}"#,
            r#"{"id":1,"client":1,"type":"invoke","t":1,"op":{"f":"swap","key":"k"}}"#,
            r#"{"id":1,"client":1,"type":"invoke","t":1,"op":{"f":"get","key":"k","x":1}}"#,
            r#"{"id":1,"client":1,"type":"ok","t":1,"res":{"r":"written","version":1}}"#,
        ] {
            assert!(serde_json::from_str::<Event>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_values_are_cut_when_shown() {
        let shown = ByteString::from("x".repeat(100)).to_string();
        assert!(shown.ends_with("... (100 bytes)"), "{shown}");
        assert!(shown.len() < 60, "{shown}");
    }
}
