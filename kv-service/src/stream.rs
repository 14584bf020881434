//! One stream of a client: requests in, responses out, many on the way at once.
//!
//! One task per stream reads, submits and answers; a request has no task of its own. In each turn
//! it takes in the requests that have arrived, starts them, writes every response that is ready in
//! one flush, and only then waits. While responses cannot leave, or the connection has as much
//! outstanding as it may, no further request is read: the client feels it as back-pressure.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kv_api::limits::{CONNECTION_REQUESTS_MAX, FRAME_BYTES_MAX};
use kv_api::{DecodeError, Outcome, Request, Response};
use quic_link::{Frame, FrameReader, FrameWriter, LinkError, Role};
use raft_core::RoleChange;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::handler::{self, Checked, Done, Service, Work};

/// The kind of a frame that carries a request.
pub const REQUEST_FRAME: u8 = 1;

/// The kind of a frame that carries a response.
pub const RESPONSE_FRAME: u8 = 2;

/// Requests that are taken in before responses get their turn.
const REQUESTS_PER_TURN_MAX: usize = 256;

/// Bytes of responses that are gathered for one flush; the last may go beyond it.
const FLUSH_BYTES_MAX: usize = 256 << 10;

/// How long a client may leave its responses lying before its connection is closed.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// What all streams of one connection may have outstanding together.
#[derive(Debug)]
pub(crate) struct ConnectionBudget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// The place of one request; given back when it is dropped.
#[derive(Debug)]
struct Place {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl ConnectionBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(CONNECTION_REQUESTS_MAX)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// A single request always fits, however large it counts.
    fn count(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX)
    }

    fn try_take(&self, bytes: usize) -> Option<Place> {
        let request = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        let count = self.count(bytes);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(count).ok()?;
        Some(Place {
            _request: request,
            _bytes: bytes,
        })
    }

    async fn take(&self, bytes: usize) -> Place {
        let never_closed = "a budget is never closed";
        let request = Arc::clone(&self.requests).acquire_owned();
        let request = request.await.expect(never_closed);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.count(bytes));
        let bytes = bytes.await.expect(never_closed);
        Place {
            _request: request,
            _bytes: bytes,
        }
    }
}

/// Why a stream ended before its client finished it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The link, or what came over it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A frame that is no request.
    #[error("frame of kind {0} instead of a request (kind {REQUEST_FRAME})")]
    Kind(u8),
    /// A request that cannot be read.
    #[error("not a request: {0}")]
    Malformed(#[from] DecodeError),
    /// A request whose response could not be told from a notice.
    #[error("request id 0 is reserved")]
    ZeroId,
    /// The client does not take its responses.
    #[error("responses were not taken for {} s", STALLED_MAX.as_secs())]
    Stalled,
}

impl StreamError {
    /// Whether the client broke the rules, so that its whole link is of no more use; otherwise only
    /// this stream, or the link by itself, has ended.
    pub(crate) fn is_violation(&self) -> bool {
        match self {
            Self::Link(
                LinkError::StreamEnded(_) | LinkError::StreamClosed | LinkError::Closed(_),
            ) => false,
            Self::Link(_) | Self::Kind(_) | Self::Malformed(_) | Self::ZeroId | Self::Stalled => {
                true
            }
        }
    }
}

/// Serves a stream until the client finishes it and has all its answers.
pub(crate) async fn serve(
    service: Arc<Service>,
    budget: Arc<ConnectionBudget>,
    role: Role,
    (writer, reader): (FrameWriter, FrameReader),
) -> Result<(), StreamError> {
    let responses = Responses { writer };
    let requests = Requests {
        reader,
        role,
        waited: None,
        held: None,
        ended: false,
    };
    let start = |accepted, place| execute(Arc::clone(&service), accepted, place);
    run(&service, &budget, responses, requests, start).await
}

/// The turns of a stream; see the head of this file.
async fn run<F: Future<Output = Answered>>(
    service: &Service,
    budget: &ConnectionBudget,
    mut responses: Responses,
    mut requests: Requests,
    start: impl Fn(Accepted, Place) -> F,
) -> Result<(), StreamError> {
    let mut leadership = service.leadership();
    let mut outstanding = FuturesUnordered::new();
    responses.queue_notice(service, &mut leadership)?;
    loop {
        for _ in 0..REQUESTS_PER_TURN_MAX {
            match requests.next_arrived()? {
                Some(Arrived::Accepted(accepted)) => match budget.try_take(accepted.bytes) {
                    Some(place) => outstanding.push(start(accepted, place)),
                    None => requests.held = Some(accepted),
                },
                Some(Arrived::Rejected(response)) => responses.queue(&response)?,
                None => break,
            }
        }
        while responses.has_room() {
            // Polling also starts what was pushed above.
            match outstanding.next().now_or_never() {
                Some(Some(answered)) => {
                    responses.queue(&answered.response)?;
                    outstanding.extend(answered.more.map(|(rest, place)| start(rest, place)));
                }
                Some(None) | None => break,
            }
        }
        responses.flush().await?;
        if requests.is_finished() && outstanding.is_empty() {
            responses.writer.finish();
            return Ok(());
        }
        let held_bytes = requests.held.as_ref().map(|accepted| accepted.bytes);
        tokio::select! {
            Some(answered) = outstanding.next() => {
                responses.queue(&answered.response)?;
                outstanding.extend(answered.more.map(|(rest, place)| start(rest, place)));
            }
            () = changed(&mut leadership) => responses.queue_notice(service, &mut leadership)?,
            place = budget.take(held_bytes.unwrap_or(0)), if held_bytes.is_some() => {
                if let Some(accepted) = requests.held.take() {
                    outstanding.push(start(accepted, place));
                }
            }
            result = requests.wait(), if requests.may_wait() => result?,
        }
    }
}

