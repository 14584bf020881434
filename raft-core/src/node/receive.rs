//! Takes messages from the transport into the driver's inbox. Here the node may wait: an inbox that
//! is full holds up the transport, which holds up the sender. Snapshots that are offered go to a
//! task of their own, so that nothing waits behind one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::{Refusal, StopReason};
use crate::message::{Envelope, Message};
use crate::node::metrics::Metrics;
use crate::transport::{Incoming, IncomingSnapshot, Transport};

/// Messages that may wait for the driver.
pub(crate) const INBOX_MESSAGES_MAX: usize = 4096;

/// Encoded bytes of entries in them. A message that is larger takes all of it.
const INBOX_BYTES_MAX: u32 = 64 << 20;

/// A message and the room that it takes until it is stepped.
#[derive(Debug)]
pub(crate) struct Received {
    /// The message.
    pub(crate) envelope: Envelope,
    /// Of the inbox; for a snapshot that is on the disk, of the way into the state machine.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Received {
    /// A message that takes `room`.
    pub(crate) fn new(envelope: Envelope, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { envelope, room }
    }
}

/// Runs until it is aborted, or the transport ends.
pub(crate) async fn run(
    transport: Arc<dyn Transport>,
    inbox: mpsc::Sender<Received>,
    offers: mpsc::Sender<IncomingSnapshot>,
    metrics: Arc<Metrics>,
) -> Result<(), StopReason> {
    let room = Arc::new(Semaphore::new(INBOX_BYTES_MAX as usize));
    while let Some(incoming) = transport.recv().await {
        metrics.messages_received.increment();
        let envelope = match incoming {
            Incoming::Message(envelope) => envelope,
            Incoming::Snapshot(offer) => {
                // One that does not fit is dropped, which refuses it.
                let _ = offers.try_send(offer);
                continue;
            }
        };
        if matches!(envelope.message, Message::Snapshot(_)) {
            // It would say that a snapshot is on our disk. Only we can know that.
            refuse(&envelope, &metrics);
            continue;
        }
        let bytes = u32::try_from(envelope.message.entry_bytes()).unwrap_or(INBOX_BYTES_MAX);
        let claim = if bytes == 0 {
            None
        } else {
            let room = Arc::clone(&room);
            // The semaphore is never closed, so there is always an answer.
            room.acquire_many_owned(bytes.min(INBOX_BYTES_MAX))
                .await
                .ok()
        };
        if inbox.send(Received::new(envelope, claim)).await.is_err() {
            return Ok(());
        }
    }
    Err(StopReason::Transport)
}

fn refuse(envelope: &Envelope, metrics: &Metrics) {
    let refusal = Refusal::Malformed {
        from: envelope.from,
        message: envelope.message.name(),
        term: envelope.term,
    };
    let count = metrics.count_refusal(refusal);
    if count.is_power_of_two() {
        tracing::warn!(%refusal, count, "message refused");
    }
}
