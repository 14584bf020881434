//! The writing side of one lane of a link.

use std::sync::Arc;

use bytes::Bytes;
use quic_link::{CLOSE_NORMAL, FrameWriter, Link};
use raft_core::{Envelope, NodeId, SendError};
use tokio::time::timeout;

use super::counters::{Counters, count};
use super::options::{CLOSE_STALLED, KIND_ENVELOPE, QuicOptions};
use crate::codec;

/// The writing side of a lane.
#[derive(Debug)]
pub(super) struct Lane {
    link: Link,
    writer: tokio::sync::Mutex<FrameWriter>,
}

impl Lane {
    pub(super) fn new(link: Link, writer: FrameWriter) -> Arc<Self> {
        let writer = tokio::sync::Mutex::new(writer);
        Arc::new(Self { link, writer })
    }

    /// Hands over what is queued already.
    pub(super) async fn flush(&self) -> Result<(), quic_link::LinkError> {
        self.writer.lock().await.flush().await
    }

    /// Writes in the caller's task. Each lane has one caller at a time, so the lock is free; a
    /// message that its caller has given up half written is completed by the next one.
    pub(super) async fn write(
        &self,
        options: &QuicOptions,
        counters: &Counters,
        to: NodeId,
        envelopes: &[Envelope],
    ) -> Result<(), SendError> {
        if envelopes.is_empty() {
            return Ok(());
        }
        let limit = options.bulk_frame_bytes_max;
        let mut too_large = None;
        let written = timeout(options.write_deadline, async {
            let mut writer = self.writer.lock().await;
            for envelope in envelopes {
                let parts = codec::encode(envelope);
                let bytes = parts.iter().map(Bytes::len).sum::<usize>();
                if bytes > limit {
                    too_large = Some(SendError::TooLarge { bytes, limit });
                } else {
                    writer.queue(KIND_ENVELOPE, parts)?;
                }
            }
            writer.flush().await
        });
        match written.await {
            Ok(Ok(())) => too_large.map_or(Ok(()), Err),
            Ok(Err(error)) => {
                let why = error.to_string();
                // A writer that failed once is of no more use.
                self.link.close(CLOSE_NORMAL, "a stream broke");
                Err(SendError::Unreachable { to, why })
            }
            Err(_elapsed) => {
                let waited = options.write_deadline.as_millis();
                let why = format!("it took no bytes for {waited} ms");
                count(&counters.links_stalled);
                self.link.close(CLOSE_STALLED, &why);
                Err(SendError::Unreachable { to, why })
            }
        }
    }
}
