//! What the callers of a client and its background tasks share: the router behind a lock that is
//! never held across an await, room for calls, and the signals between the two sides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kv_api::limits::CONNECTION_REQUESTS_MAX;
use kv_api::{Response, SessionStamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::calls::{Completion, LANES, Lane, NewCall, Waiter};
use crate::error::ClientError;
use crate::router::{Effects, Outgoing, Router};

/// Calls of one client that are on their way at once; further callers wait.
pub const CALLS_MAX: usize = CONNECTION_REQUESTS_MAX;

/// Bytes of keys and values of calls that are on their way at once; further callers wait.
pub const CALLS_BYTES_MAX: usize = 64 << 20;

/// Room is counted in units, so that one counter bounds both the number of calls and their bytes.
const UNIT_BYTES: usize = 1 << 10;
const UNITS_MAX: usize = CALLS_BYTES_MAX / UNIT_BYTES;
const UNITS_PER_CALL_MIN: usize = UNITS_MAX / CALLS_MAX;

/// What is behind the lock.
#[derive(Debug)]
struct Locked {
    router: Router,
    /// Nobody watches deadlines, because there was nothing to watch.
    timekeeper_sleeps: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    locked: Mutex<Locked>,
    /// Room for calls.
    room: Arc<Semaphore>,
    /// The session was opened, expired, or has room again.
    session_moved: Notify,
    /// Wakes the timekeeper.
    work: Notify,
    /// Nodes that have to be connected to.
    discovered: mpsc::Sender<usize>,
    /// Becomes true when everything has to end.
    stopped: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(router: Router, discovered: mpsc::Sender<usize>) -> Arc<Self> {
        let locked = Locked {
            router,
            timekeeper_sleeps: false,
        };
        Arc::new(Self {
            locked: Mutex::new(locked),
            room: Arc::new(Semaphore::new(UNITS_MAX)),
            session_moved: Notify::new(),
            work: Notify::new(),
            discovered,
            stopped: watch::Sender::new(false),
        })
    }

    /// Runs a step of the router.
    pub(crate) fn with_router<T>(&self, step: impl FnOnce(&mut Router) -> T) -> T {
        step(&mut self.lock().router)
    }

    /// Every step leaves the router whole, so a panic elsewhere in a thread that held the lock does
    /// not make it unusable.
    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_timekeeper(&self, locked: &mut Locked) {
        if std::mem::take(&mut locked.timekeeper_sleeps) {
            self.work.notify_one();
        }
    }

    /// Does what a step of the router asked for. Returns how the node broke the protocol, if so.
    fn perform(&self, effects: Effects) -> Option<String> {
        for (caller, completion) in effects.completed {
            // A caller that has gone needs no answer.
            let _ = caller.send(completion);
        }
        for endpoint in effects.discovered {
            // There is room for every node that the router takes in.
            let _ = self.discovered.try_send(endpoint);
        }
        if effects.session_moved {
            self.session_moved.notify_waiters();
        }
        effects.violation
    }

    // What callers do.

    /// Waits for room for a call with this many bytes.
    pub(crate) async fn room(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, ClientError> {
        let units = bytes.div_ceil(UNIT_BYTES).max(UNITS_PER_CALL_MIN) as u32;
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let acquire = Arc::clone(&self.room).acquire_many_owned(units);
        match timeout_at(deadline, acquire).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(ClientError::Unavailable(format!(
                "too many calls on their way (limits {CALLS_MAX}, {CALLS_BYTES_MAX} bytes); {}",
                self.situation()
            ))),
        }
    }

    /// Numbers a write; waits for a session, and for room in its window.
    pub(crate) async fn stamp(&self, deadline: Instant) -> Result<SessionStamp, ClientError> {
        let refusals = self.with_router(|router| router.session().refusals());
        loop {
            let moved = self.session_moved.notified();
            tokio::pin!(moved);
            // Listening begins before looking, so that no change in between is missed.
            moved.as_mut().enable();
            {
                let mut locked = self.lock();
                if locked.router.is_closed() {
                    return Err(ClientError::Closed);
                }
                let session = locked.router.session();
                if session.refusals() != refusals {
                    return Err(ClientError::Refused(session.refusal().to_owned()));
                }
                if let Some(stamp) = locked.router.stamp(deadline, Instant::now()) {
                    return Ok(stamp);
                }
                self.wake_timekeeper(&mut locked);
            }
            if timeout_at(deadline, moved).await.is_err() {
                return Err(ClientError::Unavailable(format!(
                    "no session was given before the deadline; {}",
                    self.situation()
                )));
            }
        }
    }

    /// Makes a call and waits for what comes of it, at the latest shortly after its deadline.
    pub(crate) async fn call(&self, what: NewCall) -> Completion {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut locked = self.lock();
            if locked.router.is_stopped() {
                return Completion::closed();
            }
            let waiter = Waiter::Caller(sender);
            let id = locked.router.submit(what, waiter, Instant::now());
            self.wake_timekeeper(&mut locked);
            id
        };
        let mut cancel = CancelOnDrop {
            shared: self,
            call: Some(id),
        };
        let completion = receiver.await;
        cancel.call = None;
        completion.unwrap_or_else(|_| Completion::closed())
    }

    /// A write was answered that its session is not known.
    pub(crate) fn session_expired(&self, stamp: SessionStamp) {
        self.with_router(|router| router.session_expired(stamp.session));
        self.session_moved.notify_waiters();
    }

    /// Why nothing can be done, for an error message.
    pub(crate) fn situation(&self) -> String {
        self.with_router(|router| router.situation())
    }

    /// Takes no further calls, and waits until all that were taken have ended.
    pub(crate) async fn drain(&self) {
        self.with_router(Router::close);
        self.session_moved.notify_waiters();
        if let Ok(everything) = self.room.acquire_many(UNITS_MAX as u32).await {
            everything.forget();
        }
        self.room.close();
    }

    /// Makes all background tasks end.
    pub(crate) fn stop(&self) {
        let effects = self.with_router(Router::stop);
        self.perform(effects);
        self.stopped.send_replace(true);
    }

    // What background tasks do.

    /// Resolves when everything has to end.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// See [`Router::link_up`].
    pub(crate) fn link_up(&self, endpoint: usize) -> [Arc<Notify>; LANES] {
        let mut locked = self.lock();
        let ready = locked.router.link_up(endpoint, Instant::now());
        self.wake_timekeeper(&mut locked);
        ready
    }

    /// See [`Router::link_down`].
    pub(crate) fn link_down(&self, endpoint: usize, why: String) {
        let effects = self.with_router(|router| router.link_down(endpoint, why));
        self.perform(effects);
    }

    /// See [`Router::take_queued`].
    pub(crate) fn take_queued(&self, endpoint: usize, lane: Lane, requests: &mut Vec<Outgoing>) {
        self.with_router(|router| router.take_queued(endpoint, lane, Instant::now(), requests));
    }

    /// Takes what a node said. An error is how it broke the protocol.
    pub(crate) fn hear(
        &self,
        endpoint: usize,
        responses: impl Iterator<Item = Response>,
    ) -> Result<(), String> {
        let effects = self.with_router(|router| router.hear(endpoint, responses, Instant::now()));
        self.perform(effects).map_or(Ok(()), Err)
    }

    /// Watches over deadlines and waits while there is something to watch over.
    pub(crate) async fn keep_time(&self, interval: Duration, idle_ticks_max: u32) {
        let mut idle_ticks = 0;
        loop {
            tokio::time::sleep(interval).await;
            let (effects, sleeps) = {
                let mut locked = self.lock();
                let effects = locked.router.tick(Instant::now());
                idle_ticks = if locked.router.is_idle() {
                    idle_ticks + 1
                } else {
                    0
                };
                locked.timekeeper_sleeps = idle_ticks > idle_ticks_max;
                (effects, locked.timekeeper_sleeps)
            };
            self.perform(effects);
            if sleeps {
                self.work.notified().await;
                idle_ticks = 0;
            }
        }
    }
}

/// Takes a call back whose caller went away.
struct CancelOnDrop<'a> {
    shared: &'a Shared,
    call: Option<u64>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            let effects = self.shared.with_router(|router| router.cancel(call));
            self.shared.perform(effects);
        }
    }
}
