//! Receives snapshots from a leader, one at a time, part by part onto the disk; when all of it is
//! durable, the protocol hears of it. What came before a transfer broke is kept by the store, and
//! the next transfer of the same snapshot goes on behind it.
//!
//! A disk that is full or fails refuses the transfer, and its sender tries again. A store that is
//! not what it should be ends the node. What a peer does never ends it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Refusal, StopReason, StorageError};
use crate::message::{Envelope, Message};
use crate::node::lifecycle::StopSignal;
use crate::node::metrics::{Metrics, microseconds};
use crate::node::receive::Received;
use crate::node::room::StateRoom;
use crate::node::snapshots::shelf::{InstallRoom, Shelf};
use crate::node::status::StatusCell;
use crate::snapshot::{SNAPSHOT_PART_BYTES_MAX, SnapshotDescriptor};
use crate::transport::{IncomingSnapshot, SendError, SnapshotStream};
use crate::types::{ClusterId, GroupId, Incarnation, NodeId, Term};

/// Offers that wait to be looked at. More are refused.
pub(crate) const OFFERS_MAX: usize = 8;

/// How long a sender may take for one part. Then it is given up, so that it does not keep others
/// away for ever.
const PART_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a sender may take to hear how it ended.
const FINISH_TIME_MAX: Duration = Duration::from_secs(5);

/// Who we are, for a first look at an offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) group: GroupId,
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
}

/// What joins the task to the others.
pub(crate) struct ReceiveLinks {
    pub(crate) identity: Identity,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) room: StateRoom,
    pub(crate) status: Arc<StatusCell>,
    pub(crate) offers: mpsc::Receiver<IncomingSnapshot>,
    /// To the driver.
    pub(crate) inbox: mpsc::Sender<Received>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: StopSignal,
}

/// See the file.
pub(crate) struct ReceiveTask {
    links: ReceiveLinks,
}

/// How a transfer ended, short of a failure of the own store.
enum Ended {
    /// All of it is on the disk.
    Complete(Box<dyn SnapshotStream>),
    /// We do not want it, or not now.
    Refused(Box<dyn SnapshotStream>, String),
    /// The sender went away, or broke a rule.
    Lost(String),
    /// Another transfer takes its place.
    Replaced(IncomingSnapshot),
    /// The node stops.
    Stopping,
}

/// Who sends at the moment, and in which term.
#[derive(Clone, Copy)]
struct Sender {
    from: NodeId,
    term: Term,
}

impl Sender {
    fn of(envelope: &Envelope) -> Self {
        Self {
            from: envelope.from,
            term: envelope.term,
        }
    }

    /// A leader of a higher term takes the place of an older one. So does the same leader: it sends
    /// us one snapshot at a time, so it has given the older one up.
    fn replaces(self, older: Self) -> bool {
        self.term > older.term || (self.term == older.term && self.from == older.from)
    }
}

impl ReceiveTask {
    /// A task that waits for its first offer.
    pub(crate) fn new(links: ReceiveLinks) -> Self {
        Self { links }
    }

