//! A network within one process, with faults on each directed link.
//!
//! Without faults a message goes straight into the receiver's bounded queue. What chance decides is
//! decided by one seeded generator, so a test on a paused, single-threaded runtime repeats exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use raft_core::{Envelope, NodeId, SendError, Transport};
use tokio::sync::mpsc;

use crate::inbox::{Inbox, InboxSender, InboxSize};
use crate::random::Random;

/// Envelopes that wait at a receiver. A sender waits when its lane is full.
const INBOX: InboxSize = InboxSize {
    control: 1_024,
    bulk: 64,
};

/// Messages of a network that are held back by a fault; above it they are lost.
const DELAYED_MAX: usize = 65_536;

/// How far behind its time a reordered message arrives, at most.
const REORDER_MS_MAX: u64 = 20;

/// What may happen to messages from one node to another. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Nothing passes; the sender is told so.
    pub cut: bool,
    /// Probability that a message is lost without a word.
    pub drop: f64,
    /// Probability that a message arrives twice.
    pub duplicate: f64,
    /// Each message is held back for a time between this...
    pub delay_min: Duration,
    /// ...and this. The order is lost where the times differ.
    pub delay_max: Duration,
    /// Probability that a message is held back for some more milliseconds, so that later ones
    /// overtake it.
    pub reorder: f64,
}

/// The network. Clones are the same network.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    delayed: AtomicUsize,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// Every node that was ever there; a closed one stays, with an inbox that takes nothing.
    nodes: BTreeMap<NodeId, Arc<Node>>,
    faults: BTreeMap<(NodeId, NodeId), Faults>,
    isolated: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Node {
    sender: InboxSender,
    inbox: Inbox,
}

/// What the network decided about one message.
enum Fate {
    Now,
    Lost,
    Later(Vec<Duration>),
}

impl MemoryNetwork {
    /// A network without nodes and faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    random: Random::new(seed),
                    nodes: BTreeMap::new(),
                    faults: BTreeMap::new(),
                    isolated: BTreeSet::new(),
                }),
                delayed: AtomicUsize::new(0),
            }),
        }
    }

    /// A node's place in the network. A second call for the same node is a restart: the transport
    /// from the first is closed, and what had arrived there is lost.
    #[must_use]
    pub fn transport(&self, id: NodeId) -> Arc<MemoryTransport> {
        let (sender, inbox) = Inbox::new(INBOX);
        let node = Arc::new(Node { sender, inbox });
        let before = self.shared.lock().nodes.insert(id, Arc::clone(&node));
        if let Some(before) = before {
            before.inbox.close();
        }
        Arc::new(MemoryTransport {
            network: self.clone(),
            id,
            node,
        })
    }

    /// Sets what happens to messages of one direction, in place of what was set before.
    pub fn set_faults(&self, from: NodeId, to: NodeId, faults: Faults) {
        self.shared.lock().faults.insert((from, to), faults);
    }

    /// The faults of one direction.
    #[must_use]
    pub fn faults(&self, from: NodeId, to: NodeId) -> Faults {
        self.shared.lock().faults(from, to)
    }

    /// Nothing passes between the two, in both directions. Other faults stay as they are.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.set_cut(a, b, true);
    }

    /// Undoes [`MemoryNetwork::cut`].
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.set_cut(a, b, false);
    }

    /// Nothing passes to or from the node, also not from nodes that come later.
    pub fn isolate(&self, id: NodeId) {
        self.shared.lock().isolated.insert(id);
    }

    /// Undoes [`MemoryNetwork::isolate`].
    pub fn rejoin(&self, id: NodeId) {
        self.shared.lock().isolated.remove(&id);
    }

    /// Removes all faults. What is held back still arrives late.
    pub fn heal_all(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.isolated.clear();
    }

    fn set_cut(&self, a: NodeId, b: NodeId, cut: bool) {
        let mut state = self.shared.lock();
        for link in [(a, b), (b, a)] {
            state.faults.entry(link).or_default().cut = cut;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock runs code of others, so there is nothing half done to fear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn faults(&self, from: NodeId, to: NodeId) -> Faults {
        self.faults.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Draws from the generator only where a fault is set.
    fn fate(&mut self, faults: &Faults) -> Fate {
        if *faults == Faults::default() {
            return Fate::Now;
        }
        if self.random.chance(faults.drop) {
            return Fate::Lost;
        }
        let copies = if self.random.chance(faults.duplicate) {
            2
        } else {
            1
        };
        let delays: Vec<Duration> = (0..copies).map(|_| self.delay(faults)).collect();
        if delays == [Duration::ZERO] {
            Fate::Now
        } else {
            Fate::Later(delays)
        }
    }

    fn delay(&mut self, faults: &Faults) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut delay = Duration::from_micros(
            self.random
                .between(micros(faults.delay_min), micros(faults.delay_max)),
        );
        if self.random.chance(faults.reorder) {
            delay += Duration::from_millis(self.random.between(1, REORDER_MS_MAX));
        }
        delay
    }
}

/// One node's place in a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    id: NodeId,
    node: Arc<Node>,
}

