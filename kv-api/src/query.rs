//! Queries: what is asked of the replicated state without changing it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A question about the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One key.
    Get {
        /// The key.
        key: Bytes,
        /// As of this revision; the newest where none is given.
        revision: Option<u64>,
    },
    /// A page of keys in order, from `from` (inclusive) to `to` (exclusive).
    Scan {
        /// The first key.
        from: Bytes,
        /// Where to stop; none is the end of the store.
        to: Option<Bytes>,
        /// As of this revision, so that the pages of one scan agree; the newest where none is
        /// given.
        revision: Option<u64>,
        /// Keys wanted, 0 for as many as fit; at most [`crate::limits::SCAN_KEYS_MAX`] come in one
        /// page.
        limit: u32,
        /// Leave the values out.
        keys_only: bool,
    },
}

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; empty when only keys were asked for.
    pub value: Bytes,
    /// The revision that created it.
    pub create_revision: u64,
    /// The revision that changed it last.
    pub mod_revision: u64,
    /// Writes since it was created, 1 for the first.
    pub version: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryReply {
    /// To [`Query::Get`].
    Get {
        /// The key, where it is there.
        found: Option<KeyValue>,
        /// The revision that was read at.
        revision: u64,
    },
    /// To [`Query::Scan`].
    Scan(ScanPage),
    /// The question cannot be answered.
    Refused(QueryError),
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPage {
    /// The keys, in order. Fewer than wanted where a limit of the page was met, at an old revision
    /// possibly none: only `next` tells whether there is more.
    pub items: Vec<KeyValue>,
    /// Where the next page begins; none when this is the last.
    pub next: Option<Bytes>,
    /// The revision that was read at; give it with the next page's query.
    pub revision: u64,
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum QueryError {
    /// The revision was compacted away.
    #[error("revision {revision} was compacted; the oldest that can be read is {oldest}")]
    Compacted {
        /// What was asked for.
        revision: u64,
        /// The oldest.
        oldest: u64,
    },
    /// The revision does not exist yet.
    #[error("revision {revision} is above the newest, {newest}")]
    FutureRevision {
        /// What was asked for.
        revision: u64,
        /// The newest.
        newest: u64,
    },
    /// The bytes are not a query that this version knows.
    #[error("not a query: {0}")]
    Malformed(String),
}
