//! Keeps one link to one peer: dial, hold, dial again.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_link::{CLOSE_NORMAL, Identity, Link, Protocol, Role};
use raft_core::NodeId;
use tokio::time::{Instant, sleep, timeout};

use super::hello::{HELLO_BYTES_MAX, Hello};
use super::peer::{Outgoing, Peer};
use super::{CLOSE_REFUSED, KIND_HELLO, QuicOptions, Shared, count};
use crate::random::Random;

/// Data of the control lane leaves before data of the bulk lane.
const CONTROL_PRIORITY: i32 = 1;

/// A link that lived this long was not part of the trouble before it: the back-off starts anew.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Runs until the transport ends it.
pub(super) async fn keep_link(shared: Arc<Shared>, to: NodeId) {
    let Some(peer) = shared.peers.get(&to) else {
        return; // Started for peers of the list only.
    };
    let mut backoff = Backoff::new(&shared, to);
    loop {
        match dial_seen(&shared, peer).await {
            Ok(outgoing) => {
                count(&shared.counters.links_dialled);
                tracing::info!(peer = %to, address = %outgoing.link.remote_addr(), "link is up");
                let outgoing = Arc::new(outgoing);
                let since = Instant::now();
                peer.set_outgoing(Arc::clone(&outgoing));
                let why = outgoing.link.closed().await;
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

/// Dials, and dials once more beside it when the peer shows itself meanwhile: it has just come up, and
/// the first attempt may be silent for long before it repeats what was lost. The first attempt goes
/// on, because giving it up could make two nodes that dial each other at once do so for ever.
async fn dial_seen(shared: &Shared, peer: &Peer) -> Result<Outgoing, String> {
    let mut first = pin!(dial(shared, peer));
    tokio::select! {
        biased;
        result = &mut first => return result,
        () = peer.seen.notified() => {}
    }
    let second = dial(shared, peer);
    tokio::select! {
        biased;
        Ok(outgoing) = first => Ok(outgoing),
        result = second => result,
    }
}

/// One attempt at all addresses of the peer. The error is one line for people.
async fn dial(shared: &Shared, peer: &Peer) -> Result<Outgoing, String> {
    let deadline = shared.options.dial_deadline;
    timeout(deadline, async {
        let name = &peer.address.address;
        let addresses = tokio::net::lookup_host(name.as_str())
            .await
            .map_err(|error| format!("cannot look up {name}: {error}"))?;
        let mut why = format!("{name} has no address");
        for address in addresses {
            match connect(shared, peer, address).await {
                Ok(outgoing) => return Ok(outgoing),
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

async fn connect(shared: &Shared, peer: &Peer, address: SocketAddr) -> Result<Outgoing, String> {
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
async fn open_lanes(shared: &Shared, peer: &Peer, link: &Link) -> Result<Outgoing, String> {
    let text = |error: quic_link::LinkError| error.to_string();
    let (mut control, mut answers) = link.open_bi().await.map_err(text)?;
    control.set_priority(CONTROL_PRIORITY);
    let hello = Hello::new(&shared.local, peer.id, peer.address.incarnation);
    control
        .queue(KIND_HELLO, [Bytes::from(hello.encode())])
        .map_err(text)?;
    control.flush().await.map_err(text)?;
    let answer = answers
        .read(HELLO_BYTES_MAX)
        .await
        .map_err(text)?
        .filter(|frame| frame.kind == KIND_HELLO)
        .ok_or("the hello was not answered by one")?;
    let answer = Hello::decode(&answer.payload).map_err(|error| error.to_string())?;
    answer
        .check(link.peer(), &shared.local, Some(&peer.address))
        .map_err(|error| error.to_string())?;
    let bulk = link.open_uni().await.map_err(text)?;
    Ok(Outgoing {
        link: link.clone(),
        boot: answer.boot,
        control: tokio::sync::Mutex::new(control),
        bulk: tokio::sync::Mutex::new(bulk),
    })
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

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.link.close(CLOSE_NORMAL, "not used any more");
    }
}
