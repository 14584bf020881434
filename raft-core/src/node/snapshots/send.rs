//! Sends snapshots to followers: one task per receiver, which ends with the transfer, or when a
//! newer one takes its place.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::{StopReason, StorageError};
use crate::membership::Membership;
use crate::message::{Envelope, Message};
use crate::node::event::Event;
use crate::node::lifecycle::Spawner;
use crate::node::metrics::{Metrics, microseconds};
use crate::node::snapshots::reader::WatchedReader;
use crate::node::snapshots::shelf::Shelf;
use crate::transport::{SendError, Transport};
use crate::types::NodeId;

/// What every transfer needs.
#[derive(Clone)]
pub(crate) struct SendLinks {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
}

/// All transfers that are under way. Bounded by the members of the group: one for each.
pub(crate) struct Senders {
    links: SendLinks,
    spawner: Spawner,
    transfers: BTreeMap<NodeId, Transfer>,
    numbers_given: u64,
}

struct Transfer {
    number: u64,
    envelope: Envelope,
    /// Dropping it ends the task; none while the task could not be started.
    task: Option<oneshot::Sender<Infallible>>,
}

impl Senders {
    /// Nothing is under way.
    pub(crate) fn new(links: SendLinks, spawner: Spawner) -> Self {
        Self {
            links,
            spawner,
            transfers: BTreeMap::new(),
            numbers_given: 0,
        }
    }

    /// Begins to send what `envelope` describes, unless just that is under way. Whatever else was
    /// on its way to that receiver is given up without a report.
    pub(crate) fn send(&mut self, envelope: Envelope) {
        let to = envelope.to;
        let running = self.transfers.get(&to);
        if running.is_some_and(|transfer| transfer.envelope == envelope) {
            return;
        }
        self.numbers_given += 1;
        let transfer = Transfer {
            number: self.numbers_given,
            envelope,
            task: None,
        };
        self.transfers.insert(to, transfer);
        self.flush();
    }

    /// Starts what could not be started before.
    pub(crate) fn flush(&mut self) {
        for transfer in self.transfers.values_mut() {
            if transfer.task.is_some() {
                continue;
            }
            let (keep, given_up) = oneshot::channel();
            let task = run(
                self.links.clone(),
                transfer.envelope.clone(),
                transfer.number,
                given_up,
            );
            if self.spawner.try_spawn("snapshot-send", task) {
                transfer.task = Some(keep);
            }
        }
    }

    /// A transfer ended by itself. Whether it is the newest one to its receiver.
    pub(crate) fn ended(&mut self, to: NodeId, number: u64) -> bool {
        let is_newest = self.transfers.get(&to).map(|t| t.number) == Some(number);
        if is_newest {
            self.transfers.remove(&to);
        }
        is_newest
    }

    /// Gives up what goes to others than these.
    pub(crate) fn set_members(&mut self, members: &Membership) {
        self.transfers.retain(|id, _| members.get(*id).is_some());
    }

    /// Gives up everything: this node does not lead the term any more in which it was asked for.
    pub(crate) fn stop(&mut self) {
        self.transfers.clear();
    }
}

async fn run(
    links: SendLinks,
    envelope: Envelope,
    number: u64,
    given_up: oneshot::Receiver<Infallible>,
) -> Result<(), StopReason> {
    let to = envelope.to;
    let is_delivered = tokio::select! {
        biased;
        _ = given_up => return Ok(()),
        sent = send(&links, envelope) => sent.map_err(StopReason::Storage)?,
    };
    let event = Event::SnapshotSent {
        to,
        number,
        is_delivered,
    };
    // The driver is gone only when the node ends.
    let _ = links.events.send(event).await;
    Ok(())
}

/// Whether the receiver has all of it. An error is one of the own store.
async fn send(links: &SendLinks, envelope: Envelope) -> Result<bool, StorageError> {
    let (to, started) = (envelope.to, Instant::now());
    let Message::Snapshot(descriptor) = &envelope.message else {
        unreachable!("the protocol asks for snapshots to be sent");
    };
    let descriptor = descriptor.clone();
    let content = match links.shelf.open(descriptor.meta.last).await {
        Ok(content) => content,
        // A newer one took its place; the protocol offers that one next.
        Err(StorageError::NoSnapshot(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let (content, watch) = WatchedReader::new(content);
    let content = Box::new(content);
    let sent = links.transport.send_snapshot(to, envelope, content).await;
    let metrics = &links.metrics;
    metrics.snapshot_bytes_sent.add(watch.bytes());
    match watch.take() {
        None | Some(StorageError::NoSnapshot(_)) => {}
        Some(error) => return Err(error),
    }
    match sent {
        Ok(()) => {
            metrics.snapshots_sent.increment();
            let took = microseconds(started.elapsed());
            metrics.snapshot_longest_us.raise(took);
            tracing::info!(%to, %descriptor, "snapshot sent");
            Ok(true)
        }
        Err(error) => {
            metrics.snapshots_failed.increment();
            if error != SendError::Closed {
                tracing::info!(%to, %descriptor, %error, "snapshot not sent");
            }
            Ok(false)
        }
    }
}
