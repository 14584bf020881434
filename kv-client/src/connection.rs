//! The background tasks: one per node that keeps a connection open and moves frames, one that
//! watches the time, one over them. All decisions are the router's.
//!
//! ```text
//!   callers --> router queues --> writer of a lane --> one flush for all that is queued
//!   callers <-- router         <-- reader of a lane <-- all frames that have arrived
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kv_api::limits::FRAME_BYTES_MAX;
use kv_api::{Request, Response};
use quic_link::{Endpoint, Frame, FrameReader, FrameWriter, Identity, Link, Protocol, Role};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::calls::Lane;
use crate::config::Timeouts;
use crate::retry::BackOff;
use crate::shared::Shared;

/// Frame kinds of the client protocol.
pub(crate) const KIND_REQUEST: u8 = 1;
const KIND_RESPONSE: u8 = 2;

/// Waits between attempts to connect. Short, because a node that was just started again may lead
/// within half a second, and an attempt costs a few packets only.
const REDIAL: BackOff = BackOff {
    min: Duration::from_millis(20),
    max: Duration::from_millis(250),
};

/// A connection that lasted this long was a good one: the next attempt comes at once.
const GOOD_AFTER: Duration = Duration::from_secs(2);

/// How exactly deadlines are kept.
const TICK: Duration = Duration::from_millis(10);

/// Ticks without a call after which nobody watches the time: one second.
const IDLE_TICKS_MAX: u32 = 100;

/// Responses that are taken in one step.
const HEAR_BATCH_MAX: usize = 1024;

/// What is needed to connect to a node.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    /// The local end.
    pub(crate) endpoint: Endpoint,
    /// The cluster that a node must belong to.
    pub(crate) cluster: [u8; 16],
    /// How long things may take.
    pub(crate) timeouts: Timeouts,
}

/// Runs all background tasks of a client until it is stopped, then closes its connections.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    dialer: Dialer,
    mut discovered: mpsc::Receiver<usize>,
) {
    let mut tasks = JoinSet::new();
    {
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            tokio::select! {
                () = shared.keep_time(TICK, IDLE_TICKS_MAX) => {}
                () = shared.stopped() => {}
            }
        });
    }
    let configured = shared.with_router(|router| router.endpoints().len());
    for endpoint in 0..configured {
        tasks.spawn(maintain(Arc::clone(&shared), dialer.clone(), endpoint));
    }
    loop {
        tokio::select! {
            () = shared.stopped() => break,
            endpoint = discovered.recv() => match endpoint {
                Some(endpoint) => {
                    tasks.spawn(maintain(Arc::clone(&shared), dialer.clone(), endpoint));
                }
                None => break,
            },
        }
    }
    while tasks.join_next().await.is_some() {}
    dialer.endpoint.close("the client was closed").await;
}

/// Keeps a connection to one node open.
async fn maintain(shared: Arc<Shared>, dialer: Dialer, endpoint: usize) {
    let mut failures = 0;
    loop {
        let attempt = async {
            let link = dialer.dial(&shared, endpoint, failures).await?;
            let since = Instant::now();
            let why = serve(&shared, &link, endpoint).await;
            link.close(0, &why);
            Ok::<_, String>((since.elapsed() >= GOOD_AFTER, why))
        };
        let why = tokio::select! {
            () = shared.stopped() => return,
            ended = attempt => match ended {
                Ok((true, why)) => {
                    failures = 0;
                    why
                }
                Ok((false, why)) | Err(why) => {
                    failures += 1;
                    why
                }
            },
        };
        tracing::debug!(endpoint, failures, why, "not connected");
        shared.link_down(endpoint, why);
        let wait = shared.with_router(|router| REDIAL.wait(failures.max(1), router.jitter()));
        tokio::select! {
            () = shared.stopped() => return,
            () = sleep(wait) => {}
        }
    }
}

