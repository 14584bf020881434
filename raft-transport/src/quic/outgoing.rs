//! Keeps one link to one peer: dial, hold, dial again.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_link::{FrameReader, Identity, Link, Protocol, Role};
use raft_core::{Incarnation, NodeId};
use tokio::time::{Instant, sleep, timeout};

use super::counters::count;
use super::hello::{HELLO_BYTES_MAX, Hello};
use super::lane::Lane;
use super::options::{
    CLOSE_REFUSED, CONTROL_FRAME_BYTES_MAX, KIND_HELLO, PRIORITY_CONTROL, QuicOptions,
};
use super::peer::{Outgoing, Peer};
use super::reading::{Speaker, read_lane};
use super::shared::Shared;
use crate::random::Random;

/// A link that lived this long was not part of the trouble before it: the back-off starts anew.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// A link that is up, and what comes back on its control lane.
struct Dialled {
    outgoing: Arc<Outgoing>,
    replies: FrameReader,
}

/// Runs until the transport ends it.
pub(super) async fn keep_link(shared: Arc<Shared>, peer: Arc<Peer>) {
    let to = peer.id;
    let mut backoff = Backoff::new(&shared, to);
    loop {
        match dial_seen(&shared, &peer).await {
            Ok(dialled) => {
                count(&shared.counters.links_dialled);
                let address = dialled.outgoing.link.remote_addr();
                tracing::info!(peer = %to, %address, "link is up");
                let since = Instant::now();
                let why = hold(&shared, &peer, dialled).await;
                tracing::info!(peer = %to, why, "link is down");
                peer.set_problem(why);
                if since.elapsed() >= STABLE_AFTER {
                    backoff.reset();
                }
            }
            Err(why) => {
                count(&shared.counters.dials_failed);
                // Each cause once in a row: a peer that is down for a night is one line.
                if peer.set_problem(why.clone()) {
                    tracing::warn!(peer = %to, why, "cannot reach a peer");
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = peer.seen.notified() => backoff.reset(),
        }
    }
}

/// Offers a link for sending, and takes what the peer replies on it, until it is gone.
async fn hold(shared: &Arc<Shared>, peer: &Peer, dialled: Dialled) -> String {
    let Dialled { outgoing, replies } = dialled;
    let speaker = Speaker {
        id: peer.id,
        incarnation: outgoing.incarnation,
    };
    peer.set_outgoing(Arc::clone(&outgoing));
    let link = &outgoing.link;
    let replies = read_lane(
        Arc::clone(shared),
        speaker,
        replies,
        CONTROL_FRAME_BYTES_MAX,
    );
    tokio::select! {
        biased;
        why = link.closed() => return why,
        end = replies => end.close(shared, peer.id, link),
    }
    link.closed().await
}

/// Dials, and dials once more beside it when the peer shows itself meanwhile: it has just come up,
/// and the first attempt may be silent for long before it repeats what was lost. The first attempt
/// goes on, because giving it up could make two nodes that dial each other at once do so for ever.
async fn dial_seen(shared: &Shared, peer: &Peer) -> Result<Dialled, String> {
    let mut first = pin!(dial(shared, peer));
    tokio::select! {
        biased;
        result = &mut first => return result,
        () = peer.seen.notified() => {}
    }
    let second = dial(shared, peer);
    tokio::select! {
        biased;
        Ok(dialled) = first => Ok(dialled),
        result = second => result,
    }
}

/// One attempt at all addresses of the peer. The error is one line for people.
async fn dial(shared: &Shared, peer: &Peer) -> Result<Dialled, String> {
    let deadline = shared.options.dial_deadline;
    timeout(deadline, async {
        let name = &peer.address.address;
        let addresses = tokio::net::lookup_host(name.as_str())
            .await
            .map_err(|error| format!("cannot look up {name}: {error}"))?;
        let mut why = format!("{name} has no address");
        for address in addresses {
            match connect(shared, peer, address).await {
                Ok(dialled) => return Ok(dialled),
                Err(error) => why = error,
            }
        }
        Err(why)
    })
    .await
    .unwrap_or_else(|_elapsed| {
        let (name, ms) = (&peer.address.address, deadline.as_millis());
        Err(format!("{name} did not answer within {ms} ms"))
    })
}

async fn connect(shared: &Shared, peer: &Peer, address: SocketAddr) -> Result<Dialled, String> {
    let expected = Identity {
        cluster: shared.local.cluster.0,
        role: Role::Node(peer.id.0),
    };
    let link = shared
        .endpoint
        .connect(address, &expected, Protocol::Peer)
        .await
        .map_err(|error| error.to_string())?;
    let result = open_lanes(shared, peer, &link).await;
    if let Err(why) = &result {
        link.close(CLOSE_REFUSED, why);
    }
    result
}

/// Says hello, hears the answer, opens the lanes.
async fn open_lanes(shared: &Shared, peer: &Peer, link: &Link) -> Result<Dialled, String> {
    let text = |error: quic_link::LinkError| error.to_string();
    let (mut control, mut replies) = link.open_bi().await.map_err(text)?;
    control.set_priority(PRIORITY_CONTROL);
    let hello = Hello::new(&shared.local, peer.id, peer.address.incarnation);
    control
        .queue(KIND_HELLO, [Bytes::from(hello.encode())])
        .map_err(text)?;
    control.flush().await.map_err(text)?;
    let answer = replies
        .read(HELLO_BYTES_MAX)
        .await
        .map_err(text)?
        .filter(|frame| frame.kind == KIND_HELLO)
        .ok_or("the hello was not answered by one")?;
    let answer = Hello::decode(&answer.payload).map_err(|error| error.to_string())?;
    let incarnation = Incarnation(answer.from_incarnation);
    let boot = answer.boot;
    answer
        .check(link.peer(), &shared.local)
        .and_then(|id| shared.peers.check_boot(id, incarnation, boot))
        .map_err(|error| error.to_string())?;
    shared.note_incarnations(peer.id, &answer);
    let bulk = link.open_uni().await.map_err(text)?;
    let outgoing = Arc::new(Outgoing {
        link: link.clone(),
        incarnation,
        boot,
        control: Lane::new(link.clone(), control),
        bulk: Lane::new(link.clone(), bulk),
    });
    Ok(Dialled { outgoing, replies })
}

/// Pauses between dials: doubled each time, and random, so that nodes that fail together do not
/// come back together.
struct Backoff {
    options: QuicOptions,
    random: Random,
    ceiling: Duration,
}

impl Backoff {
    fn new(shared: &Shared, to: NodeId) -> Self {
        let local = &shared.local;
        let mut random = Random::new(local.incarnation.0 ^ local.boot.rotate_left(32));
        let seed = random.next_u64() ^ to.0;
        Self {
            options: shared.options,
            random: Random::new(seed),
            ceiling: shared.options.backoff_min,
        }
    }

    fn reset(&mut self) {
        self.ceiling = self.options.backoff_min;
    }

    /// Between half of the current ceiling and all of it.
    fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.options.backoff_max);
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.between(micros / 2, micros))
    }
}
