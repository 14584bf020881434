//! A [`Transport`] over QUIC links.
//!
//! Each node dials every other and sends only on the link that it has dialled itself; links that come
//! in are only received from. So there is nothing to agree on when two nodes dial each other at the
//! same time, and a link that is broken in one direction is repaired by who needs it.
//!
//! - `hello`: what is said first on a link, and why a link is refused.
//! - `outgoing`: one task per peer that keeps a link to it; the lanes of that link.
//! - `incoming`: one task per link that came in.

mod hello;
mod incoming;
mod outgoing;
mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use quic_link::{CLOSE_NORMAL, Endpoint, FrameWriter, Link};
use raft_core::{ClusterId, Envelope, Incarnation, NodeId, SendError, Transport};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::codec;
use crate::inbox::{Inbox, InboxSender, InboxSize};
use peer::{Outgoing, Peer};

/// The frame that opens a link, and its answer.
const KIND_HELLO: u8 = 1;

/// A frame with one envelope.
const KIND_ENVELOPE: u8 = 2;

/// Frames of the control lane; the largest message without entries is far below it.
const CONTROL_FRAME_BYTES_MAX: usize = 4 << 10;

/// Closed because the hello did not fit, or what came later did not fit the hello.
const CLOSE_REFUSED: u32 = 16;

/// Closed because the peer took nothing for too long.
const CLOSE_STALLED: u32 = 17;

/// Who this process is to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub id: NodeId,
    /// The incarnation that its directory was formatted with.
    pub incarnation: Incarnation,
    /// Counts the starts of this incarnation. A link of a later start replaces one of an earlier.
    pub boot: u64,
}

/// Where a peer is, and which one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port`; looked up at each dial.
    pub address: String,
    /// The incarnation that is a member.
    pub incarnation: Incarnation,
}

/// Times and bounds of a [`QuicTransport`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QuicOptions {
    /// The pause after a failed dial. Doubled after each, with jitter. Short, because each
    /// millisecond without a link delays an election or a commit.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// How long a dial may take, from the look-up of the address to the answered hello.
    pub dial_deadline: Duration,
    /// How long a link that came in may take to say hello.
    pub hello_deadline: Duration,
    /// How long a message may wait for the peer to take bytes. Then the link is given up: a new one
    /// starts with empty buffers, and Raft repeats what matters.
    pub write_deadline: Duration,
    /// The largest message with entries, encoded. A larger one is not sent, and not received.
    pub bulk_frame_bytes_max: usize,
    /// Messages without entries that have arrived and were not taken.
    pub control_queue_len: usize,
    /// Messages with entries that have arrived and were not taken. The windows of the leaders bound
    /// their bytes.
    pub bulk_queue_len: usize,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            dial_deadline: Duration::from_secs(1),
            hello_deadline: Duration::from_secs(3),
            write_deadline: Duration::from_secs(2),
            bulk_frame_bytes_max: 16 << 20,
            control_queue_len: 1_024,
            bulk_queue_len: 64,
        }
    }
}

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

#[derive(Debug, Default)]
struct Counters {
    links_dialled: AtomicU64,
    dials_failed: AtomicU64,
    links_accepted: AtomicU64,
    links_refused: AtomicU64,
    envelopes_refused: AtomicU64,
    links_stalled: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the tasks of a transport share.
#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    local: LocalPeer,
    peers: BTreeMap<NodeId, Peer>,
    options: QuicOptions,
    arrived: InboxSender,
    counters: Counters,
    /// Causes that were reported already: once each is enough, a peer repeats them twice a second.
    /// Bounded by the number of peers and kinds of causes.
    reported: Mutex<BTreeSet<(NodeId, &'static str)>>,
}

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
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransportCounters {
            links_dialled: read(&counters.links_dialled),
            dials_failed: read(&counters.dials_failed),
            links_accepted: read(&counters.links_accepted),
            links_refused: read(&counters.links_refused),
            envelopes_refused: read(&counters.envelopes_refused),
            links_stalled: read(&counters.links_stalled),
        }
    }

    /// Writes to one lane of a link, in the caller's task. Each lane has one caller at a time, so the
    /// lock is free; a message that its caller has given up half written is completed by the next one.
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

    async fn recv(&self) -> Option<Envelope> {
        self.inbox.recv().await
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

impl Shared {
    /// Reports a cause the first time that it comes up with this peer.
    fn report_once(&self, peer: NodeId, cause: &'static str, details: &str) {
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