impl Dialer {
    /// One attempt to connect. Where a node is configured at one address and advertises another,
    /// attempts go to either in turn.
    pub(crate) async fn dial(
        &self,
        shared: &Shared,
        endpoint: usize,
        failures: u32,
    ) -> Result<Link, String> {
        let (id, address) = shared.with_router(|router| {
            let node = router.endpoints().at(endpoint);
            let address = match &node.advertised {
                Some(advertised) if failures % 2 == 1 => advertised,
                _ => &node.address,
            };
            (node.id, address.clone())
        });
        let expected = Identity {
            cluster: self.cluster,
            role: Role::Node(id),
        };
        let connect = async {
            let socket_address = self.resolve(&address).await?;
            self.endpoint
                .connect(socket_address, &expected, Protocol::Client)
                .await
                .map_err(|error| error.to_string())
        };
        match timeout(self.timeouts.connect, connect).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(why)) => Err(format!("node {id} at {address}: {why}")),
            Err(_) => {
                let millis = self.timeouts.connect.as_millis();
                Err(format!(
                    "node {id} at {address}: no answer within {millis} ms"
                ))
            }
        }
    }

    /// The first address of a host that the local end can reach.
    async fn resolve(&self, address: &str) -> Result<SocketAddr, String> {
        if let Ok(address) = address.parse() {
            return Ok(address);
        }
        let reaches_ipv6 = self.endpoint.local_addr().is_ipv6();
        tokio::net::lookup_host(address)
            .await
            .map_err(|error| error.to_string())?
            .find(|address| address.is_ipv4() || reaches_ipv6)
            .ok_or_else(|| "the host has no address that can be reached".to_owned())
    }
}

/// Moves frames over a connection until it ends. Returns why it did.
async fn serve(shared: &Shared, link: &Link, endpoint: usize) -> String {
    let (quick, bulk) = match (link.open_bi().await, link.open_bi().await) {
        (Ok(quick), Ok(bulk)) => (quick, bulk),
        (Err(error), _) | (_, Err(error)) => return error.to_string(),
    };
    let [quick_ready, bulk_ready] = shared.link_up(endpoint);
    let (mut quick_writer, mut quick_reader) = quick;
    let (mut bulk_writer, mut bulk_reader) = bulk;
    tokio::select! {
        why = write(shared, endpoint, Lane::Quick, &quick_ready, &mut quick_writer) => why,
        why = read(shared, endpoint, &mut quick_reader) => why,
        why = write(shared, endpoint, Lane::Bulk, &bulk_ready, &mut bulk_writer) => why,
        why = read(shared, endpoint, &mut bulk_reader) => why,
        why = link.closed() => why,
    }
}

/// Writes what is queued on a lane, everything there is in one flush.
async fn write(
    shared: &Shared,
    endpoint: usize,
    lane: Lane,
    ready: &Notify,
    writer: &mut FrameWriter,
) -> String {
    let mut requests = Vec::new();
    loop {
        ready.notified().await;
        // Callers that are about to run put their requests into the same flush.
        tokio::task::yield_now().await;
        loop {
            shared.take_queued(endpoint, lane, &mut requests);
            if requests.is_empty() {
                break;
            }
            for outgoing in requests.drain(..) {
                let request = Request {
                    id: outgoing.request,
                    body: outgoing.body,
                };
                let payload = kv_api::encode(&request).into();
                if let Err(error) = writer.queue(KIND_REQUEST, [payload]) {
                    return error.to_string();
                }
            }
            if let Err(error) = writer.flush().await {
                return error.to_string();
            }
        }
    }
}

/// Takes in what arrives on a lane, everything there is in one step.
async fn read(shared: &Shared, endpoint: usize, reader: &mut FrameReader) -> String {
    let mut responses: Vec<Response> = Vec::new();
    loop {
        let mut next = match reader.read(FRAME_BYTES_MAX).await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => return "the node ended the stream".to_owned(),
            Err(error) => return error.to_string(),
        };
        let mut broken = None;
        while let Some(frame) = next.take() {
            match response(&frame) {
                Ok(response) => responses.push(response),
                Err(why) => broken = Some(why),
            }
            if broken.is_none() && responses.len() < HEAR_BATCH_MAX {
                match reader.try_read(FRAME_BYTES_MAX) {
                    Ok(frame) => next = frame,
                    Err(error) => broken = Some(error.to_string()),
                }
            }
        }
        // What came before the first broken frame still counts.
        if let Err(why) = shared.hear(endpoint, responses.drain(..)) {
            return why;
        }
        if let Some(why) = broken {
            return why;
        }
    }
}

/// Reads a frame as a response.
pub(crate) fn response(frame: &Frame) -> Result<Response, String> {
    if frame.kind != KIND_RESPONSE {
        return Err(format!("a frame of kind {}, not a response", frame.kind));
    }
    kv_api::decode(&frame.payload).map_err(|error| error.to_string())
}