    /// Runs until the node stops or the store fails. A stop waits for the part that is being
    /// written.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        let mut next = None;
        loop {
            let offer = match next.take() {
                Some(offer) => offer,
                None => tokio::select! {
                    biased;
                    () = self.links.stop.wait() => return Ok(()),
                    offer = self.links.offers.recv() => match offer {
                        Some(offer) => offer,
                        None => return Ok(()),
                    },
                },
            };
            next = self.take(offer).await.map_err(StopReason::Storage)?;
            if self.links.stop.is_set() {
                return Ok(());
            }
        }
    }

    /// Takes one offer to its end. Gives the offer that took its place, where there is one.
    async fn take(
        &mut self,
        offer: IncomingSnapshot,
    ) -> Result<Option<IncomingSnapshot>, StorageError> {
        let IncomingSnapshot { envelope, stream } = offer;
        let descriptor = match self.check(&envelope) {
            Ok(descriptor) => descriptor,
            Err(why) => {
                self.finish(stream, Err(why)).await;
                return Ok(None);
            }
        };
        let Some(room) = self.links.shelf.try_install() else {
            let why = "busy: another snapshot is being installed".to_owned();
            self.finish(stream, Err(why)).await;
            return Ok(None);
        };
        let started = Instant::now();
        let ended = self.transfer(&descriptor, &envelope, stream).await?;
        let (from, metrics) = (envelope.from, &self.links.metrics);
        match ended {
            Ended::Complete(stream) => {
                metrics.snapshots_received.increment();
                let took = microseconds(started.elapsed());
                metrics.snapshot_longest_us.raise(took);
                tracing::info!(%from, %descriptor, "snapshot received");
                self.deliver(envelope, room, stream).await;
                Ok(None)
            }
            Ended::Refused(stream, why) => {
                metrics.snapshots_failed.increment();
                let count = metrics.snapshots_failed.value();
                // The sender tries again and again, for as long as the disk refuses.
                if count.is_power_of_two() {
                    tracing::warn!(%from, %descriptor, why, count, "snapshot refused");
                }
                self.finish(stream, Err(why)).await;
                Ok(None)
            }
            Ended::Lost(why) => {
                metrics.snapshots_failed.increment();
                tracing::debug!(%from, %descriptor, why, "snapshot broken off");
                Ok(None)
            }
            Ended::Replaced(newer) => Ok(Some(newer)),
            Ended::Stopping => Ok(None),
        }
    }

    /// A first look, at what we are and what we said last: it keeps the disk from being used for
    /// nothing. The protocol looks again when all of it is here.
    fn check(&self, envelope: &Envelope) -> Result<SnapshotDescriptor, String> {
        let refuse = |refusal: Refusal| {
            self.links.metrics.count_refusal(refusal);
            Err(refusal.to_string())
        };
        let own = &self.links.identity;
        if envelope.cluster != own.cluster {
            return refuse(Refusal::Cluster);
        }
        if envelope.group != own.group {
            return refuse(Refusal::Group);
        }
        if envelope.to != own.id {
            return refuse(Refusal::Addressee(envelope.to));
        }
        if envelope.to_incarnation != own.incarnation {
            return refuse(Refusal::Incarnation(own.id));
        }
        let Message::Snapshot(descriptor) = &envelope.message else {
            return refuse(Refusal::Malformed {
                from: envelope.from,
                message: envelope.message.name(),
                term: envelope.term,
            });
        };
        let (term, commit) = self.links.status.term_and_commit();
        if envelope.term < term {
            let (old, id) = (envelope.term, own.id);
            return Err(format!(
                "it is of term {old}, and node {id} is in term {term}"
            ));
        }
        if descriptor.meta.last.index <= commit {
            let last = descriptor.meta.last;
            return Err(format!("it ends at {last}, and {commit} is committed here"));
        }
        Ok(descriptor.clone())
    }

    async fn transfer(
        &mut self,
        descriptor: &SnapshotDescriptor,
        envelope: &Envelope,
        mut stream: Box<dyn SnapshotStream>,
    ) -> Result<Ended, StorageError> {
        let sender = Sender::of(envelope);
        let mut writer = match self.links.shelf.receive(descriptor.clone()).await {
            Ok(writer) => writer,
            Err(error) => return refused(stream, error),
        };
        // What is missing of the file, and then the state beside the old one.
        let missing = missing_bytes(descriptor, writer.parts());
        if !self
            .links
            .room
            .takes(missing.saturating_add(descriptor.bytes))
        {
            return Ok(Ended::Refused(stream, no_room(descriptor)));
        }
        // A transfer may have broken after its last part: then nothing is missing.
        if writer.parts() < descriptor.parts {
            let accepted = stream.accept(writer.parts());
            match self.unless_ended(sender, accepted).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Ok(Ended::Lost(error.to_string())),
                Err(ended) => return Ok(ended),
            }
            let mut bytes_left = descriptor.bytes;
            loop {
                let part = match self.unless_ended(sender, stream.next_part()).await {
                    Ok(Ok(Some(part))) => part,
                    Ok(Ok(None)) => break,
                    Ok(Err(error)) => return Ok(Ended::Lost(error.to_string())),
                    Err(ended) => return Ok(ended),
                };
                let bytes = part.len() as u64;
                let is_announced = writer.parts() < descriptor.parts && bytes <= bytes_left;
                if !is_announced || part.len() > SNAPSHOT_PART_BYTES_MAX {
                    let why = format!("a part of {bytes} bytes is more than was announced");
                    return Ok(Ended::Refused(stream, why));
                }
                bytes_left -= bytes;
                if let Err(error) = writer.write(part).await {
                    return refused(stream, error);
                }
                self.links.metrics.snapshot_bytes_received.add(bytes);
                // A sender in memory never lets us wait.
                tokio::task::yield_now().await;
            }
        }
        // Behind this there is no way back: a node that cannot restore it ends.
        if !self.links.room.takes(descriptor.bytes) {
            return Ok(Ended::Refused(stream, no_room(descriptor)));
        }
        match self.links.shelf.finish_received(writer, descriptor).await {
            Ok(()) => Ok(Ended::Complete(stream)),
            Err(error) => refused(stream, error),
        }
    }

    /// Waits for the sender, unless something ends the transfer. Others are refused meanwhile.
    async fn unless_ended<T>(
        &mut self,
        current: Sender,
        wait: impl Future<Output = Result<T, SendError>>,
    ) -> Result<Result<T, SendError>, Ended> {
        // What was begun goes on while another offer is looked at: nothing says that it may be
        // dropped and begun again.
        let mut wait = pin!(wait);
        let mut patience = pin!(tokio::time::sleep(PART_TIME_MAX));
        loop {
            let offer = tokio::select! {
                biased;
                () = self.links.stop.wait() => return Err(Ended::Stopping),
                Some(offer) = self.links.offers.recv() => offer,
                done = &mut wait => return Ok(done),
                () = &mut patience => {
                    return Err(Ended::Lost(format!("nothing came for {PART_TIME_MAX:?}")));
                }
            };
            match self.check(&offer.envelope) {
                Ok(_) if Sender::of(&offer.envelope).replaces(current) => {
                    return Err(Ended::Replaced(offer));
                }
                Ok(_) => {
                    let why = format!("busy: node {} sends a snapshot", current.from);
                    self.finish(offer.stream, Err(why)).await;
                }
                Err(why) => self.finish(offer.stream, Err(why)).await,
            }
        }
    }

    /// Tells both sides at the same time: an answer that does not get through holds up nothing.
    async fn deliver(
        &self,
        envelope: Envelope,
        room: InstallRoom,
        stream: Box<dyn SnapshotStream>,
    ) {
        let received = Received::new(envelope, Some(room));
        // The driver is gone only when the node ends.
        let (_, _) = tokio::join!(self.links.inbox.send(received), self.finish(stream, Ok(())));
    }

    /// Tells the sender how it ended. One that does not hear it notices by itself.
    async fn finish(&self, stream: Box<dyn SnapshotStream>, outcome: Result<(), String>) {
        let mut stop = self.links.stop.clone();
        let told = tokio::time::timeout(FINISH_TIME_MAX, stream.finish(outcome));
        tokio::select! {
            biased;
            _ = told => {}
            () = stop.wait() => {}
        }
    }
}

/// About what is missing of a snapshot that has so many parts on the disk: they are of one size,
/// mostly.
fn missing_bytes(descriptor: &SnapshotDescriptor, parts: u64) -> u64 {
    let missing = u128::from(descriptor.parts.saturating_sub(parts));
    let bytes = u128::from(descriptor.bytes) * missing;
    let bytes = bytes / u128::from(descriptor.parts.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn no_room(descriptor: &SnapshotDescriptor) -> String {
    let bytes = descriptor.bytes;
    format!("the disk has no room for a state of {bytes} bytes beside the one that is there")
}

/// Ends a transfer whose content the store did not take; an error of the store itself is one.
fn refused(stream: Box<dyn SnapshotStream>, error: StorageError) -> Result<Ended, StorageError> {
    match error {
        StorageError::Full { .. }
        | StorageError::Io { .. }
        | StorageError::NoSnapshot(_)
        | StorageError::SnapshotMismatch { .. } => Ok(Ended::Refused(stream, error.to_string())),
        error => Err(error),
    }
}
