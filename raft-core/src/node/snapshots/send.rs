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
            let count = metrics.snapshots_failed.value();
            if count.is_power_of_two() && error != SendError::Closed {
                tracing::warn!(%to, %descriptor, %error, count, "snapshot not sent");
            }
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::lifecycle;
    use crate::snapshot::{SnapshotDescriptor, SnapshotMeta, SnapshotReader};
    use crate::snapshot::{SnapshotStore, SnapshotWriter};
    use crate::transport::Incoming;
    use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, Term};
    use async_trait::async_trait;
    use bytes::Bytes;
    use std::sync::Mutex;

    struct Empty(SnapshotDescriptor);

    #[async_trait]
    impl SnapshotReader for Empty {
        fn descriptor(&self) -> &SnapshotDescriptor {
            &self.0
        }

        async fn seek(&mut self, _: u64) -> Result<(), StorageError> {
            Ok(())
        }

        async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
            Ok(None)
        }
    }

    /// Has every snapshot but that up to entry 1.
    struct Store;

    #[async_trait]
    impl SnapshotStore for Store {
        fn latest(&self) -> Option<SnapshotDescriptor> {
            None
        }

        async fn create(&self, _: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
            unreachable!("nothing is taken here")
        }

        async fn receive(
            &self,
            _: SnapshotDescriptor,
        ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
            unreachable!("nothing is received here")
        }

        async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError> {
            match last.index {
                Index(1) => Err(StorageError::NoSnapshot(last)),
                _ => Ok(Box::new(Empty(SnapshotDescriptor::default()))),
            }
        }
    }

    /// Keeps what is on its way and never gets it there, but for that up to entry 9.
    #[derive(Default)]
    struct Slow {
        begun: Mutex<Vec<u64>>,
        running: Arc<()>,
    }

    #[async_trait]
    impl Transport for Slow {
        async fn send(&self, _: NodeId, _: Envelope) -> Result<(), SendError> {
            Ok(())
        }

        async fn send_snapshot(
            &self,
            _: NodeId,
            envelope: Envelope,
            _: Box<dyn SnapshotReader>,
        ) -> Result<(), SendError> {
            let _running = Arc::clone(&self.running);
            let Message::Snapshot(descriptor) = envelope.message else {
                panic!("no snapshot");
            };
            let last = descriptor.meta.last.index.0;
            self.begun.lock().unwrap().push(last);
            if last != 9 {
                std::future::pending::<()>().await;
            }
            Ok(())
        }

        fn set_members(&self, _: NodeId, _: &Membership) {}

        async fn recv(&self) -> Option<Incoming> {
            std::future::pending().await
        }

        async fn close(&self) {}
    }

    fn envelope(to: u64, last: u64, term: u64) -> Envelope {
        let mut descriptor = SnapshotDescriptor::default();
        descriptor.meta.last = LogId::new(Term(1), Index(last));
        Envelope {
            cluster: ClusterId::default(),
            group: GroupId(1),
            from: NodeId(1),
            from_incarnation: Incarnation(1),
            to: NodeId(to),
            to_incarnation: Incarnation(to),
            term: Term(term),
            message: Message::Snapshot(descriptor),
        }
    }

    #[tokio::test]
    async fn a_newer_transfer_takes_the_place_of_an_older_one_to_the_same_receiver() {
        let (mut supervisor, _life) = lifecycle::new();
        let (events, mut ended) = mpsc::channel(8);
        let transport = Arc::new(Slow::default());
        let links = SendLinks {
            shelf: Arc::new(Shelf::new(Arc::new(Store))),
            transport: Arc::clone(&transport) as Arc<dyn Transport>,
            events,
            metrics: Arc::default(),
        };
        let metrics = Arc::clone(&links.metrics);
        let mut senders = Senders::new(links, supervisor.spawner());
        let idle = std::future::pending();
        supervisor.spawn("idle", lifecycle::Ending::Abort, idle);
        tokio::spawn(supervisor.run(Arc::clone(&transport) as Arc<dyn Transport>));
        let begun = || transport.begun.lock().unwrap().clone();
        let running = || Arc::strong_count(&transport.running) - 1;
        let until = async |count: usize| {
            while begun().len() < count {
                tokio::task::yield_now().await;
            }
        };

        senders.send(envelope(2, 5, 1));
        senders.send(envelope(3, 5, 1));
        until(2).await;
        senders.send(envelope(2, 5, 1));
        senders.send(envelope(2, 6, 1));
        until(3).await;
        senders.send(envelope(2, 6, 2));
        until(4).await;
        assert_eq!(begun(), [5, 5, 6, 6], "the repeated one changed nothing");
        while running() > 2 {
            tokio::task::yield_now().await;
        }
        senders.send(envelope(2, 9, 2));
        senders.send(envelope(3, 1, 2));
        for _ in 0..2 {
            match ended.recv().await {
                Some(Event::SnapshotSent {
                    to,
                    number,
                    is_delivered,
                }) => {
                    assert_eq!(is_delivered, to == NodeId(2));
                    assert!(!senders.ended(to, number - 1), "an older one");
                    assert!(senders.ended(to, number));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(metrics.snapshots_sent.value(), 1);
        assert!(
            ended.try_recv().is_err(),
            "what was replaced is not reported"
        );

        senders.send(envelope(2, 5, 2));
        until(6).await;
        senders.stop();
        while running() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
