//! The sending side of a snapshot's stream.

use bytes::{Buf, Bytes};
use quic_link::{Frame, FrameReader, FrameWriter, Link, LinkError};
use raft_core::{Envelope, NodeId, SendError, SnapshotReader};
use std::time::Duration;
use tokio::time::timeout;

use super::options::{
    KIND_END, KIND_FROM, KIND_OFFER, KIND_PART, KIND_REFUSED, KIND_STORED, PRIORITY_SNAPSHOT,
    STREAM_GIVEN_UP,
};
use super::shared::Shared;
use crate::codec;
use crate::transfer::{self, Answer, PART_NUMBER_BYTES, Pipe, REFUSAL_BYTES_MAX};

/// Offers a snapshot on a stream of its own, and sends what is asked for. The stream ends with the
/// future.
pub(super) async fn send(
    shared: &Shared,
    link: &Link,
    to: NodeId,
    envelope: &Envelope,
    content: Box<dyn SnapshotReader>,
) -> Result<(), SendError> {
    let descriptor = transfer::offered(envelope, &*content)?;
    let step = shared.options.snapshot_step_deadline;
    let opened = timeout(step, link.open_bi()).await;
    let (writer, answers) = opened
        .unwrap_or(Err(LinkError::Stalled { after: step }))
        .map_err(|error| unreachable(to, &error))?;
    writer.set_priority(PRIORITY_SNAPSHOT);
    let mut pipe = QuicPipe {
        shared,
        to,
        writer,
        answers,
        is_over: false,
    };
    pipe.write(KIND_OFFER, codec::encode(envelope)).await?;
    transfer::send(&mut pipe, to, descriptor, content).await?;
    pipe.is_over = true;
    Ok(())
}

fn unreachable(to: NodeId, error: &LinkError) -> SendError {
    let why = error.to_string();
    SendError::Unreachable { to, why }
}

struct QuicPipe<'a> {
    shared: &'a Shared,
    to: NodeId,
    writer: FrameWriter,
    answers: FrameReader,
    is_over: bool,
}

impl QuicPipe<'_> {
    /// Writes a frame, slice by slice, at the rate of all snapshots. A receiver that takes nothing
    /// for too long ends the transfer; a slow one does not.
    async fn write(&mut self, kind: u8, parts: Vec<Bytes>) -> Result<(), SendError> {
        let queued = self.writer.queue(kind, parts);
        queued.map_err(|error| SendError::Snapshot(error.to_string()))?;
        let (rate, idle) = (
            &self.shared.snapshot_rate,
            self.shared.options.snapshot_step_deadline,
        );
        while self.writer.queued_bytes() > 0 {
            let slice = self.writer.flush_slice(rate.slice_bytes());
            let written = timeout(idle, slice)
                .await
                .unwrap_or(Err(LinkError::Stalled { after: idle }));
            match written {
                Ok(bytes) => rate.pay(bytes).await,
                Err(error) => return Err(self.explain(error).await),
            }
        }
        Ok(())
    }

    /// The receiver stops the stream when it does not want more, and says why beside it.
    async fn explain(&mut self, error: LinkError) -> SendError {
        if !matches!(error, LinkError::StreamEnded(_)) {
            return unreachable(self.to, &error);
        }
        let to = self.to;
        match self.read(self.shared.options.snapshot_step_deadline).await {
            Ok(Answer::Refused(why)) => SendError::Refused { to, why },
            Ok(answer) => {
                let why = format!("it stopped reading and answered {answer:?}");
                SendError::Refused { to, why }
            }
            Err(error) => error,
        }
    }

    async fn read(&mut self, within: Duration) -> Result<Answer, SendError> {
        let to = self.to;
        let read = timeout(within, self.answers.read(REFUSAL_BYTES_MAX)).await;
        match read.unwrap_or(Err(LinkError::Stalled { after: within })) {
            Ok(Some(frame)) => decode(frame),
            Ok(None) | Err(LinkError::StreamEnded(_)) => {
                let why = "it dropped the snapshot without a word".to_owned();
                Err(SendError::Refused { to, why })
            }
            Err(error) => Err(unreachable(to, &error)),
        }
    }
}

fn decode(frame: Frame) -> Result<Answer, SendError> {
    let Frame { kind, mut payload } = frame;
    match kind {
        KIND_FROM if payload.len() == PART_NUMBER_BYTES => Ok(Answer::From(payload.get_u64_le())),
        KIND_STORED if payload.is_empty() => Ok(Answer::Stored),
        KIND_REFUSED => Ok(Answer::Refused(
            String::from_utf8_lossy(&payload).into_owned(),
        )),
        _ => {
            let bytes = payload.len();
            let why = format!("an answer of kind {kind} with {bytes} bytes came");
            Err(SendError::Snapshot(why))
        }
    }
}

impl Pipe for QuicPipe<'_> {
    async fn answer(&mut self) -> Result<Answer, SendError> {
        self.read(self.shared.options.snapshot_step_deadline).await
    }

    fn early_answer(&mut self) -> Option<Answer> {
        let frame = self.answers.try_read(REFUSAL_BYTES_MAX).ok()??;
        decode(frame).ok()
    }

    async fn part(&mut self, number: u64, part: Bytes) -> Result<(), SendError> {
        let number = Bytes::copy_from_slice(&number.to_le_bytes());
        self.write(KIND_PART, vec![number, part]).await
    }

    async fn end(&mut self) -> Result<(), SendError> {
        self.write(KIND_END, Vec::new()).await?;
        self.writer.finish();
        Ok(())
    }

    async fn last_answer(&mut self) -> Result<Answer, SendError> {
        self.read(self.shared.options.snapshot_store_deadline).await
    }
}

impl Drop for QuicPipe<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.writer.reset(STREAM_GIVEN_UP);
        }
        self.answers.stop(STREAM_GIVEN_UP);
    }
}
