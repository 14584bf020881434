//! What the tasks of a transport share.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use quic_link::Endpoint;
use raft_core::{Incarnation, NodeId};

use super::counters::{Counters, count};
use super::hello::Hello;
use super::options::{LocalPeer, QuicOptions};
use super::peers::Peers;
use crate::inbox::InboxSender;
use crate::rate::Rate;

/// Causes that are remembered as reported.
const REPORTED_MAX: usize = 1_024;

/// What the tasks of a transport share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) local: LocalPeer,
    pub(super) peers: Peers,
    pub(super) options: QuicOptions,
    pub(super) arrived: InboxSender,
    pub(super) counters: Counters,
    /// Of all snapshots that leave.
    pub(super) snapshot_rate: Rate,
    /// Causes that were reported already: once each is enough, a peer repeats them twice a second.
    pub(super) reported: Mutex<BTreeSet<(NodeId, &'static str)>>,
}

impl Shared {
    /// Reports a cause the first time that it comes up with this peer.
    pub(super) fn report_once(&self, peer: NodeId, cause: &'static str, details: &str) {
        let is_news = {
            let reported = self.reported.lock();
            let mut reported = reported.unwrap_or_else(PoisonError::into_inner);
            reported.len() < REPORTED_MAX && reported.insert((peer, cause))
        };
        if is_news {
            tracing::warn!(%peer, cause, details, "trouble with a peer; reported once");
        }
    }

    /// Counts a peer that is of another incarnation than the member that is known, or takes this
    /// node for another incarnation. Both come with a disk that was lost, until all have heard of
    /// it; so the link stays, and the protocol judges each message by the incarnations in it.
    pub(super) fn note_incarnations(&self, peer: NodeId, hello: &Hello) {
        let (speaks, hears) = (
            Incarnation(hello.from_incarnation),
            Incarnation(hello.to_incarnation),
        );
        let known = self.peers.member_incarnation(peer);
        let details = if let Some(known) = known.filter(|known| *known != speaks) {
            format!("node {peer} speaks as incarnation {speaks}, the member is incarnation {known}")
        } else if hears != self.local.incarnation {
            let ours = self.local.incarnation;
            format!("node {peer} takes this node for incarnation {hears}, it is {ours}")
        } else {
            return;
        };
        count(&self.counters.incarnations_mismatched);
        self.report_once(peer, "incarnation", &details);
    }
}
