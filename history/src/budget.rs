//! What a search may use, and what it says when that is spent.

use std::fmt;

use crate::event::ByteString;

/// What a check may use. Each of the limits ends it with [`crate::Verdict::Unknown`].
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    /// Steps of the search over all keys; some millions per second.
    pub steps: u64,
    /// Bytes of memory of what was tried, per key; keys are judged one after the other.
    pub memory_bytes: usize,
    /// Asked now and then; `true` ends the check. This is how a caller brings its own clock.
    pub expired: Option<&'a dyn Fn() -> bool>,
}

impl Default for Budget<'_> {
    /// 50 million steps and 512 MiB: seconds for a hard history, nothing for an easy one.
    fn default() -> Self {
        Self {
            steps: 50_000_000,
            memory_bytes: 512 << 20,
            expired: None,
        }
    }
}

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("steps", &self.steps)
            .field("memory_bytes", &self.memory_bytes)
            .field("expired", &self.expired.is_some())
            .finish()
    }
}

/// A check that was not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The key that was being judged.
    pub key: ByteString,
    /// The limit that was met.
    pub limit: Limit,
}

/// A limit of a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The key's share of this many steps.
    Steps(u64),
    /// This much memory.
    MemoryBytes(usize),
    /// The caller's clock.
    Deadline,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: not decided within ", self.key)?;
        match self.limit {
            Limit::Steps(steps) => write!(f, "{steps} steps"),
            Limit::MemoryBytes(bytes) => write!(f, "{bytes} bytes of memory"),
            Limit::Deadline => f.write_str("the time given"),
        }
    }
}
