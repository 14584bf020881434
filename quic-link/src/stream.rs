//! Frames over one QUIC stream: a writer that gathers many frames into few calls, and a reader that
//! may be cancelled at any time.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::error::LinkError;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameDecoder, encode_header};
use crate::limits::LinkLimits;

/// Parts below this size are gathered into one buffer, larger ones are handed on by reference. The
/// QUIC library looks for a position by walking over all parts that wait for acknowledgement, for
/// each packet anew; ten thousand parts of twenty bytes would cost far more than copying them.
const GATHER_BYTES_MAX: usize = 1_024;

/// The size at which a gathered buffer is handed on.
const GATHER_BUFFER_BYTES: usize = 16 << 10;

/// Chunks taken from the QUIC library in one call; each is the payload of one packet at most.
const CHUNKS_PER_READ: usize = 32;

/// Writes frames to a stream.
#[derive(Debug)]
pub struct FrameWriter {
    stream: SendStream,
    /// Written from the front; the ones before `flushed` are done.
    queue: Vec<Bytes>,
    flushed: usize,
    gathered: BytesMut,
    queued_bytes: usize,
    payload_bytes_max: usize,
    unflushed_bytes_max: usize,
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream, limits: &LinkLimits) -> Self {
        Self {
            stream,
            queue: Vec::new(),
            flushed: 0,
            gathered: BytesMut::new(),
            queued_bytes: 0,
            payload_bytes_max: limits.frame_payload_bytes_max,
            unflushed_bytes_max: limits.unflushed_bytes_max,
        }
    }

    /// Adds a frame whose payload is `parts`, one after the other. Nothing is sent before
    /// [`FrameWriter::flush`]. Large parts are not copied.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`] when the payload is above the limit of this endpoint, and
    /// [`LinkError::QueueFull`] when too much waits already. The frame was then not added.
    pub fn queue(
        &mut self,
        kind: u8,
        parts: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), LinkError> {
        let parts: Vec<Bytes> = parts.into_iter().collect();
        let bytes = parts.iter().map(Bytes::len).sum::<usize>();
        let limit = self.payload_bytes_max;
        let length = u32::try_from(bytes)
            .ok()
            .filter(|_| bytes <= limit)
            .ok_or(LinkError::TooLarge { bytes, limit })?;
        let waiting = self.queued_bytes + FRAME_HEADER_BYTES + bytes;
        if waiting > self.unflushed_bytes_max {
            return Err(LinkError::QueueFull {
                bytes: waiting,
                limit: self.unflushed_bytes_max,
            });
        }
        self.gather(&encode_header(kind, length, &parts));
        for part in parts {
            if part.len() < GATHER_BYTES_MAX {
                self.gather(&part);
            } else {
                self.close_gathered();
                self.queue.push(part);
            }
        }
        self.queued_bytes = waiting;
        Ok(())
    }

    /// Hands all queued frames to the QUIC library; waits while its window is full. `Ok` promises
    /// no arrival. May be cancelled: the next call goes on where this one stopped.
    ///
    /// # Errors
    /// When the stream or the link is gone. The queued frames are then lost.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        self.close_gathered();
        while self.flushed < self.queue.len() {
            let written = self
                .stream
                .write_chunks(&mut self.queue[self.flushed..])
                .await?;
            self.flushed += written.chunks;
            self.queued_bytes = self.queued_bytes.saturating_sub(written.bytes);
        }
        self.queue.clear();
        self.flushed = 0;
        self.queued_bytes = 0;
        Ok(())
    }

    /// Hands over a slice of what is queued, `bytes_max` at most, and says how large it was: 0 when
    /// nothing is queued. For a writer that keeps to a rate, or that wants to see progress within a
    /// large frame. Waits and may be cancelled as [`FrameWriter::flush`].
    ///
    /// # Errors
    /// As [`FrameWriter::flush`].
    pub async fn flush_slice(&mut self, bytes_max: usize) -> Result<usize, LinkError> {
        self.close_gathered();
        let Some(front) = self.queue.get_mut(self.flushed) else {
            return Ok(0);
        };
        if front.len() > bytes_max {
            let rest = front.split_off(bytes_max.max(1));
            self.queue.insert(self.flushed + 1, rest);
        }
        let slice = &mut self.queue[self.flushed..=self.flushed];
        let written = self.stream.write_chunks(slice).await?;
        self.flushed += written.chunks;
        self.queued_bytes = self.queued_bytes.saturating_sub(written.bytes);
        if self.flushed == self.queue.len() {
            self.queue.clear();
            self.flushed = 0;
        }
        Ok(written.bytes)
    }

    /// Bytes that wait for [`FrameWriter::flush`].
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Among the streams of a link, data of a higher priority leaves first. 0 at the start.
    pub fn set_priority(&self, priority: i32) {
        // Fails only on a stream that is closed, where it does not matter.
        let _ = self.stream.set_priority(priority);
    }

    /// Ends the stream after what was flushed. The reader gets `None` after the last frame.
    pub fn finish(&mut self) {
        // Fails only on a stream that is closed already.
        let _ = self.stream.finish();
    }

    /// Gives the stream up: what was not delivered will not be.
    pub fn reset(&mut self, code: u32) {
        // Fails only on a stream that is closed already.
        let _ = self.stream.reset(VarInt::from_u32(code));
    }

    /// Adds bytes that need not be a frame, for tests of what a reader makes of them.
    #[cfg(feature = "test-support")]
    pub fn queue_raw(&mut self, bytes: Bytes) {
        self.queued_bytes += bytes.len();
        self.close_gathered();
        self.queue.push(bytes);
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() > GATHER_BUFFER_BYTES {
            self.close_gathered();
        }
        self.gathered.extend_from_slice(bytes);
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.queue.push(self.gathered.split().freeze());
        }
    }
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    decoder: FrameDecoder,
    ended: bool,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(),
            ended: false,
        }
    }

    /// The next frame; `None` when the writer has finished the stream behind a whole frame. May be
    /// cancelled: what was read stays for the next call.
    ///
    /// # Errors
    /// When the bytes are no frame or one above `payload_bytes_max`, and when the stream
    /// or the link is gone.
    pub async fn read(&mut self, payload_bytes_max: usize) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(frame) = self.decoded(payload_bytes_max)? {
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            self.take_chunks().await?;
        }
    }

    /// As [`FrameReader::read`], from a writer that must not stand still: each piece of the frame
    /// has to come within `idle` of the one before it.
    ///
    /// # Errors
    /// As [`FrameReader::read`], and [`LinkError::Stalled`].
    pub async fn read_moving(
        &mut self,
        payload_bytes_max: usize,
        idle: Duration,
    ) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(frame) = self.decoded(payload_bytes_max)? {
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            timeout(idle, self.take_chunks())
                .await
                .unwrap_or(Err(LinkError::Stalled { after: idle }))?;
        }
    }

    /// A frame that is here already.
    fn decoded(&mut self, payload_bytes_max: usize) -> Result<Option<Frame>, LinkError> {
        match self.decoder.next_frame(payload_bytes_max)? {
            None if self.ended && self.decoder.is_inside_frame() => Err(LinkError::Truncated),
            frame => Ok(frame),
        }
    }

    async fn take_chunks(&mut self) -> Result<(), LinkError> {
        let mut chunks: [Bytes; CHUNKS_PER_READ] = Default::default();
        match self.stream.read_chunks(&mut chunks).await? {
            Some(count) => chunks
                .into_iter()
                .take(count)
                .for_each(|chunk| self.decoder.push(chunk)),
            None => self.ended = true,
        }
        Ok(())
    }

    /// A frame that has arrived already; `None` when [`FrameReader::read`] would wait, and at the
    /// end.
    ///
    /// # Errors
    /// As [`FrameReader::read`].
    pub fn try_read(&mut self, payload_bytes_max: usize) -> Result<Option<Frame>, LinkError> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.read(payload_bytes_max)).poll(&mut context) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(None),
        }
    }

    /// Tells the writer that nothing more will be read.
    pub fn stop(&mut self, code: u32) {
        // Fails only on a stream that is closed already.
        let _ = self.stream.stop(VarInt::from_u32(code));
    }
}
