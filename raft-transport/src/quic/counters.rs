//! What a transport counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened so far. Only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportCounters {
    /// Links to peers that came up.
    pub links_dialled: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Links from peers that were taken.
    pub links_accepted: u64,
    /// Links from peers that were refused for their hello.
    pub links_refused: u64,
    /// Messages that were not what their link allows; their link was closed.
    pub envelopes_refused: u64,
    /// Links given up because the peer took nothing for too long.
    pub links_stalled: u64,
}

/// The same while they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) links_dialled: AtomicU64,
    pub(super) dials_failed: AtomicU64,
    pub(super) links_accepted: AtomicU64,
    pub(super) links_refused: AtomicU64,
    pub(super) envelopes_refused: AtomicU64,
    pub(super) links_stalled: AtomicU64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> TransportCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransportCounters {
            links_dialled: read(&self.links_dialled),
            dials_failed: read(&self.dials_failed),
            links_accepted: read(&self.links_accepted),
            links_refused: read(&self.links_refused),
            envelopes_refused: read(&self.envelopes_refused),
            links_stalled: read(&self.links_stalled),
        }
    }
}
