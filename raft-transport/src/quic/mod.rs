//! A [`Transport`] over QUIC links.
//!
//! Each node dials every other and sends only on the link that it has dialled itself; links that
//! come in are only received from. So there is nothing to agree on when two nodes dial each other
//! at the same time, and a link that is broken in one direction is repaired by who needs it.
//!
//! - `hello`: what is said first on a link, and why a link is refused.
//! - `outgoing`: one task per peer that keeps a link to it; the lanes of that link.
//! - `incoming`: one task per link that came in.

mod counters;
mod hello;
mod incoming;
mod options;
mod outgoing;
mod peer;
mod shared;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use quic_link::{CLOSE_NORMAL, Endpoint, FrameWriter, Link};
use raft_core::{Envelope, NodeId, SendError, Transport};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use counters::TransportCounters;
pub use options::{LocalPeer, PeerAddress, QuicOptions};

use crate::codec;
use crate::inbox::{Inbox, InboxSize};
use counters::{Counters, count};
use options::{CLOSE_STALLED, KIND_ENVELOPE};
use peer::{Outgoing, Peer};
use shared::Shared;

/// Raft messages over QUIC links. See the module's description.
#[derive(Debug)]
pub struct QuicTransport {
    shared: Arc<Shared>,
    inbox: Inbox,
    /// Ended with the transport, also when it is only dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl QuicTransport {
    /// Starts to dial all peers (`local` itself is left out, should it be listed). Must be called
    /// within a tokio runtime. The endpoint stays the caller's, who owns the one accept loop of the
    /// process and hands links of peers to [`QuicTransport::accept`].
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
        let peers: BTreeMap<NodeId, Peer> = peers
            .into_iter()
            .filter(|(id, _)| *id != local.id)
            .map(|(id, address)| (id, Peer::new(id, address)))
            .collect();
        let shared = Arc::new(Shared {
            endpoint,
            local,
            peers,
            options,
            arrived,
            counters: Counters::default(),
            reported: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for id in shared.peers.keys() {
            tasks.spawn(outgoing::keep_link(Arc::clone(&shared), *id));
        }
        Arc::new(Self {
            shared,
            inbox,
            tasks: Mutex::new(tasks),
        })
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
        tasks.spawn(incoming::serve(Arc::clone(&self.shared), link));
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
        if self.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        let peer = self
            .shared
            .peers
            .get(&to)
            .ok_or(SendError::UnknownPeer(to))?;
        let outgoing = peer.outgoing()?;
        let (bulk, control): (Vec<_>, Vec<_>) = envelopes
            .into_iter()
            .partition(|envelope| envelope.message.is_bulk());
        self.write(to, &outgoing, &outgoing.control, &control)
            .await?;
        self.write(to, &outgoing, &outgoing.bulk, &bulk).await
    }

    /// Whether a link to the peer is up.
    #[must_use]
    pub fn is_connected(&self, to: NodeId) -> bool {
        self.shared
            .peers
            .get(&to)
            .is_some_and(|peer| peer.outgoing().is_ok())
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> TransportCounters {
        self.shared.counters.read()
    }

    /// Writes to one lane of a link, in the caller's task. Each lane has one caller at a time, so
    /// the lock is free; a message that its caller has given up half written is completed by the
    /// next one.
    async fn write(
        &self,
        to: NodeId,
        outgoing: &Outgoing,
        lane: &tokio::sync::Mutex<FrameWriter>,
        envelopes: &[Envelope],
    ) -> Result<(), SendError> {
        if envelopes.is_empty() {
            return Ok(());
        }
        let limit = self.shared.options.bulk_frame_bytes_max;
        let mut too_large = None;
        let written = timeout(self.shared.options.write_deadline, async {
            let mut writer = lane.lock().await;
            for envelope in envelopes {
                let parts = codec::encode(envelope);
                let bytes = parts.iter().map(bytes::Bytes::len).sum::<usize>();
                if bytes > limit {
                    too_large = Some(SendError::TooLarge { bytes, limit });
                } else {
                    writer.queue(KIND_ENVELOPE, parts)?;
                }
            }
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => too_large.map_or(Ok(()), Err),
            Ok(Err(error)) => {
                let why = error.to_string();
                // A writer that failed once is of no more use.
                outgoing.link.close(CLOSE_NORMAL, "a stream broke");
                Err(SendError::Unreachable { to, why })
            }
            Err(_elapsed) => {
                let why = format!(
                    "it took no bytes for {} ms",
                    self.shared.options.write_deadline.as_millis()
                );
                count(&self.shared.counters.links_stalled);
                outgoing.link.close(CLOSE_STALLED, &why);
                Err(SendError::Unreachable { to, why })
            }
        }
    }

    fn lock_tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A set of tasks stays one whatever a holder of the lock did.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
        if self.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        let peer = self
            .shared
            .peers
            .get(&to)
            .ok_or(SendError::UnknownPeer(to))?;
        let outgoing = peer.outgoing()?;
        let lane = if envelope.message.is_bulk() {
            &outgoing.bulk
        } else {
            &outgoing.control
        };
        self.write(to, &outgoing, lane, std::slice::from_ref(&envelope))
            .await
    }

    async fn recv(&self) -> Option<raft_core::Incoming> {
        self.inbox.recv().await.map(raft_core::Incoming::Message)
    }

    async fn close(&self) {
        self.inbox.close();
        let mut tasks = std::mem::take(&mut *self.lock_tasks());
        tasks.shutdown().await;
        for peer in self.shared.peers.values() {
            peer.close("shutting down");
        }
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        for peer in self.shared.peers.values() {
            peer.close("shutting down");
        }
    }
}
