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
    /// Of these, links from nodes that are no members as far as this node knows.
    pub links_from_strangers: u64,
    /// Links from peers that were refused for their hello.
    pub links_refused: u64,
    /// Hellos that name another incarnation than is known here, of either side. The link stays.
    pub incarnations_mismatched: u64,
    /// Messages that were not what their link allows; their link was closed.
    pub envelopes_refused: u64,
    /// Links given up because the peer took nothing for too long.
    pub links_stalled: u64,
    /// Snapshots that a peer has on its disk now.
    pub snapshots_sent: u64,
    /// Snapshots that did not reach the peer's disk.
    pub snapshots_failed: u64,
    /// Snapshots that came and are on the disk.
    pub snapshots_received: u64,
    /// Snapshots that broke the order of a transfer while they came.
    pub snapshots_malformed: u64,
}

/// The same while they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) links_dialled: AtomicU64,
    pub(super) dials_failed: AtomicU64,
    pub(super) links_accepted: AtomicU64,
    pub(super) links_from_strangers: AtomicU64,
    pub(super) links_refused: AtomicU64,
    pub(super) incarnations_mismatched: AtomicU64,
    pub(super) envelopes_refused: AtomicU64,
    pub(super) links_stalled: AtomicU64,
    pub(super) snapshots_sent: AtomicU64,
    pub(super) snapshots_failed: AtomicU64,
    pub(super) snapshots_received: AtomicU64,
    pub(super) snapshots_malformed: AtomicU64,
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
            links_from_strangers: read(&self.links_from_strangers),
            links_refused: read(&self.links_refused),
            incarnations_mismatched: read(&self.incarnations_mismatched),
            envelopes_refused: read(&self.envelopes_refused),
            links_stalled: read(&self.links_stalled),
            snapshots_sent: read(&self.snapshots_sent),
            snapshots_failed: read(&self.snapshots_failed),
            snapshots_received: read(&self.snapshots_received),
            snapshots_malformed: read(&self.snapshots_malformed),
        }
    }
}
