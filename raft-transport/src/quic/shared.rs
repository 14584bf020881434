//! What the tasks of a transport share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use quic_link::Endpoint;
use raft_core::NodeId;

use super::counters::Counters;
use super::options::{LocalPeer, QuicOptions};
use super::peer::Peer;
use crate::inbox::InboxSender;

/// What the tasks of a transport share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) local: LocalPeer,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) options: QuicOptions,
    pub(super) arrived: InboxSender,
    pub(super) counters: Counters,
    /// Causes that were reported already: once each is enough, a peer repeats them twice a second.
    /// Bounded by the number of peers and kinds of causes.
    pub(super) reported: Mutex<BTreeSet<(NodeId, &'static str)>>,
}

impl Shared {
    /// Reports a cause the first time that it comes up with this peer.
    pub(super) fn report_once(&self, peer: NodeId, cause: &'static str, details: &str) {
        let first = self
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((peer, cause));
        if first {
            tracing::warn!(%peer, cause, details, "refused a peer; reported once");
        }
    }
}
