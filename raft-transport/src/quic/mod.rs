//! A [`Transport`] over QUIC links.
//!
//! Each node dials every member and sends on the link that it has dialled itself; links that come
//! in are received from. So there is nothing to agree on when two nodes dial each other at the same
//! time, and a link that is broken in one direction is repaired by who needs it. Only where a node
//! cannot be dialled, because its address is not known or is an old one, replies go over the link
//! that the node itself has dialled.
//!
//! - `hello`: what is said first on a link, and why a link is refused.
//! - `peers`: whom this node dials, who has dialled it, and where a message goes.
//! - `outgoing`: one task per member that keeps a link to it.
//! - `incoming`: one task per link that came in.
//! - `lane`, `reading`: messages on their way out and in.
//! - `snapshot_sender`, `snapshot_receiver`: a stream of its own for each snapshot.

mod counters;
mod hello;
mod incoming;
mod lane;
mod options;
mod outgoing;
mod peer;
mod peers;
mod reading;
mod shared;
mod snapshot_receiver;
mod snapshot_sender;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use quic_link::{CLOSE_NORMAL, Endpoint, Link};
use raft_core::{
    Envelope, Incoming, Membership, Message, NodeId, SendError, SnapshotReader, Transport,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

pub use counters::TransportCounters;
pub use options::{LocalPeer, PeerAddress, QuicOptions};

use crate::inbox::{Inbox, InboxSize};
use crate::rate::Rate;
use crate::transfer;
use counters::{Counters, count};
use peers::Peers;
use shared::Shared;

/// Raft messages over QUIC links. See the module's description.
#[derive(Debug)]
pub struct QuicTransport {
    shared: Arc<Shared>,
    inbox: Inbox,
    /// Where the tasks run, whoever hands them something to do.
    runtime: Handle,
    /// Ended with the transport, also when it is only dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl QuicTransport {
    /// Starts to dial all peers (`local` itself is left out, should it be listed), until
    /// [`Transport::set_members`] gives another list. Must be called within a tokio runtime. The
    /// endpoint stays the caller's, who owns the one accept loop of the process and hands links of
    /// peers to [`QuicTransport::accept`].
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        local: LocalPeer,
        peers: BTreeMap<NodeId, PeerAddress>,
        options: QuicOptions,
    ) -> Arc<Self> {
        let (arrived, inbox) = Inbox::new(InboxSize {
            control: options.control_queue_len.max(1),
            bulk: options.bulk_queue_len.max(1),
        });
        let shared = Arc::new(Shared {
            endpoint,
            local,
            peers: Peers::new(options.strangers_max),
            options,
            arrived,
            counters: Counters::default(),
            snapshot_rate: Rate::new(options.snapshot_bytes_per_second),
            reported: Mutex::default(),
        });
        let transport = Self {
            shared,
            inbox,
            runtime: Handle::current(),
            tasks: Mutex::default(),
        };
        transport.dial_members(peers);
        Arc::new(transport)
    }

    /// Takes a link of [`quic_link::Protocol::Peer`] that has come in. Returns at once; a link that
    /// does not belong here is closed with the reason.
    pub fn accept(&self, link: Link) {
        let mut tasks = self.lock_tasks();
        while tasks.try_join_next().is_some() {}
        if self.inbox.is_closed() {
            link.close(CLOSE_NORMAL, "shutting down");
            return;
        }
        let serve = incoming::serve(Arc::clone(&self.shared), link);
        tasks.spawn_on(serve, &self.runtime);
    }

    /// Sends several messages with as few calls as possible, in their order within each lane.
    ///
    /// # Errors
    /// As [`Transport::send`]. Any of the messages may then be lost.
    pub async fn send_batch(
        &self,
        to: NodeId,
        envelopes: impl IntoIterator<Item = Envelope> + Send,
    ) -> Result<(), SendError> {
        let (bulk, control): (Vec<_>, Vec<_>) = envelopes
            .into_iter()
            .partition(|envelope| envelope.message.is_bulk());
        self.write(to, &control).await?;
        self.write(to, &bulk).await
    }

    /// Whether a link that we have dialled to the peer is up.
    #[must_use]
    pub fn is_connected(&self, to: NodeId) -> bool {
        self.shared.peers.outgoing(to).is_ok()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> TransportCounters {
        self.shared.counters.read()
    }

    /// Sends messages of one lane.
    async fn write(&self, to: NodeId, envelopes: &[Envelope]) -> Result<(), SendError> {
        if self.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        let Some(first) = envelopes.first() else {
            return Ok(());
        };
        let is_snapshot = |envelope: &Envelope| matches!(envelope.message, Message::Snapshot(_));
        if envelopes.iter().any(is_snapshot) {
            return Err(transfer::not_a_message());
        }
        let lane = self.shared.peers.lane_to(to, first.message.is_bulk())?;
        let Shared {
            options, counters, ..
        } = &*self.shared;
        lane.write(options, counters, to, envelopes).await
    }

    fn dial_members(&self, mut members: BTreeMap<NodeId, PeerAddress>) {
        members.remove(&self.shared.local.id);
        let mut tasks = self.lock_tasks();
        while tasks.try_join_next().is_some() {}
        if self.inbox.is_closed() {
            return;
        }
        self.shared.peers.set_members(members, |peer| {
            let keep = outgoing::keep_link(Arc::clone(&self.shared), peer);
            tasks.spawn_on(keep, &self.runtime)
        });
    }

    fn lock_tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A set of tasks stays one whatever a holder of the lock did.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
        self.write(to, std::slice::from_ref(&envelope)).await
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        envelope: Envelope,
        content: Box<dyn SnapshotReader>,
    ) -> Result<(), SendError> {
        if self.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        let counters = &self.shared.counters;
        let sent = async {
            let outgoing = self.shared.peers.outgoing(to)?;
            snapshot_sender::send(&self.shared, &outgoing.link, to, &envelope, content).await
        };
        let sent = tokio::select! {
            biased;
            () = self.inbox.closed() => Err(SendError::Closed),
            sent = sent => sent,
        };
        match &sent {
            Ok(()) => count(&counters.snapshots_sent),
            Err(_) => count(&counters.snapshots_failed),
        }
        sent
    }

    async fn recv(&self) -> Option<Incoming> {
        self.inbox.recv().await
    }

    fn set_members(&self, own: NodeId, members: &Membership) {
        let members = members.iter().filter(|(id, _)| *id != own);
        let members = members.map(|(id, member)| {
            let address = PeerAddress {
                address: member.address.clone(),
                incarnation: member.incarnation,
            };
            (id, address)
        });
        self.dial_members(members.collect());
    }

    async fn close(&self) {
        self.inbox.close();
        let mut tasks = std::mem::take(&mut *self.lock_tasks());
        tasks.shutdown().await;
        self.shared.peers.close("shutting down");
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.shared.peers.close("shutting down");
    }
}