/// Waits for a change of who leads; for ever once the node has ended, when nothing changes any
/// more.
async fn changed(leadership: &mut watch::Receiver<RoleChange>) {
    if leadership.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What came of a request.
struct Answered {
    response: Response,
    /// The rest of the request, where the response is a part of the answer only. It is started when
    /// that part is queued, so that a client which takes its parts slowly holds up their making.
    more: Option<(Accepted, Place)>,
}

/// One outstanding request. It keeps its place until its last response is handed to the writer.
async fn execute(service: Arc<Service>, accepted: Accepted, place: Place) -> Answered {
    let Accepted { id, work, bytes } = accepted;
    let Done { outcome, more } = service.execute(work).await;
    Answered {
        response: Response { id, outcome },
        more: more.map(|work| (Accepted { id, work, bytes }, place)),
    }
}

/// The responses of a stream.
struct Responses {
    writer: FrameWriter,
}

impl Responses {
    fn queue(&mut self, response: &Response) -> Result<(), StreamError> {
        let payload = Bytes::from(kv_api::encode(response));
        Ok(self.writer.queue(RESPONSE_FRAME, [payload])?)
    }

    fn queue_notice(
        &mut self,
        service: &Service,
        leadership: &mut watch::Receiver<RoleChange>,
    ) -> Result<(), StreamError> {
        let change = *leadership.borrow_and_update();
        let outcome = Outcome::Notice(service.notice(change));
        self.queue(&Response { id: 0, outcome })
    }

    fn has_room(&self) -> bool {
        self.writer.queued_bytes() < FLUSH_BYTES_MAX
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        if self.writer.queued_bytes() == 0 {
            return Ok(());
        }
        match tokio::time::timeout(STALLED_MAX, self.writer.flush()).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(StreamError::Stalled),
        }
    }
}

/// A request that passed its checks.
struct Accepted {
    id: u64,
    work: Work,
    /// What it takes of the connection's bytes.
    bytes: usize,
}

/// A request that has arrived.
enum Arrived {
    /// It may be started.
    Accepted(Accepted),
    /// It failed its checks; this is the answer.
    Rejected(Response),
}

/// The requests of a stream.
struct Requests {
    reader: FrameReader,
    /// What the client's certificate speaks for.
    role: Role,
    /// A frame that was waited for, and is not looked at yet.
    waited: Option<Frame>,
    /// A request that waits for a place in the budget. Nothing is read past it.
    held: Option<Accepted>,
    /// The client sends no more.
    ended: bool,
}

impl Requests {
    /// The next request, if one has arrived and none is held.
    fn next_arrived(&mut self) -> Result<Option<Arrived>, StreamError> {
        if self.held.is_some() {
            return Ok(None);
        }
        let frame = match self.waited.take() {
            Some(frame) => Some(frame),
            None if self.ended => None,
            None => self.reader.try_read(FRAME_BYTES_MAX)?,
        };
        let Some(frame) = frame else {
            return Ok(None);
        };
        if frame.kind != REQUEST_FRAME {
            return Err(StreamError::Kind(frame.kind));
        }
        let Request { id, body } = kv_api::decode(&frame.payload)?;
        if id == 0 {
            return Err(StreamError::ZeroId);
        }
        Ok(Some(match handler::check(body, self.role) {
            Ok(Checked { work, bytes }) => Arrived::Accepted(Accepted { id, work, bytes }),
            Err(rejection) => Arrived::Rejected(Response {
                id,
                outcome: rejection.into(),
            }),
        }))
    }

    fn may_wait(&self) -> bool {
        !self.ended && self.held.is_none() && self.waited.is_none()
    }

    /// Waits for the next frame, or for the end. May be cancelled.
    async fn wait(&mut self) -> Result<(), StreamError> {
        match self.reader.read(FRAME_BYTES_MAX).await? {
            Some(frame) => self.waited = Some(frame),
            None => self.ended = true,
        }
        Ok(())
    }

    /// Whether no request will come out of it any more.
    fn is_finished(&self) -> bool {
        self.ended && self.held.is_none() && self.waited.is_none()
    }
}
