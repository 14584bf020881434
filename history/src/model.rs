//! What one key does when operations reach it one after the other.

use std::fmt;

use crate::event::{ByteString, Expect, Op, Reply};

/// The state of a key: its value and version, where it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Register(Option<(ByteString, u64)>);

impl Register {
    /// A key that holds a value.
    pub fn holding(value: impl Into<ByteString>, version: u64) -> Self {
        Self(Some((value.into(), version)))
    }

    /// The value and its version, where the key is there.
    #[must_use]
    pub fn held(&self) -> Option<(&ByteString, u64)> {
        self.0.as_ref().map(|(value, version)| (value, *version))
    }

    /// The version, 0 where the key is absent.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.as_ref().map_or(0, |(_, version)| *version)
    }

    /// What an operation makes of the key, and its exact answer.
    #[must_use]
    pub fn apply(&self, op: &Op) -> (Self, Reply) {
        match op {
            Op::Put { value, .. } => self.set(value.clone()),
            Op::Append { value, .. } => {
                let before = self.0.as_ref().map_or(&[][..], |(held, _)| held.as_bytes());
                self.set([before, value.as_bytes()].concat().into())
            }
            Op::Delete { .. } => {
                let existed = self.0.is_some();
                (Self(None), Reply::Deleted { existed })
            }
            Op::Cas { expect, value, .. } => {
                if self.is(expect) {
                    self.set(value.clone())
                } else {
                    let version = self.version();
                    (self.clone(), Reply::Mismatch { version })
                }
            }
            Op::Get { .. } => (self.clone(), self.read()),
        }
    }

    fn read(&self) -> Reply {
        match &self.0 {
            None => Reply::Absent,
            Some((value, version)) => Reply::Found {
                value: value.clone(),
                version: *version,
            },
        }
    }

    fn is(&self, expect: &Expect) -> bool {
        match (expect, &self.0) {
            (Expect::Absent, held) => held.is_none(),
            (Expect::Value(expected), Some((value, _))) => expected == value,
            (Expect::Version(expected), Some((_, version))) => expected == version,
            // An absent key has version 0, as a mismatch reports it.
            (Expect::Version(expected), None) => *expected == 0,
            (Expect::Value(_), None) => false,
        }
    }

    fn set(&self, value: ByteString) -> (Self, Reply) {
        // Saturating, because a version that a file claims may be any number.
        let version = self.version().saturating_add(1);
        let value_bytes = value.len() as u64;
        let reply = Reply::Written {
            version,
            value_bytes,
        };
        (Self(Some((value, version))), reply)
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.read(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: u64, value_bytes: u64) -> Reply {
        Reply::Written {
            version,
            value_bytes,
        }
    }

    #[test]
    fn a_key_counts_its_writes_and_starts_anew_after_a_delete() {
        let mut state = Register::default();
        for (op, expected) in [
            (Op::get("k"), Reply::Absent),
            (Op::delete("k"), Reply::Deleted { existed: false }),
            (Op::append("k", "ab"), written(1, 2)),
            (Op::append("k", "c"), written(2, 3)),
            (Op::put("k", "x"), written(3, 1)),
            (Op::delete("k"), Reply::Deleted { existed: true }),
            (Op::put("k", "y"), written(1, 1)),
        ] {
            let (next, reply) = state.apply(&op);
            assert_eq!(reply, expected, "{op} on {state}");
            state = next;
        }
        assert_eq!(state, Register::holding("y", 1));
    }

    #[test]
    fn a_compare_and_set_changes_only_what_it_expects() {
        let held = Register::holding("a", 4);
        let absent = Register::default();
        let mismatch = |version| Reply::Mismatch { version };
        for (state, expect, expected) in [
            (&held, Expect::Value("a".into()), written(5, 1)),
            (&held, Expect::Version(4), written(5, 1)),
            (&held, Expect::Value("b".into()), mismatch(4)),
            (&held, Expect::Version(5), mismatch(4)),
            (&held, Expect::Absent, mismatch(4)),
            (&absent, Expect::Absent, written(1, 1)),
            (&absent, Expect::Value("a".into()), mismatch(0)),
            (&absent, Expect::Version(0), written(1, 1)),
            (&absent, Expect::Version(1), mismatch(0)),
        ] {
            let op = Op::cas("k", expect, "n");
            let (next, reply) = state.apply(&op);
            assert_eq!(reply, expected, "{op} on {state}");
            let changed = matches!(reply, Reply::Written { .. });
            assert_eq!(next == *state, !changed, "{op} on {state}");
        }
    }
}
