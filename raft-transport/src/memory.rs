//! A network within one process, with faults on each directed link.
//!
//! Without faults a message goes straight into the receiver's bounded queue. What chance decides is
//! decided by one seeded generator, so a test on a paused, single-threaded runtime repeats exactly.
//! The parts of a snapshot go through a bounded channel of their own. There are no time-outs: a
//! transfer ends when one of its sides does, or when the link between them is cut.

mod network;
mod snapshot;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use raft_core::{
    Envelope, Incoming, Membership, Message, NodeId, SendError, SnapshotReader, Transport,
};
use tokio::sync::mpsc;

pub use network::{Faults, MemoryNetwork};

use crate::transfer;
use network::{Fate, Node, gone};

/// Messages of a network that are held back by a fault; above it they are lost.
const DELAYED_MAX: usize = 65_536;

impl MemoryNetwork {
    /// A node's place in the network. A second call for the same node is a restart: the transport
    /// from the first is closed, and what had arrived there is lost.
    #[must_use]
    pub fn transport(&self, id: NodeId) -> Arc<MemoryTransport> {
        Arc::new(MemoryTransport {
            network: self.clone(),
            id,
            node: self.shared.start(id),
        })
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
        target.has_heard(self.id);
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
                    target.has_heard(envelope.from);
                    let _ = target.sender.lane(&envelope).try_send(envelope);
                }
            });
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
        if self.node.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        if matches!(envelope.message, Message::Snapshot(_)) {
            return Err(transfer::not_a_message());
        }
        let (target, fate) = {
            let mut state = self.network.shared.lock();
            let target = state.target(self.id, &self.node, to)?;
            let faults = state.faults(self.id, to);
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

    async fn send_snapshot(
        &self,
        to: NodeId,
        envelope: Envelope,
        content: Box<dyn SnapshotReader>,
    ) -> Result<(), SendError> {
        if self.node.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        let shared = &self.network.shared;
        let target = shared.lock().target(self.id, &self.node, to)?;
        let ends = snapshot::Ends {
            shared: Arc::clone(shared),
            from: self.id,
            sender: Arc::clone(&self.node),
            to,
            receiver: target,
        };
        let sent = snapshot::send(ends, envelope, content).await;
        if self.node.inbox.is_closed() {
            return Err(SendError::Closed);
        }
        sent
    }

    async fn recv(&self) -> Option<Incoming> {
        self.node.inbox.recv().await
    }

    fn set_members(&self, own: NodeId, members: &Membership) {
        let ids = members.iter().map(|(id, _)| id).filter(|id| *id != own);
        self.node.set_members(ids.collect());
    }

    async fn close(&self) {
        self.network.shared.end(&self.node);
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.network.shared.end(&self.node);
    }
}
