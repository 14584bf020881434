//! The receiving side of a snapshot's stream.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use quic_link::{FrameReader, FrameWriter, LinkError};
use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{IncomingSnapshot, Message, NodeId, SendError, SnapshotDescriptor, SnapshotStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

use super::counters::count;
use super::options::{
    KIND_END, KIND_FROM, KIND_OFFER, KIND_PART, KIND_REFUSED, KIND_STORED, STREAM_GIVEN_UP,
};
use super::reading::{End, Speaker, mismatch};
use super::shared::Shared;
use crate::codec::{self, MEMBERSHIP_BYTES_MAX, METADATA_BYTES_MAX};
use crate::inbox::TOO_MANY_OFFERS;
use crate::transfer::{PART_NUMBER_BYTES, Stage, refusal_text};

/// The largest frame with an offer: its version, its metadata, its membership.
const OFFER_BYTES_MAX: usize = 1 + METADATA_BYTES_MAX + MEMBERSHIP_BYTES_MAX;

/// Reads the offer of a stream that the peer has opened, and hands it up. An end, where the whole
/// link has to end: the offer is none, or contradicts the link.
pub(super) async fn take_offer(
    shared: Arc<Shared>,
    speaker: Speaker,
    answers: FrameWriter,
    mut parts: FrameReader,
) -> Option<End> {
    let idle = shared.options.snapshot_step_deadline;
    let frame = match parts.read_moving(OFFER_BYTES_MAX, idle).await {
        Ok(Some(frame)) => frame,
        Err(LinkError::Frame(error)) => return Some(End::Message(error.to_string())),
        // Given up before it began: dropping the stream's two ends is all there is to do.
        Ok(None) | Err(_) => return None,
    };
    if frame.kind != KIND_OFFER {
        return Some(End::Message(format!("an offer of kind {}", frame.kind)));
    }
    let envelope = match codec::decode(frame.payload) {
        Ok(envelope) => envelope,
        Err(error) => return Some(End::Message(error.to_string())),
    };
    if let Some(why) = mismatch(&shared, speaker, &envelope) {
        return Some(End::Message(why));
    }
    let Message::Snapshot(descriptor) = &envelope.message else {
        let name = envelope.message.name();
        return Some(End::Message(format!("{name} on the stream of a snapshot")));
    };
    let stream = Box::new(QuicSnapshotStream {
        shared: Arc::clone(&shared),
        from: speaker.id,
        descriptor: descriptor.clone(),
        answers,
        parts,
        stage: Stage::Offered,
        is_finished: false,
    });
    let offer = IncomingSnapshot { envelope, stream };
    match shared.arrived.offers().try_send(offer) {
        Ok(()) => {}
        Err(TrySendError::Full(offer)) => {
            offer.stream.finish(Err(TOO_MANY_OFFERS.to_owned())).await;
        }
        Err(TrySendError::Closed(_)) => return Some(End::Gone("shutting down".to_owned())),
    }
    None
}

/// What the owner of an [`IncomingSnapshot`] pulls on. The windows of the stream and one part are
/// all that it holds.
struct QuicSnapshotStream {
    shared: Arc<Shared>,
    from: NodeId,
    descriptor: SnapshotDescriptor,
    answers: FrameWriter,
    parts: FrameReader,
    stage: Stage,
    is_finished: bool,
}

impl QuicSnapshotStream {
    fn gone(&self, why: impl Into<String>) -> SendError {
        let (to, why) = (self.from, why.into());
        SendError::Unreachable { to, why }
    }

    fn malformed(&self, error: SendError) -> SendError {
        count(&self.shared.counters.snapshots_malformed);
        self.shared
            .report_once(self.from, "snapshot", &error.to_string());
        error
    }

    async fn say(&mut self, kind: u8, payload: Bytes) -> Result<(), SendError> {
        let idle = self.shared.options.snapshot_step_deadline;
        let said = match self.answers.queue(kind, [payload]) {
            Ok(()) => timeout(idle, self.answers.flush())
                .await
                .unwrap_or(Err(LinkError::Stalled { after: idle })),
            Err(error) => Err(error),
        };
        said.map_err(|error| self.gone(error.to_string()))
    }

    /// A part, or none at the end, if the frame is what has to come now.
    fn take(&mut self, kind: u8, mut payload: Bytes) -> Result<Option<Bytes>, SendError> {
        let Some(order) = self.stage.order()? else {
            return Ok(None);
        };
        match kind {
            KIND_PART if payload.len() >= PART_NUMBER_BYTES => {
                let number = payload.get_u64_le();
                order.part(number, payload.len())?;
                Ok(Some(payload))
            }
            KIND_END if payload.is_empty() => {
                order.end()?;
                self.stage = Stage::Ended;
                Ok(None)
            }
            _ => {
                let bytes = payload.len();
                let why = format!("a frame of kind {kind} with {bytes} bytes came");
                Err(SendError::Snapshot(why))
            }
        }
    }
}

#[async_trait]
impl SnapshotStream for QuicSnapshotStream {
    async fn accept(&mut self, first_part: u64) -> Result<(), SendError> {
        self.stage.accept(&self.descriptor, first_part)?;
        let payload = Bytes::copy_from_slice(&first_part.to_le_bytes());
        self.say(KIND_FROM, payload).await
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, SendError> {
        if self.stage.order()?.is_none() {
            return Ok(None);
        }
        let idle = self.shared.options.snapshot_step_deadline;
        let limit = PART_NUMBER_BYTES + SNAPSHOT_PART_BYTES_MAX;
        let frame = match self.parts.read_moving(limit, idle).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(self.gone("it ended the stream before the snapshot's end")),
            Err(LinkError::Frame(error)) => {
                return Err(self.malformed(SendError::Snapshot(error.to_string())));
            }
            Err(error) => return Err(self.gone(error.to_string())),
        };
        self.take(frame.kind, frame.payload)
            .map_err(|error| self.malformed(error))
    }

    async fn finish(mut self: Box<Self>, outcome: Result<(), String>) {
        let is_stored = outcome.is_ok();
        let said = match outcome {
            Ok(()) => self.say(KIND_STORED, Bytes::new()).await,
            Err(why) => self.say(KIND_REFUSED, refusal_text(&why)).await,
        };
        if let Err(error) = said {
            tracing::debug!(from = %self.from, %error, "a snapshot's sender was not answered");
            return;
        }
        if is_stored {
            count(&self.shared.counters.snapshots_received);
        }
        self.answers.finish();
        self.is_finished = true;
    }
}

impl Drop for QuicSnapshotStream {
    fn drop(&mut self) {
        if !self.is_finished {
            self.answers.reset(STREAM_GIVEN_UP);
        }
        self.parts.stop(STREAM_GIVEN_UP);
    }
}
