//! Receives from one link that a peer has dialled.

use std::sync::Arc;

use bytes::Bytes;
use quic_link::{CLOSE_NORMAL, FrameReader, FrameWriter, Link, Protocol};
use raft_core::{Envelope, Incarnation, NodeId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::hello::{HELLO_BYTES_MAX, Hello, HelloError, proved_node};
use super::{CLOSE_REFUSED, CONTROL_FRAME_BYTES_MAX, KIND_ENVELOPE, KIND_HELLO, Shared, count};
use crate::codec;

/// Whom a link was taken from.
#[derive(Clone, Copy)]
struct Sender {
    id: NodeId,
    incarnation: Incarnation,
}

/// Why a link is ended from this side.
enum End {
    /// The hello does not fit.
    Hello(HelloError),
    /// What came later does not fit the hello, or is no message at all.
    Message(String),
    /// The link or the stream is gone, or this transport is.
    Gone(String),
}

/// Runs until the link ends.
pub(super) async fn serve(shared: Arc<Shared>, link: Link) {
    let reporter = proved_node(link.peer(), &shared.local).unwrap_or_default();
    let end = receive(&shared, &link).await;
    match end {
        End::Hello(error) => {
            count(&shared.counters.links_refused);
            let details = error.to_string();
            shared.report_once(reporter, error.name(), &details);
            link.close(CLOSE_REFUSED, &details);
        }
        End::Message(details) => {
            count(&shared.counters.envelopes_refused);
            shared.report_once(reporter, "message", &details);
            link.close(CLOSE_REFUSED, &details);
        }
        End::Gone(why) => {
            tracing::debug!(peer = %reporter, why, "a link from a peer has ended");
            link.close(CLOSE_NORMAL, &why);
        }
    }
}

async fn receive(shared: &Arc<Shared>, link: &Link) -> End {
    let greeted = timeout(shared.options.hello_deadline, greet(shared, link))
        .await
        .unwrap_or_else(|_elapsed| Err(End::Gone("no hello came".to_owned())));
    let (sender, control) = match greeted {
        Ok(greeted) => greeted,
        Err(end) => return end,
    };
    count(&shared.counters.links_accepted);
    // A task for each lane, so that checking megabytes of entries does not hold a heartbeat up. They
    // end with the set.
    let mut lanes = JoinSet::new();
    lanes.spawn(read_lane(
        Arc::clone(shared),
        sender,
        control,
        CONTROL_FRAME_BYTES_MAX,
    ));
    let (shared, link) = (Arc::clone(shared), link.clone());
    lanes.spawn(async move {
        match link.accept_uni().await {
            Ok(bulk) => {
                let limit = shared.options.bulk_frame_bytes_max;
                read_lane(shared, sender, bulk, limit).await
            }
            Err(error) => End::Gone(error.to_string()),
        }
    });
    match lanes.join_next().await {
        Some(Ok(end)) => end,
        _ => End::Gone("a lane's task ended".to_owned()),
    }
}

/// Hears the hello, makes the link the peer's current one and answers.
async fn greet(shared: &Shared, link: &Link) -> Result<(Sender, FrameReader), End> {
    let gone = |error: quic_link::LinkError| End::Gone(error.to_string());
    if link.protocol() != Protocol::Peer {
        return Err(End::Hello(HelloError::Certificate(*link.peer())));
    }
    let (mut answers, mut control): (FrameWriter, FrameReader) =
        link.accept_bi().await.map_err(gone)?;
    let frame = control
        .read(HELLO_BYTES_MAX)
        .await
        .map_err(gone)?
        .filter(|frame| frame.kind == KIND_HELLO)
        .ok_or_else(|| End::Hello(HelloError::Malformed("another frame".to_owned())))?;
    let hello = Hello::decode(&frame.payload).map_err(End::Hello)?;
    let peer = proved_node(link.peer(), &shared.local)
        .ok()
        .and_then(|id| shared.peers.get(&id));
    let id = hello
        .check(link.peer(), &shared.local, peer.map(|peer| &peer.address))
        .map_err(End::Hello)?;
    let peer = peer.ok_or(End::Hello(HelloError::NotAMember(id)))?;
    peer.replace_incoming(hello.boot, link.clone())
        .map_err(|newest| {
            End::Hello(HelloError::Boot {
                id,
                found: hello.boot,
                newest,
            })
        })?;
    let incarnation = Incarnation(hello.from_incarnation);
    let answer = Hello::new(&shared.local, id, incarnation);
    answers
        .queue(KIND_HELLO, [Bytes::from(answer.encode())])
        .map_err(gone)?;
    answers.flush().await.map_err(gone)?;
    answers.finish();
    Ok((Sender { id, incarnation }, control))
}

async fn read_lane(
    shared: Arc<Shared>,
    sender: Sender,
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
        if let Some(why) = mismatch(&shared, sender, &envelope) {
            return End::Message(why);
        }
        if shared.arrived.lane(&envelope).send(envelope).await.is_err() {
            return End::Gone("shutting down".to_owned());
        }
    }
}

/// What of an envelope contradicts the link that it came over.
fn mismatch(shared: &Shared, sender: Sender, envelope: &Envelope) -> Option<String> {
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
    } else if *from != sender.id {
        Some(format!(
            "message of node {from} on a link of node {}",
            sender.id
        ))
    } else if *from_incarnation != sender.incarnation {
        Some(format!(
            "message of incarnation {from_incarnation} on a link of incarnation {}",
            sender.incarnation
        ))
    } else if *to != local.id {
        Some(format!("message for node {to} at node {}", local.id))
    } else {
        None
    }
}
