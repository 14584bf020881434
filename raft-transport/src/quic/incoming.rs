//! Serves one link that a peer has dialled: its two lanes, and the snapshots that it offers.

use std::sync::Arc;

use bytes::Bytes;
use quic_link::{FrameReader, FrameWriter, Link, Protocol};
use raft_core::Incarnation;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::counters::count;
use super::hello::{HELLO_BYTES_MAX, Hello, HelloError, proved_node};
use super::lane::Lane;
use super::options::{CONTROL_FRAME_BYTES_MAX, KIND_HELLO, PRIORITY_CONTROL};
use super::peer::Incoming;
use super::reading::{End, Speaker, read_lane};
use super::shared::Shared;
use super::snapshot_receiver::take_offer;

/// Runs until the link ends.
pub(super) async fn serve(shared: Arc<Shared>, link: Link) {
    let reporter = proved_node(link.peer(), &shared.local).unwrap_or_default();
    let end = receive(&shared, &link).await;
    end.close(&shared, reporter, &link);
}

async fn receive(shared: &Arc<Shared>, link: &Link) -> End {
    let greeted = timeout(shared.options.hello_deadline, greet(shared, link))
        .await
        .unwrap_or_else(|_elapsed| Err(End::Gone("no hello came".to_owned())));
    let (speaker, control) = match greeted {
        Ok(greeted) => greeted,
        Err(end) => return end,
    };
    count(&shared.counters.links_accepted);
    // A task for each lane, so that checking megabytes of entries does not hold a heartbeat up.
    // They end with the set.
    let mut lanes = JoinSet::new();
    lanes.spawn(read_lane(
        Arc::clone(shared),
        speaker,
        control,
        CONTROL_FRAME_BYTES_MAX,
    ));
    lanes.spawn(take_offers(Arc::clone(shared), speaker, link.clone()));
    let (shared, link) = (Arc::clone(shared), link.clone());
    lanes.spawn(async move {
        match link.accept_uni().await {
            Ok(bulk) => {
                let limit = shared.options.bulk_frame_bytes_max;
                read_lane(shared, speaker, bulk, limit).await
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
async fn greet(shared: &Shared, link: &Link) -> Result<(Speaker, FrameReader), End> {
    let gone = |error: quic_link::LinkError| End::Gone(error.to_string());
    if link.protocol() != Protocol::Peer {
        return Err(End::Hello(HelloError::Certificate(*link.peer())));
    }
    let (mut replies, mut control): (FrameWriter, FrameReader) =
        link.accept_bi().await.map_err(gone)?;
    let frame = control
        .read(HELLO_BYTES_MAX)
        .await
        .map_err(gone)?
        .filter(|frame| frame.kind == KIND_HELLO)
        .ok_or_else(|| End::Hello(HelloError::Malformed("another frame".to_owned())))?;
    let hello = Hello::decode(&frame.payload).map_err(End::Hello)?;
    let id = hello
        .check(link.peer(), &shared.local)
        .map_err(End::Hello)?;
    shared.note_incarnations(id, &hello);
    let incarnation = Incarnation(hello.from_incarnation);
    let answer = Hello::new(&shared.local, id, incarnation);
    replies.set_priority(PRIORITY_CONTROL);
    // Queued before anybody else can write: it is the first frame that comes back.
    replies
        .queue(KIND_HELLO, [Bytes::from(answer.encode())])
        .map_err(gone)?;
    let replies = Lane::new(link.clone(), replies);
    let incoming = Arc::new(Incoming {
        link: link.clone(),
        incarnation,
        boot: hello.boot,
        replies: Arc::clone(&replies),
    });
    let is_member = shared
        .peers
        .replace_incoming(id, incoming)
        .map_err(End::Hello)?;
    if !is_member {
        count(&shared.counters.links_from_strangers);
    }
    replies.flush().await.map_err(gone)?;
    Ok((Speaker { id, incarnation }, control))
}

/// Takes up the streams of snapshots. QUIC bounds how many a peer may have open.
async fn take_offers(shared: Arc<Shared>, speaker: Speaker, link: Link) -> End {
    let mut offers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = link.accept_bi() => match accepted {
                Ok((answers, parts)) => {
                    offers.spawn(take_offer(Arc::clone(&shared), speaker, answers, parts));
                }
                Err(error) => return End::Gone(error.to_string()),
            },
            Some(Ok(Some(end))) = offers.join_next() => return end,
        }
    }
}
