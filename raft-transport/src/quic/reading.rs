//! The reading side of one lane of a link: what is handed up, and what ends the link.

use std::sync::Arc;

use quic_link::{CLOSE_NORMAL, FrameReader, Link};
use raft_core::{Envelope, Incarnation, Message, NodeId};

use super::counters::count;
use super::hello::HelloError;
use super::options::{CLOSE_REFUSED, KIND_ENVELOPE};
use super::shared::Shared;
use crate::codec;

/// Who speaks on a link, as the certificate and the hello say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
}

/// Why a link is ended from this side.
#[derive(Debug)]
pub(super) enum End {
    /// The hello does not fit.
    Hello(HelloError),
    /// What came later does not fit the hello, or is no message at all.
    Message(String),
    /// The link or the stream is gone, or this transport is.
    Gone(String),
}

impl End {
    /// Closes the link for this reason, and says it where somebody should know.
    pub(super) fn close(self, shared: &Shared, peer: NodeId, link: &Link) {
        match self {
            Self::Hello(error) => {
                count(&shared.counters.links_refused);
                let details = error.to_string();
                shared.report_once(peer, error.name(), &details);
                link.close(CLOSE_REFUSED, &details);
            }
            Self::Message(details) => {
                count(&shared.counters.envelopes_refused);
                shared.report_once(peer, "message", &details);
                link.close(CLOSE_REFUSED, &details);
            }
            Self::Gone(why) => {
                tracing::debug!(%peer, why, "a link has ended");
                link.close(CLOSE_NORMAL, &why);
            }
        }
    }
}

/// Reads a lane until it ends, and hands up what comes.
pub(super) async fn read_lane(
    shared: Arc<Shared>,
    speaker: Speaker,
    mut reader: FrameReader,
    frame_bytes_max: usize,
) -> End {
    loop {
        let frame = match reader.read(frame_bytes_max).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Gone("the peer finished a lane".to_owned()),
            Err(quic_link::LinkError::Frame(error)) => return End::Message(error.to_string()),
            Err(error) => return End::Gone(error.to_string()),
        };
        if frame.kind != KIND_ENVELOPE {
            return End::Message(format!("a frame of kind {}", frame.kind));
        }
        let envelope = match codec::decode(frame.payload) {
            Ok(envelope) => envelope,
            Err(error) => return End::Message(error.to_string()),
        };
        if let Some(why) = mismatch(&shared, speaker, &envelope) {
            return End::Message(why);
        }
        if matches!(envelope.message, Message::Snapshot(_)) {
            return End::Message("a snapshot on a lane of messages".to_owned());
        }
        if shared.arrived.lane(&envelope).send(envelope).await.is_err() {
            return End::Gone("shutting down".to_owned());
        }
    }
}

/// What of an envelope contradicts the link that it came over. For which incarnation of this node
/// it is, is for the protocol to judge.
pub(super) fn mismatch(shared: &Shared, speaker: Speaker, envelope: &Envelope) -> Option<String> {
    let local = &shared.local;
    let Envelope {
        cluster,
        from,
        from_incarnation,
        to,
        ..
    } = envelope;
    if *cluster != local.cluster {
        Some(format!("message of cluster {cluster}"))
    } else if *from != speaker.id {
        Some(format!(
            "message of node {from} on a link of node {}",
            speaker.id
        ))
    } else if *from_incarnation != speaker.incarnation {
        Some(format!(
            "message of incarnation {from_incarnation} on a link of incarnation {}",
            speaker.incarnation
        ))
    } else if *to != local.id {
        Some(format!("message for node {to} at node {}", local.id))
    } else {
        None
    }
}
