//! Takes messages from the transport into the driver's inbox. Here the node may wait: an inbox that
//! is full holds up the transport, which holds up the sender.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::StopReason;
use crate::message::Envelope;
use crate::node::metrics::Metrics;
use crate::transport::{Incoming, Transport};

/// Messages that may wait for the driver.
pub(crate) const INBOX_MESSAGES_MAX: usize = 4096;

/// Encoded bytes of entries in them. A message that is larger takes all of it.
const INBOX_BYTES_MAX: u32 = 64 << 20;

/// A message and the room that it takes until it is stepped.
#[derive(Debug)]
pub(crate) struct Received {
    /// The message.
    pub(crate) envelope: Envelope,
    _room: Option<OwnedSemaphorePermit>,
}

/// Runs until it is aborted, or the transport ends.
pub(crate) async fn run(
    transport: Arc<dyn Transport>,
    inbox: mpsc::Sender<Received>,
    metrics: Arc<Metrics>,
) -> Result<(), StopReason> {
    let room = Arc::new(Semaphore::new(INBOX_BYTES_MAX as usize));
    while let Some(incoming) = transport.recv().await {
        let Incoming::Message(envelope) = incoming else {
            continue;
        };
        metrics.messages_received.increment();
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
        let received = Received {
            envelope,
            _room: claim,
        };
        if inbox.send(received).await.is_err() {
            return Ok(());
        }
    }
    Err(StopReason::Transport)
}