impl MemoryTransport {
    /// The node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Puts a message into the receiver's queue; waits while that is full.
    async fn deliver(
        &self,
        to: NodeId,
        target: &Node,
        envelope: Envelope,
    ) -> Result<(), SendError> {
        let lane = target.sender.lane(&envelope);
        let envelope = match lane.try_send(envelope) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone(to)),
            Err(mpsc::error::TrySendError::Full(envelope)) => envelope,
        };
        tokio::select! {
            sent = lane.send(envelope) => sent.map_err(|_closed| gone(to)),
            () = target.inbox.closed() => Err(gone(to)),
            () = self.node.inbox.closed() => Err(SendError::Closed),
        }
    }

    /// Holds copies back, each in a task of its own.
    fn deliver_later(&self, target: &Arc<Node>, envelope: &Envelope, delays: Vec<Duration>) {
        for delay in delays {
            let shared = Arc::clone(&self.network.shared);
            if shared.delayed.fetch_add(1, Ordering::Relaxed) >= DELAYED_MAX {
                shared.delayed.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let target = Arc::clone(target);
            let envelope = envelope.clone();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                shared.delayed.fetch_sub(1, Ordering::Relaxed);
                // A full queue loses what comes late, as a network does.
                if !target.inbox.is_closed() {
                    let _ = target.sender.lane(&envelope).try_send(envelope);
                }
            });
        }
    }
}

fn gone(to: NodeId) -> SendError {
    SendError::Unreachable {
        to,
        why: "it is not running".to_owned(),
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
        if self.node.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        let (target, fate) = {
            let mut state = self.network.shared.lock();
            let target = state
                .nodes
                .get(&to)
                .cloned()
                .ok_or(SendError::UnknownPeer(to))?;
            let faults = state.faults(self.id, to);
            if faults.cut || state.isolated.contains(&self.id) || state.isolated.contains(&to) {
                return Err(SendError::Unreachable {
                    to,
                    why: "the link is cut".to_owned(),
                });
            }
            if target.inbox.is_closed() {
                return Err(gone(to));
            }
            let fate = state.fate(&faults);
            (target, fate)
        };
        match fate {
            Fate::Now => self.deliver(to, &target, envelope).await,
            Fate::Lost => Ok(()),
            Fate::Later(delays) => {
                self.deliver_later(&target, &envelope, delays);
                Ok(())
            }
        }
    }

    async fn recv(&self) -> Option<raft_core::Incoming> {
        self.node
            .inbox
            .recv()
            .await
            .map(raft_core::Incoming::Message)
    }

    async fn close(&self) {
        self.node.inbox.close();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.node.inbox.close();
    }
}
